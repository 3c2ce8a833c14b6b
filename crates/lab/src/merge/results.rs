//! What a benchmark writes: results.json, and the same as CSV.
//!
//! The schema is `fieldkeep/lab-merge/1`. One object: `schema`, `partial` (true until the last run
//! has ended), `command`, `seed`, `devices`, `started` (milliseconds UTC), `machine`, `versions`,
//! `metrics` (the meaning of every figure's name), `runs`, `agreements`. A run: `engine`,
//! `workload`, `comparison` (`memory` or `durable`), `records` (0 where the number plays no part),
//! `outcome`, `note`, `counts` (whether its figures may be compared), `seconds`, `content` (blake3
//! of all records in canonical JSON) and `metrics`, figures by name. An agreement: what the engines
//! of one workload had to arrive at, who did, and who did not. The CSV has a line for each figure.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Comparison;
use super::engine::EngineName;
use super::measure::Metrics;
use super::workload::WorkloadName;
use crate::benchmark::replace;
use crate::machine::Machine;

/// The schema's name and version.
pub const SCHEMA: &str = "fieldkeep/lab-merge/1";

/// What the figures mean.
pub const METRICS: [(&str, &str); 36] = [
    ("put_us_median", "one local edit, encoded for others: median, µs"),
    ("put_us_p99", "the same, 99th percentile, µs"),
    ("put_total_ms", "all local edits, ms"),
    (
        "apply_us_median",
        "one remote message applied, its share where several come at once: median, µs",
    ),
    ("apply_us_p99", "the same, 99th percentile, µs"),
    ("apply_total_ms", "all remote messages, ms"),
    ("batch_ms", "all remote edits applied at once, ms"),
    ("load_ms", "the saved state loaded, ms"),
    ("read_all_ms", "every record read and hashed, ms"),
    ("save_ms", "the state saved, ms"),
    ("pack_ms", "the messages packed, ms"),
    ("wire_bytes", "the messages as the engine encodes each, bytes"),
    ("wire_packed_bytes", "the messages sent together: Fieldkeep's batches, else zstd-3, bytes"),
    ("batch_bytes", "the edits as one message, bytes"),
    ("batch_packed_bytes", "the edits as one message, packed, bytes"),
    ("saved_bytes", "the state as it is saved, bytes"),
    ("saved_packed_bytes", "the saved state under zstd-3, bytes"),
    ("heap_live_bytes", "allocated after the work, beyond what was before, bytes"),
    ("heap_peak_bytes", "the most that was allocated at once, beyond what was before, bytes"),
    ("heap_growth_bytes", "what applying the remote messages one by one left allocated, bytes"),
    ("rss_peak_bytes", "peak resident memory of the process, C libraries included, bytes"),
    ("as_recorded", "1 if the merged text is the one that the trace recorded"),
    ("open_ms", "the replica opened from its files, ms"),
    ("disk_bytes", "the files afterwards, bytes"),
    ("receive_us_median", "one delivery merged, projected and durable: median, µs"),
    ("receive_us_p99", "the same, 99th percentile, µs"),
    ("receive_total_ms", "all deliveries, ms"),
    ("change_us_median", "the same for each change of a delivery: median, µs"),
    ("verdict_ms_median", "from a commit on one device to the verdict on another one: median, ms"),
    ("verdict_ms_p99", "the same, 99th percentile, ms"),
    ("held_ms_median", "the same for changes that break a rule: median, ms"),
    ("held_ms_p99", "the same, 99th percentile, ms"),
    (
        "release_ms_median",
        "from the commit of the repair to the release on the other device: median, ms",
    ),
    ("release_ms_p99", "the same, 99th percentile, ms"),
    ("held", "changes that were held"),
    ("changes", "changes that were judged"),
];

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was measured.
    Measured,
    /// It took more memory than it may.
    OverMemory,
    /// It took more time than it may.
    OverTime,
    /// It failed; the note says how.
    Failed,
    /// What it starts from could not be made; the note says why.
    NoBase,
    /// It arrived at another content than it should.
    Disagrees,
    /// It was interrupted.
    Interrupted,
}

impl Outcome {
    /// A word or two for a table.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::OverMemory => "over memory",
            Self::OverTime => "over time",
            Self::Failed => "failed",
            Self::NoBase => "no base",
            Self::Disagrees => "wrong content",
            Self::Interrupted => "interrupted",
        }
    }
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Who.
    pub engine: EngineName,
    /// Did what.
    pub workload: WorkloadName,
    /// In memory or durably.
    pub comparison: Comparison,
    /// With how many records; 0 where the number plays no part.
    pub records: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// More about that.
    pub note: String,
    /// Whether its figures may be compared.
    pub counts: bool,
    /// How long both steps took, in seconds.
    pub seconds: f64,
    /// The hash of all records at the end.
    pub content: Option<String>,
    /// The figures by name.
    pub metrics: BTreeMap<String, f64>,
}

/// What the engines of one workload had to arrive at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// The workload.
    pub workload: WorkloadName,
    /// In memory or durably.
    pub comparison: Comparison,
    /// With how many records.
    pub records: usize,
    /// The content, computed without any engine.
    pub content: String,
    /// Who arrived at it.
    pub agreed: Vec<EngineName>,
    /// Who did not.
    pub differed: Vec<EngineName>,
}

/// Everything that a benchmark writes.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Whether runs are missing.
    pub partial: bool,
    /// The command that makes this again.
    pub command: String,
    /// The seed of all data.
    pub seed: u64,
    /// How many actors write.
    pub devices: usize,
    /// When it began, milliseconds UTC.
    pub started: u64,
    /// Where it ran.
    pub machine: Machine,
    /// The versions of what was compared.
    pub versions: BTreeMap<String, String>,
    /// What the figures mean.
    pub metrics: BTreeMap<&'static str, &'static str>,
    /// The runs so far.
    pub runs: Vec<Run>,
    /// Who arrived at the right content.
    pub agreements: Vec<Agreement>,
}

impl Results {
    /// Takes a run in, and judges whether it counts.
    pub(crate) fn add(&mut self, mut run: Run, expected: Option<&String>) {
        if run.outcome == Outcome::Measured
            && let Some(expected) = expected
        {
            let right = run.content.as_ref() == Some(expected);
            if !right {
                run.outcome = Outcome::Disagrees;
                run.note = format!("arrived at {}", run.content.as_deref().unwrap_or("nothing"));
            }
            self.agree(&run, expected, right);
        }
        run.counts = run.outcome == Outcome::Measured;
        self.runs.push(run);
    }

    fn agree(&mut self, run: &Run, content: &str, right: bool) {
        let place = (run.workload, run.comparison, run.records);
        let known = self.agreements.iter_mut();
        let mut known = known.filter(|a| (a.workload, a.comparison, a.records) == place);
        let agreement = match known.next() {
            Some(agreement) => agreement,
            None => {
                self.agreements.push(Agreement {
                    workload: run.workload,
                    comparison: run.comparison,
                    records: run.records,
                    content: content.to_owned(),
                    agreed: Vec::new(),
                    differed: Vec::new(),
                });
                self.agreements.last_mut().expect("it was just pushed")
            }
        };
        let list = if right { &mut agreement.agreed } else { &mut agreement.differed };
        list.push(run.engine);
    }

    /// Whether every engine that was measured arrived at the right content.
    #[must_use]
    pub fn all_agree(&self) -> bool {
        self.agreements.iter().all(|agreement| agreement.differed.is_empty())
    }

    /// A sentence about who arrived at the right content.
    #[must_use]
    pub fn agreement_line(&self) -> String {
        let compared: usize = self.agreements.iter().map(|a| a.agreed.len()).sum();
        let differed: Vec<_> = self
            .agreements
            .iter()
            .flat_map(|agreement| {
                let place = agreement.workload.name();
                agreement.differed.iter().map(move |engine| format!("{} in {place}", engine.name()))
            })
            .collect();
        if self.agreements.is_empty() {
            return "No workload here demands one content of all engines.".to_owned();
        }
        if differed.is_empty() {
            return format!(
                "All engines arrived at one content: {compared} runs of {} comparisons, by the \
                 blake3 of all records in canonical JSON, computed without any engine.",
                self.agreements.len()
            );
        }
        format!("Wrong content, not counted: {}.", differed.join(", "))
    }

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
        let mut out = Vec::new();
        let head = "comparison,workload,records,engine,outcome,counts,metric,value\n";
        out.extend_from_slice(head.as_bytes());
        for run in &self.runs {
            let place = format!(
                "{},{},{},{},{},{}",
                run.comparison.name(),
                run.workload.name(),
                run.records,
                run.engine.name(),
                run.outcome.word(),
                run.counts
            );
            if run.metrics.is_empty() {
                // No name here has a comma or a quote; notes, which may, stay in the JSON.
                writeln!(out, "{place},,").expect("memory takes it");
            }
            for (name, figure) in &run.metrics {
                writeln!(out, "{place},{name},{figure}").expect("memory takes it");
            }
        }
        out
    }
}

impl Run {
    /// The figure that says most about a run: its name, and milliseconds.
    #[must_use]
    pub fn headline(&self) -> Option<(&'static str, f64)> {
        const FIRST: [&str; 7] = [
            "verdict_ms_median",
            "receive_total_ms",
            "read_all_ms",
            "apply_total_ms",
            "batch_ms",
            "put_total_ms",
            "load_ms",
        ];
        let first = FIRST.into_iter().filter(|name| {
            // A text that one author typed is told by the typing.
            !(self.workload.is_text() && *name == "batch_ms")
        });
        first.into_iter().find_map(|name| Some((name, *self.metrics.get(name)?)))
    }

    /// A run that ended with figures, or without.
    pub(crate) fn of(
        place: (EngineName, WorkloadName, Comparison, usize),
        ended: Result<Metrics, (Outcome, String)>,
        seconds: f64,
    ) -> Self {
        let (engine, workload, comparison, records) = place;
        let (outcome, note, metrics) = match ended {
            Ok(metrics) => (Outcome::Measured, String::new(), metrics),
            Err((outcome, note)) => (outcome, note, Metrics::default()),
        };
        let Metrics { figures, content, .. } = metrics;
        Self {
            engine,
            workload,
            comparison,
            records,
            outcome,
            note,
            counts: false,
            seconds,
            content,
            metrics: figures,
        }
    }
}
