//! The relay's engine: what every input does, and what may leave after the commit.
//!
//! Contains no networking code, reads no clock, starts no thread. A peer's nonsense closes its own
//! connection and nothing else.

mod asks;
mod authority;
mod bundle;
mod calls;
mod collection;
mod contacts;
mod disk;
mod fanout;
mod files;
mod generations;
mod influx;
mod joining;
mod keeping;
mod mending;
mod offers;
mod operators;
mod peer;
mod quarantine;
mod storage;
mod tally;
mod traces;
mod wishes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fieldkeep_model::{ChangeHash, DeviceNumber, KeyPair, PublicKey, RecordKey, SegmentId, Seq};
use fieldkeep_protocol::frame::{self, Frame, Hello, Said, SegmentRef};
use fieldkeep_protocol::{Code, Phase, Violation};
use fieldkeep_replica::{AdmitError, OVER_QUOTA, PART, Refused, Replica, ReplicaError};
use fieldkeep_store::{Contact, Log as _, Question, Removals as _, SegmentRow, StoreError};
use tracing::debug_span;

pub use asks::{check_queries, said};
pub use bundle::{Packing, Unpacking};
pub use calls::{Fetch, HOST_CONTEXT};
use collection::Collection;
pub use collection::Doubt;
pub use contacts::Attendance;
pub use files::Found;
use influx::Influx;
use keeping::Returning;
pub use operators::{AccountChange, AccountError};
use peer::Peer;
pub use quarantine::{NOTE, PERSON, Standing};
use storage::Storage;
use tally::Tally;
pub use traces::TRACES;
use traces::Traces;

use crate::metrics::{Metrics, of_code};

/// A connection, as the shell numbers it.
pub type ConnectionId = u64;

/// What happens to the engine.
#[derive(Clone, Debug)]
pub enum Input {
    /// Somebody connected and proved that key.
    Connected(ConnectionId, PublicKey),
    /// Bytes of one of a connection's streams.
    Bytes(ConnectionId, u64, Vec<u8>),
    /// One of a connection's streams ended.
    Finished(ConnectionId, u64),
    /// The connection is gone.
    Closed(ConnectionId),
    /// A host has answered a device's call of that number, or it was not reached: why.
    Fetched(DeviceNumber, u64, Result<String, String>),
    /// A connection's question of that number was answered.
    Answered(ConnectionId, u64, Said),
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send bytes on a stream.
    Send {
        /// The connection.
        to: ConnectionId,
        /// The stream; 0 is the control stream.
        stream: u64,
        /// Its priority.
        priority: i32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// End a stream.
    Finish(ConnectionId, u64),
    /// Close a connection.
    Close(ConnectionId, Code, String),
    /// Ask a host; [`Input::Fetched`] follows.
    Fetch(Box<Fetch>),
    /// Answer a question from what is committed, beside the engine; [`Input::Answered`] follows.
    Ask {
        /// The connection.
        to: ConnectionId,
        /// Its number for the question.
        number: u64,
        /// The question.
        question: Box<Question>,
    },
}

/// What is known of a device while it is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// What it runs, as it says.
    pub software: String,
    /// The number of the catalog that it has.
    pub catalog: u64,
}

/// Entries of a segment that are merged and judged in one go, so that nothing waits long for it.
const SLICE: usize = 64;
/// Records that are looked at again in one go: few, because whatever comes meanwhile waits for it.
const RENEWED: usize = 16;
/// How often the segment that waits longest lets one that is in memory go first.
const PASSED_OVER: usize = 16;
/// Characters that are kept of what a peer says it runs.
const SOFTWARE: usize = 64;
/// Connections of one member at a time.
const CONNECTIONS: usize = 2;

/// What is told when the relay is stopped.
const STOPS: &str = "the relay stops, and says when to come back: what has a receipt is safe";

/// The relay, but for its sockets.
#[derive(Debug)]
pub struct Engine {
    replica: Replica,
    peers: BTreeMap<ConnectionId, Peer>,
    /// Who follows a segment.
    followers: BTreeMap<SegmentId, BTreeSet<ConnectionId>>,
    /// Segments whose log, verdicts or judged position have moved since the last fan-out.
    moved: BTreeSet<SegmentId>,
    /// Who lacks more of a segment than was sent at once, and who of them was sent something last.
    lagging: BTreeSet<(ConnectionId, SegmentId)>,
    served: Option<(ConnectionId, SegmentId)>,
    /// Who is to hear how many records there are of what it leaves out.
    uncounted: BTreeSet<ConnectionId>,
    /// Segments to be judged next, in order of arrival.
    queue: VecDeque<SegmentId>,
    outputs: Vec<Output>,
    influx: Influx,
    /// How often the front of the queue had to wait for a segment that is in memory.
    passed_over: usize,
    failed_joins: VecDeque<i64>,
    /// Records that devices ask to have judged again.
    wanted: BTreeSet<RecordKey>,
    /// Members that are kept away until then, because their permissions are being changed.
    suspended: BTreeMap<PublicKey, i64>,
    /// When members took other keys, by what they are known by.
    rotated: BTreeMap<PublicKey, i64>,
    /// The keys that this relay has from its next start on; the membership log may name them already.
    next_keys: Option<KeyPair>,
    collection: Collection,
    storage: Storage,
    returning: Returning,
    /// Visits of members, by what they are known by, that are to be written down.
    contacts: BTreeMap<PublicKey, Contact>,
    tally: Tally,
    /// How many changes each peer has brought since that was asked last.
    brought: BTreeMap<PublicKey, u64>,
    traces: Traces,
    /// How often the disk took nothing.
    unsaved: u64,
    now: i64,
}

impl Engine {
    /// The engine over an opened replica.
    #[must_use]
    pub fn new(replica: Replica) -> Self {
        let queue = replica.behind().into();
        let (tally, returning) = (Tally::of(&replica), Returning::of(&replica));
        let engine = Self {
            tally,
            returning,
            replica,
            peers: BTreeMap::new(),
            followers: BTreeMap::new(),
            moved: BTreeSet::new(),
            lagging: BTreeSet::new(),
            served: None,
            uncounted: BTreeSet::new(),
            queue,
            outputs: Vec::new(),
            influx: Influx::default(),
            passed_over: 0,
            failed_joins: VecDeque::new(),
            wanted: BTreeSet::new(),
            suspended: BTreeMap::new(),
            rotated: BTreeMap::new(),
            next_keys: None,
            collection: Collection::default(),
            storage: Storage::default(),
            brought: BTreeMap::new(),
            traces: Traces::default(),
            contacts: BTreeMap::new(),
            unsaved: 0,
            now: 0,
        };
        engine.show_backup();
        engine
    }

    /// The replica, for reading.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The replica, for the operator's commands; [`Engine::commit`] must follow.
    pub fn replica_mut(&mut self) -> &mut Replica {
        &mut self.replica
    }

    /// The replica, for whoever ends this engine and goes on with its store.
    #[must_use]
    pub fn into_replica(self) -> Replica {
        self.replica
    }

    /// The devices that are connected.
    #[must_use]
    pub fn present(&self) -> BTreeMap<DeviceNumber, Present> {
        let members = self.peers.values().filter_map(|peer| Some((peer.member?, peer)));
        let present = members.map(|(number, peer)| {
            let (software, catalog) = (peer.software.clone(), peer.catalog);
            (number, Present { software, catalog })
        });
        present.collect()
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.peers.len()
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        self.tally.metrics()
    }

    /// How many changes each peer has brought since this was asked last, whatever became of them.
    pub fn take_brought(&mut self) -> BTreeMap<PublicKey, u64> {
        std::mem::take(&mut self.brought)
    }

    /// How often the disk took nothing of what was to be committed.
    #[must_use]
    pub fn unsaved(&self) -> u64 {
        self.unsaved
    }

    /// Takes an input in. Nothing leaves before [`Engine::commit`].
    ///
    /// # Errors
    /// When the store fails; the shell stops then.
    pub fn handle(&mut self, now: i64, input: Input) -> Result<(), ReplicaError> {
        self.now = now;
        self.traces.took();
        match self.take(input) {
            Err(ReplicaError::Store(error @ StoreError::Full)) => {
                self.replica.forget()?;
                self.give_up(&error);
                Ok(())
            }
            other => other,
        }
    }

    fn take(&mut self, input: Input) -> Result<(), ReplicaError> {
        match input {
            Input::Connected(id, key) => {
                self.peers.insert(id, Peer::new(key));
                self.tally.connected(self.peers.len());
            }
            Input::Bytes(id, stream, bytes) => self.bytes(id, stream, &bytes)?,
            Input::Finished(id, stream) => {
                let finished = self.peers.get_mut(&id).map(|peer| peer.session.finished(stream));
                match finished {
                    Some(Err(violation)) => self.violated(id, &violation),
                    // Whoever has said all hears by this that it has arrived.
                    Some(Ok(())) if stream == 0 => {
                        self.outputs.push(Output::Close(id, Code::Done, "done".into()));
                        self.forget(id);
                    }
                    Some(Ok(())) | None => {}
                }
            }
            Input::Closed(id) => self.forget(id),
            Input::Fetched(device, number, answer) => self.fetched(device, number, answer)?,
            Input::Answered(id, number, said) => self.answered(id, number, said),
        }
        Ok(())
    }

    /// Makes everything durable that was taken in, and returns what may leave.
    ///
    /// # Errors
    /// When the disk refuses: nothing of it was saved or leaves, every connection is closed, and
    /// the peers send it again.
    pub fn commit(&mut self) -> Result<Vec<Output>, ReplicaError> {
        let writes = self.replica.store().is_writing();
        let _traced = self.trace_commit(writes);
        let save = || self.note_stored().and_then(|()| self.replica.commit());
        if let Err(error) = debug_span!(target: PART, "save").in_scope(save) {
            self.give_up(&error);
            return Ok(std::mem::take(&mut self.outputs));
        }
        if writes && self.is_failing() {
            self.recovered();
        }
        self.influx.committed();
        self.tally.committed();
        for id in &self.moved {
            self.tally.moved(&self.replica.segments()[id]);
        }
        self.tally.stands(&self.replica);
        let span = debug_span!(target: PART, "fan-out", segments = self.moved.len() as i64);
        span.in_scope(|| self.fan_out())?;
        Ok(std::mem::take(&mut self.outputs))
    }

    /// Whether more is likely to come at once, because pushes are under way: the shell then gives
    /// it a moment before it lets a slice be judged. Never for many commits on end.
    #[must_use]
    pub fn expects_more(&self) -> bool {
        self.influx.expects_more()
    }

    /// Merges and judges one slice of what waits. Returns whether there was any; a commit must
    /// follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn work(&mut self, now: i64) -> Result<bool, ReplicaError> {
        self.now = now;
        self.influx.judged();
        if let Some(key) = self.wanted.pop_first() {
            let _traced = self.trace_wish(&key);
            self.rejudge(&[key])?;
            return Ok(true);
        }
        let worked = match self.next_in_queue() {
            Some(id) => self.slice(id).map(|()| true),
            None => self.renew().and_then(|renewed| Ok(renewed || self.reshape(now)?)),
        };
        let worked = worked.and_then(|worked| Ok(self.write_contacts()? || worked));
        match worked {
            // Beside judging one goes on with each commit, so that neither waits for the other's end.
            Ok(false) => Ok(self.go_on()? || self.count_for_absent()? || self.collect()?),
            Ok(true) => Ok(true),
            Err(error) if error.is_damage() => Ok(true),
            Err(ReplicaError::Store(error @ StoreError::Full)) => {
                self.replica.forget()?;
                self.give_up(&error);
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether nothing is left to be done but to look at records again, or to write them in a new
    /// generation, which may take its time.
    #[must_use]
    pub fn is_only_renewing(&self) -> bool {
        let at_leisure = self.replica.is_renewing() || self.replica.is_reshaping();
        self.queue.is_empty() && self.wanted.is_empty() && self.lagging.is_empty() && at_leisure
    }

    /// The segment to be judged next: the first that is in memory, but the one at the front after it
    /// was passed over a few times.
    fn next_in_queue(&mut self) -> Option<SegmentId> {
        let loaded = self.queue.iter().position(|id| self.replica.is_loaded(id));
        let at = loaded.filter(|_| self.passed_over < PASSED_OVER).unwrap_or(0);
        self.passed_over = if at == 0 { 0 } else { self.passed_over + 1 };
        self.queue.remove(at)
    }

    /// Judges a slice of what a changed catalog or permission puts in question.
    fn renew(&mut self) -> Result<bool, ReplicaError> {
        let _traced = self.trace_renewal();
        let Some(renewed) = self.replica.renew(RENEWED)? else { return Ok(false) };
        self.moved.extend(renewed.judged);
        self.moved.extend(renewed.complete.then_some(renewed.segment));
        Ok(true)
    }

    fn slice(&mut self, id: SegmentId) -> Result<(), ReplicaError> {
        let traced = self.trace_slice(&id);
        let done = self.replica.materialise(&id, SLICE)?;
        if let Some(traced) = &traced {
            traced.record("changes", i64::try_from(done.changes).unwrap_or(i64::MAX));
        }
        self.moved.extend(done.judged);
        self.moved.insert(id);
        self.carry_late(&id)?;
        if self.replica.segment(&id).is_some_and(|row| row.done < row.tip) {
            self.queue.push_back(id);
            return Ok(());
        }
        self.traces.judged(&id);
        debug_span!(target: PART, "tidy").in_scope(|| self.replica.tidy(&id, self.now))
    }

    /// Compresses one pack harder, for when nothing else is to be done. Returns whether there was
    /// one.
    ///
    /// # Errors
    /// When the store fails.
    pub fn polish(&mut self) -> Result<bool, ReplicaError> {
        let ids: Vec<SegmentId> = self.replica.segments().keys().copied().collect();
        for id in ids {
            if self.replica.recompress(&id)? {
                self.replica.commit()?;
                self.metrics().packs_compressed.inc();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Judges records again as they stand; a commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn rejudge(&mut self, keys: &[RecordKey]) -> Result<(), ReplicaError> {
        let judged = self.replica.rejudge(keys)?;
        self.moved.extend(judged);
        Ok(())
    }

    fn bytes(&mut self, id: ConnectionId, stream: u64, bytes: &[u8]) -> Result<(), ReplicaError> {
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        if let Err(violation) = peer.session.receive(stream, bytes) {
            self.violated(id, &violation);
            return Ok(());
        }
        // The first frame opens the way for what overtook it on other streams.
        let mut streams = VecDeque::from([stream]);
        while let Some(stream) = streams.pop_front() {
            while let Some(peer) = self.peers.get_mut(&id) {
                let opening = peer.session.phase() == Phase::Opening;
                match peer.session.next(stream) {
                    Ok(Some(frame)) => {
                        let taken = self.frame(id, frame);
                        self.survive(id, taken)?;
                        if opening {
                            streams.extend(
                                self.peers
                                    .get(&id)
                                    .map(|peer| peer.session.waiting())
                                    .unwrap_or_default(),
                            );
                        }
                    }
                    Ok(None) => break,
                    Err(violation) => self.violated(id, &violation),
                }
            }
        }
        Ok(())
    }

    /// Damage of one segment costs the connection that met it, and nothing else.
    fn survive<T: Default>(
        &mut self,
        id: ConnectionId,
        result: Result<T, ReplicaError>,
    ) -> Result<T, ReplicaError> {
        match result {
            Err(error) if error.is_damage() => {
                tracing::error!(connection = id, %error, "a segment is damaged");
                self.close(id, Code::Storage, &error.to_string());
                Ok(T::default())
            }
            other => other,
        }
    }

    fn frame(&mut self, id: ConnectionId, frame: Frame) -> Result<(), ReplicaError> {
        tracing::trace!(connection = id, frame = frame.name(), "received");
        let _traced = self.trace_frame(id, frame.name());
        match frame {
            Frame::Hello(hello) => self.hello(id, &hello)?,
            Frame::Join(join) if self.peers[&id].member.is_none() => self.join(id, &join)?,
            Frame::Join(members) | Frame::Members(members) => self.members(id, &members)?,
            Frame::Offer(offer) => self.offer(id, &offer)?,
            Frame::Mode(paused) => self.mode(id, paused),
            Frame::Vector(vector) => self.vector(id, vector)?,
            Frame::Witness(statement) => self.witness(id, &statement)?,
            Frame::Push(push) => self.push(id, push)?,
            Frame::Credit(credit) => self.credit(id, credit),
            Frame::Rejudge(key) => self.asked_to_rejudge(id, key)?,
            Frame::Dismiss(dismiss) => self.asked_to_dismiss(id, &dismiss)?,
            Frame::Call(call) => self.call(id, call)?,
            Frame::Ask(ask) => self.ask(id, &ask),
            Frame::Report(report) => self.reported(id, report),
            Frame::Error(error) => tracing::info!(connection = id, ?error, "the peer gave up"),
            Frame::Welcome(_)
            | Frame::Catalog(_)
            | Frame::OfferReply(_)
            | Frame::Delta(_)
            | Frame::Ack(_)
            | Frame::Nack(_)
            | Frame::Verdicts(_)
            | Frame::Proof(_)
            | Frame::Stats(_)
            | Frame::GoAway(_)
            | Frame::Meet(_)
            | Frame::Receipt(_)
            | Frame::Outcome(_)
            | Frame::Answer(_)
            | Frame::Part(_) => unreachable!("the session lets no such frame in"),
        }
        Ok(())
    }

    fn hello(&mut self, id: ConnectionId, hello: &Hello) -> Result<(), StoreError> {
        if !hello.versions.contains(&fieldkeep_protocol::VERSION) {
            let text = "no common protocol version: update the software";
            self.close(id, Code::Version, text);
            return Ok(());
        }
        if hello.org != self.replica.org() {
            let text = "this relay serves another organisation";
            self.close(id, Code::ForeignOrganisation, text);
            return Ok(());
        }
        let key = self.peers[&id].key;
        let member = self.replica.members().by_tls(&key);
        let revoked = member.is_some_and(|member| member.revoked);
        let member = member.map(|member| member.number);
        // Where its entries are not the first of these, the two logs have branched: it gets all.
        let same = self.replica.members().sum_at(hello.members) == Some(hello.members_sum());
        let known = if same { hello.members } else { 0 };
        if self.is_suspended(&key) {
            self.close(id, Code::Busy, "its permissions are being changed: come again");
            return Ok(());
        }
        if member.is_some() {
            // A device whose signal comes and goes has lost them, and the relay has not noticed yet:
            // the oldest give way.
            let mut others = self.sessions_of(&key);
            others.retain(|other| *other != id);
            others.sort_unstable();
            others.truncate((others.len() + 1).saturating_sub(CONNECTIONS));
            for other in others {
                self.close(other, Code::Busy, "this device has connected anew");
            }
        }
        if self.queue.is_empty() {
            self.queue = self.replica.behind().into();
        }
        let peer = self.peers.get_mut(&id).expect("the frame came from it");
        peer.actor = hello.actor;
        peer.member = member;
        if member.is_some() {
            self.tally.came(key);
        }
        (peer.catalog, peer.epoch) = (hello.catalog, hello.epoch);
        if hello.catalog == 0 {
            peer.left_out.generations = self.replica.generations().clone();
        }
        peer.software = hello.software.chars().take(SOFTWARE).collect();
        peer.receipts = hello.capabilities & fieldkeep_protocol::capability::RECEIPTS != 0;
        peer.session.enter(if member.is_some() { Phase::Open } else { Phase::Stranger });
        self.note_contact(id, hello.members);
        self.trace_session(id);
        let welcome = self.introduction()?;
        self.control(id, &Frame::Welcome(Box::new(welcome)));
        if revoked {
            self.peers.get_mut(&id).expect("the frame came from it").members = known;
            self.turn_away(id);
        } else if member.is_some() {
            self.introduce(id, known);
            self.note_returned(key)?;
        }
        Ok(())
    }

    fn introduction(&self) -> Result<Hello, StoreError> {
        let removals = self.replica.store().newest_removal()?;
        Ok(Hello {
            versions: vec![fieldkeep_protocol::VERSION],
            software: concat!("fieldkeep/", env!("CARGO_PKG_VERSION")).to_owned(),
            org: self.replica.org(),
            capabilities: fieldkeep_protocol::capability::REPORTS,
            members: self.replica.members().len(),
            members_tip: self.replica.members().tip(),
            members_sum: self.replica.members().sum().to_be_bytes(),
            epoch: self.replica.epoch(),
            catalog: self.replica.published().map_or(0, |published| published.number),
            frame_max: fieldkeep_protocol::FRAME_MAX,
            root: [0; 16],
            actor: None,
            removals: (removals > 0).then_some(removals),
        })
    }

    /// Sends a member what it lacks of the membership log, and the catalog if it has another.
    fn introduce(&mut self, id: ConnectionId, known: u64) {
        self.tell_members(id, known);
        let Peer { catalog: held, epoch, .. } = self.peers[&id];
        let current = self.replica.published().map(|published| (published.epoch, published.number));
        // Numbers go on through epochs, but two branches of a relay may have used one twice.
        if current.is_some_and(|(of, number)| number != held || of > epoch) {
            self.tell_catalog(id);
        }
    }

    fn members(&mut self, id: ConnectionId, members: &frame::Members) -> Result<(), ReplicaError> {
        let mut entries = members.entries.clone();
        let last = entries.last().cloned();
        entries.extend(last.and_then(|last| self.admission_of_keys(id, &last)));
        match self.append_members(&entries) {
            Ok(_) => {}
            Err(ReplicaError::Membership(error)) => {
                self.close(id, Code::Membership, &error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Tells every member what it lacks of the membership log.
    fn announce_members(&mut self) {
        let others = self.peers.iter().filter(|(_, peer)| peer.member.is_some());
        let others: Vec<_> = others.map(|(id, peer)| (*id, peer.members)).collect();
        for (id, known) in others {
            self.tell_members(id, known);
        }
    }

    fn tell_members(&mut self, id: ConnectionId, known: u64) {
        let entries = self.replica.members().since(known).to_vec();
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.members = known + entries.len() as u64;
        }
        if !entries.is_empty() {
            self.control(id, &Frame::Members(frame::Members { base: known, entries }));
        }
    }

    fn push(&mut self, id: ConnectionId, push: frame::Push) -> Result<(), ReplicaError> {
        let from = self.peers[&id].member.expect("the session is open");
        let SegmentRef { id: segment, address } = push.segment;
        let unpack = || self.replica.batch(&segment, address, &push.batch, push.heads);
        let changes = match debug_span!(target: PART, "unpack").in_scope(unpack) {
            Ok(changes) => changes,
            Err(error) => {
                self.close(id, Code::Malformed, &error.to_string());
                return Ok(());
            }
        };
        let brought = self.brought.entry(self.peers[&id].key).or_default();
        *brought += changes.chunks.len() as u64;
        if !self.replica.is_declared(&changes.segment) {
            let hash = changes.heads.first().map_or(ChangeHash([0; 32]), |head| head.head.hash);
            let text = "the relay's catalog has no such type, or divides it otherwise".to_owned();
            let code = "undeclared".to_owned();
            let nack = frame::Nack { segment, hash, stage: 1, code, text, vector: None };
            self.tally.refused("undeclared");
            self.control(id, &Frame::Nack(nack));
            return Ok(());
        }
        match self.replica.receive(from, &changes, self.now) {
            Ok(received) => self.received(id, &segment, &received),
            Err(AdmitError::Refused(refused)) => {
                tracing::warn!(from, %segment, %refused, "refused");
                self.refuse(id, segment, *refused)
            }
            Err(AdmitError::Replica(error)) => Err(error),
        }
    }

    fn received(
        &mut self,
        id: ConnectionId,
        segment: &SegmentId,
        received: &fieldkeep_replica::Received,
    ) -> Result<(), ReplicaError> {
        if let Some((first, last)) = received.admitted {
            self.influx.arrived((last - first + 1) as usize);
            self.traces.grew(segment, id);
            self.has_grown(segment)?;
        }
        self.tally.received(received);
        for (hash, reason) in &received.aside {
            let (code, text) = if *reason == OVER_QUOTA {
                let text = "as much is stored of its author, or of the whole organisation, as may be: \
                            the relay keeps the change aside until there is room";
                ("over-quota", text)
            } else {
                let text =
                    "the device was not granted this scope: the relay keeps the change aside";
                ("not-permitted", text)
            };
            let (code, text) = (code.to_owned(), text.to_owned());
            let (segment, hash) = (*segment, *hash);
            let nack = frame::Nack { segment, hash, stage: 1, code, text, vector: None };
            self.control(id, &Frame::Nack(nack));
        }
        let pos = self.replica.segment(segment).map_or(0, |row| row.tip);
        for (actor, seq, hash) in &received.newest {
            self.replica.note_newest(segment, actor, *seq)?;
            let ack = frame::Ack { segment: *segment, actor: *actor, seq: *seq, hash: *hash, pos };
            self.control(id, &Frame::Ack(ack));
            if self.peers.get(&id).is_some_and(|peer| peer.receipts) {
                let receipt = self.replica.receipt(segment, *actor, (*seq, *hash), pos);
                self.control(id, &Frame::Receipt(receipt));
            }
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.learn(segment, *actor, *seq);
            }
        }
        Ok(())
    }

    /// Has a segment whose log has grown judged and sent on.
    fn has_grown(&mut self, segment: &SegmentId) -> Result<(), ReplicaError> {
        self.moved.insert(*segment);
        if !self.queue.contains(segment) {
            self.queue.push_back(*segment);
        }
        // Whoever may read it follows it since it began, or since he came: only where nobody does is it looked
        // who might, which takes as long as there are devices.
        if self.followers.get(segment).is_none_or(BTreeSet::is_empty) {
            self.follow_everyone(segment)?;
        }
        Ok(())
    }

    fn refuse(
        &mut self,
        id: ConnectionId,
        segment: SegmentId,
        refused: Refused,
    ) -> Result<(), ReplicaError> {
        let member = self.member(id);
        let may = |row: &SegmentRow| member.may(&row.address.ty, &row.address.scope);
        // Of a segment that is not there it holds nothing, and the device has to know.
        let readable = self.replica.segment(&segment).is_none_or(may);
        let vector = match refused.code {
            "missing-deps" | "fork" | "seq" if readable => Some(self.replica.vector(&segment)?),
            _ => None,
        };
        let Refused { hash, stage, code, text, .. } = refused;
        self.tally.refused(code);
        let nack = frame::Nack { segment, hash, stage, code: code.to_owned(), text, vector };
        self.control(id, &Frame::Nack(nack));
        Ok(())
    }

    fn control(&mut self, to: ConnectionId, frame: &Frame) {
        self.send(to, 0, fieldkeep_protocol::priority::CONTROL, frame);
    }

    fn send(&mut self, to: ConnectionId, stream: u64, priority: i32, frame: &Frame) {
        tracing::trace!(connection = to, stream, frame = frame.name(), "sent");
        self.outputs.push(Output::Send { to, stream, priority, bytes: frame.encode() });
    }

    fn violated(&mut self, id: ConnectionId, violation: &Violation) {
        let stranger = self.peers.get(&id).is_some_and(|p| p.session.phase() == Phase::Stranger);
        let code = match violation {
            Violation::OutOfOrder(_) if stranger => Code::NotAMember,
            Violation::Frame(_)
            | Violation::OutOfOrder(_)
            | Violation::CutShort
            | Violation::Streams
            | Violation::Unintroduced => violation.code(),
        };
        tracing::warn!(connection = id, %violation, "closed");
        self.close(id, code, &violation.to_string());
    }

    fn close(&mut self, id: ConnectionId, code: Code, text: &str) {
        self.metrics().sessions_ended.get_or_create(&of_code(&code.to_string())).inc();
        let error = frame::ErrorFrame { code, text: text.to_owned() };
        self.control(id, &Frame::Error(error));
        self.outputs.push(Output::Close(id, code, text.to_owned()));
        self.forget(id);
    }

    fn forget(&mut self, id: ConnectionId) {
        self.uncounted.remove(&id);
        self.lagging.retain(|(of, _)| *of != id);
        self.note_parting(id);
        let Some(peer) = self.peers.remove(&id) else { return };
        self.tally.connected(self.peers.len());
        if peer.member.is_some() {
            self.tally.left(&peer.key);
        }
        for segment in peer.following.keys() {
            if let Some(followers) = self.followers.get_mut(segment) {
                followers.remove(&id);
            }
        }
    }

    /// Tells every device that the relay stops, and when to come back. Each ends its session when it has
    /// read that, and with it all that was sent before.
    pub fn announce_end(&mut self, retry_ms: u64) -> Vec<Output> {
        let members = self.peers.iter().filter(|(_, peer)| peer.member.is_some());
        for id in members.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.control(id, &Frame::GoAway(frame::GoAway { retry_ms }));
        }
        std::mem::take(&mut self.outputs)
    }

    /// Ends the sessions that are left.
    pub fn go_away(&mut self) -> Vec<Output> {
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.close(id, Code::GoingAway, STOPS);
        }
        if let Err(error) = self.write_contacts() {
            tracing::warn!(%error, "who was here last is not written down");
        }
        std::mem::take(&mut self.outputs)
    }

    /// The newest seq of an actor in a segment.
    fn newest_of(&self, sid: i64, actor: &fieldkeep_model::ActorId) -> Result<Seq, StoreError> {
        self.replica.store().acknowledged(sid, actor)
    }
}
