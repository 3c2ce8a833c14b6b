//! `pause`, `resume`, `resync`, `clear`, `pin` and `unpin`: what is exchanged, what is downloaded again,
//! and what survives that.

use std::process::ExitCode;
use std::time::Duration;

use fieldkeep_model::{RecordKey, TypeName};
use serde_json::json;

use crate::access::Access;
use crate::args::{Clear, Directory};
use crate::attention::records;
use crate::confirm::confirm;
use crate::output::{Output, safe};
use crate::request::Request;
use crate::response::Response;
use fieldkeep_console::shape::{ClearPlan, Paused, Pin, Resynced};
use fieldkeep_console::{Failure, Trouble};

pub(crate) fn pause(
    ty: Option<TypeName>,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    change_pauses(Request::Pause(ty), dir, output)
}

pub(crate) fn resume(
    ty: Option<TypeName>,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    change_pauses(Request::Resume(ty), dir, output)
}

fn change_pauses(
    request: Request,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let Response::Paused(paused) = access.ask(request)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("paused", &paused)?;
    } else {
        output.line(&words(&paused))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is paused, and how it goes on.
pub(crate) fn words(paused: &Paused) -> String {
    let what = match (paused.all, &paused.types[..]) {
        (true, _) => "all syncing is paused".to_owned(),
        (false, []) => return "nothing is paused".to_owned(),
        (false, types) => format!("syncing is paused for {}", names(types)),
    };
    format!("{what}: what you capture is kept here; `fieldkeep resume` goes on")
}

fn names(types: &[TypeName]) -> String {
    types.iter().map(TypeName::as_str).collect::<Vec<_>>().join(", ")
}

pub(crate) fn resync(
    ty: Option<TypeName>,
    timeout: Duration,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    download(&mut access, ty, false, timeout, output)
}

pub(crate) fn clear(
    args: Clear,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let Response::ClearPlan(plan) = access.ask(Request::ClearPlan(args.ty.clone()))? else {
        return Err(Failure::unexpected().into());
    };
    if args.dry_run {
        if output.is_json() {
            output.object("clear-plan", &plan)?;
        } else {
            tell(&plan).iter().try_for_each(|line| output.line(line))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes {
        confirm("clearing", &tell(&plan), "clear?", "give --yes, or see --dry-run")?;
    }
    download(&mut access, args.ty, true, args.timeout, output)
}

/// What clearing would do, in words.
fn tell(plan: &ClearPlan) -> Vec<String> {
    let ClearPlan { types, replaced, unsaved, in_use, aside, withdrawn } = plan;
    let mut lines = vec![format!(
        "{}: {} here, to be read until what the relay has is here and proven, and takes the place of \
         that",
        names(types),
        records(*replaced)
    )];
    let stays = [(*unsaved, "unsaved"), (*in_use, "in use")];
    for (count, why) in stays.into_iter().filter(|(count, _)| *count > 0) {
        let stay = if count == 1 { "stays because it is" } else { "stay because they are" };
        lines.push(format!("{} {stay} {why}", records(count)));
    }
    if *aside > 0 {
        lines.push(format!("changes that lie aside stay: {aside}"));
    }
    if *withdrawn > 0 {
        let text = "that this device may not read any more go, and do not come back";
        lines.push(format!("{} {text}", records(*withdrawn)));
    }
    lines
}

fn download(
    access: &mut Access,
    ty: Option<TypeName>,
    clears: bool,
    timeout: Duration,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let asked = access.ask_at_length(Request::Resync { ty, clears, millis })?;
    let Response::Resynced(done) = asked else { return Err(Failure::unexpected().into()) };
    if output.is_json() {
        output.object("resync", &done)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Resynced { types, records: here, removed, sent, proven } = done;
    let segments = if proven == 1 { "segment" } else { "segments" };
    output.line(&format!(
        "downloaded {} again: {} here, sent {sent}, proven {proven} {segments}",
        names(&types),
        records(here)
    ))?;
    if removed > 0 {
        let text = "that this device may not read any more";
        output.line(&format!("removed {} {text}", records(removed)))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn pin(
    record: RecordKey,
    reason: String,
    owner: String,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    list_pins(Request::Pin((record.ty, record.id), owner, reason), dir, output)
}

/// Runs `subscribe`.
pub(crate) fn subscribe(
    (ty, scope): (TypeName, String),
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let scope = (scope != "*").then_some(scope);
    change_scopes(Request::Subscribe(ty, scope), dir, output)
}

/// Runs `unsubscribe`.
pub(crate) fn unsubscribe(
    (ty, scope): (TypeName, String),
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    change_scopes(Request::Unsubscribe(ty, scope), dir, output)
}

fn change_scopes(
    request: Request,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let Response::Subscribed(ty, scopes) = access.ask(request)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("subscribed", &json!({ "type": ty, "scopes": scopes }))?;
        return Ok(ExitCode::SUCCESS);
    }
    match scopes {
        None => output.line(&format!("{ty}: everything that was granted is exchanged"))?,
        Some(scopes) if scopes.is_empty() => output.line(&format!(
            "{ty}: nothing is exchanged; what is here stays until `fieldkeep clear {ty}`"
        ))?,
        Some(scopes) => {
            let scopes: Vec<_> = scopes.iter().map(|scope| safe(scope)).collect();
            output.line(&format!(
                "{ty}: only {} is exchanged; what else is here stays until `fieldkeep clear {ty}`",
                scopes.join(", ")
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn pins(dir: &Directory, output: &mut Output) -> Result<ExitCode, Trouble> {
    list_pins(Request::Pins, dir, output)
}

fn list_pins(request: Request, dir: &Directory, output: &mut Output) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let Response::Pins(pins) = access.ask(request)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("pins", &json!({ "records": pins }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if pins.is_empty() {
        output.line("nothing is in use")?;
    }
    for Pin { record, owner, reason, since } in pins {
        let record = safe(&record);
        output.line(&format!(
            "{record}  in use by {} since {since}  {}",
            safe(&owner),
            safe(&reason)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn unpin(
    record: Option<RecordKey>,
    owner: Option<String>,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let record = record.map(|key| (key.ty, key.id));
    let Response::Taken(count) = access.ask(Request::Unpin(record, owner))? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("unpin", &json!({ "released": count }))?;
    } else {
        output.line(&format!(
            "released {}",
            if count == 1 { "1 mark".into() } else { format!("{count} marks") }
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `rotate-key`.
pub(crate) fn rotate_key(
    timeout: Duration,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let Response::Me(key) = access.ask(Request::RotateKey(millis))? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("rotate-key", &json!({ "key": key }))?;
    } else {
        output.line(&format!("this device signs with {key} from now on; the old key is gone"))?;
    }
    Ok(ExitCode::SUCCESS)
}
