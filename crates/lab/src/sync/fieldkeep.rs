//! Fieldkeep: devices in this process, a relay in another one, a road between them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fieldkeep_device::{Device, Event, SyncError, SyncReport, join};
use fieldkeep_documents::batch;
use fieldkeep_link::{Endpoint, Limits};
use fieldkeep_model::{KeyPair, PublicKey, RecordEdit, RecordId, Scalar, Ticket};
use fieldkeep_replica::ReplicaError;
use tokio::runtime::Runtime;
use tokio::sync::broadcast::error::RecvError;

use super::results::{Property, Row, Subject};
use super::{Ideal, PATIENCE, Plan, RUNS, Sample};
use crate::authors::{Authors, By, Office};
use crate::camp::{catalog, catalog_in, dial, key};
use crate::merge::copy;
use crate::merge::work::{self, Write};
use crate::place::Serving;
use crate::proxy::Proxy;

/// Members who write what is there from the beginning.
const AUTHORS: usize = 10;
/// Devices that may join in one measurement.
const DEVICES: usize = 40;
/// New changes of each side.
const NEW: usize = 100;
/// Changes that both have before.
const COMMON: usize = 5_000;
/// How often a cold start is cut.
const CUTS: u64 = 5;
/// How long a device tries on a road that is broken.
const IN_VAIN: Duration = Duration::from_secs(2);
/// Bytes of changes in one answer of a log.
const STRETCH: usize = 1 << 20;

/// An organisation under measurement.
struct Site {
    root: PathBuf,
    serving: Option<Serving>,
    proxy: Proxy,
    runtime: Runtime,
    tickets: RefCell<Vec<Ticket>>,
    relay: PublicKey,
    records: Vec<Write>,
    ideal: Ideal,
}

pub(super) fn measure(plan: &Plan, property: Property) -> Row {
    match property {
        Property::Reconnect => reconnect(plan),
        Property::OneChange => one_change(plan),
        Property::Live => live(plan),
        Property::Diverged => diverged(plan),
        Property::FirstContact => first_contact(plan),
        Property::Cold => cold(plan),
        Property::Cuts => cuts(plan),
        Property::Restored => restored(plan),
        Property::ReconnectForgotten => unreachable!("there is no conversation to forget"),
    }
}

impl Site {
    /// An organisation whose relay has records, packed.
    fn found(plan: &Plan, catalog: &str, records: usize, edits: usize) -> Self {
        let root = plan.out.join("scratch");
        let directory = root.join("relay");
        let mut office = Office::open(&directory, catalog, AUTHORS);
        let records = work::records(plan.seed, records);
        let mut writes: Vec<By> = by_all(&records).collect();
        let edits = work::edits(plan.seed, &records, edits, work::Order::Random, work::Side::Both);
        writes.extend(by_all(&edits));
        let mut authors = Authors::of(&office, AUTHORS);
        for writes in writes.chunks(500) {
            let delivery = authors.delivery(&office, writes);
            office.receive(&delivery);
        }
        office.pack();
        let ideal = ideal(&mut office.replica, &BTreeMap::new());
        let mut tickets = office.tickets(&directory, DEVICES);
        drop(office);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads");
        let serving = Serving::start(&plan.program, &directory);
        let proxy = Proxy::start(serving.address).expect("a socket");
        proxy.lose_one_in(plan.lose_one_in);
        tickets.iter_mut().for_each(|ticket| ticket.addresses = vec![serving.address]);
        let relay = tickets[0].relay;
        let (serving, tickets) = (Some(serving), RefCell::new(tickets));
        Self { root, serving, proxy, runtime, tickets, relay, records, ideal }
    }

    fn serving(&self) -> &Serving {
        self.serving.as_ref().expect("it serves but for a moment")
    }

    /// A device that has just joined, and dials the road; or the relay itself.
    fn device(&self, over_the_road: bool) -> Device {
        let ticket = self.tickets.borrow_mut().pop().expect("there are enough tickets");
        let path = self.root.join(format!("device-{}", self.tickets.borrow().len()));
        self.runtime.block_on(join(&ticket, &path)).expect("the ticket is good");
        let device = Device::open(&path).expect("it has just joined");
        if over_the_road {
            dial(&device, self.proxy.address());
        }
        device
    }

    fn sync(&self, device: &Device) -> SyncReport {
        let begin = Instant::now();
        loop {
            match self.runtime.block_on(device.sync(PATIENCE)) {
                Ok(report) => return report,
                // The relay counts connections that were cut until it has heard nothing for long.
                Err(SyncError::Cut(_)) if begin.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_secs(1));
                }
                Err(error) => panic!("the relay is there: {error}"),
            }
        }
    }

    /// A sync over the road that takes so many milliseconds both ways.
    fn sample(&self, device: &Device, round_trip: u64) -> (Sample, SyncReport) {
        self.proxy.delay(Duration::from_micros(round_trip * 500));
        let relay = self.serving().processor_time();
        let begin = Instant::now();
        let report = self.sync(device);
        let ms = begin.elapsed().as_secs_f64() * 1e3;
        let relay_ms = (self.serving().processor_time() - relay).as_secs_f64() * 1e3;
        self.proxy.delay(Duration::ZERO);
        let bytes = report.bytes_sent + report.bytes_received;
        (Sample { ms, bytes, relay_ms }, report)
    }

    /// How long bare handshakes take.
    fn handshakes(&self, plan: &Plan) -> BTreeMap<u64, Vec<f64>> {
        self.handshakes_with(plan, &self.proxy, &self.relay)
    }

    /// How long bare handshakes take with somebody at the end of a road.
    fn handshakes_with(
        &self,
        plan: &Plan,
        road: &Proxy,
        with: &PublicKey,
    ) -> BTreeMap<u64, Vec<f64>> {
        let mut all = plan.each::<Vec<f64>>();
        for (delay, times) in &mut all {
            road.delay(Duration::from_micros(delay * 500));
            for nth in 0..RUNS {
                times.push(self.handshake(road, with, nth));
            }
        }
        road.delay(Duration::ZERO);
        all
    }

    fn handshake(&self, road: &Proxy, with: &PublicKey, nth: usize) -> f64 {
        let key = KeyPair::from_secret(*blake3::hash(&nth.to_be_bytes()).as_bytes());
        let begin = Instant::now();
        self.runtime.block_on(async {
            let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), &key, Limits::DEVICE);
            let endpoint = endpoint.expect("a socket");
            let connection = endpoint.connect(road.address(), with).await;
            connection.expect("somebody answers").close(0, "measured");
        });
        begin.elapsed().as_secs_f64() * 1e3
    }

    /// New edits of a device, each a commit of its own.
    fn write(&self, device: &Device, seed: u64, count: usize) {
        for nth in 0..count {
            let (id, edit) = self.edit(seed, nth);
            device.put(&key(&id), &edit).expect("it is saved");
        }
    }

    /// New edits of a device, all of them in the segment of the first record.
    fn write_in_one_segment(&self, device: &Device, seed: u64) {
        let catalog = device.catalog().expect("the relay sent one");
        let ty = catalog.ty(&key(&self.records[0].0).ty).expect("the records' type");
        let segment = |id: &RecordId| ty.address(id, "");
        let first = segment(&self.records[0].0);
        let inside = self.records.iter().filter(|(id, _)| segment(id) == first);
        let inside: Vec<&RecordId> = inside.map(|(id, _)| id).collect();
        for nth in 0..NEW {
            let id = inside[(seed as usize * 7_919 + nth * 37) % inside.len()];
            let edit = self.edit(seed, nth).1;
            device.put(&key(id), &edit).expect("it is saved");
        }
    }

    fn edit(&self, seed: u64, nth: usize) -> (RecordId, RecordEdit) {
        let at = (seed as usize * 7_919 + nth * 37) % self.records.len();
        let value = Scalar::Str(format!("note {seed} {nth}"));
        let edit = vec![fieldkeep_model::Edit::Put("note".to_owned(), value)];
        (self.records[at].0.clone(), edit.into())
    }
}

fn by_all(writes: &[Write]) -> impl Iterator<Item = By> + '_ {
    writes.iter().enumerate().map(|(nth, (id, edit))| (nth % AUTHORS, id.clone(), edit.clone()))
}

/// The positions that the logs of a replica have reached.
type Tips = BTreeMap<fieldkeep_model::SegmentId, u64>;

fn tips(device: &Device) -> Tips {
    let tips = device.with_replica(|replica| {
        let rows = replica.segments().iter();
        Ok::<_, ReplicaError>(rows.map(|(id, row)| (*id, row.tip)).collect())
    });
    tips.expect("it reads")
}

/// The least that could be sent of what lies behind positions: raw, and packed by segment.
fn ideal(replica: &mut fieldkeep_replica::Replica, after: &Tips) -> Ideal {
    let ids: Vec<_> = replica.segments().keys().copied().collect();
    let mut least = Ideal::default();
    for id in ids {
        let mut first = after.get(&id).copied().unwrap_or(0) + 1;
        let mut chunks = Vec::new();
        while let Some(stretch) =
            replica.stretch(&id, first, STRETCH, |_, _| false).expect("it reads")
        {
            first = stretch.last + 1;
            chunks.extend(stretch.chunks);
        }
        if !chunks.is_empty() {
            let chunks: Vec<_> = chunks.iter().map(Vec::as_slice).collect();
            least.raw += chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
            least.packed += batch::encode(&chunks, 19).len() as u64;
        }
    }
    least
}

fn reconnect(plan: &Plan) -> Row {
    let segments = plan.segments.next_power_of_two();
    let site = Site::found(plan, &catalog_in(segments, false), segments * 8, 0);
    let device = site.device(true);
    site.sync(&device);
    let mut samples = plan.each::<Vec<Sample>>();
    for (delay, all) in &mut samples {
        all.extend((0..RUNS).map(|_| site.sample(&device, *delay).0));
    }
    let place = (Property::Reconnect, Subject::Fieldkeep);
    let mut row = Row::of(place, &samples, &site.handshakes(plan), None);
    row.note = format!("{} segments", tips(&device).len());
    row
}

fn one_change(plan: &Plan) -> Row {
    let site = Site::found(plan, &catalog(1_000, false), 1_000, 0);
    let (device, writer) = (site.device(true), site.device(false));
    site.sync(&writer);
    site.sync(&device);
    let (idle, _) = site.sample(&device, 0);
    let mut samples = plan.each::<Vec<Sample>>();
    let mut least = Ideal::default();
    for (delay, all) in &mut samples {
        for run in 0..RUNS {
            site.write(&writer, *delay * 10 + run as u64, 1);
            site.sync(&writer);
            let before = tips(&device);
            let (mut sample, report) = site.sample(&device, *delay);
            assert_eq!(report.received, 1, "one change comes");
            sample.bytes = sample.bytes.saturating_sub(idle.bytes);
            all.push(sample);
            least = least_since(&device, &before);
        }
    }
    let place = (Property::OneChange, Subject::Fieldkeep);
    let mut row = Row::of(place, &samples, &site.handshakes(plan), Some(least));
    row.note = format!("beyond the {} bytes of a reconnect; the verdict included", idle.bytes);
    row
}

fn least_since(device: &Device, before: &Tips) -> Ideal {
    let least = device.with_replica(|replica| Ok::<_, ReplicaError>(ideal(replica, before)));
    least.expect("it reads")
}

fn live(plan: &Plan) -> Row {
    let site = Site::found(plan, &catalog(1_000, false), 1_000, 0);
    let (device, writer) = (site.device(true), site.device(false));
    for device in [&writer, &device] {
        site.sync(device);
        let device = device.clone();
        site.runtime.spawn(async move { device.keep_synced().await });
    }
    // Both are connected when a change of each has reached the other one.
    let mut samples = plan.each::<Vec<Sample>>();
    pass_on(&site, &device, &writer, 1);
    pass_on(&site, &writer, &device, 2);
    for (delay, all) in &mut samples {
        site.proxy.delay(Duration::from_micros(*delay * 500));
        for run in 0..RUNS * 3 {
            let ms = pass_on(&site, &writer, &device, 100 + delay * 100 + run as u64);
            all.push(Sample { ms, ..Sample::default() });
        }
    }
    site.proxy.delay(Duration::ZERO);
    let mut row = Row::of((Property::Live, Subject::Fieldkeep), &samples, &BTreeMap::new(), None);
    (row.bytes, row.relay_ms) = (None, None);
    row.note = "from the commit of a device beside the relay".to_owned();
    row
}

/// The milliseconds from a commit on one device until the other one's watcher knows.
fn pass_on(site: &Site, from: &Device, to: &Device, seed: u64) -> f64 {
    let (id, edit) = site.edit(seed, 0);
    let key = key(&id);
    let mut watch = to.watch();
    from.put(&key, &edit).expect("it is saved");
    let begin = Instant::now();
    site.runtime.block_on(async {
        let arrival = async {
            loop {
                match watch.recv().await {
                    Ok(Event::Changed(keys)) if !keys.contains(&key) => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => panic!("the device is gone"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, arrival).await.expect("it arrives");
    });
    begin.elapsed().as_secs_f64() * 1e3
}

fn diverged(plan: &Plan) -> Row {
    let site = Site::found(plan, &catalog(1_000, false), 1_000, COMMON - 1_000);
    let (device, writer) = (site.device(true), site.device(false));
    site.sync(&writer);
    site.sync(&device);
    let mut samples = plan.each::<Vec<Sample>>();
    let mut least = Ideal::default();
    for (delay, all) in &mut samples {
        for run in 0..RUNS {
            let seed = 1_000 + *delay * 10 + run as u64;
            site.write(&writer, seed, NEW);
            site.sync(&writer);
            let before = tips(&device);
            site.write(&device, seed + 5_000, NEW);
            let (sample, report) = site.sample(&device, *delay);
            assert_eq!((report.sent, report.received), (NEW as u64, NEW as u64));
            all.push(sample);
            least = least_since(&device, &before);
            site.sync(&writer);
        }
    }
    let place = (Property::Diverged, Subject::Fieldkeep);
    Row::of(place, &samples, &site.handshakes(plan), Some(least))
}

/// Two devices that are in sync with the relay and have never met.
fn first_contact(plan: &Plan) -> Row {
    let site = Site::found(plan, &catalog(plan.records, false), plan.records, 0);
    let (caller, called) = (site.device(false), site.device(false));
    let (listener, key) = site.runtime.block_on(async {
        let listener = called.listen(([127, 0, 0, 1], 0).into()).expect("a socket");
        (listener, called.listening().and_then(|place| place.key).expect("it listens"))
    });
    let road = Proxy::start(listener.address()).expect("a socket");
    road.lose_one_in(plan.lose_one_in);
    site.runtime.spawn(async move { listener.serve().await });
    let meet = |round_trip: u64| {
        road.delay(Duration::from_micros(round_trip * 500));
        let begin = Instant::now();
        let met = site.runtime.block_on(caller.sync_with(road.address(), PATIENCE));
        let ms = begin.elapsed().as_secs_f64() * 1e3;
        road.delay(Duration::ZERO);
        let met = met.expect("both arrive at the same");
        let bytes = met.bytes_sent + met.bytes_received;
        (Sample { ms, bytes, ..Sample::default() }, met)
    };
    let in_sync = || [&caller, &called, &caller].map(|device| site.sync(device));
    in_sync();
    let (idle, _) = meet(0);
    let mut samples = plan.each::<Vec<Sample>>();
    let mut least = Ideal::default();
    for (delay, all) in &mut samples {
        for run in 0..RUNS {
            let seed = *delay * 10 + run as u64;
            let before = tips(&caller);
            site.write_in_one_segment(&caller, seed);
            site.write_in_one_segment(&called, seed + 5_000);
            let (mut sample, met) = meet(*delay);
            assert_eq!((met.sent, met.received), (NEW as u64, NEW as u64));
            sample.bytes = sample.bytes.saturating_sub(idle.bytes);
            all.push(sample);
            least = least_since(&caller, &before);
            in_sync();
        }
    }
    let handshakes = site.handshakes_with(plan, &road, &key);
    let place = (Property::FirstContact, Subject::Fieldkeep);
    let mut row = Row::of(place, &samples, &handshakes, Some(least));
    row.relay_ms = None;
    row.note = format!("beyond the {} bytes of a contact where nothing is new", idle.bytes);
    row
}

fn cold(plan: &Plan) -> Row {
    let site = Site::found(plan, &catalog(plan.records, false), plan.records, plan.records);
    let mut samples = plan.each::<Vec<Sample>>();
    for (delay, all) in &mut samples {
        let device = site.device(true);
        all.push(site.sample(&device, *delay).0);
    }
    let place = (Property::Cold, Subject::Fieldkeep);
    let mut row = Row::of(place, &samples, &site.handshakes(plan), Some(site.ideal));
    row.note = format!("{} records, each edited once; packs recompressed", plan.records);
    row
}

/// A cold start whose road breaks at five places that nobody chose.
fn cuts(plan: &Plan) -> Row {
    let site = Site::found(plan, &catalog(plan.records, false), plan.records, plan.records);
    let passed = |work: &dyn Fn()| {
        let before = site.proxy.passed();
        work();
        site.proxy.passed() - before
    };
    let whole = site.device(true);
    let sync = |device: &Device| {
        site.sync(device);
    };
    let uncut = passed(&|| sync(&whole));
    let device = site.device(true);
    let total = passed(&|| {
        for cut in 0..CUTS {
            site.proxy.break_after(uncut * (2 * cut + 1) / (2 * CUTS * CUTS) + 777 * cut + 3_000);
            let failed = site.runtime.block_on(device.sync(IN_VAIN)).is_err();
            assert!(failed || !site.proxy.is_broken(), "a broken road ends the sync");
            site.proxy.mend();
        }
        site.sync(&device);
    });
    let mut row = Row::new(Property::Cuts, Subject::Fieldkeep);
    let redundant = total.saturating_sub(uncut) as f64 / CUTS as f64;
    row.redundant_bytes = Some(redundant);
    row.bytes = Some(total as f64);
    row.ideal_raw = Some(site.ideal.raw as f64);
    row.ideal_packed = Some(site.ideal.packed as f64);
    row.note = format!("at most: datagrams, with a handshake for each cut; {uncut} bytes uncut");
    row
}

/// A relay whose directory is put back to what it was before the device's newest changes.
fn restored(plan: &Plan) -> Row {
    let mut site = Site::found(plan, &catalog(1_000, false), 1_000, 0);
    let device = site.device(false);
    site.sync(&device);
    let (directory, old) = (site.root.join("relay"), site.root.join("old"));
    let mut samples = plan.each::<Vec<Sample>>();
    let mut handshakes = plan.each::<Vec<f64>>();
    let mut least = Ideal::default();
    for (delay, all) in &mut samples {
        site.serving = None;
        let _ = std::fs::remove_dir_all(&old);
        copy(&directory, &old);
        restart(plan, &mut site, &directory);
        dial(&device, site.proxy.address());
        let before = tips(&device);
        site.write(&device, 9_000 + delay, NEW);
        site.sync(&device);
        least = least_since(&device, &before);
        site.serving = None;
        std::fs::remove_dir_all(&directory).expect("nobody holds it");
        copy(&old, &directory);
        restart(plan, &mut site, &directory);
        dial(&device, site.proxy.address());
        let (sample, report) = site.sample(&device, *delay);
        assert_eq!(report.sent, NEW as u64, "each lost change is uploaded once");
        all.push(sample);
        site.proxy.delay(Duration::from_micros(*delay * 500));
        let bare = (0..RUNS).map(|nth| site.handshake(&site.proxy, &site.relay, nth)).collect();
        handshakes.insert(*delay, bare);
        site.proxy.delay(Duration::ZERO);
    }
    Row::of((Property::Restored, Subject::Fieldkeep), &samples, &handshakes, Some(least))
}

fn restart(plan: &Plan, site: &mut Site, directory: &Path) {
    let serving = Serving::start(&plan.program, directory);
    site.proxy = Proxy::start(serving.address).expect("a socket");
    site.serving = Some(serving);
}
