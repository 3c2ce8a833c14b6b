//! Packing a bundle: for the relay what has no receipt, for a device what both may read.

use std::collections::{BTreeMap, VecDeque};

use fieldkeep_documents::batch;
use fieldkeep_model::{PublicKey, SegmentId, VersionVector};
use fieldkeep_protocol::bundle::{
    self, Content, Enclosing, Enclosure, Header, Packed, Survey, Unfit,
};
use fieldkeep_protocol::frame::{self, CatalogFile, Frame, Push, SegmentRef};
use fieldkeep_protocol::{Anchor, BATCH, Meet, Phase, Standpoint};
use fieldkeep_replica::{OutgoingBatch, ReplicaError};

use super::FILE;
use super::files::Files;
use crate::engine::peer::{Peer, PeerOutput};
use crate::engine::{Engine, Output};

/// A bundle in the making.
///
/// [`Engine::pack`] has the example.
#[derive(Debug)]
pub struct Packing {
    pub(super) peer: Peer,
    pub(super) to: PublicKey,
    pub(super) relay: bool,
    pub(super) since: Option<Survey>,
    /// What was not packed yet, and through which position of the log here the first of it was.
    segments: VecDeque<SegmentId>,
    after: u64,
    step: Step,
    pub(super) files: Files,
    packed: Packed,
}

/// What is packed next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// What stands before all segments.
    Beginning,
    /// Which files are here.
    Files,
    /// The segments, one after the other.
    Segments,
    /// What is asked of the relay.
    Wishes,
    /// Files with their bytes.
    Enclosures,
}

impl Packing {
    /// What is packed by now.
    ///
    /// [`Engine::pack`] has the example.
    #[must_use]
    pub fn packed(&self) -> Packed {
        self.packed
    }

    /// Notes that a file was written, all of it or as far as it could be read.
    ///
    /// [`Device::export_bundle`](crate::Device::export_bundle) writes files, and does this.
    pub fn note_file(&mut self, file: &Enclosure, whole: bool) {
        self.packed.note_file(file.file.size, whole);
    }
}

impl Engine {
    /// Begins a bundle for a member. What `since` shows it to have is left out. Everything that was
    /// written must be committed.
    ///
    /// ```
    /// # use fieldkeep_device::Enclosing;
    /// # use fieldkeep_protocol::bundle::{Content, Reader, Survey, Writer};
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let to = ben.replica().me().keys.public();
    /// let packed = ann.pack(0, &to, None, Enclosing::NoFiles)?;
    /// let (header, mut packing) = packed.expect("ben is a member");
    /// let mut file = Vec::new();
    /// let mut writer = Writer::new(&mut file, &header)?;
    /// while let Some(content) = ann.pack_more(&mut packing)? {
    ///     let Content::Frames(frames) = content else { panic!("no file is enclosed") };
    ///     writer.frames(&frames)?;
    /// }
    /// writer.finish(&ann.replica().me().keys)?;
    /// assert_eq!(packing.packed().changes, 1); // The order.
    ///
    /// let survey = Survey::of(&file[..])?; // What its writer signed, from the first byte to the last.
    /// let mut unpacking = ben.unpack(0, survey)?.expect("it is for ben");
    /// for entry in Reader::open(&file[..])?.entries(64)? {
    ///     ben.unpack_entry(0, &mut unpacking, entry)?.expect("the relay's log is the one he knows");
    /// }
    /// ben.unpack_end(&mut unpacking)?;
    /// ben.commit()?;
    /// assert_eq!(unpacking.unpacked().changes, 1);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`Unfit`] where that member gets none, or `since` was exchanged with another.
    pub fn pack(
        &mut self,
        now: i64,
        to: &PublicKey,
        since: Option<Survey>,
        enclosing: Enclosing,
    ) -> Result<Result<(Header, Packing), Unfit>, ReplicaError> {
        self.now = now;
        let mine = self.replica.me().keys.public();
        let member = match bundle::receiver(self.replica.members(), &mine, to, since.as_ref()) {
            Ok(member) => member.clone(),
            Err(unfit) => return Ok(Err(unfit)),
        };
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
        let catalog = self.replica.published().map_or(0, |published| published.number);
        let stands = (self.replica.epoch(), catalog);
        let header = Header::of(self.replica.members(), (mine, *to), now, stands, since.as_ref());
        let files = self.files_to_pack(&member, since.as_ref(), &segments, enclosing)?;
        let mut packing = Packing {
            peer,
            to: *to,
            relay: member.relay,
            since,
            segments: segments.into(),
            after: 0,
            step: Step::Beginning,
            files,
            packed: Packed::default(),
        };
        self.note_known(&mut packing)?;
        Ok(Ok((header, packing)))
    }

    /// The segments that are exchanged at all.
    fn exchanged(&self) -> Vec<SegmentId> {
        let rows = self.replica.segments().values();
        rows.filter(|row| !self.paused.covers(&row.address)).map(|row| row.id).collect()
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

    /// What comes next in a bundle; nothing once everything is packed.
    ///
    /// [`Engine::pack`] has the example.
    ///
    /// # Errors
    /// When the store fails.
    pub fn pack_more(&mut self, packing: &mut Packing) -> Result<Option<Content>, ReplicaError> {
        loop {
            let (bytes, next) = match packing.step {
                Step::Beginning => (Some(self.pack_beginning(packing)?), Step::Files),
                Step::Files => (self.name_files(packing)?, Step::Segments),
                Step::Segments => (self.pack_segments(packing)?, Step::Wishes),
                Step::Wishes if packing.relay => (Some(self.pack_last_words()?), Step::Enclosures),
                Step::Wishes => (None, Step::Enclosures),
                Step::Enclosures => return self.pack_file(packing),
            };
            if bytes.is_none() || matches!(packing.step, Step::Beginning | Step::Wishes) {
                packing.step = next;
            }
            if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) {
                return Ok(Some(Content::Frames(bytes)));
            }
        }
    }

    /// What is wished of the relay, and how things stand here.
    fn pack_last_words(&self) -> Result<Vec<u8>, ReplicaError> {
        let mut bytes = self.pack_wishes()?.unwrap_or_default();
        bytes.extend(Frame::Report(self.whole_report()?).encode());
        Ok(bytes)
    }

    /// The next frames of segments.
    fn pack_segments(&mut self, packing: &mut Packing) -> Result<Option<Vec<u8>>, ReplicaError> {
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
}
