//! What a process asks the owner of a directory, and what it is told. The same values whether the
//! owner is this process or another; between processes they travel as JSON lines.
//!
//! Enums are tagged from outside and nothing is flattened: only so do numbers keep every digit.

use std::net::SocketAddr;
use std::path::PathBuf;

use fieldkeep_model::{RecordId, TypeName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::shape::{Aside, Change, Conflict, Met, Peers, Record, Status, Synced};

/// A record's name.
pub(crate) type Name = (TypeName, RecordId);

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Write records, durable together.
    Write(Vec<Write>),
    /// Which of these records are not there, or deleted?
    Missing(TypeName, Vec<RecordId>),
    /// The catalog's source.
    Catalog,
    /// One record.
    Get {
        /// Which.
        record: Name,
        /// With the changes that made it.
        history: bool,
        /// With the concurrent values of its fields.
        conflicts: bool,
    },
    /// The records of a type.
    List {
        /// The type.
        ty: TypeName,
        /// Fields and the values that they must have.
        filters: Vec<(String, String)>,
        /// At most so many.
        limit: Option<u64>,
    },
    /// Write a type's documents into a directory.
    Documents(TypeName, PathBuf),
    /// The connection and the counts.
    Status,
    /// Sync, for so many seconds at most.
    Sync(u64),
    /// Learn where the relay is, within so many milliseconds.
    Relay(SocketAddr, u64),
    /// Exchange with a device, by where it is or its name, for so many milliseconds at most.
    Meet(String, u64),
    /// Look around on the local network, for so many milliseconds; where this device listens if 0.
    Peers(u64),
    /// The records that are held, wait, or are likely to be held.
    Attention,
    /// The same on a relay, with what was kept aside.
    Quarantine,
    /// Ask the relay to judge a record again, or all of [`Request::Attention`].
    Retry(Option<Name>),
    /// Put a record aside with a note, or take it up again.
    Dismiss(Name, Option<String>),
    /// Judge a record again, or all that are held or wait.
    Rejudge(Option<Name>),
    /// The membership log, and where the relay listens.
    Members,
    /// Append an entry to the membership log.
    AppendMember {
        /// The index that it is signed for.
        base: u64,
        /// The entry.
        entry: Entry,
    },
    /// What the relay holds of a member where it may not write once it has those grants.
    CutOffs {
        /// The member's signing key, in hexadecimal.
        member: String,
        /// Types and scopes.
        grants: Vec<(Option<TypeName>, Option<String>)>,
    },
    /// Publish a catalog.
    Publish(String),
    /// Open a new epoch: the directory was put back from an old copy.
    Restore,
}

/// A write of one record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Write {
    /// The type.
    pub(crate) ty: TypeName,
    /// The record; a fresh id if none.
    pub(crate) id: Option<RecordId>,
    /// What is written, in order.
    pub(crate) contents: Vec<Content>,
    /// Whether it deletes the record, or brings it back.
    pub(crate) deleted: Option<bool>,
    /// Whether numbers given for counters are totals, as a table holds them, or are added.
    pub(crate) totals: bool,
}

/// A part of a write, as it was typed: the owner reads it by the catalog.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Content {
    /// Words of a command line.
    Words(Vec<String>),
    /// The text of a JSON object.
    Object(String),
    /// Fields and cells of a table.
    Cells(Vec<(String, String)>),
    /// A child of a set, with its cells.
    Child {
        /// The set.
        set: String,
        /// The child.
        id: String,
        /// Its fields and cells.
        cells: Vec<(String, String)>,
    },
}

impl Content {
    /// What it says of a field, as text, as far as that can be told without the catalog.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        match self {
            Self::Object(text) => {
                let fields: Map<String, Value> = serde_json::from_str(text).ok()?;
                fields.get(name).map(Value::to_string)
            }
            Self::Cells(cells) => {
                cells.iter().find(|(field, _)| field == name).map(|(_, cell)| cell.clone())
            }
            Self::Words(_) | Self::Child { .. } => None,
        }
    }
}

/// An entry of the membership log, in hexadecimal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The signed bytes.
    pub(crate) bytes: String,
    /// The signature.
    pub(crate) signature: String,
}

/// What is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    /// What each write did.
    Written(Vec<Written>),
    /// The records that are not there.
    Missing(Vec<RecordId>),
    /// The catalog's source, if there is a catalog.
    Catalog(Option<String>),
    /// A record.
    Got {
        /// The record.
        record: Box<Record>,
        /// The changes that made it.
        history: Option<Vec<Change>>,
        /// The concurrent values of its fields.
        conflicts: Option<Vec<Conflict>>,
    },
    /// All records have been told; those were kept aside.
    Listed(Vec<Aside>),
    /// The files that were written.
    Documents(Vec<PathBuf>),
    /// The connection and the counts.
    Status(Box<Status>),
    /// What a sync came to.
    Synced(Synced),
    /// Where the relay is, is known now.
    Learnt,
    /// What an exchange with another device came to.
    Met(Met),
    /// The devices that were found.
    Peers(Peers),
    /// So many records were taken up.
    Taken(u64),
    /// So many were judged again, and so many of them are still not valid.
    Rejudged {
        /// Those that were judged.
        records: u64,
        /// Those that are held or wait.
        still: u64,
    },
    /// The membership log, and where the relay listens.
    Members {
        /// Its entries.
        entries: Vec<Entry>,
        /// Where the relay listened last.
        address: Option<String>,
    },
    /// Whether the entry was appended: not if the log has grown meanwhile.
    Appended(bool),
    /// Cut-offs: CBOR, in hexadecimal.
    CutOffs(String),
    /// The catalog in force.
    Published {
        /// Its number.
        number: u64,
        /// Whether it is another one than before.
        changed: bool,
    },
    /// An epoch was opened.
    Restored {
        /// Its counter.
        epoch: u64,
        /// How many segments there are.
        segments: u64,
    },
}

/// What a write did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Written {
    /// The record.
    pub(crate) id: RecordId,
    /// Whether anything had to be changed.
    pub(crate) changed: bool,
    /// What is known of its validity.
    pub(crate) state: String,
    /// Why it is likely to be held.
    pub(crate) reasons: Vec<String>,
}

/// A line of an answer between processes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    /// One of several records.
    Record(Box<Record>),
    /// The answer.
    Done(Box<Response>),
    /// It failed.
    Failed(Failure),
}
