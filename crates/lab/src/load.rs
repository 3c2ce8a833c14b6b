//! The load test: many devices on a real relay over loopback, and whoever misbehaves among them.
//!
//! The relay is a process of its own, the program as it is served, so that its memory and its processor time
//! are its alone. The devices are lean: each has its own key, socket and store, speaks the protocol, makes
//! real changes, checks the relay's chain, and is durable before it says so; it merges and judges nothing,
//! and holds no copy of the membership log, of which a thousand devices would hold a thousand. Who misbehaves
//! is a process of its own as well. All of it is on loopback, bounded, and ends by itself.
//!
//! Whatever is wrong with an honest device, a refusal, a cut, a change that does not arrive, is told.

mod bad;
mod board;
mod book;
mod caller;
mod crowd;
mod floors;
mod report;
mod site;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use bad::{Bad, Deeds, run_bad};
pub use board::Times;
pub use floors::{Floors, serve_echo};
pub use report::{Ordeal, Results, SCHEMA, Soak};

use board::{Board, millis};
use crowd::Crowd;
use site::Facts;

use crate::benchmark::{OutOfBounds, within};
use crate::machine::Machine;
use crate::place::Serving;

/// Devices that share an outlet: each change of one goes to the others.
const OUTLET: usize = 2;
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the relay is left alone before its memory is read.
const REST: Duration = Duration::from_millis(1_500);
/// Devices that connect before the memory of an idle one is looked at.
const WARM: usize = 20;
/// Turns of an ordeal, without and with, last so long, so that what else the machine has to bear meets both
/// alike; there are a few of them, however short the test.
const TURN: Duration = Duration::from_secs(2);
const TURNS: u32 = 3;
/// How long who misbehaved is over before devices write without.
const CALM: Duration = Duration::from_millis(300);

/// A load test to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Devices.
    pub devices: usize,
    /// Changes a second, all devices together.
    pub rate: u64,
    /// How long devices write, with nobody misbehaving; and with each that does.
    pub seconds: u64,
    /// Who misbehaves, one after the other.
    pub bad: Vec<Bad>,
    /// How long devices write while the memory is watched; not at all if 0.
    pub soak_seconds: u64,
    /// What documents and indexes may take in the relay, in MiB; its default if absent.
    pub memory_mib: Option<u64>,
    /// Whether bare floors are measured.
    pub floors: bool,
    /// Where relay and devices keep what they have: on the disk that is to be measured.
    pub folder: PathBuf,
    /// The program that serves as a relay.
    pub program: PathBuf,
    /// The command that was typed.
    pub command: String,
}

/// Why a plan cannot be run. Nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A number that cannot be.
    #[error(transparent)]
    Size(#[from] OutOfBounds),
    /// The folder cannot be made, or is not empty.
    #[error("{}: {error}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
}

impl Plan {
    /// Looks whether it can be run.
    ///
    /// # Errors
    /// What is wrong with it, before any work is done.
    pub fn check(&self) -> Result<(), PlanError> {
        within("devices", self.devices as u64, 2, 2_000)?;
        within("changes a second", self.rate, 1, 10_000)?;
        within("seconds", self.seconds, 1, 86_400)?;
        within("seconds of soak", self.soak_seconds, 0, 86_400)?;
        within("MiB of memory", self.memory_mib.unwrap_or(16), 16, 1 << 20)?;
        let folder = |error| PlanError::Folder { path: self.folder.clone(), error };
        fs::create_dir_all(&self.folder).map_err(folder)?;
        let mut entries = fs::read_dir(&self.folder).map_err(folder)?;
        if entries.next().is_some() {
            let error = std::io::Error::other("the folder is not empty");
            return Err(PlanError::Folder { path: self.folder.clone(), error });
        }
        Ok(())
    }

    /// Runs it; `tell` hears what goes on. What was had before `stop` was raised is in the results.
    pub fn run(&self, stop: &AtomicBool, tell: &mut dyn FnMut(&str)) -> Results {
        let mut results = Results::of(self, Machine::here());
        if self.floors {
            tell("bare floors");
            let sync = floors::sync(&self.folder);
            let time = Duration::from_secs(self.seconds.min(10));
            let (echo, echo_idle_kib) = floors::echo(&self.program, self.devices, self.rate, time);
            results.floors = Some(Floors { sync, echo, echo_idle_kib });
        }
        tell("founding the organisation");
        let relay = self.folder.join("relay");
        let others = self.bad.len() * bad::MEMBERS;
        let facts = site::found(&relay, self.devices, others, OUTLET);
        if let Some(mib) = self.memory_mib {
            let limits = format!("[limits]\nmemory_bytes = \"{mib}MiB\"\n");
            fs::write(relay.join("relay.toml"), limits).expect("the folder was just made");
        }
        let test = Test::begin(self, facts, relay);
        test.run(stop, tell, &mut results);
        results
    }
}

/// A load test that runs.
struct Test<'p> {
    plan: &'p Plan,
    facts: Facts,
    serving: Serving,
    crowd: Crowd,
    board: Arc<Board>,
    /// The next phase of the board.
    phase: usize,
}

impl<'p> Test<'p> {
    fn begin(plan: &'p Plan, facts: Facts, relay: PathBuf) -> Self {
        let serving = Serving::start(&plan.program, &relay);
        let board = Arc::new(Board::default());
        let (_, address) = watch::channel(serving.address);
        let folder = plan.folder.join("devices");
        let crowd = Crowd::gather(&folder, &facts, plan.devices, address, &board);
        Self { plan, facts, serving, crowd, board, phase: 0 }
    }

    fn run(mut self, stop: &AtomicBool, tell: &mut dyn FnMut(&str), results: &mut Results) {
        let stopped = || stop.load(Ordering::Relaxed);
        tell("connecting every device");
        self.connect(results);
        if !stopped() {
            tell("devices write, and nobody misbehaves");
            self.live(stop, results);
        }
        for (nth, bad) in self.plan.bad.iter().enumerate() {
            if !stopped() {
                tell(&format!("devices write, and now and then there are {bad}"));
                self.ordeal(nth, *bad, stop, results);
            }
        }
        if !stopped() && self.plan.soak_seconds > 0 {
            tell("devices write, and the relay's memory is watched");
            self.soak(stop, results);
        }
        if !stopped() {
            tell("every device connects anew");
            self.crowd.connect(0, PATIENCE);
            results.reconnect_ms = self.crowd.connect(self.crowd.len(), PATIENCE).map(millis);
        }
        results.arrived = self.crowd.settle(PATIENCE);
        (results.written, results.missing) = (self.board.written(), self.board.missing());
        (results.cuts, results.wrong) = self.board.cuts();
        results.relay_lives = self.serving.is_running();
        results.partial = stopped();
    }

    /// Connects every device, and finds out what an idle one costs the relay.
    fn connect(&mut self, results: &mut Results) {
        results.relay_bytes = self.serving.memory();
        // What the first connections bring with them, buffers and threads, is not any device's.
        let (warm, all) = (WARM.min(self.crowd.len() / 2), self.crowd.len());
        self.crowd.connect(warm, PATIENCE);
        std::thread::sleep(REST);
        let before = self.serving.memory();
        results.connect_ms = self.crowd.connect(all, PATIENCE).map(millis);
        std::thread::sleep(REST);
        let more = self.serving.memory().saturating_sub(before) as f64 / 1_024.0;
        results.idle_kib = more / (all - warm) as f64;
    }

    fn live(&mut self, stop: &AtomicBool, results: &mut Results) {
        let time = Duration::from_secs(self.plan.seconds);
        let (begin, before) = (Instant::now(), self.serving.processor_time());
        let phase = self.write(time, stop);
        let used = self.serving.processor_time().saturating_sub(before);
        self.crowd.settle(PATIENCE);
        results.live = self.board.times(phase);
        results.relay_share = used.as_secs_f64() / begin.elapsed().as_secs_f64();
    }

    /// Turns without and with somebody who misbehaves.
    fn ordeal(&mut self, nth: usize, bad: Bad, stop: &AtomicBool, results: &mut Results) {
        let first = self.plan.devices + nth * bad::MEMBERS;
        let task =
            bad::Task { bad, facts: self.facts.clone(), address: self.serving.address, first };
        let mut villain = Villain::start(&self.plan.program, &task);
        let time = Duration::from_secs(self.plan.seconds);
        let turns = TURNS.max(u32::try_from(time.as_secs() / TURN.as_secs()).unwrap_or(TURNS));
        let turn = time / turns;
        let (calm, harried) = (self.phase, self.phase + 1);
        self.phase += 2;
        let before = self.serving.memory();
        let mut most = before;
        let cuts = self.board.cuts().0;
        for _ in 0..turns {
            std::thread::sleep(CALM);
            self.board.enter(calm);
            self.crowd.write(self.plan.rate, turn, stop);
            villain.say("go");
            self.board.enter(harried);
            most = most.max(self.write_watched(turn, stop));
            villain.say("rest");
        }
        let deeds = villain.end();
        let arrived = self.crowd.settle(PATIENCE);
        results.ordeals.push(Ordeal {
            bad,
            calm: self.board.times(calm),
            harried: self.board.times(harried),
            growth_bytes: most.saturating_sub(before),
            deeds,
            cuts: self.board.cuts().0 - cuts,
            arrived,
        });
    }

    /// Writes while the relay's memory is looked at; the most that it was.
    fn write_watched(&self, time: Duration, stop: &AtomicBool) -> u64 {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let mut most = 0;
                while !over.load(Ordering::Relaxed) {
                    most = self.serving.memory().max(most);
                    std::thread::sleep(Duration::from_millis(50));
                }
                most
            });
            self.crowd.write(self.plan.rate, time, stop);
            over.store(true, Ordering::Relaxed);
            watching.join().unwrap_or(0)
        })
    }

    fn soak(&mut self, stop: &AtomicBool, results: &mut Results) {
        let looks = 60.min(self.plan.soak_seconds.max(2));
        let step = Duration::from_secs_f64(self.plan.soak_seconds as f64 / looks as f64);
        let phase = self.enter();
        let (begin, mut points) = (Instant::now(), Vec::new());
        for _ in 0..looks {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            self.crowd.write(self.plan.rate, step, stop);
            let minutes = begin.elapsed().as_secs_f64() / 60.0;
            points.push((minutes, self.serving.memory() as f64 / 1_024.0));
        }
        self.crowd.settle(PATIENCE);
        results.soak = Some(Soak::of(&points, self.board.times(phase)));
    }

    fn write(&mut self, time: Duration, stop: &AtomicBool) -> usize {
        let phase = self.enter();
        self.crowd.write(self.plan.rate, time, stop);
        phase
    }

    fn enter(&mut self) -> usize {
        let phase = self.phase;
        self.board.enter(phase);
        self.phase += 1;
        phase
    }
}

/// The process of whoever misbehaves.
struct Villain {
    child: Child,
    says: Option<ChildStdin>,
    out: BufReader<std::process::ChildStdout>,
}

impl Villain {
    fn start(program: &Path, task: &bad::Task) -> Self {
        let task = serde_json::to_string(task).expect("a task is JSON");
        // Elsewhere it would have a processor of its own: here it gets what the others leave.
        let mut command = Command::new("nice");
        command.args(["-n", "10"]).arg(program).args(["lab", "load-bad"]).arg(task);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let says = child.stdin.take();
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("it says that it is ready");
        assert_eq!(line.trim(), "ready");
        Self { child, says, out }
    }

    fn say(&mut self, word: &str) {
        if let Some(says) = &mut self.says {
            // If it has ended, its deeds are missing, which shows.
            let _ = writeln!(says, "{word}");
        }
    }

    /// Ends it; what it has done.
    fn end(&mut self) -> Deeds {
        self.says = None;
        let mut line = String::new();
        let read = self.out.read_line(&mut line);
        let deeds = read.ok().and_then(|_| serde_json::from_str(&line).ok());
        deeds.unwrap_or_default()
    }
}

impl Drop for Villain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
