//! `fieldkeep lab sync`: reads the plan, shows how far it is, and tells what came of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use fieldkeep_lab::sync::results::{Property, Row, Subject};
use fieldkeep_lab::sync::{Plan, PlanError};

use super::{BUILD, fresh_folder, stop_flag, typed, watched};
use crate::output::Output;
use fieldkeep_console::{Code, Failure, Trouble};

/// `lab sync`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Who is measured: fieldkeep, automerge, samod; all of this build if absent.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    subjects: Vec<String>,
    /// What is measured: reconnect, reconnect-forgotten, one-change, live, diverged, cold, cuts,
    /// restored; everything if absent.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    properties: Vec<String>,
    /// How many records a cold start has.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    records: usize,
    /// How many segments are in sync at a reconnect: the next power of two is taken.
    #[arg(long, value_name = "N", default_value_t = 200)]
    segments: usize,
    /// Round trip times that are added, in milliseconds.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0,50,200")]
    delays: Vec<u64>,
    /// Lose one datagram in so many; none if 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    lose_one_in: u64,
    /// Where all data come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder for results.json, results.csv and report.html; a fresh one here if absent.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args, output: &mut Output) -> Result<ExitCode, Trouble> {
    let plan = plan(args)?;
    let stop = stop_flag()?;
    let results = watched(output, &plan.out, HEAD, line, |told| plan.run(&stop, told))?;
    if output.is_json() {
        output.line(&serde_json::to_string(&results).map_err(std::io::Error::from)?)?;
    } else {
        output.line("")?;
        if results.partial {
            output.line("These results are partial: rows are missing.")?;
        }
        output.line(&plan.out.join("report.html").display().to_string())?;
    }
    let failed = results.rows.iter().any(|row| row.failed);
    let code = if stop.load(Ordering::Relaxed) {
        Code::Interrupted.number()
    } else if failed {
        Code::Failure.number()
    } else {
        0
    };
    Ok(ExitCode::from(code))
}

fn plan(args: &Args) -> Result<Plan, Trouble> {
    let built = |subject: &Subject| *subject != Subject::Samod || cfg!(feature = "engines");
    let subjects = match args.subjects.as_slice() {
        [] => Subject::ALL.into_iter().filter(built).collect(),
        named => named.iter().map(|name| name.parse()).collect::<Result<_, _>>().map_err(usage)?,
    };
    let properties = match args.properties.as_slice() {
        [] => Property::ALL.to_vec(),
        named => named.iter().map(|name| name.parse()).collect::<Result<_, _>>().map_err(usage)?,
    };
    let out = args.out.clone().unwrap_or_else(|| fresh_folder("sync"));
    let plan = Plan {
        subjects,
        properties,
        records: args.records,
        segments: args.segments,
        delays: args.delays.clone(),
        lose_one_in: args.lose_one_in,
        seed: args.seed,
        out: crate::args::absolute(&out)?,
        command: typed(),
        program: std::env::current_exe()?,
    };
    plan.check().map_err(usage)?;
    Ok(plan)
}

/// What is wrong with a plan, and what to do about it.
fn usage(error: PlanError) -> Failure {
    let remedy = match &error {
        PlanError::NotBuilt(_) => format!("build it with `{BUILD}`"),
        PlanError::Folder { .. } => "name a folder that can be written with --out".to_owned(),
        PlanError::UnknownSubject(_)
        | PlanError::UnknownProperty { .. }
        | PlanError::Size(_)
        | PlanError::Delays => String::new(),
    };
    Failure::new(Code::Usage, error.to_string(), remedy)
}

const HEAD: &str =
    "property            subject    round trips       bytes  of raw  relay (ms)  note";

fn line(row: &Row) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let failed = if row.failed { "failed: " } else { "" };
    let again = row.redundant_bytes.map(|bytes| format!("{bytes:.0} bytes again for each cut; "));
    format!(
        "{:19} {:10} {:>11} {:>11} {:>7} {:>11}  {failed}{}{}",
        row.property.name(),
        row.subject.name(),
        or_dash(row.round_trips.map(|trips| format!("{trips:.2}"))),
        or_dash(row.bytes.map(|bytes| format!("{bytes:.0}"))),
        or_dash(row.of_raw().map(|share| format!("{share:.2}"))),
        or_dash(row.relay_ms.map(|ms| format!("{ms:.2}"))),
        again.unwrap_or_default(),
        row.note
    )
}
