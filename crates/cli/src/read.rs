//! `get` and `list`: what is here, as merged, with what is known of its validity.

use std::process::ExitCode;

use fieldkeep_model::RecordKey;
use serde::Serialize;
use serde_json::Value;

use crate::access::Access;
use crate::args::{Directory, Get, List};
use crate::failure::{Code, Failure, Trouble};
use crate::output::{self, Output, Records, Stream};
use crate::request::{Request, Response};
use crate::shape::{Change, Conflict, Record};

/// A record as it was asked for.
#[derive(Debug, Serialize)]
pub(crate) struct Got {
    #[serde(flatten)]
    record: Record,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<Change>>,
    #[serde(rename = "concurrent", skip_serializing_if = "Option::is_none")]
    conflicts: Option<Vec<Conflict>>,
}

/// Fetches a record.
///
/// # Errors
/// When it is not there.
pub(crate) fn fetch(
    access: &mut Access,
    key: RecordKey,
    history: bool,
    conflicts: bool,
) -> Result<Got, Trouble> {
    let record = (key.ty, key.id);
    let answer = access.ask(Request::Get { record, history, conflicts })?;
    let Response::Got { record, history, conflicts } = answer else {
        return Err(Failure::unexpected().into());
    };
    Ok(Got { record: *record, history, conflicts })
}

pub(crate) fn get(args: Get, dir: &Directory, output: &mut Output) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let name = args.record.to_string();
    let mut got = fetch(&mut access, args.record, args.history, args.conflicts)?;
    if args.last_valid {
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
    } else if args.last_valid {
        output::fields_of(output.writer(), &got.record.fields)?;
    } else {
        print(output, &got)?;
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

impl Got {
    /// The record.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }
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
