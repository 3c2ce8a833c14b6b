//! A run: a plan happens in a world, everything comes to rest, and everything is looked at.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::fault::{Fault, Faults, Tally};
use super::operator::{Decision, Decisions};
use super::oracle::{Checked, Looks, Oracle, Violation};
use super::plan::{JOIN, Settings, Step, plan, territories};
use super::plant::Plant;
use super::talk::Heard;
use super::time::{DAY, HOUR};
use super::{Event, World, workload};

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Writes that were reported saved.
    pub writes: u64,
    /// Those among them that lost a fork and were written again.
    pub rewritten: u64,
    /// Those whose author's disk was put back behind them as well: their bytes lie aside elsewhere.
    pub kept_aside: u64,
    /// Those that their author had no permission for, as it turned out: somebody holds each of them.
    pub unauthorised: u64,
    /// Times that two devices met.
    pub meetings: u64,
    /// Times that a scope was left out, and that it was not because something was there alone.
    pub left_out: [u64; 2],
    /// Calls that were done, that were refused, and of which a relay that was put back knew nothing.
    pub calls: [u64; 3],
    /// Files that were attached, that the relay was said to have, and that others fetched.
    pub files: [u64; 3],
    /// Events that happened.
    pub events: u64,
    /// Bytes that arrived anywhere.
    pub bytes: u64,
    /// Records on the relay in the end.
    pub records: u64,
    /// Those that are held.
    pub held: u64,
    /// Devices in the end, copies among them.
    pub devices: u64,
}

/// A run that is over.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it was made of.
    pub settings: Settings,
    /// What it came to.
    pub figures: Figures,
    /// How much the oracles looked at.
    pub looks: Looks,
    /// How often each kind of fault struck.
    pub tally: Tally,
    /// How often each decision of the operator was carried out.
    pub decided: Tally<Decision>,
    /// What was said in which phase of a session.
    pub heard: Heard,
    /// The promise that was broken, if one was.
    pub violation: Option<Violation>,
    /// A digest of everything that happened: equal runs have equal ones.
    pub history: [u8; 32],
}

/// Runs what the settings draw.
#[must_use]
pub fn run(settings: &Settings, plant: Option<Plant>) -> Run {
    run_steps(settings, plant, plan(settings))
}

/// Runs those steps of a plan.
#[must_use]
pub fn run_steps(settings: &Settings, plant: Option<Plant>, steps: Vec<Step>) -> Run {
    let names: Vec<String> = (0..settings.devices).map(|n| format!("person {n}")).collect();
    let catalog = workload::source(settings.calls > 0, settings.files > 0);
    let mut world = match World::founded(settings.seed, &names, settings.joins(), &catalog, plant) {
        Ok(world) => world,
        Err(error) => panic!("the world cannot be founded: {error}"),
    };
    world.lossy = settings.faults.has(Fault::Loss);
    let lived = catch_unwind(AssertUnwindSafe(|| world.lives(settings, steps)));
    let violation = match lived {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(*violation),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let text = format!("panicked: {}", text.unwrap_or_default());
            Some(Violation { oracle: Oracle::Contained, at: world.now, text })
        }
    };
    world.count();
    Run {
        settings: settings.clone(),
        figures: world.figures,
        looks: world.watch.counts,
        tally: world.tally,
        decided: world.decided,
        heard: world.talk.heard,
        violation,
        history: *world.history.finalize().as_bytes(),
    }
}

impl Settings {
    /// Settings with every fault and an operator who decides everything.
    #[must_use]
    pub fn new(seed: u64, devices: usize, days: usize) -> Self {
        let (faults, operator) = (Faults::all(), Decisions::all());
        Self {
            seed,
            devices,
            days,
            faults,
            operator,
            meetings: 0,
            pauses: 0,
            subscriptions: 0,
            calls: 0,
            files: 0,
            apart: false,
        }
    }

    /// Settings of a world with no relay before the end: devices have only each other, and what can
    /// go wrong with them does.
    #[must_use]
    pub fn apart(seed: u64, devices: usize, days: usize) -> Self {
        let mut faults = Faults::all();
        let relay = [Fault::RelayKill, Fault::RelayDiskFull, Fault::RelayRestore];
        relay.iter().for_each(|fault| {
            faults.0.remove(fault);
        });
        let operator = Decisions::default();
        Self { faults, operator, meetings: 8, apart: true, ..Self::new(seed, devices, days) }
    }

    /// How many device-days that is.
    #[must_use]
    pub fn device_days(&self) -> usize {
        self.devices * self.days
    }

    /// How many devices join in the middle.
    pub(crate) fn joins(&self) -> usize {
        let joins = self.operator.has(Decision::Join);
        if joins { self.device_days().div_ceil(JOIN) } else { 0 }
    }

    /// How many territories the devices work in.
    #[must_use]
    pub fn territories(&self) -> usize {
        territories(self.devices)
    }
}

impl World {
    fn lives(&mut self, settings: &Settings, steps: Vec<Step>) -> Checked {
        for (place, step) in steps.iter().enumerate() {
            self.events.plan(step.at, Event::Planned(place));
        }
        self.steps = steps;
        if settings.apart {
            self.stop_relay();
            self.apart = true;
        }
        for at in 0..self.devices.len() {
            self.start_device(at)?;
        }
        self.runs_until((settings.days - 1) as u64 * DAY + 20 * HOUR)?;
        let rested = self.comes_to_rest();
        if rested.is_err() {
            // What was smuggled in is a better reason than what came of it.
            self.gate_was_passed()?;
        }
        rested?;
        self.plant_at_rest()?;
        self.reckons()
    }

    fn count(&mut self) {
        let Some(replica) = self.relay.replica() else { return };
        self.figures.records = replica.segments().values().map(|row| row.records).sum();
        self.figures.held = replica.segments().values().map(|row| row.held).sum();
        let there = self.devices.iter().filter(|device| device.disk().is_some());
        self.figures.devices = there.count() as u64;
    }
}
