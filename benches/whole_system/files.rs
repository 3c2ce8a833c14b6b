//! An attached file on its way to the relay, beside the same bytes on a bare stream; and what live changes
//! notice of it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fieldkeep_device::{Device, Event, FileState};
use fieldkeep_link::carrier::Role;
use fieldkeep_link::{Endpoint, Limits};
use fieldkeep_model::{Edit, Grant, KeyPair, RecordKey};

use crate::camp::{Camp, Sizes, directory, runtime};
use crate::measure::median;
use crate::table::{Table, Target};

const CATALOG: &str = r#"
catalog = 1
[type.visit.field.note]
[type.visit.field.count]
kind = "counter"
[type.visit.field.photos]
kind = "attachment"
max_size = "2 GiB"
"#;

/// Bytes that are handed on at once.
const PIECE: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn run(sizes: &Sizes, table: &mut Table) {
    let size = if sizes.many < 100_000 { 32 << 20 } else { 1 << 30 };
    let room = directory();
    let source = room.path().join("film.bin");
    let mut file = File::create(&source).expect("a file");
    let mut stream = blake3::Hasher::new().update(b"a film").finalize_xof();
    let mut piece = vec![0; PIECE];
    for _ in 0..size / PIECE {
        stream.fill(&mut piece);
        file.write_all(&piece).expect("the disk takes it");
    }
    file.sync_all().expect("the disk syncs");

    let (mut floors, mut uploads, mut idle, mut busy) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut grown = 0.0f64;
    for run in 0..3 {
        floors.push(bare(&source, &room.path().join("copy.bin")));
        let camp = Camp::found(CATALOG);
        let ann = camp.device("ann", vec![Grant::ALL]);
        let ben = camp.device("ben", vec![Grant::ALL]);
        let visit: RecordKey = "visit/v1".parse().expect("a record's name");
        ann.put(&visit, &vec![Edit::Add("count".into(), 1)].into()).expect("it is saved");
        for device in [&ann, &ben] {
            camp.runtime.block_on(device.sync(PATIENCE)).expect("the relay is there");
            let device = device.clone();
            camp.runtime.spawn(async move { device.keep_synced().await });
        }
        // The first of them are slower: nothing was loaded before.
        live(&camp, &ann, &ben, 50, || true);
        idle.extend(live(&camp, &ann, &ben, 200, || true));
        let before = most_resident_mb();
        ann.attach(&visit, "photos", &source, None, None).expect("it is attached");
        let begin = Instant::now();
        let state = || ann.files(Some(&visit)).expect("it reads")[0].state.clone();
        if run == 0 {
            // Beside live changes: what those take is measured, and not how long it takes.
            busy.extend(live(&camp, &ann, &ben, usize::MAX, || state() != FileState::Here));
        } else {
            while state() != FileState::Here {
                std::thread::sleep(Duration::from_millis(2));
            }
            uploads.push(begin.elapsed().as_secs_f64());
        }
        // Nothing but the first can raise it by what all need, so each counts.
        grown = grown.max(most_resident_mb() - before);
        camp.stop();
    }
    let mib = (size >> 20) as f64;
    let (floor, upload) = (median(floors), median(uploads));
    let how = format!(
        "{mib} MiB: {:.0} MiB/s, a bare stream to a file that is synced once {:.0}",
        mib / upload,
        mib / floor
    );
    table.row("upload of a file, speed", floor / upload, Target::AtLeast(0.5, "× floor"), how);
    let (calm, under) = (ninety_nine(idle), ninety_nine(busy));
    let how = format!("p99 of a live change {under:.1} ms, {calm:.1} ms idle");
    table.row("live changes during an upload", under / calm, Target::AtMost(3.0, "× idle"), how);
    let how = "device and relay in one process, while it goes over".to_owned();
    table.row("memory that an upload needs", grown, Target::AtMost(64.0, "MB"), how);
}

/// The same bytes on a bare stream, written to a file that is synced once, in seconds.
fn bare(source: &Path, into: &Path) -> f64 {
    let runtime = runtime();
    let (source, into) = (source.to_owned(), into.to_owned());
    runtime.block_on(async move {
        let [relay, device] = [[1; 32], [2; 32]].map(KeyPair::from_secret);
        let any = "127.0.0.1:0".parse().expect("an address");
        let server = Endpoint::bind(any, &relay, Limits::RELAY).expect("a socket");
        let client = Endpoint::bind(any, &device, Limits::DEVICE).expect("a socket");
        let address = server.local_addr().expect("it is bound");
        let begin = Instant::now();
        let serving = tokio::spawn(async move {
            let incoming = server.accept().await.expect("somebody calls");
            let connection = incoming.handshake().await.expect("it proves its key");
            let (sender, _receiver) = connection.carry(Role::Acceptor);
            let mut lane = sender.accept_lane(0).await.expect("it opens one");
            let mut file = File::create(into).expect("a file");
            while let Some(bytes) = lane.reader.read().await.expect("it comes") {
                file.write_all(&bytes).expect("the disk takes it");
            }
            file.sync_all().expect("the disk syncs");
            lane.writer.write(Bytes::from_static(b"done")).await.expect("it listens");
            lane.writer.finish();
            while lane.reader.read().await.is_ok_and(|bytes| bytes.is_some()) {}
            let _ = tokio::time::timeout(Duration::from_secs(1), server.drained()).await;
        });
        let connection = client.connect(address, &relay.public()).await.expect("it answers");
        let (sender, _receiver) = connection.carry(Role::Dialer);
        sender.try_send(0, 0, Bytes::from_static(&[0, 0])).expect("there is room");
        let mut lane = sender.open_lane(0).await.expect("it may");
        let mut file = File::open(source).expect("it is there");
        loop {
            let mut piece = vec![0; PIECE];
            let read = file.read(&mut piece).expect("it reads");
            if read == 0 {
                break;
            }
            piece.truncate(read);
            lane.writer.write(Bytes::from(piece)).await.expect("it listens");
        }
        lane.writer.finish();
        assert!(lane.reader.read().await.expect("it answers").is_some());
        let took = begin.elapsed().as_secs_f64();
        drop((sender, lane));
        serving.abort();
        took
    })
}

/// How long changes take from one device to the other, in milliseconds.
fn live(
    camp: &Camp,
    ann: &Device,
    ben: &Device,
    most: usize,
    go_on: impl Fn() -> bool,
) -> Vec<f64> {
    let key: RecordKey = "visit/v2".parse().expect("a record's name");
    let mut watch = ben.watch();
    let mut times = Vec::new();
    while times.len() < most && go_on() {
        let begin = Instant::now();
        ann.put(&key, &vec![Edit::Add("count".into(), 1)].into()).expect("it is saved");
        camp.runtime.block_on(async {
            let arrival = async {
                while let Ok(Event::Changed(keys)) = watch.recv().await {
                    if keys.contains(&key) {
                        break;
                    }
                }
            };
            tokio::time::timeout(PATIENCE, arrival).await.expect("it arrives");
        });
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        // What follows the change (verdict, proof) is not to disturb the next one.
        while let Ok(Ok(_)) = camp
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_millis(5), watch.recv()).await })
        {
        }
    }
    times
}

fn ninety_nine(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[(figures.len() * 99 / 100).min(figures.len() - 1)]
}

/// The most that this process ever had, in MB.
fn most_resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it tells it");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1_024.0 / 1e6
}
