//! `put` and `delete`: one record, durable on this device when its id is printed.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use fieldkeep_model::{RecordId, RecordKey};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::access::Access;
use crate::args::{self, Directory, Put};
use crate::output::{self, Output, safe};
use crate::request::{Content, Request, Tier, Write};
use crate::response::{Response, Written};
use fieldkeep_console::{Code, Failure, Trouble};

/// The longest JSON object, in bytes; a record is at most 1 MiB.
const OBJECT: u64 = 4 * 1024 * 1024;

#[derive(Serialize)]
struct Shape<'w> {
    #[serde(rename = "type")]
    ty: &'w str,
    #[serde(flatten)]
    written: &'w Written,
}

pub(crate) fn put(args: &Put, dir: &Directory, output: &mut Output) -> Result<ExitCode, Trouble> {
    let (ty, mut id) = args.record.clone();
    let mut contents = Vec::new();
    if let Some(path) = &args.from {
        let mut object = read_object(path)?;
        take_id(&mut object, &mut id)?;
        contents.push(Content::Object(Value::Object(object).to_string()));
    }
    if !args.edits.is_empty() {
        contents.push(Content::Words(args.edits.clone()));
    }
    if args.undelete && id.is_none() {
        let message = "--undelete needs the record that is to come back";
        return Err(Failure::new(Code::Usage, message, "write TYPE/ID").into());
    }
    let deleted = args.undelete.then_some(false);
    let write = Write { ty: ty.clone(), id, contents, deleted, totals: false };
    let mut access = Access::new(&dir.path()?)?;
    if args.what_if {
        return what_if(&mut access, write, output);
    }
    let request = if args.strict { Request::Strict(write) } else { Request::Write(vec![write]) };
    let written = write_one(&mut access, request)?;
    warn(ty.as_str(), &written);
    if let Some(tier) = args.tier.and_then(awaited) {
        let millis = u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX);
        let name = (ty.clone(), written.id.clone());
        let Response::Got { record, .. } = access.ask(Request::Await(name, tier, millis))? else {
            return Err(Failure::unexpected().into());
        };
        if output.is_json() {
            output.object("put", &record)?;
        } else {
            output::record(output.writer(), &record)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if output.is_json() {
        output.object("put", &Shape { ty: ty.as_str(), written: &written })?;
    } else {
        output.line(written.id.as_str())?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn delete(
    key: RecordKey,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let RecordKey { ty, id } = key;
    let (contents, deleted, totals) = (Vec::new(), Some(true), false);
    let write = Write { ty: ty.clone(), id: Some(id), contents, deleted, totals };
    let written = write_one(&mut Access::new(&dir.path()?)?, Request::Write(vec![write]))?;
    if output.is_json() {
        output.object("delete", &Shape { ty: ty.as_str(), written: &written })?;
    } else {
        let id = safe(written.id.as_str());
        output.line(&format!(
            "deleted {ty}/{id}: `fieldkeep put {ty}/{id} --undelete` brings it back"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes one of a field's values as the one that counts.
pub(crate) fn resolve(
    key: RecordKey,
    (field, choice): (String, String),
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let RecordKey { ty, id } = key;
    let mut access = Access::new(&dir.path()?)?;
    let request = Request::Resolve((ty.clone(), id), field.clone(), choice);
    let written = write_one(&mut access, request)?;
    warn(ty.as_str(), &written);
    if output.is_json() {
        output.object("resolve", &Shape { ty: ty.as_str(), written: &written })?;
    } else {
        let id = safe(written.id.as_str());
        output.line(&format!("{ty}/{id}: {} is settled by an ordinary edit", safe(&field)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a record, or one field of it, as it was.
pub(crate) fn revert(
    args: args::Revert,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let RecordKey { ty, id } = args.record;
    let mut access = Access::new(&dir.path()?)?;
    let request = Request::Revert((ty.clone(), id), args.field, args.to);
    let written = write_one(&mut access, request)?;
    warn(ty.as_str(), &written);
    if output.is_json() {
        output.object("revert", &Shape { ty: ty.as_str(), written: &written })?;
    } else {
        let done = match written.changed {
            true => "written as it was then, by an ordinary edit",
            false => "it is as it was then already",
        };
        output.line(&format!("{ty}/{}: {done}", safe(written.id.as_str())))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a write would come to; nothing is written.
fn what_if(access: &mut Access, write: Write, output: &mut Output) -> Result<ExitCode, Trouble> {
    let Response::Foreseen { record, online } = access.ask(Request::WhatIf(write))? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("what-if", &record)?;
    } else {
        output::record(output.writer(), &record)?;
        output.line("nothing was written")?;
        if online {
            output.line("to write it needs a connection: it goes by way of the relay")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn awaited(tier: args::Tier) -> Option<Tier> {
    match tier {
        args::Tier::Device => None,
        args::Tier::Relay => Some(Tier::Relay),
        args::Tier::Judged => Some(Tier::Judged),
    }
}

fn write_one(access: &mut Access, request: Request) -> Result<Written, Trouble> {
    let Response::Written(mut written) = access.ask(request)? else {
        return Err(Failure::unexpected().into());
    };
    Ok(written.pop().ok_or_else(Failure::unexpected)?)
}

/// The forecast, where it is bad: the write stands all the same.
fn warn(ty: &str, written: &Written) {
    if written.state == "likely_held" {
        let reasons = written.reasons.iter().map(|reason| safe(reason)).collect::<Vec<_>>();
        let id = safe(written.id.as_str());
        crate::note(&format!("saved {ty}/{id}; warning: likely held: {}", reasons.join("; ")));
    }
}

fn read_object(path: &Path) -> Result<Map<String, Value>, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(OBJECT).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(OBJECT).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::file(path, &error))?;
    serde_json::from_str(&text).map_err(|error| {
        let message = format!("{} is not one JSON object: {error}", path.display());
        Failure::new(Code::Held, message, "nothing was saved")
    })
}

/// An `id` in the object names the record, and is no field of it.
fn take_id(object: &mut Map<String, Value>, id: &mut Option<RecordId>) -> Result<(), Failure> {
    let Some(Value::String(text)) = object.get("id") else { return Ok(()) };
    let named = crate::execute::record_id(text)?;
    if id.as_ref().is_some_and(|id| *id != named) {
        let message =
            format!("the object has the id `{}`, and the command names another", safe(text));
        return Err(Failure::new(Code::Usage, message, "leave one of them out"));
    }
    object.remove("id");
    *id = Some(named);
    Ok(())
}
