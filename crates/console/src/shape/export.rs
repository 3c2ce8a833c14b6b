//! Held records, and changes that lie aside, as they are written into files: lines of JSON, or a table.

use std::io::{self, Write};

use serde_json::Value;

use super::{Aside, Held};

/// The state of a change that lies aside.
const ASIDE: &str = "aside";
/// The columns of a table.
const HEAD: [&str; 13] = [
    "type",
    "id",
    "state",
    "reasons",
    "rules",
    "since",
    "written_by",
    "wrote",
    "assigned",
    "dismissed_by",
    "note",
    "as_merged",
    "last_valid",
];

/// A record with what the quarantine knows besides.
///
/// # Errors
/// When it cannot be put into JSON.
pub fn whole(held: &Held) -> io::Result<Value> {
    let mut whole = serde_json::to_value(&held.record)?;
    let besides = [("since", &held.since), ("assigned", &held.assigned)];
    if let Some(fields) = whole.as_object_mut() {
        fields.extend(besides.map(|(name, value)| (name.to_owned(), Value::from(value.clone()))));
    }
    Ok(whole)
}

/// Writes records as lines of JSON.
///
/// # Errors
/// When they cannot be written.
pub fn lines(held: &[Held], out: &mut impl Write) -> io::Result<()> {
    held.iter().try_for_each(|held| writeln!(out, "{}", whole(held)?))
}

/// Writes records as rows of a table, below its head where `first` says that they are the first ones.
///
/// # Errors
/// When they cannot be written.
pub fn table(held: Vec<Held>, first: bool, out: &mut impl Write) -> io::Result<()> {
    let mut table = csv::Writer::from_writer(out);
    if first {
        table.write_record(HEAD)?;
    }
    for Held { record, since, assigned } in held {
        let culprits = || record.verdict.iter().flat_map(|verdict| &verdict.culprits);
        let writers: Vec<_> = culprits().map(|culprit| culprit.device.clone()).collect();
        let wrote: Vec<_> = culprits().map(|culprit| culprit.fields.join(" ")).collect();
        let valid = record.last_valid().cloned();
        let reasons = record.reasons().join("; ");
        let (who, note) = record.dismissed.map(|by| (by.who, by.note)).unwrap_or_default();
        table.write_record([
            record.ty.to_string(),
            String::from(record.id),
            record.state,
            reasons,
            record.rules.join("; "),
            since.unwrap_or_default(),
            writers.join(", "),
            wrote.join(", "),
            assigned.unwrap_or_default(),
            who,
            note,
            Value::Object(record.fields).to_string(),
            valid.map(|valid| Value::Object(valid).to_string()).unwrap_or_default(),
        ])?;
    }
    table.flush()
}

/// Writes changes that lie aside behind the records, as lines of JSON whose state is `aside`.
///
/// # Errors
/// When they cannot be written.
pub fn aside_lines(asides: &[Aside], out: &mut impl Write) -> io::Result<()> {
    asides.iter().try_for_each(|aside| {
        let mut line = serde_json::to_value(aside)?;
        if let Some(fields) = line.as_object_mut() {
            fields.insert("state".to_owned(), ASIDE.into());
        }
        writeln!(out, "{line}")
    })
}

/// Writes them as rows of the table: with the records that they touch as the id, and what they would write
/// nowhere.
///
/// # Errors
/// When they cannot be written.
pub fn aside_table(asides: &[Aside], out: &mut impl Write) -> io::Result<()> {
    let mut table = csv::Writer::from_writer(out);
    for aside in asides {
        let mut row = [""; HEAD.len()];
        let records = aside.records.join(" ");
        row[..4].copy_from_slice(&[&aside.ty, &records, ASIDE, &aside.reason]);
        row[5..7].copy_from_slice(&[&aside.time, &aside.device]);
        table.write_record(row)?;
    }
    table.flush()
}
