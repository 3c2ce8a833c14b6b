//! What a peer says: each frame goes to what it is for. Nonsense ends its own connection.

use std::collections::VecDeque;

use fieldkeep_protocol::frame::Frame;
use fieldkeep_protocol::{Code, Phase, Violation};
use fieldkeep_replica::ReplicaError;

use super::{ConnectionId, Engine};

impl Engine {
    pub(super) fn bytes(
        &mut self,
        id: ConnectionId,
        stream: u64,
        bytes: &[u8],
    ) -> Result<(), ReplicaError> {
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        if let Err(violation) = peer.session.receive(stream, bytes) {
            self.violated(id, &violation);
            return Ok(());
        }
        // The first frame opens the way for what overtook it on other streams.
        let mut streams = VecDeque::from([stream]);
        while let Some(stream) = streams.pop_front() {
            while let Some(peer) = self.peers.get_mut(&id) {
                let opening = peer.session.phase() == Phase::Opening;
                match peer.session.next(stream) {
                    Ok(Some(frame)) => {
                        let taken = self.frame(id, frame);
                        self.survive(id, taken)?;
                        if opening {
                            streams.extend(
                                self.peers
                                    .get(&id)
                                    .map(|peer| peer.session.waiting())
                                    .unwrap_or_default(),
                            );
                        }
                    }
                    Ok(None) => break,
                    Err(violation) => self.violated(id, &violation),
                }
            }
        }
        Ok(())
    }

    /// Damage of one segment costs the connection that met it, and nothing else.
    pub(super) fn survive<T: Default>(
        &mut self,
        id: ConnectionId,
        result: Result<T, ReplicaError>,
    ) -> Result<T, ReplicaError> {
        match result {
            Err(error) if error.is_damage() => {
                tracing::error!(connection = id, %error, "a segment is damaged");
                self.close(id, Code::Storage, &error.to_string());
                Ok(T::default())
            }
            other => other,
        }
    }

    fn frame(&mut self, id: ConnectionId, frame: Frame) -> Result<(), ReplicaError> {
        tracing::trace!(connection = id, frame = frame.name(), "received");
        let _traced = self.trace_frame(id, frame.name());
        match frame {
            Frame::Hello(hello) => self.hello(id, &hello)?,
            Frame::Join(join) if self.peers[&id].member.is_none() => self.join(id, &join)?,
            Frame::Join(members) | Frame::Members(members) => self.members(id, &members)?,
            Frame::Offer(offer) => self.offer(id, &offer)?,
            Frame::Mode(paused) => self.mode(id, paused),
            Frame::Vector(vector) => self.vector(id, vector)?,
            Frame::Witness(statement) => self.witness(id, &statement)?,
            Frame::Push(push) => self.push(id, push)?,
            Frame::Credit(credit) => self.credit(id, credit),
            Frame::Rejudge(key) => self.asked_to_rejudge(id, key)?,
            Frame::Dismiss(dismiss) => self.asked_to_dismiss(id, &dismiss)?,
            Frame::Call(call) => self.call(id, call)?,
            Frame::Ask(ask) => self.ask(id, &ask),
            Frame::Report(report) => self.reported(id, report),
            Frame::Error(error) => tracing::info!(connection = id, ?error, "the peer gave up"),
            Frame::Welcome(_)
            | Frame::Catalog(_)
            | Frame::OfferReply(_)
            | Frame::Delta(_)
            | Frame::Ack(_)
            | Frame::Nack(_)
            | Frame::Verdicts(_)
            | Frame::Proof(_)
            | Frame::Stats(_)
            | Frame::GoAway(_)
            | Frame::Meet(_)
            | Frame::Receipt(_)
            | Frame::Outcome(_)
            | Frame::Answer(_)
            | Frame::Part(_) => unreachable!("the session lets no such frame in"),
        }
        Ok(())
    }

    pub(super) fn violated(&mut self, id: ConnectionId, violation: &Violation) {
        let stranger = self.peers.get(&id).is_some_and(|p| p.session.phase() == Phase::Stranger);
        let code = match violation {
            Violation::OutOfOrder(_) if stranger => Code::NotAMember,
            Violation::Frame(_)
            | Violation::OutOfOrder(_)
            | Violation::CutShort
            | Violation::Streams
            | Violation::Unintroduced => violation.code(),
        };
        tracing::warn!(connection = id, %violation, "closed");
        self.close(id, code, &violation.to_string());
    }
}
