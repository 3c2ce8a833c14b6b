//! Fieldkeep in memory: the segments' documents, with or without the gate before them.

use fieldkeep_documents::document::Author;
use fieldkeep_documents::{Document, History, batch};
use fieldkeep_model::{ActorId, Edit, RecordEdit, RecordId};
use serde_json::Value;

use super::{Engine, WIRE_LEVEL, node};
use crate::merge::bytes;

/// How many records a segment is meant for.
const SEGMENT: usize = 1_000;

/// The segments of one type.
pub(super) struct Segments {
    author: Author,
    buckets: Vec<Bucket>,
}

#[derive(Default)]
struct Bucket {
    document: Document,
    history: Option<History>,
    /// What was written since the last encoding.
    fresh: Vec<Vec<u8>>,
}

impl Segments {
    pub(super) fn new(actor: u64, records: usize, gate: bool) -> Self {
        let count = (records / SEGMENT).max(1).next_power_of_two();
        let bucket = || Bucket { history: gate.then(History::new), ..Bucket::default() };
        Self { author: author(actor), buckets: (0..count).map(|_| bucket()).collect() }
    }

    pub(super) fn load(actor: u64, saved: &[u8], gate: bool) -> Self {
        let mut items = bytes::items(saved);
        let mut buckets = Vec::new();
        while let (Some(snapshot), Some(index)) = (items.next(), items.next()) {
            let document = Document::load(snapshot).expect("it was saved");
            let history = gate.then(|| History::decode(index).expect("it was saved"));
            buckets.push(Bucket { document, history, fresh: Vec::new() });
        }
        Self { author: author(actor), buckets }
    }

    fn bucket(&self, id: &RecordId) -> usize {
        id.bucket(u32::try_from(self.buckets.len()).expect("few segments")) as usize
    }
}

fn author(actor: u64) -> Author {
    let actor = ActorId::from_slice(node::actor(actor).to_bytes()).expect("20 bytes");
    Author { actor, person: "ann".to_owned(), time: 1_700_000_000_000 }
}

impl Bucket {
    fn write(&mut self, author: &Author, id: &RecordId, edit: &RecordEdit) {
        let written = self.document.write(author, id, edit).expect("an honest edit");
        let Some(written) = written else { return };
        if let Some(history) = &mut self.history {
            history.replay(&written.chunk).expect("an honest change");
        }
        self.fresh.push(written.chunk);
    }

    fn apply(&mut self, chunks: &[&[u8]]) {
        if let Some(history) = &mut self.history {
            for chunk in chunks {
                history.replay(chunk).expect("an honest change");
            }
        }
        self.document.apply(chunks.iter().copied()).expect("honest changes");
    }
}

/// The chunks of messages, by bucket. A message is pairs of bucket and chunk.
fn sorted(messages: &[Vec<u8>], buckets: usize) -> Vec<Vec<&[u8]>> {
    let mut chunks = vec![Vec::new(); buckets];
    for message in messages {
        let mut items = bytes::items(message);
        while let (Some(bucket), Some(chunk)) = (items.next(), items.next()) {
            let bucket = u32::from_be_bytes(bucket.try_into().expect("four bytes"));
            chunks[bucket as usize].push(chunk);
        }
    }
    chunks
}

impl Engine for Segments {
    fn write(&mut self, id: &RecordId, edit: &RecordEdit) {
        let bucket = self.bucket(id);
        self.buckets[bucket].write(&self.author, id, edit);
    }

    fn splice(&mut self, id: &RecordId, field: &str, at: usize, deleted: usize, inserted: &str) {
        let bucket = self.bucket(id);
        let record = self.buckets[bucket].document.record(id).expect("a record");
        let text = record.fields.get(field).and_then(Value::as_str).unwrap_or_default();
        let before = text.chars().take(at);
        let after = text.chars().skip(at + deleted);
        let text = before.chain(inserted.chars()).chain(after).collect();
        let edit = vec![Edit::Text(field.to_owned(), text)].into();
        self.buckets[bucket].write(&self.author, id, &edit);
    }

    fn encode(&mut self) -> Vec<u8> {
        let mut message = Vec::new();
        for (nth, bucket) in self.buckets.iter_mut().enumerate() {
            for chunk in bucket.fresh.drain(..) {
                let nth = u32::try_from(nth).expect("few segments");
                bytes::put(&mut message, &nth.to_be_bytes());
                bytes::put(&mut message, &chunk);
            }
        }
        message
    }

    /// The batches of the wire, one for each segment.
    fn pack(&self, messages: &[Vec<u8>]) -> Vec<u8> {
        let mut packed = Vec::new();
        for chunks in sorted(messages, self.buckets.len()).iter().filter(|c| !c.is_empty()) {
            bytes::put(&mut packed, &batch::encode(chunks, WIRE_LEVEL));
        }
        packed
    }

    fn apply(&mut self, messages: &[Vec<u8>]) {
        let chunks = sorted(messages, self.buckets.len());
        for (bucket, chunks) in self.buckets.iter_mut().zip(&chunks) {
            if !chunks.is_empty() {
                bucket.apply(chunks);
            }
        }
    }

    fn save(&mut self) -> Vec<u8> {
        let mut saved = Vec::new();
        for bucket in &self.buckets {
            bytes::put(&mut saved, &bucket.document.save());
            bytes::put(&mut saved, &bucket.history.as_ref().map_or(Vec::new(), History::encode));
        }
        saved
    }

    /// Without the gate: a fork only prepares what others are measured with.
    fn fork(&mut self, actor: u64) -> Box<dyn Engine> {
        let copy =
            |bucket: &Bucket| Bucket { document: bucket.document.clone(), ..Bucket::default() };
        Box::new(Self { author: author(actor), buckets: self.buckets.iter().map(copy).collect() })
    }

    fn read(&self, id: &RecordId) -> Option<Value> {
        let record = self.buckets[self.bucket(id)].document.record(id)?;
        Some(Value::Object(record.fields))
    }

    fn ids(&self) -> Vec<RecordId> {
        self.buckets.iter().flat_map(|bucket| bucket.document.ids()).collect()
    }
}
