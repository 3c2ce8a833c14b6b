//! A change on its way: from one device's `put` until another one's watcher fires.

use std::time::{Duration, Instant};

use fieldkeep_device::{Device, Event};
use fieldkeep_model::{Grant, RecordKey};
use tokio::runtime::Runtime;
use tokio::sync::broadcast::Receiver;

use crate::camp::{
    Camp, Sizes, as_records, buckets, catalog, fill, order_key, referents, some_orders, state_edit,
};
use crate::measure::median;
use crate::table::{Table, Target};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn run(sizes: &Sizes, table: &mut Table) {
    for count in sizes.records {
        let camp = Camp::found(&catalog(buckets(count), false));
        let ann = camp.device("ann", vec![Grant::ALL]);
        let ben = camp.device("ben", vec![Grant::ALL]);
        fill(&ann, &referents());
        let orders = some_orders(1, count, None);
        fill(&ann, &as_records(&orders));
        for device in [&ann, &ben] {
            camp.runtime.block_on(device.sync(PATIENCE)).expect("the relay is there");
        }
        for device in [&ann, &ben] {
            let device = device.clone();
            camp.runtime.spawn(async move { device.keep_synced().await });
        }
        let mut watch = ben.watch();
        let runs = (0..sizes.runs).map(|run| {
            let times = (0..sizes.operations).map(|nth| {
                let key = order_key(&orders[(run * 31 + nth * 7) % orders.len()].0);
                one(&camp.runtime, &ann, &mut watch, &key, run * 1_000_000 + nth)
            });
            median(times.collect())
        });
        let time = median(runs.collect());
        let what = format!("live change, {count} records");
        table.row(&what, time, Target::AtMost(10.0, "ms"), "from the return of `put`".to_owned());
        camp.stop();
    }
}

/// Milliseconds that one edit of an order takes, unlike any before; what follows it is waited for.
pub(crate) fn one(
    runtime: &Runtime,
    ann: &Device,
    watch: &mut Receiver<Event>,
    key: &RecordKey,
    nth: usize,
) -> f64 {
    ann.put(key, &state_edit(nth)).expect("it is saved");
    let begin = Instant::now();
    runtime.block_on(async {
        let arrival = async {
            while let Ok(Event::Changed(keys)) = watch.recv().await {
                if keys.contains(key) {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, arrival).await.expect("it arrives");
    });
    let time = begin.elapsed().as_secs_f64() * 1e3;
    // What follows the change (verdict, proof) is not to disturb the next one.
    while let Ok(Ok(_)) = runtime
        .block_on(async { tokio::time::timeout(Duration::from_millis(15), watch.recv()).await })
    {
    }
    time
}
