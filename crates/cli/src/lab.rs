//! The laboratory's commands: the world in a box, benchmarks, and the processes that they start.
//!
//! Everything is checked before any work is done. Ctrl-C ends a benchmark after what runs at the
//! time; what was measured before is kept, marked as partial.

mod load;
mod merge;
mod sync;
mod world;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use fieldkeep_lab::benchmark::Progress;

use crate::output::Output;
use crate::stages::bar;
use crate::sync::Stop;
use fieldkeep_console::{Code, Failure, Trouble};

/// How a build has the other engines.
const BUILD: &str = "cargo build --release --features engines";

/// Commands of the laboratory.
#[derive(Debug, Subcommand)]
pub(crate) enum Lab {
    /// Run whole fleets of devices and a relay from a seed, with faults, and watch every promise.
    World(world::Args),
    /// Measure how fast engines merge, side by side on the same work.
    Merge(merge::Args),
    /// Measure what a sync costs: round trips, bytes, the relay's time.
    Sync(sync::Args),
    /// Put a relay under load on loopback: many devices, and whoever misbehaves among them.
    Load(load::Args),
    /// Whoever misbehaves in a load test.
    #[command(hide = true)]
    LoadBad {
        /// What it does, as JSON.
        task: String,
    },
    /// A bare connection that sends back what comes, for a load test.
    #[command(hide = true)]
    LoadEcho,
    /// One measurement in a process of its own.
    #[command(hide = true)]
    MergeTask {
        /// What is measured, as JSON.
        task: String,
    },
}

pub(crate) fn run(command: Lab, output: &mut Output) -> Result<ExitCode, Trouble> {
    match command {
        Lab::World(args) => world::run(&args, output),
        Lab::Merge(args) => merge::run(&args, output),
        Lab::Sync(args) => sync::run(&args, output),
        Lab::Load(args) => load::run(&args, output),
        Lab::LoadBad { task } => {
            let mut broken = Ok(());
            let done = fieldkeep_lab::load::run_bad(&task, || {
                broken = output.line("ready").and_then(|()| output.flush());
            });
            broken?;
            output.line(&done.map_err(|error| no_task(&error, "load"))?)?;
            Ok(ExitCode::SUCCESS)
        }
        Lab::LoadEcho => {
            fieldkeep_lab::load::serve_echo(|address| {
                let told = output.line(&format!("listening {address}"));
                // Whoever started it reads that, or has ended.
                let _ = told.and_then(|()| output.flush());
            });
            Ok(ExitCode::SUCCESS)
        }
        Lab::MergeTask { task } => {
            let figures = fieldkeep_lab::merge::run_task(&task);
            let figures = figures.map_err(|error| no_task(&error, "merge"))?;
            output.line(&figures)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What is said to whoever types a command that only another one starts.
fn no_task(error: &serde_json::Error, starts: &str) -> Failure {
    let remedy = format!("`fieldkeep lab {starts}` starts it");
    Failure::new(Code::Usage, format!("this is no task: {error}"), remedy)
}

/// A flag that is raised when the process is told to stop.
fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&stop);
    let failed = |error: std::io::Error| Failure::new(Code::Failure, error.to_string(), "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let mut signals = runtime.block_on(async { Stop::new() })?;
    std::thread::spawn(move || {
        runtime.block_on(signals.asked());
        raised.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}

/// Runs a benchmark whose results go to a folder: a bar shows how far it is, and each result is told
/// as it comes.
fn watched<T, R>(
    output: &mut Output,
    folder: &Path,
    head: &str,
    line: impl Fn(&T) -> String,
    run: impl FnOnce(&mut dyn FnMut(&Progress<T>)) -> io::Result<R>,
) -> Result<R, Trouble> {
    let bar = bar();
    if !output.is_json() {
        output.line(head)?;
    }
    let (mut told, mut broken) = (0, Ok(()));
    let results = run(&mut |progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(progress.next.clone().unwrap_or_default());
        let news = progress.ended.as_ref().filter(|_| progress.done > told && !output.is_json());
        if let Some(ended) = news {
            told = progress.done;
            broken = bar.suspend(|| output.line(&line(ended)).and_then(|()| output.flush()));
        }
    });
    bar.finish_and_clear();
    broken?;
    Ok(results.map_err(|error| Failure::file(folder, &error))?)
}

/// A folder for results where none is named: beside the others, unlike any before.
fn fresh_folder(name: &str) -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    PathBuf::from(format!("lab-{name}-{}", now.as_secs()))
}

/// The command line as it was typed.
fn typed() -> String {
    let words = std::env::args().skip(1).map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:".contains(c);
        if word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    });
    std::iter::once("fieldkeep".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
