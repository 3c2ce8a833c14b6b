//! Records in an Automerge document, written the straightforward way: a map of fields, a set as a
//! map of maps. Shared by the two engines that use Automerge bare.

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ObjId, ObjType, ReadDoc, ScalarValue, ValueRef, hydrate};
use fieldkeep_model::{Edit, Scalar};
use serde_json::{Map, Value};

use super::json::{children, float};

/// The actor id of a replica: 20 bytes that sort by number, as Fieldkeep's do.
pub(super) fn actor(number: u64) -> ActorId {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    let digest = blake3::hash(&bytes);
    bytes[12..].copy_from_slice(&digest.as_bytes()[..8]);
    ActorId::from(bytes)
}

/// A new map with the values that edits set, made in one batch.
pub(super) fn create(tx: &mut AutoCommit, at: &ObjId, key: &str, edits: &[Edit]) {
    let map = hydrate::Value::Map(built(edits));
    tx.batch_create_object(at, key, &map, false).expect("the object is there");
}

fn built(edits: &[Edit]) -> hydrate::Map {
    let mut map = hydrate::Map::default();
    for edit in edits {
        match edit {
            Edit::Put(field, value) => set(&mut map, field, hydrate::Value::Scalar(scalar(value))),
            Edit::Text(field, text) => {
                let text = hydrate::Value::text(automerge::TextEncoding::UnicodeCodePoint, text);
                set(&mut map, field, text);
            }
            Edit::Child(field, child, edits) => {
                if !matches!(map.get(field), Some(hydrate::Value::Map(_))) {
                    set(&mut map, field, hydrate::Value::map());
                }
                let below = map.get_mut(field).and_then(hydrate::Value::as_map);
                let below = below.expect("a map was just put there");
                set(below, child, hydrate::Value::Map(built(edits)));
            }
            Edit::Json(..) | Edit::Add(..) | Edit::Clear(_) | Edit::RemoveChild(..) => {
                unreachable!("no workload creates a record with {edit:?}")
            }
        }
    }
    map
}

fn set(map: &mut hydrate::Map, key: &str, value: hydrate::Value) {
    map.insert(key.to_owned(), hydrate::MapValue { value, conflict: false });
}

/// Edits the fields of a map that is there.
pub(super) fn edit(tx: &mut AutoCommit, map: &ObjId, edits: &[Edit]) {
    for edit in edits {
        let Edit::Put(field, value) = edit else {
            unreachable!("no workload edits a record with {edit:?}")
        };
        tx.put(map, field.as_str(), scalar(value)).expect("the object is there");
    }
}

fn scalar(value: &Scalar) -> ScalarValue {
    match value {
        Scalar::Bool(value) => ScalarValue::Boolean(*value),
        Scalar::Int(number) => ScalarValue::Int(*number),
        Scalar::Float(number) => ScalarValue::F64(*number),
        Scalar::Str(text) => ScalarValue::Str(text.into()),
    }
}

/// The fields of a map.
pub(super) fn fields(doc: &AutoCommit, map: &ObjId) -> Map<String, Value> {
    let entries = doc.map_range(map, ..);
    entries.map(|item| (item.key.to_string(), value(doc, &item.value, &item.id()))).collect()
}

/// The children of a set by id.
fn set_of(doc: &AutoCommit, set: &ObjId) -> Map<String, Value> {
    let entries = doc.map_range(set, ..);
    let child = |item: automerge::iter::MapRangeItem<'_>| {
        (item.key.to_string(), Value::Object(fields(doc, &item.id())))
    };
    entries.map(child).collect()
}

#[allow(clippy::wildcard_enum_match_arm, reason = "none of the others is ever written")]
fn value(doc: &AutoCommit, value: &ValueRef<'_>, id: &ObjId) -> Value {
    match value {
        ValueRef::Object(ObjType::Map) => children(set_of(doc, id)),
        ValueRef::Object(ObjType::Text) => doc.text(id).expect("it is a text").into(),
        ValueRef::Object(ObjType::List | ObjType::Table) => Value::Null,
        ValueRef::Scalar(scalar) => match ScalarValue::from(scalar.clone()) {
            ScalarValue::Boolean(value) => value.into(),
            ScalarValue::Int(number) => number.into(),
            ScalarValue::F64(number) => float(number),
            ScalarValue::Str(text) => text.as_str().into(),
            other => unreachable!("no workload writes {other:?}"),
        },
    }
}
