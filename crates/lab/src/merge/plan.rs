//! What is to be measured: checked before any work is done, then run from end to end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use super::cell::{self, Cell, Program, Step};
use super::engine::EngineName;
use super::results::{METRICS, Outcome, Results, Run, SCHEMA};
use super::workload::{self, WorkloadName, trace_file, traces};
use super::{Comparison, report};
use crate::benchmark::{Progress, replace, writable};
use crate::machine::{Machine, versions};

/// The fewest and the most records: below, workloads have not enough fields to keep edits apart.
const RECORDS: (usize, usize) = (100, 10_000_000);
/// The most actors: their numbers stay below those of the replicas that are measured.
const DEVICES: usize = 900;

/// A benchmark to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who.
    pub engines: Vec<EngineName>,
    /// Does what.
    pub workloads: Vec<WorkloadName>,
    /// With how many records, each number in turn.
    pub records: Vec<usize>,
    /// How many actors write.
    pub devices: usize,
    /// Where all data come from.
    pub seed: u64,
    /// Where the results go.
    pub out: PathBuf,
    /// The command that makes the results again.
    pub command: String,
}

/// Why a plan cannot be run. Nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// There is no such engine: name another one.
    #[error("there is no engine `{name}`{}; there are {}", like(.name, &names_of_engines()), names_of_engines().join(", "))]
    UnknownEngine {
        /// What was typed.
        name: String,
    },
    /// There is no such workload: name another one.
    #[error("there is no workload `{name}`{}; there are {}", like(.name, &names_of_workloads()), names_of_workloads().join(", "))]
    UnknownWorkload {
        /// What was typed.
        name: String,
    },
    /// This build has not got the engine: build it with the feature `engines`.
    #[error("this build has no engine `{}`", .0.name())]
    NotBuilt(EngineName),
    /// A number of records that no workload can do with.
    #[error("{given} records are not possible: give {} to {}", RECORDS.0, RECORDS.1)]
    Records {
        /// What was typed.
        given: usize,
    },
    /// A number of actors that cannot be.
    #[error("{given} devices are not possible: give 1 to {DEVICES}, and no more than records")]
    Devices {
        /// What was typed.
        given: usize,
    },
    /// Nothing is left to be done.
    #[error("nothing is to be measured: name an engine and a workload that it can do")]
    Nothing,
    /// The folder for the results cannot be written: name another one.
    #[error("{}: {error}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The editing trace of a workload is not there: name the folder of the test data in
    /// FIELDKEEP_DATA.
    #[error("{} is not there", .0.display())]
    Trace(PathBuf),
}

fn names_of_engines() -> Vec<&'static str> {
    EngineName::ALL.into_iter().map(EngineName::name).collect()
}

fn names_of_workloads() -> Vec<&'static str> {
    WorkloadName::ALL.into_iter().map(WorkloadName::name).collect()
}

/// A question whether another name was meant, if one is close.
fn like(name: &str, known: &[&str]) -> String {
    let close = known.iter().map(|known| (strsim::jaro_winkler(name, known), known));
    let best = close.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(how, _)| *how > 0.8);
    best.map_or_else(String::new, |(_, known)| format!(" (did you mean `{known}`?)"))
}

impl std::str::FromStr for EngineName {
    type Err = PlanError;

    fn from_str(name: &str) -> Result<Self, PlanError> {
        let found = Self::ALL.into_iter().find(|engine| engine.name() == name);
        found.ok_or_else(|| PlanError::UnknownEngine { name: name.to_owned() })
    }
}

impl std::str::FromStr for WorkloadName {
    type Err = PlanError;

    fn from_str(name: &str) -> Result<Self, PlanError> {
        let found = Self::ALL.into_iter().find(|workload| workload.name() == name);
        found.ok_or_else(|| PlanError::UnknownWorkload { name: name.to_owned() })
    }
}

/// The engine, workload, comparison and size of a run.
type Place = (EngineName, WorkloadName, Comparison, usize);

impl Plan {
    /// Looks whether it can be run, and makes the folder for its results.
    ///
    /// # Errors
    /// What is wrong with it, before any work is done.
    pub fn check(&self) -> Result<(), PlanError> {
        if let Some(engine) = self.engines.iter().find(|engine| !engine.is_built()) {
            return Err(PlanError::NotBuilt(*engine));
        }
        let possible = |records: &usize| (RECORDS.0..=RECORDS.1).contains(records);
        if let Some(records) = self.records.iter().find(|records| !possible(records)) {
            return Err(PlanError::Records { given: *records });
        }
        let fewest = self.records.iter().min().copied().unwrap_or(0);
        if !(1..=DEVICES.min(fewest)).contains(&self.devices) {
            return Err(PlanError::Devices { given: self.devices });
        }
        for trace in self.workloads.iter().filter_map(|workload| workload.trace()) {
            let file = trace_file(trace, &traces());
            if !file.is_file() {
                return Err(PlanError::Trace(file));
            }
        }
        if self.places().is_empty() {
            return Err(PlanError::Nothing);
        }
        let failed = |error| PlanError::Folder { path: self.out.clone(), error };
        writable(&self.out).map_err(failed)
    }

    /// Leaves out workloads whose editing traces are not there, and names them.
    pub fn without_absent_traces(&mut self) -> Vec<WorkloadName> {
        let there = |workload: &WorkloadName| {
            workload.trace().is_none_or(|trace| trace_file(trace, &traces()).is_file())
        };
        let absent = self.workloads.iter().copied().filter(|workload| !there(workload)).collect();
        self.workloads.retain(there);
        absent
    }

    /// All runs, engines innermost but for those that share files.
    fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for &size in &self.records {
            for comparison in [Comparison::Memory, Comparison::Durable] {
                for &engine in &self.engines {
                    let fits = |w: &&WorkloadName| w.is_sized() && does(engine, **w, comparison);
                    let workloads = self.workloads.iter().filter(fits);
                    places.extend(workloads.map(|w| (engine, *w, comparison, size)));
                }
            }
        }
        for &engine in &self.engines {
            let fits = |w: &&WorkloadName| !w.is_sized() && does(engine, **w, Comparison::Memory);
            let workloads = self.workloads.iter().filter(fits);
            places.extend(workloads.map(|w| (engine, *w, Comparison::Memory, 0)));
        }
        places
    }

    /// Runs it. The results are written after each run, marked as partial until the last one.
    ///
    /// # Errors
    /// When the results cannot be written.
    pub fn run(
        &self,
        program: &Program,
        stop: &AtomicBool,
        mut progress: impl FnMut(&Progress<Run>),
    ) -> io::Result<Results> {
        let scratch = self.out.join("scratch");
        let mut results = self.blank();
        let places = self.places();
        let mut contents = BTreeMap::new();
        for (done, place) in places.iter().enumerate() {
            let (engine, workload, comparison, size) = *place;
            let next =
                format!("{} {} {} {size}", comparison.name(), engine.name(), workload.name());
            let ended = results.runs.last().cloned();
            progress(&Progress { ended, done, total: places.len(), next: Some(next) });
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let expected = contents.entry((workload, size));
            let expected =
                expected.or_insert_with(|| workload::expected(workload, size, self.seed));
            let folder = cell::folder(&scratch, comparison, engine, size);
            let run = self.run_one(*place, &folder, program, stop);
            results.add(run, expected.as_ref());
            if places.get(done + 1).is_none_or(|next| folder_of(next) != folder_of(place)) {
                // What the steps left is large, and of no use to any other engine.
                let _ = fs::remove_dir_all(&folder);
            }
            results.partial = done + 1 < places.len() || stop.load(Ordering::Relaxed);
            self.write(&results)?;
        }
        let _ = fs::remove_dir_all(&scratch);
        let (ended, done) = (results.runs.last().cloned(), results.runs.len());
        progress(&Progress { ended, done, total: places.len(), next: None });
        Ok(results)
    }

    fn blank(&self) -> Results {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Results {
            schema: SCHEMA,
            partial: true,
            command: self.command.clone(),
            seed: self.seed,
            devices: self.devices,
            started: u64::try_from(now.as_millis()).unwrap_or(0),
            machine: Machine::here(),
            versions: versions(),
            metrics: METRICS.into_iter().collect(),
            runs: Vec::new(),
            agreements: Vec::new(),
        }
    }

    fn run_one(&self, place: Place, folder: &Path, program: &Program, stop: &AtomicBool) -> Run {
        let (engine, workload, comparison, records) = place;
        let cell = Cell {
            engine,
            workload,
            comparison,
            records,
            devices: self.devices,
            seed: self.seed,
            folder: folder.to_owned(),
        };
        let begin = Instant::now();
        let prepared = cell::start(&cell, Step::Prepare, program, stop).map_err(|(how, note)| {
            // What exceeds a limit on the way does so as much as if it were measured.
            let how = if how == Outcome::Failed { Outcome::NoBase } else { how };
            (how, format!("{note}, before what is measured"))
        });
        let ended = prepared.and_then(|_| cell::start(&cell, Step::Measure, program, stop));
        Run::of(place, ended, begin.elapsed().as_secs_f64())
    }

    fn write(&self, results: &Results) -> io::Result<()> {
        results.write(&self.out)?;
        replace(&self.out.join("report.html"), report::html(results).as_bytes())
    }
}

/// Runs that share the files of their base.
fn folder_of((engine, _, comparison, size): &Place) -> (EngineName, Comparison, usize) {
    (*engine, *comparison, *size)
}

/// Whether an engine can do a workload.
fn does(engine: EngineName, workload: WorkloadName, comparison: Comparison) -> bool {
    // What is durable is never without the gate, and verdicts are Fieldkeep's alone.
    let durable = workload.is_durable() && engine != EngineName::FieldkeepGate;
    let merges_text = engine != EngineName::Rows || !workload.is_text();
    match comparison {
        Comparison::Memory => workload != WorkloadName::Verdict && merges_text,
        Comparison::Durable => {
            durable || workload == WorkloadName::Verdict && engine == EngineName::Fieldkeep
        }
    }
}
