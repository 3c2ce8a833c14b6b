//! Time to verdict: a relay and two devices over real QUIC on loopback.
//!
//! One device commits an edit; measured is the time until the other one has the edit and the relay's
//! verdict about it. One edit in five breaks a rule, and only together with what the other device
//! wrote before: each is fine alone. Those are repaired, and measured is the time from the repair's
//! commit until the other device has the release.

use std::time::{Duration, Instant};

use fieldkeep_device::Device;
use fieldkeep_model::status::State;
use fieldkeep_model::{Edit, Outcome, RecordEdit, RecordId, Scalar};
use tokio::sync::broadcast::error::RecvError;

use super::cell::Cell;
use super::measure::{Metrics, Times};
use super::work::{self, Write};
use crate::camp::{Camp, catalog, key};

/// How many edits are judged.
const CHANGES: usize = 200;
/// One edit in so many breaks a rule.
const BREAKS: usize = 5;
/// How many records are put together, durable once.
const TOGETHER: usize = 1_000;
/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn measure(cell: &Cell) -> Metrics {
    let records = work::records(cell.seed, cell.records);
    let root = cell.path("verdict");
    std::fs::create_dir_all(&root).expect("the scratch folder takes it");
    let camp = Camp::found(&root, &catalog(cell.records, true));
    let mut metrics = Metrics::begin();
    let (ann, ben) = (camp.device("ann", None), camp.device("ben", None));
    fill(&ann, &records);
    let chosen = chosen(&records);
    camp.runtime().block_on(async {
        ann.sync(PATIENCE).await.expect("the relay is there");
        ben.sync(PATIENCE).await.expect("the relay is there");
        for id in chosen.iter().step_by(BREAKS) {
            ben.put(&key(id), &one("paid", Scalar::Bool(true))).expect("it is saved");
        }
        ben.sync(PATIENCE).await.expect("the relay is there");
        ann.sync(PATIENCE).await.expect("the relay is there");
    });
    for device in [&ann, &ben] {
        let device = device.clone();
        camp.runtime().spawn(async move { device.keep_synced().await });
    }
    let (mut valid, mut held, mut released) = <(Times, Times, Times)>::default();
    camp.runtime().block_on(async {
        for (nth, id) in chosen.iter().enumerate() {
            if nth % BREAKS == 0 {
                held.add(journey(&ann, &ben, id, ("discount", Scalar::Int(45)), false).await);
                released.add(journey(&ann, &ben, id, ("discount", Scalar::Int(5)), true).await);
            } else {
                let note = Scalar::Str(format!("note {nth}"));
                valid.add(journey(&ann, &ben, id, ("note", note), true).await);
            }
        }
    });
    for (name, times) in [("verdict", &valid), ("held", &held), ("release", &released)] {
        metrics.set(&format!("{name}_ms_median"), times.quantile(0.5) * 1e3);
        metrics.set(&format!("{name}_ms_p99"), times.quantile(0.99) * 1e3);
    }
    metrics.set("changes", CHANGES as f64);
    metrics.set("held", CHANGES.div_ceil(BREAKS) as f64);
    metrics.memory();
    drop((ann, ben));
    camp.stop();
    metrics
}

/// Puts records, those of one segment together.
fn fill(device: &Device, records: &[Write]) {
    let catalog = device.catalog().expect("it came when the device joined");
    let mut edits: Vec<_> = records.iter().map(|(id, edit)| (key(id), edit.clone())).collect();
    edits.sort_by_cached_key(|(key, _)| {
        let object = catalog.ty(&key.ty).expect("a type");
        (object.address(&key.id, "").bucket, key.id.clone())
    });
    for edits in edits.chunks(TOGETHER) {
        device.put_all(edits).expect("they are saved");
    }
}

/// The records that are edited, spread over all.
fn chosen(records: &[Write]) -> Vec<RecordId> {
    let nth = |nth: usize| &records[(nth * records.len() / CHANGES) % records.len()].0;
    (0..CHANGES).map(|n| nth(n).clone()).collect()
}

fn one(field: &str, value: Scalar) -> RecordEdit {
    vec![Edit::Put(field.to_owned(), value)].into()
}

/// The seconds from a commit on one device until the other one has it, judged as expected.
async fn journey(
    from: &Device,
    to: &Device,
    id: &RecordId,
    (field, value): (&str, Scalar),
    valid: bool,
) -> f64 {
    let key = key(id);
    let mut watch = to.watch();
    let wanted = serde_json::to_value(&value).expect("a scalar is JSON");
    from.put(&key, &one(field, value)).expect("it is saved");
    let begin = Instant::now();
    let arrival = async {
        loop {
            let record = to.get(&key).expect("it reads").expect("it was there before");
            if record.fields.get(field) == Some(&wanted)
                && let State::Judged(outcome) = record.state
            {
                assert_eq!(outcome == Outcome::Valid, valid, "{id} is {outcome:?}");
                return begin.elapsed().as_secs_f64();
            }
            match watch.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => panic!("the device is gone"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, arrival).await.expect("the verdict arrives")
}
