//! A segment's merged document, and the records in it.
//!
//! The layout is `ROOT[record id]` -> map of fields. A register is a scalar, a json field bytes, a
//! counter a counter, a text a text object, a set a map of children by id, each a map of fields.
//! Deletion is soft: the key `~deleted` in a record's or a child's map. Every write makes exactly
//! one Automerge change, with the actor, the person and the time that it is given.
//!
//! [`Document::apply`] takes changes that passed the gate; it is not safe on others, and does not
//! pretend to be: a panic or an error in Automerge poisons the document, which must be dropped and
//! built again. No clock, no disk; randomness is drawn by Automerge for an actor id that is never
//! used.

mod content;
mod deed;
mod history;
mod merge;
mod node;
mod path;
mod record;
mod snapshot;
mod trace;
mod view;
mod write;

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::CommitOptions;
use automerge::{Automerge, Change, ROOT, ReadDoc};
use fieldkeep_model::header::limit;
use fieldkeep_model::{ActorId, ChangeHash, RecordEdit, RecordId, Seq};
use serde_json::{Map, Value};

pub use content::merged_text;
pub use deed::Deed;
pub use history::{FieldWrite, Locate};
pub use merge::HEADS_AT_ONCE;
pub use record::Record;
pub use snapshot::LoadError;
pub use trace::Conflict;
pub use write::EditError;

use path::FieldPath;
use record::Reader;
use view::Past;
use write::{Stop, Writer};

/// A segment's merged document.
#[derive(Clone, Debug)]
pub struct Document {
    doc: Automerge,
    poisoned: bool,
    /// About how much memory it takes, in bytes.
    weight: usize,
}

/// Memory that a document takes with little in it, in bytes.
const EMPTY: usize = 12 * 1024;
/// Memory for each byte of a change that is applied or written: 1.1 to 1.9 bytes, as the test of a
/// document's memory measures.
const APPLIED: usize = 2;
/// Memory of a loaded document for each byte of its uncompressed save, beside that of its changes: 3.3 to
/// 4.1 bytes.
const LOADED: usize = 4;
/// Memory of a loaded document for each change in it, of which a save may keep a byte or two.
const CHANGE: usize = 170;

/// Who writes, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The device's actor, in its present incarnation.
    pub actor: ActorId,
    /// The person's id, 200 bytes at most.
    pub person: String,
    /// The author's clock, milliseconds UTC.
    pub time: i64,
}

/// A change as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its bytes: raw, or deflated where the raw form is longer than 64 KiB.
    pub chunk: Vec<u8>,
    /// Its hash.
    pub hash: ChangeHash,
    /// Its author's actor.
    pub actor: ActorId,
    /// The actor's counter.
    pub seq: Seq,
}

/// A write of one record.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The change's bytes: raw, or deflated where the raw form is longer than 64 KiB.
    pub chunk: Vec<u8>,
    /// Its hash.
    pub hash: ChangeHash,
    /// Its author's actor.
    pub actor: ActorId,
    /// The actor's counter.
    pub seq: Seq,
    /// The record as it reads afterwards.
    pub record: Record,
}

/// A write of many records in one change.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenMany {
    /// The change.
    pub made: Made,
    /// The records that were named, as they read afterwards, ascending and each once.
    pub records: Vec<(RecordId, Record)>,
}

/// Why changes were not applied. The document is poisoned in every case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It was poisoned before: drop it and build it again.
    #[error("the document is poisoned")]
    Poisoned,
    /// A chunk is no change; the gate would have refused it.
    #[error("change {0} cannot be read")]
    Unreadable(usize),
    /// Automerge refuses a change.
    #[error("automerge refuses the changes: {0}")]
    Refused(String),
    /// Automerge panicked.
    #[error("automerge panicked")]
    Panicked,
}

/// Why a write was not done. The document is as it was, unless it is poisoned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The document is poisoned: drop it and build it again.
    #[error("the document is poisoned")]
    Poisoned,
    /// The edit cannot be written.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The change would pass a limit of the gate: split the edit.
    #[error("the change would be too large")]
    TooLarge,
    /// The person's id is longer than 200 bytes.
    #[error("the person's id is longer than 200 bytes")]
    Person,
    /// More heads than a change may name: [`Document::merge_heads`] first.
    #[error("the document has more than 1023 heads")]
    TooManyHeads,
    /// Automerge refuses an operation, which a well-formed document gives no reason for.
    #[error("automerge refuses the write: {0}")]
    Refused(String),
}

impl Default for Document {
    fn default() -> Self {
        Self::new()
    }
}

impl Document {
    /// An empty document.
    #[must_use]
    pub fn new() -> Self {
        Self { doc: Automerge::new_with_encoding(write::ENCODING), poisoned: false, weight: EMPTY }
    }

    /// Loads what [`Document::save`] made, and prepares it for many edits.
    ///
    /// # Errors
    /// When the snapshot does not verify or does not load: build the document from its changes.
    pub fn load(snapshot: &[u8]) -> Result<Self, LoadError> {
        let (doc, saved) = snapshot::unpack(snapshot)?;
        let changes = usize::try_from(doc.stats().num_changes).unwrap_or(usize::MAX);
        let weight = EMPTY + saved * LOADED + changes.saturating_mul(CHANGE);
        Ok(Self { doc, poisoned: false, weight })
    }

    /// The snapshot; empty, and refused by [`Document::load`], if the document is poisoned.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        if self.poisoned { Vec::new() } else { snapshot::pack(&self.doc) }
    }

    /// The document in Automerge's own format, for other tools; empty if it is poisoned.
    #[must_use]
    pub fn export(&self) -> Vec<u8> {
        if self.poisoned { Vec::new() } else { self.doc.save() }
    }

    /// Whether a panic or an error inside Automerge has left it unusable. It then reads as empty.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Applies changes that passed the gate, in causal order, as one batch. Changes that it holds
    /// already are passed over. The caller compares the heads afterwards.
    ///
    /// # Errors
    /// Every error poisons the document, and is a fault of the gate's or ours.
    pub fn apply<'a>(
        &mut self,
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), ApplyError> {
        if self.poisoned {
            return Err(ApplyError::Poisoned);
        }
        let weight = &mut self.weight;
        let chunks = chunks.into_iter().inspect(|chunk| *weight += chunk.len() * APPLIED);
        let work = AssertUnwindSafe(|| apply(&mut self.doc, chunks));
        let applied = catch_unwind(work).unwrap_or(Err(ApplyError::Panicked));
        if applied.is_err() {
            self.poison();
        }
        applied
    }

    /// About how much memory it takes, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// The heads, ascending.
    #[must_use]
    pub fn heads(&self) -> Vec<ChangeHash> {
        self.doc.get_heads().into_iter().map(|hash| ChangeHash(hash.0)).collect()
    }

    /// The record with that id, deleted or not.
    #[must_use]
    pub fn record(&self, id: &RecordId) -> Option<Record> {
        Reader::new(&self.doc).record(id)
    }

    /// The fields of a record with the children of its sets that are removed as well: what a child
    /// has that is brought back.
    #[must_use]
    pub fn with_removed(&self, id: &RecordId) -> Map<String, Value> {
        Reader::with_removed(&self.doc).record(id).unwrap_or_default().fields
    }

    /// The record as it was when these were the heads, deleted or not; none if it was not there.
    #[must_use]
    pub fn record_at(&self, id: &RecordId, heads: &[ChangeHash]) -> Option<Record> {
        Reader::new(&Past::new(&self.doc, heads)).record(id)
    }

    /// What stood in fields of a record when these were the heads, in the order in which they are
    /// asked for: `customer`, `lines[7].quantity`, `lines[7]` for a child, `~deleted`.
    #[must_use]
    pub fn values_at(
        &self,
        id: &RecordId,
        fields: &[&str],
        heads: &[ChangeHash],
    ) -> Vec<Option<Value>> {
        let past = Past::new(&self.doc, heads);
        let value = |field: &&str| Reader::new(&past).value(id, &FieldPath::parse(field));
        fields.iter().map(value).collect()
    }

    /// The ids of all records, the deleted ones included, ascending. A key that is no record id is
    /// passed over.
    #[must_use]
    pub fn ids(&self) -> Vec<RecordId> {
        self.doc.keys(ROOT).filter_map(|key| RecordId::new(key).ok()).collect()
    }

    /// Writes one record's edit as one change; nothing if it would change nothing. A record that is
    /// not there is created.
    ///
    /// # Errors
    /// The document is as it was after every error but [`WriteError::Poisoned`].
    pub fn write(
        &mut self,
        author: &Author,
        id: &RecordId,
        edit: &RecordEdit,
    ) -> Result<Option<Written>, WriteError> {
        let made = self.commit(author, std::slice::from_ref(&(id.clone(), edit.clone())))?;
        let written = made.map(|Made { chunk, hash, actor, seq }| {
            let record = self.record(id).unwrap_or_default();
            Written { chunk, hash, actor, seq, record }
        });
        Ok(written)
    }

    /// Writes edits of many records as one change.
    ///
    /// # Errors
    /// As [`Document::write`]; it is all or nothing.
    pub fn write_many(
        &mut self,
        author: &Author,
        edits: &[(RecordId, RecordEdit)],
    ) -> Result<Option<WrittenMany>, WriteError> {
        let Some(made) = self.commit(author, edits)? else {
            return Ok(None);
        };
        let mut ids: Vec<_> = edits.iter().map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids.dedup();
        let records = ids.into_iter().filter_map(|id| Some((id.clone(), self.record(id)?)));
        Ok(Some(WrittenMany { made, records: records.collect() }))
    }

    /// Makes empty changes upon all heads, so that later changes name one; none if there is one
    /// head or none. One change names at most [`HEADS_AT_ONCE`] of them, and its author's last
    /// change, so that any number can be merged; the last one is the only head then.
    ///
    /// # Errors
    /// As [`Document::write`], whatever the number of heads.
    pub fn merge_heads(&mut self, author: &Author) -> Result<Vec<Made>, WriteError> {
        self.check_author(author)?;
        self.guarded(|doc| merge::merge_heads(doc, author))
    }

    fn poison(&mut self) {
        *self = Self { poisoned: true, ..Self::new() };
    }

    fn check_author(&self, author: &Author) -> Result<(), WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        let fits = author.person.len() <= limit::MESSAGE;
        if fits { Ok(()) } else { Err(WriteError::Person) }
    }

    /// What every write is checked for first: how many heads its change will name.
    fn check(&self, author: &Author) -> Result<usize, WriteError> {
        self.check_author(author)?;
        // The author's own last change is named too, should it not be a head.
        let heads = self.doc.get_heads().len();
        if heads < limit::DEPS { Ok(heads) } else { Err(WriteError::TooManyHeads) }
    }

    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Automerge) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let doc = &mut self.doc;
        catch_unwind(AssertUnwindSafe(|| work(doc))).unwrap_or_else(|_| {
            self.poison();
            Err(WriteError::Poisoned)
        })
    }

    fn commit(
        &mut self,
        author: &Author,
        edits: &[(RecordId, RecordEdit)],
    ) -> Result<Option<Made>, WriteError> {
        let heads = self.check(author)?;
        for (_, edit) in edits {
            write::check(&edit.edits, false)?;
        }
        let ops = edits.iter().map(|(_, edit)| write::operations(&edit.edits)).sum();
        // Of one record it is not known beforehand: a long text may differ in a letter.
        let may_fit = edits.len() == 1 || size_bound(edits, ops, heads) <= limit::CHUNK;
        let made = self.guarded(|doc| {
            let tried =
                if may_fit { attempt(doc, author, edits, Some(heads))? } else { Attempt::Unsure };
            match tried {
                Attempt::Nothing => Ok(None),
                Attempt::Made(made) => Ok(Some(made)),
                // A commit cannot be undone, and the size is known only after it: try on a copy. What
                // is likely to need that is not tried before: taking it back costs more than a copy.
                Attempt::Unsure => {
                    let mut copy = doc.clone();
                    let Attempt::Made(made) = attempt(&mut copy, author, edits, None)? else {
                        return Ok(None);
                    };
                    *doc = copy;
                    Ok(Some(made))
                }
            }
        })?;
        self.weight += made.as_ref().map_or(0, |made| made.chunk.len() * APPLIED);
        Ok(made)
    }
}

/// What came of trying to write.
enum Attempt {
    /// Nothing would change.
    Nothing,
    /// One change, committed.
    Made(Made),
    /// It might be too large; nothing was done.
    Unsure,
}

/// Writes edits in one transaction. With the number of heads given, it commits only what is sure to
/// fit into a chunk.
fn attempt(
    doc: &mut Automerge,
    author: &Author,
    edits: &[(RecordId, RecordEdit)],
    sure: Option<usize>,
) -> Result<Attempt, WriteError> {
    use automerge::transaction::Transactable;

    doc.set_actor(actor_of(author));
    let mut tx = doc.transaction();
    for (id, edit) in edits {
        if let Err(stop) = Writer::new(&mut tx).record(id, edit) {
            tx.rollback();
            return Err(stop.into());
        }
    }
    let ops = tx.pending_ops();
    if ops as u64 > limit::OPS {
        tx.rollback();
        return Err(WriteError::TooLarge);
    }
    if sure.is_some_and(|heads| size_bound(edits, ops, heads) > limit::CHUNK) {
        tx.rollback();
        return Ok(Attempt::Unsure);
    }
    match tx.commit_with(options(author)).0 {
        Some(hash) => made(doc, hash).map(Attempt::Made),
        None => Ok(Attempt::Nothing),
    }
}

/// A bound from above on a change's length, in bytes.
fn size_bound(edits: &[(RecordId, RecordEdit)], ops: usize, heads: usize) -> usize {
    const HEADER: usize = 1024;
    const OPERATION: usize = 48;
    const REFERENCE: usize = 32;
    let values =
        |(id, edit): &(RecordId, RecordEdit)| id.as_str().len() + write::value_bytes(&edit.edits);
    // An operation names at most one predecessor for each head that wrote beside it.
    let operation = OPERATION + 8 * heads.saturating_sub(1);
    let values: usize = edits.iter().map(values).sum();
    HEADER + REFERENCE * heads + ops * operation + values
}

fn apply<'a>(
    doc: &mut Automerge,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(), ApplyError> {
    let changes = chunks
        .into_iter()
        .enumerate()
        .map(|(nth, chunk)| Change::try_from(chunk).map_err(|_| ApplyError::Unreadable(nth)));
    let changes = changes.collect::<Result<Vec<_>, _>>()?;
    doc.apply_changes(changes).map_err(|error| ApplyError::Refused(error.to_string()))
}

fn actor_of(author: &Author) -> automerge::ActorId {
    automerge::ActorId::from(author.actor.0)
}

fn options(author: &Author) -> CommitOptions {
    let message = author.person.as_str();
    CommitOptions::default().with_message(message).with_time(time_of(author))
}

/// A clock that is wrong by aeons stops nobody from writing.
fn time_of(author: &Author) -> i64 {
    author.time.clamp(-limit::TIME, limit::TIME)
}

/// The change that was just committed, as it travels.
fn made(doc: &Automerge, hash: automerge::ChangeHash) -> Result<Made, WriteError> {
    let lost = || WriteError::Refused("the change cannot be found again".to_owned());
    let mut change = doc.get_change_by_hash(&hash).ok_or_else(lost)?;
    let actor = ActorId::from_slice(change.actor_id().to_bytes()).ok_or_else(lost)?;
    if change.raw_bytes().len() > limit::INFLATED {
        return Err(WriteError::TooLarge);
    }
    let chunk = match change.raw_bytes() {
        raw if raw.len() <= limit::CHUNK => raw.to_vec(),
        _ => change.bytes().into_owned(),
    };
    if chunk.len() > limit::CHUNK {
        return Err(WriteError::TooLarge);
    }
    Ok(Made { chunk, hash: ChangeHash(hash.0), actor, seq: change.seq() })
}

impl From<Stop> for WriteError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Edit(error) => Self::Edit(error),
            Stop::Automerge(error) => Self::Refused(error.to_string()),
        }
    }
}
