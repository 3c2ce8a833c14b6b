//! A device's shell in the world: what the device library does with sockets, threads and timers,
//! done with events. It dials, comes back with a growing pause, takes what arrived into one commit,
//! and lets nothing out before it.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_device::{Engine, Input, Output};
use fieldkeep_model::status::Subscriptions;
use fieldkeep_model::{ActorId, Pos, PublicKey, Seed, SegmentId, Seq, TypeName};
use fieldkeep_protocol::Code;
use fieldkeep_replica::{Integrity, Replica, ReplicaError, Role};
use fieldkeep_store::{Settings as _, Store, StoreError};

use super::cabinet::Cabinet;
use super::calling::Want;
use super::disk::{File, fill};
use super::fault::Fault;
use super::filing::Filing;
use super::founding::{Joined, drawn, me};
use super::network::{Arrival, LineId, Reason, Side, Weather};
use super::oracle::{Checked, Oracle, Seen};
use super::plant::Plant;
use super::time::{MILLISECOND, MINUTE, Micros, SECOND};
use super::{Event, World};

/// How long after an arrival the device takes it up, with whatever came meanwhile.
const TURN: Micros = 2 * MILLISECOND;
/// How long merging a slice takes.
const SLICE: Micros = 3 * MILLISECOND;
const BACKOFF_MIN: Micros = SECOND;
const BACKOFF_MAX: Micros = MINUTE;
/// How long a handshake may take.
const HANDSHAKE: Micros = 5 * SECOND;

/// Whether a device wants a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It is out of reach, or has no need of one.
    Offline,
    /// Until everything is exchanged.
    Once,
    /// For as long as it lasts, and again after that.
    Always,
}

/// A device and what its shell keeps.
#[derive(Debug)]
pub(crate) struct DeviceNode {
    pub(crate) engine: Option<Engine>,
    pub(crate) store: Option<Store>,
    pub(crate) seed: Seed,
    /// The key that its connections prove.
    pub(crate) tls: PublicKey,
    /// The device that it is, or is a copy of.
    pub(crate) original: usize,
    pub(crate) territory: String,
    /// Where it is to work as soon as it knows that it may.
    pub(crate) bound_for: Option<String>,
    pub(crate) file: File,
    pub(crate) life: u64,
    /// An old copy of its store, and of what lies beside it.
    pub(crate) backup: Option<(Store, (Subscriptions, Cabinet))>,
    /// Its files.
    pub(crate) files: Cabinet,
    /// What its shell keeps of them.
    pub(crate) filing: Filing,
    /// What its `device.toml` says: of these types those scopes.
    pub(crate) wanted: Subscriptions,
    /// What its shell has had hold of that.
    pub(crate) left_out: Subscriptions,
    /// What its person means to leave out as soon as it is saved elsewhere.
    pub(crate) leaving: BTreeSet<(TypeName, String)>,
    /// The logs' lengths of what is left out.
    pub(crate) resting: BTreeMap<SegmentId, Pos>,
    /// What a lying disk has, in place of what it says.
    pub(crate) lie: Option<Store>,
    pub(crate) full: bool,
    pub(crate) clock_ms: i64,
    pub(crate) armed: BTreeSet<Fault>,
    pub(crate) wish: Wish,
    pub(crate) line: Option<LineId>,
    /// Connections to other devices.
    pub(crate) meetings: BTreeSet<LineId>,
    pub(crate) inbox: Vec<Input>,
    /// What its person wants of the relay.
    pub(crate) wants: Vec<Want>,
    closed: Option<Reason>,
    turn: bool,
    /// A dialling under way: its number.
    dialling: u64,
    backoff: Micros,
    failures: u64,
    identified: bool,
    /// Writes without a receipt, with their places in the ledger.
    pub(crate) unsaved: BTreeMap<(SegmentId, ActorId, Seq), usize>,
    /// How many changes waited for a receipt when that was looked at last.
    pub(crate) outgoing: u64,
    /// Ledger entries since the process began.
    pub(crate) recent: Vec<usize>,
    pub(crate) seen: BTreeMap<SegmentId, Seen>,
    /// Whether the last look found everything exchanged and proven.
    pub(crate) complete: bool,
    /// The same, but for what the relay did not take.
    pub(crate) exchanged: bool,
}

impl DeviceNode {
    pub(crate) fn new(joined: Joined, number: usize, file: File) -> Self {
        let Joined { seed, territory, store } = joined;
        Self { store: Some(store), ..Self::absent(seed, territory, number, file) }
    }

    /// A device that is yet to join.
    pub(crate) fn absent(seed: Seed, territory: String, number: usize, file: File) -> Self {
        Self {
            engine: None,
            store: None,
            tls: seed.tls().public(),
            seed,
            original: number,
            territory,
            bound_for: None,
            file,
            life: 0,
            backup: None,
            files: Cabinet::default(),
            filing: Filing::default(),
            wanted: Subscriptions::new(),
            left_out: Subscriptions::new(),
            leaving: BTreeSet::new(),
            resting: BTreeMap::new(),
            lie: None,
            full: false,
            clock_ms: 0,
            armed: BTreeSet::new(),
            wish: Wish::Offline,
            line: None,
            meetings: BTreeSet::new(),
            inbox: Vec::new(),
            wants: Vec::new(),
            closed: None,
            turn: false,
            dialling: 0,
            backoff: BACKOFF_MIN,
            failures: 0,
            identified: false,
            unsaved: BTreeMap::new(),
            outgoing: 0,
            recent: Vec::new(),
            seen: BTreeMap::new(),
            complete: false,
            exchanged: false,
        }
    }

    pub(crate) fn replica(&self) -> Option<&Replica> {
        self.engine.as_ref().map(Engine::replica)
    }

    /// What came on a connection to the relay that is over is not taken up.
    fn forget_relay(&mut self) {
        self.inbox.retain(|input| matches!(input, Input::Peer(..)));
    }

    /// The store, open or not.
    pub(crate) fn disk(&self) -> Option<&Store> {
        self.replica().map(Replica::store).or(self.store.as_ref())
    }
}

impl World {
    /// Opens a device's directory, as the device library does.
    pub(crate) fn start_device(&mut self, at: usize) -> Checked {
        let Some(store) = self.devices[at].store.take() else { return Ok(()) };
        let opened = self.open_device(at, store);
        let replica =
            opened.map_err(|error| self.violation(Oracle::Contained, error.to_string()))?;
        let device = &mut self.devices[at];
        device.engine = Some(Engine::new(replica));
        device.life += 1;
        self.has_settings_hold(at)?;
        self.device_reopened(at)?;
        self.withdraws_calls(at)?;
        if self.devices[at].wish != Wish::Offline {
            self.dial_after(at, 0);
        }
        Ok(())
    }

    fn open_device(&mut self, at: usize, store: Store) -> Result<Replica, ReplicaError> {
        let members = self.memberships.open(store.members()?)?;
        let device = &self.devices[at];
        let me = me(&store, &device.seed, &members, Role::Device)?;
        let copy = device.file.is_copy(&store)?;
        let entropy = drawn(self.seed, "device entropy", (at as u64) << 32 | device.life);
        let mut replica = Replica::open(store, me, members, entropy)?;
        if copy {
            if !self.planted(Plant::ReusedIncarnation) {
                replica.renew_incarnation()?;
            }
            device.file.note(replica.store_mut())?;
            replica.commit()?;
        }
        fill(replica.store_mut(), device.full)?;
        Ok(replica)
    }

    /// Before the first write the file gets its identity, so that a copy of it can be told.
    pub(crate) fn identify(&mut self, at: usize) -> Result<(), StoreError> {
        let device = &mut self.devices[at];
        if let Some(engine) = device.engine.as_mut().filter(|_| !device.identified) {
            device.file.note(engine.replica_mut().store_mut())?;
            device.identified = true;
        }
        Ok(())
    }

    /// After a failed write: nothing of it is kept, and the file's identity is noted again.
    pub(crate) fn undo_write(&mut self, at: usize) -> Checked {
        let file = self.devices[at].file;
        let Some(engine) = self.devices[at].engine.as_mut() else { return Ok(()) };
        let undone = engine.replica_mut().forget();
        let noted = undone.and_then(|()| file.note(engine.replica_mut().store_mut()));
        match noted.map_err(ReplicaError::from).and_then(|()| engine.commit()) {
            Ok(outputs) => self.deliver(at, outputs),
            Err(ReplicaError::Store(StoreError::Full)) => self.full_device(at)?,
            Err(error) => return Err(self.violation(Oracle::Contained, error.to_string())),
        }
        Ok(())
    }

    /// The disk took nothing: the application was told so, and goes on from what was saved.
    pub(crate) fn full_device(&mut self, at: usize) -> Checked {
        self.tally.struck(Fault::DiskFull);
        let Some(engine) = self.devices[at].engine.as_mut() else { return Ok(()) };
        engine.give_up().map_err(|error| self.violation(Oracle::Contained, error.to_string()))
    }

    /// Wants a connection from now on, or none.
    pub(crate) fn wish(&mut self, at: usize, wish: Wish) -> Checked {
        self.devices[at].wish = wish;
        let device = &self.devices[at];
        if wish == Wish::Offline {
            return self.go_offline(at);
        }
        if device.line.is_none() && device.engine.is_some() {
            self.dial_after(at, 0);
        }
        Ok(())
    }

    /// The signal is gone: the connection is cut wherever it is.
    fn go_offline(&mut self, at: usize) -> Checked {
        if let Some(line) = self.devices[at].line {
            self.network.cut(&mut self.events, self.now, line);
        }
        Ok(())
    }

    pub(crate) fn dial_after(&mut self, at: usize, wait: Micros) {
        let device = &mut self.devices[at];
        device.dialling += 1;
        self.events.plan(self.now + wait, Event::Dials(at, device.dialling));
    }

    /// A try to connect. The handshake takes a round trip, where there is a way.
    pub(crate) fn dial(&mut self, at: usize, number: u64) -> Checked {
        let device = &self.devices[at];
        let wanted = device.wish != Wish::Offline && device.engine.is_some();
        if number != device.dialling || device.line.is_some() || !wanted {
            return Ok(());
        }
        let weather =
            if self.fine { Weather::FINE } else { Weather::drawn(&mut self.dice, self.lossy) };
        let reaches = !self.apart || at == 0;
        let served = self.relay.engine.is_some() && reaches;
        let reachable = served && self.network.parted(at, self.now).is_none();
        if !reachable {
            self.failed(at, HANDSHAKE);
            return Ok(());
        }
        let lives = [self.devices[at].life, self.relay.life];
        let begins = self.now + 2 * weather.latency;
        let line = self.network.open(at, lives, weather, begins);
        self.devices[at].line = Some(line);
        self.events.plan(begins, Event::Connects(line));
        Ok(())
    }

    /// The handshake is done.
    pub(crate) fn connects(&mut self, line: LineId) -> Checked {
        let Some((at, lives)) = self.network.line(line).map(|line| (line.device, line.lives))
        else {
            return Ok(());
        };
        let device = &self.devices[at];
        let current = device.line == Some(line) && device.life == lives[Side::Device as usize];
        if self.relay.life != lives[Side::Relay as usize] || self.relay.engine.is_none() {
            self.network.die(&mut self.events, self.now, line, Side::Relay);
        } else {
            let key = device.tls;
            self.relay_connected(line, key);
        }
        if !current {
            self.network.die(&mut self.events, self.now, line, Side::Device);
            return Ok(());
        }
        self.devices[at].forget_relay();
        self.devices[at].closed = None;
        self.device_step(at, vec![Input::Connected])?;
        self.after_step(at)
    }

    pub(crate) fn device_hears(&mut self, line: LineId, arrival: Arrival) {
        let Some(at) = self.holder(line) else { return };
        self.devices[at].inbox.push(match arrival {
            Arrival::Bytes(stream, bytes) => Input::Bytes(stream, bytes),
            Arrival::Finished(stream) => Input::Finished(stream),
        });
        self.plan_device_turn(at, TURN);
    }

    pub(crate) fn device_loses(&mut self, line: LineId, reason: Reason) {
        let Some(at) = self.holder(line) else { return };
        self.devices[at].closed = Some(reason);
        self.plan_device_turn(at, TURN);
    }

    /// The device whose present connection that is.
    pub(crate) fn holder(&self, line: LineId) -> Option<usize> {
        let at = self.network.line(line)?.device;
        (self.devices[at].line == Some(line)).then_some(at)
    }

    pub(crate) fn plan_device_turn(&mut self, at: usize, after: Micros) {
        let device = &mut self.devices[at];
        if !std::mem::replace(&mut device.turn, true) {
            self.events.plan(self.now + after, Event::DeviceTurn(at, device.life));
        }
    }

    /// Once around the session's loop: what arrived goes into one commit; merging when nothing did.
    pub(crate) fn device_turn(&mut self, at: usize, life: u64) -> Checked {
        if self.devices[at].life != life || self.devices[at].engine.is_none() {
            return Ok(());
        }
        self.devices[at].turn = false;
        let inputs = std::mem::take(&mut self.devices[at].inbox);
        let closed = self.devices[at].closed.take();
        if !inputs.is_empty() {
            let dies = self.devices[at].armed.remove(&Fault::Kill);
            let manner = if dies { self.dice.below(3) } else { 3 };
            if manner == 0 {
                return self.die_before_commit(at, inputs);
            }
            let outputs = self.device_takes(at, inputs)?;
            if manner == 1 {
                return self.kill_device(at);
            }
            self.deliver(at, outputs);
            if manner == 2 {
                return self.kill_device(at);
            }
        } else if closed.is_none() && self.has_work(at) {
            self.device_works(at)?;
        }
        self.device_saw(at)?;
        self.part_where_over(at)?;
        if let Some(reason) = closed {
            return self.disconnected(at, reason);
        }
        self.after_step(at)
    }

    pub(crate) fn has_work(&self, at: usize) -> bool {
        self.devices[at].engine.as_ref().is_some_and(Engine::has_work)
    }

    fn die_before_commit(&mut self, at: usize, inputs: Vec<Input>) -> Checked {
        let now = self.device_clock(at);
        if let Some(engine) = self.devices[at].engine.as_mut() {
            for input in inputs {
                if engine.handle(now, input).is_err() {
                    break;
                }
            }
        }
        self.kill_device(at)
    }

    pub(crate) fn device_step(&mut self, at: usize, inputs: Vec<Input>) -> Checked {
        let outputs = self.device_takes(at, inputs)?;
        self.deliver(at, outputs);
        self.device_saw(at)
    }

    /// Takes inputs into one commit, and returns what that let out.
    fn device_takes(&mut self, at: usize, inputs: Vec<Input>) -> Checked<Vec<Output>> {
        let now = self.device_clock(at);
        let Some(engine) = self.devices[at].engine.as_mut() else { return Ok(Vec::new()) };
        let taken = inputs.into_iter().try_for_each(|input| engine.handle(now, input));
        let committed = match taken {
            Ok(()) => engine.commit(),
            Err(error) => engine.give_up().and(Err(error)),
        };
        self.goes_on(at, committed)
    }

    fn device_works(&mut self, at: usize) -> Checked {
        let now = self.device_clock(at);
        let Some(engine) = self.devices[at].engine.as_mut() else { return Ok(()) };
        let committed = match engine.work(now) {
            Ok(_) => engine.commit(),
            Err(error) => engine.give_up().and(Err(error)),
        };
        let outputs = self.goes_on(at, committed)?;
        self.deliver(at, outputs);
        Ok(())
    }

    /// A full disk ends the session and nothing else; nothing else fails in this world.
    pub(crate) fn goes_on(
        &mut self,
        at: usize,
        committed: Result<Vec<Output>, ReplicaError>,
    ) -> Checked<Vec<Output>> {
        match committed {
            Ok(outputs) => Ok(outputs),
            Err(ReplicaError::Store(StoreError::Full)) => {
                self.tally.struck(Fault::DiskFull);
                Ok(Vec::new())
            }
            Err(error) => Err(self.violation(Oracle::Contained, format!("device {at}: {error}"))),
        }
    }

    /// Hands outputs to the network.
    pub(crate) fn deliver(&mut self, at: usize, outputs: Vec<Output>) {
        for output in outputs {
            self.overhears(at, &output);
            match (output, self.devices[at].line) {
                (Output::Send { stream, bytes, .. }, Some(line)) => {
                    self.send(line, Side::Device, Arrival::Bytes(stream, bytes));
                }
                (Output::Close(code, text), Some(line)) => {
                    let reason = Some((code, text));
                    self.network.close(&mut self.events, self.now, (line, Side::Device), reason);
                }
                (Output::Peer(line, output), _) => self.deliver_near(at, line, output),
                (Output::Send { .. } | Output::Close(..), None)
                | (Output::Changed(_) | Output::Met(_), _) => {}
            }
        }
    }

    /// After a step: more to merge, done, failed, or under way.
    pub(crate) fn after_step(&mut self, at: usize) -> Checked {
        let Some(engine) = self.devices[at].engine.as_ref() else { return Ok(()) };
        if self.devices[at].line.is_none() {
            return Ok(());
        }
        if engine.has_failed() {
            return self.end_session(at, false);
        }
        self.makes_calls(at)?;
        self.attends_files(at)?;
        let once = self.devices[at].wish == Wish::Once;
        let waits = self.waits_for_calls(at) || self.has_files_to_exchange(at);
        if once && self.devices[at].exchanged && !waits {
            return self.end_session(at, true);
        }
        if self.has_work(at) {
            self.plan_device_turn(at, SLICE);
        }
        Ok(())
    }

    /// The device hangs up: everything is done, or nothing can be.
    pub(crate) fn end_session(&mut self, at: usize, complete: bool) -> Checked {
        if let Some(line) = self.devices[at].line {
            let reason = Some((Code::Done, "done".to_owned()));
            self.network.close(&mut self.events, self.now, (line, Side::Device), reason);
        }
        let once = self.devices[at].wish == Wish::Once;
        self.leave(at)?;
        if once {
            self.mend(at)?;
        }
        if complete && once {
            self.devices[at].wish = Wish::Offline;
            return Ok(());
        }
        self.failed(at, 0);
        Ok(())
    }

    /// The connection is over, for a reason or without one.
    fn disconnected(&mut self, at: usize, reason: Reason) -> Checked {
        let (code, text) = reason.unzip();
        if code == Some(Code::Revoked) && self.devices[at].wish == Wish::Once {
            // Its person is told that it is of no use to try again.
            self.devices[at].wish = Wish::Offline;
        }
        let device = &mut self.devices[at];
        if let Some(engine) = device.engine.as_mut() {
            engine.ended(code, text.as_deref().unwrap_or_default());
        }
        self.leave(at)?;
        let forgotten = self.devices[at].engine.as_ref().is_some_and(Engine::is_forgotten);
        if forgotten && self.devices[at].wish == Wish::Once {
            // The second time it brings its enrolment.
            self.dial_after(at, 0);
        } else {
            self.failed(at, 0);
        }
        Ok(())
    }

    fn leave(&mut self, at: usize) -> Checked {
        let contact = self.devices[at].engine.as_ref().is_some_and(Engine::is_online);
        if let Some(line) = self.devices[at].line.take() {
            self.network.told(line, Side::Device);
        }
        if contact {
            self.devices[at].backoff = BACKOFF_MIN;
        }
        self.devices[at].forget_relay();
        self.devices[at].filing.ends();
        self.device_step(at, vec![Input::Closed])?;
        self.calls_anew(at)
    }

    /// Comes back after a pause that grows, between half of it and all.
    fn failed(&mut self, at: usize, spent: Micros) {
        let device = &mut self.devices[at];
        device.failures += 1;
        if device.wish == Wish::Offline
            || self.plant == Some(Plant::NoReturn) && device.failures > 1
        {
            return;
        }
        let wait = device.backoff / 2 + self.dice.roll() % (device.backoff / 2 + 1);
        device.backoff = (device.backoff * 2).min(BACKOFF_MAX);
        self.dial_after(at, spent + wait);
    }

    /// Checks every stored row, as a sync that ended does; what is wrong is derived again.
    fn mend(&mut self, at: usize) -> Checked {
        let Some(engine) = self.devices[at].engine.as_mut() else { return Ok(()) };
        let ids: Vec<SegmentId> = engine.replica().segments().keys().copied().collect();
        let mended = ids.iter().try_for_each(|id| {
            if let Some(Integrity::Records(_)) = engine.replica().verify(id)? {
                engine.replica_mut().derive_again(id)?;
            }
            Ok::<_, ReplicaError>(())
        });
        let committed = mended.and_then(|()| engine.commit());
        let outputs = self.goes_on(at, committed)?;
        self.deliver(at, outputs);
        Ok(())
    }

    /// The process ends: what was not committed is gone, and the connection with it.
    pub(crate) fn kill_device(&mut self, at: usize) -> Checked {
        self.tally.struck(Fault::Kill);
        self.stop_device(at);
        if let Some(lie) = self.devices[at].lie.take() {
            self.devices[at].store = Some(lie);
        }
        let after = SECOND + self.dice.roll() % (5 * MINUTE);
        self.events.plan(self.now + after, Event::DeviceStarts(at));
        Ok(())
    }

    pub(crate) fn stop_device(&mut self, at: usize) {
        let device = &mut self.devices[at];
        let Some(engine) = device.engine.take() else { return };
        device.store = Some(engine.into_replica().into_store());
        device.life += 1;
        device.turn = false;
        device.identified = false;
        device.complete = false;
        device.exchanged = false;
        device.inbox.clear();
        device.filing.ends();
        device.closed = None;
        if let Some(line) = device.line.take() {
            self.network.die(&mut self.events, self.now, line, Side::Device);
        }
        self.vanishes(at);
    }

    /// Milliseconds UTC on a device's wall.
    pub(crate) fn device_clock(&self, at: usize) -> i64 {
        let true_ms = super::time::BEGINNING_MS + (self.now / MILLISECOND) as i64;
        true_ms + self.devices[at].clock_ms
    }
}
