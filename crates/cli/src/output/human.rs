//! Records and statuses in words, for people.

use std::io::{self, Write};

use serde_json::{Map, Value};

use super::table::safe;
use fieldkeep_console::shape::{Aside, Change, Conflict, Culprit, Record, Status};

/// A record: its fields, what is known of its validity, and who wrote what the rules object to.
pub(crate) fn record(out: &mut impl Write, record: &Record) -> io::Result<()> {
    let mut marks = vec![record.state.replace('_', " ")];
    marks.extend(record.deleted.then(|| "deleted".to_owned()));
    marks.extend(record.unsaved.then(|| "unsaved".to_owned()));
    writeln!(out, "{}/{}  {}", record.ty, safe(record.id.as_str()), marks.join(", "))?;
    fields_of(out, &record.fields)?;
    why(out, record)?;
    if !record.conflicts.is_empty() {
        let fields = record.conflicts.join(", ");
        writeln!(out, "  concurrent values of {fields}: see `get --conflicts`")?;
    }
    if record.state != "valid" && record.last_valid().is_some() {
        writeln!(out, "  it passed before: see `get --last-valid`")?;
    }
    Ok(())
}

/// The reasons, of which fields and since when, the culprits, and whether somebody put it aside.
pub(crate) fn why(out: &mut impl Write, record: &Record) -> io::Result<()> {
    for reason in record.reasons() {
        writeln!(out, "  {}: {}", record.state.replace('_', " "), safe(reason))?;
    }
    let about = [
        (!record.reason_fields.is_empty())
            .then(|| format!("about {}", safe(&record.reason_fields.join(", ")))),
        record.since.as_ref().map(|since| format!("since {since}")),
    ];
    let about: Vec<String> = about.into_iter().flatten().collect();
    if !about.is_empty() {
        writeln!(out, "  {}", about.join(", "))?;
    }
    for culprit in record.verdict.iter().flat_map(|verdict| &verdict.culprits) {
        writeln!(out, "  written by {}", author(culprit))?;
    }
    if let Some(dismissed) = &record.dismissed {
        let note = if dismissed.note.is_empty() { "no note" } else { &dismissed.note };
        let (who, time) = (safe(&dismissed.who), &dismissed.time);
        writeln!(out, "  dismissed by {who}, {time}: {}", safe(note))?;
    }
    Ok(())
}

fn author(culprit: &Culprit) -> String {
    let (person, device) = (safe(&culprit.person), safe(&culprit.device));
    let fields = safe(&culprit.fields.join(", "));
    format!(
        "{person} on {device}, {}: {fields} (change {})",
        culprit.time,
        &culprit.change[..8.min(culprit.change.len())]
    )
}

/// Fields, one a line, aligned; the children of a set below it.
pub(crate) fn fields_of(out: &mut impl Write, fields: &Map<String, Value>) -> io::Result<()> {
    let width = fields.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, value) in fields {
        match value {
            Value::Array(children)
                if !children.is_empty() && children.iter().all(Value::is_object) =>
            {
                writeln!(out, "  {name}")?;
                for child in children.iter().filter_map(Value::as_object) {
                    writeln!(out, "    {}", one_line(child))?;
                }
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => writeln!(out, "  {name:width$}  {}", text(value))?,
        }
    }
    Ok(())
}

/// A child: its id, then its fields.
fn one_line(child: &Map<String, Value>) -> String {
    let id = child.get("id").map(text).unwrap_or_default();
    let fields = child.iter().filter(|(name, _)| *name != "id");
    let fields: Vec<_> = fields.map(|(name, value)| format!("{name} {}", text(value))).collect();
    format!("[{id}]  {}", fields.join("  "))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => safe(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            safe(&value.to_string())
        }
    }
}

/// A change, with what it wrote.
pub(crate) fn change(out: &mut impl Write, change: &Change) -> io::Result<()> {
    let (who, device) = (safe(change.who()), safe(&change.device));
    let short = &change.change[..8.min(change.change.len())];
    let carried = match (change.begins, &change.repeats) {
        (true, _) => ", as a new generation of the type began".to_owned(),
        (false, Some(hash)) => {
            format!(", which the relay carried over from {}", &hash[..8.min(hash.len())])
        }
        (false, None) => String::new(),
    };
    writeln!(out, "{}  {who} on {device}  (change {short}{carried})", change.time)?;
    for write in &change.writes {
        writeln!(out, "  {}", safe(&write.sentence(text)))?;
    }
    if change.writes.is_empty() {
        writeln!(out, "  made, without fields")?;
    }
    Ok(())
}

/// Concurrent values, the one that is shown first.
pub(crate) fn conflict(out: &mut impl Write, conflict: &Conflict) -> io::Result<()> {
    writeln!(out, "{}", safe(&conflict.field))?;
    for (number, value) in (1..).zip(&conflict.values) {
        let shown = if number == 1 { ", shown" } else { "" };
        writeln!(out, "  {number}  {}  by {}{shown}", text(&value.value), safe(&value.device))?;
    }
    Ok(())
}

/// A change that was kept aside.
pub(crate) fn aside(out: &mut impl Write, aside: &Aside) -> io::Result<()> {
    let records: Vec<_> =
        aside.records.iter().map(|id| format!("{}/{}", aside.ty, safe(id))).collect();
    let records = if records.is_empty() { aside.ty.clone() } else { records.join(", ") };
    let (reason, device) = (aside.reason.replace('_', " "), safe(&aside.device));
    writeln!(out, "{records}  {reason}")?;
    writeln!(out, "  kept aside, not merged: a change by {device}, {}", aside.time)
}

/// The sync strip.
pub(crate) fn strip(status: &Status) -> String {
    let mut parts = vec![match (&*status.connection, &status.error) {
        (_, Some(error)) => format!("Sync error: {}", safe(error)),
        ("online", None) => "Online".to_owned(),
        ("connecting", None) => "Connecting".to_owned(),
        ("serving", None) => "Serving".to_owned(),
        ("stopped", None) => "Not serving".to_owned(),
        (_, None) => "Offline".to_owned(),
    }];
    if status.role == "device" {
        parts.extend(status.retry_at.as_ref().map(|time| format!("next try {time}")));
        let synced = status.synced && status.error.is_none();
        parts.extend(synced.then(|| "synced".to_owned()));
        parts.push(match &status.last_sync {
            Some(time) => format!("last sync {time}"),
            None => "never synced".to_owned(),
        });
        parts.push(format!("{} unsaved", status.unsaved));
        if status.carried > 0 {
            parts.push(format!("{} carried for others, unsaved", status.carried));
        }
        if status.files > 0 {
            let files = super::several(status.files, "file");
            parts.push(format!("{files} to be sent: fieldkeep attachments list"));
        }
        if !status.forks.is_empty() {
            let names: Vec<_> = status.forks.iter().map(|name| safe(name)).collect();
            let text = "was copied or restored: both branches are kept until a relay decides";
            parts.push(format!("{} {text}", names.join(", ")));
        }
    }
    if status.held > 0 {
        let list = if status.role == "device" { "attention list" } else { "relay quarantine list" };
        let need = if status.held == 1 { "needs" } else { "need" };
        parts.push(format!("{} {need} attention: fieldkeep {list}", status.held));
    }
    parts.join("  ·  ")
}
