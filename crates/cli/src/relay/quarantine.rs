//! `relay quarantine`: find what is held, see why, and decide. Nothing here deletes anything, and what is
//! decided stays on the trail.

mod accept;

use std::io::{self, Write};
use std::path::Path;

use fieldkeep_console::shape::{Aside, Blamed, Decision, Held, Record, export};
use fieldkeep_console::{Failure, Trouble};
use fieldkeep_model::RecordKey;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::access::Access;
use crate::args;
use crate::args::absolute;
use crate::args::quarantine::{Form, Quarantine};
use crate::attention::{self, records};
use crate::output::{self, Align, Output, Stream, Table, safe};
use crate::request::{Accept, Captured, Name, Request, Sought};
use crate::response::Response;
use crate::time::now_ms;

/// Records that are asked for at a time.
const AT_ONCE: u64 = 500;
/// Decisions that are shown with a record.
const DECISIONS: u64 = 20;

#[derive(Serialize)]
struct Rejudged {
    records: u64,
    not_valid: u64,
}

#[derive(Serialize)]
struct Decided<'d> {
    action: &'d str,
    records: u64,
}

pub(super) fn run(
    directory: &Path,
    command: Quarantine,
    output: &mut Output,
) -> Result<(), Trouble> {
    let access = &mut Access::new(directory)?;
    match command {
        Quarantine::List { sought, limit } => list(access, sought.into(), limit, output),
        Quarantine::Show { record } => show(access, record, output),
        Quarantine::Rejudge { record: Some(key), .. } => {
            let (count, still) = rejudge(access, vec![(key.ty, key.id)])?;
            tell_rejudged(count, still, output)
        }
        Quarantine::Rejudge { record: None, sought } => {
            let (mut count, mut still) = (0, 0);
            pages(access, &sought.into(), &mut |access, Page { found, .. }| {
                let names = found.into_iter().map(|held| (held.record.ty, held.record.id));
                let (judged, left) = rejudge(access, names.collect())?;
                (count, still) = (count + judged, still + left);
                Ok(true)
            })?;
            tell_rejudged(count, still, output)
        }
        Quarantine::Dismiss { record, note } => {
            let name = safe(&record.to_string());
            let aside = Request::PutAside((record.ty, record.id), Some(note), operator());
            let said = format!(
                "{name}: put aside, and kept; `relay quarantine reopen {name}` takes it up again"
            );
            decide(access, aside, "dismiss", &said, output)
        }
        Quarantine::Reopen { record } => {
            let said = format!("{}: taken up again", safe(&record.to_string()));
            let again = Request::PutAside((record.ty, record.id), None, operator());
            decide(access, again, "reopen", &said, output)
        }
        Quarantine::Assign { record, person } => {
            let who = person.as_deref().map_or_else(|| "nobody".to_owned(), safe);
            let said = format!("{}: {who} looks after it", safe(&record.to_string()));
            let assigned = Request::Assign((record.ty, record.id), person, operator());
            decide(access, assigned, "assign", &said, output)
        }
        Quarantine::Accept { file, device, dry_run, aside } => {
            let how = match (dry_run, aside) {
                (true, _) => Accept::Try,
                (false, true) => Accept::KeepAside,
                (false, false) => Accept::Write,
            };
            let captured = match file {
                Some(file) => Captured::Bundle(absolute(&file)?),
                None => Captured::Aside(device.unwrap_or_default()),
            };
            accept::run(access, captured, how, output)
        }
        Quarantine::Trail { record, act, by, limit } => {
            let about = record.map(|key| (key.ty, key.id));
            trail(access, Request::Decisions { about, act, by, limit }, output)
        }
        Quarantine::Export { sought, format: Form::Jsonl } => {
            lines(access, &sought.into(), output.writer())
        }
        Quarantine::Export { sought, format: Form::Csv } => {
            table(access, &sought.into(), output.writer())
        }
    }
}

/// Who decides on the command line: whoever is signed in on the machine.
pub(super) fn operator() -> String {
    let named = |name| std::env::var(name).ok().filter(|user| !user.is_empty());
    named("USER").or_else(|| named("LOGNAME")).unwrap_or_else(|| "operator".to_owned())
}

impl From<args::quarantine::Sought> for Sought {
    fn from(sought: args::quarantine::Sought) -> Self {
        let millis = |age: std::time::Duration| i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        Self {
            ty: sought.ty,
            scope: sought.scope,
            rule: sought.rule,
            device: sought.device,
            until: sought.older.map(|age| now_ms().saturating_sub(millis(age))),
            text: sought.text,
            dismissed: (sought.dismissed || sought.open).then_some(sought.dismissed),
            person: sought.assigned,
        }
    }
}

/// A page of what is sought.
struct Page {
    found: Vec<Held>,
    asides: Vec<Aside>,
}

/// Gives away what is sought, page by page, until there is no more or enough.
fn pages(
    access: &mut Access,
    sought: &Sought,
    take: &mut dyn FnMut(&mut Access, Page) -> Result<bool, Trouble>,
) -> Result<(), Trouble> {
    let mut after = None;
    loop {
        let request = Request::Quarantine { sought: sought.clone(), after, limit: AT_ONCE };
        let Response::Quarantine { found, next, asides } = access.ask(request)? else {
            return Err(Failure::unexpected().into());
        };
        if !take(access, Page { found, asides })? || next.is_none() {
            return Ok(());
        }
        after = next;
    }
}

fn list(
    access: &mut Access,
    sought: Sought,
    limit: Option<u64>,
    output: &mut Output,
) -> Result<(), Trouble> {
    let mut left = limit.unwrap_or(u64::MAX);
    let most = usize::try_from(left).unwrap_or(usize::MAX);
    let mut kept_aside = Vec::new();
    let is_json = output.is_json();
    let mut stream = is_json.then(|| Stream::new(output, "quarantine", &[]));
    let (mut lines, mut more) = (Vec::new(), false);
    pages(access, &sought, &mut |_, Page { found, asides }| {
        kept_aside.extend(asides);
        more = found.len() as u64 > left;
        for held in found.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            left -= 1;
            match &mut stream {
                Some(stream) => stream.push(&export::whole(&held)?)?,
                None => lines.push(held),
            }
        }
        Ok(left > 0)
    })?;
    more |= kept_aside.len() > most;
    kept_aside.truncate(most);
    if let Some(stream) = stream {
        let asides = serde_json::to_value(&kept_aside).map_err(io::Error::from)?;
        return Ok(stream.end(&[("aside", asides)])?);
    }
    if lines.is_empty() && kept_aside.is_empty() {
        output.line(if sought == Sought::default() {
            "nothing is held"
        } else {
            "nothing is held under these conditions: fewer of them may find it"
        })?;
    }
    for held in &lines {
        attention::print(output, &held.record)?;
        if let Some(person) = &held.assigned {
            output.line(&format!("  {} looks after it", safe(person)))?;
        }
    }
    for aside in &kept_aside {
        output::aside(output.writer(), aside)?;
    }
    if more {
        output
            .line("there are more: a greater --limit shows them, --type, --rule and so on fewer")?;
    }
    Ok(())
}

fn show(access: &mut Access, key: RecordKey, output: &mut Output) -> Result<(), Trouble> {
    let name = (key.ty, key.id);
    let asked = access.ask(Request::HeldRecord(name.clone()))?;
    let Response::HeldRecord { held, referrers, more_referrers, blame } = asked else {
        return Err(Failure::unexpected().into());
    };
    let about = Some(name);
    let asked = Request::Decisions { about, act: None, by: None, limit: DECISIONS };
    let decisions = decisions(access, asked)?;
    if output.is_json() {
        let mut shown = export::whole(&held)?;
        let besides = [
            ("blame", serde_json::to_value(&blame).map_err(io::Error::from)?),
            ("referrers", serde_json::to_value(&referrers).map_err(io::Error::from)?),
            ("more_referrers", Value::from(more_referrers)),
            ("decisions", serde_json::to_value(&decisions).map_err(io::Error::from)?),
        ];
        if let Some(fields) = shown.as_object_mut() {
            fields.extend(besides.map(|(name, value)| (name.to_owned(), value)));
        }
        return Ok(output.object("quarantine-record", &shown)?);
    }
    let record = &held.record;
    attention::print(output, record)?;
    sides(record, output)?;
    if let Some(blame) = &blame {
        blamed(blame, output)?;
    }
    if let Some(person) = &held.assigned {
        output.line(&format!("{} looks after it", safe(person)))?;
    }
    if !referrers.is_empty() {
        let more = match more_referrers {
            0 => String::new(),
            more => format!(" and {} more", records(more)),
        };
        output.line(&format!("referred to by {}{more}", safe(&referrers.join(", "))))?;
    }
    for decision in &decisions {
        output.line(&sentence(decision))?;
    }
    Ok(())
}

/// What it takes to make the record one that is held.
fn blamed(blame: &Blamed, output: &mut Output) -> io::Result<()> {
    match (blame.changes.as_slice(), blame.since) {
        (_, Some(since)) => output.line(&format!(
            "{since} changes since it was last valid: which of them it takes is not looked for"
        )),
        ([], None) => output.line(
            "no change of the record is to blame: as it last was valid it would be held, too; the \
             catalog has changed, or another record",
        ),
        ([_], None) => output.line("without this change it would not be held so:"),
        (_, None) => output.line("without any one of these changes it would not be held so:"),
    }?;
    blame.changes.iter().try_for_each(|change| output::change(output.writer(), change))
}

/// The fields as merged beside those that last passed; what differs is marked, and of children told.
fn sides(record: &Record, output: &mut Output) -> Result<(), Trouble> {
    let none = Map::new();
    let valid = record.last_valid().unwrap_or(&none);
    let columns = ["", "FIELD", "AS MERGED", "LAST VALID"].map(|name| (name, Align::Left));
    let mut table = Table::new(&columns);
    for (name, merged, passed) in both(&record.fields, valid) {
        table.row(side(name.clone(), merged, passed));
        if merged == passed {
            continue;
        }
        let (now, then) = (children(merged), children(passed));
        for (child, now, then) in both(&now, &then) {
            let fields = |child: Option<&Value>| child.and_then(Value::as_object).cloned();
            let (now, then) = (fields(now).unwrap_or_default(), fields(then).unwrap_or_default());
            for (field, now, then) in both(&now, &then).filter(|(_, now, then)| now != then) {
                table.row(side(format!("{name}[{child}].{field}"), now, then));
            }
        }
    }
    Ok(table.print(output.writer())?)
}

fn side(field: String, merged: Option<&Value>, passed: Option<&Value>) -> Vec<String> {
    let shown = |value: Option<&Value>| value.map(output::cell).unwrap_or_default();
    let mark = if merged == passed { " " } else { "*" };
    vec![mark.to_owned(), field, shown(merged), shown(passed)]
}

/// What either has, with both sides.
fn both<'v>(
    one: &'v Map<String, Value>,
    other: &'v Map<String, Value>,
) -> impl Iterator<Item = (&'v String, Option<&'v Value>, Option<&'v Value>)> {
    let only_other = other.keys().filter(|name| !one.contains_key(*name));
    let names = one.keys().chain(only_other);
    names.map(|name| (name, one.get(name), other.get(name)))
}

/// The children of a set, by id.
fn children(value: Option<&Value>) -> Map<String, Value> {
    let children = value.and_then(Value::as_array).into_iter().flatten();
    let with_id = children.filter_map(|child| {
        let mut fields = child.as_object()?.clone();
        let id = fields.remove("id")?;
        Some((id.as_str()?.to_owned(), Value::Object(fields)))
    });
    with_id.collect()
}

fn decisions(access: &mut Access, asked: Request) -> Result<Vec<Decision>, Trouble> {
    let Response::Decisions(decisions) = access.ask(asked)? else {
        return Err(Failure::unexpected().into());
    };
    Ok(decisions)
}

fn trail(access: &mut Access, asked: Request, output: &mut Output) -> Result<(), Trouble> {
    let decisions = decisions(access, asked)?;
    if output.is_json() {
        let mut stream = Stream::new(output, "quarantine-trail", &[]);
        decisions.iter().try_for_each(|decision| stream.push(decision))?;
        return Ok(stream.end(&[])?);
    }
    if decisions.is_empty() {
        output.line("nothing was decided")?;
    }
    decisions.iter().try_for_each(|decision| output.line(&sentence(decision)))?;
    Ok(())
}

fn sentence(decision: &Decision) -> String {
    let Decision { time, who, act, record, note, .. } = decision;
    let note = if note.is_empty() { String::new() } else { format!(": {}", safe(note)) };
    format!("{time}  {}  {act} {}{note}", safe(who), safe(record))
}

fn rejudge(access: &mut Access, names: Vec<Name>) -> Result<(u64, u64), Trouble> {
    if names.is_empty() {
        return Ok((0, 0));
    }
    let Response::Rejudged { records, still } = access.ask(Request::Rejudge(names, operator()))?
    else {
        return Err(Failure::unexpected().into());
    };
    Ok((records, still))
}

fn tell_rejudged(count: u64, still: u64, output: &mut Output) -> Result<(), Trouble> {
    if output.is_json() {
        return Ok(output.object("quarantine", &Rejudged { records: count, not_valid: still })?);
    }
    Ok(output.line(&format!("judged {} again: {still} held or waiting", records(count)))?)
}

fn decide(
    access: &mut Access,
    request: Request,
    action: &str,
    said: &str,
    output: &mut Output,
) -> Result<(), Trouble> {
    let Response::Taken(records) = access.ask(request)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        return Ok(output.object("quarantine", &Decided { action, records })?);
    }
    Ok(output.line(said)?)
}

fn lines(access: &mut Access, sought: &Sought, out: &mut impl Write) -> Result<(), Trouble> {
    let mut kept_aside = Vec::new();
    pages(access, sought, &mut |_, Page { found, asides }| {
        kept_aside.extend(asides);
        export::lines(&found, out)?;
        Ok(true)
    })?;
    Ok(export::aside_lines(&kept_aside, out)?)
}

fn table(access: &mut Access, sought: &Sought, out: &mut impl Write) -> Result<(), Trouble> {
    let (mut first, mut kept_aside) = (true, Vec::new());
    pages(access, sought, &mut |_, Page { found, asides }| {
        kept_aside.extend(asides);
        export::table(found, std::mem::take(&mut first), out)?;
        Ok(true)
    })?;
    Ok(export::aside_table(&kept_aside, out)?)
}
