//! `get` and `list`: what is here, as merged, with what is known of its validity.

use std::path::Path;
use std::process::ExitCode;

use fieldkeep_device::{Read, Settings};
use fieldkeep_model::RecordKey;
use serde_json::Value;

use crate::access::Access;
use crate::args::{CHANGES, Directory, Get, History, List};
use crate::output::{self, Output, Records, Stream};
use crate::request::{Paging, Request};
use crate::response::Response;
use fieldkeep_console::shape::{Got, Past, Shared};
use fieldkeep_console::{Code, Failure, Trouble};

/// Fetches a record.
///
/// # Errors
/// When it is not there.
pub(crate) fn fetch(
    access: &mut Access,
    key: RecordKey,
    history: Option<Paging>,
    conflicts: bool,
) -> Result<Got, Trouble> {
    let record = (key.ty, key.id);
    let answer = access.ask(Request::Get { record, history, conflicts })?;
    let Response::Got { record, history, conflicts } = answer else {
        return Err(Failure::unexpected().into());
    };
    Ok(Got::new(*record, history, conflicts))
}

pub(crate) fn get(args: Get, dir: &Directory, output: &mut Output) -> Result<ExitCode, Trouble> {
    let directory = dir.path()?;
    let mut access = Access::new(&directory)?;
    let name = args.record.to_string();
    let settings = Settings::read(&directory).map_err(Failure::from)?;
    let read = args.read.unwrap_or_else(|| settings.reads(&args.record.ty));
    let history = args.history.then_some(Paging { limit: CHANGES, before: None });
    let mut got = fetch(&mut access, args.record, history, args.conflicts)?;
    let wants_last_valid = got.record.breaks_a_rule() && read == Read::LastValid;
    let last_valid = args.last_valid || wants_last_valid;
    if last_valid {
        let last_valid = got.record.last_valid().cloned();
        got.record.fields = last_valid.ok_or_else(|| {
            let message = format!("{name} has no last valid state: it never passed the rules");
            Failure::new(
                Code::Held,
                message,
                format!("`fieldkeep get {name}` shows it as merged, and why"),
            )
        })?;
    }
    if output.is_json() {
        output.object("get", &got)?;
    } else if last_valid {
        output::fields_of(output.writer(), &got.record.fields)?;
    } else {
        print(output, &got)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn history(
    args: History,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let paging = Paging { limit: args.limit, before: args.before };
    show(args.record, "history", Some(paging), false, dir, output)
}

pub(crate) fn conflicts(
    key: RecordKey,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    show(key, "conflicts", None, true, dir, output)
}

fn show(
    key: RecordKey,
    schema: &str,
    history: Option<Paging>,
    conflicts: bool,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let got = fetch(&mut access, key, history, conflicts)?;
    if output.is_json() {
        output.object(schema, &got)?;
    } else {
        print(output, &got)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A record as it was.
pub(crate) fn at(
    key: RecordKey,
    moment: String,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let (ty, id) = (key.ty.clone(), key.id.clone());
    let asked = access.ask(Request::At((key.ty, key.id), moment))?;
    let Response::Was(fields, removed) = asked else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("at", &Past { ty, id, fields, removed })?;
        return Ok(ExitCode::SUCCESS);
    }
    output::fields_of(output.writer(), &fields)?;
    for gone in &removed {
        let (name, told) = (output::safe(&gone.name), gone.sentence());
        output.line(&format!("  {}  {name}: {told}", gone.field))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A record as a text to be sent to somebody.
pub(crate) fn share(
    key: RecordKey,
    with_attachments: Option<&Path>,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let RecordKey { ty, id } = key;
    let Response::Shared(text) = access.ask(Request::Share((ty.clone(), id.clone())))? else {
        return Err(Failure::unexpected().into());
    };
    if let Some(into) = with_attachments {
        crate::files::write_beside(&mut access, &(ty.clone(), id.clone()), into)?;
    }
    if output.is_json() {
        output.object("share", &Shared { ty, id, text })?;
    } else {
        text.lines().try_for_each(|line| output.line(&output::safe(line)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a record with what was asked for besides.
pub(crate) fn print(output: &mut Output, got: &Got) -> Result<(), Trouble> {
    match (&got.history, &got.conflicts) {
        (None, None) => output::record(output.writer(), &got.record)?,
        (history, conflicts) => {
            for change in history.iter().flatten() {
                output::change(output.writer(), change)?;
            }
            if let (Some(changes), Some(next)) = (got.changes, &got.next) {
                let record = format!("{}/{}", got.record.ty, output::safe(got.record.id.as_str()));
                let next = &next[..12.min(next.len())];
                let text = "changes in all; those before these";
                output.line(&format!(
                    "{changes} {text}: fieldkeep history {record} --before {next}"
                ))?;
            }
            for conflict in conflicts.iter().flatten() {
                output::conflict(output.writer(), conflict)?;
            }
            if conflicts.as_ref().is_some_and(Vec::is_empty) {
                output.line("no field has concurrent values")?;
            }
        }
    }
    Ok(())
}

pub(crate) fn list(args: List, dir: &Directory, output: &mut Output) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let ty = Value::from(args.ty.as_str());
    let name = args.ty.clone();
    let request = Request::List { ty: args.ty, filters: args.filters, limit: args.limit };
    if output.is_json() {
        // The first record or the end begins the object: a failure before it stands alone.
        let mut stream = Stream::new(output, "list", &[("type", ty)]);
        access.ask_for_records(request, &mut |record| Ok(stream.push(&record)?))?;
        stream.end(&[])?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut records = Records::default();
    access.ask_for_records(request, &mut |record| Ok(records.push(record, output.writer())?))?;
    if records.end(output.writer())? == 0 {
        crate::note(&format!("there are no such records of the type {name}"));
    }
    Ok(ExitCode::SUCCESS)
}
