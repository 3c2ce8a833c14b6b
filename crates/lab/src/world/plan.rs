//! The plan of a run: who does what when, and what goes wrong when, drawn from the seed before
//! anything happens.
//!
//! Each step has dice of its own, so that leaving one out changes no other: a history that fails
//! can be shrunk by leaving steps out.

use std::fmt;

use super::fault::{Fault, Faults};
use super::operator::{Decision, Decisions, Reach};
use super::time::{DAY, HOUR, MINUTE, Micros, Moment};
use super::workload::Work;
use crate::Dice;

/// The devices that share a territory; the office holds all territories besides.
pub(crate) const CREW: usize = 4;
/// Visits of a device and day, of five writes each.
const VISITS: usize = 8;

/// One device joins in so many device-days.
pub(crate) const JOIN: usize = 100;
/// A catalog is published in so many.
const PUBLISH: usize = 200;
/// A device is revoked in so many.
const REVOKE: usize = 100;
/// A device's grants are replaced in so many.
const MOVE: usize = 25;
/// The relay is put back and told so in so many.
const RESTORE: usize = 300;

/// What a run is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What everything is drawn from.
    pub seed: u64,
    /// How many devices there are.
    pub devices: usize,
    /// For how many days they work.
    pub days: usize,
    /// What goes wrong.
    pub faults: Faults,
    /// What the operator decides.
    pub operator: Decisions,
    /// How often a device comes near another one in a day.
    pub meetings: usize,
    /// How often a person pauses a type in a day, and resumes everything later.
    pub pauses: usize,
    /// How often a person leaves a scope out in a day, and takes everything again later.
    pub subscriptions: usize,
    /// How often a person asks the relay to do something at once in a day.
    pub calls: usize,
    /// How often a person attaches a file in a day.
    pub files: usize,
    /// Whether there is no relay before the end.
    pub apart: bool,
}

/// Who does something, or has it done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The relay.
    Relay,
    /// A device, by number; those beyond the first are copies that somebody made.
    Device(usize),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay => f.write_str("relay"),
            Self::Device(0) => f.write_str("office"),
            Self::Device(number) => write!(f, "device {number}"),
        }
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Somebody works.
    Work(Work),
    /// Syncs until everything is exchanged, and hangs up.
    Sync,
    /// Stays connected from now on.
    Connect,
    /// Is out of reach from now on.
    Disconnect,
    /// Comes near another device, by number, for a while.
    Meet(usize),
    /// Pauses one type, or all.
    Pause,
    /// Resumes whatever is paused.
    Resume,
    /// Leaves a scope of a type or two out.
    Unsubscribe,
    /// Takes what was left out again.
    Subscribe,
    /// Has the relay do something at once.
    Call,
    /// Attaches a file to a record.
    Attach,
    /// Names somebody else's file in a record, of which no more is known than the name.
    Claim,
    /// A copy of the directory is put away.
    Backup,
    /// The operator decides something about whoever it is.
    Decision(Decision),
    /// The operator grants a device something else.
    Reach(Reach),
    /// Something goes wrong at the next opportunity.
    Fault(Fault),
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work(work) => f.write_str(work.word()),
            Self::Sync => f.write_str("syncs"),
            Self::Connect => f.write_str("has a signal"),
            Self::Disconnect => f.write_str("loses the signal"),
            Self::Meet(other) => write!(f, "meets {}", Who::Device(*other)),
            Self::Pause => f.write_str("pauses"),
            Self::Resume => f.write_str("resumes"),
            Self::Unsubscribe => f.write_str("leaves a scope out"),
            Self::Subscribe => f.write_str("takes again what was left out"),
            Self::Call => f.write_str("has the relay do something"),
            Self::Attach => f.write_str("attaches a file"),
            Self::Claim => f.write_str("names somebody else's file"),
            Self::Backup => f.write_str("is backed up"),
            Self::Decision(decision) => decision.fmt(f),
            Self::Reach(reach) => reach.fmt(f),
            Self::Fault(fault) => write!(f, "suffers: {fault}"),
        }
    }
}

/// One step of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub at: Micros,
    /// Who.
    pub who: Who,
    /// What.
    pub act: Act,
    /// What the step's own dice begin with.
    pub dice: u64,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {} {}", Moment(self.at), self.who, self.act)
    }
}

/// How many territories so many devices work in.
pub(crate) fn territories(devices: usize) -> usize {
    devices.saturating_sub(1).div_ceil(CREW).max(1)
}

/// The plan of a run, in order of time.
#[must_use]
pub fn plan(settings: &Settings) -> Vec<Step> {
    let mut drawing = Drawing { dice: Dice::seeded(settings.seed), steps: Vec::new() };
    drawing.step(0, Who::Device(0), Act::Work(Work::Found));
    drawing.step(1, Who::Device(0), Act::Sync);
    for device in 0..settings.devices {
        // Everybody has the products before the first day begins.
        drawing.soon(5 * MINUTE, HOUR, Who::Device(device), Act::Sync);
        for day in 0..settings.days {
            drawing.day(device, day as u64 * DAY, VISITS);
        }
    }
    drawing.faults(settings);
    // With dice of its own: what the operator leaves changes nothing else.
    drawing.dice = Dice::seeded(settings.seed ^ 0x6f70_6572_6174_6f72);
    drawing.operator(settings);
    drawing.dice = Dice::seeded(settings.seed ^ 0x6d65_6574_696e_6773);
    drawing.meetings(settings);
    drawing.dice = Dice::seeded(settings.seed ^ 0x7061_7573_696e_6700);
    drawing.pauses(settings);
    drawing.dice = Dice::seeded(settings.seed ^ 0x7363_6f70_6573_0000);
    drawing.subscriptions(settings);
    drawing.dice = Dice::seeded(settings.seed ^ 0x6361_6c6c_7300_0000);
    drawing.calls(settings);
    drawing.dice = Dice::seeded(settings.seed ^ 0x6669_6c65_7300_0000);
    drawing.files(settings);
    let mut steps = drawing.steps;
    steps.sort_by_key(|step| (step.at, step.who));
    steps
}

struct Drawing {
    dice: Dice,
    steps: Vec<Step>,
}

impl Drawing {
    fn step(&mut self, at: Micros, who: Who, act: Act) {
        let dice = self.dice.roll();
        self.steps.push(Step { at, who, act, dice });
    }

    /// A step at some moment of a span.
    fn soon(&mut self, from: Micros, span: Micros, who: Who, act: Act) -> Micros {
        let at = from + self.dice.roll() % span.max(1);
        self.step(at, who, act);
        at
    }

    /// A working day: visits between eight and five, and a signal as it comes.
    fn day(&mut self, device: usize, midnight: Micros, visits: usize) {
        let who = Who::Device(device);
        for _ in 0..visits {
            let mut at = midnight + 8 * HOUR + self.dice.roll() % (9 * HOUR);
            for work in Work::of_a_visit(&mut self.dice) {
                self.step(at, who, Act::Work(work));
                at += self.dice.roll() % (6 * MINUTE);
            }
        }
        match self.dice.below(20) {
            // Connected when they come in, at noon, and before they go home.
            0..=13 => {
                for hour in [7, 12, 17] {
                    self.soon(midnight + hour * HOUR, HOUR, who, Act::Sync);
                }
            }
            // A signal here and there.
            14..=18 => {
                for _ in 0..3 {
                    let from = self.soon(midnight + 8 * HOUR, 9 * HOUR, who, Act::Connect);
                    self.soon(from + MINUTE, 40 * MINUTE, who, Act::Disconnect);
                }
                self.soon(midnight + 18 * HOUR, HOUR, who, Act::Sync);
            }
            // Within reach all day.
            _ => {
                self.soon(midnight + 7 * HOUR, HOUR, who, Act::Connect);
                self.soon(midnight + 18 * HOUR, HOUR, who, Act::Disconnect);
            }
        }
    }

    fn faults(&mut self, settings: &Settings) {
        let days = settings.devices * settings.days;
        let mut copies = settings.devices + settings.joins();
        for fault in &settings.faults.0 {
            // One of each kind at least: it is armed until it can strike.
            let one_in = match fault {
                Fault::Loss => continue,
                Fault::Cut => 3,
                Fault::Partition | Fault::Kill => 6,
                Fault::Nonsense | Fault::Clock => 12,
                Fault::DiskFull => 20,
                Fault::Restore | Fault::SilentRestore => 50,
                Fault::Clone | Fault::SilentClone => 100,
                Fault::RelayKill => 40,
                Fault::RelayDiskFull => 150,
                Fault::RelayRestore => 300,
            };
            for _ in 0..days.div_ceil(one_in) {
                self.fault(settings, *fault, &mut copies);
            }
        }
    }

    fn fault(&mut self, settings: &Settings, fault: Fault, copies: &mut usize) {
        let device = Who::Device(self.dice.below(settings.devices));
        let day = self.dice.below(settings.days) as u64 * DAY;
        let who = match fault {
            Fault::RelayKill | Fault::RelayDiskFull | Fault::RelayRestore => Who::Relay,
            Fault::Loss
            | Fault::Cut
            | Fault::Partition
            | Fault::Kill
            | Fault::DiskFull
            | Fault::Clone
            | Fault::SilentClone
            | Fault::Restore
            | Fault::SilentRestore
            | Fault::Clock
            | Fault::Nonsense => device,
        };
        let at = self.soon(day + 9 * HOUR, 7 * HOUR, who, Act::Fault(fault));
        match fault {
            Fault::Restore | Fault::SilentRestore | Fault::RelayRestore => {
                self.backup(who, at);
            }
            Fault::Clone | Fault::SilentClone => {
                self.copy(*copies, at);
                *copies += 1;
            }
            Fault::Loss
            | Fault::Cut
            | Fault::Partition
            | Fault::Kill
            | Fault::RelayKill
            | Fault::DiskFull
            | Fault::RelayDiskFull
            | Fault::Clock
            | Fault::Nonsense => {}
        }
    }

    /// What the operator decides, while people work.
    fn operator(&mut self, settings: &Settings) {
        let days = settings.device_days();
        // The office stays what it is.
        let mut crew: Vec<usize> = (1..settings.devices).collect();
        for decision in &settings.operator.0 {
            match decision {
                Decision::Publish => (0..days.div_ceil(PUBLISH)).for_each(|_| {
                    self.decision(settings, Who::Relay, *decision);
                }),
                Decision::Join => (0..settings.joins()).for_each(|number| {
                    self.newcomer(settings, settings.devices + number);
                }),
                Decision::Revoke => {
                    for _ in 0..days.div_ceil(REVOKE).min(crew.len() / 2) {
                        let lost = crew.swap_remove(self.dice.below(crew.len()));
                        self.decision(settings, Who::Device(lost), *decision);
                    }
                }
                Decision::Move => {
                    let moves = if crew.is_empty() { 0 } else { days.div_ceil(MOVE) };
                    (0..moves).for_each(|_| self.moves(settings, &crew));
                }
                Decision::Restore => (0..days.div_ceil(RESTORE)).for_each(|_| {
                    let at = self.decision(settings, Who::Relay, *decision);
                    self.backup(Who::Relay, at);
                }),
            }
        }
    }

    /// Devices that come near each other: while people work, and who they are is chance.
    fn meetings(&mut self, settings: &Settings) {
        for device in 0..settings.devices {
            for day in 0..settings.days as u64 {
                for _ in 0..settings.meetings {
                    let other = self.dice.below(settings.devices + settings.joins());
                    let act = Act::Meet(other);
                    self.soon(day * DAY + 7 * HOUR, 12 * HOUR, Who::Device(device), act);
                }
            }
        }
    }

    /// People who pause a type while they work; now and then until the end.
    fn pauses(&mut self, settings: &Settings) {
        for device in 0..settings.devices {
            for day in 0..settings.days as u64 {
                for _ in 0..settings.pauses {
                    let who = Who::Device(device);
                    let paused = self.soon(day * DAY + 7 * HOUR, 10 * HOUR, who, Act::Pause);
                    if !self.dice.one_in(4) {
                        self.soon(paused + MINUTE, 3 * HOUR, who, Act::Resume);
                    }
                }
            }
        }
    }

    /// People who leave a scope out while they work; now and then until the end.
    fn subscriptions(&mut self, settings: &Settings) {
        for device in 0..settings.devices {
            for day in 0..settings.days as u64 {
                for _ in 0..settings.subscriptions {
                    let who = Who::Device(device);
                    let left = self.soon(day * DAY + 7 * HOUR, 10 * HOUR, who, Act::Unsubscribe);
                    if !self.dice.one_in(4) {
                        self.soon(left + MINUTE, 3 * HOUR, who, Act::Subscribe);
                    }
                }
            }
        }
    }

    /// People who ask for something that needs a connection.
    fn calls(&mut self, settings: &Settings) {
        for device in 0..settings.devices {
            for day in 0..settings.days as u64 {
                for _ in 0..settings.calls {
                    let from = day * DAY + 9 * HOUR;
                    self.soon(from, 9 * HOUR, Who::Device(device), Act::Call);
                }
            }
        }
    }

    /// People who attach files; now and then somebody names one that is not his.
    fn files(&mut self, settings: &Settings) {
        for device in 0..settings.devices {
            for day in 0..settings.days as u64 {
                for _ in 0..settings.files {
                    let act = if self.dice.one_in(5) { Act::Claim } else { Act::Attach };
                    self.soon(day * DAY + 9 * HOUR, 9 * HOUR, Who::Device(device), act);
                }
            }
        }
    }

    fn moves(&mut self, settings: &Settings, crew: &[usize]) {
        let who = Who::Device(*self.dice.pick(crew));
        let reach = match self.dice.below(4) {
            0 => Reach::Fewer,
            1 => Reach::Everywhere,
            _ => Reach::Territory(self.dice.below(settings.territories() + 1)),
        };
        let day = self.dice.below(settings.days) as u64 * DAY;
        self.soon(day + 9 * HOUR, 7 * HOUR, who, Act::Reach(reach));
    }

    /// A copy is put away some time before that moment: of the same day, or older.
    fn backup(&mut self, who: Who, before: Micros) {
        let age = HOUR / 2 + self.dice.roll() % (before - 8 * HOUR);
        self.step(before - age.min(before - HOUR), who, Act::Backup);
    }

    fn decision(&mut self, settings: &Settings, who: Who, decision: Decision) -> Micros {
        let day = self.dice.below(settings.days) as u64 * DAY;
        self.soon(day + 9 * HOUR, 7 * HOUR, who, Act::Decision(decision))
    }

    /// A device joins, syncs, and works from then on.
    fn newcomer(&mut self, settings: &Settings, device: usize) {
        let who = Who::Device(device);
        let joins = self.decision(settings, who, Decision::Join);
        self.step(joins + MINUTE, who, Act::Sync);
        self.copy(device, joins);
        for day in joins / DAY + 1..settings.days as u64 {
            self.day(device, day * DAY, VISITS);
        }
    }

    /// What a copy or a newcomer does on the day on which it came.
    fn copy(&mut self, device: usize, made: Micros) {
        let who = Who::Device(device);
        for _ in 0..3 {
            for work in Work::of_a_visit(&mut self.dice) {
                self.soon(made + MINUTE, 2 * HOUR, who, Act::Work(work));
            }
        }
        for _ in 0..2 {
            self.soon(made + MINUTE, 2 * HOUR, who, Act::Sync);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_forty_writes_a_device_and_day_and_every_fault() {
        let settings = Settings::new(1, 9, 2);
        let steps = plan(&settings);
        let first = Who::Device(1);
        let works = steps.iter().filter(|s| s.who == first && matches!(s.act, Act::Work(_)));
        assert_eq!(works.count(), 80);
        for fault in Fault::ALL.into_iter().filter(|fault| *fault != Fault::Loss) {
            assert!(steps.iter().any(|step| step.act == Act::Fault(fault)), "{fault}");
        }
        for decision in Decision::ALL {
            let moves = |act| decision == Decision::Move && matches!(act, Act::Reach(_));
            let is = |act| act == Act::Decision(decision) || moves(act);
            assert!(steps.iter().any(|step| is(step.act)), "{decision}");
        }
        assert!(steps.is_sorted_by_key(|step| step.at));
        assert_eq!(steps, plan(&settings));
    }
}
