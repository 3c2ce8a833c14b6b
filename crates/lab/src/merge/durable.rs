//! The second comparison: merged into files, durable before it is done, with a row for each record.
//!
//! Fieldkeep takes deliveries as its relay does: the gate, its log, a commit; then merging, judging
//! (without any rule), the projection, a second commit. The other engines merge in memory and write,
//! in one transaction, the messages and a row of JSON for each record that these touched; which
//! those are is told to them, while Fieldkeep finds out by itself. Rows in SQLite are their own
//! projection. All with a write-ahead log and `synchronous = FULL`.

mod office;
mod projected;

use std::fs;
use std::path::Path;

use fieldkeep_model::RecordId;

use super::cell::Cell;
use super::engine::EngineName;
use super::measure::{Metrics, Times};
use super::workload::{self, BASE_MESSAGES, BASE_STATE, WorkloadName};
use super::{bytes, work};

/// How many records come together when all are built.
const BATCH: usize = 100;

/// One delivery: what travelled, and the records that it touches.
struct Delivery {
    messages: Vec<Vec<u8>>,
    touched: Vec<RecordId>,
}

/// A replica in files.
trait Keeper {
    /// Merges a delivery; it is durable and projected when this returns.
    fn receive(&mut self, delivery: &Delivery);

    /// The hash of all records, from the projection.
    fn content(&self) -> String;
}

/// The replica in a folder, empty if there is none.
fn open(cell: &Cell, folder: &Path) -> Box<dyn Keeper> {
    match cell.engine {
        EngineName::Fieldkeep | EngineName::FieldkeepGate => {
            Box::new(office::Kept::open(folder, cell.records, cell.devices))
        }
        EngineName::Automerge | EngineName::AutomergeEach | EngineName::Loro | EngineName::Yrs => {
            Box::new(projected::Projected::open(cell, folder))
        }
        EngineName::Rows => Box::new(projected::Bare::open(folder)),
    }
}

const BASE: &str = "base";
const DELIVERIES: &str = "deliveries";

pub(crate) fn prepare(cell: &Cell) {
    if cell.workload == WorkloadName::Verdict {
        return;
    }
    if cell.engine == EngineName::Fieldkeep {
        return office::prepare(cell);
    }
    workload::prepare(cell);
    if cell.workload == WorkloadName::Build {
        return workload::ensure_base(cell);
    }
    cell.keep_folder(BASE, |base| {
        fs::create_dir_all(base).expect("the scratch folder takes it");
        let state = cell.kept(BASE_STATE);
        if cell.engine == EngineName::Rows {
            let mut keeper = projected::Bare::open(base);
            keeper.receive(&Delivery { messages: vec![state], touched: Vec::new() });
        } else {
            projected::Projected::found(cell, base, &state);
        }
    });
}

/// What is delivered, in order.
fn deliveries(cell: &Cell) -> Vec<Delivery> {
    let records = work::records(cell.seed, cell.records);
    let (writes, batch) = match cell.workload.remote() {
        Some(remote) => (workload::remote_edits(remote, cell.seed, &records), 1),
        None => (records, BATCH),
    };
    let touched: Vec<_> = writes.iter().map(|(id, _)| id.clone()).collect();
    let file = match (cell.engine, cell.workload) {
        (EngineName::Fieldkeep, workload) => format!("{}.{DELIVERIES}", workload.name()),
        (_, WorkloadName::Build) => BASE_MESSAGES.to_owned(),
        (_, workload) => format!("{}.live", workload.name()),
    };
    let bytes = cell.kept(&file);
    let mut messages = bytes::items(&bytes).map(<[u8]>::to_vec);
    // Fieldkeep's deliveries hold a batch each; of the others' messages, each holds one write.
    let each = if cell.engine == EngineName::Fieldkeep { 1 } else { batch };
    let touched = touched.chunks(batch);
    let delivery = |touched: &[RecordId]| Delivery {
        messages: messages.by_ref().take(each.min(touched.len())).collect(),
        touched: touched.to_vec(),
    };
    touched.map(delivery).collect()
}

pub(crate) fn measure(cell: &Cell) -> Metrics {
    if cell.workload == WorkloadName::Verdict {
        return super::verdict::measure(cell);
    }
    let deliveries = deliveries(cell);
    let folder = cell.path(cell.workload.name());
    if cell.workload == WorkloadName::Build {
        fs::create_dir_all(&folder).expect("the scratch folder takes it");
        if cell.engine == EngineName::Fieldkeep {
            fs::remove_dir(&folder).expect("it is empty");
            copy(&cell.path(office::FOUNDED), &folder);
        }
    } else {
        copy(&cell.path(BASE), &folder);
    }
    let mut metrics = Metrics::begin();
    let mut keeper = metrics.time("open", || open(cell, &folder));
    let (mut receives, mut changes) = (Times::default(), Times::default());
    for delivery in &deliveries {
        let begin = std::time::Instant::now();
        keeper.receive(delivery);
        let took = begin.elapsed().as_secs_f64();
        receives.add(took);
        changes.add(took / delivery.touched.len().max(1) as f64);
    }
    metrics.times("receive", &receives);
    metrics.set("change_us_median", changes.quantile(0.5) * 1e6);
    metrics.memory();
    metrics.content(keeper.content());
    drop(keeper);
    metrics.set("disk_bytes", size(&folder) as f64);
    fs::remove_dir_all(&folder).expect("nobody holds it");
    metrics
}

/// Copies the files of a folder, and of those in it. What is no file (the socket of an owner that
/// was killed) stays behind.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the scratch folder takes it");
    for entry in fs::read_dir(from).expect("it reads") {
        let entry = entry.expect("it reads");
        let target = to.join(entry.file_name());
        let kind = entry.file_type().expect("it has a type");
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).expect("the scratch folder takes it");
        }
    }
}

/// The bytes of all files in a folder.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("it reads");
    let sizes = entries.map(|entry| {
        let entry = entry.expect("it reads");
        let about = entry.metadata().expect("it reads");
        if about.is_dir() { size(&entry.path()) } else { about.len() }
    });
    sizes.sum()
}
