//! The doctor's checks that devices and relays have in common: what is stored against what it should be.
//! Each says what it found, and what to do about it. Reads, and writes nothing.

use fieldkeep_catalog::Catalog;
use fieldkeep_model::{BlobHash, TypeName};
use fieldkeep_store::{Log, Records, SegmentRow, Soundness, StoreError};

use crate::log::entry;

/// Records that a segment is meant for; beyond a few times that, loading and writing it takes long.
const MEANT_FOR: u64 = 5_000;
/// How far the clock may be behind what others wrote, in milliseconds: a day.
const BEHIND: i64 = 86_400_000;

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// All is well.
    Fine,
    /// It works, and somebody should know.
    Notice,
    /// It is not as it should be.
    Wrong,
}

/// A check, and what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What was found.
    pub finding: Finding,
    /// The same in words.
    pub text: String,
    /// What to do about it: a command without the directory, or words.
    pub remedy: Option<String>,
}

impl Check {
    /// Nothing is wrong.
    #[must_use]
    pub fn fine(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, finding: Finding::Fine, text: text.into(), remedy: None }
    }

    /// Something is to be told, with what to do about it.
    #[must_use]
    pub fn found(
        name: &'static str,
        finding: Finding,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, finding, text: text.into(), remedy: Some(remedy.into()) }
    }
}

/// Whether the database is sound as a file.
#[must_use]
pub fn check_file(store: &impl Soundness, remedy: &str) -> Check {
    match store.check() {
        Ok(None) => Check::fine("file", "the database is sound"),
        Ok(Some(wrong)) => Check::found("file", Finding::Wrong, wrong, remedy),
        Err(error) => Check::found("file", Finding::Wrong, error.to_string(), remedy),
    }
}

/// Whether the clock is behind what was written. One that is wrong locks nobody out; histories look odd.
#[must_use]
pub fn check_clock<'r>(
    store: &impl Log,
    rows: impl Iterator<Item = &'r SegmentRow>,
    now: i64,
) -> Check {
    let newest = |row: &SegmentRow| entry(store, row.sid, row.tip).ok().flatten();
    let newest = rows.filter(|row| row.tip > 0).filter_map(newest).map(|entry| entry.header.time);
    let ahead = newest.max().map_or(0, |newest| newest.saturating_sub(now));
    if ahead > BEHIND {
        let days = ahead / BEHIND;
        let text = format!("the newest was written {days} days after what this clock says");
        let remedy = "set the clock; what was captured keeps its order all the same";
        return Check::found("clock", Finding::Notice, text, remedy);
    }
    Check::fine("clock", "the newest was not written after what this clock says")
}

/// Whether there is a catalog, and it has the types of which there are records.
#[must_use]
pub fn check_catalog(
    published: Option<(u64, &Catalog)>,
    types: impl IntoIterator<Item = TypeName>,
    absent: &str,
) -> Check {
    let Some((number, catalog)) = published else {
        return Check::found("catalog", Finding::Notice, "there is no catalog here yet", absent);
    };
    let lost = types.into_iter().filter(|ty| catalog.ty(ty).is_none());
    let lost: Vec<_> = lost.map(|ty| ty.to_string()).collect();
    if !lost.is_empty() {
        let text = format!("the catalog has no {}, of which there are records", lost.join(", "));
        let remedy = "the records are kept; publish a catalog that has the type again";
        return Check::found("catalog", Finding::Notice, text, remedy);
    }
    Check::fine("catalog", format!("number {number} is in force"))
}

/// Whether a segment has outgrown what it is meant for, and what is done about one of a type.
#[must_use]
pub fn check_sizes<'r>(
    rows: impl Iterator<Item = &'r SegmentRow>,
    remedy: impl Fn(&TypeName) -> String,
) -> Check {
    match rows.max_by_key(|row| row.records) {
        Some(row) if row.records > MEANT_FOR => {
            let text = format!(
                "{} has {} records: writing and loading it takes long",
                row.address, row.records
            );
            Check::found("segments", Finding::Notice, text, remedy(&row.address.ty))
        }
        Some(row) => {
            let records = if row.records == 1 { "record" } else { "records" };
            Check::fine("segments", format!("the largest has {} {records}", row.records))
        }
        None => Check::fine("segments", "there are none yet"),
    }
}

/// Records that are not what their changes come to: of which segment, if of any; else how many there are.
#[must_use]
pub fn check_records(differs: Option<&SegmentRow>, records: u64, remedy: &str) -> Check {
    if let Some(row) = differs {
        let text = format!("records of {} are not what their changes come to", row.address);
        return Check::found("records", Finding::Wrong, text, remedy);
    }
    Check::fine("records", format!("{records}, each what its changes come to"))
}

/// Whether the counts that are kept are what a recount finds.
///
/// # Errors
/// When the store cannot be read.
pub fn check_counts(store: &impl Records, remedy: &str) -> Result<Check, StoreError> {
    if store.tallies()? == store.recount()? {
        return Ok(Check::fine("counts", "what is kept is what a recount finds"));
    }
    let text = "the counts that are kept are not what a recount finds";
    Ok(Check::found("counts", Finding::Wrong, text, remedy))
}

/// Attached files: how many there are, and those that are not what their names say, so many of which
/// nobody else has.
#[must_use]
pub fn check_attached(count: u64, damaged: &[BlobHash], alone: usize, remedy: &str) -> Check {
    let Some(first) = damaged.first() else {
        let files = if count == 1 { "file is" } else { "files are" };
        return Check::fine("attachments", format!("{count} {files} here, and sound"));
    };
    let text = match (damaged.len(), alone) {
        (many, 0) => format!("{many} files are damaged or gone, {first} among them"),
        (many, lost) => {
            format!("{many} files are damaged or gone, {lost} of which no relay has: {first}")
        }
    };
    Check::found("attachments", Finding::Wrong, text, remedy)
}
