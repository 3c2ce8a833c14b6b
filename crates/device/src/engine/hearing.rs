//! What the relay says: each frame goes to what it is for.

use std::collections::VecDeque;

use fieldkeep_model::membership::Entry;
use fieldkeep_model::{SegmentId, Signed};
use fieldkeep_protocol::frame::{self, Frame, Hello, Stats};
use fieldkeep_protocol::{Code, Phase, Session};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::Records as _;

use super::Engine;

impl Engine {
    pub(super) fn bytes(&mut self, stream: u64, bytes: &[u8]) -> Result<(), ReplicaError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        self.progress.bytes_received += bytes.len() as u64;
        if let Err(violation) = session.receive(stream, bytes) {
            self.close(violation.code(), &violation.to_string());
            return Ok(());
        }
        // The first frame opens the way for what overtook it on other streams.
        let mut streams = VecDeque::from([stream]);
        while let Some(stream) = streams.pop_front() {
            while let Some(session) = &mut self.session {
                let opening = session.phase() == Phase::Opening;
                match session.next(stream) {
                    Ok(Some(frame)) => {
                        self.frame(frame)?;
                        if opening {
                            streams.extend(
                                self.session.as_ref().map(Session::waiting).unwrap_or_default(),
                            );
                        }
                    }
                    Ok(None) => break,
                    Err(violation) => self.close(violation.code(), &violation.to_string()),
                }
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame) -> Result<(), ReplicaError> {
        tracing::trace!(frame = frame.name(), "received");
        match frame {
            Frame::Welcome(welcome) => self.welcome(&welcome)?,
            Frame::Members(members) => self.members(&members)?,
            Frame::Catalog(catalog) => self.catalog(catalog)?,
            Frame::OfferReply(reply) => self.offer_reply(reply)?,
            Frame::Delta(delta) => self.delta(delta)?,
            Frame::Ack(ack) => self.acknowledged(&ack)?,
            Frame::Nack(nack) => self.refused(nack)?,
            Frame::Verdicts(verdicts) => self.verdicts(verdicts)?,
            Frame::Proof(proof) => self.proof(&proof)?,
            Frame::Stats(stats) => self.stats(&stats)?,
            Frame::Receipt(receipt) => {
                if !self.receipt(&receipt)? {
                    self.close(Code::Unvouched, "a receipt that no relay signed");
                }
            }
            Frame::Outcome(outcome) => self.outcome(&outcome)?,
            Frame::Answer(answer) => self.answered(answer),
            Frame::GoAway(frame::GoAway { retry_ms }) => {
                self.progress.back_ms = Some(retry_ms);
                self.close(Code::GoingAway, "the relay sends this device away");
            }
            Frame::Error(error) => {
                self.forgotten |= error.code == Code::NotAMember;
                self.progress.ended = Some((error.code, error.text));
            }
            Frame::Hello(_)
            | Frame::Join(_)
            | Frame::Offer(_)
            | Frame::Vector(_)
            | Frame::Witness(_)
            | Frame::Push(_)
            | Frame::Credit(_)
            | Frame::Rejudge(_)
            | Frame::Dismiss(_)
            | Frame::Call(_)
            | Frame::Ask(_)
            | Frame::Meet(_)
            | Frame::Mode(_)
            | Frame::Report(_)
            | Frame::Part(_) => unreachable!("the session lets no such frame in"),
        }
        Ok(())
    }

    fn welcome(&mut self, welcome: &Hello) -> Result<(), ReplicaError> {
        if !welcome.versions.contains(&fieldkeep_protocol::VERSION) {
            self.close(Code::Version, "no common protocol version: update the software");
            return Ok(());
        }
        if welcome.org != self.replica.org() {
            self.close(Code::ForeignOrganisation, "the relay serves another organisation");
            return Ok(());
        }
        if let Some(session) = &mut self.session {
            session.enter(Phase::Open);
        }
        self.progress.removals = Some(welcome.removals.unwrap_or(0));
        self.learn_reports(welcome);
        self.bring_members(welcome);
        if self.forgotten { self.make_offer() } else { Ok(()) }
    }

    /// Brings the relay what it lacks of the membership log, as far as that can be told already.
    fn bring_members(&mut self, welcome: &Hello) {
        let members = self.replica.members();
        let continues = members.sum_at(welcome.members) == Some(welcome.members_sum());
        let known = if continues { welcome.members } else { 0 };
        // One that holds as many or more says what it holds, and the rest is brought then.
        let told = continues || self.forgotten || welcome.members < members.len();
        let entries = members.since(known).to_vec();
        self.brought_members = told;
        if told && !entries.is_empty() {
            let entries = frame::Members { base: known, entries };
            let frame = if self.forgotten { Frame::Join } else { Frame::Members };
            self.control(&frame(entries));
        }
    }

    /// Takes entries of the membership log over that a relay gave where nothing else is exchanged. A
    /// commit must follow.
    ///
    /// # Errors
    /// When they do not extend the log: nothing was taken then. Failures of the store.
    pub(crate) fn learn_members(&mut self, entries: &[Signed]) -> Result<(), ReplicaError> {
        let before = self.replica.members().len();
        self.replica.append_members(entries)?;
        self.permissions_changed(before)
    }

    fn members(&mut self, members: &frame::Members) -> Result<(), ReplicaError> {
        let before = self.replica.members().len();
        match self.replica.append_members(&members.entries) {
            Ok(_) => {}
            Err(ReplicaError::Membership(error)) => {
                self.close(Code::Membership, &error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        // The two logs have branched, and these are all that the relay holds.
        if members.base == 0 && !std::mem::replace(&mut self.brought_members, true) {
            let entries = self.replica.members().beyond(&members.entries);
            let base = members.entries.len() as u64;
            if !entries.is_empty() {
                self.control(&Frame::Members(frame::Members { base, entries }));
            }
        }
        self.may_report();
        self.permissions_changed(before)?;
        for delta in std::mem::take(&mut self.parked) {
            self.delta(delta)?;
        }
        Ok(())
    }

    /// Does what the entries of the membership log from an index on say about permissions: what they
    /// took away is taken out, what they gave back, to this device or to somebody whose changes it
    /// carries, is sent again.
    pub(super) fn permissions_changed(&mut self, from: u64) -> Result<(), ReplicaError> {
        let mut entries =
            self.replica.members().since(from).iter().filter_map(Signed::read::<Entry>);
        if !entries.any(|entry| entry.act.permissions().is_some()) {
            return Ok(());
        }
        self.replica.store_mut().forget_refusals("not-permitted")?;
        self.pushed.clear();
        let ids: Vec<SegmentId> = self.replica.segments().keys().copied().collect();
        ids.iter().try_for_each(|id| self.set_unauthorised_aside(id))
    }

    /// Takes out of a segment what the relay's log does not have and nobody was allowed to write.
    pub(super) fn set_unauthorised_aside(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        if self.replica.set_unauthorised_aside(id, self.now)? == 0 {
            return Ok(());
        }
        let sid = self.replica.segments()[id].sid;
        self.pushed.remove(id);
        self.rescan(id);
        let records = self.replica.store().records_behind(sid, 0, usize::MAX >> 1)?;
        self.note_changed(id, records.into_iter().map(|row| row.id));
        Ok(())
    }

    fn catalog(&mut self, catalog: frame::CatalogFile) -> Result<(), ReplicaError> {
        let stated = catalog.notice.clone();
        let first = self.replica.published().is_none();
        self.may_report();
        match self.replica.adopt_catalog(catalog.notice, catalog.source) {
            Ok(true) => {
                // Whoever had none yet is brought the generations in force.
                if self.take_generations() && !first {
                    self.begin_anew();
                }
                Ok(())
            }
            Ok(false) => {
                // An older one than it published: it has forgotten that.
                let newest = self.replica.published().map(|published| published.notice.clone());
                let newer = newest.filter(|newest| *newest != stated);
                newer.into_iter().for_each(|notice| self.show(notice));
                Ok(())
            }
            Err(ReplicaError::CatalogUnsigned) => {
                self.close(Code::Unvouched, "the catalog is not signed by a relay");
                Ok(())
            }
            Err(ReplicaError::Catalog(errors)) => {
                let text = errors.first().map(ToString::to_string).unwrap_or_default();
                self.close(Code::Malformed, &format!("the catalog cannot be used: {text}"));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn stats(&mut self, stats: &Stats) -> Result<(), ReplicaError> {
        for count in &stats.types {
            let counts = [count.in_scope, count.all, count.held];
            self.replica.store_mut().put_server_count(&count.ty, counts)?;
        }
        Ok(())
    }
}
