//! Automerge with one document for each record.

use std::collections::{BTreeMap, BTreeSet};

use automerge::transaction::Transactable;
use automerge::{AutoCommit, Change, ChangeHash, LoadOptions, ROOT, ReadDoc, TextEncoding};
use fieldkeep_model::{RecordEdit, RecordId};
use serde_json::Value;

use super::{Engine, node};
use crate::merge::bytes;

/// The field of a document under which its record lies: a map like those of the other engines.
const RECORD: &str = "record";

/// The documents.
pub(super) struct DocumentEach {
    actor: u64,
    documents: BTreeMap<RecordId, Kept>,
    /// The records that were written since the last encoding.
    fresh: BTreeSet<RecordId>,
}

struct Kept {
    doc: AutoCommit,
    sent: Vec<ChangeHash>,
}

impl DocumentEach {
    pub(super) fn new(actor: u64) -> Self {
        Self { actor, documents: BTreeMap::new(), fresh: BTreeSet::new() }
    }

    pub(super) fn load(actor: u64, saved: &[u8]) -> Self {
        let mut all = Self::new(actor);
        let mut items = bytes::items(saved);
        while let (Some(id), Some(saved)) = (items.next(), items.next()) {
            let options = LoadOptions::new().text_encoding(TextEncoding::UnicodeCodePoint);
            let doc = AutoCommit::load_with_options(saved, options).expect("it was saved");
            let mut doc = doc.with_actor(node::actor(actor));
            let sent = doc.get_heads();
            all.documents.insert(record_id(id), Kept { doc, sent });
        }
        all
    }

    fn document(&mut self, id: &RecordId) -> &mut Kept {
        let actor = self.actor;
        self.documents.entry(id.clone()).or_insert_with(|| {
            let doc = AutoCommit::new_with_encoding(TextEncoding::UnicodeCodePoint);
            Kept { doc: doc.with_actor(node::actor(actor)), sent: Vec::new() }
        })
    }
}

fn record_id(id: &[u8]) -> RecordId {
    RecordId::new(String::from_utf8_lossy(id)).expect("a record id")
}

impl Engine for DocumentEach {
    fn write(&mut self, id: &RecordId, edit: &RecordEdit) {
        self.fresh.insert(id.clone());
        let doc = &mut self.document(id).doc;
        match doc.get(ROOT, RECORD).expect("the root is there") {
            Some((_, map)) => node::edit(doc, &map, &edit.edits),
            None => node::create(doc, &ROOT, RECORD, &edit.edits),
        }
        doc.commit();
    }

    fn splice(&mut self, id: &RecordId, field: &str, at: usize, deleted: usize, inserted: &str) {
        self.fresh.insert(id.clone());
        let doc = &mut self.document(id).doc;
        let (_, map) = doc.get(ROOT, RECORD).expect("it reads").expect("a record");
        let (_, text) = doc.get(map, field).expect("it reads").expect("a text");
        let deleted = isize::try_from(deleted).expect("a short deletion");
        doc.splice_text(text, at, deleted, inserted).expect("within the text");
        doc.commit();
    }

    fn encode(&mut self) -> Vec<u8> {
        let mut message = Vec::new();
        for id in std::mem::take(&mut self.fresh) {
            let kept = self.document(&id);
            for mut change in kept.doc.get_changes(&kept.sent) {
                bytes::put(&mut message, id.as_str().as_bytes());
                bytes::put(&mut message, &change.bytes());
            }
            kept.sent = kept.doc.get_heads();
        }
        message
    }

    fn apply(&mut self, messages: &[Vec<u8>]) {
        let mut waiting: BTreeMap<RecordId, Vec<Change>> = BTreeMap::new();
        for message in messages {
            let mut items = bytes::items(message);
            while let (Some(id), Some(chunk)) = (items.next(), items.next()) {
                let change = Change::try_from(chunk).expect("an honest change");
                waiting.entry(record_id(id)).or_default().push(change);
            }
        }
        for (id, changes) in waiting {
            self.document(&id).doc.apply_changes(changes).expect("honest changes");
        }
    }

    fn save(&mut self) -> Vec<u8> {
        let mut saved = Vec::new();
        for (id, kept) in &mut self.documents {
            bytes::put(&mut saved, id.as_str().as_bytes());
            bytes::put(&mut saved, &kept.doc.save());
        }
        saved
    }

    fn fork(&mut self, actor: u64) -> Box<dyn Engine> {
        let copy = |(id, kept): (&RecordId, &mut Kept)| {
            let doc = kept.doc.fork().with_actor(node::actor(actor));
            (id.clone(), Kept { doc, sent: kept.doc.get_heads() })
        };
        let documents = self.documents.iter_mut().map(copy).collect();
        Box::new(Self { actor, documents, fresh: BTreeSet::new() })
    }

    fn read(&self, id: &RecordId) -> Option<Value> {
        let doc = &self.documents.get(id)?.doc;
        let (_, map) = doc.get(ROOT, RECORD).expect("the root is there")?;
        Some(Value::Object(node::fields(doc, &map)))
    }

    fn ids(&self) -> Vec<RecordId> {
        self.documents.keys().cloned().collect()
    }
}
