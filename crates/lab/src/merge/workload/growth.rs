//! Where records come from: built by many, merged by a fresh replica, loaded.

use std::time::Instant;

use super::super::bytes;
use super::super::cell::Cell;
use super::super::engine::{Engine, content_hash};
use super::super::measure::{Metrics, Times};
use super::super::work;

/// The file with a replica of all records, as the engine saves it.
pub(crate) const BASE_STATE: &str = "base.state";
/// The file with the messages that made them.
pub(crate) const BASE_MESSAGES: &str = "base.messages";
/// How many messages a hub takes at once.
const BATCH: usize = 100;
/// The actor of the replica on which is measured; those of the others are smaller or larger, never
/// in between.
pub(crate) const HUB: u64 = 1_000;

/// Writes the records by all actors, in turn; each knows only its own.
fn written(cell: &Cell, mut time: impl FnMut(f64)) -> Vec<Vec<u8>> {
    let records = work::records(cell.seed, cell.records);
    let mut messages = vec![Vec::new(); records.len()];
    for actor in 0..cell.devices {
        let mut engine = cell.engine.open(actor as u64 + 1, cell.records);
        for nth in (actor..records.len()).step_by(cell.devices) {
            let (id, edit) = &records[nth];
            let begin = Instant::now();
            engine.write(id, edit);
            messages[nth] = engine.encode();
            time(begin.elapsed().as_secs_f64());
        }
    }
    messages
}

/// Makes the files of the base unless they are there.
pub(crate) fn ensure_base(cell: &Cell) {
    if cell.has(BASE_STATE) {
        return;
    }
    let messages = written(cell, |_| ());
    let mut hub = cell.engine.open(HUB, cell.records);
    for batch in messages.chunks(BATCH) {
        hub.apply(batch);
    }
    cell.keep(BASE_MESSAGES, &bytes::joined(&messages));
    cell.keep(BASE_STATE, &hub.save());
}

pub(crate) fn build(cell: &Cell) -> Metrics {
    let mut metrics = Metrics::begin();
    let (mut puts, mut merges) = (Times::default(), Times::default());
    let messages = written(cell, |time| puts.add(time));
    let mut hub = cell.engine.open(HUB, cell.records);
    for batch in messages.chunks(BATCH) {
        merges.each(batch.len(), || hub.apply(batch));
    }
    metrics.times("put", &puts);
    metrics.times("apply", &merges);
    metrics.memory();
    metrics.wire(hub.as_ref(), &messages);
    let saved = metrics.save(hub.as_mut());
    cell.keep(BASE_MESSAGES, &bytes::joined(&messages));
    cell.keep(BASE_STATE, &saved);
    metrics.content(content_hash(hub.as_ref()));
    metrics
}

pub(crate) fn fresh(cell: &Cell) -> Metrics {
    let messages = cell.kept(BASE_MESSAGES);
    let messages: Vec<_> = bytes::items(&messages).map(<[u8]>::to_vec).collect();
    let mut metrics = Metrics::begin();
    let mut replica = cell.engine.open(HUB + 1, cell.records);
    metrics.time("batch", || replica.apply(&messages));
    metrics.memory();
    metrics.wire(replica.as_ref(), &messages);
    metrics.save(replica.as_mut());
    metrics.content(content_hash(replica.as_ref()));
    metrics
}

pub(crate) fn load(cell: &Cell) -> Metrics {
    let saved = cell.kept(BASE_STATE);
    let mut metrics = Metrics::begin();
    let replica = metrics.time("load", || cell.engine.load(HUB + 1, &saved));
    metrics.set("saved_bytes", saved.len() as f64);
    let read = |replica: &dyn Engine| content_hash(replica);
    let content = metrics.time("read_all", || read(replica.as_ref()));
    metrics.memory();
    metrics.content(content);
    metrics
}
