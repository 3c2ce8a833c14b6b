//! `relay limits`: what devices may bring and have stored, what they use of that, and who was slowed down or
//! refused.

use std::path::Path;

use fieldkeep_console::shape::limits::{Line, Unit, bytes, sentences};
use fieldkeep_console::{Failure, Trouble, rfc3339};
use fieldkeep_relay::limits::{DeviceUse, Limits, Report, Use};
use serde_json::{Value, json};

use crate::access::Access;
use crate::output::{Align, Output, Table, safe};
use crate::request::Request;
use crate::response::Response;

pub(super) fn run(directory: &Path, output: &mut Output) -> Result<(), Trouble> {
    let Response::Limits(report) = Access::new(directory)?.ask(Request::Limits)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        return Ok(output.object("relay-limits", &told(&report))?);
    }
    let Report { limits, since_ms, organisation, devices, strangers } = &*report;
    shares(limits, organisation, output)?;
    output.line(&format!(
        "{} handshakes a second, {} strangers at once; who is slowed down for {} s is sent away; loaded \
         documents take {}",
        limits.handshakes_a_second,
        limits.strangers,
        limits.grace_seconds,
        bytes(limits.memory_bytes)
    ))?;
    output.line("")?;
    uses(devices, output)?;
    let Some(since) = since_ms else {
        output.line("the relay does not serve: only what is stored is known")?;
        return Ok(());
    };
    output.line("")?;
    output.line(&format!("since {}:", rfc3339(*since)))?;
    let mut quiet = true;
    for device in devices {
        for sentence in sentences(&device.used, rfc3339) {
            quiet = false;
            output.line(&format!("  {}: {sentence}", safe(&device.name)))?;
        }
    }
    if strangers.displaced > 0 {
        quiet = false;
        let (there, gone) = (strangers.connected, strangers.displaced);
        output.line(&format!("  {there} strangers are connected, {gone} had to make room"))?;
    }
    if quiet {
        output.line("  nobody was slowed down or refused")?;
    }
    Ok(())
}

/// What each device may, and all together, with what all use.
fn shares(limits: &Limits, organisation: &Use, output: &mut Output) -> Result<(), Trouble> {
    let columns = [
        ("", Align::Left),
        ("EACH DEVICE", Align::Right),
        ("ALL TOGETHER", Align::Right),
        ("USED", Align::Right),
    ];
    let mut table = Table::new(&columns);
    for Line { name, unit, device, all, used, .. } in Line::all(limits, organisation) {
        let shown = match unit {
            Unit::Bytes => bytes,
            Unit::Count => count,
        };
        let most = |limit: Option<u64>| limit.map_or_else(|| "no limit".to_owned(), shown);
        table.row(vec![name.to_owned(), most(device), most(all), shown(used)]);
    }
    Ok(table.print(output.writer())?)
}

/// What each device uses.
fn uses(devices: &[DeviceUse], output: &mut Output) -> Result<(), Trouble> {
    let columns = [
        ("DEVICE", Align::Left),
        ("NAME", Align::Left),
        ("BYTES", Align::Right),
        ("CHANGES", Align::Right),
        ("CONNECTIONS", Align::Right),
        ("LOG", Align::Right),
        ("ASIDE", Align::Right),
        ("FILES", Align::Right),
        ("BEGUN", Align::Right),
    ];
    let mut table = Table::new(&columns);
    for DeviceUse { number, name, used, .. } in devices {
        table.row(vec![
            number.to_string(),
            safe(name),
            bytes(used.bytes),
            count(used.changes),
            count(used.connections),
            bytes(used.stored.log_bytes),
            bytes(used.stored.aside_bytes),
            bytes(used.stored.file_bytes),
            bytes(used.stored.begun_bytes),
        ]);
    }
    Ok(table.print(output.writer())?)
}

fn count(number: u64) -> String {
    number.to_string()
}

/// The report with times as everywhere.
fn told(report: &Report) -> Value {
    let Report { limits, since_ms, organisation, devices, strangers } = report;
    let device = |device: &DeviceUse| {
        let DeviceUse { number, name, revoked, connected, used } = device;
        json!({
            "number": number, "name": name, "revoked": revoked, "connected": connected,
            "used": told_use(used),
        })
    };
    json!({
        "limits": limits,
        "since": since_ms.map(rfc3339),
        "organisation": told_use(organisation),
        "devices": devices.iter().map(device).collect::<Vec<_>>(),
        "strangers": strangers,
    })
}

fn told_use(used: &Use) -> Value {
    let Use { bytes, changes, connections, stored, slowed, refused } = used;
    json!({
        "bytes": bytes, "changes": changes, "connections": connections,
        "stored": stored,
        "slowed": {
            "times": slowed.times, "seconds": slowed.millis as f64 / 1e3,
            "since": slowed.since_ms.map(rfc3339), "last": slowed.last_ms.map(rfc3339),
        },
        "refused": {
            "sessions": refused.sessions, "files": refused.files,
            "last": refused.last_ms.map(rfc3339),
        },
    })
}
