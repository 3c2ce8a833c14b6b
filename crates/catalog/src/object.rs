//! Object types: their fields, and what can be read off a record by its type alone.

use std::collections::BTreeMap;

use fieldkeep_model::{RecordId, SegmentAddress, TypeName};
use jsonschema::Validator;
use serde_json::{Map, Value};

use crate::error::Place;
use crate::rule::Rule;

/// How a field merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A scalar; of concurrent writes one wins and the others are shown as a conflict.
    Register,
    /// A whole number to which concurrent writers add.
    Counter,
    /// A text that several people may edit at once.
    Text,
    /// Children by id, each with fields of its own.
    Set,
    /// Any JSON value, replaced whole.
    Json,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Register, Self::Counter, Self::Text, Self::Set, Self::Json];

    /// The word for it in a catalog.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Counter => "counter",
            Self::Text => "text",
            Self::Set => "set",
            Self::Json => "json",
        }
    }
}

/// A field of an object type, or of the children of a set.
#[derive(Debug)]
pub struct Field {
    /// How it merges.
    pub kind: Kind,
    /// The type that the value refers to. On a set: the children's ids are ids of that type.
    pub reference: Option<TypeName>,
    /// Whether a record without it is held.
    pub required: bool,
    /// Whether no two records of the type may have the same value.
    pub unique: bool,
    /// The JSON Schema that a value meets.
    pub schema: Option<Value>,
    /// The fields of a set's children; empty for other kinds.
    pub children: BTreeMap<String, Self>,
    pub(crate) validator: Option<Validator>,
    pub(crate) place: Place,
}

/// A value that refers to another record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The field, as `customer_id` or `lines.product`; `lines` where the children's ids refer.
    pub field: String,
    /// The type of the record referred to.
    pub ty: TypeName,
    /// Its id.
    pub id: RecordId,
}

/// An object type.
#[derive(Debug)]
pub struct ObjectType {
    /// Its name.
    pub name: TypeName,
    /// The register whose value at creation says which scope a record lies in.
    pub scope: Option<String>,
    /// Into how many segments each scope is divided: a power of two.
    pub buckets: u32,
    /// Its fields by name.
    pub fields: BTreeMap<String, Field>,
    /// Its rules, in the catalog's order.
    pub rules: Vec<Rule>,
    pub(crate) place: Place,
}

impl ObjectType {
    /// The segment in which a record of that scope lies.
    #[must_use]
    pub fn address(&self, id: &RecordId, scope: &str, generation: u32) -> SegmentAddress {
        SegmentAddress {
            ty: self.name.clone(),
            scope: scope.to_owned(),
            buckets: self.buckets,
            bucket: id.bucket(self.buckets),
            generation,
        }
    }

    /// The scope field's value as text; empty if it is absent or the type has none.
    #[must_use]
    pub fn scope_of(&self, fields: &Map<String, Value>) -> String {
        let value = self.scope.as_ref().and_then(|scope| fields.get(scope));
        value.and_then(scalar_text).unwrap_or_default()
    }

    /// The records that a record refers to, in the order of its fields. Values that cannot be ids
    /// are left out: judging reports them.
    #[must_use]
    pub fn references(&self, fields: &Map<String, Value>) -> Vec<Reference> {
        let mut found = Vec::new();
        for (name, field) in &self.fields {
            let Some(value) = fields.get(name) else {
                continue;
            };
            if field.kind == Kind::Set {
                child_references(name, field, value, &mut found);
            } else if let Some(ty) = &field.reference {
                found.extend(reference(name.clone(), ty, value));
            }
        }
        found
    }

    /// Whether a rule may read `previous`: whoever judges need not look it up elsewhere.
    #[must_use]
    pub fn reads_previous(&self) -> bool {
        self.rules.iter().any(|rule| rule.cel.contains("previous"))
    }

    /// The values that no other record of the type may have, with their fields. Numbers are
    /// compared by their text.
    #[must_use]
    pub fn unique_values(&self, fields: &Map<String, Value>) -> Vec<(String, String)> {
        let unique = self.fields.iter().filter(|(_, field)| field.unique);
        let values = unique.filter_map(|(name, _)| Some((name, fields.get(name)?)));
        values.filter_map(|(name, value)| Some((name.clone(), scalar_text(value)?))).collect()
    }
}

fn child_references(name: &str, field: &Field, value: &Value, found: &mut Vec<Reference>) {
    for child in value.as_array().into_iter().flatten().filter_map(Value::as_object) {
        if let (Some(ty), Some(id)) = (&field.reference, child.get("id")) {
            found.extend(reference(name.to_owned(), ty, id));
        }
        for (inner, field) in &field.children {
            if let (Some(ty), Some(value)) = (&field.reference, child.get(inner)) {
                found.extend(reference(format!("{name}.{inner}"), ty, value));
            }
        }
    }
}

fn reference(field: String, ty: &TypeName, value: &Value) -> Option<Reference> {
    let id = RecordId::new(scalar_text(value)?).ok()?;
    Some(Reference { field, ty: ty.clone(), id })
}

/// A scalar as text; nothing for null, lists and objects.
pub(crate) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
