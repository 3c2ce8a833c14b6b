//! What is compared: one trait, and everything that implements it.
//!
//! An engine is one replica of a set of records in memory. It takes edits of records as users make
//! them, one transaction each, gives the bytes that other replicas need, and applies theirs. An
//! engine that fails panics: each is measured in a process of its own, and the panic is its result.
//! Promises no fairness beyond this: all get the same edits, in the same order, and all are read
//! through the same canonical form.

mod automerge_each;
mod automerge_one;
mod fieldkeep;
mod json;
#[cfg(feature = "engines")]
mod loro;
mod node;
mod rows;
#[cfg(feature = "engines")]
mod yrs;

use fieldkeep_model::{RecordEdit, RecordId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use json::{canonical, content_hash, content_of};
pub(crate) use rows::Rows;

/// The name of an engine, as it is typed and printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineName {
    /// Segments of about 1,000 records, as Fieldkeep stores them, without the gate.
    Fieldkeep,
    /// The same with the gate before every change: the difference is what the gate costs.
    FieldkeepGate,
    /// Automerge with all records in one document.
    Automerge,
    /// Automerge with one document for each record.
    AutomergeEach,
    /// Loro with all records in one document.
    Loro,
    /// Yrs with all records in one document.
    Yrs,
    /// Rows in SQLite, the last writer wins, cell by cell: the floor.
    Rows,
}

impl EngineName {
    /// All of them, in the order in which they are run and shown.
    pub const ALL: [Self; 7] = [
        Self::Fieldkeep,
        Self::FieldkeepGate,
        Self::Automerge,
        Self::AutomergeEach,
        Self::Loro,
        Self::Yrs,
        Self::Rows,
    ];

    /// The name as it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fieldkeep => "fieldkeep",
            Self::FieldkeepGate => "fieldkeep-gate",
            Self::Automerge => "automerge",
            Self::AutomergeEach => "automerge-each",
            Self::Loro => "loro",
            Self::Yrs => "yrs",
            Self::Rows => "rows",
        }
    }

    /// What it is, in a line.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Fieldkeep => "Fieldkeep: segments of about 1,000 records, the gate left out",
            Self::FieldkeepGate => "Fieldkeep with the gate before every change",
            Self::Automerge => "Automerge 0.12, all records in one document",
            Self::AutomergeEach => "Automerge 0.12, one document for each record",
            Self::Loro => "Loro 1.17, all records in one document",
            Self::Yrs => "Yrs 0.28, all records in one document",
            Self::Rows => "SQLite, a row for each cell, the last writer wins",
        }
    }

    /// Whether this build has it.
    #[must_use]
    pub fn is_built(self) -> bool {
        match self {
            Self::Loro | Self::Yrs => cfg!(feature = "engines"),
            Self::Fieldkeep
            | Self::FieldkeepGate
            | Self::Automerge
            | Self::AutomergeEach
            | Self::Rows => true,
        }
    }

    /// An empty replica for so many records in the end.
    pub(crate) fn open(self, actor: u64, records: usize) -> Box<dyn Engine> {
        match self {
            Self::Fieldkeep => Box::new(fieldkeep::Segments::new(actor, records, false)),
            Self::FieldkeepGate => Box::new(fieldkeep::Segments::new(actor, records, true)),
            Self::Automerge => Box::new(automerge_one::OneDocument::new(actor)),
            Self::AutomergeEach => Box::new(automerge_each::DocumentEach::new(actor)),
            #[cfg(feature = "engines")]
            Self::Loro => Box::new(loro::Loro::new(actor)),
            #[cfg(feature = "engines")]
            Self::Yrs => Box::new(yrs::Yrs::new(actor)),
            #[cfg(not(feature = "engines"))]
            Self::Loro | Self::Yrs => unreachable!("a plan names only engines of this build"),
            Self::Rows => Box::new(rows::Rows::in_memory(actor)),
        }
    }

    /// The replica that was saved, for an actor.
    pub(crate) fn load(self, actor: u64, saved: &[u8]) -> Box<dyn Engine> {
        match self {
            Self::Fieldkeep => Box::new(fieldkeep::Segments::load(actor, saved, false)),
            Self::FieldkeepGate => Box::new(fieldkeep::Segments::load(actor, saved, true)),
            Self::Automerge => Box::new(automerge_one::OneDocument::load(actor, saved)),
            Self::AutomergeEach => Box::new(automerge_each::DocumentEach::load(actor, saved)),
            #[cfg(feature = "engines")]
            Self::Loro => Box::new(loro::Loro::load(actor, saved)),
            #[cfg(feature = "engines")]
            Self::Yrs => Box::new(yrs::Yrs::load(actor, saved)),
            #[cfg(not(feature = "engines"))]
            Self::Loro | Self::Yrs => unreachable!("a plan names only engines of this build"),
            Self::Rows => Box::new(rows::Rows::load(actor, saved)),
        }
    }
}

/// One replica in memory.
pub(crate) trait Engine {
    /// Applies a local edit of one record as one transaction.
    fn write(&mut self, id: &RecordId, edit: &RecordEdit);

    /// Replaces `deleted` characters of a record's text at a position, in code points.
    fn splice(&mut self, id: &RecordId, field: &str, at: usize, deleted: usize, inserted: &str);

    /// One message with everything that was written since the last call, as it travels raw.
    fn encode(&mut self) -> Vec<u8>;

    /// The messages of several calls of [`Engine::encode`] as they are best sent together.
    fn pack(&self, messages: &[Vec<u8>]) -> Vec<u8> {
        zstd::bulk::compress(&messages.concat(), WIRE_LEVEL).expect("memory takes it")
    }

    /// Applies messages of other replicas, all at once.
    fn apply(&mut self, messages: &[Vec<u8>]);

    /// Everything that has to be kept, history included.
    fn save(&mut self) -> Vec<u8>;

    /// The same state for another actor; what waits to be encoded stays behind.
    fn fork(&mut self, actor: u64) -> Box<dyn Engine>;

    /// A record's fields; children as arrays ordered by id.
    fn read(&self, id: &RecordId) -> Option<Value>;

    /// The ids of all records.
    fn ids(&self) -> Vec<RecordId>;
}

/// The zstd level of what is sent.
pub(crate) const WIRE_LEVEL: i32 = 3;
