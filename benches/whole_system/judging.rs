//! Materialising and judging on a relay: loads, projection, verdicts and their commits.

use crate::authors::settled_orders;
use crate::camp::{Sizes, directory, order_key, some_orders};
use crate::measure::{median, thread_time};
use crate::table::{Table, Target};

const SEGMENTS: usize = 100;
const IN_MEMORY: usize = 16;
/// New orders, and as many edits, of each segment in a run.
const EACH: usize = 100;
/// What the relay merges in one go.
const SLICE: usize = 256;

pub(crate) fn run(sizes: &Sizes, table: &mut Table) {
    for count in [sizes.records[1], sizes.many] {
        let root = directory();
        let (mut writers, _) = settled_orders(&root.path().join("relay"), count, SEGMENTS);
        writers.replica.limit_documents(IN_MEMORY);
        let each = if count <= SEGMENTS * 10 { 10 } else { EACH };
        let mut rates = Vec::new();
        for run in 0..sizes.runs {
            let mut writes = Vec::new();
            for segment in 0..SEGMENTS {
                let outlet = format!("outlet {segment}");
                let seed = (1_000 + run * SEGMENTS + segment) as u64;
                for (nth, (id, fields)) in some_orders(seed, each, Some(&outlet)).iter().enumerate() {
                    writes.push(writers.creation(nth, order_key(id), fields));
                    writes.push(writers.edit(nth + 3, id, &outlet, nth));
                }
            }
            let changes = writes.len();
            writers.hand_over(writes);
            let before = thread_time();
            writers.materialise(SLICE);
            let used = thread_time() - before;
            rates.push(changes as f64 / used.as_secs_f64());
        }
        let what = format!("materialise and judge, {count} records");
        let how = format!("{SEGMENTS} segments, {IN_MEMORY} in memory, {} changes a run", SEGMENTS * each * 2);
        table.row(&what, median(rates), Target::AtLeast(5_000.0, "changes/s"), how);
    }
}
