//! Bundles: a session in one direction, by a file instead of a connection.
//!
//! What is packed for another device is what it would get at a meeting, from the same hands; for the
//! relay it is what has no receipt. What comes goes the way of the same frames of a session, and the
//! relay's log is followed from where this device stands in it. A segment that is refused holds up no
//! other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fieldkeep_documents::batch;
use fieldkeep_model::status::LeftOut;
use fieldkeep_model::{Member, PublicKey, SegmentAddress, SegmentId, VersionVector};
use fieldkeep_protocol::bundle::{Digest, Header, Survey, Unfit};
use fieldkeep_protocol::frame::{
    self, CatalogFile, Delta, Frame, Proof, Push, SegmentRef, Verdicts,
};
use fieldkeep_protocol::{Anchor, BATCH, Meet, Phase, Standpoint};
use fieldkeep_replica::{
    Follow, FollowError, Item, OutgoingBatch, ReplicaError, SegmentProof, StatementError,
};
use fieldkeep_store::{SegmentRow, Settings as _};

use super::catching_up::{DELTA_RAW, OFFERED, items};
use super::peer::{Peer, PeerId, PeerOutput};
use super::{Engine, Output};

/// The number of the peer that a bundle is exchanged with; no connection has it.
pub(super) const FILE: PeerId = PeerId::MAX;
/// Segments of which a refusal is told one by one.
const TOLD: usize = 16;

/// What was packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Changes.
    pub changes: u64,
    /// Segments of which there is anything in it.
    pub segments: u64,
}

/// A bundle in the making.
#[derive(Debug)]
pub struct Packing {
    peer: Peer,
    relay: bool,
    since: Option<Survey>,
    /// What was not packed yet, and through which position of the log here the first of it was.
    segments: VecDeque<SegmentId>,
    after: u64,
    begun: bool,
    packed: Packed,
}

impl Packing {
    /// What is packed by now.
    #[must_use]
    pub fn packed(&self) -> Packed {
        self.packed
    }
}

/// Changes that were not taken: of one segment, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotTaken {
    /// The segment.
    pub segment: SegmentAddress,
    /// Why: the code of the gate.
    pub code: String,
    /// The same in words.
    pub text: String,
}

/// What a bundle brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// The name of whoever wrote it.
    pub from: String,
    /// Changes that were not here.
    pub changes: u64,
    /// Changes of this device, and of those for whom it carried them, that have a receipt by now.
    pub saved: u64,
    /// Segments that were proven equal to the relay's.
    pub proven: u64,
    /// Segments that this device leaves out, because their type is paused or their scope was not
    /// subscribed to.
    pub left_out: u64,
    /// How many segments were refused.
    pub refused: u64,
    /// The first of them.
    pub not_taken: Vec<NotTaken>,
    /// What a proof found wrong here, by segment.
    pub unequal: Vec<SegmentAddress>,
}

/// A bundle that is being taken in.
#[derive(Debug)]
pub struct Unpacking {
    from: Member,
    peer: Peer,
    header: Header,
    standpoints: BTreeMap<SegmentId, Standpoint>,
    /// Whether the relay's log is another one than the one that is known here.
    another_epoch: bool,
    /// Segments whose cursors were put back.
    reset: BTreeSet<SegmentId>,
    /// Segments that were refused, and those that are left out.
    refused: BTreeSet<SegmentId>,
    left_out: BTreeSet<SegmentId>,
    saved: u64,
    unpacked: Unpacked,
}

impl Engine {
    /// Begins a bundle for a member. What `since` shows it to have is left out. Everything that was
    /// written must be committed.
    ///
    /// # Errors
    /// [`Unfit`] where that member gets none, or `since` was exchanged with another.
    pub fn pack(
        &mut self,
        now: i64,
        to: &PublicKey,
        since: Option<Survey>,
    ) -> Result<Result<(Header, Packing), Unfit>, ReplicaError> {
        self.now = now;
        let mine = self.replica.me().keys.public();
        let Some(member) = self.signing(to).cloned() else { return Ok(Err(Unfit::ForAStranger)) };
        if member.keys.signing == mine {
            return Ok(Err(Unfit::ForOneself));
        }
        if member.revoked {
            return Ok(Err(Unfit::Revoked(member.name)));
        }
        if let Some(Survey { header, .. }) = &since {
            let between = [(mine, *to), (*to, mine)].contains(&(header.from, header.to));
            if header.org != self.replica.org() || !between {
                return Ok(Err(Unfit::BetweenOthers(member.name)));
            }
        }
        while self.replica.is_behind() {
            self.work(now)?;
        }
        self.paused = self.stored_pauses()?;
        let mut peer = Peer::new(member.keys.tls, true);
        peer.session.enter(Phase::Open);
        (peer.told, peer.met) = (true, true);
        self.peers.insert(FILE, peer);
        let segments = if member.relay { self.exchanged() } else { self.shareable(FILE) };
        let peer = self.peers.remove(&FILE).expect("just inserted");
        let header = self.bundle_header(*to, since.as_ref().map(|since| since.digest));
        let relay = member.relay;
        let (segments, begun, packed) = (segments.into(), false, Packed::default());
        let mut packing = Packing { peer, relay, since, segments, after: 0, begun, packed };
        self.note_known(&mut packing)?;
        Ok(Ok((header, packing)))
    }

    /// The member of that signing key.
    fn signing(&self, key: &PublicKey) -> Option<&Member> {
        self.replica.members().members().values().find(|member| member.keys.signing == *key)
    }

    /// The segments that are exchanged at all.
    fn exchanged(&self) -> Vec<SegmentId> {
        let rows = self.replica.segments().values();
        rows.filter(|row| !self.paused.covers(&row.address)).map(|row| row.id).collect()
    }

    fn bundle_header(&self, to: PublicKey, since: Option<Digest>) -> Header {
        Header {
            org: self.replica.org(),
            from: self.replica.me().keys.public(),
            to,
            created: self.now,
            epoch: self.replica.epoch(),
            catalog: self.replica.published().map_or(0, |published| published.number),
            members: self.replica.members().len(),
            members_sum: self.replica.members().sum().to_be_bytes(),
            since,
        }
    }

    /// Notes what the earlier bundle shows the other to have.
    fn note_known(&mut self, packing: &mut Packing) -> Result<(), ReplicaError> {
        let Packing { peer, since, segments, .. } = packing;
        for segment in segments.iter() {
            peer.shared.entry(*segment).or_default().known = Some(BTreeMap::new());
        }
        let Some(since) = since else { return Ok(()) };
        let header = &since.header;
        let continues = self.replica.members().sum_at(header.members) == Some(header.members_sum());
        peer.members = if continues { header.members } else { 0 };
        peer.catalog = (header.epoch, header.catalog);
        for (segment, standpoint) in &since.standpoints {
            let Some(shared) = peer.shared.get_mut(segment) else { continue };
            shared.judged = standpoint.judged;
            let place = standpoint.anchor.map(|anchor| (anchor.pos, anchor.chain));
            let known =
                self.replica.known_by(segment, place, &standpoint.held, &standpoint.aside)?;
            let Some(known) = known else { continue };
            shared.known = Some(known.newest);
            known.forked.into_keys().for_each(|actor| shared.part(actor));
        }
        for ((segment, actor), newest) in &since.receipts {
            if let Some(shared) = peer.shared.get_mut(segment) {
                shared.receipts.insert(*actor, *newest);
            }
        }
        Ok(())
    }

    /// The next frames of a bundle; none once everything is packed.
    ///
    /// # Errors
    /// When the store fails.
    pub fn pack_more(&mut self, packing: &mut Packing) -> Result<Option<Vec<u8>>, ReplicaError> {
        if !std::mem::replace(&mut packing.begun, true) {
            return self.pack_beginning(packing).map(Some);
        }
        while let Some(segment) = packing.segments.front().copied() {
            let bytes = if self.replica.segment(&segment).is_none() {
                Vec::new()
            } else if packing.relay {
                self.pack_for_relay(packing, &segment)?
            } else {
                self.pack_for_device(packing, &segment)?
            };
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
            packing.segments.pop_front();
            packing.after = 0;
        }
        Ok(None)
    }

    /// What stands before all segments: members, the catalog, and what is held here.
    fn pack_beginning(&mut self, packing: &mut Packing) -> Result<Vec<u8>, ReplicaError> {
        let mut bytes = Vec::new();
        let base = packing.peer.members;
        let entries = self.replica.members().since(base).to_vec();
        if !entries.is_empty() {
            bytes.extend(Frame::Members(frame::Members { base, entries }).encode());
        }
        let published = self.replica.published();
        let newer = published.filter(|p| (p.epoch, p.number) > packing.peer.catalog);
        if let Some(published) = newer {
            let notice = published.notice.clone();
            if packing.relay {
                bytes.extend(Frame::Witness(notice).encode());
            } else {
                let source = published.catalog.source().to_owned();
                bytes.extend(Frame::Catalog(CatalogFile { notice, source }).encode());
            }
        }
        if !self.paused.is_empty() {
            bytes.extend(Frame::Mode(self.paused.clone()).encode());
        }
        for segment in packing.segments.clone() {
            let row = &self.replica.segments()[&segment];
            if row.tip == 0 {
                continue;
            }
            // The relay is told the place in its own log; a device may not know that place, and one
            // who gets a file cannot ask.
            let (anchor, held) = if packing.relay {
                self.replica.held_beyond(&segment)?
            } else {
                (None, self.replica.vector(&segment)?)
            };
            let anchor = anchor.map(|(pos, chain)| Anchor { pos, chain });
            let aside = self.replica.held_aside(&segment)?;
            let judged = self.replica.judged(&segment)?;
            let standpoint = Standpoint { segment, anchor, held, aside, judged };
            bytes.extend(Frame::Meet(Meet { segments: vec![standpoint], whole: false }).encode());
        }
        Ok(bytes)
    }

    /// What a device lacks of a segment, as it gets it at a meeting, a window at a time.
    fn pack_for_device(
        &mut self,
        packing: &mut Packing,
        segment: &SegmentId,
    ) -> Result<Vec<u8>, ReplicaError> {
        let before = self.outputs.len();
        let peer = std::mem::replace(&mut packing.peer, Peer::new(PublicKey([0; 32]), false));
        self.peers.insert(FILE, peer);
        let pumped = self.pump(FILE, segment);
        packing.peer = self.peers.remove(&FILE).expect("just inserted");
        let outputs = self.outputs.split_off(before);
        pumped?;
        // What is in the file is there: the window opens again.
        let before = packing.peer.sent;
        packing.peer.confirm(segment, u64::MAX);
        packing.packed.changes += packing.peer.sent - before;
        let mut bytes = Vec::new();
        for output in outputs {
            if let Output::Peer(FILE, PeerOutput::Send(frame)) = output {
                bytes.extend(frame);
            }
        }
        packing.packed.segments += u64::from(!bytes.is_empty() && packing.after == 0);
        packing.after = 1;
        Ok(bytes)
    }

    /// What the relay lacks of a segment: whatever has no receipt, and what shows a relay that was put
    /// back that it once knew more.
    fn pack_for_relay(
        &mut self,
        packing: &mut Packing,
        segment: &SegmentId,
    ) -> Result<Vec<u8>, ReplicaError> {
        let mut bytes = Vec::new();
        if packing.after == 0 {
            let judged = self.replica.judged_block(segment)?;
            bytes.extend(judged.map(|block| Frame::Witness(block).encode()).unwrap_or_default());
        }
        let known = packing.since.as_ref().and_then(|since| since.standpoints.get(segment));
        let held = match known {
            Some(known) => self.replica.agrees(segment, &known.held)?,
            None => VersionVector::default(),
        };
        let batch = self.replica.unsaved_batch(segment, packing.after, BATCH, &held)?;
        let row = &self.replica.segments()[segment];
        let first = packing.after == 0;
        let Some(OutgoingBatch { chunks, heads, reached }) = batch else {
            packing.after = row.tip.max(1);
            return Ok(bytes);
        };
        packing.after = reached;
        packing.packed.changes += chunks.len() as u64;
        packing.packed.segments += u64::from(first);
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let segment = SegmentRef { id: *segment, address: Some(row.address.clone()) };
        let push = Push { segment, batch: batch::encode(&chunks, 3), heads };
        bytes.extend(Frame::Push(push).encode());
        Ok(bytes)
    }

    /// Begins to take a bundle in, once it was read through: whose it is, for whom, and whether it
    /// goes on where this device stands. What it brings of the membership log is taken; a commit must
    /// follow.
    ///
    /// # Errors
    /// [`Unfit`] where it is not taken: nothing was changed.
    pub fn unpack(
        &mut self,
        now: i64,
        survey: Survey,
    ) -> Result<Result<Unpacking, Unfit>, ReplicaError> {
        self.now = now;
        let Survey { header, members, standpoints, begins, .. } = survey;
        if header.org != self.replica.org() {
            return Ok(Err(Unfit::Foreign));
        }
        let mut log = self.replica.members().clone();
        let merged = log.merge(&members);
        let find = |key: &PublicKey| {
            log.members().values().find(|member| member.keys.signing == *key).cloned()
        };
        if header.to != self.replica.me().keys.public() {
            let name = find(&header.to).map(|member| member.name);
            return Ok(Err(name.map_or(Unfit::ForAStranger, Unfit::ForAnother)));
        }
        let from = find(&header.from);
        let from = match (merged, from) {
            (_, None) => return Ok(Err(Unfit::Stranger)),
            (Err(error), Some(_)) => return Ok(Err(Unfit::Membership(error.to_string()))),
            (Ok(_), Some(from)) if from.revoked => return Ok(Err(Unfit::Revoked(from.name))),
            (Ok(_), Some(from)) => from,
        };
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
            left_out: BTreeSet::new(),
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

    /// Takes a frame of a bundle in. A commit must follow.
    ///
    /// # Errors
    /// When the store fails, and [`Unfit`] where the relay's log is another one.
    pub fn unpack_frame(
        &mut self,
        now: i64,
        unpacking: &mut Unpacking,
        frame: Frame,
    ) -> Result<Result<(), Unfit>, ReplicaError> {
        self.now = now;
        tracing::trace!(frame = frame.name(), "from a bundle");
        match (frame, unpacking.from.relay) {
            (Frame::Catalog(catalog), _) => {
                match self.replica.adopt_catalog(catalog.notice, catalog.source) {
                    Ok(_) => {}
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
            unpacking.refuse(id, address, code, text);
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
            unpacking.left_out.insert(id);
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
            let text = "this device was not granted it".to_owned();
            unpacking.refuse(id, segment, "denied".to_owned(), text);
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
                let code = refused.code.to_owned();
                unpacking.refuse(id, segment, code, refused.to_string());
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
                    let text = "verdicts that no relay signed".to_owned();
                    unpacking.refuse(id, address, "unvouched".to_owned(), text);
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

    /// Ends the taking in of a bundle. A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn unpack_end(&mut self, mut unpacking: Unpacking) -> Result<Unpacked, ReplicaError> {
        if unpacking.from.relay {
            self.enter_bundled_epoch(&unpacking)?;
            self.heed_relay(&unpacking)?;
        }
        unpacking.unpacked.saved = self.progress.sent.saturating_sub(unpacking.saved);
        unpacking.unpacked.left_out = unpacking.left_out.len() as u64;
        unpacking.unpacked.refused = unpacking.refused.len() as u64;
        Ok(unpacking.unpacked)
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

impl Unpacking {
    /// Notes that nothing more of a segment is taken.
    fn refuse(&mut self, id: SegmentId, segment: SegmentAddress, code: String, text: String) {
        tracing::warn!(segment = %id, code, text, "refused, from a bundle");
        let first = self.refused.insert(id);
        if first && self.unpacked.not_taken.len() < TOLD {
            self.unpacked.not_taken.push(NotTaken { segment, code, text });
        }
    }
}
