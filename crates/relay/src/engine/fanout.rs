//! Fan-out: what followers get of a segment that moved: its log, verdicts, proof and counts.
//!
//! Runs after the commit, so nothing is forwarded that is not durable. What a connection may hold
//! unconfirmed is bounded; a slow reader is held back alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use fieldkeep_documents::batch;
use fieldkeep_model::status::LeftOut;
use fieldkeep_model::verdict::Opening;
use fieldkeep_model::{Member, SegmentAddress, SegmentId, Signed, TypeName, VerdictBlock};
use fieldkeep_protocol::frame::{Delta, Frame, Proof, Run, SegmentRef, Stats, TypeCount, Verdicts};
use fieldkeep_protocol::{BATCH, Code, WINDOW, priority};
use fieldkeep_replica::{Item, ReplicaError, Stretch, VerdictPage};

use super::peer::Peer;
use super::{ConnectionId, Engine, Output};

/// The stream of changes as they happen.
const LIVE: u64 = 1;
/// How many bytes of changes are read for a follower at once, where they are not packed: whatever else is
/// to be done waits for that.
const READ: usize = 64 * 1024;
/// How long everything else may take before who met damage is sent away, in milliseconds: less than the
/// quiet after which it is looked at when nothing comes any more.
const LACKING_MS: i64 = 4_000;

impl Engine {
    /// Brings the followers of every segment that moved up to date, as far as their windows allow.
    pub(super) fn fan_out(&mut self) -> Result<(), ReplicaError> {
        let moved = std::mem::take(&mut self.moved);
        self.note_absent(&moved);
        for segment in moved {
            let followers = self.followers.get(&segment).cloned().unwrap_or_default();
            for id in followers {
                self.pump(id, &segment)?;
            }
        }
        self.go_on().map(drop)
    }

    /// Sends one of those who lack more than goes at once what comes next, by turns. Returns whether there
    /// was one.
    pub(super) fn go_on(&mut self) -> Result<bool, ReplicaError> {
        let after = self.served.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.lagging.range((after, Bound::Unbounded)).next();
        let Some(next) = next.or_else(|| self.lagging.first()).copied() else { return Ok(false) };
        self.lagging.remove(&next);
        self.served = Some(next);
        let (id, segment) = next;
        if self.replica.segment(&segment).is_some() {
            self.pump(id, &segment)?;
        }
        Ok(true)
    }

    /// Who leaves a segment out does not follow it, and hears how many records there are: later, when
    /// nothing else is to be done, since that counts all segments.
    fn note_absent(&mut self, moved: &BTreeSet<SegmentId>) {
        let moved: Vec<_> = moved.iter().map(|id| &self.replica.segments()[id].address).collect();
        let leaves_out = |(_, peer): &(&ConnectionId, &Peer)| {
            let told = peer.offered && peer.member.is_some();
            told && moved.iter().any(|address| peer.left_out.covers(address))
        };
        self.uncounted.extend(self.peers.iter().filter(leaves_out).map(|(id, _)| *id));
    }

    /// Counts for one of those who left out something that has moved. Returns whether there was one.
    pub(super) fn count_for_absent(&mut self) -> Result<bool, ReplicaError> {
        let Some(id) = self.uncounted.pop_first() else { return Ok(false) };
        self.tell_stats(id)?;
        Ok(true)
    }

    /// Sends a follower what it lacks of a segment, or as much of it as goes at once: [`Engine::go_on`] sends
    /// the rest. What cannot be read stands back: everything else goes both ways before the follower is
    /// sent away with that reason.
    pub(super) fn pump(
        &mut self,
        id: ConnectionId,
        segment: &SegmentId,
    ) -> Result<(), ReplicaError> {
        match self.send_lacking(id, segment) {
            Err(error) if error.is_damage() => {
                self.lacks(id, segment, &error);
                Ok(())
            }
            other => other,
        }
    }

    /// Has a segment that cannot be read stand back for a peer.
    pub(super) fn lacks(&mut self, id: ConnectionId, segment: &SegmentId, error: &ReplicaError) {
        tracing::error!(connection = id, %segment, %error, "a segment is damaged");
        if let Some(followers) = self.followers.get_mut(segment) {
            followers.remove(&id);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.unfollow(segment);
            let why = || {
                let address = &self.replica.segments()[segment].address;
                let why = format!(
                    "on the relay a change of {address} is not what was written: everything else was \
                     exchanged, and what was written there stays on this device, unsaved; `fieldkeep relay \
                     doctor` tells whoever runs the relay"
                );
                (self.now, why)
            };
            peer.lacking.get_or_insert_with(why);
        }
    }

    /// Sends away who met something that cannot be read, once a while has passed. Returns whether there
    /// was one.
    pub fn end_lacking(&mut self, now: i64) -> bool {
        let over = |(id, peer): (&ConnectionId, &Peer)| {
            let (since, why) = peer.lacking.as_ref()?;
            (now - since >= LACKING_MS).then(|| (*id, why.clone()))
        };
        let over: Vec<_> = self.peers.iter().filter_map(over).collect();
        for (id, why) in &over {
            self.close(*id, Code::Storage, why);
        }
        !over.is_empty()
    }

    fn send_lacking(&mut self, id: ConnectionId, segment: &SegmentId) -> Result<(), ReplicaError> {
        if self.send_log(id, segment)? {
            self.lagging.insert((id, *segment));
            return Ok(());
        }
        self.send_verdicts(id, segment)?;
        self.send_proof(id, segment)
    }

    /// Sends the next stretch of the log; whether there is more.
    fn send_log(&mut self, id: ConnectionId, segment: &SegmentId) -> Result<bool, ReplicaError> {
        let Some(peer) = self.peers.get(&id) else { return Ok(false) };
        let Some(following) = peer.following.get(segment) else { return Ok(false) };
        let tip = self.replica.segments()[segment].tip;
        let full = peer.outstanding >= WINDOW;
        if following.paused || following.sent >= tip || full {
            return Ok(false);
        }
        let (first, known) = (following.sent + 1, &following.known);
        let stretch = self.replica.stretch_beyond(segment, first, READ, known)?;
        let Some(stretch) = stretch else { return Ok(false) };
        let whole = stretch.last == tip;
        // Frames of one segment stay in order: one stream at a time, the next one only when what
        // was sent on the last is confirmed.
        let live = following.stream.is_none() && (following.live || whole);
        let waits = following.stream.is_none() && !following.in_flight.is_empty();
        if waits && !following.live {
            return Ok(false);
        }
        let address =
            (!following.introduced).then(|| self.replica.segments()[segment].address.clone());
        let last = stretch.last;
        let delta = self.delta(SegmentRef { id: *segment, address }, stretch);
        let bytes = Frame::Delta(delta).encode();
        let size = bytes.len() as u64;
        let peer = self.peers.get_mut(&id).expect("looked up above");
        let following = peer.following.get_mut(segment).expect("looked up above");
        following.sent = last;
        following.introduced = true;
        following.in_flight.push_back((last, size));
        following.live = live;
        peer.outstanding += size;
        if live {
            self.outputs.push(Output::Send {
                to: id,
                stream: LIVE,
                priority: priority::LIVE,
                bytes,
            });
            return Ok(!whole);
        }
        let stream = following.stream.unwrap_or_else(|| {
            peer.next_stream += 1;
            peer.next_stream
        });
        following.stream = (!whole).then_some(stream);
        self.outputs.push(Output::Send { to: id, stream, priority: priority::DELTA, bytes });
        if whole {
            self.outputs.push(Output::Finish(id, stream));
        }
        Ok(!whole)
    }

    pub(super) fn delta(&self, segment: SegmentRef, stretch: Stretch) -> Delta {
        let Stretch { first, items, chunks, heads, chain, pack, .. } = stretch;
        let batch = pack.unwrap_or_else(|| {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            batch::encode(&chunks, 3)
        });
        let epoch = self.replica.epoch();
        Delta { segment, first, runs: runs(&items), batch, heads, chain, epoch }
    }

    fn send_verdicts(&mut self, id: ConnectionId, segment: &SegmentId) -> Result<(), ReplicaError> {
        loop {
            let Some(peer) = self.peers.get(&id) else { return Ok(()) };
            let Some(following) = peer.following.get(segment) else { return Ok(()) };
            let row = &self.replica.segments()[segment];
            let (verdict, judged) = (row.verdict, row.judged);
            if (following.verdict, following.judged) == (verdict, judged) || judged == 0 {
                return Ok(());
            }
            let epoch = self.replica.epoch();
            let member = self.member(id);
            let readable = |opening: &Opening| {
                let row = self.replica.segment(&opening.segment);
                row.is_some_and(|row| member.may(&row.address.ty, &row.address.scope))
            };
            let after = (epoch, following.verdict);
            let page = self.replica.verdict_page(segment, after, BATCH, readable)?;
            let VerdictPage { blocks, openings, whole } = page;
            let last: Option<VerdictBlock> = blocks.last().and_then(Signed::read);
            let number = last.map_or(verdict, |block| block.number);
            let relay = self.replica.me().number;
            let frame = Verdicts { segment: *segment, relay, blocks, openings };
            self.control(id, &Frame::Verdicts(frame));
            let peer = self.peers.get_mut(&id).expect("looked up above");
            let following = peer.following.get_mut(segment).expect("looked up above");
            following.verdict = if whole { verdict } else { number };
            following.judged = if whole { judged } else { following.judged };
        }
    }

    /// Sends the proof once everything of a segment is confirmed and judged.
    fn send_proof(&mut self, id: ConnectionId, segment: &SegmentId) -> Result<(), ReplicaError> {
        let Some(peer) = self.peers.get(&id) else { return Ok(()) };
        let Some(following) = peer.following.get(segment) else { return Ok(()) };
        let row = &self.replica.segments()[segment];
        let (tip, verdict) = (row.tip, row.verdict);
        let judged = row.judged == tip && !self.replica.is_renewing_in(segment);
        let complete = following.confirmed == tip && row.done == tip && judged;
        if !complete || following.proved == Some((tip, verdict)) {
            return Ok(());
        }
        let Some(proof) = self.replica.proof(segment)? else { return Ok(()) };
        let frame = Proof {
            segment: *segment,
            pos: proof.pos,
            heads: proof.heads,
            records: proof.records,
            rows: proof.rows.to_be_bytes(),
        };
        self.tell_stats(id)?;
        self.control(id, &Frame::Proof(frame));
        let peer = self.peers.get_mut(&id).expect("looked up above");
        peer.following.get_mut(segment).expect("looked up above").proved = Some((tip, verdict));
        Ok(())
    }

    /// Tells a peer the counts, if they are not those that it was told last.
    pub(super) fn tell_stats(&mut self, id: ConnectionId) -> Result<(), ReplicaError> {
        let stats = self.stats_for(&self.member(id), &self.peers[&id].left_out);
        let peer = self.peers.get_mut(&id).expect("the caller has it");
        if peer.stats.as_ref() != Some(&stats) {
            peer.stats = Some(stats.clone());
            self.control(id, &Frame::Stats(stats));
        }
        Ok(())
    }

    /// The counts for a member, of what it does not leave out.
    pub(super) fn stats_for(&self, member: &Member, left_out: &LeftOut) -> Stats {
        let Some(published) = self.replica.published() else { return Stats::default() };
        let none = |ty: &TypeName| TypeCount { ty: ty.clone(), in_scope: 0, all: 0, held: 0 };
        let types = published.catalog.types().keys();
        let mut counts: BTreeMap<&TypeName, TypeCount> = types.map(|ty| (ty, none(ty))).collect();
        for row in self.replica.segments().values() {
            let SegmentAddress { ty, scope, .. } = &row.address;
            let Some(count) = counts.get_mut(ty) else { continue };
            // A device of an earlier generation has as many in its own: each record is in both.
            count.all += row.live;
            if !left_out.unsubscribes(ty, scope) && member.may(ty, scope) {
                count.in_scope += row.live;
                count.held += row.held;
            }
        }
        Stats { types: counts.into_values().collect() }
    }
}

/// Joins neighbouring items.
fn runs(items: &[Item]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for item in items {
        match (runs.last_mut(), item) {
            (Some(Run::Sent(count)), Item::Sent) => *count += 1,
            (Some(Run::Known(actor, first, count)), Item::Known(next, seq))
                if actor == next && *first + *count == *seq =>
            {
                *count += 1;
            }
            (_, Item::Sent) => runs.push(Run::Sent(1)),
            (_, Item::Known(actor, seq)) => runs.push(Run::Known(*actor, *seq, 1)),
        }
    }
    runs
}
