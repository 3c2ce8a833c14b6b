//! Yrs with all records in one document.

use fieldkeep_model::{Edit, RecordEdit, RecordId, Scalar};
use serde_json::{Map as JsonMap, Value};
use yrs::updates::decoder::Decode as _;
use yrs::{
    Any, ClientID, Doc, GetString as _, In, Map as _, MapPrelim, MapRef, OffsetKind, Options, Out,
    ReadTxn, StateVector, Text as _, TextPrelim, TextRef, Transact as _, Update,
};

use super::Engine;
use super::json::{children, float};

const RECORDS: &str = "records";

/// The document.
pub(super) struct Yrs {
    doc: Doc,
    records: MapRef,
    /// What each transaction since the last encoding wrote.
    fresh: Vec<Vec<u8>>,
}

impl Yrs {
    pub(super) fn new(actor: u64) -> Self {
        let options = Options {
            offset_kind: OffsetKind::Utf16,
            ..Options::with_client_id(ClientID::new(actor))
        };
        let doc = Doc::with_options(options);
        let records = doc.get_or_insert_map(RECORDS);
        Self { doc, records, fresh: Vec::new() }
    }

    pub(super) fn load(actor: u64, saved: &[u8]) -> Self {
        let made = Self::new(actor);
        let update = Update::decode_v1(saved).expect("it was saved");
        made.doc.transact_mut().apply_update(update).expect("it was saved");
        made
    }
}

/// What a new map holds.
fn made(edits: &[Edit]) -> MapPrelim {
    let mut map = MapPrelim::default();
    for edit in edits {
        match edit {
            Edit::Put(field, value) => {
                map.insert(field.as_str().into(), In::Any(scalar(value)));
            }
            Edit::Text(field, text) => {
                map.insert(field.as_str().into(), TextPrelim::new(text.as_str()).into());
            }
            Edit::Child(field, child, edits) => {
                let key = field.as_str().into();
                let set = map.entry(key).or_insert_with(|| In::Map(MapPrelim::default()));
                if let In::Map(set) = set {
                    set.insert(child.as_str().into(), In::Map(made(edits)));
                }
            }
            Edit::Json(..) | Edit::Add(..) | Edit::Clear(_) | Edit::RemoveChild(..) => {
                unreachable!("no workload writes {edit:?}")
            }
        }
    }
    map
}

fn scalar(value: &Scalar) -> Any {
    match value {
        Scalar::Bool(value) => Any::from(*value),
        Scalar::Int(number) => Any::from(*number),
        Scalar::Float(number) => Any::from(*number),
        Scalar::Str(text) => Any::from(text.as_str()),
    }
}

fn fields(tx: &impl ReadTxn, map: &MapRef) -> JsonMap<String, Value> {
    map.iter(tx).map(|(key, value)| (key.to_owned(), json(tx, &value))).collect()
}

/// The children of a set by id.
fn set_of(tx: &impl ReadTxn, set: &MapRef) -> JsonMap<String, Value> {
    let child = |(id, value): (&str, Out)| {
        let map: MapRef = value.cast().expect("a child is a map");
        (id.to_owned(), Value::Object(fields(tx, &map)))
    };
    set.iter(tx).map(child).collect()
}

#[allow(clippy::wildcard_enum_match_arm, reason = "none of the others is ever written")]
fn json(tx: &impl ReadTxn, value: &Out) -> Value {
    match value {
        Out::Any(Any::Bool(value)) => (*value).into(),
        Out::Any(Any::Number(yrs::Number::Int(number))) => (*number).into(),
        Out::Any(Any::Number(yrs::Number::Float(number))) => float(*number),
        Out::Any(Any::String(text)) => text.to_string().into(),
        Out::YMap(set) => children(set_of(tx, set)),
        Out::YText(text) => text.get_string(tx).into(),
        other => unreachable!("no workload writes {other:?}"),
    }
}

impl Engine for Yrs {
    fn write(&mut self, id: &RecordId, edit: &RecordEdit) {
        let mut tx = self.doc.transact_mut();
        match self.records.get(&tx, id.as_str()) {
            Some(Out::YMap(map)) => {
                for edit in &edit.edits {
                    let Edit::Put(field, value) = edit else {
                        unreachable!("no workload edits a record with {edit:?}")
                    };
                    map.insert(&mut tx, field.as_str(), scalar(value));
                }
            }
            _ => {
                self.records.insert(&mut tx, id.as_str(), made(&edit.edits));
            }
        }
        self.fresh.push(tx.encode_update_v1());
    }

    fn splice(&mut self, id: &RecordId, field: &str, at: usize, deleted: usize, inserted: &str) {
        let mut tx = self.doc.transact_mut();
        let record: MapRef =
            self.records.get(&tx, id.as_str()).expect("a record").cast().expect("a map");
        let text: TextRef = record.get(&tx, field).expect("a text").cast().expect("a text");
        let position = |at: usize| u32::try_from(at).expect("a short text");
        if deleted > 0 {
            text.remove_range(&mut tx, position(at), position(deleted));
        }
        if !inserted.is_empty() {
            text.insert(&mut tx, position(at), inserted);
        }
        self.fresh.push(tx.encode_update_v1());
    }

    fn encode(&mut self) -> Vec<u8> {
        let mut fresh = std::mem::take(&mut self.fresh);
        if fresh.len() == 1 {
            return fresh.remove(0);
        }
        yrs::merge_updates_v1(&fresh).expect("they were just made")
    }

    fn apply(&mut self, messages: &[Vec<u8>]) {
        let mut tx = self.doc.transact_mut();
        for message in messages {
            let update = Update::decode_v1(message).expect("an honest update");
            tx.apply_update(update).expect("an honest update");
        }
    }

    fn save(&mut self) -> Vec<u8> {
        self.doc.transact().encode_state_as_update_v1(&StateVector::default())
    }

    fn fork(&mut self, actor: u64) -> Box<dyn Engine> {
        Box::new(Self::load(actor, &self.save()))
    }

    fn read(&self, id: &RecordId) -> Option<Value> {
        let tx = self.doc.transact();
        let map: MapRef = self.records.get(&tx, id.as_str())?.cast().ok()?;
        Some(Value::Object(fields(&tx, &map)))
    }

    fn ids(&self) -> Vec<RecordId> {
        let tx = self.doc.transact();
        self.records.keys(&tx).map(|key| RecordId::new(key).expect("a record id")).collect()
    }
}
