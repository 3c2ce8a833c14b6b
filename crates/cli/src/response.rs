//! What the owner of a directory answers to a [`crate::request`].

use std::path::PathBuf;

use fieldkeep_model::{RecordId, TypeName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use fieldkeep_console::Failure;
use fieldkeep_console::shape::catalog::{Diff, Follows, Kept, Standing};
use fieldkeep_console::shape::fleet::FleetDevice;
use fieldkeep_console::shape::reshape::{Afresh, PastGeneration, PastRecord};
use fieldkeep_console::shape::{
    Advice, Answer, Aside, Attachment, Blamed, CallRow, Called, CatalogState, Check, ClearPlan,
    Conflict, Decision, Deed, Explanation, Gone, Held, History, Met, NotTaken, Operator, Paused,
    Peers, Pin, Record, Resynced, Status, Synced,
};
use fieldkeep_relay::limits::Report;

use crate::request::Entry;

/// What is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    /// What each write did.
    Written(Vec<Written>),
    /// What a call has done.
    Called(Called),
    /// What a question is answered.
    Answered(Answer),
    /// The calls of this device.
    Calls(Vec<CallRow>),
    /// How many records of an import are saved, and how many it has; nothing of one that never began.
    Imported(Option<(u64, u64)>),
    /// The writes that would not be taken, by their place, and why.
    Rehearsed(Vec<(usize, Failure)>),
    /// A record as it was, and those of its files that were removed since.
    Was(Map<String, Value>, Vec<Gone>),
    /// A record as a text.
    Shared(String),
    /// What is wrong, and what to do.
    Advice(Vec<Advice>),
    /// Where a record is, and why it looks as it does.
    Explained(Box<Explanation>),
    /// What the doctor found, and how many segments were derived again.
    Checked(Vec<Check>, Option<u64>),
    /// The records that are not there.
    Missing(Vec<RecordId>),
    /// The catalog's number here, and when that was last known to be the relay's.
    CatalogState(Option<CatalogState>),
    /// The records with a change that the relay has not taken.
    NotTaken(Vec<NotTaken>),
    /// The catalog's source, if there is a catalog.
    Catalog(Option<String>),
    /// A record.
    Got {
        /// The record.
        record: Box<Record>,
        /// The changes that made it.
        history: Option<History>,
        /// The concurrent values of its fields.
        conflicts: Option<Vec<Conflict>>,
    },
    /// What a write would come to.
    Foreseen {
        /// The record.
        record: Box<Record>,
        /// Whether only the relay may write it.
        online: bool,
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
    /// What is paused now.
    Paused(Paused),
    /// The scopes of a type that are exchanged by now; all that were granted if none.
    Subscribed(TypeName, Option<Vec<String>>),
    /// What downloading again came to.
    Resynced(Resynced),
    /// What clearing would do.
    ClearPlan(ClearPlan),
    /// The records that are in use.
    Pins(Vec<Pin>),
    /// Files of records, and whether none are exchanged for the time being.
    Attachments(Vec<Attachment>, bool),
    /// Where a file lies.
    Fetched(PathBuf),
    /// So many records were taken up.
    Taken(u64),
    /// A page of the quarantine.
    Quarantine {
        /// The records.
        found: Vec<Held>,
        /// From where to go on, where there may be more.
        next: Option<String>,
        /// Changes that were kept aside, with the first page.
        asides: Vec<Aside>,
    },
    /// A record as the quarantine shows it.
    HeldRecord {
        /// The record.
        held: Box<Held>,
        /// The first records that refer to it.
        referrers: Vec<String>,
        /// How many more there are.
        more_referrers: u64,
        /// What is to blame, if that can be told.
        blame: Option<Blamed>,
    },
    /// What was decided, newest first.
    Decisions(Vec<Decision>),
    /// So many were judged again, and so many of them are still not valid.
    Rejudged {
        /// Those that were judged.
        records: u64,
        /// Those that are held or wait.
        still: u64,
    },
    /// The accounts of the console, by name.
    Operators(Vec<Operator>),
    /// What operators did, newest first.
    Deeds(Vec<Deed>),
    /// The membership log, and where the relay listens.
    Members {
        /// Its entries.
        entries: Vec<Entry>,
        /// Where the relay listened last.
        address: Option<String>,
    },
    /// Whether the entry was appended: not if the log has grown meanwhile.
    Appended(bool),
    /// An entry that was signed elsewhere was appended.
    Applied {
        /// Whether it was there already.
        already: bool,
        /// Segments in which more of the device came than the entry commits to.
        beyond: u64,
    },
    /// A key, in hexadecimal.
    Me(String),
    /// The keys that a relay will have, in hexadecimal.
    NextKeys {
        /// The one that it signs with.
        signing: String,
        /// The one by which it is connected to.
        tls: String,
    },
    /// Devices as the relay knows them.
    Devices {
        /// The devices.
        devices: Vec<FleetDevice>,
        /// The number of the catalog in force.
        catalog: Option<u64>,
    },
    /// Cut-offs: CBOR, in hexadecimal.
    CutOffs(String),
    /// The console is open.
    Console(Opened),
    /// A bundle was written.
    Bundled(Bundled),
    /// A bundle was taken in.
    Unbundled(Unbundled),
    /// A revoked device's bundle was taken in, or would be.
    Accepted(Box<Accepted>),
    /// The catalog in force.
    Published {
        /// Its number.
        number: u64,
        /// Whether it is another one than before.
        changed: bool,
    },
    /// Whether a catalog fits what was published.
    CatalogFollows(Follows),
    /// What a catalog would change.
    CatalogDiff(Box<Diff>),
    /// Every catalog that is kept.
    Catalogs(Vec<Kept>),
    /// A catalog, with its number.
    CatalogSource(u64, String),
    /// What a new generation comes to.
    Afresh(Box<Afresh>),
    /// The generations that are over.
    PastGenerations(Vec<PastGeneration>),
    /// Records of one, and behind which segment there are more.
    PastRecords(Vec<PastRecord>, Option<String>),
    /// So many segments are in a file, and not here any more.
    Archived(u64),
    /// Where the catalog in force stands.
    CatalogStanding(Box<Standing>),
    /// An epoch was opened.
    Restored {
        /// Its counter.
        epoch: u64,
        /// How many segments there are.
        segments: u64,
    },
    /// It is noted.
    Noted,
    /// The files that nothing refers to.
    Collected(Box<Collected>),
    /// The limits, and what is used of them.
    Limits(Box<Report>),
}

/// The files that nothing refers to, and what becomes of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Collected {
    /// Whether it is only told.
    pub(crate) dry_run: bool,
    /// How many seconds after it was seen that nothing refers to a file it goes; nothing where
    /// collection is not turned on.
    pub(crate) after_seconds: Option<u64>,
    /// Why nothing goes at present.
    pub(crate) waits: Option<String>,
    /// When it was first seen of one of them.
    pub(crate) since: Option<String>,
    /// Those that would go now, or went.
    pub(crate) now: Pile,
    /// Those that go later, or never.
    pub(crate) later: Pile,
    /// When the next of these goes.
    pub(crate) next: Option<String>,
    /// The first of them.
    pub(crate) files: Vec<Unreferenced>,
}

/// Several files.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Pile {
    /// How many.
    pub(crate) files: u64,
    /// Their lengths together.
    pub(crate) bytes: u64,
}

/// A file that nothing refers to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Unreferenced {
    /// The file: blake3 of its bytes.
    pub(crate) hash: String,
    /// Its length in bytes.
    pub(crate) size: u64,
    /// When that was first seen.
    pub(crate) since: String,
    /// When it goes; nothing where collection is not turned on.
    pub(crate) goes: Option<String>,
}

/// What opens a console.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// An address that is good once.
    pub(crate) url: String,
    /// Where it is.
    pub(crate) address: String,
    /// A session, for a program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
}

/// A bundle that was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bundled {
    /// The name of whom it is for.
    pub(crate) to: String,
    /// Changes in it.
    pub(crate) changes: u64,
    /// Receipts in it.
    pub(crate) receipts: u64,
    /// Attached files in it.
    pub(crate) files: u64,
    /// The bytes of those.
    pub(crate) file_bytes: u64,
    /// Files that belong in it and could not be read.
    pub(crate) unread_files: u64,
    /// Its size.
    pub(crate) bytes: u64,
    /// Never: said so that nobody takes it for granted.
    pub(crate) encrypted: bool,
}

/// What a bundle brought.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Unbundled {
    /// The name of whoever wrote it.
    pub(crate) from: String,
    /// Changes that were not here.
    pub(crate) changes: u64,
    /// Attached files that were not here.
    pub(crate) files: u64,
    /// Changes that have a receipt by now.
    pub(crate) saved: u64,
    /// Files that waited and are on the relay by now.
    pub(crate) saved_files: u64,
    /// Changes that are kept aside.
    pub(crate) aside: u64,
    /// Segments that were proven equal.
    pub(crate) proven: u64,
    /// Segments that are left out here.
    pub(crate) left_out: u64,
    /// How many segments and files were refused.
    pub(crate) refused: u64,
    /// The first of them.
    pub(crate) not_taken: Vec<Untaken>,
    /// Segments whose proof was not equal.
    pub(crate) unequal: Vec<String>,
}

/// What became of a revoked device's changes, or would.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Accepted {
    /// Its name.
    pub(crate) from: String,
    /// Its number.
    pub(crate) number: u64,
    /// Its changes that were in the log, or accepted before.
    pub(crate) known: u64,
    /// Those that lay aside, or do now.
    pub(crate) aside: u64,
    /// Of these so many as were written again.
    pub(crate) written: u64,
    /// Changes of others that it brought and that were not here.
    pub(crate) carried: u64,
    /// Files that it brought.
    pub(crate) files: u64,
    /// The records that were written, as they are by that.
    pub(crate) records: Vec<Record>,
    /// Records that are not there: what was done to them is kept aside.
    pub(crate) absent: Vec<String>,
    /// Segments and files that were not taken.
    pub(crate) not_taken: Vec<Untaken>,
}

/// A segment of which nothing was taken, or not all, or a file that was not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Untaken {
    /// The segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) segment: Option<String>,
    /// The record that names the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) record: Option<String>,
    /// The file: blake3 of its bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    /// Why.
    pub(crate) code: String,
    /// The same in words.
    pub(crate) text: String,
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
