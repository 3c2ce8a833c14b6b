//! Materialising: merging log entries into the document, and what they touch into the projection.
//!
//! Everything of one call (projection rows, indexes, verdicts, how far it is done) becomes durable
//! together, or nothing. A segment that cannot be read is marked as damaged, and the others go on.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_catalog::ObjectType;
use fieldkeep_documents::Record;
use fieldkeep_model::status::State;
use fieldkeep_model::{BlobHash, Outcome, Pos, RecordId, SegmentId};
use fieldkeep_store::{RecordRow, Records as _};
use tracing::debug_span;

use crate::PART;
use crate::identity::Role;
use crate::judging::Subject;
use crate::replica::{Replica, ReplicaError};

/// A relay merges the heads of a segment that has more of them.
const HEADS: usize = 16;

/// What a call of [`Replica::materialise`] did.
#[derive(Clone, Debug, Default)]
pub struct Materialised {
    /// How many log entries were merged.
    pub changes: u64,
    /// The records that they touch.
    pub records: Vec<RecordId>,
    /// Segments with verdicts or a judged position that were not there before.
    pub judged: Vec<SegmentId>,
}

impl Replica {
    /// Whether there are entries that are not materialised.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// The segments with entries that are not materialised, those that are in memory first: loading
    /// one costs as much as merging some two hundred changes, and may drop one that is needed next.
    #[must_use]
    pub fn behind(&self) -> Vec<SegmentId> {
        let all = self.behind.iter().copied();
        let (mut loaded, others): (Vec<_>, Vec<_>) = all.partition(|id| self.is_loaded(id));
        loaded.extend(others);
        loaded
    }

    /// Whether a segment's document is in memory.
    #[must_use]
    pub fn is_loaded(&self, id: &SegmentId) -> bool {
        self.cache.peek(id).is_some_and(|loaded| loaded.document.is_some())
    }

    /// Merges at most so many entries of a segment, projects what they touch, and judges it.
    ///
    /// # Errors
    /// [`ReplicaError::Damaged`] when a segment's changes do not merge: it is left out from then on, and
    /// nothing was written. It may be one whose records are judged by what this one holds. Failures
    /// of the store besides.
    pub fn materialise(
        &mut self,
        id: &SegmentId,
        limit: usize,
    ) -> Result<Materialised, ReplicaError> {
        self.sparing(id, |replica| replica.merge(id, limit))
    }

    fn merge(&mut self, id: &SegmentId, limit: usize) -> Result<Materialised, ReplicaError> {
        let (sid, done) = (self.row(id).sid, self.row(id).done);
        self.load_document(id)?;
        let mut touched: BTreeMap<RecordId, Touched> = BTreeMap::new();
        let mut by_entry: Vec<BTreeSet<RecordId>> = Vec::new();
        let guarded = self.is_guarded(id);
        let loaded = self.load(id)?;
        let take = loaded.pending.len().min(limit);
        for (number, pending) in (1..).zip(loaded.pending.drain(..take)) {
            if guarded {
                by_entry.push(pending.touched.iter().map(|touch| touch.record.clone()).collect());
            }
            for touch in pending.touched {
                let record = touched.entry(touch.record).or_default();
                record.newest = pending.log_pos.max(record.newest);
                // A change counts once, however many fields of the record it touches.
                let again = std::mem::replace(&mut record.by, number) == number;
                record.unsaved += if again { 0 } else { pending.unsaved };
            }
        }
        let last = done + take as u64;
        let apart = self.is_apart(&self.row(id).address);
        let stood = match apart {
            true => self.read_apart(id, &touched.keys().collect::<Vec<_>>())?,
            false => BTreeMap::new(),
        };
        let mut entries = Vec::with_capacity(take);
        if take > 0 {
            self.each_entry(sid, done + 1, |entry| {
                if entry.pos > last {
                    return Err(Stop::Enough);
                }
                entries.push(entry);
                Ok(())
            })
            .or_else(Stop::into_result)
            .map_err(|error| error.in_segment(id))?;
        }
        debug_span!(target: PART, "merge").in_scope(|| {
            if guarded {
                self.apply_guarded(id, &entries, &by_entry)
            } else {
                self.apply(id, entries.iter().map(|entry| entry.bytes.as_slice()))
            }
        })?;
        self.row_mut(id).done = last;
        let complete = last == self.row(id).tip;
        if complete {
            self.behind.remove(id);
        }
        let loaded = self.load(id)?;
        if complete && loaded.document.as_ref().map(|d| d.heads()) != Some(loaded.history.heads()) {
            let why = "the document's heads are not the log's".to_owned();
            return Err(ReplicaError::Damaged(*id, why));
        }
        if apart {
            self.count_apart(id, &stood)?;
            touched.clear();
        }
        let projecting = debug_span!(target: PART, "project").entered();
        let mut subjects = Vec::with_capacity(touched.len());
        for (record, Touched { newest, unsaved, .. }) in &touched {
            subjects.extend(self.project(id, record, *newest, *unsaved)?);
        }
        drop(projecting);
        let judged = match self.me.role {
            Role::Relay => {
                let judge = || self.issue_verdicts(id, subjects);
                debug_span!(target: PART, "judge").in_scope(judge)?
            }
            Role::Device => {
                self.forecast_all(subjects)?;
                Vec::new()
            }
        };
        self.save_snapshot_if_due(id)?;
        let records = touched.into_keys().collect();
        Ok(Materialised { changes: take as u64, records, judged })
    }

    /// What a relay does with a segment when all of it is judged: merges heads when there are many,
    /// and packs the log when it has grown.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn tidy(&mut self, id: &SegmentId, now: i64) -> Result<(), ReplicaError> {
        match self.undoable(id, |replica| replica.merge_heads(id, HEADS, now)) {
            Ok(false) => {}
            Ok(true) => {
                self.issue_verdicts(id, Vec::new())?;
            }
            Err(crate::write::PutError::Replica(error)) => return Err(error),
            Err(error) => tracing::error!(segment = %id, %error, "heads were not merged"),
        }
        self.compact(id, false).map(|_| ())
    }

    /// Merges gated chunks as one batch.
    pub(crate) fn apply<'c>(
        &mut self,
        id: &SegmentId,
        chunks: impl Iterator<Item = &'c [u8]>,
    ) -> Result<(), ReplicaError> {
        let document = self.load(id)?.document.as_mut().expect("loaded by the caller");
        document.apply(chunks).map_err(|error| ReplicaError::Damaged(*id, error.to_string()))
    }

    /// Writes a record's row as it reads in the document, with a provisional state, and its
    /// indexes. Returns what is to be judged.
    pub(crate) fn project(
        &mut self,
        id: &SegmentId,
        record: &RecordId,
        log_pos: Pos,
        unsaved: u64,
    ) -> Result<Option<Subject>, ReplicaError> {
        let document = self.load_document(id)?.document.as_ref().expect("just loaded");
        let Some(merged) = document.record(record) else { return Ok(None) };
        self.project_as(id, record, merged, log_pos, unsaved).map(Some)
    }

    pub(crate) fn project_as(
        &mut self,
        id: &SegmentId,
        record: &RecordId,
        merged: Record,
        log_pos: Pos,
        unsaved: u64,
    ) -> Result<Subject, ReplicaError> {
        let mut subject = self.compose(id, record, merged, log_pos, unsaved)?;
        self.save_projected(&mut subject)?;
        Ok(subject)
    }

    /// A record's row as it is merged, with a provisional state. Nothing is written.
    pub(crate) fn compose(
        &self,
        id: &SegmentId,
        record: &RecordId,
        merged: Record,
        log_pos: Pos,
        unsaved: u64,
    ) -> Result<Subject, ReplicaError> {
        let sid = self.row(id).sid;
        let previous = self.store.record(sid, record)?;
        let json = merged.canonical();
        let old = previous.as_ref();
        let row = RecordRow {
            rid: old.map_or(0, |old| old.rid),
            sid,
            id: record.clone(),
            hash: fieldkeep_model::RecordHash::of(&json),
            json,
            deleted: merged.deleted,
            pos: old.map_or(0, |old| old.pos).max(log_pos),
            state: State::Judged(Outcome::Valid),
            unsaved: old.map_or(0, |old| old.unsaved) + unsaved,
            conflicts: merged.conflicts,
            valid: None,
            valid_pos: self.row(id).done,
            forecast: None,
        };
        Ok(Subject { segment: *id, row, previous, fields: merged.fields })
    }

    /// Writes a composed row, with its counts and indexes.
    pub(crate) fn save_projected(&mut self, subject: &mut Subject) -> Result<(), ReplicaError> {
        self.store.put_record(&mut subject.row)?;
        let Subject { segment, row, previous, fields } = subject;
        self.count(segment, previous.as_ref(), row);
        self.index(segment, row, previous.is_some(), fields)
    }

    /// Keeps the segment's counts and its sum of rows.
    fn count(&mut self, id: &SegmentId, old: Option<&RecordRow>, row: &RecordRow) {
        let segment = self.row_mut(id);
        match old {
            Some(old) => {
                segment.rows = segment.rows.wrapping_sub(old.digest());
                segment.live -= u64::from(!old.deleted);
            }
            None => segment.records += 1,
        }
        segment.rows = segment.rows.wrapping_add(row.digest());
        segment.live += u64::from(!row.deleted);
    }

    /// Brings up to date which files a record names, once its last valid state is known.
    pub(crate) fn index_files(
        &mut self,
        id: &SegmentId,
        row: &RecordRow,
        fields: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<(), ReplicaError> {
        let Some(catalog) = self.catalog() else { return Ok(()) };
        let object = catalog.ty(&self.row(id).address.ty);
        if let Some(blobs) = object.and_then(|object| blobs(object, fields, row.valid.as_deref())) {
            self.store.index_blobs(row.rid, true, &blobs)?;
        }
        Ok(())
    }

    pub(crate) fn index(
        &mut self,
        id: &SegmentId,
        row: &RecordRow,
        known: bool,
        fields: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<(), ReplicaError> {
        let ty = self.row(id).address.ty.clone();
        let Some(catalog) = self.catalog() else { return Ok(()) };
        let Some(object) = catalog.ty(&ty) else { return Ok(()) };
        let references = object.references(fields).into_iter().map(|r| (r.field, r.ty, r.id));
        let references: Vec<_> = references.collect();
        let unique = if row.deleted { Vec::new() } else { object.unique_values(fields) };
        let blobs = blobs(object, fields, row.valid.as_deref());
        let names = blobs.as_ref().is_some_and(|blobs| !blobs.is_empty());
        if known || !references.is_empty() || !unique.is_empty() || names {
            let blobs = blobs.as_deref();
            self.store.index_record(row.rid, &ty, known, &references, &unique, blobs)?;
        }
        Ok(())
    }
}

/// The files that a record names, as merged and as it was last valid; nothing where its type has none.
fn blobs(
    object: &ObjectType,
    fields: &serde_json::Map<String, serde_json::Value>,
    valid: Option<&str>,
) -> Option<Vec<(String, BlobHash)>> {
    if !object.has_attachments() {
        return None;
    }
    let mut named = object.blobs(fields);
    let valid = valid.and_then(|valid| serde_json::from_str(valid).ok());
    named.extend(valid.iter().flat_map(|valid| object.blobs(valid)));
    Some(named)
}

/// What entries that are merged in one go do to a record.
#[derive(Default)]
struct Touched {
    /// The last position in the relay's log, where it is known.
    newest: Pos,
    /// How many of them wait for a receipt.
    unsaved: u64,
    /// The last of them that touched it, counted from 1.
    by: usize,
}

/// Ends a walk over entries early.
enum Stop {
    Enough,
    Failed(ReplicaError),
}

impl Stop {
    fn into_result(self) -> Result<(), ReplicaError> {
        match self {
            Self::Enough => Ok(()),
            Self::Failed(error) => Err(error),
        }
    }
}

impl From<ReplicaError> for Stop {
    fn from(error: ReplicaError) -> Self {
        Self::Failed(error)
    }
}
