//! Carrying: what one device hands another, with no relay between them.
//!
//! A carried change passes the gate that it would pass on a relay, by the membership log that is
//! known here. From then on it waits for a receipt, whoever wrote it. Where two branches of one
//! author meet and no relay has decided, the one that is in the log stays there, and the other lies
//! aside, byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::{
    ActorId, Chain, ChangeHash, ChangeHeader, DeviceNumber, Pos, RecordId, SegmentId, Seq,
    SignedHead, Stamp, VersionVector,
};
use fieldkeep_store::{Aside, Log as _, Outgoing, StoreError};

use crate::admit::{AdmitError, Batch, Origin, Parsed};
use crate::fork::{FORK, UNDECIDED, UNVOUCHED};
use crate::replica::{Replica, ReplicaError};

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
    /// Whether it brought changes that this very device made and does not know.
    pub own: bool,
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
    /// Actors of whom it holds another branch, and how far.
    pub forked: BTreeMap<ActorId, Seq>,
}

/// What of a batch does not come into the log, because the log has another branch.
#[derive(Default)]
struct Branches {
    /// The changes, and why each lies aside.
    gone: BTreeMap<ChangeHash, &'static str>,
    /// The actors whose branches they are.
    forked: BTreeSet<ActorId>,
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
        let Branches { gone, forked } = self.other_branches(id, batch, &changes)?;
        let (aside, rest): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| gone.contains_key(&change.header.hash));
        for change in &aside {
            let reason = gone[&change.header.hash];
            self.keep_aside(id, change, Vec::new(), &batch.heads, (reason, now))?;
            self.keep_nearer_head(id, &change.header, &batch.heads)?;
        }
        let me = self.me.actor();
        let known = self.load(id)?.history.seq(&me);
        let received = self.receive_all(id, batch, &rest, (true, now))?;
        let own = self.load(id)?.history.seq(&me) > known;
        self.forget_asides(id, &rest)?;
        let forked = forked.into_iter().collect();
        let mut carried = Carried { newest: received.newest, forked, own, ..Carried::default() };
        if let Some((first, last)) = received.admitted {
            carried.changes = last - first + 1;
        }
        carried.records = self.merge_carried(id)?;
        Ok(carried)
    }

    /// Of a change that lay aside already: keeps the head that came now, if it vouches for fewer
    /// changes beyond it than the one that is kept, and so may stand where that one falls.
    fn keep_nearer_head(
        &mut self,
        id: &SegmentId,
        change: &ChangeHeader,
        heads: &[SignedHead],
    ) -> Result<(), ReplicaError> {
        let sid = self.row(id).sid;
        let Some(head) = heads.iter().find(|head| head.head.actor == change.actor) else {
            return Ok(());
        };
        let kept = self.store.aside(sid, &change.hash)?;
        let kept = kept.and_then(|aside| minicbor::decode::<SignedHead>(&aside.head).ok());
        if kept.is_none_or(|kept| head.head.seq < kept.head.seq) {
            let head = minicbor::to_vec(head).expect("encoding into memory cannot fail");
            self.store.vouch_aside(sid, &change.hash, &head)?;
        }
        Ok(())
    }

    /// Merges what has just come into the log, notes that it waits for a receipt, and settles what
    /// the relay's word covers. Returns the records that are touched.
    fn merge_carried(&mut self, id: &SegmentId) -> Result<Vec<RecordId>, ReplicaError> {
        let waiting = self.note_carried(id)?;
        let mut records = match self.materialise(id, usize::MAX) {
            Ok(done) => done.records,
            Err(error) if error.is_damage() => {
                tracing::error!(%error, "everything else goes on");
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        if waiting {
            records.extend(self.settle_judged(id)?.records);
        }
        Ok(records)
    }

    /// The branch in the log here that the relay has decided against: its actor, and where it begins.
    /// What the relay signed names a change that lies aside, and that one builds on the other branch.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn lost_branch(&mut self, id: &SegmentId) -> Result<Option<(ActorId, Seq)>, ReplicaError> {
        let sid = self.row(id).sid;
        let mut lost: Option<(ActorId, Seq)> = None;
        for hash in self.stated_branch(id)? {
            let Some(aside) = self.store.aside(sid, &hash)? else { continue };
            let heads = self.row(id).cursor.heads.clone();
            let history = &self.load(id)?.history;
            let here = history.hash_of(&aside.actor, aside.seq);
            // What came from the relay itself stands until the relay says otherwise: it may have been
            // put back since it signed that.
            let other = here.is_some_and(|here| here != hash && !history.covers(&heads, &here));
            if other && lost.is_none_or(|(_, seq)| aside.seq < seq) {
                lost = Some((aside.actor, aside.seq));
            }
        }
        Ok(lost)
    }

    /// What lies aside of branches and is in the relay's log, by what the relay signed.
    fn stated_branch(&self, id: &SegmentId) -> Result<BTreeSet<ChangeHash>, ReplicaError> {
        let sid = self.row(id).sid;
        let mut branch = BTreeSet::new();
        if self.branched(id)?.is_empty() {
            return Ok(branch);
        }
        let mut stated = self.stated_changes(id)?;
        while let Some(hash) = stated.pop() {
            let aside = self.store.aside(sid, &hash)?;
            let reasons = [UNDECIDED, FORK, UNVOUCHED];
            let aside = aside.filter(|aside| reasons.contains(&&*aside.reason));
            if let Some(aside) = aside.filter(|_| branch.insert(hash)) {
                let deps = ChangeHeader::parse(&aside.bytes).map(|header| header.deps);
                stated.extend(deps.unwrap_or_default());
            }
        }
        Ok(branch)
    }

    /// Takes in what lies aside of branches and nothing in the log stands against any more: what the
    /// relay is known to have, and what no relay has decided about. Returns the records that they touch.
    ///
    /// # Errors
    /// When the replica fails; nothing of it was written then.
    pub fn take_branches(&mut self, id: &SegmentId) -> Result<Vec<RecordId>, ReplicaError> {
        let mut waiting = self.open_asides(id)?;
        while !waiting.is_empty() {
            match self.undoable(id, |replica| replica.take_asides(id, &waiting)) {
                Ok(records) => return Ok(records),
                Err(NotTaken::Unvouched(tail)) => waiting.retain(|a| !tail.contains(&a.hash)),
                Err(NotTaken::Failed(error)) => return Err(error),
            }
        }
        Ok(Vec::new())
    }

    /// What lies aside in a segment where branches lie aside, and may be taken in once nothing in the
    /// log stands against it.
    fn open_asides(&self, id: &SegmentId) -> Result<Vec<Aside>, ReplicaError> {
        if self.branched(id)?.is_empty() {
            return Ok(Vec::new());
        }
        let stated = self.stated_branch(id)?;
        let mut asides = self.store.asides_in(self.row(id).sid)?;
        let undecided = |reason: &str| reason == UNDECIDED || reason == UNVOUCHED;
        asides.retain(|aside| undecided(&aside.reason) || stated.contains(&aside.hash));
        Ok(asides)
    }

    /// Takes in what fits of what lies aside: all of it, or nothing where nobody vouches for the newest
    /// change of an author, because that could not be handed on.
    fn take_asides(&mut self, id: &SegmentId, asides: &[Aside]) -> Result<Vec<RecordId>, NotTaken> {
        let sid = self.row(id).sid;
        let mut waiting: Vec<&Aside> = asides.iter().collect();
        let mut heads: Vec<SignedHead> = Vec::new();
        let mut taken: Vec<&Aside> = Vec::new();
        loop {
            let before = waiting.len();
            let mut rest = Vec::new();
            for aside in waiting {
                match self.load(id)?.history.check(&aside.bytes) {
                    Ok(admitted) => {
                        self.append(id, &aside.bytes, admitted, Origin::Peer)?;
                        self.store.take_aside(sid, &aside.hash)?;
                        heads.extend(minicbor::decode::<SignedHead>(&aside.head));
                        taken.push(aside);
                    }
                    Err(_) => rest.push(aside),
                }
            }
            waiting = rest;
            if waiting.len() == before {
                break;
            }
        }
        let mut vouched: BTreeMap<ActorId, Seq> = BTreeMap::new();
        for aside in &taken {
            if heads.iter().any(|head| head.head.hash == aside.hash) {
                vouched.insert(aside.actor, aside.seq);
            }
        }
        let beyond = |aside: &Aside| vouched.get(&aside.actor).is_none_or(|seq| aside.seq > *seq);
        let own = |aside: &Aside| self.me.is(&aside.actor);
        let tail = taken.iter().filter(|aside| !own(aside) && beyond(aside));
        let tail: BTreeSet<ChangeHash> = tail.map(|aside| aside.hash).collect();
        if !tail.is_empty() {
            return Err(NotTaken::Unvouched(tail));
        }
        self.keep_heads(id, &heads)?;
        Ok(self.merge_carried(id)?)
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
            outgoing.push(Outgoing { pos, actor, seq, refused: None, records, carried: false });
        }
        for change in &mut outgoing {
            change.carried = !self.me.is(&change.actor);
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
    ) -> Result<Branches, ReplicaError> {
        let sid = self.row(id).sid;
        self.load(id)?;
        let history = &self.cache.peek(id).expect("just loaded").history;
        let mut branches = Branches::default();
        let here: BTreeSet<ChangeHash> = changes.iter().map(|change| change.header.hash).collect();
        let mut new = Vec::new();
        for Parsed { header, .. } in changes {
            if history.contains(&header.hash) {
                continue;
            }
            new.push(header);
            if history.hash_of(&header.actor, header.seq).is_some() {
                branches.forked.insert(header.actor);
                branches.gone.insert(header.hash, UNDECIDED);
                continue;
            }
            let elsewhere = |dep: &&ChangeHash| !history.contains(dep) && !here.contains(*dep);
            for dep in header.deps.iter().filter(elsewhere) {
                match self.store.aside(sid, dep)?.as_ref().map(|aside| &*aside.reason) {
                    Some(FORK | UNDECIDED) => branches.gone.insert(header.hash, UNDECIDED),
                    Some(UNVOUCHED) => branches.gone.insert(header.hash, UNVOUCHED),
                    _ => None,
                };
            }
        }
        let vouched = |hash: &ChangeHash| batch.heads.iter().any(|h| h.head.hash == *hash);
        while !branches.gone.is_empty() {
            let before = branches.gone.len();
            for header in &new {
                let beneath = header.deps.iter().filter_map(|dep| branches.gone.get(dep));
                if let Some(reason) = beneath.min().copied() {
                    branches.gone.entry(header.hash).or_insert(reason);
                }
            }
            let kept = new.iter().filter(|header| !branches.gone.contains_key(&header.hash));
            let last: BTreeMap<ActorId, ChangeHash> = kept.map(|h| (h.actor, h.hash)).collect();
            let unvouched = last.into_values().filter(|hash| !vouched(hash));
            branches.gone.extend(unvouched.map(|hash| (hash, UNVOUCHED)));
            if branches.gone.len() == before {
                break;
            }
        }
        Ok(branches)
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

    /// All that this replica holds of a segment. Of an actor of whom somebody holds another branch, as
    /// far as that reaches: only so can he tell that it is another one.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn held_within(
        &mut self,
        id: &SegmentId,
        branches: &BTreeMap<ActorId, Seq>,
    ) -> Result<VersionVector, ReplicaError> {
        let history = &self.load(id)?.history;
        let mut vector = history.vector();
        for (actor, seq) in branches {
            let hash = history.hash_of(actor, *seq).filter(|_| vector.seq(actor) > *seq);
            if let Some(hash) = hash {
                vector.note(*actor, *seq, &hash);
            }
        }
        Ok(vector)
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
            let forbidden = reason == "not_permitted" && !self.is_head_authorised(id, &head);
            if branch || forbidden {
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
                known.forked.insert(*actor, stamp.seq);
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

/// Why a branch was not taken in.
enum NotTaken {
    /// No head vouches for these.
    Unvouched(BTreeSet<ChangeHash>),
    /// The replica failed.
    Failed(ReplicaError),
}

impl<E: Into<ReplicaError>> From<E> for NotTaken {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}
