//! The sync benchmark: what the protocol has to achieve, measured over real QUIC through a road that
//! takes longer.
//!
//! Each property is measured at several round trip times. Round trips are the slope of time over
//! that, less the slope of a bare handshake; bytes are those of the streams, both ways, and stand
//! beside the least that could be sent: the missing changes raw, and packed as zstd-19 packs them.
//! Automerge's own sync protocol runs over the same link, samod over its own transport. The relay is
//! a process of its own, so that its processor time is its alone. Whatever fails panics in the
//! subject concerned and is told as its result; the other subjects go on.

mod automerge;
mod fieldkeep;
mod report;
pub mod results;
#[cfg(feature = "engines")]
mod samod;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use results::{Property, Results, Row, SCHEMA, Subject};

use crate::benchmark::{Progress, replace, writable};
use crate::machine::{Machine, versions};

/// How often each is measured at each round trip time.
const RUNS: usize = 3;
/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A benchmark to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who.
    pub subjects: Vec<Subject>,
    /// What.
    pub properties: Vec<Property>,
    /// Records of a cold start.
    pub records: usize,
    /// Segments, or documents, of a reconnect.
    pub segments: usize,
    /// Added round trip times in milliseconds.
    pub delays: Vec<u64>,
    /// One datagram in so many is lost; none if 0.
    pub lose_one_in: u64,
    /// Where all data come from.
    pub seed: u64,
    /// Where the results go.
    pub out: PathBuf,
    /// The command that makes the results again.
    pub command: String,
    /// The program that serves as a relay.
    pub program: PathBuf,
}

/// Why a plan cannot be run. Nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// There is no such subject.
    #[error("there is no subject `{0}`; there are fieldkeep, automerge, samod")]
    UnknownSubject(String),
    /// There is no such property.
    #[error("there is no property `{name}`; there are {}", names().join(", "))]
    UnknownProperty {
        /// What was typed.
        name: String,
    },
    /// This build has not got it: build it with the feature `engines`.
    #[error("this build has no `{0}`")]
    NotBuilt(&'static str),
    /// A number that cannot be.
    #[error("{given} {what} are not possible: give {least} to {most}")]
    Size {
        /// Of what.
        what: &'static str,
        /// What was typed.
        given: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A slope needs two points.
    #[error("a slope needs two different round trip times at least")]
    Delays,
    /// The folder for the results cannot be written: name another one.
    #[error("{}: {error}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

fn names() -> Vec<&'static str> {
    Property::ALL.into_iter().map(Property::name).collect()
}

impl std::str::FromStr for Subject {
    type Err = PlanError;

    fn from_str(name: &str) -> Result<Self, PlanError> {
        let found = Self::ALL.into_iter().find(|subject| subject.name() == name);
        found.ok_or_else(|| PlanError::UnknownSubject(name.to_owned()))
    }
}

impl std::str::FromStr for Property {
    type Err = PlanError;

    fn from_str(name: &str) -> Result<Self, PlanError> {
        let found = Self::ALL.into_iter().find(|property| property.name() == name);
        found.ok_or_else(|| PlanError::UnknownProperty { name: name.to_owned() })
    }
}

impl Plan {
    /// Looks whether it can be run, and makes the folder for its results.
    ///
    /// # Errors
    /// What is wrong with it, before any work is done.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.subjects.contains(&Subject::Samod) && !cfg!(feature = "engines") {
            return Err(PlanError::NotBuilt("samod"));
        }
        let within = |what, given: u64, least, most| {
            let fits = (least..=most).contains(&given);
            if fits { Ok(()) } else { Err(PlanError::Size { what, given, least, most }) }
        };
        within("records", self.records as u64, 100, 1_000_000)?;
        within("segments", self.segments as u64, 1, 1_024)?;
        for delay in &self.delays {
            within("milliseconds", *delay, 0, 5_000)?;
        }
        let different = self.delays.iter().any(|delay| *delay != self.delays[0]);
        if !different {
            return Err(PlanError::Delays);
        }
        let failed = |error| PlanError::Folder { path: self.out.clone(), error };
        writable(&self.out).map_err(failed)
    }

    fn rows(&self) -> Vec<(Property, Subject)> {
        let all = self.properties.iter();
        let all =
            all.flat_map(|property| self.subjects.iter().map(|subject| (*property, *subject)));
        all.filter(|(property, subject)| subject.does(*property)).collect()
    }

    /// Runs it. The results are written after each row, marked as partial until the last one.
    ///
    /// # Errors
    /// When the results cannot be written.
    pub fn run(
        &self,
        stop: &AtomicBool,
        mut progress: impl FnMut(&Progress<Row>),
    ) -> io::Result<Results> {
        let mut results = self.blank();
        let rows = self.rows();
        for (done, (property, subject)) in rows.iter().enumerate() {
            let next = Some(format!("{} {}", property.name(), subject.name()));
            let ended = results.rows.last().cloned();
            progress(&Progress { ended, done, total: rows.len(), next });
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let scratch = self.out.join("scratch");
            fs::create_dir_all(&scratch)?;
            let measured = catch_unwind(AssertUnwindSafe(|| self.measure(*property, *subject)));
            let row = measured.unwrap_or_else(|panic| Row::failed(*property, *subject, &panic));
            // Large, and of no use to another row.
            let _ = fs::remove_dir_all(&scratch);
            results.rows.push(row);
            results.partial = done + 1 < rows.len();
            self.write(&results)?;
        }
        let (ended, done) = (results.rows.last().cloned(), results.rows.len());
        progress(&Progress { ended, done, total: rows.len(), next: None });
        Ok(results)
    }

    fn measure(&self, property: Property, subject: Subject) -> Row {
        match subject {
            Subject::Fieldkeep => fieldkeep::measure(self, property),
            Subject::Automerge => automerge::measure(self, property),
            #[cfg(feature = "engines")]
            Subject::Samod => samod::measure(self, property),
            #[cfg(not(feature = "engines"))]
            Subject::Samod => unreachable!("the plan was checked"),
        }
    }

    fn blank(&self) -> Results {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Results {
            schema: SCHEMA,
            partial: true,
            command: self.command.clone(),
            seed: self.seed,
            records: self.records,
            segments: self.segments,
            delays_ms: self.delays.clone(),
            lose_one_in: self.lose_one_in,
            started: u64::try_from(now.as_millis()).unwrap_or(0),
            machine: Machine::here(),
            versions: versions(),
            rows: Vec::new(),
        }
    }

    fn write(&self, results: &Results) -> io::Result<()> {
        results.write(&self.out)?;
        let page = report::html(results);
        replace(&self.out.join("report.html"), page.as_bytes())
    }
}

/// What one run came to.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// How long it took.
    ms: f64,
    /// Bytes of streams, both ways together.
    bytes: u64,
    /// Processor time of the relay.
    relay_ms: f64,
}

/// The least that could have been sent.
#[derive(Clone, Copy, Debug, Default)]
struct Ideal {
    raw: u64,
    packed: u64,
}

/// The slope of time over round trip time, by least squares.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let below: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    above / below
}

/// The median.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_found_whatever_is_added_to_all_points() {
        let points = [(0.0, 7.0), (50.0, 107.0), (200.0, 407.0)];
        assert!((slope(&points) - 2.0).abs() < 1e-9);
    }
}
