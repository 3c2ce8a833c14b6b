//! Edits that need a connection, and what a relay writes for a member that asks for it.
//!
//! A device writes no record that is in a state of which the catalog says so; it asks the relay, which
//! writes as its own actor, names who asked, and judges before anybody else sees it. What a device
//! wrote all the same is held, if the state was in what it knew.

use std::collections::BTreeSet;

use fieldkeep_documents::document::Author;
use fieldkeep_model::header::limit;
use fieldkeep_model::status::State;
use fieldkeep_model::{
    CallEffect, Head, Outcome, RecordEdit, RecordHash, RecordId, RecordKey, SegmentAddress,
    SegmentId, SignedHead, TypeName,
};
use fieldkeep_store::{Records as _, StoreError};
use serde_json::{Map, Value};

use crate::identity::Role;
use crate::judging::fields_of;
use crate::log::Entry;
use crate::replica::{Replica, ReplicaError};
use crate::write::PutError;

/// What a relay wrote for a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenFor {
    /// The records, in the order in which they were written.
    pub effects: Vec<CallEffect>,
    /// The segments whose log or verdicts are others than before.
    pub moved: BTreeSet<SegmentId>,
}

/// Why a relay did not write what it was asked for: nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteForError {
    /// The record is not what who asks takes it for.
    #[error("{0} has changed meanwhile")]
    Changed(RecordKey),
    /// It would be held, or wait.
    #[error("{key} would not pass: {}", reasons.join("; "))]
    Held {
        /// The record.
        key: RecordKey,
        /// Why, in sentences.
        reasons: Vec<String>,
    },
    /// It cannot be written at all.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl From<ReplicaError> for WriteForError {
    fn from(error: ReplicaError) -> Self {
        Self::Put(error.into())
    }
}

impl From<StoreError> for WriteForError {
    fn from(error: StoreError) -> Self {
        Self::Put(error.into())
    }
}

/// A record as it is on a relay, and where it lies.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Its segment.
    pub address: SegmentAddress,
    /// Its fields as merged.
    pub fields: Map<String, Value>,
    /// Whether it is deleted.
    pub deleted: bool,
}

impl Replica {
    /// Merges and judges everything of a type that waits for it. Returns the segments that moved.
    ///
    /// # Errors
    /// When the store fails; a damaged segment is left out.
    pub fn catch_up_type(&mut self, ty: &TypeName) -> Result<BTreeSet<SegmentId>, ReplicaError> {
        let mut moved = BTreeSet::new();
        for id in self.behind() {
            if self.row(&id).address.ty != *ty {
                continue;
            }
            match self.materialise(&id, usize::MAX) {
                Ok(done) => moved.extend(done.judged.into_iter().chain([id])),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    /// A record as it is; nothing if there is none.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn standing(&self, key: &RecordKey) -> Result<Option<Standing>, StoreError> {
        let row = self.store.find(&key.ty, &key.id)?.into_iter().next();
        Ok(row.and_then(|row| {
            let address = self.segment_of(row.sid)?.address.clone();
            Some(Standing { address, fields: fields_of(&row.json), deleted: row.deleted })
        }))
    }

    /// Writes records for a member that asks for it: all or none, and only where each of them passes
    /// in the end. The changes are this replica's own, and name who asked. With `expected`, the first
    /// record has to be what that is the hash of.
    ///
    /// # Errors
    /// See [`WriteForError`].
    pub fn write_for(
        &mut self,
        requester: &str,
        writes: &[(RecordKey, RecordEdit)],
        expected: Option<&RecordHash>,
        now: i64,
    ) -> Result<WrittenFor, WriteForError> {
        let (effects, moved) =
            self.together(true, |replica| replica.write_all_for(requester, writes, expected, now))?;
        Ok(WrittenFor { effects, moved })
    }

    fn write_all_for(
        &mut self,
        requester: &str,
        writes: &[(RecordKey, RecordEdit)],
        expected: Option<&RecordHash>,
        now: i64,
    ) -> Result<Vec<CallEffect>, WriteForError> {
        let mut person = requester.to_owned();
        person.truncate(person.floor_char_boundary(limit::MESSAGE));
        let author = Author { actor: self.me.actor(), person, time: now };
        if let (Some(expected), Some((key, _))) = (expected, writes.first()) {
            let row = self.store.find(&key.ty, &key.id)?.into_iter().next();
            if row.is_none_or(|row| row.hash != *expected) {
                return Err(WriteForError::Changed(key.clone()));
            }
        }
        let mut segments = Vec::new();
        for (key, edit) in writes {
            let segment = self.home_of(key, edit)?;
            let wrote = self.put_in(&segment, key, edit, &author)?;
            if let Some((seq, hash)) = wrote.change {
                let head = Head { actor: author.actor, seq, hash };
                let head = SignedHead::new(&self.org(), &segment, head, &self.me.keys);
                self.keep_heads(&segment, &[head])?;
            }
            segments.push(segment);
        }
        for (key, _) in writes {
            let view = self.views().record(key)?;
            let Some(view) = view.filter(|view| view.state != State::Judged(Outcome::Valid)) else {
                continue;
            };
            return Err(WriteForError::Held { key: key.clone(), reasons: view.reasons });
        }
        let effects = writes.iter().zip(segments).map(|((key, _), segment)| CallEffect {
            record: key.clone(),
            segment,
            pos: self.row(&segment).tip,
        });
        Ok(effects.collect())
    }

    /// On a device: whether a record, as it is here, is edited only by way of a relay.
    pub(crate) fn check_connection(&self, key: &RecordKey) -> Result<(), PutError> {
        if self.me.role == Role::Relay || !self.may_need_connection(&key.ty) {
            return Ok(());
        }
        if self.needs_connection(key)? {
            return Err(PutError::NeedsConnection(key.clone()));
        }
        Ok(())
    }

    fn may_need_connection(&self, ty: &TypeName) -> bool {
        self.published.as_ref().is_some_and(|published| published.catalog.may_need_connection(ty))
    }

    /// Whether a record, as it is here, is edited only by way of a relay.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn needs_connection(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let Some(published) = &self.published else { return Ok(false) };
        let row = self.store.find(&key.ty, &key.id)?.into_iter().next();
        Ok(row
            .is_some_and(|row| published.catalog.needs_connection(&key.ty, &fields_of(&row.json))))
    }

    /// Whether, on a relay, changes of a segment are looked at one by one for what they knew.
    pub(crate) fn is_guarded(&self, id: &SegmentId) -> bool {
        self.me.role == Role::Relay && self.may_need_connection(&self.row(id).address.ty)
    }

    /// Merges entries one by one, and marks those that a device wrote upon a state that asks for a
    /// connection. What was judged before stays what it was: the catalog may be a later one.
    pub(crate) fn apply_guarded(
        &mut self,
        id: &SegmentId,
        entries: &[Entry],
        touched: &[BTreeSet<RecordId>],
    ) -> Result<(), ReplicaError> {
        let (sid, judged) = (self.row(id).sid, self.row(id).judged);
        let Some(catalog) = self.catalog() else { return Ok(()) };
        let ty = self.row(id).address.ty.clone();
        let mut marked = false;
        for (entry, records) in entries.iter().zip(touched) {
            let by_relay = self.members.author(&entry.header.actor).is_some_and(|m| m.relay);
            let document = &*self.document(id)?;
            let mut deps = entry.header.deps.clone();
            deps.sort_unstable();
            let present = document.heads() == deps;
            let before = |record: &RecordId| {
                let past = || document.record_at(record, &deps);
                if present { document.record(record) } else { past() }
            };
            let asks = |record: &RecordId| {
                before(record).is_some_and(|record| catalog.needs_connection(&ty, &record.fields))
            };
            let mark = !by_relay && entry.pos > judged && records.iter().any(asks);
            self.apply(id, std::iter::once(entry.bytes.as_slice()))?;
            if mark && !entry.tainted {
                self.store.taint(sid, entry.pos)?;
                marked = true;
            }
        }
        if marked {
            self.load(id)?;
            let history = &self.cache.peek(id).expect("just loaded").history;
            let taint = self.read_taint(sid, history)?;
            self.load(id)?.taint = taint;
        }
        Ok(())
    }
}
