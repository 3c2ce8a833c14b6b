//! From what a record shows to what a field of it is to be: counters take the difference, a set
//! loses the children that it is to do without, and a field that is not to be there is cleared.

use std::collections::BTreeSet;

use fieldkeep_model::Edit;
use serde_json::{Map, Value};

use super::{Place, ValueError};
use crate::object::{Field, Kind, ObjectType};

impl ObjectType {
    /// The edits after which a record that shows one content has a field as in another: `customer`,
    /// or `lines[7].quantity` for a field of a child. Concurrent values of it are settled by them.
    /// Children that are removed are to be among what is shown: one that is brought back has what it
    /// had.
    ///
    /// # Errors
    /// A field that is unknown, or a value that it cannot hold.
    pub fn edits_towards(
        &self,
        field: &str,
        shown: &Map<String, Value>,
        wanted: Option<&Value>,
    ) -> Result<Vec<Edit>, ValueError> {
        let place = Place::of(self);
        let Some((set, id, inner)) = child_field(field) else {
            let (name, field) = place.field(field)?;
            return place.towards(name, field, shown.get(name), wanted);
        };
        let (name, field) = place.set(set)?;
        let children = Place::within(name, field);
        let (inner, field) = children.field(inner)?;
        let child = child_of(shown, name, id);
        let edits = children.towards(inner, field, child.and_then(|c| c.get(inner)), wanted)?;
        Ok(vec![Edit::Child(name.to_owned(), place.child_id(name, id)?, edits)])
    }
}

impl ObjectType {
    /// The edits after which a record that shows one content has all fields as in another; `whole` is
    /// the one with removed children. What is alike is left as it is, but for fields that are
    /// `unsettled`, whose concurrent values are to go; so is the scope field, which says where the
    /// record is kept.
    ///
    /// # Errors
    /// A field that is unknown, or a value that it cannot hold.
    pub fn edits_back(
        &self,
        shown: &Map<String, Value>,
        whole: &Map<String, Value>,
        wanted: &Map<String, Value>,
        unsettled: &[String],
    ) -> Result<Vec<Edit>, ValueError> {
        let is_unsettled = |name: &str| {
            let field = |path: &String| path.split(['[', '.']).next() == Some(name);
            unsettled.iter().any(field)
        };
        let names: BTreeSet<&String> = shown.keys().chain(wanted.keys()).collect();
        let mut edits = Vec::new();
        for name in names.into_iter().filter(|name| self.scope.as_ref() != Some(*name)) {
            let (is, was) = (shown.get(name), wanted.get(name));
            if is != was || is_unsettled(name) {
                edits.extend(self.edits_towards(name, whole, was)?);
            }
        }
        Ok(edits)
    }
}

/// The value of a field: `customer`, or `lines[7].quantity` for a field of a child.
#[must_use]
pub fn value_of<'v>(fields: &'v Map<String, Value>, field: &str) -> Option<&'v Value> {
    match child_field(field) {
        Some((set, id, inner)) => child_of(fields, set, id)?.get(inner),
        None => fields.get(field),
    }
}

/// The parts of `lines[7].quantity`.
fn child_field(field: &str) -> Option<(&str, &str, &str)> {
    let (set, rest) = field.split_once('[')?;
    let (id, inner) = rest.split_once("].")?;
    Some((set, id, inner))
}

/// A child of a set by its id.
#[must_use]
pub fn child_of<'v>(
    fields: &'v Map<String, Value>,
    set: &str,
    id: &str,
) -> Option<&'v Map<String, Value>> {
    let mut children = fields.get(set)?.as_array()?.iter().filter_map(Value::as_object);
    children.find(|child| child.get("id").and_then(Value::as_str) == Some(id))
}

impl Place<'_> {
    fn towards(
        &self,
        name: &str,
        field: &Field,
        shown: Option<&Value>,
        wanted: Option<&Value>,
    ) -> Result<Vec<Edit>, ValueError> {
        let Some(wanted) = wanted else { return Ok(vec![Edit::Clear(name.to_owned())]) };
        match field.kind {
            Kind::Counter => {
                let shown = shown.and_then(Value::as_i64).unwrap_or_default();
                let by = wanted.as_i64().and_then(|wanted| wanted.checked_sub(shown));
                // Adding nothing settles concurrent counters on the one that is shown.
                Ok(vec![self.count(name, field, Some(0))?, self.count(name, field, by)?])
            }
            Kind::Set | Kind::Attachment => self.set_towards(name, field, shown, wanted),
            Kind::Register | Kind::Text | Kind::Json => Ok(vec![self.json(name, field, wanted)?]),
        }
    }

    fn set_towards(
        &self,
        name: &str,
        set: &Field,
        shown: Option<&Value>,
        wanted: &Value,
    ) -> Result<Vec<Edit>, ValueError> {
        let wanted =
            by_id(wanted).ok_or_else(|| self.refused(name, "expected a list of children"))?;
        let shown = shown.and_then(by_id).unwrap_or_default();
        let within = Place::within(name, set);
        let mut edits = Vec::new();
        for (id, child) in &wanted {
            let before = shown.iter().find(|(other, _)| other == id).map(|(_, child)| *child);
            let fields = child.keys().chain(before.into_iter().flat_map(Map::keys));
            let fields: BTreeSet<_> = fields.filter(|field| *field != "id").collect();
            let mut inner = Vec::new();
            for field in fields {
                let (field, kind) = within.field(field)?;
                let before = before.and_then(|before| before.get(field));
                inner.extend(within.towards(field, kind, before, child.get(field))?);
            }
            edits.push(Edit::Child(name.to_owned(), self.child_id(name, id)?, inner));
        }
        let gone = shown.iter().filter(|(id, _)| wanted.iter().all(|(other, _)| other != id));
        edits.extend(gone.map(|(id, _)| Edit::RemoveChild(name.to_owned(), (*id).to_owned())));
        Ok(edits)
    }
}

/// The children of a set with their ids; `None` if it is none.
fn by_id(set: &Value) -> Option<Vec<(&str, &Map<String, Value>)>> {
    let children = set.as_array()?.iter().map(|child| {
        let child = child.as_object()?;
        Some((child.get("id")?.as_str()?, child))
    });
    children.collect()
}
