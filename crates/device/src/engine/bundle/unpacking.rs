//! Taking a bundle in: what its writer may say goes the way of the same frames of a session.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_documents::batch;
use fieldkeep_model::status::LeftOut;
use fieldkeep_model::{Member, PublicKey, SegmentAddress, SegmentId, TypeName, VersionVector};
use fieldkeep_protocol::bundle::{Enclosed, Entry, Header, Subject, Survey, Unfit, Unpacked};
use fieldkeep_protocol::frame::{Delta, Frame, Proof, Push, Verdicts};
use fieldkeep_protocol::{Anchor, Phase, Standpoint};
use fieldkeep_replica::{Follow, FollowError, Item, ReplicaError, SegmentProof, StatementError};
use fieldkeep_store::{SegmentRow, Settings as _};

use super::FILE;
use crate::engine::catching_up::{DELTA_RAW, OFFERED, items};
use crate::engine::peer::Peer;
use crate::engine::{Engine, Output};

/// A bundle that is being taken in.
///
/// [`Engine::pack`] has the example.
#[derive(Debug)]
pub struct Unpacking {
    pub(super) from: Member,
    peer: Peer,
    header: Header,
    standpoints: BTreeMap<SegmentId, Standpoint>,
    /// Whether the relay's log is another one than the one that is known here.
    another_epoch: bool,
    /// Segments whose cursors were put back.
    reset: BTreeSet<SegmentId>,
    /// Segments that were refused, and those that are left out.
    refused: BTreeSet<SegmentId>,
    left_out: BTreeMap<SegmentId, TypeName>,
    saved: u64,
    pub(super) unpacked: Unpacked,
}

impl Unpacking {
    /// What was taken by now.
    ///
    /// [`Engine::pack`] has the example.
    #[must_use]
    pub fn unpacked(&self) -> &Unpacked {
        &self.unpacked
    }

    /// Whether something of a type is left out.
    pub(super) fn leaves_out(&self, ty: &TypeName) -> bool {
        self.left_out.values().any(|left| left == ty)
    }

    /// Notes that nothing more of a segment is taken.
    fn refuse(&mut self, id: SegmentId, segment: SegmentAddress, code: &str, text: &str) {
        tracing::warn!(segment = %id, code, text, "refused, from a bundle");
        if self.refused.insert(id) {
            self.unpacked.refuse(Subject::Segment(id, Some(segment)), code, text);
        }
    }
}

impl Engine {
    /// Begins to take a bundle in, once it was read through: whose it is, for whom, and whether it
    /// goes on where this device stands. What it brings of the membership log is taken; a commit must
    /// follow.
    ///
    /// [`Engine::pack`] has the example.
    ///
    /// # Errors
    /// [`Unfit`] where it is not taken: nothing was changed.
    pub fn unpack(
        &mut self,
        now: i64,
        survey: Survey,
    ) -> Result<Result<Unpacking, Unfit>, ReplicaError> {
        self.now = now;
        let mine = self.replica.me().keys.public();
        let from = match survey.sender(self.replica.members(), &mine) {
            Ok(from) => from,
            Err(unfit) => return Ok(Err(unfit)),
        };
        let Survey { header, members, standpoints, begins, .. } = survey;
        let known = self.replica.epoch();
        let another_epoch = from.relay && header.epoch != known;
        if another_epoch && header.epoch.counter <= known.counter {
            return Ok(Err(Unfit::Over));
        }
        self.paused = self.stored_pauses()?;
        if from.relay && !self.goes_on_from(&begins, another_epoch) {
            return Ok(Err(Unfit::Gap));
        }
        let before = self.replica.members().len();
        self.replica.append_members(&members)?;
        self.permissions_changed(before)?;
        let mut peer = Peer::new(from.keys.tls, true);
        peer.session.enter(Phase::Open);
        let unpacked = Unpacked { from: from.name.clone(), ..Unpacked::default() };
        Ok(Ok(Unpacking {
            from,
            peer,
            header,
            standpoints,
            another_epoch,
            reset: BTreeSet::new(),
            refused: BTreeSet::new(),
            left_out: BTreeMap::new(),
            saved: self.progress.sent,
            unpacked,
        }))
    }

    /// Whether the relay's log goes on in a bundle where it is known here, or before.
    fn goes_on_from(&self, begins: &BTreeMap<SegmentId, u64>, another_epoch: bool) -> bool {
        begins.iter().all(|(segment, first)| {
            let row = self.replica.segment(segment);
            let left_out = row.is_some_and(|row| self.paused.covers(&row.address));
            let here = row.filter(|_| !another_epoch).map_or(0, |row| row.cursor.pos);
            left_out || *first <= here + 1
        })
    }

    /// Takes in what a bundle consists of; files come by [`Engine::unpack_file`]. A commit must follow.
    ///
    /// [`Engine::pack`] has the example.
    ///
    /// # Errors
    /// When the store fails, and [`Unfit`] where the relay's log is another one.
    pub fn unpack_entry(
        &mut self,
        now: i64,
        unpacking: &mut Unpacking,
        entry: Entry,
    ) -> Result<Result<(), Unfit>, ReplicaError> {
        self.now = now;
        let by_relay = unpacking.from.relay;
        match entry {
            Entry::Frame(frame) => return self.unpack_frame(unpacking, frame),
            Entry::Enclosed(Enclosed::Has(has)) if by_relay => self.files_saved(unpacking, &has)?,
            Entry::Enclosed(Enclosed::Told(told)) if by_relay => {
                self.forget_wishes_through(told.number)?;
            }
            // What else it says of its writer was read at first.
            Entry::Enclosed(_) | Entry::Piece(_) => {}
        }
        Ok(Ok(()))
    }

    fn unpack_frame(
        &mut self,
        unpacking: &mut Unpacking,
        frame: Frame,
    ) -> Result<Result<(), Unfit>, ReplicaError> {
        tracing::trace!(frame = frame.name(), "from a bundle");
        match (frame, unpacking.from.relay) {
            (Frame::Catalog(catalog), _) => {
                match self.replica.adopt_catalog(catalog.notice, catalog.source) {
                    Ok(_) => drop(self.take_generations()),
                    Err(ReplicaError::CatalogUnsigned) => return Ok(Err(Unfit::Unsigned)),
                    Err(error) => return Err(error),
                }
            }
            (Frame::Push(push), false) => self.unpack_push(unpacking, push)?,
            (Frame::Delta(delta), true) => return self.unpack_delta(unpacking, delta),
            (Frame::Verdicts(verdicts), _) => self.unpack_verdicts(unpacking, verdicts)?,
            (Frame::Receipt(receipt), _) => {
                let signed = self.receipt(&receipt)?;
                return Ok(if signed { Ok(()) } else { Err(Unfit::Unsigned) });
            }
            (Frame::Proof(proof), true) => self.unpack_proof(unpacking, &proof)?,
            (Frame::Stats(stats), true) => self.stats(&stats)?,
            // What it says of where its writer stands was read at first; the rest is for relays.
            _ => {}
        }
        Ok(Ok(()))
    }

    fn unpack_push(&mut self, unpacking: &mut Unpacking, push: Push) -> Result<(), ReplicaError> {
        let id = push.segment.id;
        let known = self.replica.segment(&id).map(|row| row.address.clone());
        let Some(address) = known.or_else(|| push.segment.address.clone()) else {
            return Ok(());
        };
        if unpacking.refused.contains(&id) || self.leaves_out(unpacking, id, &address) {
            return Ok(());
        }
        let peer = std::mem::replace(&mut unpacking.peer, Peer::new(PublicKey([0; 32]), false));
        self.peers.insert(FILE, peer);
        let pushed = self.peer_push(FILE, push);
        self.outputs.retain(|output| !matches!(output, Output::Peer(FILE, _)));
        let mut peer = self.peers.remove(&FILE).expect("just inserted");
        let (ended, code) = (peer.ended.take(), peer.refused.take());
        if ended.is_some() {
            peer.session.enter(Phase::Open);
        }
        unpacking.unpacked.changes += std::mem::take(&mut peer.received);
        unpacking.peer = peer;
        pushed?;
        if let Some((closed, text)) = ended {
            let code = code.map_or_else(|| format!("{closed:?}").to_lowercase(), str::to_owned);
            unpacking.refuse(id, address, &code, &text);
        }
        Ok(())
    }

    /// Whether nothing of a segment is exchanged.
    fn leaves_out(
        &self,
        unpacking: &mut Unpacking,
        id: SegmentId,
        address: &SegmentAddress,
    ) -> bool {
        let covers = self.paused.covers(address);
        if covers {
            unpacking.left_out.insert(id, address.ty.clone());
        }
        covers
    }

    /// Follows the relay's log, from where this device stands in it.
    fn unpack_delta(
        &mut self,
        unpacking: &mut Unpacking,
        delta: Delta,
    ) -> Result<Result<(), Unfit>, ReplicaError> {
        let id = delta.segment.id;
        let known = self.replica.segment(&id).map(|row| row.address.clone());
        let address = known.or_else(|| delta.segment.address.clone());
        let address = address.filter(|address| address.id(&self.replica.org()) == id);
        let chunks = batch::decode(&delta.batch, DELTA_RAW).ok();
        let parts = chunks.and_then(|chunks| Some((items(&delta.runs, chunks.len())?, chunks)));
        let (Some(segment), Some((mut items, mut chunks))) = (address, parts) else {
            return Ok(Err(Unfit::AnotherLog));
        };
        if unpacking.refused.contains(&id) || self.leaves_out(unpacking, id, &segment) {
            return Ok(Ok(()));
        }
        if !self.may_read(&segment) {
            unpacking.refuse(id, segment, "denied", "this device was not granted it");
            return Ok(Ok(()));
        }
        self.enter_bundled_epoch(unpacking)?;
        if unpacking.another_epoch && unpacking.reset.insert(id) {
            self.replica.open_segment(&segment)?;
            self.replica.reset_cursor(&id);
        }
        let here = self.replica.segment(&id).map_or(0, |row| row.cursor.pos);
        let known = (here + 1).saturating_sub(delta.first);
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(items.len());
        let sent = items.drain(..known).filter(|item| *item == Item::Sent).count();
        chunks.drain(..sent);
        if items.is_empty() {
            return Ok(Ok(()));
        }
        let (epoch, first) = (delta.epoch, delta.first + known as u64);
        let before = self.replica.segment(&id).map_or(0, |row| row.tip);
        let (heads, chain) = (delta.heads, delta.chain);
        let follow = Follow { segment: segment.clone(), epoch, first, items, chunks, heads, chain };
        match self.follow(&id, &follow)? {
            Ok(receipt) => {
                let row = &self.replica.segments()[&id];
                unpacking.unpacked.changes += row.tip.saturating_sub(before);
                let told = row.told.max(row.cursor.pos);
                self.replica.note_told(&id, told);
                self.note_receipt(&id, receipt);
                self.rescan(&id);
                Ok(Ok(()))
            }
            Err(FollowError::Refused(refused)) => {
                unpacking.refuse(id, segment, refused.code, &refused.to_string());
                Ok(Ok(()))
            }
            Err(FollowError::OutOfStep { .. }) => Ok(Err(Unfit::Gap)),
            Err(FollowError::Unchained | FollowError::Fork(..)) => Ok(Err(Unfit::AnotherLog)),
            Err(FollowError::Replica(error)) => Err(error),
        }
    }

    /// The relay's log is another one from this bundle on.
    fn enter_bundled_epoch(&mut self, unpacking: &Unpacking) -> Result<(), ReplicaError> {
        if unpacking.another_epoch && self.replica.epoch() != unpacking.header.epoch {
            self.enter_epoch(unpacking.header.epoch)?;
        }
        Ok(())
    }

    fn unpack_verdicts(
        &mut self,
        unpacking: &mut Unpacking,
        verdicts: Verdicts,
    ) -> Result<(), ReplicaError> {
        let id = verdicts.segment;
        let Some(row) = self.replica.segment(&id) else { return Ok(()) };
        let address = row.address.clone();
        let SegmentAddress { ty, scope, .. } = &address;
        if unpacking.refused.contains(&id)
            || self.leaves_out(unpacking, id, &address)
            || !unpacking.from.may(ty, scope)
        {
            return Ok(());
        }
        self.merge_all(&id)?;
        for block in &verdicts.blocks {
            match self.replica.take_verdicts(&id, verdicts.relay, block, &verdicts.openings) {
                Ok(records) => self.note_changed(&id, records),
                Err(StatementError::Unsigned) => {
                    let text = "verdicts that no relay signed";
                    unpacking.refuse(id, address, "unvouched", text);
                    return Ok(());
                }
                Err(StatementError::Replica(error)) => return Err(error),
            }
        }
        self.settle_verdicts(&id)
    }

    fn merge_all(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        while self.replica.segments()[id].done < self.replica.segments()[id].tip {
            let done = self.replica.materialise(id, usize::MAX)?;
            self.note_changed(id, done.records);
        }
        Ok(())
    }

    /// Compares what the relay's log must look like with what it looks like here.
    fn unpack_proof(
        &mut self,
        unpacking: &mut Unpacking,
        proof: &Proof,
    ) -> Result<(), ReplicaError> {
        let id = proof.segment;
        let Some(row) = self.replica.segment(&id) else { return Ok(()) };
        if row.cursor.pos != proof.pos {
            return Ok(());
        }
        let address = row.address.clone();
        self.merge_all(&id)?;
        let (pos, heads, records) = (proof.pos, proof.heads, proof.records);
        let rows = u128::from_be_bytes(proof.rows);
        if !self.replica.holds(&id, &SegmentProof { pos, heads, records, rows }) {
            self.replica.doubt(&id);
            unpacking.unpacked.unequal.push(address);
            return Ok(());
        }
        let told = unpacking.header.created.min(self.now);
        let settled = self.replica.note_proven(&id, pos, told)?;
        self.note_changed(&id, settled);
        unpacking.unpacked.proven += 1;
        Ok(())
    }

    /// Ends the taking in of all but the files, which come once it is merged. A commit must follow.
    ///
    /// [`Engine::pack`] has the example.
    ///
    /// # Errors
    /// When the store fails.
    pub fn unpack_end(&mut self, unpacking: &mut Unpacking) -> Result<(), ReplicaError> {
        if unpacking.from.relay {
            self.enter_bundled_epoch(unpacking)?;
            self.heed_relay(unpacking)?;
        }
        unpacking.unpacked.saved = self.progress.sent.saturating_sub(unpacking.saved);
        unpacking.unpacked.left_out = unpacking.left_out.len() as u64;
        Ok(())
    }

    /// Does what the relay's own words of where its logs end mean here: which of them are known to
    /// their ends, and what it has lost.
    fn heed_relay(&mut self, unpacking: &Unpacking) -> Result<(), ReplicaError> {
        let told = unpacking.header.created.min(self.now);
        for (id, standpoint) in &unpacking.standpoints {
            let (Some(row), Some(anchor)) = (self.replica.segment(id), standpoint.anchor) else {
                continue;
            };
            let here = Anchor { pos: row.cursor.pos, chain: row.cursor.chain() };
            let (ends, proven) = (row.told.max(anchor.pos), row.proven);
            if self.paused.covers(&row.address) {
                continue;
            }
            self.replica.note_told(id, ends);
            if here == anchor && proven != anchor.pos {
                self.replica.note_equal(id, anchor.pos, told);
            }
        }
        if unpacking.another_epoch {
            self.require_lost(unpacking)?;
        }
        let whole = unpacking.refused.is_empty() && unpacking.unpacked.unequal.is_empty();
        let before: Option<(i64, LeftOut)> =
            self.replica.store().setting(OFFERED)?.and_then(|kept| minicbor::decode(&kept).ok());
        if whole && before.is_none_or(|(before, _)| before < told) {
            let offered = minicbor::to_vec((told, &self.paused));
            let offered = offered.expect("encoding into memory cannot fail");
            self.replica.store_mut().set(OFFERED, &offered)?;
        }
        Ok(())
    }

    /// In another epoch: what this device holds and the relay has not goes up again.
    fn require_lost(&mut self, unpacking: &Unpacking) -> Result<(), ReplicaError> {
        for id in &unpacking.reset {
            if self.replica.require_beyond_cursor(id)? > 0 {
                self.pushed.remove(id);
            }
        }
        let absent = |row: &&SegmentRow| {
            let named = unpacking.standpoints.contains_key(&row.id);
            row.tip > 0
                && !named
                && self.may_read(&row.address)
                && !self.paused.covers(&row.address)
        };
        let absent: Vec<SegmentId> =
            self.replica.segments().values().filter(absent).map(|row| row.id).collect();
        for id in absent {
            self.replica.reset_cursor(&id);
            if self.replica.require_upload(&id, &VersionVector::default())? > 0 {
                self.pushed.remove(&id);
            }
        }
        Ok(())
    }
}
