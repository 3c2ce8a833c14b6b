//! Packing a bundle for a device: the log from where it stands, and what else a session would tell it.

use std::collections::{BTreeMap, VecDeque};

use fieldkeep_model::status::LeftOut;
use fieldkeep_model::verdict::Opening;
use fieldkeep_model::{
    ActorId, BlobHash, Head, Judged, Member, Pos, PublicKey, SegmentAddress, SegmentId, Seq,
    Signed, VerdictBlock,
};
use fieldkeep_protocol::bundle::{
    self, Content, Enclosed, Enclosing, Enclosure, Header, Packed, Survey, Told, Unfit,
};
use fieldkeep_protocol::frame::{self, CatalogFile, Frame, Proof, SegmentRef, Verdicts};
use fieldkeep_protocol::{Anchor, BATCH, Meet, Standpoint};
use fieldkeep_replica::{ReplicaError, VerdictPage};
use fieldkeep_store::{Permissions as _, SegmentRow};
use fieldkeep_transfer::Enclosures;

use crate::engine::Engine;

/// A bundle in the making.
#[derive(Debug)]
pub struct Packing {
    member: Member,
    since: Option<Survey>,
    segments: VecDeque<SegmentId>,
    step: Step,
    left_out: LeftOut,
    /// The newest change of each of the device's actors, by segment.
    own: BTreeMap<(i64, ActorId), Head>,
    enclosing: Enclosing,
    enclosures: Enclosures,
    packed: Packed,
}

/// What of a segment is packed next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// What stands before all segments.
    Beginning,
    /// Which files are here.
    Files,
    /// Where the segment begins for that device.
    Segment,
    /// The log from a position on.
    Log(Pos),
    /// The verdicts after a number.
    Verdicts(u64),
    /// Receipts and the proof.
    End,
}

impl Packing {
    /// What is packed by now.
    #[must_use]
    pub fn packed(&self) -> Packed {
        self.packed
    }

    /// Notes that a file was written, all of it or as far as it could be read.
    pub fn note_file(&mut self, file: &Enclosure, whole: bool) {
        self.packed.note_file(file.file.size, whole);
    }
}

impl Engine {
    /// Whether everything that was taken in is merged and judged.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.replica.is_behind() && !self.replica.is_renewing() && self.wanted.is_empty()
    }

    /// Begins a bundle for the device of that signing key. Where `since`, an earlier bundle between
    /// the two, shows where it stands, it goes on from there. Everything must be committed.
    ///
    /// # Errors
    /// [`Unfit`] where that member gets none, or `since` was exchanged with another.
    pub fn pack(
        &mut self,
        now: i64,
        to: &PublicKey,
        since: Option<Survey>,
        enclosing: Enclosing,
    ) -> Result<(Header, Packing), Unfit> {
        self.now = now;
        let mine = self.replica.me().keys.public();
        let members = self.replica.members();
        let member = bundle::receiver(members, &mine, to, since.as_ref())?.clone();
        if member.relay {
            return Err(Unfit::ForOneself);
        }
        let catalog = self.replica.published().map_or(0, |published| published.number);
        let stands = (self.replica.epoch(), catalog);
        let header = Header::of(members, (mine, *to), now, stands, since.as_ref());
        // What it leaves out it has said itself.
        let theirs = since.as_ref().filter(|since| since.header.from == *to);
        let left_out = theirs.map(|since| since.left_out.clone()).unwrap_or_else(|| LeftOut {
            generations: self.replica.generations().clone(),
            ..LeftOut::default()
        });
        let rows = self.replica.segments().values();
        let readable = rows.filter(|row| {
            let SegmentAddress { ty, scope, .. } = &row.address;
            row.tip > 0 && member.may(ty, scope) && !left_out.covers(&row.address)
        });
        let readable: Vec<&SegmentRow> = readable.collect();
        let segments = readable.iter().map(|row| row.id).collect();
        let places = readable.iter().map(|row| (row.sid, (row.id, row.address.ty.clone())));
        let enclosures = Enclosures::of(places.collect());
        let (step, own, packed) = (Step::Beginning, BTreeMap::new(), Packed::default());
        let packing =
            Packing { member, since, segments, step, left_out, own, enclosing, enclosures, packed };
        Ok((header, packing))
    }

    /// What comes next in a bundle; nothing once everything is packed.
    ///
    /// # Errors
    /// When the store fails.
    pub fn pack_more(&mut self, packing: &mut Packing) -> Result<Option<Content>, ReplicaError> {
        loop {
            let mut bytes = Vec::new();
            let segment = packing.segments.front().copied();
            packing.step = match (packing.step, segment) {
                (Step::Beginning, _) => {
                    bytes = self.pack_beginning(packing)?;
                    Step::Files
                }
                (Step::Files, _) => match self.name_files(packing)? {
                    Some(named) => {
                        bytes = named;
                        Step::Files
                    }
                    None => Step::Segment,
                },
                (_, None) => return self.pack_file(packing),
                (Step::Segment, Some(segment)) => self.pack_from(packing, &segment)?,
                (Step::Log(first), Some(segment)) => {
                    self.pack_log(packing, &segment, first, &mut bytes)?
                }
                (Step::Verdicts(after), Some(segment)) => {
                    self.pack_verdicts(packing, &segment, after, &mut bytes)?
                }
                (Step::End, Some(segment)) => {
                    self.pack_end(packing, &segment, &mut bytes)?;
                    packing.segments.pop_front();
                    Step::Segment
                }
            };
            if !bytes.is_empty() {
                return Ok(Some(Content::Frames(bytes)));
            }
        }
    }

    /// Names the next files that are here and that the device may have: its receipt for those that it
    /// brought.
    fn name_files(&self, packing: &mut Packing) -> Result<Option<Vec<u8>>, ReplicaError> {
        let Packing { member, since, enclosures, .. } = packing;
        let has = |hash: &BlobHash| shows(since.as_ref(), member, hash);
        Ok(enclosures.name_more(self.replica.store(), |_| false, has)?)
    }

    /// The next file that the device may have, and is not known to have.
    fn pack_file(&self, packing: &mut Packing) -> Result<Option<Content>, ReplicaError> {
        let Packing { member, since, enclosures, enclosing, .. } = packing;
        if *enclosing == Enclosing::NoFiles {
            return Ok(None);
        }
        let has = |hash: &BlobHash| shows(since.as_ref(), member, hash);
        let file = enclosures.next_file(self.replica.store(), has)?;
        Ok(file.map(|file| Content::File(Box::new(Enclosure { file, waits: false }))))
    }

    /// Members, the catalog, the counts, where the log of each segment ends, and receipts of what lies
    /// where the device may not read, and which of its wishes were heard.
    fn pack_beginning(&mut self, packing: &mut Packing) -> Result<Vec<u8>, ReplicaError> {
        let mut bytes = Vec::new();
        let member = &packing.member;
        packing.own = self.replica.store().newest_of(member.number)?;
        packing.own.retain(|(_, actor), _| member.is(actor));
        let since = packing.since.as_ref().map(|since| since.header.clone());
        let members = self.replica.members();
        let continues =
            since.as_ref().filter(|s| members.sum_at(s.members) == Some(s.members_sum()));
        let base = continues.map_or(0, |since| since.members);
        let entries = members.since(base).to_vec();
        if !entries.is_empty() {
            bytes.extend(Frame::Members(frame::Members { base, entries }).encode());
        }
        let held = since.map(|since| (since.epoch, since.catalog));
        if let Some(published) =
            self.replica.published().filter(|p| held != Some((p.epoch, p.number)))
        {
            let (notice, source) =
                (published.notice.clone(), published.catalog.source().to_owned());
            bytes.extend(Frame::Catalog(CatalogFile { notice, source }).encode());
        }
        let stats = self.stats_for(&packing.member, &packing.left_out);
        bytes.extend(Frame::Stats(stats).encode());
        let epoch = self.replica.epoch();
        for id in &packing.segments {
            let row = &self.replica.segments()[id];
            let (held, aside) = Default::default();
            let anchor = Some(Anchor { pos: row.tip, chain: row.chain });
            let judged = Judged { epoch, number: row.verdict, pos: row.judged };
            let judged = Some(judged).filter(|judged| judged.pos > 0);
            let standpoint = Standpoint { segment: *id, anchor, held, aside, judged };
            bytes.extend(Frame::Meet(Meet { segments: vec![standpoint], whole: false }).encode());
        }
        bytes.extend(self.receipts_beside(packing)?);
        let heard = self.heard(&packing.member)?;
        if heard > 0 {
            bytes.extend(Enclosed::Told(Told { number: heard }).encode());
        }
        Ok(bytes)
    }

    /// Receipts of what the device brought, by its own last bundle, of segments whose log it may not
    /// read, or not any more.
    fn receipts_beside(&mut self, packing: &mut Packing) -> Result<Vec<u8>, ReplicaError> {
        let mut bytes = Vec::new();
        let signing = packing.member.keys.signing;
        let theirs = packing.since.as_ref().filter(|since| since.header.from == signing);
        for (id, standpoint) in theirs.map(|since| &since.standpoints).into_iter().flatten() {
            let Some(row) = self.replica.segment(id) else { continue };
            let pos = row.tip;
            if packing.segments.contains(id) {
                continue;
            }
            // Whoever names a change by its hash has it.
            for (actor, stamp) in self.replica.agrees(id, &standpoint.held)?.stamps {
                let Some(hash) = self.replica.hash_of(id, &actor, stamp.seq)? else { continue };
                let receipt = self.replica.receipt(id, actor, (stamp.seq, hash), pos);
                bytes.extend(Frame::Receipt(receipt).encode());
                packing.packed.receipts += 1;
            }
        }
        Ok(bytes)
    }

    /// Where a segment's log begins for the device.
    fn pack_from(&mut self, packing: &Packing, segment: &SegmentId) -> Result<Step, ReplicaError> {
        // In another epoch it follows the whole log again: the one that it knew may be another.
        let same = packing.since.as_ref().filter(|s| s.header.epoch == self.replica.epoch());
        let anchor = same.and_then(|since| since.standpoints.get(segment)?.anchor);
        let Some(anchor) = anchor else { return Ok(Step::Log(1)) };
        let chain = self.replica.chain_at(segment, anchor.pos)?;
        Ok(Step::Log(if chain == Some(anchor.chain) { anchor.pos + 1 } else { 1 }))
    }

    fn pack_log(
        &mut self,
        packing: &mut Packing,
        segment: &SegmentId,
        first: Pos,
        bytes: &mut Vec<u8>,
    ) -> Result<Step, ReplicaError> {
        let known = self.known_to(packing, segment)?;
        let holds = |actor: &ActorId, seq| known.get(actor).is_some_and(|known| seq <= *known);
        let stretch = self.replica.stretch(segment, first, BATCH, holds)?;
        let after = packing.since.as_ref().and_then(|s| s.standpoints.get(segment)?.judged);
        let after = after.filter(|judged| judged.epoch == self.replica.epoch());
        let Some(stretch) = stretch else {
            return Ok(Step::Verdicts(after.map_or(0, |judged| judged.number)));
        };
        packing.packed.changes += stretch.chunks.len() as u64;
        let address = Some(self.replica.segments()[segment].address.clone());
        let next = stretch.last + 1;
        let delta = self.delta(SegmentRef { id: *segment, address }, stretch);
        bytes.extend(Frame::Delta(delta).encode());
        Ok(Step::Log(next))
    }

    /// What a device holds besides the relay's log, by its own last bundle: the log names it, and does
    /// not bring it.
    fn known_to(
        &mut self,
        packing: &Packing,
        segment: &SegmentId,
    ) -> Result<BTreeMap<ActorId, Seq>, ReplicaError> {
        let theirs =
            packing.since.as_ref().filter(|s| s.header.from == packing.member.keys.signing);
        let Some(standpoint) = theirs.and_then(|since| since.standpoints.get(segment)) else {
            return Ok(BTreeMap::new());
        };
        let agreed = self.replica.agrees(segment, &standpoint.held)?;
        Ok(agreed.stamps.into_iter().map(|(actor, stamp)| (actor, stamp.seq)).collect())
    }

    fn pack_verdicts(
        &mut self,
        packing: &Packing,
        segment: &SegmentId,
        after: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<Step, ReplicaError> {
        if self.replica.segments()[segment].judged == 0 {
            return Ok(Step::End);
        }
        let readable = |opening: &Opening| {
            let row = self.replica.segment(&opening.segment);
            row.is_some_and(|row| packing.member.may(&row.address.ty, &row.address.scope))
        };
        let epoch = self.replica.epoch();
        let page = self.replica.verdict_page(segment, (epoch, after), BATCH, readable)?;
        let VerdictPage { blocks, openings, whole } = page;
        let last: Option<VerdictBlock> = blocks.last().and_then(Signed::read);
        let relay = self.replica.me().number;
        if !blocks.is_empty() {
            let frame = Verdicts { segment: *segment, relay, blocks, openings };
            bytes.extend(Frame::Verdicts(frame).encode());
        }
        let next = last.filter(|_| !whole).map(|block| Step::Verdicts(block.number));
        Ok(next.unwrap_or(Step::End))
    }

    /// The device's own receipts, and the proof if everything is judged.
    fn pack_end(
        &mut self,
        packing: &mut Packing,
        segment: &SegmentId,
        bytes: &mut Vec<u8>,
    ) -> Result<(), ReplicaError> {
        let (sid, pos) =
            (self.replica.segments()[segment].sid, self.replica.segments()[segment].tip);
        let own = packing.own.iter().filter(|((of, _), _)| *of == sid);
        for ((_, actor), Head { seq, hash, .. }) in own {
            let receipt = self.replica.receipt(segment, *actor, (*seq, *hash), pos);
            bytes.extend(Frame::Receipt(receipt).encode());
            packing.packed.receipts += 1;
        }
        packing.packed.segments += 1;
        let row = &self.replica.segments()[segment];
        let judged = row.judged == row.tip && !self.replica.is_renewing_in(segment);
        if row.done < row.tip || !judged {
            return Ok(());
        }
        if let Some(proof) = self.replica.proof(segment)? {
            let (pos, heads, records) = (proof.pos, proof.heads, proof.records);
            let rows = proof.rows.to_be_bytes();
            let proof = Proof { segment: *segment, pos, heads, records, rows };
            bytes.extend(Frame::Proof(proof).encode());
        }
        Ok(())
    }
}

/// Whether an earlier bundle shows a device to have a file.
fn shows(since: Option<&Survey>, member: &Member, hash: &BlobHash) -> bool {
    since.is_some_and(|since| since.shows_file(&member.keys.signing, hash))
}
