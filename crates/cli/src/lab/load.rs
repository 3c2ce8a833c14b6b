//! `fieldkeep lab load`: reads the plan, says what goes on, and prints what came of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use fieldkeep_lab::load::{Bad, Plan};

use super::{bar, fresh_folder, stop_flag, typed};
use crate::output::Output;
use fieldkeep_console::{Code, Failure, Trouble};

/// `lab load`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many devices are connected.
    #[arg(long, value_name = "N", default_value_t = 100)]
    devices: usize,
    /// How many changes a second they write, all together.
    #[arg(long, value_name = "CHANGES", default_value_t = 50)]
    rate: u64,
    /// How long they write with nobody misbehaving, and with each that does.
    #[arg(long, value_name = "S", default_value_t = 10)]
    seconds: u64,
    /// Who misbehaves: strangers, floods, slow, garbage, hostile; nobody if absent.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    bad: Vec<Bad>,
    /// How long they write while the relay's memory is watched; not at all if 0.
    #[arg(long, value_name = "S", default_value_t = 0)]
    soak: u64,
    /// What loaded documents and indexes may take in the relay, as `memory_bytes` of its limits does: where
    /// little is allowed, a soak shows early what follows once it is full. As by default if absent.
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,
    /// Measure no bare floors beside it.
    #[arg(long)]
    no_floors: bool,
    /// The folder for the relay and the devices, which is removed at the end: it says on which disk. A fresh
    /// one here if absent.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args, output: &mut Output) -> Result<ExitCode, Trouble> {
    let folder = args.dir.clone().unwrap_or_else(|| fresh_folder("load"));
    let plan = Plan {
        devices: args.devices,
        rate: args.rate,
        seconds: args.seconds,
        bad: args.bad.clone(),
        soak_seconds: args.soak,
        memory_mib: args.memory,
        floors: !args.no_floors,
        folder: crate::args::absolute(&folder)?,
        program: std::env::current_exe()?,
        command: typed(),
    };
    let unfit =
        |error: fieldkeep_lab::load::PlanError| Failure::new(Code::Usage, error.to_string(), "");
    plan.check().map_err(unfit)?;
    let stop = stop_flag()?;
    let bar = bar();
    let results = plan.run(&stop, &mut |what| bar.set_message(what.to_owned()));
    bar.finish_and_clear();
    // Large, and of no use to anybody.
    let _ = std::fs::remove_dir_all(&plan.folder);
    if output.is_json() {
        output.line(&serde_json::to_string(&results).map_err(std::io::Error::from)?)?;
    } else {
        output.line(results.table().trim_end())?;
    }
    let code = if stop.load(Ordering::Relaxed) {
        Code::Interrupted.number()
    } else if results.is_sound() {
        0
    } else {
        Code::Failure.number()
    };
    Ok(ExitCode::from(code))
}
