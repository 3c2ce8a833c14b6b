//! Whoever misbehaves, in a process of its own: it floods, does not read, talks nonsense, brings hostile
//! changes, or calls without being enrolled. It does so while it is told to, and ends when nobody tells it
//! anything any more.

use std::fmt;
use std::io::BufRead as _;
use std::net::{SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fieldkeep_documents::Document;
use fieldkeep_documents::document::Author;
use fieldkeep_link::Event;
use fieldkeep_model::{ChangeHeader, Edit, KeyPair, RecordEdit, Scalar};
use fieldkeep_protocol::frame::Frame;
use fieldkeep_protocol::priority;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::caller::{Caller, Heard, Line, PUSH, dial_with, hello};
use super::site::Facts;
use crate::dice::Dice;
use crate::hostile::{Renamed, Stage};

/// Members that misbehave, of each kind.
pub(super) const MEMBERS: usize = 4;
/// Handshakes of strangers in a second.
pub(super) const STRANGERS: u64 = 250;
/// Changes of a flood that are made before it begins, in batches of so many.
const FLOOD: (usize, usize) = (64, 64);
/// Bytes of a flood's frames that may wait to be sent.
const WAITING: usize = 256 * 1024;
/// Connections that a member makes in a second, to flood with that.
const RECONNECTS: u64 = 20;
/// Datagrams of garbage in a second, and pieces of garbage on streams.
const GARBAGE: u64 = 200;
/// Hostile changes in a second.
const HOSTILE: u64 = 50;

/// How somebody misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bad {
    /// Strangers whose handshakes do not end, and some who stay connected.
    Strangers,
    /// A member that brings changes as fast as it can, and others that connect again and again.
    Floods,
    /// Members that follow a flood and do not read.
    Slow,
    /// Members and strangers that send bytes that mean nothing.
    Garbage,
    /// A member that brings changes which harm whoever takes them on trust.
    Hostile,
}

impl Bad {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Strangers, Self::Floods, Self::Slow, Self::Garbage, Self::Hostile];

    /// The name as it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Strangers => "strangers",
            Self::Floods => "floods",
            Self::Slow => "slow",
            Self::Garbage => "garbage",
            Self::Hostile => "hostile",
        }
    }
}

impl FromStr for Bad {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|bad| bad.name() == name);
        let names: Vec<_> = Self::ALL.into_iter().map(Self::name).collect();
        found
            .ok_or_else(|| format!("nobody misbehaves by `{name}`; there are {}", names.join(", ")))
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) bad: Bad,
    pub(super) facts: Facts,
    pub(super) address: SocketAddr,
    /// The first of [`MEMBERS`] devices that it may be.
    pub(super) first: usize,
}

/// What it has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deeds {
    /// Handshakes that were made.
    pub handshakes: u64,
    /// Frames, or pieces of nonsense, that were sent.
    pub sent: u64,
    /// Changes that were sent.
    pub changes: u64,
    /// Bytes of frames that were sent.
    pub bytes: u64,
    /// Sessions that the relay ended.
    pub ended: u64,
}

/// What is counted while it goes on.
#[derive(Debug, Default)]
struct Counts {
    handshakes: AtomicU64,
    sent: AtomicU64,
    changes: AtomicU64,
    bytes: AtomicU64,
    ended: AtomicU64,
}

impl Counts {
    fn deeds(&self) -> Deeds {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Deeds {
            handshakes: of(&self.handshakes),
            sent: of(&self.sent),
            changes: of(&self.changes),
            bytes: of(&self.bytes),
            ended: of(&self.ended),
        }
    }
}

/// Whoever misbehaves.
#[derive(Clone)]
struct Actor {
    task: Arc<Task>,
    /// Whether it is to misbehave.
    going: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

/// Misbehaves as a task says, while standard input says `go` and not `rest`, until it ends. What was done,
/// as JSON.
///
/// # Errors
/// When it is no task.
pub fn run_bad(task: &str, ready: impl FnOnce()) -> Result<String, serde_json::Error> {
    let task: Task = serde_json::from_str(task)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("threads");
    let (going, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
    let actor =
        Actor { task: Arc::new(task), going: Arc::clone(&going), counts: Arc::clone(&counts) };
    // It never ends by itself: it goes with the process.
    std::thread::spawn(move || runtime.block_on(actor.act()));
    ready();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        going.store(line == "go", Ordering::Release);
    }
    serde_json::to_string(&counts.deeds())
}

impl Actor {
    async fn act(self) {
        match self.task.bad {
            Bad::Strangers => {
                tokio::join!(self.strangers(), self.lingerers());
            }
            Bad::Floods => {
                tokio::join!(self.flood(0), self.reconnect(1), self.reconnect(2));
            }
            Bad::Slow => {
                tokio::join!(self.flood(0), self.sleeper(1), self.sleeper(2), self.sleeper(3));
            }
            Bad::Garbage => {
                tokio::join!(self.datagrams(), self.babble(0), self.babble(1));
            }
            Bad::Hostile => self.hostile().await,
        }
    }

    /// Waits until it is to misbehave.
    async fn goes(&self) {
        while !self.is_going() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn is_going(&self) -> bool {
        self.going.load(Ordering::Acquire)
    }

    /// So often in a second, while it is to.
    async fn often(&self, rate: u64, mut act: impl AsyncFnMut(u64)) {
        let mut ticks = interval(Duration::from_secs(1) / u32::try_from(rate).unwrap_or(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for nth in 0.. {
            self.goes().await;
            ticks.tick().await;
            act(nth).await;
        }
    }

    fn caller(&self, member: usize) -> Caller {
        Caller::new(&self.task.facts, self.task.first + member, self.task.address)
    }

    /// Handshakes under keys that nobody enrolled. Every fourth says who it would be.
    async fn strangers(&self) {
        self.often(STRANGERS, async |nth| {
            let (actor, keys) = (self.clone(), stranger(nth));
            tokio::spawn(async move {
                let Task { facts, address, .. } = &*actor.task;
                let Ok(mut line) = dial_with(&keys, facts, *address).await else { return };
                actor.counts.handshakes.fetch_add(1, Ordering::Relaxed);
                if nth % 4 == 0 {
                    line.say(0, priority::CONTROL, &Frame::Hello(Box::new(hello(facts, None))));
                    let _ = timeout(Duration::from_secs(1), line.hear()).await;
                }
                line.close();
            });
        })
        .await;
    }

    /// Strangers who stay for as long as they are let.
    async fn lingerers(&self) {
        self.often(20, async |nth| {
            let (actor, keys) = (self.clone(), stranger(nth | 1 << 40));
            tokio::spawn(async move {
                let Task { facts, address, .. } = &*actor.task;
                let Ok(mut line) = dial_with(&keys, facts, *address).await else { return };
                actor.counts.handshakes.fetch_add(1, Ordering::Relaxed);
                line.say(0, priority::CONTROL, &Frame::Hello(Box::new(hello(facts, None))));
                until_closed(&mut line).await;
                actor.counts.ended.fetch_add(1, Ordering::Relaxed);
            });
        })
        .await;
    }

    /// Changes as fast as the relay reads them.
    async fn flood(&self, member: usize) {
        let (caller, facts) = (self.caller(member), &self.task.facts);
        let pushes: Vec<Vec<u8>> = flood(&caller, facts).iter().map(Frame::encode).collect();
        'flood: loop {
            self.goes().await;
            let Ok(mut line) = caller.call(facts, &[]).await else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            self.counts.handshakes.fetch_add(1, Ordering::Relaxed);
            let mut next = pushes.iter().cycle();
            'session: loop {
                if !self.is_going() {
                    // What still waits to be read is not to reach into the turn without.
                    line.close();
                    continue 'flood;
                }
                while line.queued() < WAITING {
                    let Some(push) = next.next() else { break };
                    line.pour(PUSH, priority::PUSH, push.clone());
                    self.counts.sent.fetch_add(1, Ordering::Relaxed);
                    self.counts.changes.fetch_add(FLOOD.1 as u64, Ordering::Relaxed);
                    self.counts.bytes.fetch_add(push.len() as u64, Ordering::Relaxed);
                }
                match line.hear().await {
                    Heard::Frame(Frame::GoAway(_)) | Heard::Closed(..) => break 'session,
                    Heard::Frame(_) | Heard::Room => {}
                }
            }
            self.counts.ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A member that connects again and again.
    async fn reconnect(&self, member: usize) {
        let (caller, facts) = (self.caller(member), &self.task.facts);
        self.often(RECONNECTS, async |_| {
            if let Ok(mut line) = caller.call(facts, &[]).await {
                self.counts.handshakes.fetch_add(1, Ordering::Relaxed);
                let _ = timeout(Duration::from_millis(50), line.hear()).await;
                line.close();
            }
        })
        .await;
    }

    /// A member that follows what is flooded, and reads nothing.
    async fn sleeper(&self, member: usize) {
        let (caller, facts) = (self.caller(member), &self.task.facts);
        loop {
            self.goes().await;
            let Ok(line) = caller.call(facts, &[]).await else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            self.counts.handshakes.fetch_add(1, Ordering::Relaxed);
            // Until the relay gives up on it, or for a while.
            sleep(Duration::from_secs(10)).await;
            drop(line);
            self.counts.ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Datagrams that are no QUIC.
    async fn datagrams(&self) {
        let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { return };
        let mut dice = Dice::seeded(self.task.first as u64);
        self.often(GARBAGE, async |_| {
            let mut bytes = noise(&mut dice, 1_200);
            if let Some(first) = bytes.first_mut() {
                // Half of them look like the beginning of something.
                *first |= if dice.below(2) == 0 { 0xc0 } else { 0 };
            }
            // Whether it arrives is no matter.
            let _ = socket.send_to(&bytes, self.task.address);
            self.counts.sent.fetch_add(1, Ordering::Relaxed);
        })
        .await;
    }

    /// A member that says who it is and then talks nonsense.
    async fn babble(&self, member: usize) {
        let (caller, facts) = (self.caller(member), &self.task.facts);
        let mut dice = Dice::seeded(member as u64);
        self.often(GARBAGE / 10, async |_| {
            let Ok(mut line) = caller.call(facts, &[]).await else { return };
            self.counts.handshakes.fetch_add(1, Ordering::Relaxed);
            for stream in [0, 7, 9] {
                line.pour(stream, priority::PUSH, noise(&mut dice, 4_000));
                self.counts.sent.fetch_add(1, Ordering::Relaxed);
            }
            let _ = timeout(Duration::from_millis(500), until_closed(&mut line)).await;
            self.counts.ended.fetch_add(1, Ordering::Relaxed);
        })
        .await;
    }

    /// Every hostile change of the laboratory, one after the other, again and again.
    async fn hostile(&self) {
        let (caller, facts) = (self.caller(0), &self.task.facts);
        let stage = Stage::set();
        let mut renamed = Renamed::new([caller.actor]);
        let beginning: Vec<_> = stage.beginning.iter().map(|chunk| renamed.chunk(chunk)).collect();
        let mut pushes = Vec::new();
        pushes.push(caller.push(facts, &beginning.iter().map(Vec::as_slice).collect::<Vec<_>>()));
        for row in stage.hostile() {
            let chunk = if row.stage == 0 { row.chunk } else { renamed.chunk(&row.chunk) };
            pushes.push(caller.push_as(
                facts,
                &[&chunk],
                ChangeHeader::parse(&chunk).ok().as_ref(),
            ));
        }
        let mut line = None;
        let mut next = pushes.iter().cycle();
        self.often(HOSTILE, async |_| {
            if line.is_none() {
                line = caller.call(facts, &[]).await.ok();
                self.counts.handshakes.fetch_add(u64::from(line.is_some()), Ordering::Relaxed);
            }
            let (Some(open), Some(push)) = (line.as_mut(), next.next()) else { return };
            open.say(PUSH, priority::PUSH, push);
            self.counts.sent.fetch_add(1, Ordering::Relaxed);
            self.counts.changes.fetch_add(1, Ordering::Relaxed);
            let soon = Instant::now() + Duration::from_millis(10);
            while let Ok(heard) = tokio::time::timeout_at(soon, open.hear()).await {
                if let Heard::Closed(..) = heard {
                    self.counts.ended.fetch_add(1, Ordering::Relaxed);
                    line = None;
                    return;
                }
            }
        })
        .await;
    }
}

/// Reads and passes over everything until the other side ends it.
async fn until_closed(line: &mut Line) {
    while !matches!(line.receiver.recv().await, Event::Closed { .. }) {}
}

/// A key that nobody enrolled.
fn stranger(nth: u64) -> KeyPair {
    KeyPair::from_secret(*blake3::hash(format!("stranger {nth}").as_bytes()).as_bytes())
}

fn noise(dice: &mut Dice, most: usize) -> Vec<u8> {
    let length = 1 + dice.below(most);
    (0..length).map(|_| u8::try_from(dice.below(256)).unwrap_or(0)).collect()
}

/// The pushes of a flood: honest changes, as many as anybody could make in a while.
fn flood(caller: &Caller, facts: &Facts) -> Vec<Frame> {
    let mut document = Document::default();
    let author =
        Author { actor: caller.actor, person: "flood".to_owned(), time: 1_700_000_000_000 };
    let batches = (0..FLOOD.0).map(|batch| {
        let chunks: Vec<Vec<u8>> = (0..FLOOD.1)
            .map(|nth| {
                let record = format!("flood-{}-{batch}-{nth}", caller.nth);
                let record = record.parse().expect("an id");
                let note = format!("{batch} {nth} ").repeat(40);
                let edit: RecordEdit = vec![Edit::Put("note".to_owned(), Scalar::Str(note))].into();
                let written = document.write(&author, &record, &edit).expect("an honest edit");
                written.expect("a new record changes something").chunk
            })
            .collect();
        caller.push(facts, &chunks.iter().map(Vec::as_slice).collect::<Vec<_>>())
    });
    batches.collect()
}
