//! `lab world`: fleets of devices in one thread from a seed. Prints what each run came to, and of one
//! that breaks a promise the shrunk history and the command that repeats it.

use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fieldkeep_lab::world::{
    Decision, Decisions, Faults, Plant, Run, Settings, Step, Tally, plan, report, run_steps, shrink,
};
use serde_json::json;

use crate::output::Output;
use fieldkeep_console::{Code, Failure, Trouble};

/// How long a failure is shrunk, unless it is told otherwise.
const SHRINK_S: u64 = 60;
/// More devices than any organisation of this size has.
const DEVICES: usize = 5_000;
/// A year.
const DAYS: usize = 366;

/// What `lab world` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What everything follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Many runs: from the first seed to the one before the last.
    #[arg(long, value_name = "A..B", value_parser = seeds, conflicts_with = "seed")]
    seeds: Option<Range<u64>>,
    /// How many devices there are.
    #[arg(long, default_value_t = 200)]
    devices: usize,
    /// For how many days they work, forty writes a device and day.
    #[arg(long, default_value_t = 3)]
    days: usize,
    /// What goes wrong: all, none, or kinds with commas between.
    #[arg(long, default_value = "all")]
    faults: Faults,
    /// What the operator decides: all, none, or kinds with commas between.
    #[arg(long, default_value = "all")]
    operator: Decisions,
    /// How often a device comes near another one in a day, and they exchange what they have.
    #[arg(long, default_value_t = 0)]
    meetings: usize,
    /// How often a person pauses a type in a day, and resumes everything later.
    #[arg(long, default_value_t = 0)]
    pauses: usize,
    /// How often a person leaves a scope out in a day, and takes everything again later.
    #[arg(long, default_value_t = 0)]
    subscriptions: usize,
    /// How often a person has the relay do something at once in a day.
    #[arg(long, default_value_t = 0)]
    calls: usize,
    /// How often a person attaches a file in a day.
    #[arg(long, default_value_t = 0)]
    files: usize,
    /// No relay before the end: then one device meets it, and the others only each other.
    #[arg(long)]
    apart: bool,
    /// A mistake to plant in the shells, to see it found.
    #[arg(long)]
    plant: Option<Plant>,
    /// The places in the plan of the steps that happen; all if absent.
    #[arg(long, value_name = "PLACES", value_delimiter = ',', conflicts_with = "seeds")]
    only: Vec<usize>,
    /// How long a failure is shrunk, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = SHRINK_S)]
    shrink: u64,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    let range = parsed.filter(|range: &Range<u64>| !range.is_empty());
    range.ok_or_else(|| "write it as 1..100: the first seed, and the one after the last".to_owned())
}

pub(super) fn run(args: &Args, output: &mut Output) -> Result<ExitCode, Trouble> {
    let possible = (1..=DEVICES).contains(&args.devices) && (1..=DAYS).contains(&args.days);
    if !possible {
        let text = format!("a world has 1 to {DEVICES} devices and 1 to {DAYS} days");
        return Err(Failure::new(Code::Usage, text, "give other numbers").into());
    }
    let seeds = args.seeds.clone().unwrap_or(args.seed..args.seed.saturating_add(1));
    let mut failed = Vec::new();
    let (mut struck, mut decided) = (Tally::default(), Tally::default());
    for seed in seeds {
        let settings = settings(args, seed);
        if !one(args, &settings, (&mut struck, &mut decided), output)? {
            failed.push(seed.to_string());
        }
    }
    if !failed.is_empty() {
        let text = format!("promises were broken: seed {}", failed.join(", "));
        return Err(Failure::new(Code::Failure, text, "the commands above repeat it").into());
    }
    // What a part of a plan leaves out need not strike, and not every small world has room for all.
    let Settings { faults, operator, .. } = settings(args, args.seed);
    let missing = struck.missing(&faults.0).into_iter().map(|fault| fault.to_string());
    let undone = decided.missing(&operator.0).into_iter().map(|kind| kind.word().to_owned());
    let missing = missing.chain(undone);
    let missing: Vec<String> = missing.filter(|_| args.only.is_empty()).collect();
    if missing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let text = format!("never happened, so nothing was learnt of them: {}", missing.join(", "));
    Err(Failure::new(Code::Failure, text, "take more devices, days or seeds").into())
}

/// What a world of that seed is made of.
fn settings(args: &Args, seed: u64) -> Settings {
    let Args { devices, days, meetings, pauses, subscriptions, calls, files, .. } = *args;
    let apart = Settings { calls, files, ..Settings::apart(seed, devices, days) };
    if args.apart {
        let mut faults = args.faults.clone();
        faults.0.retain(|fault| apart.faults.has(*fault));
        let meetings = if meetings == 0 { apart.meetings } else { meetings };
        return Settings { faults, meetings, pauses, subscriptions, ..apart };
    }
    let (faults, operator) = (args.faults.clone(), args.operator.clone());
    let beside = Settings { faults, operator, meetings, pauses, ..apart };
    Settings { subscriptions, apart: false, ..beside }
}

/// One seed; whether every promise was kept.
fn one(
    args: &Args,
    settings: &Settings,
    (struck, decided): (&mut Tally, &mut Tally<Decision>),
    output: &mut Output,
) -> Result<bool, Trouble> {
    let mut steps = plan(settings);
    if !args.only.is_empty() {
        let only = args.only.iter().filter_map(|place| steps.get(*place));
        steps = only.copied().collect();
    }
    let began = Instant::now();
    let run = run_steps(settings, args.plant, steps.clone());
    let took = began.elapsed();
    struck.add(&run.tally);
    decided.add(&run.decided);
    tell(&run, took, output)?;
    if let Some(violation) = &run.violation
        && args.only.is_empty()
    {
        let began = Instant::now();
        let patience = Duration::from_secs(args.shrink);
        let shrunk = shrink(settings, args.plant, &steps, violation, || began.elapsed() < patience);
        tell_failure(args, settings, &steps, &shrunk, output)?;
    }
    output.flush()?;
    Ok(run.violation.is_none())
}

fn tell(run: &Run, took: Duration, output: &mut Output) -> Result<(), Trouble> {
    let seconds = took.as_secs_f64();
    let rate = run.settings.device_days() as f64 * 60.0 / seconds;
    if output.is_json() {
        let broken = run.violation.as_ref().map(ToString::to_string);
        let struck = run.tally.0.iter().map(|(fault, n)| (fault.to_string(), json!(n)));
        let struck: serde_json::Map<_, _> = struck.collect();
        let decided = run.decided.0.iter().map(|(kind, n)| (kind.done().to_owned(), json!(n)));
        let decided: serde_json::Map<_, _> = decided.collect();
        let told = json!({
            "seed": run.settings.seed, "devices": run.settings.devices, "days": run.settings.days,
            "seconds": seconds, "device_days_a_minute": rate, "writes": run.figures.writes,
            "struck": struck, "decided": decided, "broken": broken,
        });
        output.object("world", &told)?;
        return Ok(());
    }
    output.line(&run.to_string())?;
    output.line(&format!("  took {seconds:.1} s: {rate:.0} device-days a minute"))?;
    Ok(())
}

fn tell_failure(
    args: &Args,
    settings: &Settings,
    steps: &[Step],
    shrunk: &fieldkeep_lab::world::Shrunk,
    output: &mut Output,
) -> Result<(), Trouble> {
    let told = report::failure(settings, args.plant, steps, shrunk);
    if output.is_json() {
        let broken = json!({"seed": settings.seed, "steps": shrunk.places, "told": told});
        output.object("world-failure", &broken)?;
        return Ok(());
    }
    output.line(&told)?;
    Ok(())
}
