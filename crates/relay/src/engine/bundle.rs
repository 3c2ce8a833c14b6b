//! Bundles: what a relay takes from a device by a file, and what goes back the same way: the log,
//! verdicts, receipts and proofs, as a session would bring them.
//!
//! Nothing is kept of who has taken which bundle: where a device stands, its own last bundle says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fieldkeep_model::status::LeftOut;
use fieldkeep_model::verdict::Opening;
use fieldkeep_model::{
    ActorId, Head, Judged, Member, Pos, PublicKey, SegmentAddress, SegmentId, Seq, Signed,
    VerdictBlock,
};
use fieldkeep_protocol::bundle::{Header, Survey, Unfit};
use fieldkeep_protocol::frame::{self, CatalogFile, Frame, Proof, Push, SegmentRef, Verdicts};
use fieldkeep_protocol::{Anchor, BATCH, Meet, Standpoint};
use fieldkeep_replica::{AdmitError, ReplicaError, VerdictPage};
use fieldkeep_store::Permissions as _;

use super::Engine;

/// Segments of which a refusal is told one by one.
const TOLD: usize = 16;

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
    packed: Packed,
}

/// What of a segment is packed next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// What stands before all segments.
    Beginning,
    /// Where the segment begins for that device.
    Segment,
    /// The log from a position on.
    Log(Pos),
    /// The verdicts after a number.
    Verdicts(u64),
    /// Receipts and the proof.
    End,
}

/// What was packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Changes.
    pub changes: u64,
    /// Receipts.
    pub receipts: u64,
    /// Segments of which there are changes in it.
    pub segments: u64,
}

/// Changes that were not taken: of one segment, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotTaken {
    /// The segment, as far as it was named.
    pub segment: Option<SegmentAddress>,
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
    /// Changes that are kept aside, because their author may not write there.
    pub aside: u64,
    /// How many segments were refused.
    pub refused: u64,
    /// The first of them.
    pub not_taken: Vec<NotTaken>,
}

/// A bundle that is being taken in.
#[derive(Debug)]
pub struct Unpacking {
    from: Member,
    refused: BTreeSet<SegmentId>,
    unpacked: Unpacked,
}

impl Packing {
    /// What is packed by now.
    #[must_use]
    pub fn packed(&self) -> Packed {
        self.packed
    }
}

impl Unpacking {
    /// What was taken by now.
    #[must_use]
    pub fn unpacked(&self) -> &Unpacked {
        &self.unpacked
    }

    /// Notes that nothing more of a segment is taken.
    fn refuse(&mut self, id: SegmentId, segment: Option<SegmentAddress>, code: &str, text: String) {
        tracing::warn!(segment = %id, code, text, "refused, from a bundle");
        let first = self.refused.insert(id);
        self.unpacked.refused = self.refused.len() as u64;
        if first && self.unpacked.not_taken.len() < TOLD {
            self.unpacked.not_taken.push(NotTaken { segment, code: code.to_owned(), text });
        }
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
    ) -> Result<(Header, Packing), Unfit> {
        self.now = now;
        let mine = self.replica.me().keys.public();
        let member = self.signing(to).cloned().ok_or(Unfit::ForAStranger)?;
        if member.relay {
            return Err(Unfit::ForOneself);
        }
        if member.revoked {
            return Err(Unfit::Revoked(member.name));
        }
        if let Some(Survey { header, .. }) = &since {
            let between = [(mine, *to), (*to, mine)].contains(&(header.from, header.to));
            if header.org != self.replica.org() || !between {
                return Err(Unfit::BetweenOthers(member.name));
            }
        }
        let header = Header {
            org: self.replica.org(),
            from: mine,
            to: *to,
            created: now,
            epoch: self.replica.epoch(),
            catalog: self.replica.published().map_or(0, |published| published.number),
            members: self.replica.members().len(),
            members_sum: self.replica.members().sum().to_be_bytes(),
            since: since.as_ref().map(|since| since.digest),
        };
        // What it leaves out it has said itself.
        let theirs = since.as_ref().filter(|since| since.header.from == *to);
        let left_out = theirs.map(|since| since.left_out.clone()).unwrap_or_default();
        let rows = self.replica.segments().values();
        let readable = rows.filter(|row| {
            let SegmentAddress { ty, scope, .. } = &row.address;
            row.tip > 0 && member.may(ty, scope) && !left_out.covers(&row.address)
        });
        let segments = readable.map(|row| row.id).collect();
        let (step, own, packed) = (Step::Beginning, BTreeMap::new(), Packed::default());
        Ok((header, Packing { member, since, segments, step, left_out, own, packed }))
    }

    /// The member of that signing key.
    fn signing(&self, key: &PublicKey) -> Option<&Member> {
        self.replica.members().members().values().find(|member| member.keys.signing == *key)
    }

    /// The next frames of a bundle; none once everything is packed.
    ///
    /// # Errors
    /// When the store fails.
    pub fn pack_more(&mut self, packing: &mut Packing) -> Result<Option<Vec<u8>>, ReplicaError> {
        loop {
            let mut bytes = Vec::new();
            let segment = packing.segments.front().copied();
            packing.step = match (packing.step, segment) {
                (Step::Beginning, _) => {
                    bytes = self.pack_beginning(packing)?;
                    Step::Segment
                }
                (_, None) => return Ok(None),
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
                return Ok(Some(bytes));
            }
        }
    }

    /// Members, the catalog, the counts, where the log of each segment ends, and receipts of what lies
    /// where the device may not read.
    fn pack_beginning(&mut self, packing: &mut Packing) -> Result<Vec<u8>, ReplicaError> {
        let mut bytes = Vec::new();
        let Member { number, keys, .. } = &packing.member;
        packing.own = self.replica.store().newest_of(*number)?;
        packing.own.retain(|(_, actor), _| actor.belongs_to(*number, &keys.signing));
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
        bytes.extend(self.delta(SegmentRef { id: *segment, address }, stretch).encode());
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

    /// Begins to take a bundle in, once it was read through: whose it is and for whom. What it brings
    /// of the membership log is taken; a commit must follow.
    ///
    /// # Errors
    /// [`Unfit`] where it is not taken: nothing was changed.
    pub fn unpack(
        &mut self,
        now: i64,
        survey: Survey,
    ) -> Result<Result<Unpacking, Unfit>, ReplicaError> {
        self.now = now;
        let Survey { header, members, .. } = survey;
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
        let Some(from) = find(&header.from) else { return Ok(Err(Unfit::Stranger)) };
        if let Err(error) = merged {
            return Ok(Err(Unfit::Membership(error.to_string())));
        }
        if from.revoked {
            return Ok(Err(Unfit::Revoked(from.name)));
        }
        if self.is_suspended(&from.keys.tls) {
            return Ok(Err(Unfit::Suspended(from.name)));
        }
        self.append_members(&members)?;
        let unpacked = Unpacked { from: from.name.clone(), ..Unpacked::default() };
        Ok(Ok(Unpacking { from, refused: BTreeSet::new(), unpacked }))
    }

    /// Takes a frame of a bundle in, as from a session of whoever wrote it. A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn unpack_frame(
        &mut self,
        now: i64,
        unpacking: &mut Unpacking,
        frame: Frame,
    ) -> Result<(), ReplicaError> {
        self.now = now;
        tracing::trace!(frame = frame.name(), "from a bundle");
        if let Frame::Witness(statement) = &frame
            && let Some(epoch) = self.replica.lost(statement)?
        {
            self.open_epoch(epoch)?;
        }
        // What it says of where its writer stands was read at first; the rest is for devices.
        if let Frame::Push(push) = frame { self.unpack_push(unpacking, push) } else { Ok(()) }
    }

    fn unpack_push(&mut self, unpacking: &mut Unpacking, push: Push) -> Result<(), ReplicaError> {
        let SegmentRef { id, address } = push.segment;
        if unpacking.refused.contains(&id) {
            return Ok(());
        }
        let named = address.clone();
        let changes = match self.replica.batch(&id, address, &push.batch, push.heads) {
            Ok(changes) => changes,
            Err(error) => {
                unpacking.refuse(id, named, "malformed", error.to_string());
                return Ok(());
            }
        };
        let segment = Some(changes.segment.clone());
        if !self.replica.is_declared(&changes.segment) {
            let text = "the relay's catalog has no such type, or divides it otherwise".to_owned();
            self.tally.refused("undeclared");
            unpacking.refuse(id, segment, "undeclared", text);
            return Ok(());
        }
        match self.replica.receive(unpacking.from.number, &changes, self.now) {
            Ok(received) => {
                self.tally.received(&received);
                if let Some((first, last)) = received.admitted {
                    unpacking.unpacked.changes += last - first + 1;
                    self.has_grown(&id)?;
                }
                unpacking.unpacked.aside += received.aside.len() as u64;
                for (actor, seq, _) in &received.newest {
                    self.replica.note_newest(&id, actor, *seq)?;
                }
                Ok(())
            }
            Err(AdmitError::Refused(refused)) => {
                self.tally.refused(refused.code);
                unpacking.refuse(id, segment, refused.code, refused.to_string());
                Ok(())
            }
            Err(AdmitError::Replica(error)) => Err(error),
        }
    }
}
