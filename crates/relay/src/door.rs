//! Where connections come in, and how much of each is read.
//!
//! Handshakes wait their turn, so that those who call do not crowd out those who are connected. Whoever is
//! not enrolled has a moment to join, and makes room when others come. A connection has a small share of the
//! engine's queue, so that one that brings much holds nobody up; who brings more than it may is read more
//! slowly, which QUIC has the other side feel, and sent away only when that goes on for too long.

use std::collections::{BTreeSet, VecDeque};
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fieldkeep_link::{
    Backlog, Connection, Endpoint, Event, HandshakeError, Incoming, Receiver, Role,
};
use fieldkeep_model::PublicKey;
use fieldkeep_protocol::frame::{Frame, GoAway};
use fieldkeep_protocol::{Code, priority};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::engine::{ConnectionId, Engine, Input, Output};
use crate::files::Files;
use crate::limits::{Amount, Arrival, Hold, Throttle};
use crate::metrics::{Metrics, of_limit, of_reason};
use crate::server::{Message, Shown};

/// What may wait to be sent to one peer before it counts as lost, in bytes.
const BACKLOG: usize = 8 * 1024 * 1024;
/// What of one connection may wait for the engine, in bytes.
const QUEUED: usize = 32 * 1024;
/// What of them is one input: a frame may hold many changes, however short it is.
const PIECE: usize = 2 * 1024;
/// Handshakes that are under way at once: what each of them holds is bounded.
const HANDSHAKES: usize = 256;
/// Handshakes that wait to be begun.
const CALLING: usize = 768;
/// When whoever calls is about to give up.
const GIVES_UP: Duration = Duration::from_secs(4);
/// How long a peer may take to introduce itself.
const HELLO: Duration = Duration::from_secs(3);
/// How long whoever is not enrolled may take to become so.
const JOINS: Duration = Duration::from_secs(10);
/// How long who is sent away may take to end its session.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long a close may take to be told.
const TOLD: Duration = Duration::from_millis(200);

/// The keys of the organisation, as the engine knows them.
#[derive(Debug)]
pub(crate) struct Known(watch::Sender<Arc<Keys>>);

#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// How long the membership log was.
    entries: u64,
    keys: BTreeSet<PublicKey>,
}

impl Known {
    /// The keys at present, and a way to hear of others.
    pub(crate) fn of(engine: &Engine) -> (Self, watch::Receiver<Arc<Keys>>) {
        let (known, hears) = watch::channel(Arc::default());
        let known = Self(known);
        known.look(engine);
        (known, hears)
    }

    /// Looks whether the membership log has grown since the last look.
    pub(crate) fn look(&self, engine: &Engine) -> bool {
        let members = engine.replica().members();
        let grown = self.0.borrow().entries != members.len();
        if grown {
            let keys = members.members().values().map(|member| member.keys.tls).collect();
            self.0.send_replace(Arc::new(Keys { entries: members.len(), keys }));
        }
        grown
    }
}

/// Where connections come in.
#[derive(Clone)]
pub(crate) struct Door {
    messages: mpsc::Sender<Message>,
    files: Files,
    metrics: Arc<Metrics>,
    throttle: Arc<Throttle>,
    known: watch::Receiver<Arc<Keys>>,
    crowd: Arc<Mutex<Crowd>>,
}

/// Whoever is connected and not enrolled, the oldest first, and how each is told to make room.
type Crowd = VecDeque<(ConnectionId, Arc<Notify>)>;

impl Door {
    pub(crate) fn new(
        messages: mpsc::Sender<Message>,
        files: Files,
        metrics: Arc<Metrics>,
        throttle: Arc<Throttle>,
        known: watch::Receiver<Arc<Keys>>,
    ) -> Self {
        Self { messages, files, metrics, throttle, known, crowd: Arc::default() }
    }

    pub(crate) async fn accept(self, endpoint: Arc<Endpoint>) {
        let slots = Arc::new(Semaphore::new(HANDSHAKES));
        let mut next: ConnectionId = 0;
        let mut calling: VecDeque<(Instant, Incoming)> = VecDeque::new();
        loop {
            let slot = tokio::select! {
                incoming = endpoint.accept(), if calling.len() < CALLING => {
                    let Some(incoming) = incoming else { return };
                    calling.push_back((Instant::now(), incoming));
                    continue;
                }
                slot = Arc::clone(&slots).acquire_owned(), if !calling.is_empty() => slot,
            };
            // Who has waited so long has given up: answering him would keep the others waiting.
            while calling.front().is_some_and(|(since, _)| since.elapsed() > GIVES_UP) {
                calling.pop_front();
                self.metrics.handshakes_refused.get_or_create(&of_reason("slow")).inc();
            }
            let (Ok(slot), Some((_, incoming))) = (slot, calling.pop_front()) else { continue };
            let wait = self.throttle.handshake();
            if !wait.is_zero() {
                self.waited("handshakes", wait);
                sleep(wait).await;
            }
            next += 1;
            let (id, door) = (next, self.clone());
            tokio::spawn(async move {
                let shaken = incoming.handshake().await;
                drop(slot);
                match shaken {
                    Ok(connection) => door.welcome(connection, id).await,
                    Err(error) => {
                        tracing::debug!(%error, "a handshake failed");
                        let reason = match error {
                            HandshakeError::Slow { .. } => "slow",
                            HandshakeError::Failed { .. } => "failed",
                        };
                        door.metrics.handshakes_refused.get_or_create(&of_reason(reason)).inc();
                    }
                }
            });
        }
    }

    /// Lets a connection in: a member's, if it has not made too many of late; anybody else's for a moment.
    async fn welcome(self, connection: Connection, id: ConnectionId) {
        let key = connection.peer();
        if !self.knows(&key) {
            let stranger = self.enters(id);
            return self.serve(connection, id, Some(stranger)).await;
        }
        match self.throttle.arrives(key) {
            Arrival::After(wait) => {
                if !wait.is_zero() {
                    self.waited("connections", wait);
                    sleep(wait).await;
                }
                self.serve(connection, id, None).await;
            }
            Arrival::Refused(back) => {
                self.refused("connections");
                let text =
                    format!("this device connects too often: come back in {}", seconds(back));
                connection.close(Code::Busy.number(), &text);
                // Dropped at once, it would be closed with another reason.
                sleep(TOLD).await;
            }
        }
    }

    fn knows(&self, key: &PublicKey) -> bool {
        self.known.borrow().keys.contains(key)
    }

    /// Somebody comes who is not enrolled: of too many the oldest goes.
    fn enters(&self, id: ConnectionId) -> Stranger {
        let (displaced, most) = (Arc::new(Notify::new()), self.throttle.limits().strangers);
        let mut crowd = self.crowd.lock().unwrap_or_else(PoisonError::into_inner);
        crowd.push_back((id, Arc::clone(&displaced)));
        let mut gone = 0;
        while crowd.len() as u64 > most {
            let Some((_, oldest)) = crowd.pop_front() else { break };
            oldest.notify_one();
            gone += 1;
        }
        self.tell(crowd.len(), gone);
        Stranger { id, door: self.clone(), displaced }
    }

    fn tell(&self, strangers: usize, displaced: u64) {
        self.throttle.strangers(strangers, displaced);
        self.metrics.strangers.set(i64::try_from(strangers).unwrap_or(i64::MAX));
        self.metrics.limited_sessions.get_or_create(&of_limit("strangers")).inc_by(displaced);
    }

    fn waited(&self, limit: &str, wait: Duration) {
        let seconds = self.metrics.limited_seconds.get_or_create(&of_limit(limit));
        seconds.inc_by(wait.as_secs_f64());
    }

    fn refused(&self, limit: &str) {
        self.metrics.limited_sessions.get_or_create(&of_limit(limit)).inc();
    }

    /// Carries one connection's bytes to the engine and back.
    async fn serve(&self, connection: Connection, id: ConnectionId, stranger: Option<Stranger>) {
        let key = connection.peer();
        let (sender, receiver) = connection.carry(Role::Acceptor);
        // Ends with the connection.
        tokio::spawn(self.files.clone().serve(sender.clone()));
        let (outputs, outgoing) = mpsc::unbounded_channel();
        if self.messages.send(Message::Connected(id, key, outputs)).await.is_err() {
            return;
        }
        let backlog = Backlog::new(sender);
        let waiting = Shown::of(&self.metrics.fanout_backlog_bytes, 0);
        let queue = Arc::new(Semaphore::new(QUEUED));
        let due = Some(Instant::now() + HELLO);
        let mut line =
            Line { id, key, door: self, receiver, backlog, waiting, queue, stranger, due };
        if line.carry(outgoing).await {
            let _ = self.messages.send(Message::Input(key, Input::Closed(id), None)).await;
            // Wait for the close to be told, so that its reason arrives.
            let _ = timeout(TOLD, async {
                while !matches!(line.receiver.recv().await, Event::Closed { .. }) {}
            })
            .await;
        }
    }
}

/// Somebody who is connected and not enrolled.
struct Stranger {
    id: ConnectionId,
    door: Door,
    /// Told when it has to make room.
    displaced: Arc<Notify>,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut crowd = self.door.crowd.lock().unwrap_or_else(PoisonError::into_inner);
        crowd.retain(|(id, _)| *id != self.id);
        self.door.tell(crowd.len(), 0);
    }
}

/// A connection that is served.
struct Line<'d> {
    id: ConnectionId,
    key: PublicKey,
    door: &'d Door,
    receiver: Receiver,
    backlog: Backlog,
    waiting: Shown,
    /// Its share of the engine's queue, in bytes.
    queue: Arc<Semaphore>,
    stranger: Option<Stranger>,
    /// By when it has to have introduced itself, or to have joined.
    due: Option<Instant>,
}

/// Whether what comes next is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Goes,
    /// Not before then.
    Waits(Instant),
    /// Never: it was told to go, and is ended then.
    Ends(Instant),
}

impl Reading {
    fn until(self) -> Option<Instant> {
        match self {
            Self::Goes => None,
            Self::Waits(until) | Self::Ends(until) => Some(until),
        }
    }
}

impl Line<'_> {
    /// Carries until it is over; false if the engine is.
    async fn carry(&mut self, mut outgoing: mpsc::UnboundedReceiver<Output>) -> bool {
        let (mut reading, mut introduced) = (Reading::Goes, false);
        loop {
            if reading == Reading::Goes {
                reading = self.may_read();
                // Nobody is late with what is not read.
                if let (Reading::Waits(until), false) = (reading, introduced) {
                    self.due = self.due.map(|due| due.max(until + HELLO));
                }
            }
            let room = self.queue.available_permits() > 0;
            let reads = reading == Reading::Goes && room;
            let displaced = self.stranger.as_ref().map(|stranger| Arc::clone(&stranger.displaced));
            let input = tokio::select! {
                biased;
                output = outgoing.recv() => {
                    let Some(output) = output else { return true };
                    if self.send(output) {
                        continue;
                    }
                    return true;
                }
                () = at(self.due), if self.due.is_some() => {
                    self.recognise();
                    self.due = None;
                    let (code, text) = match &self.stranger {
                        _ if !introduced => (Code::OutOfOrder, "no introduction within 3 s"),
                        Some(_) => (Code::NotAMember, "who calls has not joined within 10 s"),
                        None => continue,
                    };
                    self.backlog.close(code.number(), text);
                    return true;
                }
                () = at(reading.until()), if reading != Reading::Goes => {
                    if let Reading::Ends(_) = reading {
                        let text = "this device brings more than it may: come back in a minute";
                        self.backlog.close(Code::Busy.number(), text);
                        return true;
                    }
                    reading = Reading::Goes;
                    continue;
                }
                () = told(displaced), if self.stranger.is_some() => {
                    self.recognise();
                    if self.stranger.is_none() {
                        continue;
                    }
                    let text = "too many call who are not enrolled: come back in a minute";
                    self.backlog.close(Code::Busy.number(), text);
                    return true;
                }
                () = room_in(&self.queue), if !room => continue,
                event = next(&mut self.receiver, reads) => match event {
                    Event::Bytes { stream, bytes } => {
                        if !std::mem::replace(&mut introduced, true) {
                            self.due = self.stranger.is_some().then(|| Instant::now() + JOINS);
                        }
                        self.took(bytes.len());
                        if !self.bring(stream, &bytes).await {
                            return false;
                        }
                        continue;
                    }
                    Event::Finished { stream } => Input::Finished(self.id, stream),
                    Event::Writable { stream } => {
                        self.backlog.writable(stream);
                        self.waiting.set(self.backlog.queued());
                        continue;
                    }
                    Event::Closed { reason } => {
                        tracing::debug!(connection = self.id, ?reason, "closed");
                        return true;
                    }
                },
            };
            if self.door.messages.send(Message::Input(self.key, input, None)).await.is_err() {
                return false;
            }
        }
    }

    /// Brings bytes to the engine, a little at a time: others have their turns between. False if it is over.
    async fn bring(&self, stream: u64, bytes: &[u8]) -> bool {
        for piece in bytes.chunks(PIECE) {
            let (input, place) =
                (Input::Bytes(self.id, stream, piece.to_vec()), self.place(piece.len()));
            let brought = Message::Input(self.key, input, place);
            if self.door.messages.send(brought).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Does what the engine says; false if the connection is over by that.
    fn send(&mut self, output: Output) -> bool {
        match output {
            Output::Send { stream, priority, bytes, .. } => {
                self.door.metrics.sent_bytes.inc_by(bytes.len() as u64);
                self.backlog.send(stream, priority, Bytes::from(bytes));
                self.waiting.set(self.backlog.queued());
                if self.backlog.queued() > BACKLOG {
                    self.backlog.close(Code::Busy.number(), "too much waits to be read");
                }
            }
            Output::Finish(_, stream) => self.backlog.finish(stream),
            Output::Close(_, code, text) => {
                self.backlog.close(code.number(), &text);
                return false;
            }
            Output::Fetch(_) | Output::Ask { .. } => {}
        }
        true
    }

    /// Whoever was not enrolled may have joined meanwhile.
    fn recognise(&mut self) {
        if self.stranger.is_some() && self.door.knows(&self.key) {
            (self.stranger, self.due) = (None, None);
        }
    }

    fn took(&mut self, length: usize) {
        let bytes = length as u64;
        self.door.metrics.received_bytes.inc_by(bytes);
        self.recognise();
        if self.stranger.is_none() {
            self.door.throttle.took(self.key, Amount { bytes, changes: 0 });
        }
    }

    /// Whether the next bytes are read.
    fn may_read(&mut self) -> Reading {
        if self.stranger.is_some() {
            return Reading::Goes;
        }
        match self.door.throttle.hold(self.key) {
            Hold::Go => Reading::Goes,
            Hold::Wait(wait) => {
                self.door.waited("traffic", wait);
                Reading::Waits(Instant::now() + wait)
            }
            Hold::Away(back) => {
                tracing::info!(
                    connection = self.id,
                    back_seconds = back.as_secs(),
                    "a device that brings more than it may is sent away for a while"
                );
                self.door.refused("traffic");
                let retry_ms = u64::try_from(back.as_millis()).unwrap_or(u64::MAX);
                let away = Frame::GoAway(GoAway { retry_ms }).encode();
                self.backlog.send(0, priority::CONTROL, Bytes::from(away));
                Reading::Ends(Instant::now() + GOODBYE)
            }
        }
    }

    /// A place in the engine's queue, as far as there is one.
    fn place(&self, length: usize) -> Option<OwnedSemaphorePermit> {
        let most = length.min(self.queue.available_permits());
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        Arc::clone(&self.queue).try_acquire_many_owned(most).ok()
    }
}

/// What comes next, of what is to be read or besides.
async fn next(receiver: &mut Receiver, reads: bool) -> Event {
    if reads { receiver.recv().await } else { receiver.recv_unread().await }
}

/// Ends when a stranger has to make room.
async fn told(displaced: Option<Arc<Notify>>) {
    match displaced {
        Some(displaced) => displaced.notified().await,
        None => pending().await,
    }
}

/// Ends when the engine has taken something in.
async fn room_in(queue: &Semaphore) {
    // It is never closed.
    drop(queue.acquire().await);
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

/// A time to come back, for people.
fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs() + u64::from(time.subsec_nanos() > 0))
}
