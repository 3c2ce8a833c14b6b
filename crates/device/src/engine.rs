//! The device's engine: what every frame of the relay does, and what may leave after the commit.
//!
//! Contains no networking code, reads no clock, starts no thread. One connection at a time: what
//! was under way on the last one is asked for again on the next.

mod adopting;
mod bundle;
mod calling;
mod catching_up;
mod exchange;
mod files;
mod hearing;
mod meeting;
mod outgoing;
mod passing;
mod pausing;
mod peer;
mod reporting;
mod wishes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fieldkeep_model::status::LeftOut;
use fieldkeep_model::{ActorId, Epoch, Pos, RecordKey, SegmentId, Seq};
use fieldkeep_protocol::frame::{self, Delta, Frame, Hello, Verdicts};
use fieldkeep_protocol::{Code, Offer, OfferEntry, Phase, Role, Session};
use fieldkeep_replica::{Replica, ReplicaError};
use fieldkeep_store::{Log as _, SegmentRow};

pub use adopting::Exchanged;
pub use bundle::{Packing, Unpacking};
pub use calling::CallState;
pub(crate) use catching_up::OFFERED;
pub(crate) use files::{note_fetched, put_with_files};
pub use passing::{Input, Output, Progress};
pub(crate) use pausing::PAUSED_SINCE;
use peer::Peer;
pub use peer::{PeerId, PeerInput, PeerOutput, PeerProgress};
use reporting::Reporting;

/// Records that are forecast again in one go, when a new catalog puts them in question.
const RENEWED: usize = 256;
/// Stretches that wait for entries of the membership log.
const PARKED: usize = 64;

/// The device, but for its sockets.
///
/// ```
/// # use fieldkeep_model::RecordKey;
/// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
/// let order: RecordKey = "order/o1".parse()?;
/// wire.relay(&mut ann)?; // Her order goes to the relay,
/// wire.relay(&mut ben)?; // and from there to him.
/// let view = ben.replica().views().record(&order)?.expect("it has come");
/// assert_eq!((&view.fields["boxes"], view.state.word()), (&5.into(), "valid"));
/// # Ok(()) });
/// ```
#[derive(Debug)]
pub struct Engine {
    replica: Replica,
    session: Option<Session>,
    outputs: Vec<Output>,
    changed: BTreeSet<RecordKey>,
    /// Segments that are not proven: the log's end that is to be reached, as far as known.
    open: BTreeMap<SegmentId, Pos>,
    /// Through which position of its own log each segment was pushed on this connection.
    pushed: BTreeMap<SegmentId, Pos>,
    /// How often what was refused in a segment was sent again on this connection.
    sent_again: BTreeMap<SegmentId, u32>,
    /// Pushes without a receipt: segment, one of the authors with its newest seq, bytes.
    under_way: VecDeque<(SegmentId, ActorId, Seq, u64)>,
    in_flight: u64,
    /// Whether the next push need not wait for anything.
    goes_on: bool,
    /// Segments whose rows were read and checked on this connection.
    verified: BTreeSet<SegmentId>,
    parked: VecDeque<Delta>,
    /// Verdicts that overtook what they judge.
    early: VecDeque<Verdicts>,
    /// Statements that the relay was shown and has not said anything of.
    shown: usize,
    /// Segments of which the relay was shown a statement on this connection.
    witnessed: BTreeSet<SegmentId>,
    /// Whether the relay has got all of the membership log that it may lack.
    brought_members: bool,
    /// Whether the relay did not know this device's key the last time.
    forgotten: bool,
    credits: BTreeMap<SegmentId, Pos>,
    /// Calls that were told once, on this connection.
    fresh_calls: BTreeSet<u64>,
    /// How many questions were asked, and those that are not answered, or whose answer waits.
    asked: u64,
    asking: BTreeMap<u64, Option<frame::Said>>,
    /// How many of the kept wishes were told before this connection's offer.
    told: usize,
    /// The types of which nothing is exchanged.
    paused: LeftOut,
    /// The devices that this one is connected to.
    peers: BTreeMap<PeerId, Peer>,
    progress: Progress,
    /// What the relay was told of this device.
    reporting: Reporting,
    now: i64,
}

impl Engine {
    /// The engine over an opened replica.
    ///
    /// ```
    /// # use fieldkeep_device::Engine;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let ann = Engine::new(ann.into_replica()); // As after a restart.
    /// assert_eq!((ann.is_online(), ann.progress()?.waiting), (false, 1));
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn new(replica: Replica) -> Self {
        Self {
            replica,
            session: None,
            outputs: Vec::new(),
            changed: BTreeSet::new(),
            open: BTreeMap::new(),
            pushed: BTreeMap::new(),
            sent_again: BTreeMap::new(),
            under_way: VecDeque::new(),
            in_flight: 0,
            goes_on: false,
            verified: BTreeSet::new(),
            parked: VecDeque::new(),
            early: VecDeque::new(),
            shown: 0,
            witnessed: BTreeSet::new(),
            brought_members: false,
            forgotten: false,
            credits: BTreeMap::new(),
            fresh_calls: BTreeSet::new(),
            asked: 0,
            asking: BTreeMap::new(),
            told: 0,
            paused: LeftOut::default(),
            peers: BTreeMap::new(),
            progress: Progress::default(),
            reporting: Reporting::default(),
            now: 0,
        }
    }

    /// The replica, for reading.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// assert_eq!(ann.replica().me().name, "ann");
    /// assert_eq!(ann.replica().views().counts(&"order".parse()?)?.unsaved, 1);
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The replica, for writing; [`Engine::commit`] must follow.
    ///
    /// ```
    /// # use fieldkeep_model::Edit;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let edit = vec![Edit::Add("boxes".into(), -1)].into();
    /// ann.replica_mut().put(&"order/o1".parse()?, &edit, 0)?;
    /// ann.commit()?; // Before this it is not durable.
    /// assert_eq!(ann.progress()?.waiting, 2);
    /// # Ok(()) });
    /// ```
    pub fn replica_mut(&mut self) -> &mut Replica {
        &mut self.replica
    }

    /// The replica, for whoever ends this engine and goes on with its store.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let replica = ann.into_replica();
    /// assert_eq!(replica.views().counts(&"order".parse()?)?.local, 1);
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn into_replica(self) -> Replica {
        self.replica
    }

    /// How far the present connection has come.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.relay(&mut ann)?;
    /// let progress = ann.progress()?;
    /// assert!(progress.offered && progress.bytes_sent > 0);
    /// assert_eq!((progress.sent, progress.open), (1, 0));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the store fails.
    pub fn progress(&self) -> Result<Progress, ReplicaError> {
        let mut progress = self.progress.clone();
        let mut open: BTreeSet<SegmentId> = self.replica.behind().into_iter().collect();
        open.extend(self.open.keys());
        progress.open = open.len() as u64;
        if progress.offered {
            let proven = |(id, row): &(&SegmentId, &SegmentRow)| {
                row.cursor.pos > 0 && !self.open.contains_key(*id)
            };
            progress.proven = self.replica.segments().iter().filter(proven).count() as u64;
        }
        let outgoing = self.replica.store().outgoing_by_segment()?;
        for row in self.replica.segments().values() {
            let Some((waiting, refused)) = outgoing.get(&row.sid) else { continue };
            let withheld = self.paused.withholds(&row.address);
            progress.waiting += if withheld { 0 } else { *waiting };
            progress.refused += refused;
        }
        Ok(progress)
    }

    /// Whether the progress is worth a look: cheap, and true whenever it is complete.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// assert!(!ann.may_be_complete()); // Nobody has asked the relay.
    /// wire.relay(&mut ann)?;
    /// assert!(ann.may_be_complete() && ann.progress()?.complete());
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn may_be_complete(&self) -> bool {
        self.progress.offered && self.shown == 0 && self.open.is_empty() && !self.has_work()
    }

    /// Whether something is to be merged, judged again, or sent without waiting for anything.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.relay(&mut ann)?;
    /// wire.relay(&mut ben)?; // Which lets him work until there is nothing left.
    /// assert!(!ben.has_work());
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.replica.is_behind() || self.replica.is_renewing() || (self.goes_on && self.is_online())
    }

    /// Whether this side has ended the session, or a proof was not equal.
    ///
    /// ```
    /// # use fieldkeep_device::Input;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.relay(&mut ann)?;
    /// assert!(!ann.has_failed());
    /// ann.handle(0, Input::Bytes(0, vec![0xff; 64]))?; // No relay says that.
    /// assert!(ann.has_failed());
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.session.is_none() || self.progress.integrity.is_some()
    }

    /// Whether a session is open.
    ///
    /// ```
    /// # use fieldkeep_device::Input;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// ann.handle(0, Input::Connected)?;
    /// assert!(!ann.is_online()); // The relay has not answered.
    /// wire.relay(&mut ann)?;
    /// assert!(ann.is_online());
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.phase() == Phase::Open)
    }

    /// Whether the relay has answered the offer of the session that is open, or was open last.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.relay(&mut ann)?;
    /// ann.forget_relay();
    /// assert!(ann.is_answered() && !ann.is_online()); // It was, the last time.
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.progress.offered
    }

    /// Once the relay has answered: its epoch, how many entries the membership log has here, and
    /// [`Progress::removals`].
    pub(crate) fn removals_told(&self) -> Option<(Epoch, u64, u64)> {
        let told = self.progress.removals.filter(|_| self.progress.offered)?;
        Some((self.replica.epoch(), self.replica.members().len(), told))
    }

    /// Whether a segment is not proven equal on this connection.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let orders = *ann.replica().segments().keys().next().expect("it has written one");
    /// wire.relay(&mut ann)?;
    /// assert!(!ann.is_open(&orders)); // Proven equal to the relay's.
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn is_open(&self, id: &SegmentId) -> bool {
        self.open.contains_key(id)
    }

    /// The connection to the relay is gone. Nothing is lost with it.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.relay(&mut ann)?;
    /// ann.forget_relay();
    /// assert!(!ann.is_online());
    /// # Ok(()) });
    /// ```
    pub fn forget_relay(&mut self) {
        self.disconnected();
    }

    /// Takes an input in. Nothing leaves before [`Engine::commit`].
    ///
    /// ```
    /// # use fieldkeep_device::Input;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let now = 1_767_225_600_000; // Whoever calls reads the clock.
    /// ann.handle(now, Input::Connected)?;
    /// let said = ann.commit()?;
    /// assert!(!said.is_empty());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the store fails.
    pub fn handle(&mut self, now: i64, input: Input) -> Result<(), ReplicaError> {
        self.now = now;
        match input {
            Input::Connected => self.connected()?,
            Input::Bytes(stream, bytes) => self.bytes(stream, &bytes)?,
            Input::Finished(stream) => {
                let finished = self.session.as_mut().map(|session| session.finished(stream));
                if let Some(Err(violation)) = finished {
                    self.close(violation.code(), &violation.to_string());
                }
            }
            Input::Closed => self.disconnected(),
            Input::Peer(id, input) => self.peer(id, input)?,
        }
        Ok(())
    }

    /// Makes everything durable, and returns what may leave: receipts of what is on the disk now,
    /// and the changes that were written since.
    ///
    /// ```
    /// # use fieldkeep_device::{Input, Output};
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// ann.handle(0, Input::Connected)?;
    /// let sends = |output: &Output| matches!(output, Output::Send { .. });
    /// assert!(ann.commit()?.iter().all(sends)); // Everything that may leave,
    /// assert!(ann.commit()?.is_empty()); // and each of it once.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk refuses: nothing of it was saved or leaves, and the connection is closed.
    pub fn commit(&mut self) -> Result<Vec<Output>, ReplicaError> {
        if let Err(error) = self.replica.commit() {
            self.outputs.clear();
            self.credits.clear();
            self.changed.clear();
            self.recall_pauses()?;
            self.close(Code::Storage, &error.to_string());
            self.close_peers(&error.to_string());
            return Err(error.into());
        }
        if self.is_online() {
            for (segment, pos) in std::mem::take(&mut self.credits) {
                self.control(&Frame::Credit(frame::Credit { segment, pos }));
            }
            self.push_outgoing()?;
            self.report()?;
        }
        self.attend_peers()?;
        let changed = std::mem::take(&mut self.changed);
        if !changed.is_empty() {
            self.outputs.push(Output::Changed(changed.into_iter().collect()));
        }
        Ok(std::mem::take(&mut self.outputs))
    }

    /// After a failure: nothing since the last commit is kept, and the session is over.
    ///
    /// ```
    /// # use fieldkeep_model::Edit;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let edit = vec![Edit::Add("boxes".into(), 1)].into();
    /// ann.replica_mut().put(&"order/o2".parse()?, &edit, 0)?;
    /// ann.give_up()?;
    /// assert!(ann.replica().views().record(&"order/o2".parse()?)?.is_none());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the store cannot be read either.
    pub fn give_up(&mut self) -> Result<(), ReplicaError> {
        self.outputs.clear();
        self.changed.clear();
        self.disconnected();
        self.peers.clear();
        self.replica.forget()?;
        Ok(self.recall_pauses()?)
    }

    /// Merges a slice of what was received and is not merged, or looks again at a slice of what a new
    /// catalog puts in question. Returns whether there was any; a commit must follow.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.relay(&mut ann)?;
    /// assert!(!ann.work(0)?); // Everything that came is merged.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the store fails.
    pub fn work(&mut self, now: i64) -> Result<bool, ReplicaError> {
        self.now = now;
        let Some(id) = self.replica.behind().first().copied() else { return self.renew() };
        match self.replica.materialise(&id, 4_096) {
            Ok(done) => {
                self.note_changed(&id, done.records);
                self.take_early(&id)?;
            }
            Err(error) if error.is_damage() => tracing::error!(%error, "everything else goes on"),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn renew(&mut self) -> Result<bool, ReplicaError> {
        let Some(renewed) = self.replica.renew(RENEWED)? else { return Ok(false) };
        self.note_changed(&renewed.segment, renewed.records);
        Ok(true)
    }

    fn connected(&mut self) -> Result<(), ReplicaError> {
        let mut session = Session::new(Role::Device);
        session.enter(Phase::Opening);
        self.session = Some(session);
        self.open.clear();
        self.pushed.clear();
        self.sent_again.clear();
        self.nothing_under_way();
        self.verified.clear();
        self.witnessed.clear();
        self.shown = 0;
        self.parked.clear();
        self.early.clear();
        self.progress = Progress::default();
        self.paused = self.stored_pauses()?;
        let hello = self.introduction();
        self.control(&Frame::Hello(Box::new(hello)));
        if self.forgotten {
            return Ok(());
        }
        // There may be room by now: it is tried once a connection.
        self.replica.store_mut().forget_refusals("over-quota")?;
        self.replica.store_mut().forget_refusals("quota")?;
        self.report_first()?;
        self.make_offer()?;
        // A device's own unsaved changes ride with its offer.
        self.push_outgoing()
    }

    fn make_offer(&mut self) -> Result<(), ReplicaError> {
        if !self.paused.is_empty() {
            self.control(&Frame::Mode(self.paused.clone()));
        }
        let offer = self.offer()?;
        // Before the offer, so that the answer to that says that they have arrived.
        self.tell_wishes()?;
        self.control(&Frame::Offer(offer));
        // Behind it, so that the relay knows what is followed here when it tells what they wrote.
        self.tell_calls()
    }

    /// Whether the relay does not know this device: it was restored from a copy that is older than
    /// the enrolment. With the next connection the device brings its entries of the membership log,
    /// and offers after that.
    ///
    /// ```
    /// # use fieldkeep_protocol::Code;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.relay(&mut ann)?;
    /// assert!(!ann.is_forgotten());
    /// ann.ended(Some(Code::NotAMember), "unknown"); // The relay was restored from an old copy.
    /// assert!(ann.is_forgotten());
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.forgotten
    }

    /// Notes with which code the relay closed the connection, where its last frame was lost.
    ///
    /// ```
    /// # use fieldkeep_protocol::Code;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.relay(&mut ann)?;
    /// ann.ended(Some(Code::GoingAway), "the relay stops");
    /// assert_eq!(ann.progress()?.ended, Some((Code::GoingAway, "the relay stops".to_owned())));
    /// # Ok(()) });
    /// ```
    pub fn ended(&mut self, code: Option<Code>, text: &str) {
        let Some(code) = code.filter(|code| *code != Code::Done) else { return };
        self.forgotten |= code == Code::NotAMember;
        self.progress.ended.get_or_insert_with(|| (code, text.to_owned()));
    }

    pub(crate) fn introduction(&self) -> Hello {
        Hello {
            versions: vec![fieldkeep_protocol::VERSION],
            software: concat!("fieldkeep/", env!("CARGO_PKG_VERSION")).to_owned(),
            org: self.replica.org(),
            capabilities: fieldkeep_protocol::capability::RECEIPTS,
            members: self.replica.members().len(),
            members_tip: self.replica.members().tip(),
            members_sum: self.replica.members().sum().to_be_bytes(),
            epoch: self.replica.epoch(),
            catalog: self.replica.published().map_or(0, |published| published.number),
            frame_max: fieldkeep_protocol::FRAME_MAX,
            root: self.root(),
            actor: Some(self.replica.me().actor()),
            removals: None,
        }
    }

    fn root(&self) -> [u8; 16] {
        let rows = self.replica.segments().values();
        let rows = rows.filter(|row| !self.paused.outlives(&row.address));
        let cursors =
            rows.map(|row| (row.id, row.cursor.pos, row.cursor.chain(), row.verdict, row.judged));
        let catalog = self.replica.published().map_or(0, |published| published.number);
        fieldkeep_protocol::root(self.replica.epoch(), catalog, cursors)
    }

    fn offer(&self) -> Result<Offer, ReplicaError> {
        let actor = self.replica.me().actor();
        let mut entries = Vec::new();
        let offered = |row: &&SegmentRow| row.cursor.pos > 0 && !self.paused.covers(&row.address);
        for row in self.replica.segments().values().filter(offered) {
            entries.push(OfferEntry {
                segment: fieldkeep_protocol::offer::short(&row.id.0),
                chain: fieldkeep_protocol::offer::short(&row.cursor.chain),
                pos: row.cursor.pos,
                own_seq: self.replica.store().acknowledged(row.sid, &actor)?,
                verdict: row.verdict,
                judged: row.judged.min(row.cursor.pos),
            });
        }
        Ok(Offer::new(self.replica.epoch(), 1, self.root(), &entries))
    }

    fn note_changed(
        &mut self,
        id: &SegmentId,
        records: impl IntoIterator<Item = fieldkeep_model::RecordId>,
    ) {
        self.may_report();
        let ty = self.replica.segments()[id].address.ty.clone();
        let keys = records.into_iter().map(|record| RecordKey::new(ty.clone(), record));
        self.changed.extend(keys);
    }

    fn control(&mut self, frame: &Frame) {
        self.send(0, fieldkeep_protocol::priority::CONTROL, frame);
    }

    fn send(&mut self, stream: u64, priority: i32, frame: &Frame) {
        tracing::trace!(stream, frame = frame.name(), "sent");
        let bytes = frame.encode();
        self.progress.bytes_sent += bytes.len() as u64;
        self.outputs.push(Output::Send { stream, priority, bytes });
    }

    fn close(&mut self, code: Code, text: &str) {
        if matches!(code, Code::Done | Code::GoingAway) {
            tracing::debug!(text, "the session ends");
        } else {
            tracing::warn!(?code, text, "the session ends");
        }
        self.progress.ended = Some((code, text.to_owned()));
        if self.session.is_some() {
            self.control(&Frame::Error(frame::ErrorFrame { code, text: text.to_owned() }));
            self.outputs.push(Output::Close(code, text.to_owned()));
        }
        self.disconnected();
    }

    fn disconnected(&mut self) {
        self.session = None;
        self.credits.clear();
        self.parked.clear();
        self.early.clear();
        self.asking.clear();
        self.reporting = Reporting::default();
        self.nothing_under_way();
    }
}
