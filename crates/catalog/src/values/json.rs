//! JSON objects: absent fields stay, null clears, a set is a list of objects with an `id` each.

use fieldkeep_model::{Edit, RecordEdit, Scalar};
use serde_json::{Map, Number, Value};

use super::{Place, ValueError};
use crate::object::{Field, Kind, ObjectType};
use crate::schema::Scalars;

impl ObjectType {
    /// The edit that a JSON object says.
    ///
    /// Absent fields stay and null clears. A counter's number is added: it is the total of a record
    /// that is new. Of a set the children given are written, the others stay;
    /// `{"id": …, "deleted": true}` removes one. A value of the json kind is replaced whole.
    ///
    /// # Errors
    /// The first field that is unknown or given what it cannot hold.
    pub fn edit_from_json(&self, object: &Map<String, Value>) -> Result<RecordEdit, ValueError> {
        let place = Place::of(self);
        let edits = object.iter().map(|(name, value)| place.json_field(name, value));
        Ok(edits.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect::<Vec<_>>().into())
    }
}

impl Place<'_> {
    fn json_field(&self, name: &str, value: &Value) -> Result<Vec<Edit>, ValueError> {
        let (name, field) = self.field(name)?;
        if value.is_null() {
            Ok(vec![Edit::Clear(name.to_owned())])
        } else if field.kind.has_children() {
            self.json_children(name, field, value)
        } else {
            Ok(vec![self.json(name, field, value)?])
        }
    }

    /// The edit that sets a field, other than a set, to a JSON value.
    pub(super) fn json(
        &self,
        name: &str,
        field: &Field,
        value: &Value,
    ) -> Result<Edit, ValueError> {
        let owned = name.to_owned();
        match field.kind {
            Kind::Register => {
                let scalar = self.json_scalar(name, field, value)?;
                Ok(Edit::Put(owned, scalar))
            }
            Kind::Text => match value.as_str() {
                Some(text) => Ok(Edit::Text(owned, text.to_owned())),
                None => Err(self.refused(name, "expected a text in quotes")),
            },
            Kind::Counter => self.count(name, field, value.as_i64()),
            Kind::Json => Ok(Edit::Json(owned, value.to_string())),
            Kind::Set | Kind::Attachment => {
                Err(self.refused(name, format!("write {name}[ID].field=value")))
            }
        }
    }

    fn json_scalar(&self, name: &str, field: &Field, value: &Value) -> Result<Scalar, ValueError> {
        match value {
            Value::Bool(flag) => Ok(Scalar::Bool(*flag)),
            Value::String(text) => Ok(Scalar::Str(text.clone())),
            Value::Number(number) => {
                let scalar = json_number(number, Scalars::of(field.schema.as_ref()));
                let large =
                    "expected a whole number of 64 bits or a finite one: write it as a text";
                scalar.ok_or_else(|| self.refused(name, large))
            }
            Value::Null | Value::Array(_) | Value::Object(_) => {
                let problem =
                    "expected a single value: declare the field with kind = \"json\" for more";
                Err(self.refused(name, problem))
            }
        }
    }

    /// The children that the JSON text of a list says.
    pub(super) fn json_list(
        &self,
        name: &str,
        set: &Field,
        text: &str,
    ) -> Result<Vec<Edit>, ValueError> {
        let value = serde_json::from_str(text)
            .map_err(|error| self.refused(name, format!("expected JSON: {error}")))?;
        self.json_children(name, set, &value)
    }

    fn json_children(
        &self,
        name: &str,
        set: &Field,
        value: &Value,
    ) -> Result<Vec<Edit>, ValueError> {
        let children = value.as_array();
        let children = children.ok_or_else(|| self.refused(name, "expected a list of children"))?;
        children.iter().map(|child| self.json_child(name, set, child)).collect()
    }

    fn json_child(&self, name: &str, set: &Field, child: &Value) -> Result<Edit, ValueError> {
        let nameless = || ValueError::ChildId { field: name.to_owned() };
        let child = child.as_object().ok_or_else(nameless)?;
        let id = child.get("id").and_then(Value::as_str).ok_or_else(nameless)?;
        let id = self.child_id(name, id)?;
        if child.get("deleted") == Some(&Value::Bool(true)) {
            return Ok(Edit::RemoveChild(name.to_owned(), id));
        }
        let place = Place::within(name, set);
        let fields = child.iter().filter(|(key, _)| !matches!(key.as_str(), "id" | "deleted"));
        let edits = fields.map(|(key, value)| place.json_field(key, value));
        let edits = edits.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        Ok(Edit::Child(name.to_owned(), id, edits))
    }
}

/// A number as a register holds it. Where the schema says `number`, whole ones are doubles too.
fn json_number(number: &Number, admitted: Scalars) -> Option<Scalar> {
    const EXACT: u64 = 1 << 53;
    if let Some(int) = number.as_i64() {
        let double = admitted.float && !admitted.int && int.unsigned_abs() <= EXACT;
        return Some(if double { Scalar::Float(int as f64) } else { Scalar::Int(int) });
    }
    let whole = number.to_string().bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
    let float = number.as_f64().filter(|float| float.is_finite() && !whole);
    float.map(Scalar::Float)
}
