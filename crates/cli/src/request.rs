//! What a process asks the owner of a directory. The same values whether the owner is this process or
//! another; between processes they travel as JSON lines, and [`crate::response`] comes back.
//!
//! Enums are tagged from outside and nothing is flattened: only so do numbers keep every digit.

use std::net::SocketAddr;
use std::path::PathBuf;

use fieldkeep_model::{RecordId, TypeName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A record's name.
pub(crate) type Name = (TypeName, RecordId);

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Write records, durable together.
    Write(Vec<Write>),
    /// Write the records of an import behind so many that are saved, and how far it has come by that,
    /// durable together.
    Import {
        /// What names the import.
        file: String,
        /// How many records of it are saved.
        from: u64,
        /// How many it has.
        total: u64,
        /// Those that follow.
        writes: Vec<Write>,
    },
    /// How far an import has come.
    Imported(String),
    /// Which writes would not be taken; nothing is written.
    Rehearse(Vec<Write>),
    /// Write a record unless it is likely to be held.
    Strict(Write),
    /// What a write would come to; nothing is written.
    WhatIf(Write),
    /// Have the relay run an action, with words as its input, within so many milliseconds.
    Call(String, Vec<String>, u64),
    /// Ask the relay a query likewise.
    Ask(String, Vec<String>, u64),
    /// The calls of this device.
    Calls,
    /// Wait until a record has come so far, for so many milliseconds.
    Await(Name, Tier, u64),
    /// Write one of a field's values as the one that counts.
    Resolve(Name, String, String),
    /// A record as it was right after a change, or at a time.
    At(Name, String),
    /// Write a record, or one field of it, as it was then.
    Revert(Name, Option<String>, String),
    /// A record as a text to be sent to somebody.
    Share(Name),
    /// The records that have all words of a text, of one type or all, at most so many.
    Search(String, Option<TypeName>, usize),
    /// Tell of records as they change.
    Watch(Option<TypeName>),
    /// What is wrong, and what to do.
    Advice,
    /// Where a record is, and why it looks as it does.
    Explain(Name),
    /// Check everything, after deriving again what can be if that is asked.
    Doctor(bool),
    /// Which of these records are not there, or deleted?
    Missing(TypeName, Vec<RecordId>),
    /// The catalog's source.
    Catalog,
    /// One record.
    Get {
        /// Which.
        record: Name,
        /// With the changes that made it.
        history: Option<Paging>,
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
    /// Sync, for so many seconds at most; over a connection that is paid by the byte, if it says so.
    Sync { seconds: u64, metered: bool },
    /// Learn where the relay is, within so many milliseconds.
    Relay(SocketAddr, u64),
    /// Exchange with a device, by where it is or its name, for so many milliseconds at most.
    Meet(String, u64),
    /// Look around on the local network, for so many milliseconds; where this device listens if 0.
    Peers(u64),
    /// Exchange nothing of a type, or of all, until it is resumed.
    Pause(Option<TypeName>),
    /// Exchange a type again, or all.
    Resume(Option<TypeName>),
    /// Exchange a scope of a type, and nothing else of it; all that was granted without one.
    Subscribe(TypeName, Option<String>),
    /// Exchange nothing of a scope any more.
    Unsubscribe(TypeName, String),
    /// Take new keys, within so many milliseconds.
    RotateKey(u64),
    /// Download a type again, or all.
    Resync {
        /// The type; all if none.
        ty: Option<TypeName>,
        /// Whether what this device may not read any more is removed.
        clears: bool,
        /// For so many milliseconds at most.
        millis: u64,
    },
    /// What that would remove.
    ClearPlan(Option<TypeName>),
    /// Mark a record as in use: by whom, and what for.
    Pin(Name, String, String),
    /// Release a record, an owner's records, or an owner's mark on a record.
    Unpin(Option<Name>, Option<String>),
    /// The records that are in use.
    Pins,
    /// Attach a file to a field of a record, under a name and with a media type if not its own.
    Attach {
        /// The record.
        record: Name,
        /// The field.
        field: String,
        /// Where the file lies.
        path: PathBuf,
        /// What it is to be called.
        name: Option<String>,
        /// Its media type.
        media: Option<String>,
    },
    /// The files of a record, or all that are on their way.
    Attachments(Option<Name>),
    /// Have a file of a record here, by its name or hash, within so many milliseconds.
    Fetch(Name, String, u64),
    /// Try again what failed of files.
    RetryFiles,
    /// Exchange no files, or exchange them again.
    PauseFiles(bool),
    /// The records that are held, wait, or are likely to be held.
    Attention,
    /// By which catalog they are judged here, and when that was last known to be the relay's.
    CatalogState,
    /// The records with a change that the relay has not taken.
    NotTaken,
    /// A page of a relay's quarantine; with its first page what was kept aside.
    Quarantine {
        /// Which records.
        sought: Sought,
        /// Behind which place: what the page before said.
        after: Option<String>,
        /// At most so many.
        limit: u64,
    },
    /// A record of a relay as the quarantine shows it.
    HeldRecord(Name),
    /// Ask the relay to judge a record again, or all of [`Request::Attention`].
    Retry(Option<Name>),
    /// Put a record aside with a note, or take it up again.
    Dismiss(Name, Option<String>),
    /// Judge records again, for whom.
    Rejudge(Vec<Name>, String),
    /// On a relay: put a record aside with a note, or take it up again; for whom.
    PutAside(Name, Option<String>, String),
    /// Have somebody look after a record, or nobody; for whom.
    Assign(Name, Option<String>, String),
    /// The newest of what was decided.
    Decisions {
        /// About this record.
        about: Option<Name>,
        /// What.
        act: Option<String>,
        /// By whom.
        by: Option<String>,
        /// At most so many.
        limit: u64,
    },
    /// The membership log, and where the relay listens.
    Members,
    /// Append an entry to the membership log.
    AppendMember {
        /// The index that it is signed for.
        base: u64,
        /// The entry.
        entry: Entry,
    },
    /// Append an entry that was signed elsewhere.
    Apply(Entry),
    /// The key that this directory's member signs with.
    Me,
    /// The keys that this relay will have, drawn now unless that was done before.
    NextKeys,
    /// Every device as the relay knows it, or one; and whether it is safe to revoke or to upgrade it.
    Devices {
        /// Its name or number.
        device: Option<String>,
        /// Whether it is to be revoked, or upgraded, if that is asked.
        to_revoke: Option<bool>,
    },
    /// What the relay holds of a member where it may not write once it has those grants.
    CutOffs {
        /// The member's signing key, in hexadecimal.
        member: String,
        /// Types and scopes.
        grants: Vec<(Option<TypeName>, Option<String>)>,
        /// Whether the member is kept away for a moment, because that is signed at once.
        at_once: bool,
    },
    /// Open the console, to a program besides or not.
    Console(bool),
    /// Write a bundle for a member, the relay or a device by its name or number.
    ExportBundle {
        /// The file.
        file: PathBuf,
        /// For whom.
        to: String,
        /// An earlier bundle between the two.
        since: Option<PathBuf>,
        /// Whether attached files are left out.
        without_attachments: bool,
    },
    /// Take a bundle in.
    ImportBundle(PathBuf),
    /// Take in what a revoked device captured; for whom.
    Accept {
        /// What.
        captured: Captured,
        /// Who accepts it.
        who: String,
        /// How far.
        how: Accept,
    },
    /// Publish a catalog, with a note, for whom.
    Publish(String, String, String),
    /// Publish an earlier catalog again, by its number or the one before that in force, with a note, for
    /// whom.
    RollBack(Option<u64>, Option<String>, String),
    /// Whether a catalog fits what was published.
    CatalogFollows(String),
    /// What a catalog would change.
    CatalogDiff(Tried),
    /// Every catalog that is kept.
    Catalogs,
    /// A catalog as it was published: the one of a number, or the one in force.
    CatalogSource(Option<u64>),
    /// Start a type afresh, or find out what that would come to.
    Reshape(ReshapeWish),
    /// How far a type that is started afresh has come.
    Reshaping(TypeName),
    /// Give up a new generation that is not in force.
    GiveUpReshape(TypeName),
    /// The generations that are over.
    PastGenerations,
    /// The records of a segment of one: the next behind that.
    ReadPast(TypeName, u32, Option<String>),
    /// Put one into a file, and take it out.
    Archive {
        /// The type.
        ty: TypeName,
        /// The generation.
        generation: u32,
        /// The file.
        file: PathBuf,
        /// Whether devices that have not moved on are no matter.
        anyway: bool,
    },
    /// Where the catalog in force stands.
    CatalogStanding,
    /// Open a new epoch: the directory was put back from an old copy.
    Restore,
    /// The accounts of the console.
    Operators,
    /// Change one of them: whose, how, and for whom.
    ChangeAccount(String, AccountWish, String),
    /// What operators did on the console, at most so many.
    Deeds(u64),
    /// A backup was made: as of when (milliseconds UTC), in which folder, and its number there.
    NoteBackup(i64, String, u64),
    /// Derive the records of those segments again, by their ids, and count anew.
    Mend(Vec<String>),
    /// Remove the files that nothing refers to, or only tell which that would be.
    Collect(bool),
    /// The limits of a relay, and what is used of them.
    Limits,
}

/// Where what a revoked device captured is taken from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Captured {
    /// A bundle of it, and what of it lies aside on the relay.
    Bundle(PathBuf),
    /// What of the device of that name or number lies aside on the relay.
    Aside(String),
}

/// How far what a revoked device captured is taken.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Accept {
    /// Only find out what that would come to.
    Try,
    /// Keep its changes aside.
    KeepAside,
    /// Write what they wrote again.
    Write,
}

/// What is to become of an account: roles in one word, passwords as their hashes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum AccountWish {
    /// It is made.
    Add(String, String),
    /// It has another password.
    Password(String),
    /// It has another role.
    Role(String),
    /// It goes.
    Remove,
}

/// Which records of the quarantine are asked for; all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sought {
    /// Of that type.
    pub(crate) ty: Option<TypeName>,
    /// In that scope.
    pub(crate) scope: Option<String>,
    /// For that rule.
    pub(crate) rule: Option<String>,
    /// With a change of that device, by its name or number.
    pub(crate) device: Option<String>,
    /// Whose newest such change was written by then, milliseconds UTC.
    pub(crate) until: Option<i64>,
    /// With that text in its name or in what it holds.
    pub(crate) text: Option<String>,
    /// Put aside, or not.
    pub(crate) dismissed: Option<bool>,
    /// Which that person looks after.
    pub(crate) person: Option<String>,
}

/// How a type is started afresh.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ReshapeWish {
    /// The type.
    pub(crate) ty: TypeName,
    /// The catalog's source, if it is not that of the one in force.
    pub(crate) file: Option<String>,
    /// Into how many segments each scope is divided.
    pub(crate) buckets: Option<u32>,
    /// The scope field; none within.
    pub(crate) scope: Option<Option<String>>,
    /// The kinds of fields.
    pub(crate) kinds: Vec<(String, String)>,
    /// From when on the history is kept, milliseconds UTC.
    pub(crate) cut: Option<i64>,
    /// Why.
    pub(crate) note: String,
    /// Whether it is only to be told what it would come to.
    pub(crate) dry_run: bool,
}

/// A catalog that is tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Tried {
    /// Its source.
    Source(String),
    /// An earlier one, by its number.
    Number(u64),
}

/// A part of a history.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Paging {
    /// At most so many changes.
    pub(crate) limit: u64,
    /// Before this one: its hash, or the first digits of it.
    pub(crate) before: Option<String>,
}

/// How far a write is awaited.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Tier {
    /// Durable on the relay.
    Relay,
    /// Judged by it.
    Judged,
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
