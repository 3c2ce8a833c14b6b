//! The relay's shell in the world: what `server.rs` does with sockets and a thread, done with events.
//!
//! Everything that waits goes into one commit, then what it let out leaves, then a slice of judging.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fieldkeep_model::{PublicKey, Seed};
use fieldkeep_protocol::Code;
use fieldkeep_relay::{Engine, Input, Output};
use fieldkeep_replica::{Replica, ReplicaError, Role};
use fieldkeep_store::{Settings as _, Store};

use super::cabinet::Cabinet;
use super::disk::{File, fill};
use super::fault::Fault;
use super::founding::{drawn, me};
use super::network::{Arrival, BACKLOG, LineId, Side};
use super::oracle::{Checked, Oracle};
use super::plant::Plant;
use super::serving::Served;
use super::time::{MILLISECOND, Micros, SECOND};
use super::{Event, World};

/// Inputs that are taken into one commit.
const GROUP: usize = 4_096;
/// How long after an input the engine's thread takes it up, with whatever came meanwhile.
const TURN: Micros = MILLISECOND;
/// How long a slice of judging takes.
const SLICE: Micros = 3 * MILLISECOND;
/// How long judging waits for more of a push.
const MOMENT: Micros = 2 * MILLISECOND;
/// How long a peer may take to introduce itself.
const HELLO: Micros = 3 * SECOND;

/// The relay and what its shell keeps.
#[derive(Debug)]
pub(crate) struct RelayNode {
    /// While it runs.
    pub(crate) engine: Option<Engine>,
    /// While it does not.
    pub(crate) store: Option<Store>,
    pub(crate) seed: Seed,
    pub(crate) file: File,
    /// Which process this is.
    pub(crate) life: u64,
    /// How often it was put back from an old copy.
    pub(crate) restores: u64,
    pub(crate) backup: Option<Store>,
    /// Its files, and those of the old copy.
    pub(crate) files: Cabinet,
    pub(crate) old_files: Cabinet,
    /// The lanes that it serves.
    pub(crate) lanes: BTreeMap<(LineId, u64), Served>,
    pub(crate) full: bool,
    pub(crate) clock_ms: i64,
    pub(crate) armed: BTreeSet<Fault>,
    pub(crate) inbox: VecDeque<Input>,
    /// Connections to which outputs go.
    pub(crate) peers: BTreeMap<LineId, bool>,
    turn: bool,
}

impl RelayNode {
    pub(crate) fn new(engine: Engine, seed: Seed, file: File) -> Self {
        Self {
            engine: Some(engine),
            store: None,
            seed,
            file,
            life: 1,
            restores: 0,
            backup: None,
            files: Cabinet::default(),
            old_files: Cabinet::default(),
            lanes: BTreeMap::new(),
            full: false,
            clock_ms: 0,
            armed: BTreeSet::new(),
            inbox: VecDeque::new(),
            peers: BTreeMap::new(),
            turn: false,
        }
    }

    /// The replica, while it runs.
    pub(crate) fn replica(&self) -> Option<&Replica> {
        self.engine.as_ref().map(Engine::replica)
    }

    /// Whether nothing waits to be done.
    pub(crate) fn is_idle(&self) -> bool {
        self.inbox.is_empty() && !self.turn && self.engine.is_some()
    }
}

impl World {
    /// Hands an input to the relay's engine, with its next turn.
    pub(crate) fn tell_relay(&mut self, input: Input) {
        if self.relay.engine.is_none() {
            return;
        }
        self.relay.inbox.push_back(input);
        self.plan_relay_turn(TURN);
    }

    /// Has the engine's thread go around soon, though nothing came.
    pub(crate) fn wake_relay(&mut self) {
        self.plan_relay_turn(TURN);
    }

    fn plan_relay_turn(&mut self, after: Micros) {
        if !std::mem::replace(&mut self.relay.turn, true) {
            self.events.plan(self.now + after, Event::RelayTurn(self.relay.life));
        }
    }

    /// Somebody has connected and proved that key.
    pub(crate) fn relay_connected(&mut self, line: LineId, key: PublicKey) {
        self.relay.peers.insert(line, false);
        self.events.plan(self.now + HELLO, Event::Introduced(line));
        self.tell_relay(Input::Connected(line, key));
    }

    /// A peer that has not said a word in time is not waited for.
    pub(crate) fn introduced(&mut self, line: LineId) {
        if self.relay.peers.get(&line) == Some(&false) {
            self.hang_up_on(line, Code::OutOfOrder, "no introduction within 3 s");
        }
    }

    pub(crate) fn relay_hears(&mut self, line: LineId, arrival: Arrival) {
        let Some(introduced) = self.relay.peers.get_mut(&line) else { return };
        *introduced = true;
        self.tell_relay(match arrival {
            Arrival::Bytes(stream, bytes) => Input::Bytes(line, stream, bytes),
            Arrival::Finished(stream) => Input::Finished(line, stream),
        });
    }

    pub(crate) fn relay_loses(&mut self, line: LineId) {
        self.relay.lanes.retain(|(of, _), _| *of != line);
        if self.relay.peers.remove(&line).is_some() && !self.planted(Plant::LeakedConnection) {
            self.tell_relay(Input::Closed(line));
        }
    }

    /// The engine's thread, once around.
    pub(crate) fn relay_turn(&mut self, life: u64) -> Checked {
        if life != self.relay.life || self.relay.engine.is_none() {
            return Ok(());
        }
        self.relay.turn = false;
        let taken = self.relay.inbox.len().min(GROUP);
        let inputs: Vec<Input> = self.relay.inbox.drain(..taken).collect();
        let pushed = inputs.iter().any(|input| matches!(input, Input::Bytes(_, 1, _)));
        let dies = pushed && self.relay.armed.remove(&Fault::RelayKill);
        if dies && self.planted(Plant::EarlyAck) {
            return self.acknowledge_early(inputs);
        }
        let manner = if dies { self.dice.below(3) } else { 3 };
        let now = self.relay_clock();
        for input in inputs {
            let result = self.relay.engine.as_mut().map(|engine| engine.handle(now, input));
            self.serves(result)?;
        }
        if manner == 0 {
            return self.kill_relay();
        }
        let outputs = self.relay_commits()?;
        if manner == 1 {
            return self.kill_relay();
        }
        self.route(outputs);
        self.relay_saw()?;
        if manner == 2 {
            return self.kill_relay();
        }
        let more = self.relay.engine.as_ref().is_some_and(Engine::expects_more);
        if taken > 0 && more && self.relay.inbox.is_empty() {
            // More of the same push is expected in a moment: what it brings is judged with this.
            self.plan_relay_turn(MOMENT);
        } else if self.relay.inbox.is_empty() {
            self.relay_works()?;
        } else {
            self.plan_relay_turn(TURN);
        }
        self.plant_at_relay()
    }

    /// A slice of judging, if anything waits for it.
    fn relay_works(&mut self) -> Checked {
        if self.planted(Plant::HeldBlocks) {
            let segments = self.relay.replica().map(Replica::segments);
            if segments.is_some_and(|rows| rows.values().any(|row| row.held > 0)) {
                return Ok(());
            }
        }
        let now = self.relay_clock();
        self.before_judging();
        let worked = self.relay.engine.as_mut().map(|engine| engine.work(now));
        if self.serves(worked)? == Some(true) {
            let outputs = self.relay_commits()?;
            self.route(outputs);
            self.relay_saw()?;
            self.after_judging()?;
            self.plan_relay_turn(SLICE);
        }
        Ok(())
    }

    pub(crate) fn relay_commits(&mut self) -> Checked<Vec<Output>> {
        let committed = self.relay.engine.as_mut().map(Engine::commit);
        Ok(self.serves(committed)?.unwrap_or_default())
    }

    /// The engine says when it cannot go on; in this world nothing gives it reason to.
    fn serves<T>(&self, result: Option<Result<T, ReplicaError>>) -> Checked<Option<T>> {
        let result = result.transpose();
        result
            .map_err(|error| self.violation(Oracle::Contained, format!("the relay stops: {error}")))
    }

    /// Hands outputs to the network: by connection, in order of priority, the end last.
    pub(crate) fn route(&mut self, outputs: Vec<Output>) {
        let mut by_line: BTreeMap<LineId, Vec<Output>> = BTreeMap::new();
        for output in outputs {
            let line = match &output {
                Output::Send { to, .. } => *to,
                Output::Finish(line, _) | Output::Close(line, ..) => *line,
                // The catalogs of this world call no hosts and have no queries.
                Output::Fetch(_) | Output::Ask { .. } => continue,
            };
            by_line.entry(line).or_default().push(output);
        }
        for (line, mut outputs) in by_line {
            if !self.relay.peers.contains_key(&line) {
                continue;
            }
            self.full_strikes(&outputs);
            outputs.sort_by_key(|output| match output {
                Output::Send { priority, .. } => -*priority,
                Output::Finish(..) | Output::Fetch(_) | Output::Ask { .. } => 0,
                Output::Close(..) => 1,
            });
            self.send_all(line, outputs);
            if self.network.backlog(line, Side::Relay, self.now) > BACKLOG {
                self.hang_up_on(line, Code::Busy, "too much waits to be read");
            }
        }
    }

    fn send_all(&mut self, line: LineId, outputs: Vec<Output>) {
        let mut pending: Option<(u64, Vec<u8>)> = None;
        for output in outputs {
            if let Output::Send { stream, bytes, .. } = output {
                match &mut pending {
                    Some((same, gathered)) if *same == stream => gathered.extend(bytes),
                    _ => {
                        let before = pending.replace((stream, bytes));
                        self.send_pending(line, before);
                    }
                }
                continue;
            }
            self.send_pending(line, pending.take());
            match output {
                Output::Finish(_, stream) => {
                    self.send(line, Side::Relay, Arrival::Finished(stream));
                }
                Output::Close(_, code, text) => self.hang_up_on(line, code, &text),
                Output::Send { .. } | Output::Fetch(_) | Output::Ask { .. } => {}
            }
        }
        self.send_pending(line, pending);
    }

    fn send_pending(&mut self, line: LineId, pending: Option<(u64, Vec<u8>)>) {
        if let Some((stream, bytes)) = pending {
            self.send(line, Side::Relay, Arrival::Bytes(stream, bytes));
        }
    }

    fn full_strikes(&mut self, outputs: &[Output]) {
        let refused = |output: &Output| matches!(output, Output::Close(_, Code::Storage, _));
        if self.relay.full && outputs.iter().any(refused) {
            self.tally.struck(Fault::RelayDiskFull);
        }
    }

    /// Ends a connection from the relay's side; its engine is told, as by the real shell.
    fn hang_up_on(&mut self, line: LineId, code: Code, text: &str) {
        let reason = Some((code, text.to_owned()));
        self.network.close(&mut self.events, self.now, (line, Side::Relay), reason);
        self.relay_loses(line);
    }

    /// The process ends: what was not committed is gone, and every connection with it.
    pub(crate) fn kill_relay(&mut self) -> Checked {
        self.tally.struck(Fault::RelayKill);
        self.stop_relay();
        let after = SECOND + self.dice.roll() % (20 * SECOND);
        self.events.plan(self.now + after, Event::RelayStarts);
        Ok(())
    }

    pub(crate) fn stop_relay(&mut self) {
        let Some(engine) = self.relay.engine.take() else { return };
        self.relay.store = Some(engine.into_replica().into_store());
        self.relay.life += 1;
        self.relay.turn = false;
        self.relay.inbox.clear();
        self.relay.peers.clear();
        self.relay.lanes.clear();
        for line in self.network.lines_of(Side::Relay, None) {
            self.network.die(&mut self.events, self.now, line, Side::Relay);
        }
    }

    /// Opens the relay's directory, as the real shell does.
    pub(crate) fn start_relay(&mut self) -> Checked {
        let Some(store) = self.relay.store.take() else { return Ok(()) };
        let opened = self.open_relay(store);
        let replica =
            opened.map_err(|error| self.violation(Oracle::Contained, error.to_string()))?;
        self.relay.engine = Some(Engine::new(replica));
        self.plan_relay_turn(TURN);
        self.relay_reopened()
    }

    fn open_relay(&mut self, store: Store) -> Result<Replica, ReplicaError> {
        let members = self.memberships.open(store.members()?)?;
        let me = me(&store, &self.relay.seed, &members, Role::Relay)?;
        let copy = self.relay.file.is_copy(&store)?;
        let entropy = drawn(self.seed, "relay entropy", self.relay.life);
        let mut replica = Replica::open(store, me, members, entropy)?;
        if copy {
            replica.open_epoch_above(replica.epoch())?;
            replica.restate_verdicts()?;
        }
        self.relay.file.note(replica.store_mut())?;
        replica.commit()?;
        fill(replica.store_mut(), self.relay.full)?;
        Ok(replica)
    }

    /// Puts the relay's directory back from its old copy, which is noticed.
    pub(crate) fn restore_relay(&mut self) -> Checked {
        self.relay.file = File(self.relay.file.0 + 1);
        self.put_relay_back_silently()
    }

    /// Puts the relay's directory back from its old copy, into the same file.
    pub(crate) fn put_relay_back_silently(&mut self) -> Checked {
        let backup = self.relay.backup.as_ref().map(Store::copy);
        let Some(Ok(backup)) = backup else { return Ok(()) };
        self.stop_relay();
        self.relay.store = Some(backup);
        self.relay.files = self.relay.old_files.clone();
        self.relay.restores += 1;
        self.start_relay()?;
        self.relay_went_back()
    }

    /// Milliseconds UTC on the relay's wall.
    pub(crate) fn relay_clock(&self) -> i64 {
        super::time::BEGINNING_MS + (self.now / MILLISECOND) as i64 + self.relay.clock_ms
    }

    /// [`Plant::EarlyAck`]: receipts leave, and the disk does not have what they speak of.
    fn acknowledge_early(&mut self, inputs: Vec<Input>) -> Checked {
        let before = self.relay.replica().map(|replica| replica.store().copy());
        let Some(Ok(before)) = before else { return Ok(()) };
        let now = self.relay_clock();
        for input in inputs {
            let result = self.relay.engine.as_mut().map(|engine| engine.handle(now, input));
            self.serves(result)?;
        }
        let outputs = self.relay_commits()?;
        self.route(outputs);
        self.kill_relay()?;
        self.relay.store = Some(before);
        Ok(())
    }
}
