//! JSON as CEL sees it. Texts are borrowed; what no rule of the type reads is left out.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString,
};
use cel::common::value::Val;
use serde_json::{Map, Number, Value};

use crate::object::Field;

/// A value that borrows from the record.
pub(crate) type Borrowed<'v> = Box<dyn Val + 'v>;

/// The fields of a record that rules need. An absent set is an empty one.
pub(crate) fn record<'v>(
    fields: &'v Map<String, Value>,
    declared: &BTreeMap<String, Field>,
    needed: impl Iterator<Item = &'v str>,
) -> Borrowed<'v> {
    let mut map: HashMap<CelMapKey<'v>, Borrowed<'v>> = HashMap::new();
    for name in needed {
        if let Some(value) = fields.get(name) {
            map.insert(CelMapKey::from(name), val(value));
        } else if declared.get(name).is_some_and(|field| field.kind.has_children()) {
            map.insert(CelMapKey::from(name), Box::new(CelList::from(Vec::<Borrowed<'v>>::new())));
        }
    }
    Box::new(CelMap::from(map))
}

/// `refs`: by field the referent's fields, or null.
pub(crate) fn refs<'v>(entries: Vec<(&'v str, Option<Borrowed<'v>>)>) -> Borrowed<'v> {
    let entries = entries.into_iter();
    let map: HashMap<CelMapKey<'v>, Borrowed<'v>> = entries
        .map(|(field, value)| (CelMapKey::from(field), value.unwrap_or_else(null)))
        .collect();
    Box::new(CelMap::from(map))
}

/// Null.
pub(crate) fn null<'v>() -> Borrowed<'v> {
    Box::new(CelNull)
}

/// The fields that any of several rules needs.
pub(crate) fn needed<'a>(sets: impl Iterator<Item = &'a BTreeSet<String>>) -> BTreeSet<&'a str> {
    sets.flatten().map(String::as_str).collect()
}

/// Any JSON value.
pub(crate) fn val(value: &Value) -> Borrowed<'_> {
    match value {
        Value::Null => null(),
        Value::Bool(flag) => Box::new(CelBool::from(*flag)),
        Value::Number(number) => numeric(number),
        Value::String(text) => Box::new(CelString::from(text.as_str())),
        Value::Array(items) => Box::new(CelList::from(items.iter().map(val).collect::<Vec<_>>())),
        Value::Object(object) => {
            let entry = |(key, value)| (CelMapKey::from(String::as_str(key)), val(value));
            Box::new(CelMap::from(object.iter().map(entry).collect::<HashMap<_, _>>()))
        }
    }
}

/// Whole numbers of 64 bits are ints, all others doubles; what no double holds, a text.
fn numeric<'v>(number: &Number) -> Borrowed<'v> {
    if let Some(int) = number.as_i64() {
        Box::new(CelInt::from(int))
    } else if let Some(double) = number.as_f64().filter(|double| double.is_finite()) {
        Box::new(CelDouble::from(double))
    } else {
        Box::new(CelString::from(number.to_string()))
    }
}

/// A value as JSON, or why it has no such form.
pub(crate) fn json(value: &cel::Value) -> Result<Value, String> {
    match value {
        cel::Value::Int(int) => Ok((*int).into()),
        cel::Value::UInt(int) => Ok((*int).into()),
        cel::Value::String(text) => Ok(Value::String(text.as_ref().clone())),
        cel::Value::Bool(flag) => Ok((*flag).into()),
        cel::Value::Null => Ok(Value::Null),
        cel::Value::Float(float) => Number::from_f64(*float)
            .map(Value::Number)
            .ok_or_else(|| "it is no finite number".to_owned()),
        cel::Value::List(items) => items.iter().map(json).collect(),
        cel::Value::Map(map) => {
            let entry = |(key, value): (&cel::objects::Key, &cel::Value)| {
                Ok((key.to_string(), json(value)?))
            };
            // Sorted, so that the same value is always the same text.
            let entries: Result<BTreeMap<String, Value>, String> =
                map.map.iter().map(entry).collect();
            Ok(Value::Object(entries?.into_iter().collect()))
        }
        cel::Value::Function(..)
        | cel::Value::Bytes(_)
        | cel::Value::Opaque(_)
        | cel::Value::Struct(_) => Err("a value of this kind cannot be kept".to_owned()),
    }
}
