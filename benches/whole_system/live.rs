//! A change on its way: from one device's `put` until another one's watcher fires.

use std::time::{Duration, Instant};

use fieldkeep_device::Event;
use fieldkeep_model::Grant;

use crate::camp::{
    Camp, Sizes, as_records, buckets, catalog, fill, order_key, referents, some_orders, state_edit,
};
use crate::measure::median;
use crate::table::{Table, Target};

pub(crate) fn run(sizes: &Sizes, table: &mut Table) {
    for count in sizes.records {
        let camp = Camp::found(&catalog(buckets(count), false));
        let ann = camp.device("ann", vec![Grant::ALL]);
        let ben = camp.device("ben", vec![Grant::ALL]);
        fill(&ann, &referents());
        let orders = some_orders(1, count, None);
        fill(&ann, &as_records(&orders));
        let patience = Duration::from_secs(300);
        for device in [&ann, &ben] {
            camp.runtime.block_on(device.sync(patience)).expect("the relay is there");
        }
        for device in [&ann, &ben] {
            let device = device.clone();
            camp.runtime.spawn(async move { device.keep_synced().await });
        }
        let mut watch = ben.watch();
        let runs = (0..sizes.runs).map(|run| {
            let times = (0..sizes.operations).map(|nth| {
                let key = order_key(&orders[(run * 31 + nth * 7) % orders.len()].0);
                ann.put(&key, &state_edit(run * 1_000_000 + nth)).expect("it is saved");
                let begin = Instant::now();
                camp.runtime.block_on(async {
                    let arrival = async {
                        while let Ok(Event::Changed(keys)) = watch.recv().await {
                            if keys.contains(&key) {
                                break;
                            }
                        }
                    };
                    tokio::time::timeout(patience, arrival).await.expect("it arrives");
                });
                let time = begin.elapsed().as_secs_f64() * 1e3;
                // What follows the change (verdict, proof) is not to disturb the next one.
                while let Ok(Ok(_)) = camp.runtime.block_on(async {
                    tokio::time::timeout(Duration::from_millis(15), watch.recv()).await
                }) {}
                time
            });
            median(times.collect())
        });
        let time = median(runs.collect());
        let what = format!("live change, {count} records");
        table.row(&what, time, Target::AtMost(10.0, "ms"), "from the return of `put`".to_owned());
        camp.stop();
    }
}
