//! Automerge's own sync protocol over the same link: a document for each segment, all conversations
//! on one stream, in as few flights as the protocol allows.
//!
//! The hub runs in a thread of its own, whose processor time is the relay's. It keeps every document
//! in memory, as the protocol demands; nothing is written to a disk on either side.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use automerge::sync::{Message, State, SyncDoc as _};
use automerge::{
    ActorId, AutoCommit, Automerge, ROOT, ReadDoc as _, transaction::Transactable as _,
};
use fieldkeep_link::{CONTROL, Endpoint, Event, Limits, Receiver, Role, Sender};
use fieldkeep_model::{KeyPair, PublicKey};
use tokio::runtime::Runtime;

use super::results::{Property, Row, Subject};
use super::{Ideal, PATIENCE, Plan, RUNS, Sample};
use crate::merge::{EngineName, bytes, work};
use crate::proxy::Proxy;

/// Records of a document.
const SEGMENT: usize = 1_000;
/// New changes of each side, and changes that both have before.
const NEW: usize = 100;
const COMMON: usize = 5_000;

/// One side: documents, and the conversation about each.
#[derive(Clone, Default)]
struct Side {
    documents: Vec<Automerge>,
    states: Vec<State>,
    /// How many conversations have ended: what is still on its way from an older one is not heard,
    /// or its answer would count as said in the next one.
    ended: u64,
}

impl Side {
    fn of(documents: Vec<Automerge>) -> Self {
        let states = documents.iter().map(|_| State::new()).collect();
        Self { documents, states, ended: 0 }
    }

    fn empty(count: usize) -> Self {
        Self::of((0..count).map(|_| Automerge::new()).collect())
    }

    /// Forgets the conversations; all of them, or what is not kept between connections.
    fn hang_up(&mut self, forget: bool) {
        self.ended += 1;
        for state in &mut self.states {
            let kept = State::decode(&state.encode()).expect("it was just encoded");
            *state = if forget { State::new() } else { kept };
        }
    }

    /// Everything that can be said at present, as one flight.
    fn speak(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        for (nth, (document, state)) in self.documents.iter().zip(&mut self.states).enumerate() {
            while let Some(message) = document.generate_sync_message(state) {
                let nth = u32::try_from(nth).expect("few documents");
                bytes::put(&mut flight, &nth.to_be_bytes());
                bytes::put(&mut flight, &message.encode());
            }
        }
        flight
    }

    fn hear(&mut self, flight: &[u8]) {
        let mut items = bytes::items(flight);
        while let (Some(nth), Some(message)) = (items.next(), items.next()) {
            let nth = u32::from_be_bytes(nth.try_into().expect("four bytes")) as usize;
            let message = Message::decode(message).expect("an honest message");
            let (document, state) = (&mut self.documents[nth], &mut self.states[nth]);
            document.receive_sync_message(state, message).expect("an honest message");
        }
    }

    /// Whether the other side said that it has the same, of all documents.
    fn is_in_sync(&self) -> bool {
        self.documents.iter().zip(&self.states).all(|(document, state)| {
            state.their_heads.as_ref().is_some_and(|heads| *heads == document.get_heads())
        })
    }

    /// Makes so many changes, spread over so many of the documents; returns their bytes.
    fn edit(&mut self, actor: u64, round: u64, (count, documents): (usize, usize)) -> u64 {
        let mut raw = 0;
        for nth in 0..count {
            let document = &mut self.documents[nth % documents];
            document.set_actor(ActorId::from(actor.to_be_bytes()));
            let keys: Vec<_> = document.keys(ROOT).collect();
            let key = &keys[(round as usize * 7_919 + nth * 37) % keys.len()];
            let (_, record) =
                document.get(ROOT, key.as_str()).expect("it reads").expect("a record");
            let before = document.get_heads();
            let mut tx = document.transaction();
            tx.put(&record, "note", format!("note {actor} {round} {nth}")).expect("it is a map");
            tx.commit();
            let made = document.get_changes(&before);
            raw += made.iter().map(|change| change.raw_bytes().len() as u64).sum::<u64>();
        }
        raw
    }
}

/// Documents of records, a thousand each or spread over so many documents.
pub(super) fn documents(
    plan: &Plan,
    records: usize,
    edits: usize,
    spread: Option<usize>,
) -> Vec<Automerge> {
    let records = work::records(plan.seed, records);
    let count = spread.unwrap_or_else(|| records.len().div_ceil(SEGMENT));
    let edits = work::edits(plan.seed, &records, edits, work::Order::Random, work::Side::Both);
    let mut parts: BTreeMap<usize, Vec<&work::Write>> = BTreeMap::new();
    let places: BTreeMap<_, _> =
        records.iter().enumerate().map(|(nth, (id, _))| (id, nth % count)).collect();
    for write in records.iter().chain(&edits) {
        parts.entry(places[&write.0]).or_default().push(write);
    }
    let saved = parts.into_values().map(|writes| {
        let mut engine = EngineName::Automerge.open(1, SEGMENT);
        writes.into_iter().for_each(|(id, edit)| engine.write(id, edit));
        AutoCommit::load(&engine.save()).expect("it was just saved")
    });
    saved.map(|mut document| document.document().clone()).collect()
}

/// The hub and the road to it.
struct Hub {
    side: Arc<Mutex<Side>>,
    processor_ns: Arc<AtomicU64>,
    key: PublicKey,
    proxy: Proxy,
    runtime: Runtime,
}

fn keys(name: &str) -> KeyPair {
    KeyPair::from_secret(*blake3::hash(name.as_bytes()).as_bytes())
}

impl Hub {
    fn start(side: Side, plan: &Plan) -> Self {
        let side = Arc::new(Mutex::new(side));
        let processor_ns = Arc::new(AtomicU64::new(0));
        let (address, listening) = std::sync::mpsc::channel();
        std::thread::spawn({
            let (side, processor_ns) = (Arc::clone(&side), Arc::clone(&processor_ns));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a thread").block_on(serve(side, processor_ns, address));
            }
        });
        let address: SocketAddr = listening.recv().expect("it listens");
        let proxy = Proxy::start(address).expect("a socket");
        proxy.lose_one_in(plan.lose_one_in);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads");
        Self { side, processor_ns, key: keys("hub").public(), proxy, runtime }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Side) -> T) -> T {
        work(&mut self.side.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn dial(&self, round_trip: u64) -> (Sender, Receiver, Endpoint) {
        self.proxy.delay(Duration::from_micros(round_trip * 500));
        self.runtime.block_on(async {
            let endpoint =
                Endpoint::bind(([127, 0, 0, 1], 0).into(), &keys("peer"), Limits::DEVICE);
            let endpoint = endpoint.expect("a socket");
            let connection = endpoint.connect(self.proxy.address(), &self.key).await;
            let (sender, receiver) = connection.expect("the hub answers").carry(Role::Dialer);
            (sender, receiver, endpoint)
        })
    }

    /// A sync from the dial to the moment in which the device knows that both have the same.
    fn sample(&self, side: &mut Side, round_trip: u64, forget: bool) -> Sample {
        side.hang_up(forget);
        self.with(|hub| hub.hang_up(forget));
        let processor = self.processor_ns.load(Ordering::Relaxed);
        let begin = Instant::now();
        let (sender, mut receiver, endpoint) = self.dial(round_trip);
        let bytes = self.runtime.block_on(async {
            let talk = converse(side, &sender, &mut receiver);
            tokio::time::timeout(PATIENCE, talk).await.expect("both arrive at the same")
        });
        let ms = begin.elapsed().as_secs_f64() * 1e3;
        sender.close(0, "done");
        drop((receiver, endpoint));
        self.proxy.delay(Duration::ZERO);
        let used = self.processor_ns.load(Ordering::Relaxed) - processor;
        Sample { ms, bytes, relay_ms: used as f64 / 1e6 }
    }

    fn handshakes(&self, plan: &Plan) -> BTreeMap<u64, Vec<f64>> {
        let mut all = plan.each::<Vec<f64>>();
        for (delay, times) in &mut all {
            for _ in 0..RUNS {
                let begin = Instant::now();
                let (sender, ..) = self.dial(*delay);
                times.push(begin.elapsed().as_secs_f64() * 1e3);
                sender.close(0, "measured");
            }
        }
        self.proxy.delay(Duration::ZERO);
        all
    }
}

/// The device's half of a conversation; returns the bytes both ways.
async fn converse(side: &mut Side, sender: &Sender, receiver: &mut Receiver) -> u64 {
    let mut heard = Flights::default();
    let mut said = send(sender, side.speak()).await;
    loop {
        let flight = heard.next(receiver).await.expect("the hub stays");
        side.hear(&flight);
        let flight = side.speak();
        let done = side.is_in_sync();
        // What is said last tells the hub that all is here; nobody waits for it.
        if !flight.is_empty() {
            said += send(sender, flight).await;
        }
        if done {
            return said + heard.bytes;
        }
    }
}

/// Answers everybody who dials, each apart: one that goes without a word holds up no other.
async fn serve(
    side: Arc<Mutex<Side>>,
    processor_ns: Arc<AtomicU64>,
    address: std::sync::mpsc::Sender<SocketAddr>,
) {
    let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), &keys("hub"), Limits::RELAY);
    let endpoint = endpoint.expect("a socket");
    // Whoever asked may be gone.
    let _ = address.send(endpoint.local_addr().expect("it is bound"));
    while let Some(incoming) = endpoint.accept().await {
        let (side, processor_ns) = (Arc::clone(&side), Arc::clone(&processor_ns));
        tokio::spawn(async move {
            let Ok(connection) = incoming.handshake().await else { return };
            answer(&side, &processor_ns, connection.carry(Role::Acceptor)).await;
        });
    }
}

/// The hub's half of a conversation, until the device is gone.
async fn answer(
    side: &Mutex<Side>,
    processor_ns: &AtomicU64,
    (sender, mut receiver): (Sender, Receiver),
) {
    let ended = side.lock().unwrap_or_else(PoisonError::into_inner).ended;
    let mut heard = Flights::default();
    while let Some(flight) = heard.next(&mut receiver).await {
        let answer = {
            let mut side = side.lock().unwrap_or_else(PoisonError::into_inner);
            if side.ended != ended {
                return;
            }
            side.hear(&flight);
            side.speak()
        };
        if !answer.is_empty() {
            send(&sender, answer).await;
        }
        processor_ns.store(thread_ns(), Ordering::Relaxed);
    }
}

fn thread_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Sends a flight behind its length, and returns the bytes that it took.
async fn send(sender: &Sender, flight: Vec<u8>) -> u64 {
    let mut framed = Vec::with_capacity(flight.len() + 4);
    bytes::put(&mut framed, &flight);
    let length = framed.len() as u64;
    // The other side is gone: whoever listens finds out.
    let _ = sender.send(CONTROL, 0, framed.into()).await;
    length
}

/// Flights as they come in.
#[derive(Default)]
struct Flights {
    waiting: Vec<u8>,
    bytes: u64,
}

impl Flights {
    async fn next(&mut self, receiver: &mut Receiver) -> Option<Vec<u8>> {
        loop {
            if let Some((length, rest)) = self.waiting.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if rest.len() >= length {
                    let flight = rest[..length].to_vec();
                    self.waiting.drain(..4 + length);
                    return Some(flight);
                }
            }
            match receiver.recv().await {
                Event::Bytes { bytes, .. } => {
                    self.bytes += bytes.len() as u64;
                    self.waiting.extend_from_slice(&bytes);
                }
                Event::Writable { .. } => {}
                Event::Finished { .. } | Event::Closed { .. } => return None,
            }
        }
    }
}

pub(super) fn measure(plan: &Plan, property: Property) -> Row {
    match property {
        Property::Reconnect => reconnect(plan, false),
        Property::ReconnectForgotten => reconnect(plan, true),
        Property::OneChange => pulled(plan, property),
        Property::Live => live(plan),
        Property::Diverged => diverged(plan),
        Property::FirstContact => first_contact(plan),
        Property::Cold => cold(plan),
        Property::Cuts | Property::Restored => unreachable!("it does neither"),
    }
}

/// A hub and a device with the same documents, which have talked before.
fn in_sync(plan: &Plan, documents: Vec<Automerge>) -> (Hub, Side) {
    let hub = Hub::start(Side::of(documents.clone()), plan);
    let mut side = Side::of(documents);
    hub.sample(&mut side, 0, true);
    (hub, side)
}

fn reconnect(plan: &Plan, forget: bool) -> Row {
    let count = plan.segments.next_power_of_two();
    let (hub, mut side) = in_sync(plan, documents(plan, count * 8, 0, Some(count)));
    let mut samples = plan.each::<Vec<Sample>>();
    for (delay, all) in &mut samples {
        all.extend((0..RUNS).map(|_| hub.sample(&mut side, *delay, forget)));
    }
    let property = if forget { Property::ReconnectForgotten } else { Property::Reconnect };
    let handshakes = hub.handshakes(plan);
    let mut row = Row::of((property, Subject::Automerge), &samples, &handshakes, None);
    row.note = format!("{count} documents");
    row
}

fn pulled(plan: &Plan, property: Property) -> Row {
    let (hub, mut side) = in_sync(plan, documents(plan, SEGMENT, 0, None));
    let idle = hub.sample(&mut side, 0, false);
    let mut samples = plan.each::<Vec<Sample>>();
    let mut least = Ideal::default();
    for (delay, all) in &mut samples {
        for run in 0..RUNS {
            least.raw = hub.with(|hub| hub.edit(7, *delay * 10 + run as u64, (1, 1)));
            let mut sample = hub.sample(&mut side, *delay, false);
            sample.bytes = sample.bytes.saturating_sub(idle.bytes);
            all.push(sample);
        }
    }
    least.packed = least.raw;
    let handshakes = hub.handshakes(plan);
    let mut row = Row::of((property, Subject::Automerge), &samples, &handshakes, Some(least));
    row.ideal_packed = None;
    row.note = format!("beyond the {} bytes of a reconnect", idle.bytes);
    row
}

/// The device edits while connected; measured is until the hub has said that it has it, which is a
/// whole round trip, halved.
fn live(plan: &Plan) -> Row {
    let (hub, mut side) = in_sync(plan, documents(plan, SEGMENT, 0, None));
    let mut samples = plan.each::<Vec<Sample>>();
    for (delay, all) in &mut samples {
        side.hang_up(false);
        hub.with(|hub| hub.hang_up(false));
        let (sender, mut receiver, _endpoint) = hub.dial(*delay);
        hub.runtime.block_on(async {
            converse(&mut side, &sender, &mut receiver).await;
            for run in 0..RUNS * 3 {
                side.edit(9, *delay * 10 + run as u64, (1, 1));
                let begin = Instant::now();
                converse(&mut side, &sender, &mut receiver).await;
                let ms = begin.elapsed().as_secs_f64() * 1e3 / 2.0;
                all.push(Sample { ms, ..Sample::default() });
            }
        });
        sender.close(0, "done");
    }
    hub.proxy.delay(Duration::ZERO);
    let mut row = Row::of((Property::Live, Subject::Automerge), &samples, &BTreeMap::new(), None);
    (row.bytes, row.relay_ms) = (None, None);
    row.note = "half the time until the hub said that it had it".to_owned();
    row
}

fn diverged(plan: &Plan) -> Row {
    let (hub, mut side) = in_sync(plan, documents(plan, SEGMENT, COMMON - SEGMENT, None));
    let all_documents = side.documents.len();
    let mut samples = plan.each::<Vec<Sample>>();
    let mut least = Ideal::default();
    for (delay, all) in &mut samples {
        for run in 0..RUNS {
            let round = *delay * 10 + run as u64;
            least.raw = hub.with(|hub| hub.edit(7, round, (NEW, all_documents)))
                + side.edit(9, round, (NEW, all_documents));
            all.push(hub.sample(&mut side, *delay, false));
        }
    }
    let handshakes = hub.handshakes(plan);
    let place = (Property::Diverged, Subject::Automerge);
    let mut row = Row::of(place, &samples, &handshakes, Some(least));
    row.ideal_packed = None;
    row
}

/// Neither knows anything of what the other has: the conversation begins anew each time.
fn first_contact(plan: &Plan) -> Row {
    let (hub, mut side) = in_sync(plan, documents(plan, plan.records, 0, None));
    let idle = hub.sample(&mut side, 0, true);
    let mut samples = plan.each::<Vec<Sample>>();
    let mut least = Ideal::default();
    for (delay, all) in &mut samples {
        for run in 0..RUNS {
            let round = *delay * 10 + run as u64;
            least.raw =
                hub.with(|hub| hub.edit(7, round, (NEW, 1))) + side.edit(9, round, (NEW, 1));
            let mut sample = hub.sample(&mut side, *delay, true);
            sample.bytes = sample.bytes.saturating_sub(idle.bytes);
            all.push(sample);
        }
    }
    let place = (Property::FirstContact, Subject::Automerge);
    let mut row = Row::of(place, &samples, &hub.handshakes(plan), Some(least));
    row.ideal_packed = None;
    row.note = format!("beyond the {} bytes of a contact where nothing is new", idle.bytes);
    row
}

fn cold(plan: &Plan) -> Row {
    let documents = documents(plan, plan.records, plan.records, None);
    let mut least = Ideal::default();
    for document in &documents {
        let changes = document.get_changes(&[]);
        least.raw += changes.iter().map(|change| change.raw_bytes().len() as u64).sum::<u64>();
    }
    let count = documents.len();
    let hub = Hub::start(Side::of(documents), plan);
    let mut samples = plan.each::<Vec<Sample>>();
    for (delay, all) in &mut samples {
        all.push(hub.sample(&mut Side::empty(count), *delay, true));
    }
    let handshakes = hub.handshakes(plan);
    let place = (Property::Cold, Subject::Automerge);
    let mut row = Row::of(place, &samples, &handshakes, Some(least));
    row.ideal_packed = None;
    row.note = format!("{} records, each edited once", plan.records);
    row
}
