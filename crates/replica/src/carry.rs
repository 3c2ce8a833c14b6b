//! Carrying: what one device hands another, with no relay between them.
//!
//! A carried change passes the gate that it would pass on a relay, by the membership log that is
//! known here. From then on it waits for a receipt, whoever wrote it. Where two branches of one
//! author meet and no relay has decided, the one that is in the log stays there, and the other lies
//! aside, byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::{
    ActorId, Chain, ChangeHash, DeviceNumber, Pos, RecordId, SegmentId, Seq, Stamp, VersionVector,
};
use fieldkeep_store::{Log as _, Outgoing, StoreError};

use crate::admit::{AdmitError, Batch, Parsed};
use crate::replica::{Replica, ReplicaError};

/// Why a branch lies aside that no relay has decided about.
const UNDECIDED: &str = "undecided";
/// Why a branch lies aside that lost.
const FORK: &str = "fork";

/// What became of changes that another device handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// How many came into the log.
    pub changes: u64,
    /// The records that they touch.
    pub records: Vec<RecordId>,
    /// For each actor of the batch the newest change that is in the log.
    pub newest: Vec<(ActorId, Seq, ChangeHash)>,
    /// Actors of whom it brought another branch than the one in the log.
    pub forked: Vec<ActorId>,
}

/// A fork that no relay has decided: the first change of the branch that lies aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndecidedFork {
    /// The segment.
    pub segment: SegmentId,
    /// The author of both branches.
    pub actor: ActorId,
    /// Where they part.
    pub seq: Seq,
    /// How many changes lie aside.
    pub aside: u64,
}

/// What another device is known to hold of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// By actor the newest change, of the branch that is in the log here.
    pub newest: BTreeMap<ActorId, Seq>,
    /// Actors of whom it holds another branch.
    pub forked: BTreeSet<ActorId>,
}

impl Replica {
    /// Takes over what a device hands over, its own changes or those of others. Everything that comes
    /// into the log waits for a receipt from then on, and is merged.
    ///
    /// # Errors
    /// [`AdmitError::Refused`] with the stage and code of the first bad change: nothing of the batch
    /// was written. Failures of the replica besides.
    pub fn carry(
        &mut self,
        from: DeviceNumber,
        batch: &Batch,
        now: i64,
    ) -> Result<Carried, AdmitError> {
        let changes = self.vouched(batch)?;
        let id = batch.segment.id(&self.org());
        let carried = self.undoable(&id, |replica| {
            replica.open_segment(&batch.segment)?;
            replica.carry_all(&id, batch, changes, now)
        });
        tracing::debug!(segment = %id, from, ok = carried.is_ok(), "changes from another device");
        carried
    }

    fn carry_all(
        &mut self,
        id: &SegmentId,
        batch: &Batch,
        changes: Vec<Parsed<'_>>,
        now: i64,
    ) -> Result<Carried, AdmitError> {
        let (gone, forked) = self.other_branches(id, batch, &changes)?;
        let (aside, rest): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| gone.contains(&change.header.hash));
        for change in &aside {
            self.keep_aside(id, change, Vec::new(), &batch.heads, (UNDECIDED, now))?;
        }
        let received = self.receive_all(id, batch, &rest, (true, now))?;
        let mut carried = Carried { newest: received.newest, forked, ..Carried::default() };
        if let Some((first, last)) = received.admitted {
            carried.changes = last - first + 1;
        }
        let waiting = self.note_carried(id)?;
        match self.materialise(id, usize::MAX) {
            Ok(done) => carried.records = done.records,
            Err(error) if error.is_damage() => tracing::error!(%error, "everything else goes on"),
            Err(error) => return Err(error.into()),
        }
        if waiting {
            carried.records.extend(self.settle_judged(id)?.records);
        }
        Ok(carried)
    }

    /// Notes that what has just come into the log waits for a receipt. Returns whether there is any.
    fn note_carried(&mut self, id: &SegmentId) -> Result<bool, ReplicaError> {
        let (sid, tip) = (self.row(id).sid, self.row(id).tip);
        let loaded = self.load(id)?;
        let first = tip + 1 - loaded.pending.len() as u64;
        let mut outgoing = Vec::new();
        for (pos, pending) in (first..).zip(&loaded.pending).filter(|(_, p)| p.unsaved > 0) {
            let Some((actor, seq, _)) = loaded.history.change_at(pos) else { continue };
            let records: BTreeSet<_> = pending.touched.iter().map(|t| t.record.clone()).collect();
            let records = records.into_iter().collect();
            outgoing.push(Outgoing { pos, actor, seq, refused: None, records });
        }
        for change in &outgoing {
            self.store.put_outgoing(sid, change)?;
        }
        Ok(!outgoing.is_empty())
    }

    /// The changes of a batch that belong to another branch than the one in the log: what another
    /// change of the same actor and seq stands against, what builds on it, and what of others nobody
    /// would vouch for without it. Beside them the actors whose branches they are.
    fn other_branches(
        &mut self,
        id: &SegmentId,
        batch: &Batch,
        changes: &[Parsed<'_>],
    ) -> Result<(BTreeSet<ChangeHash>, Vec<ActorId>), ReplicaError> {
        let sid = self.row(id).sid;
        self.load(id)?;
        let history = &self.cache.peek(id).expect("just loaded").history;
        let lost = |hash: &ChangeHash| -> Result<bool, StoreError> {
            if history.contains(hash) {
                return Ok(false);
            }
            let aside = self.store.aside(sid, hash)?;
            Ok(aside.is_some_and(|aside| aside.reason == UNDECIDED || aside.reason == FORK))
        };
        let mut new = Vec::new();
        let mut gone = BTreeSet::new();
        let mut forked = BTreeSet::new();
        for Parsed { header, .. } in changes {
            if history.contains(&header.hash) {
                continue;
            }
            if history.hash_of(&header.actor, header.seq).is_some() {
                forked.insert(header.actor);
                gone.insert(header.hash);
            }
            for dep in &header.deps {
                if lost(dep)? {
                    gone.insert(header.hash);
                }
            }
            new.push(header);
        }
        if gone.is_empty() {
            return Ok((gone, Vec::new()));
        }
        loop {
            let before = gone.len();
            for header in &new {
                if header.deps.iter().any(|dep| gone.contains(dep)) {
                    gone.insert(header.hash);
                }
            }
            let mut last: BTreeMap<ActorId, ChangeHash> = BTreeMap::new();
            last.extend(new.iter().filter(|h| !gone.contains(&h.hash)).map(|h| (h.actor, h.hash)));
            let vouched = |hash: &ChangeHash| batch.heads.iter().any(|h| h.head.hash == *hash);
            gone.extend(last.into_values().filter(|hash| !vouched(hash)));
            if gone.len() == before {
                return Ok((gone, forked.into_iter().collect()));
            }
        }
    }

    /// The place in the relay's log through which this replica holds a segment, if it holds any of it,
    /// and what it holds beyond.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn held_beyond(
        &mut self,
        id: &SegmentId,
    ) -> Result<(Option<(Pos, Chain)>, VersionVector), ReplicaError> {
        let row = self.row(id);
        let (anchor, tip) = (row.cursor.pos, row.tip);
        if anchor == 0 {
            return Ok((None, self.vector(id)?));
        }
        let place = Some((anchor, row.cursor.chain()));
        if anchor == tip {
            return Ok((place, VersionVector::default()));
        }
        let heads = row.cursor.heads.clone();
        let history = &self.load(id)?.history;
        let mut beyond = history.vector();
        let base = history.vector_at(&heads).unwrap_or_default();
        beyond.stamps.retain(|actor, stamp| stamp.seq > base.seq(actor));
        Ok((place, beyond))
    }

    /// The newest changes of a segment that lie aside: they need not be sent again. What is authorised
    /// by now is left out, so that it comes again.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn held_aside(&self, id: &SegmentId) -> Result<VersionVector, StoreError> {
        let mut vector = VersionVector::default();
        for (head, reason) in self.store.newest_asides(self.row(id).sid)? {
            let branch = reason == UNDECIDED || reason == FORK;
            if branch || !self.is_head_authorised(id, &head) {
                vector.note(head.actor, head.seq, &head.hash);
            }
        }
        Ok(vector)
    }

    /// What another device holds of a segment, by what it says: the place in the relay's log through
    /// which it holds everything, what it holds beyond, and what lies aside there. `None` if that place
    /// is not this replica's: whole vectors are to be compared then.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn known_by(
        &mut self,
        id: &SegmentId,
        anchor: Option<(Pos, Chain)>,
        held: &VersionVector,
        aside: &VersionVector,
    ) -> Result<Option<Known>, ReplicaError> {
        let row = self.row(id);
        let place = (row.cursor.pos, row.cursor.chain());
        if anchor.is_some_and(|anchor| anchor != place) {
            return Ok(None);
        }
        if anchor.is_some() && row.tip == row.cursor.pos && held.stamps.is_empty() {
            // Nothing is to be sent: nothing need be loaded to say so.
            return Ok(Some(Known::default()));
        }
        let heads = row.cursor.heads.clone();
        let history = &self.load(id)?.history;
        let base = anchor.and_then(|_| history.vector_at(&heads)).unwrap_or_default();
        let mut known = Known::default();
        known.newest.extend(base.stamps.iter().map(|(actor, stamp)| (*actor, stamp.seq)));
        let agrees = |actor: &ActorId, stamp: &Stamp| {
            let here = history.hash_of(actor, stamp.seq);
            here.map(|hash| Stamp::new(stamp.seq, &hash) == *stamp)
        };
        for (actor, stamp) in &held.stamps {
            // Of what is not here it cannot be told yet whether it is the same branch.
            if agrees(actor, stamp).unwrap_or(true) {
                known.newest.insert(*actor, stamp.seq);
            } else {
                known.forked.insert(*actor);
            }
        }
        for (actor, stamp) in &aside.stamps {
            if agrees(actor, stamp) == Some(true) {
                let newest = known.newest.entry(*actor).or_default();
                *newest = stamp.seq.max(*newest);
            }
        }
        Ok(Some(known))
    }

    /// The forks that no relay has decided, as far as known here.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn undecided_forks(&mut self) -> Result<Vec<UndecidedFork>, ReplicaError> {
        let mut branches: BTreeMap<(SegmentId, ActorId), Vec<(Seq, ChangeHash)>> = BTreeMap::new();
        for aside in self.store.asides()?.into_iter().filter(|aside| aside.reason == UNDECIDED) {
            let Some(segment) = self.segment_of(aside.sid).map(|row| row.id) else { continue };
            branches.entry((segment, aside.actor)).or_default().push((aside.seq, aside.hash));
        }
        let mut forks = Vec::new();
        for ((segment, actor), branch) in branches {
            let history = &self.load(&segment)?.history;
            // What merely builds on a branch is none.
            let here = |seq, hash| history.hash_of(&actor, seq).is_some_and(|held| held != hash);
            let parts = branch.iter().filter(|(seq, hash)| here(*seq, *hash));
            let Some(seq) = parts.map(|(seq, _)| *seq).min() else { continue };
            // Where the relay has what is in the log here, it has decided.
            if !self.has_receipt(&segment, &actor, seq)? {
                forks.push(UndecidedFork { segment, actor, seq, aside: branch.len() as u64 });
            }
        }
        Ok(forks)
    }

    /// Whether a change that is in the log has a receipt.
    fn has_receipt(&self, id: &SegmentId, actor: &ActorId, seq: Seq) -> Result<bool, ReplicaError> {
        let outgoing = self.store.outgoing(self.row(id).sid)?;
        Ok(!outgoing.iter().any(|change| (change.actor, change.seq) == (*actor, seq)))
    }

    /// The actors of whom a branch lies aside in a segment.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn branched(&self, id: &SegmentId) -> Result<BTreeSet<ActorId>, StoreError> {
        let newest = self.store.newest_asides(self.row(id).sid)?.into_iter();
        let branches = newest.filter(|(_, reason)| reason == UNDECIDED || reason == FORK);
        Ok(branches.map(|(head, _)| head.actor).collect())
    }
}
