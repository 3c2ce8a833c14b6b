//! `attention`: the records that are held, wait, or are likely to be held, and what their user
//! decides about them. Nothing here deletes anything.

use std::io;
use std::process::ExitCode;

use fieldkeep_model::RecordKey;
use serde::Serialize;

use crate::access::Access;
use crate::args::{Attention, Directory};
use crate::output::{self, Output, Stream, safe, several};
use crate::read;
use crate::request::Request;
use crate::response::Response;
use fieldkeep_console::shape::{CatalogState, NotTaken, Record};
use fieldkeep_console::{Failure, Trouble};

#[derive(Serialize)]
struct Taken<'t> {
    action: &'t str,
    records: u64,
}

pub(crate) fn run(
    command: Attention,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    match command {
        Attention::List => list(&mut access, output)?,
        Attention::Show { record } => show(&mut access, record, output)?,
        Attention::Retry { record } => {
            let request = Request::Retry(record.map(|key| (key.ty, key.id)));
            let said = |count| {
                format!(
                    "{}: the relay judges again, with the next sync at the latest",
                    records(count)
                )
            };
            act(&mut access, request, "retry", said, output)?;
        }
        Attention::Dismiss { record, note } => {
            let name = record.to_string();
            let request = Request::Dismiss((record.ty, record.id), Some(note));
            let said = |_| {
                format!(
                    "{}: put aside, and kept; `fieldkeep attention reopen` takes it up again",
                    safe(&name)
                )
            };
            act(&mut access, request, "dismiss", said, output)?;
        }
        Attention::Reopen { record } => {
            let name = record.to_string();
            let request = Request::Dismiss((record.ty, record.id), None);
            act(
                &mut access,
                request,
                "reopen",
                |_| format!("{}: on the list again", safe(&name)),
                output,
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn act(
    access: &mut Access,
    request: Request,
    action: &str,
    said: impl FnOnce(u64) -> String,
    output: &mut Output,
) -> Result<(), Trouble> {
    let Response::Taken(count) = access.ask(request)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("attention", &Taken { action, records: count })?;
    } else {
        output.line(&said(count))?;
    }
    Ok(())
}

/// A record as merged, with the reasons, and as it last passed.
fn show(access: &mut Access, key: RecordKey, output: &mut Output) -> Result<(), Trouble> {
    let got = read::fetch(access, key, None, false)?;
    if output.is_json() {
        output.object("attention", &got)?;
        return Ok(());
    }
    read::print(output, &got)?;
    let record = &got.record;
    if record.state != "valid"
        && let Some(last_valid) = record.last_valid()
    {
        output.line("last valid:")?;
        output::fields_of(output.writer(), last_valid)?;
    }
    Ok(())
}

fn list(access: &mut Access, output: &mut Output) -> Result<(), Trouble> {
    let mut dismissed = Vec::new();
    if output.is_json() {
        let mut stream = Stream::new(output, "attention", &[]);
        access.ask_for_records(Request::Attention, &mut |record| {
            if record.dismissed.is_some() {
                dismissed.push(record);
                return Ok(());
            }
            Ok(stream.push(&record)?)
        })?;
        let dismissed = serde_json::to_value(&dismissed).map_err(io::Error::from)?;
        let catalog = serde_json::to_value(catalog(access)?).map_err(io::Error::from)?;
        let not_taken = serde_json::to_value(not_taken(access)?).map_err(io::Error::from)?;
        stream.end(&[("dismissed", dismissed), ("not_taken", not_taken), ("catalog", catalog)])?;
        return Ok(());
    }
    let mut count = 0;
    access.ask_for_records(Request::Attention, &mut |record| {
        if record.dismissed.is_some() {
            dismissed.push(record);
            return Ok(());
        }
        count += 1;
        Ok(print(output, &record)?)
    })?;
    let not_taken = not_taken(access)?;
    if count == 0 && not_taken.is_empty() {
        output.line("nothing needs attention")?;
    }
    for record in &not_taken {
        print_not_taken(output, record)?;
    }
    if !dismissed.is_empty() {
        output.line("dismissed:")?;
    }
    for record in &dismissed {
        print(output, record)?;
    }
    if count > 0
        && let Some(CatalogState { number, relays_at }) = catalog(access)?
    {
        let seen = relays_at.unwrap_or_else(|| "the time of joining".to_owned());
        output.line(&format!("judged by catalog {number}, the relay's as of {seen}"))?;
    }
    Ok(())
}

fn not_taken(access: &mut Access) -> Result<Vec<NotTaken>, Trouble> {
    let Response::NotTaken(left) = access.ask(Request::NotTaken)? else {
        return Err(Failure::unexpected().into());
    };
    Ok(left)
}

/// A record that the relay has not taken; with its fields where nothing else shows them.
fn print_not_taken(output: &mut Output, one: &NotTaken) -> io::Result<()> {
    let NotTaken { ty, id, generation, why, fields } = one;
    let id = safe(id.as_str());
    let Some(generation) = generation else {
        return output.line(&format!("{ty}/{id}  not taken by the relay: {}", safe(why)));
    };
    let why = safe(why);
    output.line(&format!("{ty}/{id}  not taken by the relay in generation {generation}: {why}"))?;
    output::fields_of(output.writer(), fields)
}

/// By which catalog the records are judged here.
fn catalog(access: &mut Access) -> Result<Option<CatalogState>, Trouble> {
    let Response::CatalogState(state) = access.ask(Request::CatalogState)? else {
        return Err(Failure::unexpected().into());
    };
    Ok(state)
}

/// A record's name, state and reasons.
pub(crate) fn print(output: &mut Output, record: &Record) -> io::Result<()> {
    let state = record.state.replace('_', " ");
    output.line(&format!("{}/{}  {state}", record.ty, safe(record.id.as_str())))?;
    output::why(output.writer(), record)
}

/// `1 record`, `3 records`.
pub(crate) fn records(count: u64) -> String {
    several(count, "record")
}
