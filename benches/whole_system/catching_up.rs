//! Catching up: a device that has nothing, and one that has everything.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use fieldkeep_device::{Device, SyncReport};
use fieldkeep_documents::batch;
use fieldkeep_lab::proxy::Proxy;
use fieldkeep_link::{Endpoint, Limits};
use fieldkeep_model::{Grant, SegmentAddress};
use fieldkeep_protocol::BATCH;
use fieldkeep_protocol::FrameBuffer;
use fieldkeep_protocol::frame::{Delta, Frame, SegmentRef, Verdicts};
use fieldkeep_replica::{Follow, Item, Replica, ReplicaError};

use crate::authors::{Writers, seed, settled_orders};
use crate::camp::{Camp, Sizes, copy, directory};
use crate::measure::{median, slope};
use crate::table::{Table, Target};

/// How long a sync may take.
const PATIENCE: Duration = Duration::from_secs(900);

pub(crate) fn cold(sizes: &Sizes, table: &mut Table) {
    for count in [sizes.records[0], sizes.records[1], sizes.many] {
        let root = directory();
        let relay = root.path().join("relay");
        let (mut writers, raw) = settled_orders(&relay, count, 0);
        for (idle, most) in [(false, 0.25), (true, 0.20)] {
            writers.pack(idle);
            let packs = root.path().join("packs");
            save_packs(&mut writers, &packs);
            writers.replica.save_all().expect("the disk takes it");
            let home = directory();
            copy(&relay, &home.path().join("relay"));
            let camp = Camp::serve(home);
            let runs = if count == sizes.many { 1 } else { sizes.runs };
            let mut figures = Vec::new();
            for run in 0..runs {
                let subject = camp.device(&format!("subject{run}"), vec![Grant::ALL]);
                let begin = Instant::now();
                let report = sync(&camp, &subject);
                let time = begin.elapsed().as_secs_f64();
                let floor = camp.device(&format!("floor{run}"), vec![Grant::ALL]);
                let begin = Instant::now();
                read_packs(&floor, &packs);
                let bare = begin.elapsed().as_secs_f64();
                figures.push((report.bytes_sent + report.bytes_received, time, bare));
            }
            let bytes = median(figures.iter().map(|f| f.0 as f64).collect());
            let kind = if idle { "idle" } else { "fresh" };
            let what = format!("cold start, bytes, {kind} packs, {count} records");
            let how = format!("{:.0} of {} KB", bytes / 1e3, raw / 1_000);
            table.row(&what, bytes / raw as f64, Target::AtMost(most, "of raw"), how);
            let time = median(figures.iter().map(|f| f.1).collect());
            let bare = median(figures.iter().map(|f| f.2).collect());
            let ratio = median(figures.iter().map(|f| f.1 / f.2).collect());
            let what = format!("cold start, time, {kind} packs, {count} records");
            let how = format!("{time:.2} s, floor {bare:.2} s, {runs} runs");
            table.row(&what, ratio, Target::AtMost(1.5, "× floor"), how);
            camp.stop();
        }
    }
}

fn sync(camp: &Camp, device: &Device) -> SyncReport {
    camp.runtime.block_on(device.sync(PATIENCE)).expect("it is proven equal")
}

/// Writes what a relay would send of each segment to a file, as frames: its log, then how it was
/// judged.
fn save_packs(writers: &mut Writers, path: &Path) {
    let mut file = BufWriter::new(File::create(path).expect("a file"));
    let replica = &mut writers.replica;
    let mut save = |frame: Frame| file.write_all(&frame.encode()).expect("the disk takes it");
    for (id, row) in replica.segments() {
        let mut first = 1;
        while let Some(stretch) = replica.stretch(id, first, BATCH, |_, _| false).expect("it reads")
        {
            let chunks: Vec<&[u8]> = stretch.chunks.iter().map(Vec::as_slice).collect();
            let batch = stretch.pack.clone().unwrap_or_else(|| batch::encode(&chunks, 3));
            save(Frame::Delta(Delta {
                segment: SegmentRef { id: *id, address: Some(row.address.clone()) },
                first,
                runs: Vec::new(),
                batch,
                heads: stretch.heads,
                chain: stretch.chain,
                epoch: replica.epoch(),
            }));
            first = stretch.last + 1;
        }
        let judged = replica.judged_block(id).expect("it reads").into_iter().collect();
        let relay = replica.me().number;
        save(Frame::Verdicts(Verdicts {
            segment: *id,
            relay,
            blocks: judged,
            openings: Vec::new(),
        }));
    }
    file.flush().expect("the disk takes it");
}

/// The floor: takes segments over from a file, merges and projects them, and checks every row. Each
/// is durable before the next.
fn read_packs(device: &Device, path: &Path) {
    let mut file = BufReader::new(File::open(path).expect("a file"));
    let (mut frames, mut bytes) = (FrameBuffer::default(), vec![0; 64 * 1024]);
    let mut stretches = Vec::new();
    loop {
        let length = file.read(&mut bytes).expect("it reads");
        if length == 0 {
            break;
        }
        frames.push(&bytes[..length]);
        while let Some(frame) = frames.next(fieldkeep_protocol::FRAME_MAX).expect("frames") {
            if let Frame::Delta(delta) = frame {
                stretches.push(delta);
            } else if let Frame::Verdicts(verdicts) = frame {
                let stretches = std::mem::take(&mut stretches);
                device
                    .with_replica(|replica| take_segment(replica, stretches, &verdicts))
                    .expect("it is sound");
            }
        }
    }
}

fn take_segment(
    replica: &mut Replica,
    stretches: Vec<Delta>,
    verdicts: &Verdicts,
) -> Result<(), ReplicaError> {
    let id = verdicts.segment;
    for stretch in stretches {
        take_over(replica, stretch)?;
    }
    for block in &verdicts.blocks {
        let taken = replica.take_verdicts(&id, verdicts.relay, block, &verdicts.openings);
        taken.expect("the relay signed them");
    }
    replica.materialise(&id, usize::MAX)?;
    assert_eq!(replica.verify(&id)?, None, "what was written can be read");
    Ok(())
}

fn take_over(replica: &mut Replica, delta: Delta) -> Result<(), ReplicaError> {
    let address: SegmentAddress = delta.segment.address.expect("every one was written with it");
    let chunks = batch::decode(&delta.batch, 8 << 20).expect("a batch");
    let follow = Follow {
        segment: address,
        epoch: delta.epoch,
        first: delta.first,
        items: chunks.iter().map(|_| Item::Sent).collect(),
        chunks,
        heads: delta.heads,
        chain: delta.chain,
    };
    replica.follow(&follow).expect("it continues");
    Ok(())
}

pub(crate) fn reconnect(sizes: &Sizes, table: &mut Table) {
    for count in sizes.records {
        let root = directory();
        let (mut writers, _) = settled_orders(&root.path().join("relay"), count, sizes.segments);
        writers.replica.save_all().expect("the disk takes it");
        drop(writers);
        let camp = Camp::serve(root);
        let proxy = Proxy::start(camp.relay().address()).expect("a socket");
        let device = camp.device("ann", vec![Grant::ALL]);
        sync(&camp, &device);
        let through = proxy.address().to_string();
        let set = device.with_replica(|replica| {
            replica.store_mut().set("relays", through.as_bytes()).map_err(ReplicaError::from)
        });
        set.expect("the disk takes it");
        let relay = device.remote().expect("it joined").key;
        let (mut syncs, mut handshakes, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for added in [0, 10, 20, 40, 60] {
            proxy.delay(Duration::from_millis(added));
            let runs = (0..sizes.runs).map(|_| {
                let begin = Instant::now();
                let report = sync(&camp, &device);
                bytes.push((report.bytes_sent + report.bytes_received) as f64);
                begin.elapsed().as_secs_f64() * 1e3
            });
            // A round trip is delayed twice.
            let added = added as f64 * 2.0;
            syncs.push((added, median(runs.collect())));
            let runs = (0..sizes.runs).map(|_| {
                let begin = Instant::now();
                camp.runtime.block_on(async {
                    let listen = "127.0.0.1:0".parse().expect("an address");
                    let endpoint = Endpoint::bind(listen, &seed(77).tls(), Limits::DEVICE);
                    let endpoint = endpoint.expect("a socket");
                    let connection = endpoint.connect(proxy.address(), &relay).await;
                    connection.expect("the relay answers").close(0, "measured");
                });
                begin.elapsed().as_secs_f64() * 1e3
            });
            handshakes.push((added, median(runs.collect())));
        }
        let trips = slope(&syncs) - slope(&handshakes);
        let what = format!("reconnect, {} segments, {count} records", sizes.segments);
        let how = format!(
            "slope {:.2} less {:.2} of the handshake; {:.1} ms without delay",
            slope(&syncs),
            slope(&handshakes),
            syncs[0].1
        );
        table.row(&format!("{what}, round trips"), trips, Target::AtMost(1.1, "round trips"), how);
        let how =
            format!("with the segments of customers and products: {} in all", sizes.segments + 2);
        table.row(&format!("{what}, bytes"), median(bytes) / 1e3, Target::AtMost(5.0, "KB"), how);
        camp.stop();
    }
}
