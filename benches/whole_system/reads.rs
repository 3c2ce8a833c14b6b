//! Reads: a record from the projection, as owned JSON.

use fieldkeep_lab::Dice;
use fieldkeep_model::Grant;

use crate::camp::{
    Camp, Sizes, as_records, buckets, catalog, fill, order_key, referents, some_orders,
};
use crate::measure::{median, micros};
use crate::table::{Table, Target};

pub(crate) fn run(sizes: &Sizes, table: &mut Table) {
    for count in sizes.records {
        let camp = Camp::found(&catalog(buckets(count), false));
        let device = camp.device("ann", vec![Grant::ALL]);
        fill(&device, &referents());
        let orders = some_orders(1, count, None);
        fill(&device, &as_records(&orders));
        let keys: Vec<_> = orders.iter().map(|(id, _)| order_key(id)).collect();
        // Opened again, so that no document is loaded.
        let path = device.directory().to_owned();
        drop(device);
        let device = fieldkeep_device::Device::open(&path).expect("it was closed");
        keys.iter().for_each(|key| drop(device.get(key).expect("it reads")));
        let mut dice = Dice::seeded(3);
        let runs = (0..sizes.runs).map(|_| {
            let times = (0..sizes.operations * 10).map(|_| {
                let key = dice.pick(&keys);
                let (time, record) = micros(|| device.get(key).expect("it reads"));
                assert!(record.is_some_and(|record| record.fields.len() == 10));
                time
            });
            median(times.collect())
        });
        let time = median(runs.collect());
        let loaded = device.with_replica(|replica| {
            Ok::<_, fieldkeep_replica::ReplicaError>(replica.loaded_documents())
        });
        assert_eq!(loaded.expect("it answers"), 0, "reading loads no document");
        let what = format!("read, {count} records");
        table.row(&what, time, Target::AtMost(50.0, "µs"), "random ids, cache warm".to_owned());
        drop(device);
        camp.stop();
    }
}
