//! Materialising and judging on a relay: loads, projection, verdicts and their commits.

use crate::authors::{Writers, settled_orders};
use crate::camp::{Sizes, directory, order_key, some_orders};
use crate::measure::{median, thread_time};
use crate::table::{Table, Target};

type Fields = serde_json::Map<String, serde_json::Value>;

const SEGMENTS: usize = 100;
const IN_MEMORY: usize = 16;
/// What the relay merges in one go.
const SLICE: usize = 256;

pub(crate) fn run(sizes: &Sizes, table: &mut Table) {
    for count in [sizes.records[1], sizes.many] {
        let root = directory();
        let (mut writers, _) = settled_orders(&root.path().join("relay"), count, SEGMENTS);
        writers.replica.limit_documents(IN_MEMORY);
        let old = some_orders(1, count, None);
        // Every segment is loaded once in a run: the more waits for it, the less that weighs.
        for each in [1_000, 200].map(|changes| changes.min(sizes.operations * 5)) {
            let rates = (0..sizes.runs).map(|run| once(&mut writers, &old, each, each * 100 + run));
            let rate = median(rates.collect());
            let what = format!("materialise and judge, {count} records, {each} changes a segment");
            let how = format!("{SEGMENTS} segments, {IN_MEMORY} in memory");
            table.row(&what, rate, Target::AtLeast(5_000.0, "changes/s"), how);
        }
    }
}

/// Changes a second of one run: in each segment so many, half new orders, half edits of old ones.
fn once(writers: &mut Writers, old: &[(String, Fields)], each: usize, seed: usize) -> f64 {
    for segment in 0..SEGMENTS {
        let outlet = format!("outlet {segment}");
        let orders = some_orders((seed * SEGMENTS + segment) as u64, each / 2, Some(&outlet));
        let mut writes = Vec::with_capacity(each);
        for (nth, (id, fields)) in orders.iter().enumerate() {
            writes.push(writers.creation(nth, order_key(id), fields));
            // Where the orders of an outlet lie among all of them: see `settled_orders`.
            let (id, _) = &old[segment + nth * SEGMENTS % old.len()];
            writes.push(writers.edit(nth + 3, id, &outlet, seed + nth));
        }
        writers.hand_over(writes);
    }
    let before = thread_time();
    writers.materialise(SLICE);
    (each * SEGMENTS) as f64 / (thread_time() - before).as_secs_f64()
}
