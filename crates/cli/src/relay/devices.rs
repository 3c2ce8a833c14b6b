//! `relay devices`: who is out there, and what is known of each. What a device said of itself is shown as
//! that, with its age.

use std::path::Path;
use std::process::ExitCode;

use fieldkeep_console::shape::fleet::{Assessed, FleetDevice, Said};
use fieldkeep_console::{Failure, Trouble};
use serde_json::json;

use crate::access::Access;
use crate::args::fleet::{Devices, Purpose};
use crate::output::{Align, Output, Table, safe, several};
use crate::request::Request;
use crate::response::Response;

pub(super) fn run(
    directory: &Path,
    wish: Devices,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(directory)?;
    let alone = wish.device.is_some();
    let to_revoke = wish.safe_to.map(|purpose| purpose == Purpose::Revoke);
    let asked = Request::Devices { device: wish.device, to_revoke };
    let Response::Devices { devices, catalog } = access.ask(asked)? else {
        return Err(Failure::unexpected().into());
    };
    let all_safe = devices.iter().all(|device| {
        device.assessment.as_ref().is_none_or(|assessment| assessment.safety == "safe")
    });
    if output.is_json() {
        output.object("relay-devices", &json!({ "catalog": catalog, "devices": devices }))?;
    } else if devices.is_empty() {
        output.line("no device has joined: `fieldkeep relay invite` makes a ticket")?;
    } else if let Some(purpose) = wish.safe_to {
        devices.iter().try_for_each(|device| assessment(device, purpose, output))?;
    } else if let ([device], true) = (&devices[..], alone) {
        one(device, catalog, output)?;
    } else {
        table(&devices, output)?;
    }
    Ok(if all_safe { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(devices: &[FleetDevice], output: &mut Output) -> Result<(), Trouble> {
    let (left, right) = (Align::Left, Align::Right);
    let columns = [
        ("NAME", left),
        ("NUMBER", right),
        ("LAST CONTACT", left),
        ("VERSION", left),
        ("CATALOG", right),
        ("MAY", left),
        ("SAVED", right),
        ("ASIDE", right),
        ("SAYS THAT IT HAS NOT SENT", left),
    ];
    let mut table = Table::new(&columns);
    let absent = || "-".to_owned();
    for device in devices {
        table.row(vec![
            device.name.clone(),
            device.number.to_string(),
            contact(device),
            device.version.clone().unwrap_or_else(absent),
            device.catalog.map_or_else(absent, |number| number.to_string()),
            if device.revoked { "revoked".to_owned() } else { device.grants.join(" ") },
            device.saved.to_string(),
            device.aside.to_string(),
            device.said.as_ref().map_or_else(|| "not known".to_owned(), unsent),
        ]);
    }
    Ok(table.print(output.writer())?)
}

fn contact(device: &FleetDevice) -> String {
    match &device.last_contact {
        _ if device.connected => "connected".to_owned(),
        Some(time) => time.clone(),
        None => "not known".to_owned(),
    }
}

/// What a device said that the relay does not have, and when.
fn unsent(said: &Said) -> String {
    format!("{}, at {}", said.unsent(), said.heard)
}

fn one(device: &FleetDevice, catalog: Option<u64>, output: &mut Output) -> Result<(), Trouble> {
    let absent = || "not known".to_owned();
    let held = device.catalog.map_or_else(absent, |number| match catalog {
        Some(current) if current != number => format!("{number}, and {current} is in force"),
        Some(_) | None => number.to_string(),
    });
    let may = if device.revoked {
        "nothing: it was revoked".to_owned()
    } else {
        format!("read and write {}", device.grants.join(" "))
    };
    for (name, value) in [
        ("name", device.name.clone()),
        ("number", device.number.to_string()),
        ("key", device.key.clone()),
        ("may", may),
        ("last contact", contact(device)),
        ("version", device.version.clone().unwrap_or_else(absent)),
        ("catalog", held),
        ("changes in the relay's log", device.saved.to_string()),
        ("changes kept aside", device.aside.to_string()),
    ] {
        output.line(&format!("{name}: {}", safe(&value)))?;
    }
    let Some(said) = &device.said else {
        return Ok(output.line("it has never said what it has")?);
    };
    output.line(&format!("what it says itself, heard at {}:", said.heard))?;
    output.line(&format!("  its clock: {}", said.device_time))?;
    output.line(&format!("  changes without a receipt: {}", said.waiting))?;
    output.line(&format!("  changes that were not taken: {}", said.refused))?;
    output.line(&format!("  files that wait: {}", said.files))?;
    if said.leaves_out {
        output.line("  it leaves out some of what it may exchange")?;
    }
    for held in &said.holds {
        let (ty, unsaved) = (&held.ty, held.unsaved);
        output.line(&format!(
            "  {ty}: {}, {unsaved} of them unsaved",
            several(held.records, "record")
        ))?;
    }
    Ok(())
}

fn assessment(device: &FleetDevice, purpose: Purpose, output: &mut Output) -> Result<(), Trouble> {
    let Some(Assessed { safety, known, missing, as_of }) = &device.assessment else {
        return Err(Failure::unexpected().into());
    };
    let what = match purpose {
        Purpose::Upgrade => "upgrade",
        Purpose::Revoke => "revoke",
    };
    let word = match safety.as_str() {
        "safe" => format!("safe to {what}"),
        "unsafe" => format!("not safe to {what}"),
        _ => format!("not known to be safe to {what}"),
    };
    let as_of = as_of.as_ref().map_or_else(String::new, |time| format!(", as of {time}"));
    let (name, number) = (safe(&device.name), device.number);
    output.line(&format!("{name} (device {number}): {word}{as_of}"))?;
    for line in known {
        output.line(&format!("  {line}"))?;
    }
    for line in missing {
        output.line(&format!("  but {line}"))?;
    }
    Ok(())
}
