//! What a revoked device had captured, taken all the same: an operator brings its bundle.
//!
//! Its changes are vouched for and pass the gate like anybody's, and lie aside, because their author may
//! write nothing any more. What is accepted of them, and of what lay aside while he was a member, a relay
//! writes again: ordinary changes of its own, which name the author and are judged. The changes themselves
//! stay aside, marked, so that nothing is accepted twice.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_documents::document::Author;
use fieldkeep_documents::{Document, History};
use fieldkeep_model::header::limit;
use fieldkeep_model::{
    ChangeHash, ChangeHeader, Head, Member, RecordEdit, RecordId, RecordKey, SegmentAddress,
    SegmentId, SignedHead,
};
use fieldkeep_store::{Aside, Log as _};

use crate::admit::{AdmitError, Batch, Refused};
use crate::quota::{OVER_QUOTA, may_be_built_on};
use crate::read::RecordView;
use crate::replica::{Replica, ReplicaError};
use crate::write::PutError;

/// Why a change lies aside that its author may not write.
pub(crate) const NOT_PERMITTED: &str = "not_permitted";
/// Why one lies aside of which the content was accepted, and written again.
pub const ACCEPTED: &str = "accepted";

/// How far an operator goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepting {
    /// Nothing is changed: it is found out what accepting would come to.
    Trying,
    /// The changes are kept aside, where the quarantine shows them.
    KeepingAside,
    /// What they wrote is written again.
    Writing,
}

/// What became of a device's changes, or would.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accepted {
    /// Changes of others that it brought and that were not here.
    pub carried: u64,
    /// Its own changes that are in the log, or were accepted before.
    pub known: u64,
    /// Its own changes that lie aside by now.
    pub aside: u64,
    /// Of these so many as were written again.
    pub written: u64,
    /// The records that were written, as they are then.
    pub records: Vec<RecordView>,
    /// Records that are not there, so that nothing could be written again of what was done to them: the
    /// changes stay aside.
    pub absent: Vec<RecordKey>,
    /// Segments of which nothing was taken, and why.
    pub refused: Vec<(SegmentAddress, Refused)>,
    /// Segments that no catalog here declares: nothing of them was taken.
    pub undeclared: BTreeSet<SegmentAddress>,
    /// Segments that are otherwise than before.
    pub moved: BTreeSet<SegmentId>,
}

/// What changes wrote that lie aside.
struct Content {
    /// The same as edits.
    edits: Vec<(RecordId, RecordEdit)>,
    /// The changes; others wait for something that is not here.
    ready: Vec<ChangeHash>,
    /// When the newest of them was made, by its author's clock, milliseconds UTC.
    captured: Option<i64>,
}

/// Whether a change lies aside for a reason that an operator may pass over, and was not accepted yet.
fn is_acceptable(aside: &Aside) -> bool {
    matches!(aside.reason.as_str(), NOT_PERMITTED | OVER_QUOTA)
}

impl Replica {
    /// Takes what a revoked device brings, and what of it lies aside here, as far as an operator goes; all
    /// or nothing. A commit must follow.
    ///
    /// # Errors
    /// When the store fails: nothing was changed then. What the gate refuses is told in the answer.
    pub fn accept(
        &mut self,
        author: &Member,
        batches: &[Batch],
        how: Accepting,
        now: i64,
    ) -> Result<Accepted, PutError> {
        let keep = how != Accepting::Trying;
        let (mut accepted, moved) = self.together(keep, |replica| {
            let mut accepted = Accepted::default();
            replica.receive_own(author, batches, &mut accepted, now)?;
            let own = replica.acceptable_of(author)?;
            accepted.aside = own.values().map(|hashes| hashes.len() as u64).sum();
            if how != Accepting::KeepingAside {
                let mut keys = BTreeSet::new();
                for (segment, hashes) in own {
                    let written =
                        replica.write_accepted(&segment, &hashes, author, &mut accepted, now)?;
                    keys.extend(written);
                    // Of a generation that is over it is told what it comes to in the one in force.
                    replica.carry_merged(&segment, now)?;
                }
                for key in keys {
                    accepted.records.extend(replica.views().record(&key)?);
                }
            }
            Ok::<_, PutError>(accepted)
        })?;
        accepted.moved = moved;
        Ok(accepted)
    }

    /// The changes of an author that lie aside and may be accepted.
    fn acceptable_of(
        &self,
        author: &Member,
    ) -> Result<BTreeMap<SegmentId, BTreeSet<ChangeHash>>, ReplicaError> {
        let mut own: BTreeMap<SegmentId, BTreeSet<ChangeHash>> = BTreeMap::new();
        for aside in self.store.asides()? {
            if author.is(&aside.actor)
                && is_acceptable(&aside)
                && let Some(row) = self.segment_of(aside.sid)
            {
                own.entry(row.id).or_default().insert(aside.hash);
            }
        }
        Ok(own)
    }

    /// Receives batches as from their author: his own changes lie aside by that.
    fn receive_own(
        &mut self,
        author: &Member,
        batches: &[Batch],
        accepted: &mut Accepted,
        now: i64,
    ) -> Result<(), ReplicaError> {
        let mut refused = BTreeSet::new();
        for batch in batches {
            let id = batch.segment.id(&self.org());
            if refused.contains(&id) {
                continue;
            }
            match self.receive(author.number, batch, now) {
                Ok(received) => {
                    let admitted = received.admitted.map_or(0, |(first, last)| last - first + 1);
                    accepted.carried += admitted;
                    for (actor, seq, _) in &received.newest {
                        self.note_newest(&id, actor, *seq)?;
                    }
                }
                Err(AdmitError::Refused(why)) => {
                    refused.insert(id);
                    accepted.refused.push((batch.segment.clone(), *why));
                    continue;
                }
                Err(AdmitError::Replica(error)) => return Err(error),
            }
            let sid = self.row(&id).sid;
            let headers = batch.chunks.iter().filter_map(|chunk| ChangeHeader::parse(chunk).ok());
            for header in headers {
                if !author.is(&header.actor) {
                    continue;
                }
                let aside = self.store.aside(sid, &header.hash)?;
                if !aside.is_some_and(|aside| is_acceptable(&aside)) {
                    accepted.known += 1;
                }
            }
        }
        Ok(())
    }

    /// Writes again what some changes wrote that lie aside. Returns the records.
    fn write_accepted(
        &mut self,
        id: &SegmentId,
        wanted: &BTreeSet<ChangeHash>,
        author: &Member,
        accepted: &mut Accepted,
        now: i64,
    ) -> Result<Vec<RecordKey>, PutError> {
        let Content { edits, ready, captured } = self.content_aside(id, wanted)?;
        let (sid, ty) = (self.row(id).sid, self.row(id).address.ty.clone());
        let mut person = author.name.clone();
        person.truncate(person.floor_char_boundary(limit::MESSAGE));
        // As old as what was captured: when it was accepted is on the trail.
        let time = captured.unwrap_or(now).min(now);
        let writer = Author { actor: self.me.actor(), person, time };
        let mut keys = Vec::new();
        for (record, edit) in edits {
            let key = RecordKey::new(ty.clone(), record);
            match self.put_in(id, &key, &edit, &writer) {
                Ok(_) => keys.push(key),
                Err(PutError::Write(_)) => {
                    self.write_in_parts(id, &key, &edit, &writer)?;
                    keys.push(key);
                }
                Err(PutError::Absent(key)) => accepted.absent.push(key),
                Err(error) => return Err(error),
            }
        }
        self.vouch_for_own(id)?;
        for hash in &ready {
            self.store.mark_aside(sid, hash, ACCEPTED)?;
        }
        accepted.written += ready.len() as u64;
        Ok(keys)
    }

    /// Signs for the newest change that this replica wrote in a segment.
    pub(crate) fn vouch_for_own(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        let (org, actor) = (self.org(), self.me.actor());
        let history = &self.load(id)?.history;
        let seq = history.vector().seq(&actor);
        let Some(hash) = history.hash_of(&actor, seq) else { return Ok(()) };
        let head = SignedHead::new(&org, id, Head { actor, seq, hash }, &self.me.keys);
        self.keep_heads(id, &[head])
    }

    /// What changes wrote that lie aside: in a copy of the segment that has them, each once it has passed
    /// the gate.
    fn content_aside(
        &mut self,
        id: &SegmentId,
        wanted: &BTreeSet<ChangeHash>,
    ) -> Result<Content, ReplicaError> {
        let sid = self.row(id).sid;
        let (mut history, mut chunks) = (History::new(), Vec::new());
        self.each_entry(sid, 1, |entry| {
            let replayed = history.replay(&entry.bytes);
            replayed.map_err(|refusal| ReplicaError::Damaged(*id, refusal.to_string()))?;
            chunks.push(entry.bytes);
            Ok::<_, ReplicaError>(())
        })?;
        let mut rest = self.store.asides_in(sid)?;
        rest.retain(|aside| may_be_built_on(&aside.reason));
        let (mut own, mut ready, mut captured) = (Vec::new(), Vec::new(), None);
        loop {
            let before = rest.len();
            rest.retain(|aside| {
                let Ok(admitted) = history.check(&aside.bytes) else { return true };
                history.admit(&admitted);
                chunks.push(aside.bytes.clone());
                if wanted.contains(&aside.hash) {
                    let header = ChangeHeader::parse(&aside.bytes).ok();
                    captured = captured.max(header.map(|header| header.time));
                    own.push(chunks.len() - 1);
                    ready.push(aside.hash);
                }
                false
            });
            if rest.len() == before {
                break;
            }
        }
        let mut document = Document::new();
        let applied = document.apply(chunks.iter().map(Vec::as_slice));
        applied.map_err(|error| ReplicaError::Damaged(*id, error.to_string()))?;
        let own: Vec<&[u8]> = own.into_iter().map(|at| chunks[at].as_slice()).collect();
        let edits = document.rewritten(&own, &|actor, counter| document.locate(actor, counter));
        Ok(Content { edits, ready, captured })
    }
}
