//! One form for the records of all engines, so that their contents can be compared.
//!
//! Keys ascend, children are arrays ordered by id, and a number is written without a point when it
//! is whole: some engines do not tell 3 from 3.0.

use fieldkeep_model::RecordId;
use serde_json::{Map, Number, Value};

use super::Engine;

/// A number of any engine as JSON; those that JSON cannot hold become null.
pub(super) fn float(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// The children of a set, which an engine holds as a map, as an array ordered by id.
pub(super) fn children(map: Map<String, Value>) -> Value {
    let mut children: Vec<_> = map.into_iter().collect();
    children.sort_by(|a, b| a.0.cmp(&b.0));
    let child = |(id, fields): (String, Value)| {
        let mut object = Map::new();
        object.insert("id".to_owned(), id.into());
        if let Value::Object(fields) = fields {
            object.extend(fields);
        }
        Value::Object(object)
    };
    Value::Array(children.into_iter().map(child).collect())
}

/// The canonical text of a value.
pub(crate) fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value);
    out
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Number(number) => out.push_str(&normal(number)),
        Value::Array(items) => {
            out.push('[');
            for (nth, item) in items.iter().enumerate() {
                out.push_str(if nth > 0 { "," } else { "" });
                write(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (nth, (key, value)) in fields.into_iter().enumerate() {
                out.push_str(if nth > 0 { "," } else { "" });
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(out, value);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

/// A whole number without a point, any other as the shortest text that reads back.
fn normal(number: &Number) -> String {
    if let Some(whole) = number.as_i64() {
        return whole.to_string();
    }
    let float = number.as_f64().unwrap_or(f64::NAN);
    #[allow(clippy::cast_possible_truncation, reason = "only whole numbers of 53 bits are cast")]
    if float.fract() == 0.0 && float.abs() < 9e15 {
        return (float as i64).to_string();
    }
    float.to_string()
}

/// The hash of all records, ids ascending: what engines have to agree about.
pub(crate) fn content_hash(engine: &dyn Engine) -> String {
    let mut ids = engine.ids();
    ids.sort_unstable();
    let records = ids.iter().map(|id| (id, engine.read(id).unwrap_or(Value::Null)));
    content_of(records)
}

/// The hash of records that come by ascending id.
pub(crate) fn content_of<'a>(records: impl Iterator<Item = (&'a RecordId, Value)>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (id, record) in records {
        hasher.update(id.as_str().as_bytes());
        hasher.update(b"\n");
        hasher.update(canonical(&record).as_bytes());
        hasher.update(b"\n");
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_read_alike_however_an_engine_holds_them() {
        let one: Value = serde_json::from_str(r#"{"b":3.0,"a":[1,2.5]}"#).expect("JSON");
        let other: Value = serde_json::from_str(r#"{"a":[1.0,2.50],"b":3}"#).expect("JSON");
        assert_eq!(canonical(&one), r#"{"a":[1,2.5],"b":3}"#);
        assert_eq!(canonical(&one), canonical(&other));
    }
}
