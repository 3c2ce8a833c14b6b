//! Loro with all records in one document.

use fieldkeep_model::{Edit, RecordEdit, RecordId, Scalar};
use loro::{ExportMode, LoroDoc, LoroMap, LoroText, LoroValue, VersionVector};
use serde_json::{Map, Value};

use super::Engine;
use super::json::{children, float};

const RECORDS: &str = "records";

/// The document.
pub(super) struct Loro {
    doc: LoroDoc,
    records: LoroMap,
    /// What was encoded so far.
    sent: VersionVector,
}

impl Loro {
    pub(super) fn new(actor: u64) -> Self {
        Self::of(LoroDoc::new(), actor)
    }

    pub(super) fn load(actor: u64, saved: &[u8]) -> Self {
        Self::of(LoroDoc::from_snapshot(saved).expect("it was saved"), actor)
    }

    fn of(doc: LoroDoc, actor: u64) -> Self {
        doc.set_peer_id(actor).expect("nothing is pending");
        let records = doc.get_map(RECORDS);
        let sent = doc.oplog_vv();
        Self { doc, records, sent }
    }

    fn record(&self, id: &RecordId) -> Option<LoroMap> {
        map_in(&self.records, id.as_str())
    }
}

fn map_in(map: &LoroMap, key: &str) -> Option<LoroMap> {
    map.get(key)?.into_container().ok()?.into_map().ok()
}

fn write(map: &LoroMap, edits: &[Edit]) {
    for edit in edits {
        match edit {
            Edit::Put(field, value) => map.insert(field, scalar(value)).expect("it is attached"),
            Edit::Text(field, text) => {
                let container = map.insert_container(field, LoroText::new());
                container.expect("it is attached").insert(0, text).expect("within the text");
            }
            Edit::Child(field, child, edits) => {
                let set = map_in(map, field).unwrap_or_else(|| {
                    map.insert_container(field, LoroMap::new()).expect("it is attached")
                });
                let child = set.insert_container(child, LoroMap::new()).expect("it is attached");
                write(&child, edits);
            }
            Edit::Json(..) | Edit::Add(..) | Edit::Clear(_) | Edit::RemoveChild(..) => {
                unreachable!("no workload writes {edit:?}")
            }
        }
    }
}

fn scalar(value: &Scalar) -> LoroValue {
    match value {
        Scalar::Bool(value) => (*value).into(),
        Scalar::Int(number) => (*number).into(),
        Scalar::Float(number) => (*number).into(),
        Scalar::Str(text) => text.as_str().into(),
    }
}

fn json(value: &LoroValue) -> Value {
    match value {
        LoroValue::Bool(value) => (*value).into(),
        LoroValue::I64(number) => (*number).into(),
        LoroValue::Double(number) => float(*number),
        LoroValue::String(text) => text.as_str().into(),
        LoroValue::Map(set) => children(set_of(set.iter())),
        LoroValue::Null | LoroValue::Binary(_) | LoroValue::List(_) | LoroValue::Container(_) => {
            Value::Null
        }
    }
}

/// The children of a set by id.
fn set_of<'a>(entries: impl Iterator<Item = (&'a String, &'a LoroValue)>) -> Map<String, Value> {
    let child = |(id, value): (&String, &LoroValue)| match value {
        LoroValue::Map(map) => (id.clone(), Value::Object(fields(map.iter()))),
        LoroValue::Null
        | LoroValue::Bool(_)
        | LoroValue::Double(_)
        | LoroValue::I64(_)
        | LoroValue::Binary(_)
        | LoroValue::String(_)
        | LoroValue::List(_)
        | LoroValue::Container(_) => unreachable!("a child is a map, not {value:?}"),
    };
    entries.map(child).collect()
}

fn fields<'a>(entries: impl Iterator<Item = (&'a String, &'a LoroValue)>) -> Map<String, Value> {
    entries.map(|(key, value)| (key.clone(), json(value))).collect()
}

impl Engine for Loro {
    fn write(&mut self, id: &RecordId, edit: &RecordEdit) {
        let record = self.record(id).unwrap_or_else(|| {
            let made = self.records.insert_container(id.as_str(), LoroMap::new());
            made.expect("it is attached")
        });
        write(&record, &edit.edits);
        self.doc.commit();
    }

    fn splice(&mut self, id: &RecordId, field: &str, at: usize, deleted: usize, inserted: &str) {
        let record = self.record(id).expect("a record");
        let text = record.get(field).expect("a text").into_container().expect("a text");
        let text = text.into_text().expect("a text");
        if deleted > 0 {
            text.delete(at, deleted).expect("within the text");
        }
        if !inserted.is_empty() {
            text.insert(at, inserted).expect("within the text");
        }
        self.doc.commit();
    }

    fn encode(&mut self) -> Vec<u8> {
        let message = self.doc.export(ExportMode::updates(&self.sent)).expect("it exports");
        self.sent = self.doc.oplog_vv();
        message
    }

    fn apply(&mut self, messages: &[Vec<u8>]) {
        match messages {
            [one] => self.doc.import(one).expect("an honest update"),
            several => self.doc.import_batch(several).expect("honest updates"),
        };
        self.sent = self.doc.oplog_vv();
    }

    fn save(&mut self) -> Vec<u8> {
        self.doc.export(ExportMode::Snapshot).expect("it exports")
    }

    fn fork(&mut self, actor: u64) -> Box<dyn Engine> {
        Box::new(Self::of(self.doc.fork(), actor))
    }

    fn read(&self, id: &RecordId) -> Option<Value> {
        let value = self.record(id)?.get_deep_value();
        let map = value
            .into_map()
            .unwrap_or_else(|value| unreachable!("a record is a map, not {value:?}"));
        Some(Value::Object(fields(map.iter())))
    }

    fn ids(&self) -> Vec<RecordId> {
        self.records.keys().map(|key| RecordId::new(key.as_str()).expect("a record id")).collect()
    }
}
