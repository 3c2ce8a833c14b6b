//! `fieldkeep lab merge`: reads the plan, shows how far it is, and tells what came of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fieldkeep_lab::merge::results::{Outcome, Results, Run};
use fieldkeep_lab::merge::{EngineName, Limits, Plan, PlanError, Program, WorkloadName};

use super::{BUILD, fresh_folder, stop_flag, typed, watched};
use crate::output::Output;
use fieldkeep_console::{Code, Failure, Trouble};

/// `lab merge`.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub(crate) struct Args {
    /// Who is measured; all engines of this build if absent.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    engines: Vec<String>,
    /// What is measured; everything if absent.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    workloads: Vec<String>,
    /// How many records, one number or several.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1000")]
    records: Vec<usize>,
    /// How many actors write them.
    #[arg(long, value_name = "K", default_value_t = 10)]
    devices: usize,
    /// Where all data come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder for results.json, results.csv and report.html; a fresh one here if absent.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What each process may take in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::STANDARD.time.as_secs())]
    time_limit: u64,
    /// What each process may have in MiB.
    #[arg(long, value_name = "MIB", default_value_t = Limits::STANDARD.memory >> 20)]
    memory_limit: u64,
}

/// The names that can be typed, with what they mean.
fn help() -> String {
    let engines = EngineName::ALL.iter().map(|engine| {
        let absent = if engine.is_built() { "" } else { " (not in this build)" };
        format!("  {:20}{}{absent}\n", engine.name(), engine.about())
    });
    let workloads = WorkloadName::ALL.iter();
    let workloads = workloads.map(|work| format!("  {:20}{}\n", work.name(), work.about()));
    format!(
        "Engines:\n{}\nWorkloads:\n{}\nThe other engines come with `{BUILD}`.",
        engines.collect::<String>(),
        workloads.collect::<String>()
    )
}

pub(super) fn run(args: &Args, output: &mut Output) -> Result<ExitCode, Trouble> {
    let plan = plan(args)?;
    let stop = stop_flag()?;
    let executable = std::env::current_exe()?;
    let program = Program {
        executable,
        arguments: vec!["lab".into(), "merge-task".into()],
        limits: Limits {
            memory: args.memory_limit << 20,
            time: Duration::from_secs(args.time_limit),
        },
    };
    let results = watched(output, &plan.out, HEAD, row, |told| plan.run(&program, &stop, told))?;
    if output.is_json() {
        output.line(&serde_json::to_string(&results).map_err(std::io::Error::from)?)?;
    } else {
        conclude(&plan, &results, output)?;
    }
    Ok(code(&results, stop.load(Ordering::Relaxed)))
}

fn code(results: &Results, interrupted: bool) -> ExitCode {
    let wrong = !results.all_agree() || results.runs.iter().any(|r| r.outcome == Outcome::Failed);
    let code = match (interrupted, wrong) {
        (true, _) => Code::Interrupted.number(),
        (false, true) => Code::Failure.number(),
        (false, false) => 0,
    };
    ExitCode::from(code)
}

fn plan(args: &Args) -> Result<Plan, Failure> {
    let built = || EngineName::ALL.into_iter().filter(|engine| engine.is_built());
    let engines: Vec<EngineName> = match args.engines.as_slice() {
        [] => built().collect(),
        named => named.iter().map(|name| name.parse()).collect::<Result<_, _>>().map_err(usage)?,
    };
    let workloads: Vec<WorkloadName> = match args.workloads.as_slice() {
        [] => WorkloadName::ALL.to_vec(),
        named => named.iter().map(|name| name.parse()).collect::<Result<_, _>>().map_err(usage)?,
    };
    let out = args.out.clone().unwrap_or_else(|| fresh_folder("merge"));
    let mut plan = Plan {
        engines,
        workloads,
        records: args.records.clone(),
        devices: args.devices,
        seed: args.seed,
        out,
        command: typed(),
    };
    if args.workloads.is_empty() {
        for workload in plan.without_absent_traces() {
            let name = workload.name();
            crate::note(&format!("{name} is left out: its trace is not there (FIELDKEEP_DATA)"));
        }
    }
    plan.check().map_err(usage)?;
    Ok(plan)
}

/// What is wrong with a plan, and what to do about it.
fn usage(error: PlanError) -> Failure {
    let remedy = match &error {
        PlanError::UnknownEngine { .. } | PlanError::UnknownWorkload { .. } => {
            "`fieldkeep lab merge --help` tells what each is".to_owned()
        }
        PlanError::NotBuilt(_) => format!("build it with `{BUILD}`"),
        PlanError::Folder { .. } => "name a folder that can be written with --out".to_owned(),
        PlanError::Trace(_) => "set FIELDKEEP_DATA to the folder of the test data".to_owned(),
        PlanError::Records { .. } | PlanError::Devices { .. } | PlanError::Nothing => String::new(),
    };
    Failure::new(Code::Usage, error.to_string(), remedy)
}

fn conclude(plan: &Plan, results: &Results, output: &mut Output) -> Result<(), Trouble> {
    output.line("")?;
    output.line(&results.agreement_line())?;
    if results.partial {
        output.line("These results are partial: runs are missing.")?;
    }
    output.line(&plan.out.join("report.html").display().to_string())?;
    Ok(())
}

/// What stands above the rows.
const HEAD: &str = "compared workload            records engine            time (ms)  sent (KB)  \
                    heap (MB)  result";

/// A run as a line, told when it has ended.
fn row(run: &Run) -> String {
    let figure = |name: &str, unit: f64, places: usize| {
        let figure = run.metrics.get(name);
        figure.map_or_else(|| "-".to_owned(), |figure| format!("{:.places$}", figure / unit))
    };
    let time = run.headline().map_or_else(|| "-".to_owned(), |(_, ms)| format!("{ms:.2}"));
    let records = if run.records == 0 { "-".to_owned() } else { run.records.to_string() };
    let note = if run.note.is_empty() { String::new() } else { format!(": {}", run.note) };
    format!(
        "{:8} {:19} {records:>8} {:15} {time:>11} {:>10} {:>10}  {}{note}",
        run.comparison.name(),
        run.workload.name(),
        run.engine.name(),
        figure("wire_packed_bytes", 1e3, 1),
        figure("heap_peak_bytes", 1e6, 2),
        run.outcome.word(),
    )
}
