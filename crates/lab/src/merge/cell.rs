//! One measurement: an engine, a workload and a number of records, in a process of its own.
//!
//! The process is this program again. Its parent watches how much memory it has and how long it
//! takes, and ends it beyond the limits: that is the result then, as a panic is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::engine::EngineName;
use super::measure::{Metrics, resident};
use super::results::Outcome;
use super::workload::{self, WorkloadName};
use super::{Comparison, durable};

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What a measurement may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory as the system counts it, in bytes.
    pub memory: u64,
    /// From the start of a step to its end.
    pub time: Duration,
}

impl Limits {
    /// 8 GiB and ten minutes.
    pub const STANDARD: Self = Self { memory: 8 << 30, time: Duration::from_secs(600) };
}

/// What a process is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Make what the measurement will need.
    Prepare,
    /// Measure.
    Measure,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Who is measured.
    pub engine: EngineName,
    /// At what.
    pub workload: WorkloadName,
    /// In memory, or durable.
    pub comparison: Comparison,
    /// How many records.
    pub records: usize,
    /// How many actors make them.
    pub devices: usize,
    /// Where everything comes from.
    pub seed: u64,
    /// Where the steps leave files for each other.
    pub folder: PathBuf,
}

impl Cell {
    /// Does a step in this process. Panics when the engine fails.
    #[must_use]
    pub fn run(&self, step: Step) -> Metrics {
        fs::create_dir_all(&self.folder).expect("the scratch folder can be written");
        match (step, self.comparison) {
            (Step::Prepare, Comparison::Memory) => workload::prepare(self),
            (Step::Prepare, Comparison::Durable) => durable::prepare(self),
            (Step::Measure, Comparison::Memory) => return workload::measure(self),
            (Step::Measure, Comparison::Durable) => return durable::measure(self),
        }
        Metrics::default()
    }

    /// Whether a step left such a file.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Leaves a file for a later step: whole, or not at all.
    pub(crate) fn keep(&self, name: &str, bytes: &[u8]) {
        let partial = self.path(&format!("{name}.partial"));
        fs::write(&partial, bytes).expect("the scratch folder takes it");
        fs::rename(&partial, self.path(name)).expect("the scratch folder takes it");
    }

    /// Leaves a folder for later steps, whole or not at all; one that is there already stays.
    pub(crate) fn keep_folder(&self, name: &str, fill: impl FnOnce(&Path)) {
        let (folder, partial) = (self.path(name), self.path(&format!("{name}.partial")));
        if folder.exists() {
            return;
        }
        // A step that was ended may have left it.
        let _ = fs::remove_dir_all(&partial);
        fill(&partial);
        fs::rename(&partial, &folder).expect("the scratch folder takes it");
    }

    /// What an earlier step left.
    pub(crate) fn kept(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("an earlier step left it")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// How a step in a process of its own ended.
pub(crate) type Ended = Result<Metrics, (Outcome, String)>;

/// Runs a step in a process of its own. Ends it when it is told to stop.
pub(crate) fn start(cell: &Cell, step: Step, program: &Program, stop: &AtomicBool) -> Ended {
    let task = serde_json::to_string(&(cell, step)).expect("a cell is JSON");
    let mut child = program
        .command()
        .arg(task)
        .spawn()
        .map_err(|error| (Outcome::Failed, format!("the process did not start: {error}")))?;
    // Both pipes are read while the process runs: a full one would hold it up for ever.
    let out = read_all(child.stdout.take());
    let err = read_all(child.stderr.take());
    let ended = watch(&mut child, program.limits, stop);
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    if !ended? {
        return Err((Outcome::Failed, last_words(&err)));
    }
    serde_json::from_str(&out).map_err(|error| (Outcome::Failed, error.to_string()))
}

/// The program that is started for each step, and what a step may use.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable.
    pub executable: PathBuf,
    /// Its arguments before the task.
    pub arguments: Vec<String>,
    /// What each process may use.
    pub limits: Limits,
}

impl Program {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

fn read_all<R: std::io::Read + Send + 'static>(pipe: Option<R>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut pipe) = pipe {
            // What could be read until then is told.
            let _ = pipe.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// Waits for a process within limits, and tells whether it went well.
fn watch(child: &mut Child, limits: Limits, stop: &AtomicBool) -> Result<bool, (Outcome, String)> {
    let begin = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if !stop.load(Ordering::Relaxed) => return Ok(status.success()),
            Ok(_) => {}
            Err(error) => return Err((Outcome::Failed, error.to_string())),
        }
        let memory = resident(child.id()).unwrap_or(0);
        let ended = if stop.load(Ordering::Relaxed) {
            Some((Outcome::Interrupted, String::new()))
        } else if memory > limits.memory {
            let said = format!("more than {} MiB", limits.memory >> 20);
            Some((Outcome::OverMemory, said))
        } else if begin.elapsed() > limits.time {
            Some((Outcome::OverTime, format!("more than {} s", limits.time.as_secs())))
        } else {
            None
        };
        if let Some(ended) = ended {
            // It may have ended by itself meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            return Err(ended);
        }
        thread::sleep(LOOK);
    }
}

/// What a process said last, without the advice to look at a backtrace.
fn last_words(err: &str) -> String {
    let lines = err.lines().filter(|line| !line.contains("RUST_BACKTRACE") && !line.is_empty());
    let lines: Vec<_> = lines.collect();
    let last = &lines[lines.len().saturating_sub(3)..];
    let mut words = last.join(" ");
    words.truncate(words.char_indices().nth(400).map_or(words.len(), |(at, _)| at));
    if words.is_empty() { "the process ended without a word".to_owned() } else { words }
}

/// The task of a process that was started for it: its figures as JSON.
///
/// # Errors
/// When the text is no task.
pub fn run_task(task: &str) -> Result<String, serde_json::Error> {
    let (cell, step): (Cell, Step) = serde_json::from_str(task)?;
    serde_json::to_string(&cell.run(step))
}

/// The folder in which the steps of an engine with so many records leave their files.
pub(crate) fn folder(
    scratch: &Path,
    comparison: Comparison,
    engine: EngineName,
    size: usize,
) -> PathBuf {
    scratch.join(format!("{}-{}-{size}", comparison.name(), engine.name()))
}
