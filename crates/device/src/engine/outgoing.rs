//! What the device sends: its unsaved changes, in bounded pushes, and what becomes of them.

use fieldkeep_documents::batch;
use fieldkeep_model::SegmentId;
use fieldkeep_protocol::frame::{Ack, Frame, Nack, Push, SegmentRef};
use fieldkeep_protocol::{BATCH, Code, priority};
use fieldkeep_replica::{OutgoingBatch, PutError, ReplicaError, Settled};
use fieldkeep_store::Log as _;

use super::Engine;

/// The stream of the device's own changes.
const PUSH: u64 = 1;
/// Bytes of changes that are under way without a receipt.
const IN_FLIGHT: u64 = 1024 * 1024;
/// How often on a connection a push may overtake what tells the relay who its author is.
const OVERTAKEN: u32 = 8;
/// How often on a connection everything that the relay lacks may go up again: each of the pushes that
/// are under way may find that something is missing, but sending it must help in the end.
const MISSING: u32 = 64;

impl Engine {
    /// Sends what has no receipt and was not sent on this connection, as far as the window allows;
    /// about a batch at a time, so that the relay takes the first while the next is made.
    pub(super) fn push_outgoing(&mut self) -> Result<(), ReplicaError> {
        self.goes_on = false;
        // Strangers may join and nothing else: what overtook the join would end the session.
        let waits = self.forgotten && !self.progress.offered;
        if self.session.is_none() || waits || !self.replica.store().has_outgoing()? {
            self.nothing_under_way();
            return Ok(());
        }
        let rows = self.replica.segments().values();
        let sent = rows.filter(|row| !self.paused.withholds(&row.address));
        let ids: Vec<SegmentId> = sent.map(|row| row.id).collect();
        let until = IN_FLIGHT.min(self.in_flight + BATCH as u64);
        for id in ids {
            let after = self.pushed.get(&id).copied().unwrap_or(0);
            if after >= self.replica.segments()[&id].tip {
                continue;
            }
            self.push_segment(&id, until)?;
            if self.in_flight >= until {
                self.goes_on = until < IN_FLIGHT;
                break;
            }
        }
        if self.under_way.is_empty() {
            // What waits does not go, because its type is paused or it was refused.
            self.may_report();
        }
        Ok(())
    }

    fn push_segment(&mut self, id: &SegmentId, until: u64) -> Result<(), ReplicaError> {
        while self.in_flight < until {
            let after = self.pushed.get(id).copied().unwrap_or(0);
            let Some(batch) = self.replica.outgoing_batch(id, after, BATCH)? else {
                self.pushed.insert(*id, self.replica.segments()[id].tip);
                return Ok(());
            };
            let row = &self.replica.segments()[id];
            // Before its answer a relay that was put back may have lost all of the segment.
            let named = row.cursor.pos == 0 || !self.progress.offered;
            let address = named.then(|| row.address.clone());
            let OutgoingBatch { chunks, heads, reached } = batch;
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let size = chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
            self.in_flight += size;
            let head = heads.first().map(|head| head.head);
            self.under_way.extend(head.map(|head| (*id, head.actor, head.seq, size)));
            self.pushed.insert(*id, reached);
            let batch = batch::encode(&chunks, 3);
            let push = Push { segment: SegmentRef { id: *id, address }, batch, heads };
            self.send(PUSH, priority::PUSH, &Frame::Push(push));
        }
        Ok(())
    }

    pub(super) fn nothing_under_way(&mut self) {
        self.in_flight = 0;
        self.under_way.clear();
    }

    pub(super) fn acknowledged(&mut self, ack: &Ack) -> Result<(), ReplicaError> {
        if self.replica.segment(&ack.segment).is_none() {
            return Ok(());
        }
        let receipt = self.replica.acknowledge(&ack.segment, &ack.actor, ack.seq, ack.pos)?;
        // A receipt of one of a push's authors is a receipt of the push.
        let in_flight = &mut self.in_flight;
        self.under_way.retain(|(segment, actor, seq, size)| {
            let covered = (segment, actor) == (&ack.segment, &ack.actor) && *seq <= ack.seq;
            *in_flight -= if covered { *size } else { 0 };
            !covered
        });
        // What the log brought back before its receipt is proven already; a log that this device may
        // not read any more, or of a generation that is over, brings nothing back.
        let row = &self.replica.segments()[&ack.segment];
        let followed = self.may_read(&row.address) && !self.paused.outlives(&row.address);
        if ack.pos > row.cursor.pos && followed {
            self.expect(&ack.segment, ack.pos);
        }
        self.note_receipt(&ack.segment, receipt);
        Ok(())
    }

    /// What a receipt means for the session: progress, what may be sent now, what watchers are told.
    pub(super) fn note_receipt(&mut self, id: &SegmentId, receipt: Settled) {
        self.progress.sent += receipt.changes;
        if receipt.freed {
            self.pushed.remove(id);
        }
        self.note_changed(id, receipt.records);
    }

    /// The relay did not take a push: what is missing is sent, a lost branch is written again, and
    /// anything else is kept and shown.
    pub(super) fn refused(&mut self, nack: Nack) -> Result<(), ReplicaError> {
        let Some(row) = self.replica.segment(&nack.segment) else { return Ok(()) };
        let sid = row.sid;
        tracing::warn!(segment = %nack.segment, code = nack.code, text = nack.text, "refused");
        self.nothing_under_way();
        self.may_report();
        match nack.code.as_str() {
            "missing-deps" => {
                // Of a segment that this device may not read the relay does not say what it holds:
                // everything goes up again, once a connection.
                let times = if nack.vector.is_some() { MISSING } else { 1 };
                if !self.may_send_again(&nack.segment, times) {
                    return Ok(());
                }
                let held = nack.vector.clone().unwrap_or_default();
                self.replica.require_upload(&nack.segment, &held)?;
                // What builds on a refused change can never arrive: sending it again would not end.
                if let Some(why) = self.replica.refusal_beneath(&nack.segment, &nack.hash)? {
                    self.replica.note_refusal(&nack.segment, &nack.hash, &why)?;
                }
                self.pushed.remove(&nack.segment);
            }
            // A relay that was put back has forgotten who wrote this, and is told on this connection:
            // the push overtook that.
            "unknown-author" if self.knows_author(&nack)? => {
                if self.may_send_again(&nack.segment, OVERTAKEN) {
                    self.pushed.remove(&nack.segment);
                }
            }
            "fork" | "seq" | "predecessor" | "start-op" => {
                let Some((actor, seq)) = self.replica.locate(&nack.segment, &nack.hash)? else {
                    // Its branch was settled when the relay's log came, before this.
                    return Ok(());
                };
                let me = self.replica.me().number;
                let outgoing = self.replica.store().outgoing(sid)?;
                let own = outgoing.iter().find(|change| change.actor.device() == me);
                let held = nack.vector.unwrap_or_default();
                let (actor, from) = match own {
                    // Another one's branch, which this device carried.
                    _ if actor.device() != me => (actor, seq),
                    Some(first) => (first.actor, first.seq.min(held.seq(&first.actor) + 1)),
                    None => return Ok(()),
                };
                if !self.write_branch_again(&nack.segment, &actor, from)? {
                    self.close(Code::Refused, "a lost branch could not be settled");
                }
            }
            code => {
                let why = format!("{code}: {}", nack.text);
                // The rest of its batch goes without it.
                self.pushed.remove(&nack.segment);
                if code == "not-permitted" || code == "over-quota" {
                    self.replica.note_aside(&nack.segment, &nack.hash, &why)?;
                    self.set_unauthorised_aside(&nack.segment)?;
                } else {
                    self.replica.note_refusal(&nack.segment, &nack.hash, &why)?;
                }
            }
        }
        Ok(())
    }

    /// Counts one more time that what was refused in a segment goes up again on this connection;
    /// whether that is within bounds. The next connection tries anew.
    fn may_send_again(&mut self, id: &SegmentId, times: u32) -> bool {
        let sent = self.sent_again.entry(*id).or_default();
        *sent += 1;
        *sent <= times
    }

    /// Whether the membership log here says who wrote a refused change.
    fn knows_author(&mut self, nack: &Nack) -> Result<bool, ReplicaError> {
        let sid = self.replica.segments()[&nack.segment].sid;
        let outgoing = self.replica.store().outgoing(sid)?;
        let known = |actor| self.replica.members().author(actor).is_some();
        Ok(outgoing.iter().all(|change| known(&change.actor)))
    }

    /// Takes this device's branch out of a segment and writes its content again as a new
    /// incarnation. Returns whether that could be done.
    pub(super) fn write_branch_again(
        &mut self,
        id: &SegmentId,
        actor: &fieldkeep_model::ActorId,
        from: u64,
    ) -> Result<bool, ReplicaError> {
        let settled = self.replica.set_branch_aside(id, actor, from, self.now);
        self.pushed.remove(id);
        self.rescan(id);
        match settled {
            Ok(changes) if actor.device() == self.replica.me().number => {
                tracing::warn!(segment = %id, changes, "this device was copied or restored: its lost branch was written again");
                Ok(true)
            }
            Ok(changes) => {
                tracing::warn!(segment = %id, %actor, changes, "another device's lost branch was set aside");
                Ok(true)
            }
            Err(PutError::Replica(error)) => Err(error),
            Err(error) => {
                tracing::error!(%error, "a lost branch could not be settled; it stays as it is");
                Ok(false)
            }
        }
    }
}
