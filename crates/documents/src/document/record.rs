//! A record as it reads: from the document's objects to JSON, and to the canonical text that is
//! hashed.
//!
//! Text and registers become JSON scalars, counters numbers, json fields the value that they hold,
//! sets arrays of their children ordered by id, each an object that begins with its `id`. Removed
//! children are left out. A record that was created twice is read as the union of both.

use automerge::iter::MapRangeItem;
use automerge::{Automerge, ObjType, ScalarValue, ScalarValueRef, ValueRef};
use fieldkeep_model::{RecordHash, RecordId};
use serde_json::{Map, Number, Value};

use super::node::{Candidate, DELETED, Node};
use super::path::FieldPath;
use super::view::View;

/// The key under which a child shows its id.
pub(super) const CHILD_ID: &str = "id";

/// A record as it is merged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The fields by name, ascending; an absent field has no entry.
    pub fields: Map<String, Value>,
    /// Whether it is softly deleted; its fields can still be read.
    pub deleted: bool,
    /// The fields with concurrent values that differ, as `customer` or `lines[7].quantity`.
    pub conflicts: Vec<String>,
}

impl Record {
    /// The canonical JSON: keys ascending, no spaces, `"~deleted":true` among them if deleted.
    /// Conflicts are no part of it: they are not content.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut out = String::with_capacity(512);
        let deleted = self.deleted.then_some((DELETED, &Value::Bool(true)));
        let fields = self.fields.iter().map(|(key, value)| (key.as_str(), value));
        write_object(&mut out, fields.chain(deleted));
        out
    }

    /// The hash of the canonical JSON.
    #[must_use]
    pub fn hash(&self) -> RecordHash {
        RecordHash::of(&self.canonical())
    }
}

fn write_object<'a>(out: &mut String, entries: impl Iterator<Item = (&'a str, &'a Value)>) {
    let mut entries: Vec<_> = entries.collect();
    if !entries.is_sorted_by(|a, b| a.0 < b.0) {
        entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
    }
    out.push('{');
    for (nth, (key, value)) in entries.into_iter().enumerate() {
        if nth > 0 {
            out.push(',');
        }
        write_string(out, key);
        out.push(':');
        write_value(out, value);
    }
    out.push('}');
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(number.as_str()),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (nth, item) in items.iter().enumerate() {
                if nth > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(map) => {
            write_object(out, map.iter().map(|(key, value)| (key.as_str(), value)));
        }
    }
}

fn write_string(out: &mut String, text: &str) {
    let plain = !text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\');
    if plain {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}

/// The JSON of a scalar.
pub(super) fn scalar_json(scalar: ScalarValueRef<'_>) -> Value {
    match scalar {
        ScalarValueRef::Bytes(bytes) => serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into()),
        ScalarValueRef::Str(text) => Value::String(text.into_owned()),
        ScalarValueRef::Int(number)
        | ScalarValueRef::Counter(number)
        | ScalarValueRef::Timestamp(number) => number.into(),
        ScalarValueRef::Uint(number) => number.into(),
        ScalarValueRef::F64(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        ScalarValueRef::Boolean(value) => value.into(),
        ScalarValueRef::Unknown { .. } | ScalarValueRef::Null => Value::Null,
    }
}

/// Reads one record, collecting the conflicts on the way.
pub(super) struct Reader<'a, V = Automerge> {
    doc: &'a V,
    prefix: String,
    conflicts: Vec<String>,
    /// Whether removed children are read as well.
    removed: bool,
}

impl<'a, V: View> Reader<'a, V> {
    /// A reader for one record.
    pub(super) fn new(doc: &'a V) -> Self {
        Self { doc, prefix: String::new(), conflicts: Vec::new(), removed: false }
    }

    /// A reader that reads removed children too.
    pub(super) fn with_removed(doc: &'a V) -> Self {
        Self { removed: true, ..Self::new(doc) }
    }

    /// The record with that id.
    pub(super) fn record(mut self, id: &RecordId) -> Option<Record> {
        let node = Node::record(self.doc, id.as_str())?;
        let mut fields = Map::new();
        let deleted = self.fields(&node, &mut fields);
        Some(Record { fields, deleted, conflicts: self.conflicts })
    }

    /// What stands at a place of a record: of a set its children, of a child its fields, of a soft
    /// deletion whether it stands. None of what is not there, and of the record itself.
    pub(super) fn value(mut self, id: &RecordId, path: &FieldPath) -> Option<Value> {
        let (doc, record) = (self.doc, Node::record(self.doc, id.as_str())?);
        let mut candidates = record.candidates(doc, &path.field);
        for key in path.child.iter().chain(&path.inner) {
            candidates = Node::below(&candidates)?.candidates(doc, key);
        }
        match (Node::below(&candidates), &path.child) {
            (Some(child), Some(_)) => {
                let mut fields = Map::new();
                let deleted = self.fields(&child, &mut fields);
                (!deleted).then_some(Value::Object(fields))
            }
            (Some(set), None) => Some(self.children(&set)),
            (None, _) => candidates.first().map(|winner| self.candidate(winner)),
        }
    }

    /// Reads the fields of a record or a child, and tells whether it is deleted.
    fn fields(&mut self, node: &Node, into: &mut Map<String, Value>) -> bool {
        let mut deleted = false;
        self.each(node, &mut |reader, key, value| {
            if key == DELETED {
                deleted = value.read(reader, None) == Value::Bool(true);
            } else if key != CHILD_ID || !into.contains_key(key) {
                let read = value.read(reader, Some(key));
                into.insert(key.to_owned(), read);
            }
        });
        deleted
    }

    /// Visits the keys of a node, ascending. One object without concurrent values is walked once;
    /// else each key is resolved over all that stands there.
    fn each(&mut self, node: &Node, visit: &mut dyn FnMut(&mut Self, &str, Found<'_>)) {
        let doc = self.doc;
        if let [object] = node.objects() {
            for item in doc.map_range(object) {
                let key = item.key.clone();
                if item.conflict {
                    visit(self, &key, Found::Many(node.candidates(doc, &key)));
                } else {
                    visit(self, &key, Found::One(item));
                }
            }
        } else {
            for key in node.keys(doc) {
                visit(self, &key, Found::Many(node.candidates(doc, &key)));
            }
        }
    }

    /// The children of a set that are not removed, ordered by id.
    fn children(&mut self, set: &Node) -> Value {
        let mut children = Vec::new();
        self.each(set, &mut |reader, id, found| {
            let Some(node) = found.node() else { return };
            let mut child = Map::new();
            child.insert(CHILD_ID.to_owned(), Value::String(id.to_owned()));
            let (length, seen) = (reader.prefix.len(), reader.conflicts.len());
            reader.prefix.push_str(&format!("[{id}]."));
            let deleted = reader.fields(&node, &mut child);
            reader.prefix.truncate(length);
            if deleted {
                reader.conflicts.truncate(seen);
            }
            if !deleted || reader.removed {
                children.push(Value::Object(child));
            }
        });
        Value::Array(children)
    }

    fn object(&mut self, typ: ObjType, node: &Node, key: Option<&str>) -> Value {
        match typ {
            ObjType::Text => Value::String(self.doc.text(node.winner())),
            ObjType::Map | ObjType::Table => {
                let length = self.prefix.len();
                self.prefix.push_str(key.unwrap_or_default());
                let children = self.children(node);
                self.prefix.truncate(length);
                children
            }
            // The layout has no lists; one that a foreign tool wrote reads as nothing.
            ObjType::List => Value::Null,
        }
    }

    /// One candidate alone, as it would read if it had won.
    pub(super) fn candidate(&mut self, candidate: &Candidate) -> Value {
        let seen = self.conflicts.len();
        let value = match &candidate.value {
            automerge::Value::Object(typ) => {
                self.object(*typ, &Node::single(candidate.id.clone()), None)
            }
            automerge::Value::Scalar(scalar) => owned_scalar_json(scalar),
        };
        self.conflicts.truncate(seen);
        value
    }

    /// Whether concurrent values say different things. Sets never do: they are united. Counters
    /// always do, for what was added to the losing one does not count.
    pub(super) fn differ(&mut self, candidates: &[Candidate]) -> bool {
        let [winner, others @ ..] = candidates else {
            return false;
        };
        if others.is_empty() || candidates.iter().all(Candidate::is_map) {
            return false;
        }
        let counter = |c: &Candidate| matches!(c.scalar(), Some(ScalarValue::Counter(_)));
        let value = self.candidate(winner);
        counter(winner) || others.iter().any(|other| self.candidate(other) != value)
    }
}

/// The JSON of a scalar that a candidate owns.
pub(super) fn owned_scalar_json(scalar: &ScalarValue) -> Value {
    scalar_json(ScalarValueRef::from(scalar.clone()))
}

/// What stands at a key.
enum Found<'a> {
    /// One value, as the walk met it.
    One(MapRangeItem<'a>),
    /// All values of all twins, the winner first.
    Many(Vec<Candidate>),
}

impl Found<'_> {
    /// The maps that stand there, if a map wins.
    fn node(&self) -> Option<Node> {
        match self {
            Self::One(item) => match item.value {
                ValueRef::Object(ObjType::Map) => Some(Node::single(item.id())),
                ValueRef::Object(_) | ValueRef::Scalar(_) => None,
            },
            Self::Many(candidates) => Node::below(candidates),
        }
    }

    /// The JSON of what wins; concurrent values that differ are noted under the key, if one is
    /// given.
    fn read<V: View>(self, reader: &mut Reader<'_, V>, key: Option<&str>) -> Value {
        let candidates = match self {
            Self::One(item) => {
                return match item.value {
                    ValueRef::Scalar(scalar) => scalar_json(scalar),
                    ValueRef::Object(typ) => reader.object(typ, &Node::single(item.id()), key),
                };
            }
            Self::Many(candidates) => candidates,
        };
        if let Some(key) = key
            && reader.differ(&candidates)
        {
            reader.conflicts.push(format!("{}{key}", reader.prefix));
        }
        match (Node::below(&candidates), candidates.first()) {
            (Some(node), _) => reader.object(ObjType::Map, &node, key),
            (None, Some(winner)) => reader.candidate(winner),
            (None, None) => Value::Null,
        }
    }
}
