//! `relay limits`: what devices may bring and have stored, what they use of that, and who was slowed down or
//! refused.

use std::path::Path;

use fieldkeep_console::{Failure, Trouble, rfc3339};
use fieldkeep_relay::limits::{DeviceUse, Limits, Report, Share, Use};
use serde_json::{Value, json};

use crate::access::Access;
use crate::output::{Align, Output, Table, safe};
use crate::request::{Request, Response};

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
        "{} handshakes a second, {} strangers at once; who is slowed down for {} s is sent away",
        limits.handshakes_a_second, limits.strangers, limits.grace_seconds
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
        for sentence in sentences(&device.used) {
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
    let Limits { device, organisation: all, .. } = limits;
    let Use { bytes: read, changes, connections, stored, .. } = organisation;
    type Limit = fn(&Share) -> Option<u64>;
    let rows: [(&str, Limit, u64, fn(u64) -> String); 5] = [
        ("bytes a minute", |share| share.bytes_a_minute, *read, bytes),
        ("changes a minute", |share| share.changes_a_minute, *changes, count),
        ("connections a minute", |share| share.connections_a_minute, *connections, count),
        ("bytes in the log", |share| share.log_bytes, stored.log_bytes, bytes),
        ("bytes of files", |share| share.file_bytes, stored.file_bytes + stored.begun_bytes, bytes),
    ];
    for (name, limit, used, shown) in rows {
        let most = |share| limit(share).map_or_else(|| "no limit".to_owned(), shown);
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

/// How a device was slowed down or refused.
fn sentences(used: &Use) -> Vec<String> {
    let Use { slowed, refused, stored, .. } = used;
    let mut sentences = Vec::new();
    if let Some(last) = slowed.last_ms {
        let seconds = slowed.millis / 1_000;
        let lasts = slowed.since_ms.map_or_else(
            || format!("last at {}", rfc3339(last)),
            |since| format!("again since {}", rfc3339(since)),
        );
        sentences.push(format!("slowed down {} times, {seconds} s in all, {lasts}", slowed.times));
    }
    if let Some(last) = refused.last_ms {
        let (sessions, files) = (refused.sessions, refused.files);
        let last = rfc3339(last);
        sentences
            .push(format!("{sessions} sessions and {files} files refused, the last at {last}"));
    }
    if stored.aside_bytes > 0 {
        let aside = bytes(stored.aside_bytes);
        sentences
            .push(format!("{aside} of its changes lie aside: `relay quarantine list` says why"));
    }
    sentences
}

fn count(number: u64) -> String {
    number.to_string()
}

/// Bytes as they are written in `relay.toml`, to three figures.
fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in units {
        if value < 1_024.0 {
            break;
        }
        (value, unit) = (value / 1_024.0, larger);
    }
    let whole = value.fract() == 0.0 || value >= 100.0;
    if whole { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_to_three_figures() {
        let shown = [0, 1_023, 1_024, 1_536, 300 << 20, 4 << 30].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "300 MiB", "4 GiB"]);
    }
}
