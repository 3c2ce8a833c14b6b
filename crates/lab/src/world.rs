//! The world in a box: a relay and many devices in one thread, from a seed.
//!
//! The engines, replicas and stores are the product's; what is replaced are the shells' loops, the
//! network, the clock and the disk. Everything follows from the seed: the same seed, the same run,
//! to the byte. Oracles watch after every commit, and look at everything in the end; plants show
//! that each oracle can fail.

mod cabinet;
mod calling;
mod device;
mod disk;
pub mod fault;
mod filing;
mod founding;
mod joining;
mod ledger;
mod meeting;
mod memberships;
mod network;
mod nonsense;
mod office;
pub mod operator;
pub mod oracle;
mod permitted;
pub mod plan;
pub mod plant;
mod planted;
mod reckoning;
mod relay;
pub mod report;
mod run;
mod serving;
mod shrink;
mod step;
pub mod story;
mod subscribing;
pub mod talk;
pub mod time;
pub mod workload;

pub use fault::{Fault, Faults, Tally};
pub use operator::{Decision, Decisions, Reach};
pub use oracle::{Looks, Oracle, Violation};
pub use plan::{Settings, Step, plan};
pub use plant::Plant;
pub use run::{Figures, Run, run, run_steps};
pub use shrink::{Shrunk, shrink};
pub use story::Peer;

use fieldkeep_model::Seed;
use fieldkeep_relay::Engine;
use fieldkeep_replica::ReplicaError;

use crate::Dice;
use calling::Made;
use device::DeviceNode;
use disk::File;
use filing::{Attached, LANES};
use ledger::Ledger;
use memberships::Memberships;
use network::{Arrival, LineId, Network, Reason, Side};
use oracle::{Checked, Watch};
use plan::Who;
use relay::RelayNode;
use talk::{Ear, Talk};
use time::{Events, Micros};

/// What happens in the world.
#[derive(Debug)]
pub(crate) enum Event {
    /// A step of the plan, by its place.
    Planned(usize),
    /// The relay's engine takes up what waits: in that life of its process.
    RelayTurn(u64),
    /// A device's session takes up what arrived.
    DeviceTurn(usize, u64),
    /// A device tries to connect.
    Dials(usize, u64),
    /// A handshake is done.
    Connects(LineId),
    /// Two devices lose sight of each other.
    Parts(LineId),
    /// A peer ought to have introduced itself.
    Introduced(LineId),
    /// Something arrives at a side.
    Arrives(LineId, Side, u64),
    /// A side is told that the connection is over.
    Closed(LineId, Side, Reason),
    RelayStarts,
    DeviceStarts(usize),
    /// The operator has the relay open an epoch.
    EpochOpens,
    /// The operator tries again to carry out what a step decided.
    Again(Step, Decision),
    /// A person tries again to leave out what was not saved, and does so for so many more times.
    Leaves(usize, usize),
    /// A person's patience with the relay is over.
    Impatient(usize),
    /// A device looks whether a file is to be sent or fetched, in that life of its process.
    Files(usize, u64),
    /// A disk has room again, after that long.
    Freed(Who, Micros),
}

/// A relay, devices, and everything between.
#[derive(Debug)]
pub struct World {
    seed: u64,
    now: Micros,
    dice: Dice,
    events: Events<Event>,
    network: Network,
    relay: RelayNode,
    devices: Vec<DeviceNode>,
    /// How many devices there were in the beginning.
    founders: usize,
    /// From which number on devices are copies that somebody made.
    copies: usize,
    files: u64,
    /// The first catalog.
    catalog: String,
    /// What was asked of the relay.
    made: Vec<Made>,
    /// The files that people have attached.
    attached: Vec<Attached>,
    /// Whether packets are lost.
    lossy: bool,
    /// Whether nothing fails any more.
    fine: bool,
    /// Whether only the office ever reaches the relay, and that in the end.
    apart: bool,
    ledger: Ledger,
    memberships: Memberships,
    watch: Watch,
    talk: Talk,
    tally: Tally,
    /// How often each decision of the operator was carried out, and how many still wait for that.
    decided: Tally<Decision>,
    undecided: usize,
    figures: Figures,
    plant: Option<Plant>,
    plant_acted: bool,
    steps: Vec<Step>,
    history: blake3::Hasher,
}

impl World {
    /// An organisation with devices that have joined, room for those that will, and nothing written.
    pub(crate) fn founded(
        seed: u64,
        names: &[String],
        to_come: usize,
        catalog: &str,
        plant: Option<Plant>,
    ) -> Result<Self, ReplicaError> {
        let founded = founding::found(seed, names, catalog)?;
        let relay_seed = Seed(founding::drawn(seed, "relay", 0));
        let mut dice = Dice::seeded(seed ^ 0x776f_726c_6421);
        let mut devices = Vec::new();
        for (number, mut joined) in founded.devices.into_iter().enumerate() {
            match plant {
                Some(Plant::OtherCatalog) => planted::tighten(&mut joined.store)?,
                Some(Plant::OfflineEdit) => planted::open(&mut joined.store)?,
                _ => {}
            }
            let file = File(2 + number as u64);
            file.note(&mut joined.store)?;
            joined.store.commit()?;
            devices.push(DeviceNode::new(joined, number, file));
        }
        let founders = devices.len();
        for number in founders..founders + to_come {
            let keys = Seed(founding::drawn(seed, "device", number as u64));
            let territory = founding::territory(number, founders);
            devices.push(DeviceNode::absent(keys, territory, number, File(2 + number as u64)));
        }
        let mut relay = founded.relay;
        File(1).note(relay.store_mut())?;
        relay.commit()?;
        Ok(Self {
            seed,
            now: 0,
            network: Network::new(Dice::seeded(dice.roll())),
            dice,
            events: Events::default(),
            relay: RelayNode::new(Engine::new(relay), relay_seed, File(1)),
            founders,
            copies: devices.len(),
            files: 2 + devices.len() as u64,
            devices,
            catalog: catalog.to_owned(),
            made: Vec::new(),
            attached: Vec::new(),
            lossy: false,
            fine: false,
            apart: false,
            ledger: Ledger::default(),
            memberships: Memberships::default(),
            watch: Watch::default(),
            talk: Talk::default(),
            tally: Tally::default(),
            decided: Tally::default(),
            undecided: 0,
            figures: Figures::default(),
            plant,
            plant_acted: false,
            steps: Vec::new(),
            history: blake3::Hasher::new(),
        })
    }

    /// Lets everything happen that is due until then.
    pub(crate) fn runs_until(&mut self, until: Micros) -> Checked {
        while let Some((at, event)) = self.events.next(until) {
            self.now = at;
            self.take(event)?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// Lets the next thing happen, if it is due until then.
    pub(crate) fn runs_once(&mut self, until: Micros) -> Checked {
        let Some((at, event)) = self.events.next(until) else {
            self.now = until;
            return Ok(());
        };
        self.now = at;
        self.take(event)
    }

    fn take(&mut self, event: Event) -> Checked {
        self.figures.events += 1;
        match event {
            Event::Planned(place) => {
                let step = self.steps[place];
                if let Who::Device(at) = step.who
                    && at < self.devices.len()
                {
                    self.plant_at_device(at)?;
                }
                self.happens(&step)?;
            }
            Event::RelayTurn(life) => self.relay_turn(life)?,
            Event::DeviceTurn(at, life) => self.device_turn(at, life)?,
            Event::Dials(at, number) => self.dial(at, number)?,
            Event::Connects(line) if self.near(line, Side::Relay).is_some() => {
                self.meeting_begins(line)?;
            }
            Event::Connects(line) => self.connects(line)?,
            Event::Parts(line) => self.parts(line),
            Event::Introduced(line) => self.introduced(line),
            Event::Arrives(line, to, number) => self.arrives(line, to, number)?,
            Event::Closed(line, side, reason) => self.told_of_end(line, side, reason),
            Event::RelayStarts => self.start_relay()?,
            Event::DeviceStarts(at) => self.start_device(at)?,
            Event::EpochOpens => self.epoch_opens()?,
            Event::Again(step, decision) => self.tries(step, decision)?,
            Event::Leaves(at, times) => self.leaves(at, times)?,
            Event::Impatient(at) => self.is_impatient(at)?,
            Event::Files(at, life) => self.looks_at_files(at, life)?,
            Event::Freed(who, lasts) => self.freed(who, lasts)?,
        }
        Ok(())
    }

    fn arrives(&mut self, line: LineId, to: Side, number: u64) -> Checked {
        let arrival = match self.network.arrive(line, to, number, self.now) {
            Ok(Some(arrival)) => arrival,
            Ok(None) => return Ok(()),
            Err(until) => {
                self.events.plan(until, Event::Arrives(line, to, number));
                return Ok(());
            }
        };
        if let Arrival::Bytes(stream, bytes) = &arrival {
            self.history.update(&self.now.to_be_bytes()).update(&stream.to_be_bytes());
            self.history.update(&line.to_be_bytes()).update(bytes);
            self.figures.bytes += bytes.len() as u64;
            if *stream > LANES {
                return match to {
                    Side::Relay => self.relay_lane_hears(line, *stream, bytes),
                    Side::Device => self.lane_hears(line, *stream, bytes),
                };
            }
            let (ear, member) = (self.ear(line, to), self.is_member(line, to));
            self.talk.hears((line, to as usize, ear), *stream, bytes, member);
        }
        match to {
            to if self.near(line, to).is_some() => self.meeting_hears(line, to, arrival),
            Side::Relay => self.relay_hears(line, arrival),
            Side::Device => self.device_hears(line, arrival),
        }
        Ok(())
    }

    fn ear(&self, line: LineId, side: Side) -> Ear {
        match side {
            _ if self.near(line, side).is_some() => Ear::Peer,
            Side::Relay => Ear::Relay,
            Side::Device => Ear::Device,
        }
    }

    /// Whether the one on that side knows whose connection that is.
    fn is_member(&self, line: LineId, side: Side) -> bool {
        let caller = self.network.line(line).map(|line| line.device);
        let (here, there) = match self.near(line, side) {
            Some(at) => (self.devices[at].replica(), self.near(line, side.other())),
            None => (self.relay.replica(), caller),
        };
        let members = here.map(fieldkeep_replica::Replica::members);
        let known = members.zip(there).and_then(|(m, there)| m.by_tls(&self.devices[there].tls));
        known.is_some()
    }

    fn told_of_end(&mut self, line: LineId, side: Side, reason: Reason) {
        self.talk.ends((line, side as usize, self.ear(line, side)));
        match side {
            side if self.near(line, side).is_some() => self.meeting_ends(line, side),
            Side::Relay => self.relay_loses(line),
            Side::Device => self.device_loses(line, reason),
        }
        self.network.told(line, side);
    }

    /// Sends on a connection, and lets what waits for a busy one strike.
    pub(crate) fn send(&mut self, line: LineId, from: Side, what: Arrival) {
        self.network.send(&mut self.events, &mut self.tally, self.now, (line, from), what);
        if let Some(at) = self.network.line(line).map(|line| line.device) {
            self.opportunity(at, line);
        }
    }

    /// Takes bytes into the digest of what happened.
    pub(crate) fn note(&mut self, bytes: &[u8]) {
        self.history.update(&self.now.to_be_bytes()).update(bytes);
    }
}
