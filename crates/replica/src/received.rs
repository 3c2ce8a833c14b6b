//! What a device takes over from the relay: its log, its receipts, its verdicts.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_documents::{Code, Document, History};
use fieldkeep_model::{
    ActorId, Chain, ChangeHash, Epoch, Pos, RecordId, SegmentAddress, SegmentId, Seq, SignedHead,
    Stamp, VersionVector,
};
use fieldkeep_store::{Cursor, Log as _, Outgoing, StoreError};

use crate::admit::{AdmitError, Batch, Origin, Parsed, Refused, refused};
use crate::log::Item;
use crate::replica::{Replica, ReplicaError};

/// A stretch of the relay's log, as it came.
#[derive(Clone, Debug)]
pub struct Follow {
    /// The segment.
    pub segment: SegmentAddress,
    /// The log's epoch.
    pub epoch: Epoch,
    /// The position of the first entry.
    pub first: Pos,
    /// The entries in order.
    pub items: Vec<Item>,
    /// The chunks of those that were sent.
    pub chunks: Vec<Vec<u8>>,
    /// The heads that vouch for them.
    pub heads: Vec<SignedHead>,
    /// The chain after the last entry.
    pub chain: Chain,
}

/// Why a stretch was not taken over; nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// It does not begin where the cursor stands: offer again.
    #[error("the relay's log continues at {first}, but {expected} was expected")]
    OutOfStep {
        /// Where it begins.
        first: Pos,
        /// Where the cursor stands.
        expected: Pos,
    },
    /// The chain is not what its entries make it.
    #[error("the relay's log does not continue as its chain says")]
    Unchained,
    /// This replica holds another change of that actor and seq: the relay's stands.
    #[error("the relay's log holds another branch of an actor's changes")]
    Fork(ActorId, Seq),
    /// A change that the relay should have refused, or that nobody vouches for.
    #[error(transparent)]
    Refused(Box<Refused>),
    /// The replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<StoreError> for FollowError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

impl From<AdmitError> for FollowError {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Refused(refused) => Self::Refused(refused),
            AdmitError::Replica(error) => Self::Replica(error),
        }
    }
}

/// What a receipt settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// How many changes.
    pub changes: u64,
    /// The records that they touch.
    pub records: Vec<RecordId>,
    /// Whether something may be sent now that was held back with one of them, which the relay had
    /// refused before others brought it.
    pub freed: bool,
}

impl Settled {
    /// Adds what another receipt settled.
    pub(crate) fn add(&mut self, other: Self) {
        self.changes += other.changes;
        self.records.extend(other.records);
        self.freed |= other.freed;
    }
}

impl Replica {
    /// Takes over a stretch of the relay's log, and the cursor with it. What others brought there of
    /// the changes that this replica carries has its receipt by that.
    ///
    /// # Errors
    /// See [`FollowError`]; nothing of the stretch was written then.
    pub fn follow(&mut self, follow: &Follow) -> Result<Settled, FollowError> {
        let id = follow.segment.id(&self.org());
        self.undoable(&id, |replica| {
            replica.open_segment(&follow.segment)?;
            replica.follow_all(&id, follow)
        })
    }

    fn follow_all(&mut self, id: &SegmentId, follow: &Follow) -> Result<Settled, FollowError> {
        let expected = self.row(id).cursor.pos + 1;
        if follow.first != expected {
            return Err(FollowError::OutOfStep { first: follow.first, expected });
        }
        let batch = Batch {
            segment: follow.segment.clone(),
            chunks: follow.chunks.clone(),
            heads: follow.heads.clone(),
        };
        let changes = self.vouched(&batch)?;
        let mut sent = changes.iter();
        let mut cursor = self.row(id).cursor.clone();
        let mut chain = cursor.chain();
        let mut carried = BTreeMap::new();
        for item in &follow.items {
            cursor.pos += 1;
            let (hash, deps) = match item {
                Item::Known(actor, seq) => {
                    let history = &self.load(id)?.history;
                    let hash = history.hash_of(actor, *seq).ok_or(FollowError::Unchained)?;
                    carried.insert(*actor, (*seq, cursor.pos));
                    (hash, history.deps_of(&hash))
                }
                Item::Sent => {
                    let change = sent.next().ok_or(FollowError::Unchained)?;
                    let header = &change.header;
                    if !self.take_over(id, change, &cursor)? {
                        carried.insert(header.actor, (header.seq, cursor.pos));
                    }
                    (header.hash, header.deps.clone())
                }
            };
            chain = chain.extend(&hash);
            advance(&mut cursor.heads, hash, &deps);
        }
        // No change is in a log twice, and this replica holds them all.
        let repeats = cursor.pos > self.row(id).tip;
        if chain != follow.chain || sent.next().is_some() || repeats {
            return Err(FollowError::Unchained);
        }
        cursor.epoch = follow.epoch;
        cursor.chain = chain.0;
        self.row_mut(id).cursor = cursor;
        self.keep_heads(id, &follow.heads)?;
        self.forget_asides(id, &changes)?;
        // For this device's own changes the relay sends a receipt.
        carried.remove(&self.me.actor());
        let mut receipt = Settled::default();
        for (actor, (seq, pos)) in carried {
            receipt.add(self.acknowledge(id, &actor, seq, pos)?);
        }
        Ok(receipt)
    }

    /// Takes over a change of the relay's log, unless it is here. Returns whether it was not.
    fn take_over(
        &mut self,
        id: &SegmentId,
        change: &Parsed<'_>,
        cursor: &Cursor,
    ) -> Result<bool, FollowError> {
        let header = &change.header;
        let history = &self.load(id)?.history;
        if history.contains(&header.hash) {
            return Ok(false);
        }
        if let Some(held) = history.hash_of(&header.actor, header.seq) {
            // One log has one branch: both would be a lie, not a fork.
            let lie = history.covers(&cursor.heads, &held);
            let fork = FollowError::Fork(header.actor, header.seq);
            return Err(if lie { FollowError::Unchained } else { fork });
        }
        let admitted = match change.check(history) {
            Ok(admitted) => admitted,
            Err(refusal) if matches!(refusal.code, Code::Fork { .. }) => {
                return Err(FollowError::Fork(header.actor, header.seq));
            }
            Err(refusal) => return Err(refused(header, &refusal).into()),
        };
        self.append(id, change.chunk, admitted, Origin::Log(cursor.pos))?;
        Ok(true)
    }

    /// Puts a cursor back to the log's beginning: the relay's log is not the one that it was of.
    pub fn reset_cursor(&mut self, id: &SegmentId) {
        let row = self.row_mut(id);
        (row.cursor, row.proven) = (Cursor::default(), 0);
    }

    /// Notes how far the relay's log reaches, as it says itself.
    pub fn note_told(&mut self, id: &SegmentId, tip: Pos) {
        if self.row(id).told != tip {
            self.row_mut(id).told = tip;
        }
    }

    /// Notes that a segment is not known to be what the relay has, however far it was proven.
    pub fn doubt(&mut self, id: &SegmentId) {
        if self.row(id).proven != 0 {
            self.row_mut(id).proven = 0;
        }
    }

    /// Notes that the relay's log goes on unchanged under another epoch.
    pub fn carry_cursor(&mut self, id: &SegmentId, epoch: Epoch) {
        self.row_mut(id).cursor.epoch = epoch;
    }

    /// Follows the verdicts of every segment from their beginning: a new epoch states them anew, and
    /// its numbers are others. Where another device has brought some of them already, from there.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn reset_verdicts(&mut self) -> Result<(), ReplicaError> {
        let ids: Vec<SegmentId> = self.segments.keys().copied().collect();
        for id in ids {
            let newest = self.judged(&id)?.filter(|judged| judged.epoch == self.epoch);
            let row = self.row_mut(&id);
            (row.verdict, row.judged) = newest.map_or((0, 0), |judged| (judged.number, judged.pos));
        }
        Ok(())
    }

    /// Notes a receipt: through that seq everything is durable on the relay, at or before that
    /// position of its log.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn acknowledge(
        &mut self,
        id: &SegmentId,
        actor: &ActorId,
        seq: Seq,
        pos: Pos,
    ) -> Result<Settled, ReplicaError> {
        let (sid, judged) = (self.row(id).sid, self.row(id).judged);
        let covered = self.store.acknowledge(sid, actor, seq)?;
        let mut receipt = Settled { changes: covered.len() as u64, ..Settled::default() };
        for change in covered {
            if change.refused.is_some() {
                receipt.freed |= self.free_what_builds_on(id, &change)?;
            }
            self.store.settle(sid, &change.records, pos)?;
            receipt.records.extend(change.records);
        }
        // What lies behind the judged position is not judged yet.
        if pos <= judged {
            self.store.pass_judged(sid, judged)?;
        }
        Ok(receipt)
    }

    /// Lets go what was held back because it builds on a change that the relay had refused and has
    /// after all. Returns whether there was any.
    fn free_what_builds_on(
        &mut self,
        id: &SegmentId,
        change: &Outgoing,
    ) -> Result<bool, ReplicaError> {
        let sid = self.row(id).sid;
        let waiting = self.store.outgoing(sid)?;
        let history = &self.load(id)?.history;
        let Some(base) = history.hash_of(&change.actor, change.seq) else { return Ok(false) };
        let builds = |held: &Outgoing| {
            let hash = history.hash_of(&held.actor, held.seq);
            held.refused.is_some() && hash.is_some_and(|hash| history.covers(&[hash], &base))
        };
        let freed: Vec<Outgoing> = waiting.into_iter().filter(builds).collect();
        for held in &freed {
            self.store.put_outgoing(sid, &Outgoing { refused: None, ..held.clone() })?;
        }
        Ok(!freed.is_empty())
    }

    /// Notes that the relay's log through a position is proven to be what is held here, at that time
    /// in milliseconds UTC. Returns the records whose state that settles.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note_proven(
        &mut self,
        id: &SegmentId,
        pos: Pos,
        now: i64,
    ) -> Result<Vec<RecordId>, ReplicaError> {
        self.note_equal(id, pos, now);
        let (sid, judged) = (self.row(id).sid, self.row(id).judged);
        self.store.place(sid, pos)?;
        Ok(self.store.pass_judged(sid, judged)?)
    }

    /// Notes that the relay's log ends at a position, and is what is held here.
    pub fn note_equal(&mut self, id: &SegmentId, pos: Pos, now: i64) {
        let row = self.row_mut(id);
        row.told = row.told.max(pos);
        (row.proven, row.proven_time) = (pos, now);
    }

    /// Whether a segment is proven to be all that the relay is known to have, and is merged, judged
    /// and saved.
    #[must_use]
    pub fn is_proven(&self, id: &SegmentId) -> bool {
        let row = self.row(id);
        let ends = [row.cursor.pos, row.told, row.tip, row.done];
        ends.iter().all(|end| *end == row.proven) && row.judged >= row.proven
    }

    /// Whether a change is in a segment's log.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn holds_change(
        &mut self,
        id: &SegmentId,
        hash: &ChangeHash,
    ) -> Result<bool, ReplicaError> {
        Ok(self.load(id)?.history.contains(hash))
    }

    /// The author and seq of a change, if it is in a segment's log.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn locate(
        &mut self,
        id: &SegmentId,
        hash: &ChangeHash,
    ) -> Result<Option<(ActorId, Seq)>, ReplicaError> {
        Ok(self.load(id)?.history.locate(hash))
    }

    /// The change of that actor and seq, if it is in a segment's log.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn hash_of(
        &mut self,
        id: &SegmentId,
        actor: &ActorId,
        seq: Seq,
    ) -> Result<Option<ChangeHash>, ReplicaError> {
        Ok(self.load(id)?.history.hash_of(actor, seq))
    }

    /// The part of a version vector that is true here: without the actors of whom this replica
    /// holds another branch, or cannot tell because it holds less.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn agrees(
        &mut self,
        id: &SegmentId,
        vector: &VersionVector,
    ) -> Result<VersionVector, ReplicaError> {
        let history = &self.load(id)?.history;
        let mut agreed = vector.clone();
        agreed.stamps.retain(|actor, stamp| {
            let held = history.hash_of(actor, stamp.seq);
            held.is_some_and(|hash| Stamp::new(stamp.seq, &hash) == *stamp)
        });
        Ok(agreed)
    }

    /// Notes why the relay did not take a change: it stays here with what builds on it, and is not
    /// sent again before the relay has it from others.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note_refusal(
        &mut self,
        id: &SegmentId,
        hash: &ChangeHash,
        why: &str,
    ) -> Result<(), ReplicaError> {
        self.refuse(id, why, |history, held| history.covers(&[held], hash))
    }

    /// Notes that the relay keeps a change aside. What builds on it may go all the same: if its author
    /// was allowed to write it, the relay merges both.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note_aside(
        &mut self,
        id: &SegmentId,
        hash: &ChangeHash,
        why: &str,
    ) -> Result<(), ReplicaError> {
        self.refuse(id, why, |_, held| held == *hash)
    }

    /// Marks what waits for a receipt and is meant by a refusal.
    fn refuse(
        &mut self,
        id: &SegmentId,
        why: &str,
        meant: impl Fn(&History, ChangeHash) -> bool,
    ) -> Result<(), ReplicaError> {
        let sid = self.row(id).sid;
        for mut change in self.store.outgoing(sid)? {
            let history = &self.load(id)?.history;
            let held = history.hash_of(&change.actor, change.seq);
            if held.is_some_and(|held| meant(history, held)) {
                change.refused = Some(why.to_owned());
                self.store.put_outgoing(sid, &change)?;
            }
        }
        Ok(())
    }

    /// Whether a change that waits for a receipt builds on one that the relay did not take, and why it
    /// did not.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn refusal_beneath(
        &mut self,
        id: &SegmentId,
        hash: &ChangeHash,
    ) -> Result<Option<String>, ReplicaError> {
        let outgoing = self.store.outgoing(self.row(id).sid)?;
        let refused: Vec<_> =
            outgoing.into_iter().filter(|change| change.refused.is_some()).collect();
        if refused.is_empty() {
            return Ok(None);
        }
        let history = &self.load(id)?.history;
        let beneath = refused.into_iter().find(|change| {
            let held = history.hash_of(&change.actor, change.seq);
            held.is_some_and(|held| held != *hash && history.covers(&[*hash], &held))
        });
        Ok(beneath.and_then(|change| change.refused))
    }

    /// Notes everything that the relay lacks as unsaved, whoever wrote it: the relay lost it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn require_upload(
        &mut self,
        id: &SegmentId,
        held: &VersionVector,
    ) -> Result<u64, ReplicaError> {
        let sid = self.row(id).sid;
        let waiting = self.store.outgoing(sid)?.into_iter();
        let waiting: BTreeSet<Pos> = waiting.map(|change| change.pos).collect();
        let mut lost = Vec::new();
        self.each_entry(sid, 1, |entry| {
            let header = &entry.header;
            let known = waiting.contains(&entry.pos);
            if header.seq > held.seq(&header.actor) && !known {
                lost.push((entry.pos, header.actor, header.seq, entry.bytes));
            }
            Ok::<_, ReplicaError>(())
        })?;
        let count = lost.len() as u64;
        for (pos, actor, seq, chunk) in lost {
            let document = self.document(id)?;
            let locate = |actor, counter| document.locate(actor, counter);
            let writes = Document::field_writes(&chunk, &locate);
            let mut records: Vec<RecordId> = writes.into_iter().map(|w| w.record).collect();
            records.sort_unstable();
            records.dedup();
            self.store.unsettle(sid, &records)?;
            let carried = !self.me.is(&actor);
            let change = Outgoing { pos, actor, seq, refused: None, records, carried };
            self.store.put_outgoing(sid, &change)?;
        }
        Ok(count)
    }

    /// [`Self::require_upload`] where all of the relay's log has come: whatever lies beyond it waits,
    /// or was lost.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn require_beyond_cursor(&mut self, id: &SegmentId) -> Result<u64, ReplicaError> {
        let row = self.row(id);
        let (sid, beyond, heads) = (row.sid, row.tip - row.cursor.pos, row.cursor.heads.clone());
        if beyond == self.store.outgoing(sid)?.len() as u64 {
            return Ok(0);
        }
        match self.load(id)?.history.vector_at(&heads) {
            Some(held) => self.require_upload(id, &held),
            None => Ok(0),
        }
    }
}

/// Takes a change into a sorted list of heads.
fn advance(heads: &mut Vec<ChangeHash>, hash: ChangeHash, deps: &[ChangeHash]) {
    heads.retain(|head| !deps.contains(head));
    if let Err(at) = heads.binary_search(&hash) {
        heads.insert(at, hash);
    }
}
