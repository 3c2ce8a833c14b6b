//! Hostile changes: one for each thing that Automerge takes on trust, with the stage and the reason
//! that must stop it.
//!
//! Each follows on an honest beginning ([`Stage::beginning`]) by device 1: two records with every
//! kind of field. Built by code, so that no file in the repository crashes anybody.

mod header;
mod operations;
mod renamed;

use std::num::NonZeroU64;

use automerge::legacy::{Key, ObjectId, Op, OpId, OpType, SortedVec};
use automerge::transaction::Transactable;
use automerge::{
    ActorId, AutoCommit, Change, ChangeHash, ExpandedChange, ObjType, ROOT, ScalarValue,
};

pub use renamed::Renamed;

use crate::anatomy::{Anatomy, hash};
use crate::generate::{actor, commit, replica};

/// A change that must be refused.
#[derive(Debug)]
pub struct Hostile {
    /// What is wrong with it.
    pub name: &'static str,
    /// The stage that must stop it.
    pub stage: u8,
    /// The stable name of the reason.
    pub code: &'static str,
    /// The change.
    pub chunk: Vec<u8>,
}

/// The honest beginning, and the ids in it that hostile changes refer to.
pub struct Stage {
    /// The document after the beginning, as device 1 has it.
    pub doc: AutoCommit,
    /// The changes of the beginning.
    pub beginning: Vec<Vec<u8>>,
}

impl Stage {
    /// Sets the stage: `order-1` is a map with a `note`, a counter `stock`, a text `story` ("ab"), a
    /// list `tags` of two, and a set `lines`; `order-2` is an empty record. Then `note` is written
    /// again, the first tag is deleted, and `stock` is incremented.
    #[must_use]
    pub fn set() -> Self {
        let mut doc = replica(1);
        let first = write(&mut doc).expect("the beginning is honest");
        let record = automerge::ReadDoc::get(&doc, ROOT, "order-1").expect("the root can be read");
        let (_, record) = record.expect("the record was written");
        let (_, tags) = automerge::ReadDoc::get(&doc, &record, "tags")
            .expect("the record can be read")
            .expect("the tags were written");
        doc.put(&record, "note", "two").expect("a map takes a scalar");
        doc.delete(&tags, 0).expect("the tag is there");
        doc.increment(&record, "stock", 2).expect("the counter is there");
        let second = commit(&mut doc, 2).expect("something was written");
        Self { doc, beginning: vec![first, second] }
    }

    /// An honest next change of device 1 with these operations, canonically encoded.
    #[must_use]
    pub fn change(&self, operations: Vec<Op>) -> ExpandedChange {
        self.follow(1, operations)
    }

    /// The next change of a device, upon the whole beginning.
    #[must_use]
    pub fn follow(&self, device: u64, operations: Vec<Op>) -> ExpandedChange {
        let last = self.beginning.last().expect("there is a beginning");
        let last = Change::try_from(&last[..]).expect("the beginning is honest");
        ExpandedChange {
            operations,
            actor_id: author(device),
            hash: None,
            seq: if device == 1 { last.seq() + 1 } else { 1 },
            start_op: NonZeroU64::new(last.max_op() + 1).expect("counters begin with 1"),
            time: 3,
            message: None,
            deps: vec![last.hash()],
            extra_bytes: Vec::new(),
            author: None,
        }
    }

    /// The parts of an honest next change of device 1, which makes a record.
    #[must_use]
    pub fn anatomy(&self) -> Anatomy {
        let chunk = chunk(self.change(vec![make_record("order-3")]));
        Anatomy::of(&chunk).expect("the change is honest")
    }

    /// All hostile changes.
    #[must_use]
    pub fn hostile(&self) -> Vec<Hostile> {
        let mut all = header::rows(self);
        all.extend(operations::causality(self));
        all.extend(operations::forms(self));
        all.extend(operations::operations(self));
        all
    }
}

/// The first change. The operations' counters are the constants of [`at`].
fn write(doc: &mut AutoCommit) -> Result<Vec<u8>, automerge::AutomergeError> {
    let record = doc.put_object(ROOT, "order-1", ObjType::Map)?;
    doc.put(&record, "note", "one")?;
    doc.put(&record, "stock", ScalarValue::counter(10))?;
    let story = doc.put_object(&record, "story", ObjType::Text)?;
    doc.splice_text(&story, 0, 0, "ab")?;
    let tags = doc.put_object(&record, "tags", ObjType::List)?;
    doc.insert(&tags, 0, "x")?;
    doc.insert(&tags, 1, "y")?;
    doc.put_object(&record, "lines", ObjType::Map)?;
    doc.put_object(ROOT, "order-2", ObjType::Map)?;
    Ok(commit(doc, 1).expect("something was written"))
}

/// The counters of the beginning's operations.
pub mod at {
    /// Makes `order-1`.
    pub const RECORD: u64 = 1;
    /// Puts its `note` for the first time.
    pub const NOTE: u64 = 2;
    /// Puts its counter.
    pub const STOCK: u64 = 3;
    /// Makes its text.
    pub const STORY: u64 = 4;
    /// Inserts the text's first letter.
    pub const LETTER: u64 = 5;
    /// Makes its list.
    pub const TAGS: u64 = 7;
    /// Inserts the list's first element, which is deleted later.
    pub const TAG: u64 = 8;
    /// Inserts the list's second element.
    pub const SECOND_TAG: u64 = 9;
    /// Makes its set.
    pub const LINES: u64 = 10;
    /// Makes `order-2`.
    pub const OTHER: u64 = 11;
    /// Puts the `note` again.
    pub const NOTE_AGAIN: u64 = 12;
    /// Deletes the first tag.
    pub const DELETION: u64 = 13;
    /// Increments the counter.
    pub const INCREMENT: u64 = 14;
    /// The first counter that is free.
    pub const NEXT: u64 = 15;
}

fn author(device: u64) -> ActorId {
    ActorId::from(&actor(device)[..])
}

/// An operation of device 1.
fn id(counter: u64) -> OpId {
    OpId::new(counter, &author(1))
}

fn object(counter: u64) -> ObjectId {
    ObjectId::Id(id(counter))
}

fn preds(counters: &[u64]) -> SortedVec<OpId> {
    counters.iter().map(|counter| id(*counter)).collect()
}

/// An operation on a map of the beginning.
fn on(map: u64, key: &str, action: OpType, pred: &[u64]) -> Op {
    Op { action, obj: object(map), key: Key::Map(key.into()), pred: preds(pred), insert: false }
}

fn put(value: impl Into<ScalarValue>) -> OpType {
    OpType::Put(value.into())
}

fn make_record(name: &str) -> Op {
    let action = OpType::Make(ObjType::Map);
    Op { obj: ObjectId::Root, ..on(at::RECORD, name, action, &[]) }
}

/// The canonical chunk of a change.
fn chunk(change: ExpandedChange) -> Vec<u8> {
    Change::from(change).raw_bytes().to_vec()
}

fn hash_of(chunk: &[u8]) -> ChangeHash {
    ChangeHash(hash(chunk).expect("the change is honest"))
}
