//! Changes that a device brings: taken, kept aside or refused, and what it is told of that.

use std::collections::BTreeSet;

use fieldkeep_model::{ChangeHash, SegmentId};
use fieldkeep_protocol::Code;
use fieldkeep_protocol::frame::{self, Frame, SegmentRef};
use fieldkeep_replica::{AdmitError, OVER_QUOTA, PART, Refused, ReplicaError};
use fieldkeep_store::SegmentRow;
use tracing::debug_span;

use super::{ConnectionId, Engine};

impl Engine {
    pub(super) fn push(&mut self, id: ConnectionId, push: frame::Push) -> Result<(), ReplicaError> {
        let from = self.peers[&id].member.expect("the session is open");
        let SegmentRef { id: segment, address } = push.segment;
        let unpack = || self.replica.batch(&segment, address, &push.batch, push.heads);
        let changes = match debug_span!(target: PART, "unpack").in_scope(unpack) {
            Ok(changes) => changes,
            Err(error) => {
                self.close(id, Code::Malformed, &error.to_string());
                return Ok(());
            }
        };
        let brought = self.brought.entry(self.peers[&id].key).or_default();
        *brought += changes.chunks.len() as u64;
        if !self.replica.is_declared(&changes.segment) {
            let hash = changes.heads.first().map_or(ChangeHash([0; 32]), |head| head.head.hash);
            let text = "the relay's catalog has no such type, or divides it otherwise".to_owned();
            let code = "undeclared".to_owned();
            let nack = frame::Nack { segment, hash, stage: 1, code, text, vector: None };
            self.tally.refused("undeclared");
            self.control(id, &Frame::Nack(nack));
            return Ok(());
        }
        match self.replica.receive(from, &changes, self.now) {
            Ok(received) => self.received(id, &segment, &received),
            Err(AdmitError::Refused(refused)) => {
                tracing::warn!(from, %segment, %refused, "refused");
                self.refuse(id, segment, *refused)
            }
            Err(AdmitError::Replica(error)) if error.is_damage() => {
                // No receipt: its author keeps it as unsaved.
                self.lacks(id, &segment, &error);
                Ok(())
            }
            Err(AdmitError::Replica(error)) => Err(error),
        }
    }

    fn received(
        &mut self,
        id: ConnectionId,
        segment: &SegmentId,
        received: &fieldkeep_replica::Received,
    ) -> Result<(), ReplicaError> {
        if let Some((first, last)) = received.admitted {
            self.influx.arrived((last - first + 1) as usize);
            self.traces.grew(segment, id);
            self.has_grown(segment)?;
        }
        self.tally.received(received);
        for (hash, reason) in &received.aside {
            let (code, text) = if *reason == OVER_QUOTA {
                let text = "as much is stored of its author, or of the whole organisation, as may be: \
                            the relay keeps the change aside until there is room";
                ("over-quota", text)
            } else {
                let text =
                    "the device was not granted this scope: the relay keeps the change aside";
                ("not-permitted", text)
            };
            let (code, text) = (code.to_owned(), text.to_owned());
            let (segment, hash) = (*segment, *hash);
            let nack = frame::Nack { segment, hash, stage: 1, code, text, vector: None };
            self.control(id, &Frame::Nack(nack));
        }
        let pos = self.replica.segment(segment).map_or(0, |row| row.tip);
        for (actor, seq, hash) in &received.newest {
            self.replica.note_newest(segment, actor, *seq)?;
            let ack = frame::Ack { segment: *segment, actor: *actor, seq: *seq, hash: *hash, pos };
            self.control(id, &Frame::Ack(ack));
            if self.peers.get(&id).is_some_and(|peer| peer.receipts) {
                let receipt = self.replica.receipt(segment, *actor, (*seq, *hash), pos);
                self.control(id, &Frame::Receipt(receipt));
            }
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.learn(segment, *actor, *seq);
            }
        }
        Ok(())
    }

    /// Has a segment whose log has grown judged and sent on.
    pub(super) fn has_grown(&mut self, segment: &SegmentId) -> Result<(), ReplicaError> {
        self.moved.insert(*segment);
        if !self.queue.contains(segment) {
            self.queue.push_back(*segment);
        }
        // Whoever may read it follows it since it began, or since he came: only where nobody does is it looked
        // who might, which takes as long as there are devices.
        if self.followers.get(segment).is_none_or(BTreeSet::is_empty) {
            self.follow_everyone(segment)?;
        }
        Ok(())
    }

    fn refuse(
        &mut self,
        id: ConnectionId,
        segment: SegmentId,
        refused: Refused,
    ) -> Result<(), ReplicaError> {
        let member = self.member(id);
        let may = |row: &SegmentRow| member.may(&row.address.ty, &row.address.scope);
        // Of a segment that is not there it holds nothing, and the device has to know.
        let readable = self.replica.segment(&segment).is_none_or(may);
        let vector = match refused.code {
            "missing-deps" | "fork" | "seq" if readable => Some(self.replica.vector(&segment)?),
            _ => None,
        };
        let Refused { hash, stage, code, text, .. } = refused;
        self.tally.refused(code);
        let nack = frame::Nack { segment, hash, stage, code: code.to_owned(), text, vector };
        self.control(id, &Frame::Nack(nack));
        Ok(())
    }
}
