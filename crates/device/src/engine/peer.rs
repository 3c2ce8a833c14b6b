//! Another device on the other end of a connection: what is known of it, and how far the exchange
//! has come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fieldkeep_model::status::LeftOut;
use fieldkeep_model::{ActorId, DeviceNumber, Epoch, Judged, Pos, PublicKey, SegmentId, Seq};
use fieldkeep_protocol::frame::{Frame, Proof};
use fieldkeep_protocol::{Code, Phase, Role, Session};

/// A connection to another device, as the shell numbers it.
///
/// ```
/// # use fieldkeep_device::PeerId;
/// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
/// let first: PeerId = 1; // Each side numbers its connections for itself.
/// wire.meet(&mut ann, &mut ben)?;
/// assert!(ann.peer_progress(first)?.is_some());
/// # Ok(()) });
/// ```
pub type PeerId = u64;

/// What happens on a connection to another device.
///
/// ```
/// # use fieldkeep_device::{Input, PeerInput};
/// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
/// let key = wire.key(&ben); // As the connection proved it.
/// ann.handle(0, Input::Peer(7, PeerInput::Connected { key, introduces: true }))?;
/// assert!(ann.is_meeting(&key));
/// ann.handle(0, Input::Peer(7, PeerInput::Closed))?;
/// assert!(!ann.is_meeting(&key));
/// # Ok(()) });
/// ```
#[derive(Clone, Debug)]
pub enum PeerInput {
    /// It is made.
    Connected {
        /// The key that the other side has proved.
        key: PublicKey,
        /// Whether it is told who this device is though its key is a stranger's. Otherwise it has to
        /// say first that it is of the same organisation.
        introduces: bool,
    },
    /// Bytes of one of its streams.
    Bytes(u64, Vec<u8>),
    /// One of its streams ended.
    Finished(u64),
    /// It is gone.
    Closed,
}

/// What is to be done on a connection to another device.
///
/// ```
/// # use fieldkeep_device::{Input, Output, PeerInput, PeerOutput};
/// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
/// let connected = PeerInput::Connected { key: wire.key(&ben), introduces: true };
/// ann.handle(0, Input::Peer(7, connected))?;
/// assert!(matches!(ann.commit()?[0], Output::Peer(7, PeerOutput::Send(_)))); // Who she is.
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerOutput {
    /// Send bytes on the control stream.
    Send(Vec<u8>),
    /// Close the connection.
    Close(Code, String),
}

/// How far an exchange with another device has come.
///
/// ```
/// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
/// wire.meet(&mut ann, &mut ben)?;
/// let progress = ben.peer_progress(1)?.expect("they are connected");
/// assert_eq!((progress.name.as_deref(), progress.received), (Some("ann"), 1));
/// assert_eq!((progress.open, progress.proven), (0, 1));
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerProgress {
    /// The name of the device, once it is known as a member.
    pub name: Option<String>,
    /// Its member number likewise.
    pub number: Option<DeviceNumber>,
    /// Whether it has said all that it holds.
    pub met: bool,
    /// Whether it is known to have on its disk all that it was told. Its confirmations of changes and
    /// its proof say so, but for what it was told besides: that it has to be asked.
    pub parted: bool,
    /// Changes that it has on its disk now.
    pub sent: u64,
    /// Changes that came from it, and were not here.
    pub received: u64,
    /// Segments that are not proven equal.
    pub open: u64,
    /// Segments that were proven equal.
    pub proven: u64,
    /// Authors of whom both hold different branches, which no relay has decided.
    pub forked: u64,
    /// Bytes of frames that were sent.
    pub bytes_sent: u64,
    /// Bytes of frames that came.
    pub bytes_received: u64,
    /// Why the session ended, if it did.
    pub ended: Option<(Code, String)>,
}

impl PeerProgress {
    /// Whether both hold the same, but for forks that are named.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.meet(&mut ann, &mut ben)?;
    /// assert!(ann.peer_progress(1)?.is_some_and(|progress| progress.complete()));
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn complete(&self) -> bool {
        self.met && self.open == 0 && self.ended.is_none()
    }
}

/// The other device.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) session: Session,
    /// The key that its connection proved.
    pub(super) key: PublicKey,
    /// Whether it is a member, or whom this device was told to call.
    pub(super) trusted: bool,
    /// How many entries of the membership log it holds, in the order in which they are here.
    pub(super) members: u64,
    /// Whether it has got all of a membership log that has branched.
    pub(super) united: bool,
    /// Epoch and number of the catalog that it holds.
    pub(super) catalog: (Epoch, u64),
    /// Whether it was told who this device is.
    pub(super) introduced: bool,
    /// Whether it was told all that is held here.
    pub(super) told: bool,
    /// Whether it has told all that it holds.
    pub(super) met: bool,
    pub(super) shared: BTreeMap<SegmentId, Shared>,
    /// The types of which it exchanges nothing.
    pub(super) paused: Option<LeftOut>,
    /// Segments that it has and that have not come yet.
    pub(super) expected: BTreeSet<SegmentId>,
    /// Bytes of changes that were sent and are not confirmed.
    pub(super) in_flight: u64,
    /// Whether it was told something besides changes, no change after that is confirmed, and it has not
    /// been heard to have it.
    pub(super) stated: Stated,
    /// Whether it was told something since it was heard last, which a close might swallow.
    pub(super) unheard: bool,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    /// Whether it was told that everything was said, and whether it has said so.
    pub(super) parting: bool,
    pub(super) parted: bool,
    pub(super) ended: Option<(Code, String)>,
    /// The gate's code for what it brought last and was refused.
    pub(super) refused: Option<&'static str>,
}

/// Whether a peer has on its disk what it was told besides changes. Frames are taken in order: who
/// confirms a change has all that was said before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stated {
    /// It has, or there is nothing.
    Durable,
    /// It will have once changes are confirmed that were sent later.
    Covered,
    /// It has to be asked.
    Open,
}

/// A segment that both may hold.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// By actor the newest change that it holds; `None` until that can be told.
    pub(super) known: Option<BTreeMap<ActorId, Seq>>,
    /// Through which position of the relay's log, as it is known here, it holds everything.
    pub(super) place: Option<(Epoch, Pos)>,
    /// Whether it was told what is held here.
    pub(super) told: bool,
    /// Whether it was told a whole version vector.
    pub(super) told_vector: bool,
    /// Whether its place in the relay's log is another one: its version vector comes.
    pub(super) waits_for_vector: bool,
    /// How often it was told one again, because something did not fit.
    pub(super) told_again: u32,
    /// Through which position of the log here everything that it lacks was sent.
    pub(super) sent: Pos,
    /// What is on its way: how many changes and bytes, frame by frame.
    pub(super) in_flight: VecDeque<(u64, u64)>,
    /// How many changes were sent, and how many of them it has on its disk.
    pub(super) given: u64,
    pub(super) confirmed: u64,
    /// How many changes came from it, and how many of them it was told to be durable.
    pub(super) taken: u64,
    pub(super) credited: u64,
    /// How far it has the relay's verdicts, and how far it was told that they are here.
    pub(super) judged: Option<Judged>,
    pub(super) judged_told: Option<Judged>,
    /// The receipts that it was told.
    pub(super) receipts: BTreeMap<ActorId, (Epoch, Seq)>,
    /// What it last said of what it holds.
    pub(super) proof: Option<Proof>,
    /// At which end of the log here it was told what is held.
    pub(super) proved: Option<Pos>,
    /// At which end of the log here both were found equal.
    pub(super) agreed: Option<Pos>,
    /// Actors of whom it holds another branch, or one lies aside here.
    pub(super) forked: BTreeSet<ActorId>,
    /// How far those branches reach that it has named.
    pub(super) branches: BTreeMap<ActorId, Seq>,
    /// Those of them whose changes were all sent.
    pub(super) branches_sent: BTreeSet<ActorId>,
    /// Log end, verdict and judged position when it was attended to last.
    pub(super) seen: Option<(Pos, u64, Pos)>,
}

impl Peer {
    pub(super) fn new(key: PublicKey, trusted: bool) -> Self {
        Self {
            session: Session::new(Role::Peer),
            key,
            trusted,
            members: 0,
            united: false,
            catalog: (Epoch::default(), 0),
            introduced: false,
            told: false,
            met: false,
            shared: BTreeMap::new(),
            paused: None,
            expected: BTreeSet::new(),
            in_flight: 0,
            stated: Stated::Durable,
            unheard: false,
            sent: 0,
            received: 0,
            bytes_sent: 0,
            bytes_received: 0,
            parting: false,
            parted: false,
            ended: None,
            refused: None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.session.phase() == Phase::Open
    }

    /// Notes that so many changes of a segment are on its disk.
    pub(super) fn confirm(&mut self, segment: &SegmentId, changes: u64) {
        let Some(shared) = self.shared.get_mut(segment) else { return };
        let confirmed = changes.min(shared.given);
        self.sent += confirmed.saturating_sub(shared.confirmed);
        shared.confirmed = confirmed.max(shared.confirmed);
        while let Some((last, bytes)) = shared.in_flight.front().copied() {
            if last > shared.confirmed {
                break;
            }
            shared.in_flight.pop_front();
            self.in_flight -= bytes;
        }
        if self.in_flight == 0 && self.stated == Stated::Covered {
            self.stated = Stated::Durable;
        }
    }

    /// Notes that it is told something.
    pub(super) fn tells(&mut self, frame: &Frame) {
        self.unheard = true;
        match (frame, self.stated) {
            (Frame::Members(_) | Frame::Catalog(_) | Frame::Verdicts(_) | Frame::Receipt(_), _) => {
                self.stated = Stated::Open;
            }
            (Frame::Push(_), Stated::Open) => self.stated = Stated::Covered,
            _ => {}
        }
    }

    /// Whether it is known to have on its disk all that it was told.
    pub(super) fn has_all(&self) -> bool {
        let durable = self.in_flight == 0 && self.stated == Stated::Durable;
        self.parted || (durable && !self.unheard)
    }
}

impl Shared {
    /// Whether it holds a change of the branch that is in the log here.
    pub(super) fn knows(&self, actor: &ActorId, seq: Seq) -> bool {
        let known = self.known.as_ref().and_then(|known| known.get(actor));
        known.is_some_and(|known| seq <= *known)
    }

    /// Notes that it holds a change.
    pub(super) fn learn(&mut self, actor: ActorId, seq: Seq) {
        let newest = self.known.get_or_insert_default().entry(actor).or_default();
        *newest = seq.max(*newest);
    }

    /// Notes that it holds another branch of an actor: all of that actor's changes are to be sent.
    pub(super) fn part(&mut self, actor: ActorId) {
        self.forked.insert(actor);
        if self.branches_sent.insert(actor) {
            self.known.get_or_insert_default().remove(&actor);
            self.sent = 0;
        }
    }
}
