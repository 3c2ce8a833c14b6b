//! What is told of a run: what it came to, how often each fault struck, how much each oracle looked
//! at; and of one that failed, the history and how to repeat it.

use std::fmt::{self, Write as _};

use super::fault::Fault;
use super::operator::Decisions;
use super::plan::{Settings, Step};
use super::plant::Plant;
use super::run::Run;
use super::shrink::Shrunk;

/// Steps of a history that are printed; beyond that the command has to do.
const STEPS: usize = 60;

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settings, figures, looks, tally, .. } = self;
        let Settings { seed, devices, days, faults, operator, meetings, subscriptions, .. } =
            settings;
        writeln!(f, "seed {seed}: {devices} devices, {days} days, faults {faults}")?;
        if *meetings > 0 {
            let relay = if settings.apart { ", no relay before the end" } else { "" };
            writeln!(f, "  {} meetings{relay}", figures.meetings)?;
        }
        if *subscriptions > 0 {
            let [left_out, refused] = figures.left_out;
            writeln!(f, "  {left_out} scopes left out; {refused} not yet, for what was unsaved")?;
        }
        if settings.calls > 0 {
            let [done, refused, lost] = figures.calls;
            writeln!(f, "  {done} calls done, {refused} refused, {lost} not known any more")?;
        }
        if settings.files > 0 {
            let [attached, sent, fetched] = figures.files;
            writeln!(f, "  {attached} files attached, {sent} on the relay, {fetched} fetched")?;
        }
        writeln!(
            f,
            "  {} writes saved, {} of them written again after a fork, {} kept aside, {} not authorised; \
             {} records, {} held; {} devices in the end",
            figures.writes,
            figures.rewritten,
            figures.kept_aside,
            figures.unauthorised,
            figures.records,
            figures.held,
            figures.devices
        )?;
        writeln!(f, "  {} events, {} bytes arrived", figures.events, figures.bytes)?;
        let struck: Vec<String> = Fault::ALL
            .into_iter()
            .filter(|fault| faults.has(*fault))
            .map(|fault| format!("{fault} {}", tally.of(fault)))
            .collect();
        if !struck.is_empty() {
            writeln!(f, "  struck: {}", struck.join(", "))?;
        }
        let decided: Vec<String> = operator
            .0
            .iter()
            .map(|kind| format!("{} {}", kind.done(), self.decided.of(*kind)))
            .collect();
        if !decided.is_empty() {
            writeln!(f, "  the operator: {}", decided.join(", "))?;
        }
        writeln!(
            f,
            "  compared: {} projections, {} sets of verdicts, {} receipts, {} forecasts, \
             {} times synced",
            looks.projections, looks.verdicts, looks.receipts, looks.forecasts, looks.synced
        )?;
        let missing: Vec<String> =
            self.heard.missing(settings).iter().map(ToString::to_string).collect();
        if !missing.is_empty() {
            writeln!(f, "  never heard in a session: {}", missing.join(", "))?;
        }
        let digest: String = self.history[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        write!(f, "  history {digest}: ")?;
        match &self.violation {
            None => f.write_str("every promise was kept"),
            Some(violation) => write!(f, "BROKEN {violation}"),
        }
    }
}

/// The command that repeats a run, with those steps of its plan only.
#[must_use]
pub fn command(settings: &Settings, plant: Option<Plant>, places: Option<&[usize]>) -> String {
    let Settings { seed, devices, days, faults, operator, meetings, pauses, subscriptions, .. } =
        settings;
    let mut command = format!(
        "fieldkeep lab world --seed {seed} --devices {devices} --days {days} --faults {faults}"
    );
    if *meetings > 0 {
        command.push_str(&format!(" --meetings {meetings}"));
    }
    if *pauses > 0 {
        command.push_str(&format!(" --pauses {pauses}"));
    }
    if *subscriptions > 0 {
        command.push_str(&format!(" --subscriptions {subscriptions}"));
    }
    if settings.calls > 0 {
        let _ = write!(command, " --calls {}", settings.calls);
    }
    if settings.files > 0 {
        let _ = write!(command, " --files {}", settings.files);
    }
    if settings.apart {
        command.push_str(" --apart");
    }
    if *operator != Decisions::all() {
        let _ = write!(command, " --operator {operator}");
    }
    if let Some(plant) = plant {
        let _ = write!(command, " --plant {plant}");
    }
    if let Some(places) = places {
        let places: Vec<String> = places.iter().map(ToString::to_string).collect();
        let _ = write!(command, " --only {}", places.join(","));
    }
    command
}

/// A failure in full: what broke, the shrunk history, and the commands that repeat both.
#[must_use]
pub fn failure(
    settings: &Settings,
    plant: Option<Plant>,
    steps: &[Step],
    shrunk: &Shrunk,
) -> String {
    let mut told = String::new();
    let all = steps.len();
    let left = shrunk.places.len();
    let _ = writeln!(told, "seed {}: {}", settings.seed, shrunk.violation);
    let _ = writeln!(
        told,
        "{left} of {all} steps break it{}:",
        if shrunk.cut_short { " (there was no time to leave out more)" } else { "" }
    );
    for place in shrunk.places.iter().take(STEPS) {
        let _ = writeln!(told, "  {}", steps[*place]);
    }
    if left > STEPS {
        let _ = writeln!(told, "  … and {} more", left - STEPS);
    }
    let _ = write!(told, "repeat it:  {}", command(settings, plant, None));
    if left < all {
        let only = command(settings, plant, Some(&shrunk.places));
        let _ = write!(told, "\nshrunk:     {only}");
    }
    told
}
