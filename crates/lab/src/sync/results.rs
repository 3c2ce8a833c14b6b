//! What the sync benchmark writes: results.json, and the same as CSV.
//!
//! The schema is `fieldkeep/lab-sync/1`. One object: `schema`, `partial`, `command`, `seed`,
//! `records`, `segments`, `delays_ms` (added round trip times), `lose_one_in`, `started`
//! (milliseconds UTC), `machine`, `versions`, `rows`. A row: `property`, `subject`, `note`,
//! `failed`, `target`, and figures that are null where they do not apply: `round_trips`, `bytes`
//! (of streams, both ways), `ideal_raw` and `ideal_packed` (bytes of the missing changes, raw and as
//! zstd-19 packs them), `relay_ms` (processor time), `redundant_bytes` (more than without a cut, for
//! each, the new handshakes included),
//! `times_ms` (median time at each added round trip time).

use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;

use super::{Ideal, Plan, Sample, median, slope};
use crate::benchmark::replace;
use crate::machine::Machine;

/// The schema's name and version.
pub const SCHEMA: &str = "fieldkeep/lab-sync/1";

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Fieldkeep's devices and relay.
    Fieldkeep,
    /// Automerge's sync protocol, a document for each segment, over the same link.
    Automerge,
    /// samod, a document for each segment, over TCP.
    Samod,
}

impl Subject {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fieldkeep, Self::Automerge, Self::Samod];

    /// The name as it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fieldkeep => "fieldkeep",
            Self::Automerge => "automerge",
            Self::Samod => "samod",
        }
    }

    /// Whether the property means something for it.
    #[must_use]
    pub fn does(self, property: Property) -> bool {
        match self {
            Self::Fieldkeep => property != Property::ReconnectForgotten,
            Self::Automerge => !matches!(property, Property::Cuts | Property::Restored),
            Self::Samod => property == Property::Cold,
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Property {
    /// All segments in sync, reconnect.
    Reconnect,
    /// The same where the state of the conversation was lost; Fieldkeep keeps none.
    ReconnectForgotten,
    /// One new change is pulled.
    OneChange,
    /// One new change comes while connected.
    Live,
    /// Both sides have 100 new of 5,000 changes.
    Diverged,
    /// Two that have never met have 100 new changes each, of one author in one segment, since both
    /// were in sync with a third.
    FirstContact,
    /// A device that has nothing.
    Cold,
    /// The same, cut five times.
    Cuts,
    /// A relay that was restored from an older copy.
    Restored,
}

impl Property {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Reconnect,
        Self::ReconnectForgotten,
        Self::OneChange,
        Self::Live,
        Self::Diverged,
        Self::FirstContact,
        Self::Cold,
        Self::Cuts,
        Self::Restored,
    ];

    /// The name as it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reconnect => "reconnect",
            Self::ReconnectForgotten => "reconnect-forgotten",
            Self::OneChange => "one-change",
            Self::Live => "live",
            Self::Diverged => "diverged",
            Self::FirstContact => "first-contact",
            Self::Cold => "cold",
            Self::Cuts => "cuts",
            Self::Restored => "restored",
        }
    }

    /// What it has to be for Fieldkeep, as the protocol promises.
    #[must_use]
    pub fn target(self) -> &'static str {
        match self {
            Self::Reconnect => "1 round trip, at most 5 KB",
            Self::ReconnectForgotten => "",
            Self::OneChange => "1 round trip, at most 260 bytes",
            Self::Live => "half a round trip",
            Self::Diverged => "1 round trip, at most 0.25 of raw",
            Self::FirstContact => {
                "at most 2 round trips and 0.25 of raw, heads and standpoints apart"
            }
            Self::Cold => "at most 0.20 of raw with idle packs, 0.10 more for rows",
            Self::Cuts => "at most 64 KiB sent again for each cut",
            Self::Restored => "at most 2 round trips, each lost change once",
        }
    }
}

/// One property of one subject.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The property.
    pub property: Property,
    /// The subject.
    pub subject: Subject,
    /// What else is to be said.
    pub note: String,
    /// Whether it failed; the note says how.
    pub failed: bool,
    /// What the protocol promises.
    pub target: &'static str,
    /// The slope of time over round trip time, less that of a handshake.
    pub round_trips: Option<f64>,
    /// Bytes of streams, both ways.
    pub bytes: Option<f64>,
    /// Bytes of the missing changes.
    pub ideal_raw: Option<f64>,
    /// The same as zstd-19 packs them.
    pub ideal_packed: Option<f64>,
    /// Processor time of the relay, in milliseconds.
    pub relay_ms: Option<f64>,
    /// Bytes that were sent again for each cut.
    pub redundant_bytes: Option<f64>,
    /// Median times in milliseconds, by added round trip time.
    pub times_ms: BTreeMap<u64, f64>,
}

impl Row {
    /// A row without figures.
    pub(super) fn new(property: Property, subject: Subject) -> Self {
        Self {
            property,
            subject,
            note: String::new(),
            failed: false,
            target: if subject == Subject::Fieldkeep { property.target() } else { "" },
            round_trips: None,
            bytes: None,
            ideal_raw: None,
            ideal_packed: None,
            relay_ms: None,
            redundant_bytes: None,
            times_ms: BTreeMap::new(),
        }
    }

    /// The bytes over those of the missing changes.
    #[must_use]
    pub fn of_raw(&self) -> Option<f64> {
        Some(self.bytes? / self.ideal_raw.filter(|raw| *raw > 0.0)?)
    }

    /// A subject that failed, with its last words.
    pub(super) fn failed(
        property: Property,
        subject: Subject,
        panic: &Box<dyn Any + Send>,
    ) -> Self {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let note = words.unwrap_or_else(|| "it panicked".to_owned());
        Self { note, failed: true, ..Self::new(property, subject) }
    }

    /// A row from what was measured at each round trip time, less what a handshake takes.
    pub(super) fn of(
        (property, subject): (Property, Subject),
        samples: &BTreeMap<u64, Vec<Sample>>,
        handshakes: &BTreeMap<u64, Vec<f64>>,
        ideal: Option<Ideal>,
    ) -> Self {
        let mut row = Self::new(property, subject);
        let medians = |of: fn(&Sample) -> f64| {
            let each = samples.iter();
            each.map(move |(delay, all)| (*delay, median(all.iter().map(of).collect())))
        };
        row.times_ms = medians(|sample| sample.ms).collect();
        let points = |times: &BTreeMap<u64, f64>| -> Vec<_> {
            times.iter().map(|(delay, ms)| (*delay as f64, *ms)).collect()
        };
        let bare: BTreeMap<_, _> =
            handshakes.iter().map(|(delay, all)| (*delay, median(all.clone()))).collect();
        let less = if bare.is_empty() { 0.0 } else { slope(&points(&bare)) };
        row.round_trips = Some(slope(&points(&row.times_ms)) - less);
        row.bytes = Some(median(medians(|sample| sample.bytes as f64).map(|(_, b)| b).collect()));
        row.relay_ms = Some(median(medians(|sample| sample.relay_ms).map(|(_, ms)| ms).collect()));
        row.ideal_raw = ideal.map(|ideal| ideal.raw as f64);
        row.ideal_packed = ideal.map(|ideal| ideal.packed as f64);
        row
    }
}

/// Everything that the benchmark writes.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Whether rows are missing.
    pub partial: bool,
    /// The command that makes this again.
    pub command: String,
    /// The seed of all data.
    pub seed: u64,
    /// Records of a cold start.
    pub records: usize,
    /// Segments of a reconnect.
    pub segments: usize,
    /// Added round trip times.
    pub delays_ms: Vec<u64>,
    /// One datagram in so many was lost; none if 0.
    pub lose_one_in: u64,
    /// When it began, milliseconds UTC.
    pub started: u64,
    /// Where it ran.
    pub machine: Machine,
    /// The versions of what was measured.
    pub versions: BTreeMap<String, String>,
    /// The rows so far.
    pub rows: Vec<Row>,
}

impl Results {
    /// Writes `results.json` and `results.csv` into a folder.
    ///
    /// # Errors
    /// When the folder does not take them.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        replace(&folder.join("results.json"), &json)?;
        replace(&folder.join("results.csv"), &self.csv())
    }

    fn csv(&self) -> Vec<u8> {
        let mut out = b"property,subject,failed,figure,value\n".to_vec();
        for row in &self.rows {
            let figures = [
                ("round_trips", row.round_trips),
                ("bytes", row.bytes),
                ("ideal_raw", row.ideal_raw),
                ("ideal_packed", row.ideal_packed),
                ("relay_ms", row.relay_ms),
                ("redundant_bytes", row.redundant_bytes),
            ];
            let named = figures.into_iter().filter_map(|(name, f)| Some((name.to_owned(), f?)));
            let times = row.times_ms.iter().map(|(delay, ms)| (format!("time_ms_at_{delay}"), *ms));
            for (name, figure) in named.chain(times) {
                let (property, subject) = (row.property.name(), row.subject.name());
                writeln!(out, "{property},{subject},{},{name},{figure}", row.failed)
                    .expect("memory takes it");
            }
        }
        out
    }
}

impl Plan {
    /// An empty list for each round trip time.
    pub(super) fn each<T: Default>(&self) -> BTreeMap<u64, T> {
        self.delays.iter().map(|delay| (*delay, T::default())).collect()
    }
}
