//! Durable writes: a record put on a device, against a row inserted bare.

use std::path::Path;

use fieldkeep_device::Device;
use fieldkeep_lab::Dice;
use fieldkeep_model::{Grant, SegmentId};
use rusqlite::{Connection, params};

use crate::camp::{
    Camp, Sizes, as_records, buckets, catalog, edit, fill, order_key, referents, some_orders,
    state_edit, type_named,
};
use crate::measure::{median, micros};
use crate::table::{Table, Target};

/// The floor: one row with a change's bytes and a record's JSON, one transaction.
pub(crate) struct Floor(Connection);

impl Floor {
    pub(crate) fn open(path: &Path) -> Self {
        let connection = Connection::open(path).expect("a database");
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 CREATE TABLE bare (key INTEGER PRIMARY KEY, bytes BLOB, json TEXT);",
            )
            .expect("a table");
        Self(connection)
    }

    fn statement(&self, sql: &str) -> rusqlite::CachedStatement<'_> {
        self.0.prepare_cached(sql).expect("a statement")
    }

    pub(crate) fn begin(&self) {
        self.statement("BEGIN IMMEDIATE").execute([]).expect("it begins");
    }

    pub(crate) fn insert(&self, bytes: &[u8], json: &str) {
        let mut insert = self.statement("INSERT INTO bare (bytes, json) VALUES (?, ?)");
        insert.execute(params![bytes, json]).expect("it is inserted");
    }

    pub(crate) fn commit(&self) {
        self.statement("COMMIT").execute([]).expect("it is durable");
    }

    fn write(&self, bytes: &[u8], json: &str) {
        self.begin();
        self.insert(bytes, json);
        self.commit();
    }
}

pub(crate) fn run(sizes: &Sizes, table: &mut Table) {
    for count in sizes.records {
        let camp = Camp::found(&catalog(buckets(count), false));
        let device = camp.device("ann", vec![Grant::ALL]);
        fill(&device, &referents());
        let orders = some_orders(1, count, None);
        fill(&device, &as_records(&orders));
        let floor = Floor::open(&camp.root.path().join("floor.db"));
        edits(sizes, table, &device, &floor, &orders);
        creations(sizes, table, &device, &floor, count);
        device.close().expect("its caches are saved");
        let path = device.directory().to_owned();
        drop(device);
        cold_edits(sizes, table, &path, &orders);
        camp.stop();
    }
}

type Orders = [(String, serde_json::Map<String, serde_json::Value>)];

fn edits(sizes: &Sizes, table: &mut Table, device: &Device, floor: &Floor, orders: &Orders) {
    let mut dice = Dice::seeded(2);
    // Every segment is loaded before the first measurement.
    for nth in 0..100 {
        device.put(&order_key(&dice.pick(orders).0), &state_edit(nth)).expect("it is saved");
    }
    let mut runs = Vec::new();
    for run in 1..=sizes.runs {
        let (mut subject, mut bare) = (Vec::new(), Vec::new());
        for nth in 0..sizes.operations {
            let key = order_key(&dice.pick(orders).0);
            let edit = state_edit(run * 1_000_000 + nth);
            let (time, wrote) = micros(|| device.put(&key, &edit).expect("it is saved"));
            subject.push(time);
            let bytes = newest_change(device, &wrote.segment);
            bare.push(micros(|| floor.write(&bytes, &wrote.row.json)).0);
        }
        runs.push((median(subject), median(bare)));
    }
    report(table, "durable put, edit of one field", orders.len(), 2.0, &runs);
}

fn creations(sizes: &Sizes, table: &mut Table, device: &Device, floor: &Floor, count: usize) {
    let mut runs = Vec::new();
    for run in 1..=sizes.runs {
        let (mut subject, mut bare) = (Vec::new(), Vec::new());
        for (id, fields) in some_orders(100 + run as u64, sizes.operations, None) {
            let edit = edit(device, &type_named("order"), &fields);
            let key = order_key(&id);
            let (time, wrote) = micros(|| device.put(&key, &edit).expect("it is saved"));
            subject.push(time);
            let bytes = newest_change(device, &wrote.segment);
            bare.push(micros(|| floor.write(&bytes, &wrote.row.json)).0);
        }
        runs.push((median(subject), median(bare)));
    }
    report(table, "durable put, new record", count, 4.0, &runs);
}

fn report(table: &mut Table, what: &str, count: usize, most: f64, runs: &[(f64, f64)]) {
    let ratio = median(runs.iter().map(|(subject, floor)| subject / floor).collect());
    let subject = median(runs.iter().map(|run| run.0).collect());
    let floor = median(runs.iter().map(|run| run.1).collect());
    let how = format!("{subject:.0} µs, floor {floor:.0} µs");
    table.row(&format!("{what}, {count} records"), ratio, Target::AtMost(most, "× floor"), how);
}

/// The first edit in a segment after the device was opened.
fn cold_edits(sizes: &Sizes, table: &mut Table, path: &Path, orders: &Orders) {
    let mut times = Vec::new();
    for (run, (id, _)) in orders.iter().enumerate().take(sizes.runs) {
        let device = Device::open(path).expect("it was closed");
        // The first write of a process renews the file's identity: not what is measured.
        let customer = &referents()[0];
        let mut fields = customer.1.clone();
        fields.insert("name".into(), format!("renamed {run}").into());
        device.put(&customer.0, &edit(&device, &customer.0.ty, &fields)).expect("it is saved");
        let key = order_key(id);
        times.push(micros(|| device.put(&key, &state_edit(run)).expect("it is saved")).0 / 1e3);
    }
    let what = format!("durable put, segment not loaded, {} records", orders.len());
    table.row(&what, median(times), Target::None, "ms".to_owned());
}

/// The bytes of the newest change of a segment, for the floor to write the same.
fn newest_change(device: &Device, segment: &SegmentId) -> Vec<u8> {
    let newest = device.with_replica(|replica| {
        let tip = replica.segments()[segment].tip;
        replica.outgoing_batch(segment, tip - 1, 1)
    });
    let mut newest = newest.expect("it reads").expect("it was just written");
    newest.chunks.pop().expect("one change")
}
