//! From one kind to another: what was written when a field had another kind, as its present kind
//! wants it. A generation of a type may declare other kinds than the one before.

use std::collections::BTreeMap;

use fieldkeep_model::{Edit, Scalar};
use serde_json::{Map, Value};

use crate::object::{Field, Kind, ObjectType};
use crate::values::child_of;

impl Kind {
    /// Whether what a field of this kind holds can be brought into one of that kind: children stay
    /// children, and nothing else becomes any.
    #[must_use]
    pub fn becomes(self, other: Self) -> bool {
        self == other || !self.has_children() && !other.has_children()
    }
}

impl ObjectType {
    /// Edits as this type's kinds want them, upon a record that reads like that. What cannot be
    /// brought into a kind, a word into a counter say, stays as it was written: the record is held
    /// for it then, and nothing is lost.
    #[must_use]
    pub fn refit(&self, edits: Vec<Edit>, current: &Map<String, Value>) -> Vec<Edit> {
        refit(&self.fields, edits, current)
    }

    /// What of a record's whole content is to be written for one that reads like that to come to it:
    /// nothing of what it has already, and of counters the difference.
    #[must_use]
    pub fn towards(&self, content: Vec<Edit>, current: &Map<String, Value>) -> Vec<Edit> {
        lacking(content, current)
    }

    /// The fields with values that were right for their kind in another declaration of the type, and
    /// cannot be brought into the kind that they have here: `stock`, `lines[7].quantity`.
    #[must_use]
    pub fn unfit(&self, before: &Self, fields: &Map<String, Value>) -> Vec<String> {
        unfit(&self.fields, &before.fields, fields)
    }
}

fn unfit(
    new: &BTreeMap<String, Field>,
    old: &BTreeMap<String, Field>,
    values: &Map<String, Value>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in values {
        let (Some(new), Some(old)) = (new.get(name), old.get(name)) else { continue };
        if new.kind.has_children() {
            for child in value.as_array().into_iter().flatten().filter_map(Value::as_object) {
                let id = child.get("id").and_then(Value::as_str).unwrap_or_default();
                let inner = unfit(&new.children, &old.children, child).into_iter();
                found.extend(inner.map(|field| format!("{name}[{id}].{field}")));
            }
        } else if new.kind != old.kind && !fits(new.kind, value) {
            found.push(name.clone());
        }
    }
    found
}

/// Whether a value can be brought into a kind.
fn fits(kind: Kind, value: &Value) -> bool {
    match kind {
        Kind::Register => value.is_null() || scalar_of(value).is_some(),
        Kind::Counter => value.is_null() || whole(value).is_some(),
        Kind::Text | Kind::Json | Kind::Set | Kind::Attachment => true,
    }
}

fn refit(
    fields: &BTreeMap<String, Field>,
    edits: Vec<Edit>,
    current: &Map<String, Value>,
) -> Vec<Edit> {
    let mut current = current.clone();
    let mut fitted = Vec::with_capacity(edits.len());
    for edit in edits {
        let Some(field) = fields.get(edit.field()) else {
            fitted.push(edit);
            continue;
        };
        let edit = match edit {
            Edit::Child(set, id, inner) => {
                let child = child_of(&current, &set, &id).cloned().unwrap_or_default();
                let inner = refit(&field.children, inner, &child);
                Edit::Child(set, id, inner)
            }
            Edit::Put(..)
            | Edit::Json(..)
            | Edit::Text(..)
            | Edit::Add(..)
            | Edit::Clear(_)
            | Edit::RemoveChild(..) => as_kind(field.kind, edit, &mut current),
        };
        fitted.push(edit);
    }
    fitted
}

/// What of a content one that reads like that lacks.
fn lacking(content: Vec<Edit>, current: &Map<String, Value>) -> Vec<Edit> {
    let mut counted: BTreeMap<String, i64> = BTreeMap::new();
    let mut edits = Vec::with_capacity(content.len());
    for edit in content {
        let here = current.get(edit.field());
        match edit {
            Edit::Add(field, by) => {
                let total = counted.entry(field).or_default();
                *total = total.saturating_add(by);
            }
            Edit::Put(_, ref scalar) if here == Some(&json_of(scalar)) => {}
            Edit::Text(_, ref text) if here.and_then(Value::as_str) == Some(text) => {}
            Edit::Child(set, id, inner) => {
                let inner = lacking(inner, child_of(current, &set, &id).unwrap_or(&Map::new()));
                edits.push(Edit::Child(set, id, inner));
            }
            Edit::Put(..)
            | Edit::Json(..)
            | Edit::Text(..)
            | Edit::Clear(_)
            | Edit::RemoveChild(..) => edits.push(edit),
        }
    }
    for (field, total) in counted {
        let here = current.get(&field).and_then(Value::as_i64);
        if here != Some(total) {
            edits.push(Edit::Add(field, total.saturating_sub(here.unwrap_or_default())));
        }
    }
    edits
}

/// One edit of a field that is no set, as a kind wants it; notes in `current` what it sets.
fn as_kind(kind: Kind, edit: Edit, current: &mut Map<String, Value>) -> Edit {
    let fits = match (&edit, kind) {
        (Edit::Clear(_) | Edit::Child(..) | Edit::RemoveChild(..), _)
        | (Edit::Put(..), Kind::Register)
        | (Edit::Add(..), Kind::Counter)
        | (Edit::Text(..), Kind::Text)
        | (Edit::Json(..), Kind::Json)
        | (_, Kind::Set | Kind::Attachment) => true,
        (Edit::Put(..) | Edit::Json(..) | Edit::Text(..) | Edit::Add(..), _) => false,
    };
    if fits {
        return edit;
    }
    let field = edit.field().to_owned();
    let value = match &edit {
        Edit::Put(_, scalar) => json_of(scalar),
        Edit::Text(_, text) => Value::from(text.as_str()),
        Edit::Json(_, text) => serde_json::from_str(text).unwrap_or_default(),
        Edit::Add(_, by) => {
            let before = current.get(&field).and_then(Value::as_i64).unwrap_or_default();
            Value::from(before.saturating_add(*by))
        }
        Edit::Clear(_) | Edit::Child(..) | Edit::RemoveChild(..) => Value::Null,
    };
    let fitted = match kind {
        Kind::Register => scalar_of(&value).map(|scalar| Edit::Put(field.clone(), scalar)),
        Kind::Text => text_of(&value).map(|text| Edit::Text(field.clone(), text)),
        Kind::Json => Some(Edit::Json(field.clone(), value.to_string())),
        Kind::Counter => {
            let before = current.get(&field).and_then(Value::as_i64).unwrap_or_default();
            whole(&value).map(|total| Edit::Add(field.clone(), total.saturating_sub(before)))
        }
        Kind::Set | Kind::Attachment => None,
    };
    current.insert(field, value);
    fitted.unwrap_or(edit)
}

fn json_of(scalar: &Scalar) -> Value {
    match scalar {
        Scalar::Bool(flag) => (*flag).into(),
        Scalar::Int(number) => (*number).into(),
        Scalar::Float(number) => serde_json::json!(number),
        Scalar::Str(text) => text.as_str().into(),
    }
}

fn scalar_of(value: &Value) -> Option<Scalar> {
    match value {
        Value::Bool(flag) => Some(Scalar::Bool(*flag)),
        Value::String(text) => Some(Scalar::Str(text.clone())),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Some(Scalar::Int(whole)),
            None => number.as_f64().map(Scalar::Float),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Some(value.to_string())
        }
    }
}

/// A whole number, also one that was written as a text or as `3.0`.
fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.as_i64().or_else(|| {
                let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
                (number.abs() < 9e15).then_some(number as i64)
            })
        }
    }
}
