//! `relay catalog`: what a file comes to, what it would change, publishing it, and going back.

use std::path::Path;
use std::process::ExitCode;

use fieldkeep_catalog::Catalog as Parsed;
use fieldkeep_console::shape::catalog::{
    Cause, Change, Checked, Counts, Diff, Follows, Kept, Standing,
};
use fieldkeep_console::{Failure, Trouble};
use fieldkeep_replica::ReplicaError;
use serde::Serialize;

use super::quarantine::operator;
use crate::access::Access;
use crate::args::Directory;
use crate::args::catalog::{Catalog, Publish};
use crate::attention::records;
use crate::output::{Align, Output, Table, safe, several};
use crate::request::{Request, Tried};
use crate::response::Response;

/// Causes that are shown.
const CAUSES: usize = 20;
/// Devices that are shown.
const DEVICES: usize = 20;
/// The exit code where a catalog cannot be published.
const UNFIT: u8 = 4;

#[derive(Serialize)]
struct Published {
    number: u64,
    changed: bool,
}

#[derive(Serialize)]
struct Listed<'k> {
    catalogs: &'k [Kept],
}

pub(super) fn run(
    directory: &Path,
    command: Catalog,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    match command {
        Catalog::Check { .. } | Catalog::Module { .. } => {
            unreachable!("it needs no directory, and was taken care of")
        }
        Catalog::Diff { catalog, number } => {
            let tried = match (catalog, number) {
                (Some(path), _) => Tried::Source(read(&path)?),
                (None, number) => Tried::Number(number.unwrap_or_default()),
            };
            return diff(directory, tried, output);
        }
        Catalog::Publish(wish) => publish(directory, &wish, output)?,
        Catalog::Rollback { number, note } => {
            let request = Request::RollBack(number, note, operator());
            told(Access::new(directory)?.ask(request)?, output)?;
        }
        Catalog::List => list(directory, output)?,
        Catalog::Status => status(directory, output)?,
        Catalog::Show { number } => show(directory, number, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// 0 for a catalog that could be published.
fn fitness(problems: &[String]) -> ExitCode {
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(UNFIT) }
}

#[derive(Serialize)]
struct Module<'m> {
    name: &'m str,
    catalog: &'m str,
}

/// Prints a module as it is to stand in a catalog.
pub(super) fn module(
    path: &Path,
    name: Option<String>,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let wasm = std::fs::read(path).map_err(|error| Failure::file(path, &error))?;
    let stem = || path.file_stem().map(|stem| stem.to_string_lossy().replace('-', "_"));
    let name = name.or_else(stem).unwrap_or_default();
    let text = Parsed::module_text(&name, &wasm).map_err(ReplicaError::Catalog);
    let text = text.map_err(Failure::from)?;
    if output.is_json() {
        output.object("relay-catalog-module", &Module { name: &name, catalog: &text })?;
    } else {
        output.line(text.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error))
}

pub(super) fn publish(
    directory: &Path,
    wish: &Publish,
    output: &mut Output,
) -> Result<(), Trouble> {
    let request = Request::Publish(read(&wish.catalog)?, wish.note.clone(), operator());
    told(Access::new(directory)?.ask(request)?, output)
}

/// Tells what publishing came to.
fn told(response: Response, output: &mut Output) -> Result<(), Trouble> {
    let Response::Published { number, changed } = response else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("relay-publish", &Published { number, changed })?;
    } else if changed {
        output.line(&format!("published catalog {number}: connected devices have it"))?;
        output.line("records of the types that it changes are judged again in the background")?;
        output.line("how far that is: fieldkeep relay catalog status")?;
    } else {
        output.line(&format!("it is the catalog in force, number {number}: nothing to do"))?;
    }
    Ok(())
}

/// Checks a file, by itself and against what was published in a directory that is named.
pub(super) fn check(
    dir: &Directory,
    path: &Path,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let source = read(path)?;
    let parsed = Parsed::parse(&source).map_err(ReplicaError::Catalog).map_err(Failure::from)?;
    fieldkeep_relay::check_queries(&parsed).map_err(Failure::from)?;
    let mut checked = Checked::of(&parsed);
    if let Ok(directory) = dir.path() {
        let mut access = Access::new(&directory)?;
        let Response::CatalogFollows(follows) = access.ask(Request::CatalogFollows(source))? else {
            return Err(Failure::unexpected().into());
        };
        checked.follows = Some(follows);
    }
    if output.is_json() {
        output.object("relay-catalog-check", &checked)?;
    } else {
        print_check(output, &checked)?;
    }
    Ok(checked.follows.map_or(ExitCode::SUCCESS, |follows| fitness(&follows.problems)))
}

fn print_check(output: &mut Output, checked: &Checked) -> Result<(), Trouble> {
    let (left, right) = (Align::Left, Align::Right);
    let columns =
        [("TYPE", left), ("RULE", left), ("STEPS", right), ("BUDGET", right), ("REMARK", left)];
    let mut table = Table::new(&columns);
    for ty in &checked.types {
        let fields = several(ty.fields, "field");
        table.row(vec![ty.ty.clone(), "-".into(), "-".into(), "-".into(), fields]);
        for rule in &ty.rules {
            let share = |budget: u64| format!("{:.1} %", rule.steps as f64 * 100.0 / budget as f64);
            let (steps, share) = rule
                .budget
                .map_or(("-".into(), "-".into()), |budget| (rule.steps.to_string(), share(budget)));
            let remark = rule.remark.clone().unwrap_or_default();
            table.row(vec![ty.ty.clone(), rule.name.clone(), steps, share, remark]);
        }
    }
    table.print(output.writer())?;
    match checked.dead_rules {
        0 => output.line("no rule is known to decide nothing")?,
        1 => output.line("1 rule decides nothing")?,
        dead => output.line(&format!("{dead} rules decide nothing"))?,
    }
    match &checked.follows {
        None => {
            output.line("it can be published where nothing was; name a directory to compare")?
        }
        Some(Follows { number: 0, .. }) => output.line("it can be published: nothing was yet")?,
        Some(Follows { number, same: true, .. }) => {
            output.line(&format!("it is the catalog in force, number {number}"))?;
        }
        Some(Follows { number, problems, .. }) if problems.is_empty() => {
            output.line(&format!("it can follow catalog {number}, the one in force"))?;
        }
        Some(Follows { number, problems, .. }) => {
            output.line(&format!("it cannot follow catalog {number}, the one in force:"))?;
            unfit(output, problems)?;
        }
    }
    Ok(())
}

fn unfit(output: &mut Output, problems: &[String]) -> Result<(), Trouble> {
    for problem in problems {
        output.line(&format!("  {}", safe(problem)))?;
    }
    Ok(())
}

fn diff(directory: &Path, tried: Tried, output: &mut Output) -> Result<ExitCode, Trouble> {
    let Response::CatalogDiff(diff) = Access::new(directory)?.ask(Request::CatalogDiff(tried))?
    else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("relay-catalog-diff", &diff)?;
    } else {
        print_diff(output, &diff)?;
    }
    Ok(fitness(&diff.problems))
}

fn print_diff(output: &mut Output, diff: &Diff) -> Result<(), Trouble> {
    if diff.same {
        output.line(&format!("it is the catalog in force, number {}", diff.number))?;
    }
    for change in &diff.changes {
        output.line(&named(change))?;
    }
    output.line(&format!(
        "against catalog {}, on {} of the types that it changes: {}",
        diff.number,
        records(diff.records),
        words(diff.counts)
    ))?;
    for (ty, counts) in diff.types.iter().filter(|_| diff.types.len() > 1) {
        output.line(&format!("  {ty}: {}", words(*counts)))?;
    }
    for cause in diff.causes.iter().take(CAUSES) {
        print_cause(output, cause)?;
    }
    if diff.causes.len() > CAUSES {
        output.line(&format!("{} more with --json", diff.causes.len() - CAUSES))?;
    }
    if diff.unmerged > 0 {
        output.line(&format!(
            "not merged yet, so that what becomes of it is not in it: {}",
            several(diff.unmerged, "change")
        ))?;
    }
    if diff.renewing > 0 {
        output.line(&format!(
            "counted as well is what catalog {} does to {} that it has not judged yet",
            diff.number,
            records(diff.renewing)
        ))?;
    }
    print_devices(output, diff)?;
    if diff.problems.is_empty() {
        output.line("nothing was published")?;
    } else {
        output.line("it cannot be published as it is:")?;
        unfit(output, &diff.problems)?;
    }
    Ok(())
}

fn named(Change { ty, rule, field, change }: &Change) -> String {
    match (rule, field) {
        (Some(rule), _) => format!("{change}: rule {} of {ty}", safe(rule)),
        (_, Some(field)) => format!("{change}: field {field} of {ty}"),
        (None, None) => format!("{change}: type {ty}"),
    }
}

/// How many would be otherwise, in words.
fn words(Counts { held, waiting, released, otherwise }: Counts) -> String {
    let parts = [
        (held, "would be held"),
        (waiting, "would wait"),
        (released, "would be released"),
        (otherwise, "would stay, for other reasons"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    let said: Vec<_> = parts.map(|(count, words)| format!("{count} {words}")).collect();
    if said.is_empty() { "nothing would change".to_owned() } else { said.join(", ") }
}

fn print_cause(output: &mut Output, cause: &Cause) -> Result<(), Trouble> {
    let of = match (&cause.rule, &cause.field) {
        (Some(rule), _) => format!("rule {} of {}", safe(rule), cause.ty),
        (_, Some(field)) => {
            format!("{} of {} ({})", safe(field), cause.ty, cause.reason.replace('_', " "))
        }
        (None, None) => format!("{} ({})", cause.ty, cause.reason.replace('_', " ")),
    };
    output.line(&format!("{of}: {}", words(cause.counts)))?;
    for sentence in &cause.sentences {
        output.line(&format!("  {}: {}", sentence.records, safe(&sentence.text)))?;
    }
    for example in &cause.examples {
        let (record, before, after) = (safe(&example.record), &example.before, &example.after);
        output.line(&format!("  {record}: {before}, would be {after}"))?;
    }
    Ok(())
}

fn print_devices(output: &mut Output, diff: &Diff) -> Result<(), Trouble> {
    if diff.devices.is_empty() {
        return Ok(());
    }
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new(&[
        ("DEVICE", left),
        ("VERSION", left),
        ("CATALOG", right),
        ("HELD", right),
        ("WAITING", right),
        ("RELEASED", right),
        ("SEES IT", left),
    ]);
    for device in diff.devices.iter().take(DEVICES) {
        let Counts { held, waiting, released, .. } = device.counts;
        let catalog = device.catalog.map_or_else(|| "-".to_owned(), |number| number.to_string());
        table.row(vec![
            safe(&device.device),
            device.software.as_deref().map_or_else(|| "-".to_owned(), safe),
            catalog,
            held.to_string(),
            waiting.to_string(),
            released.to_string(),
            if device.connected { "at once" } else { "with its next sync" }.to_owned(),
        ]);
    }
    table.print(output.writer())?;
    if diff.devices.len() > DEVICES {
        output.line(&format!("{} more devices with --json", diff.devices.len() - DEVICES))?;
    }
    Ok(())
}

fn list(directory: &Path, output: &mut Output) -> Result<(), Trouble> {
    let Response::Catalogs(catalogs) = Access::new(directory)?.ask(Request::Catalogs)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("relay-catalog-list", &Listed { catalogs: &catalogs })?;
        return Ok(());
    }
    if catalogs.is_empty() {
        output.line("no catalog was published yet")?;
        return Ok(());
    }
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new(&[
        ("NUMBER", right),
        ("PUBLISHED", left),
        ("HASH", left),
        ("HELD", right),
        ("WAITING", right),
        ("RELEASED", right),
        ("NOTE", left),
    ]);
    for kept in &catalogs {
        let mark = if kept.in_force { "in force" } else { "" };
        let parts = [mark.to_owned(), safe(&kept.note)].into_iter();
        let note: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
        table.row(vec![
            kept.number.to_string(),
            kept.published_at.clone().unwrap_or_else(|| "-".to_owned()),
            kept.hash[..8].to_owned(),
            kept.held.to_string(),
            kept.waiting.to_string(),
            kept.released.to_string(),
            note.join(": "),
        ]);
    }
    table.print(output.writer())?;
    Ok(())
}

#[derive(Serialize)]
struct Shown<'s> {
    number: u64,
    catalog: &'s str,
}

fn show(directory: &Path, number: Option<u64>, output: &mut Output) -> Result<(), Trouble> {
    let request = Request::CatalogSource(number);
    let Response::CatalogSource(number, source) = Access::new(directory)?.ask(request)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("relay-catalog-show", &Shown { number, catalog: &source })?;
    } else {
        output.line(source.trim_end())?;
    }
    Ok(())
}

fn status(directory: &Path, output: &mut Output) -> Result<(), Trouble> {
    let Response::CatalogStanding(standing) =
        Access::new(directory)?.ask(Request::CatalogStanding)?
    else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("relay-catalog-status", &standing)?;
        return Ok(());
    }
    let Standing { catalog, left, of, serving, connected, up_to_date, afresh } = *standing;
    let Some(kept) = catalog else {
        output.line("no catalog was published yet")?;
        return Ok(());
    };
    let since = kept.published_at.map(|time| format!(", published {time}")).unwrap_or_default();
    let note = Some(safe(&kept.note)).filter(|note| !note.is_empty());
    let note = note.map(|note| format!(": {note}")).unwrap_or_default();
    output.line(&format!("catalog {} is in force{since}{note}", kept.number))?;
    let Kept { held, waiting, released, .. } = kept;
    let far = if left == 0 { "everything is judged by it" } else { "by now" };
    if left > 0 {
        output.line(&format!("still to be judged by it: {left} of {}", records(of)))?;
    }
    output
        .line(&format!("{far}: {held} came to be held, {waiting} to wait, {released} released"))?;
    if serving {
        output.line(&format!("{up_to_date} of {connected} connected devices have it"))?;
    } else if left > 0 {
        output.line("the relay does not serve: it goes on with them when it does")?;
    }
    if let Some(afresh) = afresh {
        output.line(&format!(
            "{} is started afresh: {} % of generation {} are written",
            afresh.ty,
            afresh.percent(),
            afresh.next
        ))?;
    }
    Ok(())
}
