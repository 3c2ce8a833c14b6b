//! The relay's shell: sockets, the clock, and the one thread that runs the engine and writes.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fieldkeep_link::{BindError, Endpoint, Limits};
use fieldkeep_protocol::Code;
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{BlobFiles, Home, Reader, StoreError, home};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::backup::Backups;
use crate::config::{Config, ConfigError};
use crate::directory::{Directory, next_keys};
use crate::door::{Door, Known};
use crate::engine::{ConnectionId, Engine, Input, Output, said};
use crate::files::{Files, sweep};
use crate::host::Hosts;
use crate::limits::{Amount, Report, Throttle};
use crate::metrics::{Metrics, gauge};
use crate::office::Office;
use crate::turns::Turns;
use crate::vitals::Vitals;

/// Inputs that may wait for the engine; beyond that connections are held back.
const WAITING: usize = 1_024;
/// Inputs that are taken into one commit.
const GROUP: usize = 4_096;
/// Bytes of inputs after which a commit is due: receipts leave while the next are taken in.
const GROUP_BYTES: usize = 128 * 1024;
/// How long several devices' inputs are taken into one commit, at least and at most: none waits longer for
/// its receipt.
const TURN: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(8)];
/// How many times as long as a commit that is: so little of the time goes into commits, and on a disk that
/// syncs fast nobody waits for whoever brings much.
const TURN_TO_COMMIT: u32 = 4;
/// After so long without an input packs are compressed harder, one at a time.
const QUIET: Duration = Duration::from_secs(5);
/// How long a device that pushes may take to go on before something else is done.
const MOMENT: Duration = Duration::from_millis(3);
/// The longest pause after a slice of records that are looked at again; else it is as long as that took.
const REST: Duration = Duration::from_millis(50);
/// Questions that are answered at once; others wait.
const ASKING: usize = 2;
/// How often it is looked whether something is to be cleared away.
const UPKEEP: Duration = Duration::from_hours(1);
/// How often a disk that refuses is tried.
const PROBE: Duration = Duration::from_secs(1);
/// How long devices may take to end their sessions when the relay stops.
const GOODBYE: Duration = Duration::from_secs(2);
/// When they are to come back, in milliseconds.
const BACK_MS: u64 = 2_000;

/// Why a relay does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be used.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The configuration is not to be understood.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The engine failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<StoreError> for ServeError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

type Call = Box<dyn FnOnce(&mut Engine) + Send>;

/// What comes to the engine's thread.
pub(crate) enum Message {
    /// What somebody's connection brings, and its place in the queue of that until it is taken in.
    Input(fieldkeep_model::PublicKey, Input, Option<OwnedSemaphorePermit>),
    /// What was done beside the engine.
    Answer(Input),
    Connected(ConnectionId, fieldkeep_model::PublicKey, mpsc::UnboundedSender<Output>),
    Call(Call),
    Stop,
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    endpoint: Arc<Endpoint>,
    handle: Handle,
    thread: Option<std::thread::JoinHandle<()>>,
    accepting: tokio::task::JoinHandle<()>,
    directory: PathBuf,
    hosts: watch::Sender<Arc<Hosts>>,
    metrics: Arc<Metrics>,
    throttle: Arc<Throttle>,
    backups: Backups,
}

/// A way to ask the engine something while it runs.
#[derive(Clone, Debug)]
pub struct Handle {
    messages: mpsc::Sender<Message>,
    /// Inputs that wait for their turn.
    turns: Arc<AtomicUsize>,
    throttle: Arc<Throttle>,
}

impl Handle {
    /// How many inputs wait for the engine; nothing if it has stopped.
    pub(crate) fn waiting(&self) -> Option<usize> {
        let (messages, turns) = (&self.messages, self.turns.load(Ordering::Relaxed));
        (!messages.is_closed()).then(|| messages.max_capacity() - messages.capacity() + turns)
    }

    /// The limits, and what is used of them. Nothing if the relay has stopped.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn limits(&self) -> Option<Result<Report, StoreError>> {
        let holdings = self.call(|engine| engine.holdings()).await?;
        Some(holdings.map(|holdings| self.throttle.report(holdings)))
    }

    /// Runs something on the engine's thread; what it changed is durable when this returns. Nothing
    /// if the relay has stopped.
    pub async fn call<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let call: Call = Box::new(move |engine| {
            let _ = answer.send(act(engine));
        });
        self.messages.send(Message::Call(call)).await.ok()?;
        let answer = answered.await.ok()?;
        // The commit comes after the call: an empty second call waits for it.
        let (done, committed) = oneshot::channel();
        let call: Call = Box::new(move |_| {
            let _ = done.send(());
        });
        self.messages.send(Message::Call(call)).await.ok()?;
        committed.await.ok()?;
        Some(answer)
    }
}

impl Relay {
    /// Serves a directory at an address; port 0 takes any free one. What its configuration says of hosts
    /// holds; where to listen is for the caller to say.
    ///
    /// # Errors
    /// When the address cannot be bound, or the store or the configuration cannot be read.
    pub fn serve(directory: Directory, listen: SocketAddr) -> Result<Self, ServeError> {
        let (replica, home, seed) = directory.into_replica()?;
        let config = Config::read(home.directory())?;
        let (hosts, known_hosts) = watch::channel(Arc::new(config.hosts));
        let path = home.directory().to_owned();
        let endpoint = Arc::new(Endpoint::bind(listen, &seed.tls(), Limits::RELAY)?);
        let address = endpoint.local_addr().map_err(|e| StoreError::Disk(e.to_string()))?;
        let mut engine = Engine::new(replica);
        engine.expect_keys(next_keys(home.directory()));
        let metrics = Arc::clone(engine.metrics());
        engine.replica_mut().store_mut().set("address", address.to_string().as_bytes())?;
        let (messages, inbox) = mpsc::channel(WAITING);
        let throttle = Arc::new(Throttle::new(config.limits.clone()));
        let (members, known) = Known::of(&engine);
        let turns = Arc::new(AtomicUsize::new(0));
        let runtime = tokio::runtime::Handle::current();
        let handle = Handle {
            messages: messages.clone(),
            turns: Arc::clone(&turns),
            throttle: Arc::clone(&throttle),
        };
        let backups = Backups::new(&path, handle.clone(), runtime.clone());
        let besides = Besides {
            database: home::database(home.directory()),
            directory: path.clone(),
            hosts: known_hosts,
            metrics: Arc::clone(&metrics),
            messages: messages.downgrade(),
            asking: Arc::new(Semaphore::new(ASKING)),
            runtime: runtime.clone(),
            throttle: Arc::clone(&throttle),
            members,
            waiting: Arc::clone(&turns),
        };
        engine.count_stored()?;
        engine.limit(&config.limits)?;
        engine.collect_after(config.collect_after);
        engine.trace(config.traces.as_ref().map_or(0.0, |traces| traces.ratio));
        engine.resume_removals();
        sweep(&mut engine, &path)?;
        engine.resume_calls()?;
        route(engine.commit()?, &mut HashMap::new(), &besides);
        let thread = std::thread::Builder::new().name("relay-engine".into()).spawn(move || {
            run(engine, inbox, &home, &runtime, &besides);
        });
        let thread = thread.map_err(|error| StoreError::Disk(error.to_string()))?;
        tokio::spawn(upkeep(BlobFiles::of(&path), messages.downgrade()));
        let files = Files::new(&path, handle.clone(), Arc::clone(&throttle));
        let door = Door::new(messages, files, Arc::clone(&metrics), Arc::clone(&throttle), known);
        let accepting = tokio::spawn(door.accept(Arc::clone(&endpoint)));
        let (thread, directory) = (Some(thread), path);
        Ok(Self {
            address,
            endpoint,
            handle,
            thread,
            accepting,
            directory,
            hosts,
            metrics,
            throttle,
            backups,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A way to ask the engine something.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// How it is doing.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        let (metrics, endpoint) = (Arc::clone(&self.metrics), Arc::clone(&self.endpoint));
        Vitals::new(metrics, endpoint, self.handle(), &self.directory)
    }

    /// What a console of it asks.
    #[must_use]
    pub fn office(&self) -> Office {
        Office::new(&self.directory, self.handle(), self.vitals(), self.backups())
    }

    /// Its backups: to start one, to see how far it is, and when the last was made.
    #[must_use]
    pub fn backups(&self) -> Backups {
        self.backups.clone()
    }

    /// Reads the configuration again, and has what it says of hosts, of collection, of limits and of how many
    /// sessions are traced hold from now on. Where to listen, and where traces go, is for the caller to
    /// compare.
    ///
    /// # Errors
    /// When it is not to be understood: what was read before goes on to hold.
    pub async fn reload(&self) -> Result<Config, ConfigError> {
        let config = Config::read(&self.directory)?;
        self.hosts.send_replace(Arc::new(config.hosts.clone()));
        self.throttle.set(config.limits.clone());
        let (after, limits) = (config.collect_after, config.limits.clone());
        let ratio = config.traces.as_ref().map_or(0.0, |traces| traces.ratio);
        let limited = self.handle.call(move |engine| {
            engine.collect_after(after);
            engine.trace(ratio);
            engine.limit(&limits)
        });
        if let Some(Err(error)) = limited.await {
            tracing::error!(%error, "what lay aside for want of room lies there until the next start");
        }
        Ok(config)
    }

    /// Stops: tells the devices when to come back and lets them end their sessions, lets what is under way
    /// become durable, and gives the directory back.
    pub async fn stop(mut self) {
        self.accepting.abort();
        let _ = self.handle.messages.send(Message::Stop).await;
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        self.endpoint.close(Code::GoingAway.number(), "the relay stops");
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.drained()).await;
    }
}

/// Milliseconds UTC: the only place where the relay reads a clock.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The engine's thread: everything that waits goes into one commit, then what it let out leaves,
/// then a slice of judging if nothing else waits.
fn run(
    mut engine: Engine,
    mut inbox: mpsc::Receiver<Message>,
    home: &Home,
    runtime: &tokio::runtime::Handle,
    besides: &Besides,
) {
    let mut peers: HashMap<ConnectionId, mpsc::UnboundedSender<Output>> = HashMap::new();
    let mut turns: Turns<(Input, Option<OwnedSemaphorePermit>)> = Turns::default();
    let (mut idle, mut polished, mut pause) = (false, false, None);
    let (mut rests_until, mut turn) = (Instant::now(), TURN[1]);
    let mut ends: Option<Instant> = None;
    loop {
        let mut within =
            |time| runtime.block_on(async { tokio::time::timeout(time, inbox.recv()).await });
        let left = ends.map(|ends| ends.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| engine.connections() == 0 || left.is_zero()) {
            break;
        }
        let first = if !turns.is_empty() {
            inbox.try_recv().ok()
        } else if let Some(left) = left {
            within(left).ok().flatten()
        } else if let Some(pause) = pause.take() {
            within(pause).ok().flatten()
        } else if idle && polished && !engine.is_failing() {
            inbox.blocking_recv()
        } else if idle {
            match within(if engine.is_failing() { PROBE } else { QUIET }) {
                Ok(message) => message,
                Err(_) if engine.is_failing() => {
                    fail(engine.probe());
                    idle = engine.is_failing();
                    continue;
                }
                Err(_) if engine.end_lacking(now()) => {
                    idle = false;
                    continue;
                }
                Err(_) => {
                    polished = !engine.polish().unwrap_or_else(|error| stop(&error));
                    continue;
                }
            }
        } else {
            inbox.try_recv().ok()
        };
        if idle && first.is_none() && turns.is_empty() && ends.is_none() {
            return;
        }
        polished = false;
        let first_came = first.is_some() || !turns.is_empty();
        let (mut next, began) = (first, Instant::now());
        let (mut taken, mut bytes, mut whose) = (0, 0, BTreeSet::new());
        'group: loop {
            // Everything that has come waits for its turn.
            while let Some(message) = next.take() {
                match message {
                    Message::Stop => {
                        route(commit(&mut engine).0, &mut peers, besides);
                        route(engine.announce_end(BACK_MS), &mut peers, besides);
                        ends = Some(Instant::now() + GOODBYE);
                        break 'group;
                    }
                    Message::Call(call) => {
                        call(&mut engine);
                        // What a call changed is committed before the next call runs.
                        break 'group;
                    }
                    Message::Connected(id, key, peer) => {
                        peers.insert(id, peer);
                        fail(engine.handle(now(), Input::Connected(id, key)));
                    }
                    Message::Answer(input) => fail(engine.handle(now(), input)),
                    Message::Input(key, input, place) => turns.push(key, (input, place)),
                }
                next = (turns.len() < WAITING).then(|| inbox.try_recv().ok()).flatten();
            }
            let Some((key, (input, place))) = turns.pop() else { break };
            let begin = Instant::now();
            match &input {
                Input::Closed(id) => drop(peers.remove(id)),
                Input::Bytes(_, _, piece) => bytes += piece.len(),
                Input::Connected(..)
                | Input::Finished(..)
                | Input::Fetched(..)
                | Input::Answered(..) => {}
            }
            fail(engine.handle(now(), input));
            drop(place);
            turns.charge(key, begin.elapsed());
            whose.insert(key);
            taken += 1;
            let long = whose.len() > 1 && began.elapsed() > turn;
            if long || taken >= GROUP || bytes >= GROUP_BYTES {
                break;
            }
            next = (turns.len() < WAITING).then(|| inbox.try_recv().ok()).flatten();
        }
        besides.waiting.store(turns.len(), Ordering::Relaxed);
        let (outputs, took) = commit(&mut engine);
        if let Some(took) = took {
            turn = (took * TURN_TO_COMMIT).clamp(TURN[0], TURN[1]);
        }
        // Before the receipts leave, which whoever brought them goes on with.
        for (key, changes) in engine.take_brought() {
            besides.throttle.took(key, Amount { bytes: 0, changes });
        }
        route(outputs, &mut peers, besides);
        if besides.members.look(&engine) {
            engine.expect_keys(next_keys(home.directory()));
        }
        if ends.is_some() {
            continue;
        }
        let quiet = inbox.is_empty() && turns.is_empty();
        let rest = rests_until.saturating_duration_since(Instant::now());
        if first_came && quiet && engine.expects_more() {
            (pause, idle) = (Some(MOMENT), false);
        } else if quiet && !rest.is_zero() && engine.is_only_renewing() {
            (pause, idle) = (Some(rest), false);
        } else if quiet {
            let begin = Instant::now();
            let worked = engine.work(now()).unwrap_or_else(|error| stop(&error));
            idle = !worked;
            if worked {
                route(commit(&mut engine).0, &mut peers, besides);
                if let Err(error) = sweep(&mut engine, &besides.directory) {
                    tracing::error!(%error, "a removed file may stay until the next start");
                }
                // Half of the time stays free for whatever comes.
                rests_until = Instant::now() + begin.elapsed().min(REST);
            }
        } else {
            idle = false;
        }
    }
    route(engine.go_away(), &mut peers, besides);
    if let Err(error) = engine.replica_mut().save_all() {
        tracing::error!(%error, "the caches were not saved; nothing is lost");
    }
}

/// Makes durable what was taken in; what may leave then, and how long it took if there was anything.
fn commit(engine: &mut Engine) -> (Vec<Output>, Option<Duration>) {
    let (writes, began) = (engine.replica().store().is_writing(), Instant::now());
    let outputs = engine.commit().unwrap_or_else(|error| stop(&error));
    let took = writes.then(|| began.elapsed());
    if let Some(took) = took {
        engine.metrics().commit_seconds.observe(took.as_secs_f64());
        engine.metrics().sums.commits.add(took);
    }
    (outputs, took)
}

/// The store cannot be read: going on would only do harm. What has a receipt is on the disk.
fn stop<T>(error: &ReplicaError) -> T {
    tracing::error!(%error, "the relay stops; what has a receipt is safe");
    panic!("the relay stops: {error}");
}

fn fail(result: Result<(), ReplicaError>) {
    if let Err(error) = result {
        stop(&error)
    }
}

fn route(
    outputs: Vec<Output>,
    peers: &mut HashMap<ConnectionId, mpsc::UnboundedSender<Output>>,
    besides: &Besides,
) {
    for output in outputs {
        let id = match output {
            Output::Send { to, .. } => to,
            Output::Finish(id, _) | Output::Close(id, ..) => id,
            Output::Fetch(_) | Output::Ask { .. } => {
                besides.start(output);
                continue;
            }
        };
        let Some(peer) = peers.get(&id) else { continue };
        let close = matches!(output, Output::Close(..));
        if peer.send(output).is_err() || close {
            peers.remove(&id);
        }
    }
}

/// Clears what was begun and left, and has the engine look for something to do, now and then, until the
/// relay stops.
async fn upkeep(files: BlobFiles, messages: mpsc::WeakSender<Message>) {
    loop {
        let files = files.clone();
        let cleared = tokio::task::spawn_blocking(move || files.clear_abandoned(now()));
        match cleared.await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(cleared)) => {
                tracing::info!(cleared, "files that were begun and left are cleared")
            }
            Ok(Err(error)) => tracing::warn!(%error, "files that were begun and left stay"),
        }
        let Some(messages) = messages.upgrade() else { return };
        if messages.send(Message::Call(Box::new(|_| {}))).await.is_err() {
            return;
        }
        drop(messages);
        tokio::time::sleep(UPKEEP).await;
    }
}

/// What is done beside the engine, and answered to it.
struct Besides {
    directory: PathBuf,
    database: PathBuf,
    hosts: watch::Receiver<Arc<Hosts>>,
    metrics: Arc<Metrics>,
    messages: mpsc::WeakSender<Message>,
    asking: Arc<Semaphore>,
    runtime: tokio::runtime::Handle,
    throttle: Arc<Throttle>,
    members: Known,
    /// How many inputs wait for their turn.
    waiting: Arc<AtomicUsize>,
}

impl Besides {
    fn start(&self, output: Output) {
        let messages = self.messages.clone();
        let answer = async move |input| {
            if let Some(messages) = messages.upgrade() {
                let _ = messages.send(Message::Answer(input)).await;
            }
        };
        match output {
            Output::Fetch(fetch) => {
                let hosts = Arc::clone(&self.hosts.borrow());
                let pending = Shown::of(&self.metrics.calls_pending, 1);
                self.runtime.spawn(async move {
                    let fetched = hosts.fetch(&fetch).await;
                    drop(pending);
                    answer(Input::Fetched(fetch.device, fetch.number, fetched)).await;
                });
            }
            Output::Ask { to, number, question } => {
                let (asking, database) = (Arc::clone(&self.asking), self.database.clone());
                let pending = Shown::of(&self.metrics.questions_pending, 1);
                self.runtime.spawn(async move {
                    let _permit = asking.acquire().await;
                    let asked = tokio::task::spawn_blocking(move || {
                        Reader::open(&database).map_err(Into::into).and_then(|r| r.ask(&question))
                    });
                    let broken =
                        |error: tokio::task::JoinError| StoreError::Disk(error.to_string());
                    let rows = asked.await.unwrap_or_else(|error| Err(broken(error).into()));
                    drop(pending);
                    answer(Input::Answered(to, number, said(rows))).await;
                });
            }
            Output::Send { .. } | Output::Finish(..) | Output::Close(..) => {}
        }
    }
}

/// What a gauge shows of something as long as that lasts.
pub(crate) struct Shown {
    gauge: Gauge,
    amount: usize,
}

impl Shown {
    pub(crate) fn of(gauge: &Gauge, amount: usize) -> Self {
        let mut shown = Self { gauge: gauge.clone(), amount: 0 };
        shown.set(amount);
        shown
    }

    pub(crate) fn set(&mut self, amount: usize) {
        self.gauge.inc_by(gauge(amount as u64) - gauge(self.amount as u64));
        self.amount = amount;
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.set(0);
    }
}
