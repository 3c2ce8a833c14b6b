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
mod hearing;
mod influx;
mod introducing;
mod joining;
mod keeping;
mod mending;
mod offers;
mod operators;
mod peer;
mod quarantine;
mod receiving;
mod storage;
mod tally;
mod traces;
mod wishes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fieldkeep_model::{DeviceNumber, KeyPair, PublicKey, RecordKey, SegmentId, Seq};
use fieldkeep_protocol::Code;
use fieldkeep_protocol::frame::{self, Frame, Said};
use fieldkeep_replica::{PART, Replica, ReplicaError};
use fieldkeep_store::{Contact, Log as _, Question, StoreError};
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
        let worked = if let Some(key) = self.wanted.pop_first() {
            let _traced = self.trace_wish(&key);
            let judged = self.rejudge(std::slice::from_ref(&key));
            if let Err(error) = &judged {
                tracing::warn!(record = %key, %error, "not judged again: `relay doctor` tells what is wrong");
            }
            judged.map(|()| true)
        } else if let Some(id) = self.next_in_queue() {
            self.slice(id).map(|()| true)
        } else {
            self.renew().and_then(|renewed| Ok(renewed || self.reshape(now)?))
        };
        let worked = worked.and_then(|worked| Ok(self.write_contacts()? || worked));
        match worked {
            // Beside judging one goes on with each commit, so that neither waits for the other's end.
            Ok(false) => {
                let went_on = self.go_on()? || self.count_for_absent()? || self.collect()?;
                Ok(went_on || self.end_lacking(now))
            }
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
        let merged = self.replica.materialise(&id, SLICE);
        let behind =
            self.replica.segment(&id).is_some_and(|row| row.done < row.tip && !row.damaged);
        if merged.is_err() && behind {
            // It is another segment that is damaged: this one goes on without it.
            self.queue.push_back(id);
        }
        let done = merged?;
        if let Some(traced) = &traced {
            traced.record("changes", i64::try_from(done.changes).unwrap_or(i64::MAX));
        }
        self.moved.extend(done.judged);
        self.moved.insert(id);
        let carried = self.carry_late(&id);
        if self.replica.segment(&id).is_some_and(|row| row.done < row.tip) {
            self.queue.push_back(id);
            return carried;
        }
        carried?;
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
            match self.replica.recompress(&id) {
                Ok(false) => {}
                Ok(true) => {
                    self.replica.commit()?;
                    self.metrics().packs_compressed.inc();
                    return Ok(true);
                }
                Err(error) if error.is_damage() => {
                    tracing::error!(segment = %id, %error, "a segment is damaged");
                }
                Err(error) => return Err(error),
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

    fn control(&mut self, to: ConnectionId, frame: &Frame) {
        self.send(to, 0, fieldkeep_protocol::priority::CONTROL, frame);
    }

    fn send(&mut self, to: ConnectionId, stream: u64, priority: i32, frame: &Frame) {
        tracing::trace!(connection = to, stream, frame = frame.name(), "sent");
        self.outputs.push(Output::Send { to, stream, priority, bytes: frame.encode() });
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
