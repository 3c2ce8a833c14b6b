//! Scopes that people leave out and take again, and who watches that: what a device leaves out is
//! exchanged with nobody, nothing is written there, and nothing there was on that device alone.
//!
//! A device keeps its user's wishes in a file beside its store, as the device library does, and has
//! the engine say what of them may hold.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_device::{Output, PeerOutput};
use fieldkeep_model::status::{LeftOut, Subscriptions};
use fieldkeep_model::{Receipt, SegmentId, Signed, TypeName, VerdictBlock};
use fieldkeep_protocol::FRAME_MAX;
use fieldkeep_protocol::frame::{Frame, FrameBuffer};
use fieldkeep_protocol::offer::short;
use fieldkeep_replica::{Replica, ReplicaError, Wrote};
use fieldkeep_store::{Log as _, SegmentRow, StoreError};

use super::device::Wish;
use super::oracle::{Checked, Oracle};
use super::plan::territories;
use super::plant::Plant;
use super::time::MINUTE;
use super::workload::SCOPED;
use super::{Event, World};
use crate::Dice;

/// How often a person tries again to leave out what is not saved elsewhere.
const TIMES: usize = 12;
/// How long it takes to try again.
const AGAIN: u64 = 5 * MINUTE;

impl World {
    /// A person wants no more of one territory's records of a type or two.
    pub(crate) fn means_to_leave_out(&mut self, at: usize, mut dice: Dice) -> Checked {
        let territory = if at == 0 {
            format!("t{}", dice.below(territories(self.founders)))
        } else {
            self.devices[at].territory.clone()
        };
        for _ in 0..=dice.below(2) {
            let ty = TypeName::new(*dice.pick(&SCOPED)).expect("a type of the catalog");
            self.devices[at].leaving.insert((ty, territory.clone()));
        }
        self.leaves(at, TIMES)
    }

    /// A person leaves out what is meant to be, as the library's `unsubscribe` does. Where it is
    /// refused because something is on this device alone, the person syncs, and tries again.
    pub(crate) fn leaves(&mut self, at: usize, times: usize) -> Checked {
        for (ty, scope) in self.devices[at].leaving.clone() {
            let granted = self.granted(at, &ty);
            let Some(engine) = self.devices[at].engine.as_ref() else { break };
            let mut wanted = self.devices[at].wanted.clone();
            wanted.entry(ty.clone()).or_insert(granted).remove(&scope);
            let left_out = LeftOut { scopes: wanted.clone(), ..LeftOut::default() };
            let alone = engine.alone(&left_out).map_err(|error| self.unreadable(error))?;
            if alone.iter().any(|(of, ..)| *of == ty) {
                self.figures.left_out[1] += 1;
                continue;
            }
            self.figures.left_out[0] += 1;
            self.devices[at].leaving.remove(&(ty, scope));
            self.devices[at].wanted = wanted;
            self.has_settings_hold(at)?;
        }
        if self.devices[at].leaving.is_empty() || times == 0 {
            self.devices[at].leaving.clear();
            return Ok(());
        }
        self.events.plan(self.now + AGAIN, Event::Leaves(at, times - 1));
        let waits = self.devices[at].wish == Wish::Offline && self.devices[at].engine.is_some();
        if waits { self.wish(at, Wish::Once) } else { Ok(()) }
    }

    /// The scopes of a type that a device was granted one by one; where all were, those that there are.
    fn granted(&self, at: usize, ty: &TypeName) -> BTreeSet<String> {
        let device = &self.devices[at];
        let member = device.replica().and_then(|replica| replica.members().by_tls(&device.tls));
        let granted = member.into_iter().flat_map(|member| &member.grants);
        let granted = granted.filter(|grant| grant.ty.as_ref() == Some(ty));
        let scopes: Option<BTreeSet<String>> = granted.map(|grant| grant.scope.clone()).collect();
        scopes.filter(|scopes| !scopes.is_empty()).unwrap_or_else(|| {
            (0..territories(self.founders)).map(|number| format!("t{number}")).collect()
        })
    }

    /// A person takes again what was left out: all of a type, or the scopes of a list and those where
    /// people work.
    pub(crate) fn subscribes(&mut self, at: usize, mut dice: Dice) -> Checked {
        self.devices[at].leaving.clear();
        let territory = self.devices[at].territory.clone();
        let territories = territories(self.founders);
        self.devices[at].wanted.retain(|_, wanted| {
            let lists = dice.one_in(3);
            wanted.insert(territory.clone());
            wanted.extend((at == 0).then(|| format!("t{}", dice.below(territories))));
            lists
        });
        self.has_settings_hold(at)
    }

    /// Nobody leaves anything out any more.
    pub(crate) fn subscribes_to_all(&mut self, at: usize) -> Checked {
        self.devices[at].leaving.clear();
        self.devices[at].wanted.clear();
        self.has_settings_hold(at)
    }

    /// Has what a device's file says hold from now on, as the library does when it is opened and with
    /// each change.
    pub(crate) fn has_settings_hold(&mut self, at: usize) -> Checked {
        let now = self.device_clock(at);
        let device = &mut self.devices[at];
        let Some(engine) = device.engine.as_mut() else { return Ok(()) };
        if self.plant == Some(Plant::ForgottenSubscription) {
            device.left_out.clone_from(&device.wanted);
            return self.rests(at);
        }
        let left_out = engine.subscribing(device.wanted.clone()).map_err(ReplicaError::from);
        let left_out = left_out.and_then(|left_out| {
            let scopes = left_out.scopes.clone();
            engine.pause(left_out, now).map(|()| scopes)
        });
        let committed = match left_out {
            Ok(scopes) => engine.commit().map(|outputs| (outputs, scopes)),
            Err(error) => engine.give_up().and(Err(error)),
        };
        let outputs = match committed {
            Ok((outputs, scopes)) => {
                device.left_out = scopes;
                outputs
            }
            Err(error) => self.goes_on(at, Err(error))?,
        };
        self.rests(at)?;
        self.deliver(at, outputs);
        self.part_where_over(at)?;
        self.after_step(at)
    }

    /// A device exchanges again, by itself, what its relay has lost of what it left out.
    pub(crate) fn takes_up(&mut self, at: usize) -> Checked {
        let device = &self.devices[at];
        let Some(engine) = device.engine.as_ref().filter(|_| !device.left_out.is_empty()) else {
            return Ok(());
        };
        let stored = engine.stored_pauses().map_err(|error| self.unreadable(error))?;
        if stored.scopes == device.left_out || self.planted(Plant::ForgottenSubscription) {
            return Ok(());
        }
        self.devices[at].left_out = stored.scopes;
        self.rests(at)
    }

    /// Notes how long the logs are that are left out. What is not exchanged is on another disk as well,
    /// and what is exchanged against its user's wish is not. What a relay refused holds nothing up:
    /// nobody would take it, and it is kept.
    fn rests(&mut self, at: usize) -> Checked {
        let Some(replica) = self.devices[at].replica() else { return Ok(()) };
        let (wanted, left_out) = (&self.devices[at].wanted, &self.devices[at].left_out);
        let rows: Vec<SegmentRow> = replica.segments().values().cloned().collect();
        let (mut resting, mut lone) = (BTreeMap::new(), None);
        for row in rows {
            let outgoing = replica.store().outgoing(row.sid).map_err(|e| self.unreadable(e))?;
            let refused = outgoing.iter().filter(|change| change.refused.is_some());
            let refused = refused.map(|change| (row.id, change.actor, change.seq));
            let refused: BTreeSet<_> = refused.collect();
            let alone = outgoing.len() - refused.len();
            let (wished, holds) = (is_left_out(wanted, &row), is_left_out(left_out, &row));
            if holds {
                resting.insert(row.id, row.tip);
                let mut unsaved = self.devices[at].unsaved.keys().filter(|(id, ..)| *id == row.id);
                lone = lone.or(unsaved.find(|key| !refused.contains(*key)).copied());
            }
            let planted = self.plant == Some(Plant::ForgottenSubscription);
            if wished && holds == (alone > 0) && !planted && !self.devices[at].full {
                let held = if holds { "is left out" } else { "is exchanged against a wish" };
                let text = format!("device {at}: {} {held}, and has {alone} unsaved", row.address);
                return Err(self.violation(Oracle::LeftOut, text));
            }
        }
        if let Some((id, _, seq)) = lone.filter(|_| self.plant.is_none()) {
            let text =
                format!("device {at} leaves {id} out, and change {seq} there has no receipt");
            return Err(self.violation(Oracle::LeftOut, text));
        }
        self.devices[at].resting = resting;
        Ok(())
    }

    /// Whether a device leaves a scope out.
    pub(crate) fn leaves_out(&self, at: usize, ty: &TypeName, scope: &str) -> bool {
        self.devices[at].left_out.get(ty).is_some_and(|wanted| !wanted.contains(scope))
    }

    /// What was just written does not lie in what is left out.
    pub(crate) fn wrote_where_it_may(&self, at: usize, wrote: &Wrote) -> Checked {
        let row = self.devices[at].replica().and_then(|replica| replica.segment(&wrote.segment));
        match row.filter(|row| is_left_out(&self.devices[at].left_out, row)) {
            Some(row) => {
                let text = format!("device {at} wrote {} to {}", wrote.key, row.address);
                Err(self.violation(Oracle::LeftOut, format!("{text}, which it leaves out")))
            }
            None => Ok(()),
        }
    }

    /// Nothing came to what is left out.
    pub(crate) fn nothing_came(&mut self, at: usize, row: &SegmentRow) -> Checked {
        if !is_left_out(&self.devices[at].left_out, row) {
            return Ok(());
        }
        // What is taken out again makes it shorter.
        let before = self.devices[at].resting.insert(row.id, row.tip).unwrap_or_default();
        if row.tip > before {
            let text = format!("device {at} leaves {} out", row.address);
            let text = format!("{text}, and has {} changes there, after {before}", row.tip);
            return Err(self.violation(Oracle::LeftOut, text));
        }
        Ok(())
    }

    /// Listens to what a device says, whether it is of something that it leaves out.
    pub(crate) fn overhears(&mut self, at: usize, output: &Output) {
        let bytes = match output {
            Output::Send { bytes, .. } | Output::Peer(_, PeerOutput::Send(bytes)) => bytes,
            Output::Close(..)
            | Output::Changed(_)
            | Output::Met(_)
            | Output::Peer(_, PeerOutput::Close(..)) => return,
        };
        let device = &self.devices[at];
        let Some(replica) = device.replica().filter(|_| !device.left_out.is_empty()) else {
            return;
        };
        let mut frames = FrameBuffer::default();
        frames.push(bytes);
        while let Ok(Some(frame)) = frames.next(FRAME_MAX) {
            let said = segments(replica, &frame).into_iter().find_map(|id| {
                let row = replica.segment(&id)?;
                is_left_out(&device.left_out, row).then(|| row.address.to_string())
            });
            if let Some(address) = said {
                let name = frame.name();
                let text = format!("device {at} leaves {address} out, and says {name} of it");
                self.watch.said.get_or_insert(text);
                return;
            }
        }
    }

    /// No device has said anything of what it leaves out.
    pub(crate) fn kept_to_itself(&mut self) -> Checked {
        match self.watch.said.take() {
            Some(text) => Err(self.violation(Oracle::LeftOut, text)),
            None => Ok(()),
        }
    }

    /// Whether something of a type waits in what is left out: its relay was put back meanwhile.
    pub(crate) fn waits_left_out(&self, at: usize, ty: &TypeName) -> bool {
        let Some(replica) = self.devices[at].replica() else { return false };
        let left_out = &self.devices[at].left_out;
        let rows = replica.segments().values();
        rows.filter(|row| row.address.ty == *ty && is_left_out(left_out, row))
            .any(|row| replica.store().outgoing_in(row.sid).is_ok_and(|(changes, _)| changes > 0))
    }

    fn unreadable(&self, error: StoreError) -> Box<super::Violation> {
        self.violation(Oracle::Contained, error.to_string())
    }
}

fn is_left_out(subscriptions: &Subscriptions, row: &SegmentRow) -> bool {
    let wanted = subscriptions.get(&row.address.ty);
    wanted.is_some_and(|wanted| !wanted.contains(&row.address.scope))
}

/// The segments that a frame speaks of, in so far as they are here.
#[allow(clippy::wildcard_enum_match_arm, reason = "all others speak of none")]
fn segments(replica: &Replica, frame: &Frame) -> Vec<SegmentId> {
    let of = |statement: &Signed| statement.read().map(|block: VerdictBlock| block.segment);
    match frame {
        Frame::Offer(offer) => {
            let offered = offer.entries().unwrap_or_default();
            let ids = replica.segments().keys();
            let is_offered =
                |id: &&SegmentId| offered.iter().any(|entry| entry.segment == short(&id.0));
            ids.filter(is_offered).copied().collect()
        }
        Frame::Push(push) => vec![push.segment.id],
        Frame::Credit(credit) => vec![credit.segment],
        Frame::Vector(vector) => vec![vector.segment],
        Frame::Verdicts(verdicts) => vec![verdicts.segment],
        Frame::Witness(statement) => of(statement).into_iter().collect(),
        Frame::Receipt(receipt) => {
            let stated: Option<Receipt> = receipt.read();
            stated.map(|stated| stated.segment).into_iter().collect()
        }
        Frame::Meet(meet) => meet.segments.iter().map(|standing| standing.segment).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use fieldkeep_replica::PutError;
    use serde_json::json;

    use super::*;
    use crate::world::Peer;
    use crate::world::workload::{Deed, key};

    fn visit() -> TypeName {
        TypeName::new("visit").expect("a name")
    }

    fn writes(world: &mut World) -> Result<Wrote, PutError> {
        let fields = json!({"territory": "t0", "outlet": "t0-o1"});
        let serde_json::Value::Object(fields) = fields else { unreachable!("an object") };
        let engine = world.devices[0].engine.as_mut().expect("it runs");
        let edit = Deed::Put(key("visit", "v1"), fields).edit(engine.replica());
        let (key, edit) = edit.expect("the catalog has the type");
        engine.replica_mut().put(&key, &edit, 0)
    }

    #[test]
    fn what_could_not_be_saved_of_a_subscription_does_not_hold() {
        let mut world = World::seeded(1, &["ann"]);
        let nothing = LeftOut { scopes: [(visit(), BTreeSet::new())].into(), ..LeftOut::default() };
        let engine = world.devices[0].engine.as_mut().expect("it runs");
        engine.pause(nothing.clone(), 0).expect("it takes it");
        engine.give_up().expect("it goes on");
        writes(&mut world).expect("nothing is left out");
        let engine = world.devices[0].engine.as_mut().expect("it runs");
        engine.give_up().expect("it goes on");
        engine.pause(nothing, 0).and_then(|()| engine.commit()).expect("it is saved");
        engine.pause(LeftOut::default(), 0).expect("it takes it");
        engine.give_up().expect("it goes on");
        let refused = writes(&mut world);
        assert!(matches!(refused, Err(PutError::NotSubscribed { .. })), "{refused:?}");
        assert_eq!(world.unsaved(Peer::Device(0)), 0);
    }
}
