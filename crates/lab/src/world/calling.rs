//! What people ask of the relay at once, and who watches that: each call was carried out once or never, all
//! of it or nothing, both sides say the same of it, and nothing of an edit that needs a connection exists
//! unless a relay wrote it.
//!
//! A device's shell does what the device library does: it calls when everything is exchanged, waits for as
//! long as its person does, and withdraws what nobody waits for any more.

use std::collections::BTreeMap;

use fieldkeep_device::CallState;
use fieldkeep_model::intent::call_id;
use fieldkeep_model::status::State;
use fieldkeep_model::{
    CallOutcome, DeviceNumber, Edit, Epoch, Outcome, RecordKey, Scalar, Wish as Asked,
};
use fieldkeep_replica::{Replica, ReplicaError};
use fieldkeep_store::{Calls as _, RecordRow, Records as _, Store, StoreError};
use serde_json::{Map, Value, json};

use super::device::Wish;
use super::fault::Fault;
use super::oracle::{Checked, Oracle};
use super::plant::Plant;
use super::time::{MINUTE, Micros, SECOND};
use super::workload::{Worker, key};
use super::{Event, World};
use crate::Dice;

/// How long a person waits at most.
const PATIENCE: Micros = 3 * MINUTE;
/// More records than a segment has.
const ROWS: usize = 1 << 30;

/// What a person waits for.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    /// Written with what it comes to, and with nothing else.
    token: String,
    /// An edit of an order, in place of an action.
    edits: bool,
    dice: u64,
    until: Micros,
}

/// A call that a device has made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    device: usize,
    member: DeviceNumber,
    number: u64,
    id: String,
    epoch: Epoch,
    asked: Asked,
    want: Want,
    /// How often the relay had been put back.
    restores: u64,
    came: Option<Came>,
}

/// What a device knows of a call in the end.
#[derive(Clone, Debug, PartialEq)]
enum Came {
    /// What the relay said.
    Said(CallOutcome),
    /// It was not carried out, and is called under another number.
    Renumbered,
    /// The device was put back to before it.
    Forgotten,
}

impl World {
    /// A person wants something of the relay, and a connection for it.
    pub(crate) fn wants(&mut self, at: usize, mut dice: Dice) -> Checked {
        if self.apart {
            return Ok(());
        }
        let token = format!("{:016x}", dice.roll());
        let until = self.now + 5 * SECOND + dice.roll() % PATIENCE;
        let want = Want { token, edits: dice.one_in(3), dice: dice.roll(), until };
        self.devices[at].wants.push(want);
        self.events.plan(until, Event::Impatient(at));
        let waits = self.devices[at].wish == Wish::Offline && self.devices[at].engine.is_some();
        if waits { self.wish(at, Wish::Once) } else { Ok(()) }
    }

    /// Makes the calls that a person waits for, as soon as everything else is exchanged.
    pub(crate) fn makes_calls(&mut self, at: usize) -> Checked {
        while !self.devices[at].wants.is_empty() && self.may_call(at)? {
            let Some(want) = self.devices[at].wants.pop() else { break };
            let Some(asked) = self.asks(at, &want) else { continue };
            self.makes_call(at, want, asked)?;
        }
        Ok(())
    }

    fn may_call(&self, at: usize) -> Checked<bool> {
        let Some(engine) = self.devices[at].engine.as_ref() else { return Ok(false) };
        if !engine.is_online() || !engine.is_answered() || engine.replica().is_behind() {
            return Ok(false);
        }
        let progress = engine.progress();
        let progress = progress.map_err(|e| self.violation(Oracle::Contained, e.to_string()))?;
        Ok(progress.waiting == 0)
    }

    /// What a person asks for with what is on the device; nothing if there is no such order.
    fn asks(&self, at: usize, want: &Want) -> Option<Asked> {
        let replica = self.devices[at].replica()?;
        let mut dice = Dice::seeded(want.dice);
        let amount = format!("{}.00", 1 + dice.below(200));
        let territory = self.workplace(at, &dice);
        let now_ms = self.device_clock(at);
        let mut worker = Worker { territory: &territory, replica, now_ms, dice };
        if !want.edits {
            let orders: Vec<_> = (0..8).filter_map(|_| worker.any("order")).collect();
            let valid = orders.iter().find(|o| o.state == State::Judged(Outcome::Valid));
            let order = &valid.or(orders.first())?.key.id;
            let input = json!({"order": order.as_str(), "amount": amount, "slip": want.token});
            return Some(Asked::Action { name: "collect".into(), input: input.to_string() });
        }
        let orders = (0..8).filter_map(|_| worker.any("order"));
        let guarded = |key: &RecordKey| replica.needs_connection(key).unwrap_or(false);
        let record = orders.map(|order| order.key).find(guarded)?;
        let row = row(replica.store(), &record)?;
        let edit = vec![Edit::Put("remark".into(), Scalar::Str(want.token.clone()))].into();
        (row.unsaved == 0).then_some(Asked::Edit { record, expected: row.hash, edit })
    }

    fn makes_call(&mut self, at: usize, want: Want, asked: Asked) -> Checked {
        let (now, restores) = (self.device_clock(at), self.relay.restores);
        let dies = self.devices[at].armed.remove(&Fault::Kill);
        let manner = if dies { self.dice.below(2) } else { 2 };
        let Some(engine) = self.devices[at].engine.as_mut() else { return Ok(()) };
        let member = engine.replica().me().number;
        let committed = engine.call(asked.clone(), now).and_then(|number| {
            let number = number.expect("what people ask for is short");
            let row = engine.replica().store().call(member, number)?;
            let outputs = if manner == 0 { Vec::new() } else { engine.commit()? };
            Ok((number, row, outputs))
        });
        if manner == 0 {
            return self.kill_device(at);
        }
        let (number, row, outputs) = match committed {
            Ok(made) => made,
            Err(ReplicaError::Store(StoreError::Full)) => return self.full_device(at),
            Err(error) => return Err(self.violation(Oracle::Contained, error.to_string())),
        };
        let id = row.map(|row| call_id(&row.intent)).unwrap_or_default();
        self.note(id.as_bytes());
        let epoch = self.devices[at].replica().map(Replica::epoch).unwrap_or_default();
        let device = at;
        let came = None;
        self.made.push(Made { device, member, number, id, epoch, asked, want, restores, came });
        if manner == 1 {
            return self.kill_device(at);
        }
        self.deliver(at, outputs);
        self.device_saw(at)
    }

    /// Whether a person waits for something, so that the connection is kept.
    pub(crate) fn waits_for_calls(&self, at: usize) -> bool {
        let open =
            |made: &Made| made.device == at && made.came.is_none() && made.want.until > self.now;
        !self.devices[at].wants.is_empty() || self.made.iter().any(open)
    }

    /// Whether a device that can speak with the relay does not know what came of a call.
    pub(crate) fn calls_are_open(&self) -> bool {
        self.made.iter().any(|made| made.came.is_none() && self.hears_the_relay(made.device))
    }

    pub(crate) fn hears_the_relay(&self, at: usize) -> bool {
        let away = self.apart && at > 0 || self.knows_it_is_revoked(at);
        !away && self.devices[at].engine.is_some()
    }

    /// Whose patience is over withdraws what is not done.
    pub(crate) fn is_impatient(&mut self, at: usize) -> Checked {
        let now = self.now;
        self.devices[at].wants.retain(|want| want.until > now);
        for place in 0..self.made.len() {
            let Made { device, number, ref want, ref came, .. } = self.made[place];
            if device == at && came.is_none() && want.until <= now {
                self.wishes(at, |engine, _| engine.withdraw_calls(Some(number)))?;
            }
        }
        self.after_step(at)
    }

    /// Whoever waited for a call ended with his process.
    pub(crate) fn withdraws_calls(&mut self, at: usize) -> Checked {
        self.devices[at].wants.clear();
        let open = self.devices[at].replica().map(|replica| replica.store().open_calls());
        match open {
            Some(Ok(open)) if !open.is_empty() => {
                self.wishes(at, |engine, _| engine.withdraw_calls(None))
            }
            _ => Ok(()),
        }
    }

    /// [`Plant::CalledAnew`]: what is under way when a connection ends is called once more.
    pub(crate) fn calls_anew(&mut self, at: usize) -> Checked {
        if !self.planted(Plant::CalledAnew) {
            return Ok(());
        }
        let open = self.made.iter().filter(|made| made.device == at && made.came.is_none());
        let asked: Vec<Asked> = open.map(|made| made.asked.clone()).collect();
        for asked in asked {
            self.wishes(at, |engine, now| engine.call(asked, now).map(drop))?;
        }
        Ok(())
    }

    /// A copy of a device has the calls that it had.
    pub(crate) fn copies_calls(&mut self, at: usize, copy: usize) {
        let open = self.made.iter().filter(|made| made.device == at && made.came.is_none());
        let copied: Vec<Made> = open.map(|made| Made { device: copy, ..made.clone() }).collect();
        self.made.extend(copied);
    }

    /// A device was put back: what it knew of its calls is what its disk says.
    pub(crate) fn recalls_calls(&mut self, at: usize) {
        let Some(store) = self.devices[at].store.as_ref() else { return };
        for made in self.made.iter_mut().filter(|made| made.device == at) {
            let row = store.call(made.member, made.number).ok().flatten();
            let same = row.filter(|row| call_id(&row.intent) == made.id);
            match same {
                None => made.came = Some(Came::Forgotten),
                Some(row) if row.outcome.is_none() => made.came = None,
                Some(_) => {}
            }
        }
    }

    /// Takes note of what came of a device's calls.
    pub(crate) fn saw_outcomes(&mut self, at: usize) -> Checked {
        for place in 0..self.made.len() {
            let made = &self.made[place];
            if made.device != at || made.came.is_some() {
                continue;
            }
            let Some(engine) = self.devices[at].engine.as_ref() else { return Ok(()) };
            let state = engine.call_state(made.number);
            let state = state.map_err(|e| self.violation(Oracle::Contained, e.to_string()))?;
            let came = match state {
                CallState::UnderWay => continue,
                CallState::Settled(outcome) => {
                    self.is_what_the_relay_says(made, &outcome)?;
                    let tally = match outcome {
                        CallOutcome::Done { .. } => 0,
                        CallOutcome::Refused { .. } => 1,
                        CallOutcome::Stale(_) | CallOutcome::Lost => 2,
                    };
                    self.figures.calls[tally] += 1;
                    Came::Said(outcome)
                }
                CallState::Renumbered => {
                    if made.want.until > self.now {
                        self.devices[at].wants.push(made.want.clone());
                    }
                    Came::Renumbered
                }
            };
            self.made[place].came = Some(came);
        }
        Ok(())
    }

    /// What a device was told of a call is what the relay has on its disk, and what it did. One that was
    /// put back meanwhile has forgotten it.
    fn is_what_the_relay_says(&self, made: &Made, outcome: &CallOutcome) -> Checked {
        let Some(relay) = self.relay.replica().filter(|_| self.relay.restores == made.restores)
        else {
            return Ok(());
        };
        let row = relay.store().call(made.member, made.number);
        let row = row.map_err(|e| self.violation(Oracle::Contained, e.to_string()))?;
        let row = row.filter(|row| call_id(&row.intent) == made.id);
        let said = row.map(|row| {
            let outcome = row.outcome.as_deref().map(minicbor::decode::<CallOutcome>);
            outcome.and_then(Result::ok).map(without_places)
        });
        let equal = match (outcome, said) {
            (CallOutcome::Lost, _) if relay.epoch() != made.epoch => true,
            (CallOutcome::Stale(_), None) => true,
            // By a clock that leaps a day is soon over.
            (_, None) => self.tally.of(Fault::Clock) > 0,
            (outcome, Some(said)) => said == Some(without_places(outcome.clone())),
        };
        if !equal {
            let text =
                format!("call {} of device {} came to {outcome:?}", made.number, made.device);
            return Err(self.violation(Oracle::Called, format!("{text}; the relay says otherwise")));
        }
        self.did_what_it_says(made, done(outcome))
    }

    /// What a call wrote is there once and whole, or nothing of it is, as it is known to be done or not.
    /// A relay that was put back since may have lost some of it.
    fn did_what_it_says(&self, made: &Made, done: Option<bool>) -> Checked {
        let Some(relay) = self.relay.replica() else { return Ok(()) };
        let Asked::Action { .. } = made.asked else { return Ok(()) };
        let exactly = made.restores == self.relay.restores;
        let (payment, visit) = (key("payment", &made.id), key("visit", &made.id));
        let runs = fields(relay.store(), &payment).map_or(0, |fields| runs(&fields));
        let whole = (runs > 0) == row(relay.store(), &visit).is_some();
        let times = match done {
            Some(true) if exactly => 1..=1,
            Some(false) => 0..=0,
            Some(true) | None => 0..=1,
        };
        if times.contains(&runs) && (whole || !exactly) {
            return Ok(());
        }
        let Made { number, device, came, .. } = made;
        let text = format!("call {number} of device {device}, which came to {came:?},");
        let part = if whole { "" } else { ", and in part" };
        Err(self.violation(Oracle::Called, format!("{text} was carried out {runs} times{part}")))
    }

    /// Every call was carried out once or never, and whoever can be told knows which.
    pub(crate) fn calls_were_kept(&mut self) -> Checked {
        for made in &self.made {
            let done = match &made.came {
                Some(Came::Said(outcome)) => done(outcome),
                Some(Came::Renumbered) => Some(false),
                Some(Came::Forgotten) | None => None,
            };
            self.did_what_it_says(made, done)?;
        }
        self.nobody_paid_twice()?;
        self.remarks_are_the_relays()
    }

    /// What a person wanted once was not done twice, under whatever number.
    fn nobody_paid_twice(&self) -> Checked {
        let mut paid: BTreeMap<String, i64> = BTreeMap::new();
        for (_, fields) in self.at_relay("payment")? {
            let slip = fields.get("slip").and_then(Value::as_str);
            let Some(slip) = slip.map(str::to_owned) else { continue };
            *paid.entry(slip).or_default() += runs(&fields);
        }
        match paid.into_iter().find(|(_, times)| *times > 1) {
            Some((slip, times)) => {
                let text =
                    format!("what was wanted once, with slip {slip}, was done {times} times");
                Err(self.violation(Oracle::Called, text))
            }
            None => Ok(()),
        }
    }

    /// What stands in orders that need a connection a relay wrote, for a call that was not refused.
    fn remarks_are_the_relays(&mut self) -> Checked {
        let noted = self
            .at_relay("order")?
            .into_iter()
            .filter_map(|(key, fields)| Some((key, fields.get("remark")?.as_str()?.to_owned())));
        for (key, token) in noted.collect::<Vec<_>>() {
            let not_done = |made: &&Made| match &made.came {
                Some(Came::Said(CallOutcome::Refused { .. }) | Came::Renumbered) => {
                    made.want.token == token
                }
                Some(_) | None => false,
            };
            // One that was called again under another number may have been done.
            let all = self.made.iter().filter(|made| made.want.token == token).count();
            let refused = self.made.iter().filter(not_done).count();
            let Some(engine) = self.relay.engine.as_mut() else { return Ok(()) };
            let me = engine.replica().me().number;
            let history = engine.replica_mut().history(&key, ROWS, None);
            let entries = history.map(|page| page.entries).unwrap_or_default();
            let mut written = entries
                .iter()
                .filter(|entry| entry.writes.iter().any(|write| write.field == "remark"));
            if all == refused || written.any(|entry| entry.device != me) {
                let text = format!("{key} has the remark {token}, and the relay wrote none such");
                return Err(self.violation(Oracle::Online, text));
            }
        }
        Ok(())
    }

    /// The records of a type on the relay, with their fields.
    fn at_relay(&self, ty: &str) -> Checked<Vec<(RecordKey, Map<String, Value>)>> {
        let Some(relay) = self.relay.replica() else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for segment in relay.segments().values().filter(|row| row.address.ty.as_str() == ty) {
            let rows = relay.store().records_behind(segment.sid, 0, ROWS);
            let rows = rows.map_err(|e| self.violation(Oracle::Contained, e.to_string()))?;
            found.extend(rows.into_iter().map(|row| {
                let key = RecordKey::new(segment.address.ty.clone(), row.id);
                (key, serde_json::from_str(&row.json).unwrap_or_default())
            }));
        }
        Ok(found)
    }

    /// Whether a record, as a device has it, is in a state in which only the relay writes it.
    pub(crate) fn is_the_relays(&self, at: usize, key: &RecordKey) -> bool {
        let Some(published) = self.relay.replica().and_then(Replica::published) else {
            return false;
        };
        let catalog = &published.catalog;
        let row = self.devices[at].disk().filter(|_| catalog.may_need_connection(&key.ty));
        let fields = row.and_then(|store| fields(store, key));
        fields.is_some_and(|fields| catalog.needs_connection(&key.ty, &fields))
    }
}

/// Whether a call was done, as far as its outcome says it.
fn done(outcome: &CallOutcome) -> Option<bool> {
    match outcome {
        CallOutcome::Done { .. } => Some(true),
        CallOutcome::Refused { .. } => Some(false),
        CallOutcome::Stale(_) | CallOutcome::Lost => None,
    }
}

/// How often what made a payment was carried out.
fn runs(fields: &Map<String, Value>) -> i64 {
    fields.get("runs").and_then(Value::as_i64).unwrap_or(0)
}

/// An outcome without the positions in the log, which are told to those only who follow it.
fn without_places(mut outcome: CallOutcome) -> CallOutcome {
    if let CallOutcome::Done { effects, .. } = &mut outcome {
        effects.iter_mut().for_each(|effect| effect.pos = 0);
    }
    outcome
}

fn row(store: &Store, key: &RecordKey) -> Option<RecordRow> {
    store.find(&key.ty, &key.id).ok()?.into_iter().next()
}

fn fields(store: &Store, key: &RecordKey) -> Option<Map<String, Value>> {
    row(store, key).and_then(|row| serde_json::from_str(&row.json).ok())
}
