//! Edits that come from other replicas, and replicas that edited apart.

use std::time::Instant;

use fieldkeep_model::{Edit, RecordId, Scalar};

use super::super::bytes;
use super::super::cell::Cell;
use super::super::engine::content_hash;
use super::super::measure::{Metrics, Times};
use super::super::work::{self, Order, Side, Write};
use super::Remote;
use super::growth::{BASE_STATE, HUB};

/// Edits of each side of a divergence.
const DIVERGED: usize = 1_000;
/// Edits of every record in a long history.
const LONG: usize = 5;
/// Records that all write, and how often each does.
const CONTENDED: usize = 10;
const ROUNDS: usize = 20;
/// The state after a long history.
const LONG_STATE: &str = "history.state";

/// The remote edits of a workload.
pub(crate) fn of(remote: Remote, seed: u64, records: &[Write]) -> Vec<Write> {
    let (count, order) = match remote {
        Remote::One(count, order) => (count, order),
        Remote::Each(actors) => (actors, Order::Random),
        Remote::Late => (100, Order::Random),
    };
    work::edits(seed, records, count, order, Side::Both)
}

/// The edits of one side of a divergence.
pub(super) fn of_side(seed: u64, records: &[Write], side: Side) -> Vec<Write> {
    work::edits(seed + side as u64, records, DIVERGED, Order::Random, side)
}

/// The edits that make a history long.
pub(super) fn long(seed: u64, records: &[Write]) -> Vec<Write> {
    let round = |nth: usize| {
        let seed = seed + 1_000 + nth as u64;
        work::edits(seed, records, records.len(), Order::Random, Side::Both)
    };
    (0..LONG).flat_map(round).collect()
}

fn live(cell: &Cell) -> String {
    format!("{}.live", cell.workload.name())
}

fn batch(cell: &Cell) -> String {
    format!("{}.batch", cell.workload.name())
}

/// Where the remote edits begin.
fn start(cell: &Cell) -> &'static str {
    if cell.workload.remote() == Some(Remote::Late) { LONG_STATE } else { BASE_STATE }
}

pub(super) fn prepare(cell: &Cell, remote: Remote) {
    let records = work::records(cell.seed, cell.records);
    let base = cell.kept(BASE_STATE);
    if remote == Remote::Late {
        let mut replica = cell.engine.load(HUB + 2, &base);
        for (id, edit) in long(cell.seed, &records) {
            replica.write(&id, &edit);
        }
        cell.keep(LONG_STATE, &replica.save());
    }
    let base = cell.kept(start(cell));
    let edits = of(remote, cell.seed, &records);
    let actors = if let Remote::Each(actors) = remote { actors } else { 1 };
    let mut first = cell.engine.load(HUB + 3, &base);
    let mut messages = Vec::new();
    for (nth, edits) in edits.chunks(edits.len() / actors).enumerate() {
        let mut peer = first.fork(HUB + 4 + nth as u64);
        messages.extend(edits.iter().map(|(id, edit)| {
            peer.write(id, edit);
            peer.encode()
        }));
    }
    cell.keep(&live(cell), &bytes::joined(&messages));
    // The same edits as one message, where one replica made them all.
    if actors == 1 {
        for (id, edit) in &edits {
            first.write(id, edit);
        }
        messages = vec![first.encode()];
    }
    cell.keep(&batch(cell), &bytes::joined(&messages));
}

fn messages(cell: &Cell, file: &str) -> Vec<Vec<u8>> {
    bytes::items(&cell.kept(file)).map(<[u8]>::to_vec).collect()
}

pub(super) fn remote(cell: &Cell) -> Metrics {
    let (live, batch) = (messages(cell, &live(cell)), messages(cell, &batch(cell)));
    let saved = cell.kept(start(cell));
    let mut metrics = Metrics::begin();
    let mut replica = metrics.time("load", || cell.engine.load(HUB + 1, &saved));
    metrics.set("saved_bytes", saved.len() as f64);
    let before = metrics.live();
    let mut times = Times::default();
    for message in &live {
        times.each(1, || replica.apply(std::slice::from_ref(message)));
    }
    metrics.times("apply", &times);
    if let (Some(before), Some(after)) = (before, metrics.live()) {
        metrics.set("heap_growth_bytes", after - before);
    }
    metrics.memory();
    metrics.wire(replica.as_ref(), &live);
    let content = content_hash(replica.as_ref());
    drop(replica);
    let mut replica = cell.engine.load(HUB + 1, &saved);
    metrics.time("batch", || replica.apply(&batch));
    metrics.set("batch_bytes", batch.iter().map(Vec::len).sum::<usize>() as f64);
    metrics.set("batch_packed_bytes", replica.pack(&batch).len() as f64);
    assert_eq!(content, content_hash(replica.as_ref()), "one by one and all at once");
    metrics.content(content);
    metrics
}

pub(super) fn diverged(cell: &Cell) -> Metrics {
    let records = work::records(cell.seed, cell.records);
    let saved = cell.kept(BASE_STATE);
    let mut metrics = Metrics::begin();
    let mut puts = Times::default();
    let mut side = |actor: u64, side: Side| {
        let mut replica = cell.engine.load(actor, &saved);
        for (id, edit) in of_side(cell.seed, &records, side) {
            puts.each(1, || replica.write(&id, &edit));
        }
        let message = replica.encode();
        (replica, vec![message])
    };
    let (mut left, lefts) = side(HUB + 1, Side::Left);
    let (mut right, rights) = side(HUB + 2, Side::Right);
    metrics.times("put", &puts);
    let begin = Instant::now();
    left.apply(&rights);
    let one = begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    right.apply(&lefts);
    metrics.set("batch_ms", (one + begin.elapsed().as_secs_f64()) / 2.0 * 1e3);
    metrics.memory();
    metrics.wire(left.as_ref(), &[lefts, rights].concat());
    let content = content_hash(left.as_ref());
    assert_eq!(content, content_hash(right.as_ref()), "both replicas arrive at one content");
    metrics.content(content);
    metrics
}

/// All write the same field of the same records, then all tell all.
pub(super) fn contention(cell: &Cell) -> Metrics {
    let records = work::records(cell.seed, CONTENDED);
    let mut creator = cell.engine.open(HUB, CONTENDED);
    records.iter().for_each(|(id, edit)| creator.write(id, edit));
    let saved = creator.save();
    let mut metrics = Metrics::begin();
    let load = |actor: usize| cell.engine.load(actor as u64 + 1, &saved);
    let mut replicas: Vec<_> = (0..cell.devices).map(load).collect();
    let (mut puts, mut merges, mut all) = (Times::default(), Times::default(), Vec::new());
    for round in 0..ROUNDS {
        let mut sent = Vec::new();
        for (actor, replica) in replicas.iter_mut().enumerate() {
            let edits = |(id, _): &Write| contended(id, round, actor);
            let edits: Vec<_> = records.iter().map(edits).collect();
            for (id, edit) in &edits {
                puts.each(1, || replica.write(id, edit));
            }
            sent.push(replica.encode());
        }
        for (actor, replica) in replicas.iter_mut().enumerate() {
            let others = sent.iter().enumerate().filter(|(other, _)| *other != actor);
            let others: Vec<_> = others.map(|(_, message)| message.clone()).collect();
            merges.each(others.len(), || replica.apply(&others));
        }
        all.extend(sent);
    }
    metrics.times("put", &puts);
    metrics.times("apply", &merges);
    metrics.memory();
    metrics.wire(replicas[0].as_ref(), &all);
    metrics.save(replicas[0].as_mut());
    let contents: Vec<_> = replicas.iter().map(|replica| content_hash(replica.as_ref())).collect();
    assert!(contents.iter().all(|content| *content == contents[0]), "all replicas read the same");
    metrics.content(contents[0].clone());
    metrics
}

fn contended(id: &RecordId, round: usize, actor: usize) -> Write {
    let value = Scalar::Str(format!("state {round} by {actor}"));
    (id.clone(), vec![Edit::Put("state".to_owned(), value)].into())
}
