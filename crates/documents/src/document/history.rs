//! What changes wrote, read from the changes themselves: for showing a history, and for writing
//! content again in a document that lacks the change which wrote it.

use std::collections::BTreeMap;

use automerge::legacy::{Key, ObjectId, OpType};
use automerge::{Change, ObjType, ScalarValue};
use fieldkeep_model::{ActorId, Edit, RecordEdit, RecordId, Scalar};
use serde_json::Value;

use super::Document;
use super::node::DELETED;
use super::path::FieldPath;
use super::record::owned_scalar_json;
use super::write::ADDED;

/// One field that a change wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldWrite {
    /// The record.
    pub record: RecordId,
    /// The field, as `customer` or `lines[7].quantity`; `~deleted` and `lines[7].~deleted` are soft
    /// deletions.
    pub field: String,
    /// What was written; none if it was cleared, or a deletion lifted.
    pub value: Option<Value>,
    /// Whether the value was added to what was there: a counter's increment, or the characters that
    /// were put into a text (none if it only lost some).
    pub added: bool,
}

/// Finds the object that an operation of an earlier change made: its record, and its path, empty
/// for the record itself. [`Document::locate`] is one.
pub type Locate<'l> = dyn Fn(ActorId, u64) -> Option<(RecordId, String)> + 'l;

/// Something that a change did.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Made a record, a set or a child, which is empty at first.
    Made,
    /// Wrote a scalar.
    Put(ScalarValue),
    /// Added to a counter.
    Added(i64),
    /// Took away what was there.
    Cleared,
    /// Made a text.
    Text,
    /// Put characters into a text, or took some out.
    Spliced(String),
}

impl Document {
    /// The fields that a change wrote, in order, each once. Objects that the change made itself are
    /// known; the others are looked up. Empty if the chunk is no change.
    #[must_use]
    pub fn field_writes(chunk: &[u8], locate: &Locate<'_>) -> Vec<FieldWrite> {
        let mut writes: Vec<FieldWrite> = Vec::new();
        let mut made = BTreeMap::new();
        each_act(chunk, locate, &mut made, &mut |record, path, act| {
            let (value, added) = match act {
                Act::Made => return,
                Act::Put(value) => (Some(owned_scalar_json(&value)), false),
                Act::Added(by) => (Some(by.into()), true),
                Act::Cleared => (None, false),
                Act::Text => (Some(Value::from("")), false),
                Act::Spliced(text) => (Some(text.into()), true),
            };
            let field = path.to_string();
            let before = writes.iter_mut().rfind(|w| w.record == *record && w.field == field);
            match before {
                Some(before) => merge(before, value, added),
                None => writes.push(FieldWrite { record: record.clone(), field, value, added }),
            }
        });
        writes
    }

    /// What these changes wrote, as edits that write it again in a document that lacks them.
    ///
    /// `self` is the document that still holds them. In the order of the changes the last write of
    /// a field counts; counters get the sum of what was added, texts their current content in
    /// `self`; records and children that were made are made again, removals are removals.
    #[must_use]
    pub fn rewritten(&self, chunks: &[&[u8]], locate: &Locate<'_>) -> Vec<(RecordId, RecordEdit)> {
        let mut drafts: BTreeMap<RecordId, Draft> = BTreeMap::new();
        let mut made = BTreeMap::new();
        for chunk in chunks {
            each_act(chunk, locate, &mut made, &mut |record, path, act| {
                let draft = drafts.entry(record.clone()).or_default();
                draft.note(path, act);
            });
        }
        let edits = drafts.into_iter().map(|(id, draft)| {
            let record = self.record(&id).unwrap_or_default();
            let edit = draft.into_edit(&record.fields);
            (id, edit)
        });
        edits.collect()
    }
}

/// Later writes of a field within one change: what was added joins what was written before.
fn merge(before: &mut FieldWrite, value: Option<Value>, added: bool) {
    match (&mut before.value, value) {
        (Some(Value::String(text)), Some(Value::String(more))) if added => text.push_str(&more),
        (Some(number), Some(more)) if added => {
            let sum = number.as_i64().zip(more.as_i64()).map(|(a, b)| a.wrapping_add(b));
            *number = sum.map_or(more, Value::from);
        }
        (_, value) => *before = FieldWrite { value, added, ..before.clone() },
    }
}

/// What the changes made, by the operation that made it.
pub(super) type MadeObjects = BTreeMap<(ActorId, u64), (RecordId, FieldPath)>;

/// Calls `then` for everything that a change did, in order, with its place.
pub(super) fn each_act(
    chunk: &[u8],
    locate: &Locate<'_>,
    made: &mut MadeObjects,
    then: &mut dyn FnMut(&RecordId, &FieldPath, Act),
) {
    let Ok(change) = Change::try_from(chunk) else {
        return;
    };
    let Some(own) = ActorId::from_slice(change.actor_id().to_bytes()) else {
        return;
    };
    let decoded = change.decode();
    for (counter, op) in (decoded.start_op.get()..).zip(decoded.operations) {
        let Some((record, path)) = place(&op.obj, &op.key, locate, made) else {
            continue;
        };
        let act = match op.action {
            OpType::Make(ObjType::Map) => Act::Made,
            OpType::Make(ObjType::Text) => Act::Text,
            OpType::Put(ScalarValue::Str(text)) if op.insert => Act::Spliced(text.to_string()),
            OpType::Put(value) => Act::Put(value),
            OpType::Increment(by) => Act::Added(by),
            OpType::Delete if matches!(op.key, Key::Seq(_)) => Act::Spliced(String::new()),
            OpType::Delete => Act::Cleared,
            OpType::Make(ObjType::List | ObjType::Table)
            | OpType::MarkBegin(_)
            | OpType::MarkEnd(_) => continue,
        };
        if matches!(act, Act::Made | Act::Text) {
            made.insert((own, counter), (record.clone(), path.clone()));
        }
        then(&record, &path, act);
    }
}

/// Where an operation writes: the key of a map, or the text that an element is in.
fn place(
    object: &ObjectId,
    key: &Key,
    locate: &Locate<'_>,
    made: &MadeObjects,
) -> Option<(RecordId, FieldPath)> {
    let (record, path) = match (object, key) {
        (ObjectId::Root, Key::Map(id)) => {
            return Some((RecordId::new(id.as_str()).ok()?, FieldPath::default()));
        }
        (ObjectId::Root, Key::Seq(_)) => return None,
        (ObjectId::Id(id), _) => {
            let maker = (ActorId::from_slice(id.actor().to_bytes())?, id.counter());
            match made.get(&maker) {
                Some(place) => place.clone(),
                None => locate(maker.0, maker.1).map(|(id, path)| (id, FieldPath::parse(&path)))?,
            }
        }
    };
    match key {
        Key::Map(key) => Some((record, path.down(key)?)),
        Key::Seq(_) => Some((record, path)),
    }
}

/// What is to be written again of one record.
#[derive(Default)]
struct Draft {
    deleted: Option<bool>,
    fields: BTreeMap<String, Last>,
    children: BTreeMap<(String, String), Self>,
}

/// The last that happened to a field.
pub(super) enum Last {
    Put(Scalar),
    Json(String),
    Add(i64),
    Clear,
    /// Its current content in the old document.
    Text,
}

impl Draft {
    fn note(&mut self, path: &FieldPath, act: Act) {
        match (&path.child, &path.inner) {
            (Some(child), inner) => {
                let key = (path.field.clone(), child.clone());
                let draft = self.children.entry(key).or_default();
                match inner {
                    Some(inner) => draft.field(inner, act),
                    None => draft.itself(&act),
                }
            }
            (None, _) if path.field.is_empty() => self.itself(&act),
            (None, _) => self.field(&path.field, act),
        }
    }

    /// The record or the child itself; a foreign tool may take it away whole.
    fn itself(&mut self, act: &Act) {
        if matches!(act, Act::Cleared) {
            self.deleted = Some(true);
        }
    }

    fn field(&mut self, field: &str, act: Act) {
        if field == DELETED {
            self.deleted = Some(matches!(act, Act::Put(ScalarValue::Boolean(true))));
            return;
        }
        let last = match act {
            Act::Made => return,
            Act::Put(value) => match last_of(value) {
                Some(last) => last,
                None => return,
            },
            Act::Added(by) => match self.fields.get(field) {
                Some(Last::Add(before)) => Last::Add(before.saturating_add(by)),
                Some(_) | None => Last::Add(by),
            },
            Act::Cleared => Last::Clear,
            Act::Text | Act::Spliced(_) => Last::Text,
        };
        self.fields.insert(field.to_owned(), last);
    }

    fn into_edit(self, current: &serde_json::Map<String, Value>) -> RecordEdit {
        let mut edits = edits_of(self.fields, current);
        for ((field, id), draft) in self.children {
            let set = current.get(&field).and_then(Value::as_array);
            let named = |child: &&Value| child.get("id").and_then(Value::as_str) == Some(&id);
            let child = set.and_then(|set| set.iter().find(named)).and_then(Value::as_object);
            let inner = edits_of(draft.fields, child.unwrap_or(&serde_json::Map::new()));
            // A child that is removed is made first, so that what was written in it is kept.
            edits.push(Edit::Child(field.clone(), id.clone(), inner));
            if draft.deleted == Some(true) {
                edits.push(Edit::RemoveChild(field, id));
            }
        }
        RecordEdit { edits, deleted: self.deleted }
    }
}

pub(super) fn edits_of(
    fields: BTreeMap<String, Last>,
    current: &serde_json::Map<String, Value>,
) -> Vec<Edit> {
    let mut edits = Vec::with_capacity(fields.len());
    for (field, last) in fields {
        let edit = match last {
            Last::Put(value) => Edit::Put(field, value),
            Last::Json(text) => Edit::Json(field, text),
            Last::Add(mut by) => {
                // A sum may be more than can be added at once.
                let step = |by: i64| by.clamp(*ADDED.start(), *ADDED.end());
                while by != step(by) {
                    edits.push(Edit::Add(field.clone(), step(by)));
                    by -= step(by);
                }
                Edit::Add(field, by)
            }
            Last::Clear => Edit::Clear(field),
            Last::Text => match current.get(&field) {
                Some(Value::String(text)) => Edit::Text(field, text.clone()),
                Some(_) | None => Edit::Clear(field),
            },
        };
        edits.push(edit);
    }
    edits
}

/// A scalar as an edit writes it; nothing for what edits never write.
pub(super) fn last_of(value: ScalarValue) -> Option<Last> {
    Some(match value {
        ScalarValue::Str(text) => Last::Put(Scalar::Str(text.to_string())),
        ScalarValue::Int(number) | ScalarValue::Timestamp(number) => Last::Put(Scalar::Int(number)),
        ScalarValue::Uint(number) => Last::Put(Scalar::Int(i64::try_from(number).ok()?)),
        ScalarValue::F64(number) => Last::Put(Scalar::Float(number)),
        ScalarValue::Boolean(value) => Last::Put(Scalar::Bool(value)),
        ScalarValue::Bytes(bytes) => Last::Json(String::from_utf8(bytes).ok()?),
        ScalarValue::Counter(counter) => Last::Add(counter.into()),
        ScalarValue::Unknown { .. } | ScalarValue::Null => return None,
    })
}
