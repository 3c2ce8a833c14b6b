//! Ingest: eight devices in another process push what they captured; from the first byte to the
//! last receipt.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use fieldkeep_device::Device;
use fieldkeep_documents::{History, batch};
use fieldkeep_model::Grant;
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::Log as _;

use crate::camp::{
    Camp, Sizes, as_records, catalog, fill, referents, runtime, some_orders, start_part,
    state_edit, type_named,
};
use crate::measure::{median, micros};
use crate::table::{Table, Target};
use crate::writes::Floor;

const DEVICES: usize = 8;
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn run(sizes: &Sizes, table: &mut Table) {
    for count in sizes.records {
        let runs: Vec<_> = (0..sizes.runs).map(|_| once(count)).collect();
        let changes = runs[0].changes as f64;
        let figure = |of: fn(&Figures) -> f64| changes / median(runs.iter().map(of).collect());
        let (subject, gate, bare) = (figure(|f| f.subject), figure(|f| f.gate), figure(|f| f.bare));
        let what = format!("relay ingest, {count} records");
        let how = format!("{changes} changes: as many edits as new orders, {DEVICES} devices");
        table.row(&what, subject, Target::AtLeast(20_000.0, "changes/s"), how);
        let share = median(runs.iter().map(|f| 100.0 * f.gate / f.subject).collect());
        let how = format!("the gate alone {gate:.0}/s, bare inserts {bare:.0}/s");
        let what = format!("relay ingest over the gate alone, {count} records");
        table.row(&what, share, Target::AtLeast(60.0, "%"), how);
    }
}

/// Seconds.
struct Figures {
    changes: usize,
    subject: f64,
    gate: f64,
    bare: f64,
}

fn once(count: usize) -> Figures {
    let camp = Camp::found(&catalog(1, true));
    let office = camp.device("office", vec![Grant::ALL]);
    fill(&office, &referents());
    camp.runtime.block_on(office.sync(PATIENCE)).expect("the relay is there");
    let directories = (0..DEVICES).map(|nth| {
        let scope = Some(format!("outlet {nth}"));
        let grants = vec![Grant::ALL, Grant { ty: Some(type_named("order")), scope }];
        camp.join(&format!("device{nth}"), grants).display().to_string()
    });
    let mut arguments = vec![(count / DEVICES).to_string()];
    arguments.extend(directories);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut part = start_part("ingest", &arguments);
    let mut lines = BufReader::new(part.stdout.take().expect("it is piped")).lines();
    let mut line = || lines.next().expect("it says something").expect("it is text");
    assert_eq!(line(), "ready");
    let blobs: Vec<Vec<Vec<u8>>> = arguments[1..].iter().map(|path| read_blobs(path)).collect();
    let changes = blobs.iter().map(Vec::len).sum();
    // The floors run before and not beside: the machine's cores belong to the subject then.
    let (gate, ()) = micros(|| gate_alone(&blobs));
    let (bare, ()) = micros(|| insert_bare(&camp.root.path().join("floor.db"), &blobs));
    part.stdin.take().expect("it is piped").write_all(b"go\n").expect("it listens");
    let subject: f64 = line().parse().expect("seconds");
    part.wait().expect("it ends");
    camp.stop();
    Figures { changes, subject, gate: gate / 1e6, bare: bare / 1e6 }
}

fn gate_alone(blobs: &[Vec<Vec<u8>>]) {
    for blobs in blobs {
        let mut history = History::new();
        for blob in blobs {
            history.replay(blob).expect("honest changes pass");
        }
    }
}

fn insert_bare(path: &Path, blobs: &[Vec<Vec<u8>>]) {
    let floor = Floor::open(path);
    let all: Vec<&Vec<u8>> = blobs.iter().flatten().collect();
    for blobs in all.chunks(1_000) {
        floor.begin();
        blobs.iter().for_each(|blob| floor.insert(blob, ""));
        floor.commit();
    }
}

/// The process of the devices: captures, waits for the word, pushes, and tells how long it took.
pub(crate) fn devices(arguments: &[String]) {
    let count: usize = arguments[0].parse().expect("a number");
    let devices: Vec<Device> = arguments[1..]
        .iter()
        .enumerate()
        .map(|(nth, path)| captured(Path::new(path), nth, count))
        .collect();
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).expect("a pipe");
    let runtime = runtime();
    let begin = Instant::now();
    let receipts: Vec<_> =
        devices.iter().map(|device| runtime.spawn(push(device.clone()))).collect();
    for receipt in receipts {
        runtime.block_on(receipt).expect("every change gets its receipt");
    }
    println!("{}", begin.elapsed().as_secs_f64());
    std::process::exit(0);
}

/// A device with new orders, each edited once; the changes lie beside it in a file.
fn captured(path: &Path, nth: usize, count: usize) -> Device {
    let device = Device::open(path).expect("it has joined");
    // It knows what orders refer to, as a device does that was online before.
    runtime().block_on(device.sync(PATIENCE)).expect("the relay is there");
    let orders = some_orders(nth as u64, count, Some(&format!("outlet {nth}")));
    let records = as_records(&orders);
    fill(&device, &records);
    for batch in records.chunks(1_000) {
        let edits = batch.iter().enumerate().map(|(nth, (key, _))| (key.clone(), state_edit(nth)));
        device.put_all(&edits.collect::<Vec<_>>()).expect("they are saved");
    }
    let chunks = device.with_replica(|replica| {
        let mut rows = replica.segments().values();
        let orders = rows.find(|row| row.address.ty == type_named("order"));
        let id = orders.expect("all orders of an outlet lie in one segment").id;
        let all = replica.outgoing_batch(&id, 0, usize::MAX)?;
        Ok::<_, ReplicaError>(all.expect("nothing was pushed").chunks)
    });
    let chunks = chunks.expect("it reads");
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    fs::write(path.join("blobs"), batch::encode(&chunks, 3)).expect("the disk takes it");
    device
}

fn read_blobs(path: &str) -> Vec<Vec<u8>> {
    let bytes = fs::read(Path::new(path).join("blobs")).expect("the device wrote it");
    batch::decode(&bytes, 1 << 30).expect("a batch")
}

/// Pushes until everything has a receipt.
async fn push(device: Device) {
    let mut watch = device.watch();
    let syncing = tokio::spawn({
        let device = device.clone();
        async move { device.sync(PATIENCE).await }
    });
    let waiting =
        || device.with_replica(|replica| Ok::<_, ReplicaError>(replica.store().outgoing_count()?));
    while waiting().expect("it reads") > 0 {
        watch.recv().await.ok();
    }
    syncing.abort();
}
