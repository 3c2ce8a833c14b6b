//! Automerge with all records in one document.

use automerge::transaction::Transactable;
use automerge::{AutoCommit, Change, ChangeHash, LoadOptions, ROOT, ReadDoc, TextEncoding};
use fieldkeep_model::{RecordEdit, RecordId};
use serde_json::Value;

use super::{Engine, node};
use crate::merge::bytes;

/// The document.
pub(super) struct OneDocument {
    doc: AutoCommit,
    /// The heads at the last encoding.
    sent: Vec<ChangeHash>,
}

impl OneDocument {
    pub(super) fn new(actor: u64) -> Self {
        let doc = AutoCommit::new_with_encoding(TextEncoding::UnicodeCodePoint);
        Self { doc: doc.with_actor(node::actor(actor)), sent: Vec::new() }
    }

    pub(super) fn load(actor: u64, saved: &[u8]) -> Self {
        let options = LoadOptions::new().text_encoding(TextEncoding::UnicodeCodePoint);
        let doc = AutoCommit::load_with_options(saved, options).expect("it was saved");
        let mut doc = doc.with_actor(node::actor(actor));
        let sent = doc.get_heads();
        Self { doc, sent }
    }
}

impl Engine for OneDocument {
    fn write(&mut self, id: &RecordId, edit: &RecordEdit) {
        match self.doc.get(ROOT, id.as_str()).expect("the root is there") {
            Some((_, map)) => node::edit(&mut self.doc, &map, &edit.edits),
            None => node::create(&mut self.doc, &ROOT, id.as_str(), &edit.edits),
        }
        self.doc.commit();
    }

    fn splice(&mut self, id: &RecordId, field: &str, at: usize, deleted: usize, inserted: &str) {
        let (_, map) = self.doc.get(ROOT, id.as_str()).expect("it reads").expect("a record");
        let (_, text) = self.doc.get(map, field).expect("it reads").expect("a text");
        let deleted = isize::try_from(deleted).expect("a short deletion");
        self.doc.splice_text(text, at, deleted, inserted).expect("within the text");
        self.doc.commit();
    }

    fn encode(&mut self) -> Vec<u8> {
        let changes = self.doc.get_changes(&self.sent);
        let mut message = Vec::new();
        for mut change in changes {
            bytes::put(&mut message, &change.bytes());
        }
        self.sent = self.doc.get_heads();
        message
    }

    fn apply(&mut self, messages: &[Vec<u8>]) {
        let chunks = messages.iter().flat_map(|message| bytes::items(message));
        let changes = chunks.map(|chunk| Change::try_from(chunk).expect("an honest change"));
        self.doc.apply_changes(changes.collect::<Vec<_>>()).expect("honest changes");
    }

    fn save(&mut self) -> Vec<u8> {
        self.doc.save()
    }

    fn fork(&mut self, actor: u64) -> Box<dyn Engine> {
        let doc = self.doc.fork().with_actor(node::actor(actor));
        Box::new(Self { doc, sent: self.doc.get_heads() })
    }

    fn read(&self, id: &RecordId) -> Option<Value> {
        let (_, map) = self.doc.get(ROOT, id.as_str()).expect("the root is there")?;
        Some(Value::Object(node::fields(&self.doc, &map)))
    }

    fn ids(&self) -> Vec<RecordId> {
        self.doc.keys(ROOT).map(|key| RecordId::new(key).expect("a record id")).collect()
    }
}
