//! Syncing: one connection to the relay, until everything is proven equal or for as long as it
//! lasts; one such session at a time.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fieldkeep_link::{
    Backlog, BindError, ClosedReason, Connection, DialError, Endpoint, Event, Receiver, Role,
    Sender,
};
use fieldkeep_model::{KeyPair, PublicKey};
use fieldkeep_protocol::{Code, Phase};
use fieldkeep_replica::{Integrity, ReplicaError};
use fieldkeep_store::{Blobs as _, StoreError};
use tokio::sync::{MutexGuard, mpsc};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::device::{Device, now};
use crate::engine::{Input, Output, PeerId, PeerInput, PeerOutput, Progress};
use crate::files::FilesSynced;
use crate::reach::{NO_NETWORK, ReachError, reach};
use crate::status::Strip;

/// What a sync came to.
///
/// ```
/// # use fieldkeep_model::Edit;
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// device.edit(&"order/o1".parse()?, vec![Edit::Add("boxes".into(), 1)])?;
/// let report = device.sync(Duration::from_secs(60)).await?;
/// assert_eq!((report.sent, report.received, report.refused), (1, 0, 0));
/// assert_eq!((report.proven, report.held), (2, 1)); // Customers and orders; one is held.
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Changes that the relay gave a receipt for.
    pub sent: u64,
    /// Changes that came from the relay and were applied; its receipts of own ones left out.
    pub received: u64,
    /// Changes that the relay did not take; they stay here.
    pub refused: u64,
    /// Segments that were proven equal.
    pub proven: u64,
    /// Held records here.
    pub held: u64,
    /// What became of attached files.
    pub files: FilesSynced,
    /// Bytes of frames that were sent.
    pub bytes_sent: u64,
    /// Bytes of frames that came.
    pub bytes_received: u64,
}

/// Why a sync did not end well. What was captured is safe on the device in every case.
///
/// ```
/// # use fieldkeep_device::SyncError;
/// # use serde_json::json;
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// device.save(&"customer/c2".parse()?, &json!({"name": "Pier"}))?;
/// let synced = device.sync(Duration::ZERO).await; // There is no time to reach anybody.
/// assert!(matches!(synced, Err(SyncError::Offline(_) | SyncError::Timeout(..))));
/// assert!(device.get(&"customer/c2".parse()?)?.is_some_and(|customer| customer.unsaved));
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The relay was not reached.
    #[error(
        "the relay was not reached ({0}); everything is safe on this device: try again when there is a signal"
    )]
    Offline(String),
    /// Somebody else than the relay answers at the address.
    #[error(
        "somebody else than the relay answers at {0}: nothing was exchanged; everything is safe on this device"
    )]
    Another(SocketAddr),
    /// The relay's address is not known.
    #[error("no address of the relay is known here: join again with a ticket that has one")]
    NoAddress,
    /// The relay refused the device.
    #[error("the relay refused this device ({0}); everything is safe on this device")]
    Denied(String),
    /// The device was revoked.
    #[error("{0}; everything that was captured here is still on this device")]
    Revoked(String),
    /// The connection ended before everything was exchanged.
    #[error(
        "the connection ended ({0}); what has a receipt is safe on the relay, the rest on this device"
    )]
    Cut(String),
    /// It took too long.
    #[error("not everything was exchanged within {0} s ({1}); nothing is lost")]
    Timeout(u64, String),
    /// A proof was not equal.
    #[error("{0}; they were derived again from the changes, which the next sync proves")]
    Integrity(Integrity),
    /// This end cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The store failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl SyncError {
    /// Whether trying again is of no use before somebody has done something about it.
    ///
    /// ```
    /// # use fieldkeep_device::SyncError;
    /// assert!(!SyncError::Offline("no route".into()).is_permanent());
    /// assert!(SyncError::Revoked("this device was revoked".into()).is_permanent());
    /// ```
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NoAddress | Self::Denied(_) | Self::Revoked(_) => true,
            Self::Offline(_)
            | Self::Another(_)
            | Self::Cut(_)
            | Self::Timeout(..)
            | Self::Integrity(_)
            | Self::Bind(_)
            | Self::Replica(_) => false,
        }
    }
}

impl From<StoreError> for SyncError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

/// Who is on the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    Relay,
    Peer(PeerId),
}

impl Way {
    fn connected(self, key: PublicKey, opening: Opening) -> Input {
        let introduces = opening == Opening::Calls;
        match self {
            Self::Relay => Input::Connected,
            Self::Peer(id) => Input::Peer(id, PeerInput::Connected { key, introduces }),
        }
    }

    fn bytes(self, stream: u64, bytes: Vec<u8>) -> Input {
        match self {
            Self::Relay => Input::Bytes(stream, bytes),
            Self::Peer(id) => Input::Peer(id, PeerInput::Bytes(stream, bytes)),
        }
    }

    fn finished(self, stream: u64) -> Input {
        match self {
            Self::Relay => Input::Finished(stream),
            Self::Peer(id) => Input::Peer(id, PeerInput::Finished(stream)),
        }
    }

    fn closed(self) -> Input {
        match self {
            Self::Relay => Input::Closed,
            Self::Peer(id) => Input::Peer(id, PeerInput::Closed),
        }
    }
}

/// How a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// This side calls whom it was told to call, and says who it is.
    Calls,
    /// This side calls whom it has found: a stranger says first who it is.
    Approaches,
    /// This side is called: a stranger says first who it is.
    Answers,
}

/// How long a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Until everything is exchanged and proven.
    Complete,
    /// For as long as the connection lasts.
    Cut,
}

/// How a session stands.
enum Standing {
    UnderWay,
    Complete,
    Failed,
}

/// How long who calls, or was found, may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(3);
/// How long anybody may take to show that it is a member.
const BELONGS: Duration = Duration::from_secs(10);
/// Addresses of the relay that are remembered.
const RELAYS: usize = 8;
/// How long the relay has to hear the last that is said to it: it keeps it, and nothing is lost otherwise.
const GOODBYE: Duration = Duration::from_secs(1);
/// What may wait to be sent before the other side counts as one that does not read, in bytes.
const BACKLOG: usize = 8 * 1024 * 1024;

/// How a session ended.
pub(crate) enum Ended {
    Complete,
    Closed(String),
}

/// How a session ended that was to last.
pub(crate) enum Parting {
    /// Somebody else wants one, or the relay has to be told anew who this is.
    Again,
    /// One of both ended it as agreed.
    Done,
    /// The relay stops for a while, and asks to be called again after that time.
    Away(Duration),
    /// The connection was lost.
    Lost(String),
}

/// The right to have a session with the relay. Who gives it back in the middle of one, because he was
/// stopped, leaves nothing of it behind.
pub(crate) struct Turn<'d> {
    device: &'d Device,
    _turn: MutexGuard<'d, ()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let inner = &self.device.0;
        inner.cut(Way::Relay);
        self.device.engine().forget_relay();
        let over = matches!(inner.strip(), Strip::Connecting | Strip::Online { .. });
        if over && inner.kept.load(Ordering::Relaxed) == 0 {
            self.device.show(Strip::Offline);
        }
    }
}

impl Device {
    /// Syncs until everything is exchanged, judged and proven equal.
    ///
    /// ```
    /// # use fieldkeep_model::Edit;
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// device.put(&"order/o1".parse()?, &vec![Edit::Add("boxes".into(), 1)].into())?;
    /// let report = device.sync(Duration::from_secs(60)).await?;
    /// assert_eq!((report.sent, report.held), (1, 1));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`SyncError`]; nothing is lost in any case.
    pub async fn sync(&self, timeout: Duration) -> Result<SyncReport, SyncError> {
        let wanting = self.0.want_turn();
        let _turn = self.turn().await;
        drop(wanting);
        self.show(Strip::Connecting);
        let synced = match self.synced(timeout).await {
            Ok(first) if self.is_to_move()? => self.moved(first, timeout).await,
            other => other,
        };
        if let Err(error) = &synced {
            self.failed(error, None);
        }
        synced
    }

    /// Syncs a copy, which stays in the generations that it is of.
    pub(crate) async fn synced_alone(&self, timeout: Duration) -> Result<SyncReport, SyncError> {
        let _turn = self.turn().await;
        self.show(Strip::Connecting);
        self.synced(timeout).await
    }

    /// Moves on to new generations after a sync, and proves them.
    async fn moved(&self, first: SyncReport, timeout: Duration) -> Result<SyncReport, SyncError> {
        self.move_on(timeout).await?;
        let SyncReport { sent, received, bytes_sent, bytes_received, .. } = first;
        let proven = self.sync_once(timeout).await?;
        Ok(SyncReport {
            sent: sent + proven.sent,
            received: received + proven.received,
            bytes_sent: bytes_sent + proven.bytes_sent,
            bytes_received: bytes_received + proven.bytes_received,
            ..proven
        })
    }

    /// Syncs, once more where the first session had to begin anew. The caller has the turn.
    pub(crate) async fn synced(&self, timeout: Duration) -> Result<SyncReport, SyncError> {
        match self.sync_once(timeout).await {
            // The relay may have forgotten this device: the second time it brings its enrolment.
            Err(SyncError::Denied(_)) if self.engine().is_forgotten() => {
                self.sync_once(timeout).await
            }
            // What is exchanged has changed meanwhile: the session begins anew.
            Err(SyncError::Cut(_)) if self.has_ended_it()? => self.sync_once(timeout).await,
            other => other,
        }
    }

    /// Whether this device ended the last session itself, as agreed.
    fn has_ended_it(&self) -> Result<bool, SyncError> {
        Ok(self.engine().progress()?.ended.is_some_and(|(code, _)| code == Code::Done))
    }

    /// Waits until nobody else has a session with the relay.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        Turn { device: self, _turn: self.0.turn.lock().await }
    }

    pub(crate) async fn sync_once(&self, timeout: Duration) -> Result<SyncReport, SyncError> {
        let until = Instant::now() + timeout;
        let (_endpoint, connection) = within(timeout, self.dial()).await?;
        let session = self.session(connection, Way::Relay, Opening::Calls, Until::Complete);
        let ended = match timeout_at(until, session).await {
            Ok(ended) => ended?,
            Err(_) => {
                self.disconnect(Way::Relay).await?;
                let progress = self.engine().progress()?;
                let [files, refused] = self.engine().replica().store().upload_counts()?;
                let text = format!(
                    "changes to send: {}, files: {}, segments open: {}",
                    progress.waiting,
                    files - refused,
                    progress.open
                );
                return Err(SyncError::Timeout(timeout.as_secs(), text));
            }
        };
        let progress = self.engine().progress()?;
        self.disconnect(Way::Relay).await?;
        if let Some(wrong) = progress.integrity {
            self.mend()?;
            return Err(SyncError::Integrity(wrong));
        }
        match (ended, progress.ended) {
            (Ended::Complete, _) => {}
            (Ended::Closed(_), Some((Code::GoingAway, text))) => {
                let back = progress.back_ms.unwrap_or_default().div_ceil(1_000);
                let text = match back {
                    0 => text,
                    _ => format!(
                        "{text}, for {back} s: it stops, or this device brought more than its share"
                    ),
                };
                return Err(refusal(Code::GoingAway, text));
            }
            (Ended::Closed(_), Some((code, text))) => return Err(refusal(code, text)),
            (Ended::Closed(text), None) => return Err(SyncError::Cut(text)),
        }
        if let Some(wrong) = self.mend()? {
            return Err(SyncError::Integrity(wrong));
        }
        let progress = self.engine().progress()?;
        self.report(&progress)
    }

    /// One session for as long as the connection lasts; changes go both ways as they happen. `met` tells
    /// whether the relay has answered in it.
    ///
    /// # Errors
    /// When the relay is not reached or refuses.
    pub(crate) async fn session_until_cut(&self, met: &mut bool) -> Result<Parting, SyncError> {
        let (_endpoint, connection) = self.dial().await?;
        let forgotten = self.engine().is_forgotten();
        let ended = self.session(connection, Way::Relay, Opening::Calls, Until::Cut).await;
        *met = self.engine().is_answered();
        let ended = ended?;
        let progress = self.engine().progress()?;
        self.disconnect(Way::Relay).await?;
        if let Some(wrong) = progress.integrity {
            self.mend()?;
            return Err(SyncError::Integrity(wrong));
        }
        match (ended, progress.ended) {
            (_, Some((Code::Done, _))) | (Ended::Complete, None) => Ok(Parting::Done),
            // Where it was told in this session already, it does not take it.
            (_, Some((Code::NotAMember, _))) if !forgotten => Ok(Parting::Again),
            (_, Some((Code::GoingAway, _))) => {
                Ok(Parting::Away(Duration::from_millis(progress.back_ms.unwrap_or_default())))
            }
            (_, Some((code, text))) => Err(refusal(code, text)),
            (Ended::Closed(text), None) => Ok(Parting::Lost(text)),
        }
    }

    /// Learns where the relay is: once it has proved its key there, that address is tried first from
    /// then on, and those that were known before after it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let address = device.remote()?.addresses[0];
    /// device.learn_relay(address, Duration::from_secs(60)).await?; // It answered, under its key.
    /// let closed = "127.0.0.1:9".parse()?;
    /// assert!(device.learn_relay(closed, Duration::from_millis(100)).await.is_err());
    /// assert_eq!(device.remote()?.addresses, [address]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the relay does not answer there in time, or somebody else does; nothing is remembered
    /// then.
    pub async fn learn_relay(
        &self,
        address: SocketAddr,
        timeout: Duration,
    ) -> Result<(), SyncError> {
        let remote = self.remote()?;
        within(timeout, self.dial_at(&[address], &remote.key, &self.0.seed.tls())).await?;
        let known = remote.addresses.into_iter().filter(|known| *known != address);
        let addresses: Vec<SocketAddr> = [address].into_iter().chain(known).take(RELAYS).collect();
        Ok(self.set_relays(&addresses)?)
    }

    /// Ends the connection that is open, if there is one; whoever waits on it is told, and who keeps
    /// this device synced makes another. Returns whether there was one.
    ///
    /// ```
    /// # use fieldkeep_device::{Event, Strip};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// assert!(!device.hang_up()); // There is no connection.
    /// # let mut events = device.watch();
    /// # let keeping = device.clone();
    /// let keeping = tokio::spawn(async move { keeping.keep_synced().await });
    /// while events.recv().await? != Event::Strip(Strip::Online { syncing: false }) {}
    /// assert!(device.hang_up()); // `keep_synced` makes another.
    /// keeping.abort();
    /// # Ok(()) });
    /// ```
    pub fn hang_up(&self) -> bool {
        self.0.close_connection(Code::Done, "the device ends the session")
    }

    /// Whether a session with the relay is open.
    ///
    /// ```
    /// # use fieldkeep_device::{Event, Strip};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// assert!(!device.is_online());
    /// # let mut events = device.watch();
    /// # let keeping = device.clone();
    /// let keeping = tokio::spawn(async move { keeping.keep_synced().await });
    /// while events.recv().await? != Event::Strip(Strip::Online { syncing: false }) {}
    /// assert!(device.is_online());
    /// keeping.abort();
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.engine().is_online()
    }

    /// How far the present connection has come, or the last one came.
    ///
    /// ```
    /// # use fieldkeep_model::Edit;
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// device.edit(&"order/o1".parse()?, vec![Edit::Add("boxes".into(), 1)])?;
    /// assert_eq!(device.progress()?.waiting, 1);
    /// device.sync(Duration::from_secs(60)).await?;
    /// assert_eq!((device.progress()?.sent, device.progress()?.waiting), (1, 0));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn progress(&self) -> Result<Progress, ReplicaError> {
        self.engine().progress()
    }

    fn report(&self, progress: &Progress) -> Result<SyncReport, SyncError> {
        use fieldkeep_store::Records as _;
        let (held, _) = self.engine().replica().store().attention_counts()?;
        let Progress { sent, received, refused, proven, bytes_sent, bytes_received, .. } =
            *progress;
        let files = self.files_synced()?;
        Ok(SyncReport { sent, received, refused, proven, held, files, bytes_sent, bytes_received })
    }

    /// Checks every stored row; what is wrong is derived again, and told.
    fn mend(&self) -> Result<Option<Integrity>, ReplicaError> {
        let mut engine = self.engine();
        let ids: Vec<_> = engine.replica().segments().keys().copied().collect();
        let mut found = None;
        for id in ids {
            if let Some(wrong) = engine.replica().verify(&id)? {
                engine.replica_mut().doubt(&id);
                if matches!(wrong, Integrity::Records(_)) {
                    engine.replica_mut().derive_again(&id)?;
                }
                found = Some(wrong);
            }
        }
        let outputs = engine.commit()?;
        self.0.deliver(&engine, outputs);
        Ok(found)
    }

    pub(crate) async fn dial(&self) -> Result<(Endpoint, Connection), SyncError> {
        self.dial_under(&self.0.seed.tls()).await
    }

    /// Dials under a key of this device that may not be the present one.
    pub(crate) async fn dial_under(
        &self,
        tls: &KeyPair,
    ) -> Result<(Endpoint, Connection), SyncError> {
        let remote = self.remote()?;
        self.dial_at(&remote.addresses, &remote.key, tls).await
    }

    async fn dial_at(
        &self,
        addresses: &[SocketAddr],
        key: &PublicKey,
        tls: &KeyPair,
    ) -> Result<(Endpoint, Connection), SyncError> {
        let (reached, key) = match reach(addresses, Some(key), tls).await {
            Err(ReachError::Dial(DialError::WrongKey { address, presented, .. }))
                if self.is_relay_still(address, &presented).await? =>
            {
                (reach(&[address], Some(&presented), tls).await, presented)
            }
            reached => (reached, *key),
        };
        if reached.is_ok() {
            self.note_met(&key)?;
        }
        reached.map_err(|error| match error {
            ReachError::NoAddress => SyncError::NoAddress,
            ReachError::NoNetwork => SyncError::Offline(NO_NETWORK.to_owned()),
            ReachError::Bind(error) => error.into(),
            ReachError::Dial(DialError::WrongKey { address, .. }) => SyncError::Another(address),
            ReachError::Dial(error) => SyncError::Offline(error.to_string()),
        })
    }

    /// Carries a connection's bytes to the engine and back, until it is done or over, and files beside
    /// them.
    pub(crate) async fn session(
        &self,
        connection: Connection,
        way: Way,
        opening: Opening,
        until: Until,
    ) -> Result<Ended, SyncError> {
        let key = connection.peer();
        let role = if opening == Opening::Answers { Role::Acceptor } else { Role::Dialer };
        let (sender, receiver) = connection.carry(role);
        // Both in one task: whoever drops the session leaves nothing of it behind.
        tokio::select! {
            biased;
            ended = self.talk((sender.clone(), receiver), key, way, opening, until) => ended,
            never = self.exchange_files(way, &sender) => match never {},
        }
    }

    async fn talk(
        &self,
        (sender, mut receiver): (Sender, Receiver),
        key: PublicKey,
        way: Way,
        opening: Opening,
        until: Until,
    ) -> Result<Ended, SyncError> {
        let mut files = self.0.transfers.ended();
        let mut backlog = Backlog::new(sender);
        let (outputs, mut outgoing) = mpsc::unbounded_channel();
        let session = self.0.connect(way, outputs);
        if way == Way::Relay {
            self.0.transfers.tell(None);
        }
        self.step(session, vec![way.connected(key, opening)]).await?;
        let began = Instant::now();
        let first = if opening == Opening::Calls { BELONGS } else { INTRODUCTION };
        let doubt = sleep_until(began + first);
        tokio::pin!(doubt);
        let mut doubted = way != Way::Relay;
        loop {
            while let Ok(output) = outgoing.try_recv() {
                send(&mut backlog, output);
            }
            if backlog.queued() > BACKLOG {
                backlog.close(Code::Busy.number(), "too much waits to be read");
            }
            let mut inputs = Vec::new();
            let (mut closed, mut went) = (None, false);
            let working = self.engine().has_work();
            tokio::select! {
                biased;
                output = outgoing.recv() => {
                    output.into_iter().for_each(|output| send(&mut backlog, output));
                    continue;
                }
                event = receiver.recv() => closed = take(way, event, &mut backlog, &mut inputs),
                () = std::future::ready(()), if working => {}
                _ = files.changed(), if until == Until::Complete => went = true,
                () = &mut doubt, if doubted => {
                    let waited = began.elapsed();
                    doubted = waited < BELONGS;
                    doubt.as_mut().reset(began + BELONGS);
                    if let Some((code, text)) = self.doubt(way, waited) {
                        doubted = false;
                        backlog.close(code.number(), text);
                    }
                }
            }
            while closed.is_none() && inputs.len() < 4_096 {
                tokio::select! {
                    biased;
                    event = receiver.recv() => closed = take(way, event, &mut backlog, &mut inputs),
                    () = std::future::ready(()) => break,
                }
            }
            let idle = inputs.is_empty();
            if !idle {
                self.step(session, inputs).await?;
            }
            if idle && working && closed.is_none() {
                self.work().await?;
            }
            if let Some(ClosedReason { code, text, .. }) = closed {
                let code = code.and_then(Code::from_number);
                match way {
                    Way::Relay => self.engine().ended(code, &text),
                    Way::Peer(id) => self.engine().peer_ended(id, code, &text),
                }
                return Ok(Ended::Closed(text));
            }
            if way == Way::Relay {
                self.look()?;
                self.0.transfers.tell(self.engine().removals_told());
            }
            match self.standing(way, until)? {
                Standing::UnderWay => {}
                // Files go last, and a sync is not done before.
                Standing::Complete if self.has_files_to_exchange(way)? => {
                    // What has just come may let one go that could not before. Whoever exchanges them
                    // knows himself that one went; to have him look would bring him back here at once.
                    if !(went && idle) {
                        self.0.transfers.look();
                    }
                }
                Standing::Complete => {
                    let mut told = false;
                    while let Ok(output) = outgoing.try_recv() {
                        told = true;
                        send(&mut backlog, output);
                    }
                    if told && way == Way::Relay {
                        hang_up(&mut backlog, &mut receiver).await;
                    }
                    finish(backlog, receiver).await;
                    return Ok(Ended::Complete);
                }
                Standing::Failed => {
                    // The other side is told why.
                    while let Ok(output) = outgoing.try_recv() {
                        send(&mut backlog, output);
                    }
                    finish(backlog, receiver).await;
                    return Ok(Ended::Closed("this device ended the session".into()));
                }
            }
        }
    }

    /// Why a peer is waited for no longer, that had so long to show that it belongs here.
    fn doubt(&self, way: Way, waited: Duration) -> Option<(Code, &'static str)> {
        let Way::Peer(id) = way else { return None };
        match self.engine().phase_with(id)? {
            Phase::Opening => Some((Code::OutOfOrder, "no introduction came in time")),
            Phase::Stranger if waited >= BELONGS => {
                Some((Code::NotAMember, "nothing showed in time that who calls is a member"))
            }
            Phase::Stranger | Phase::Open | Phase::Closed => None,
        }
    }

    fn standing(&self, way: Way, until: Until) -> Result<Standing, ReplicaError> {
        let mut engine = self.engine();
        let wanted = until == Until::Complete;
        let (failed, complete) = match way {
            Way::Relay => {
                let may_be = wanted && engine.may_be_complete();
                (engine.has_failed(), may_be && engine.progress()?.complete())
            }
            Way::Peer(id) => {
                let may_be = wanted && engine.may_be_equal(id);
                let progress = if may_be { engine.peer_progress(id)? } else { None };
                let complete = progress.filter(|progress| progress.complete());
                if complete.as_ref().is_some_and(|progress| !progress.parted) {
                    engine.part_from(id);
                    let outputs = engine.commit()?;
                    self.0.deliver(&engine, outputs);
                }
                (engine.has_parted(id), complete.is_some_and(|progress| progress.parted))
            }
        };
        Ok(match (failed, complete) {
            (true, _) => Standing::Failed,
            (false, true) => Standing::Complete,
            (false, false) => Standing::UnderWay,
        })
    }

    /// Takes inputs into one commit, off the async threads.
    async fn step(&self, session: u64, inputs: Vec<Input>) -> Result<(), SyncError> {
        let device = self.clone();
        off(move || {
            let mut engine = device.engine();
            let now = now();
            let awaits = |input: &Input| device.0.awaits(session, input);
            let mut awaited = inputs.into_iter().filter(awaits);
            let taken = awaited.try_for_each(|input| engine.handle(now, input));
            if let Err(error) = taken {
                engine.give_up()?;
                return Err(error);
            }
            let outputs = engine.commit()?;
            device.0.deliver(&engine, outputs);
            Ok(())
        })
        .await
    }

    async fn work(&self) -> Result<(), SyncError> {
        let device = self.clone();
        off(move || {
            let mut engine = device.engine();
            if let Err(error) = engine.work(now()) {
                engine.give_up()?;
                return Err(error);
            }
            let outputs = engine.commit()?;
            device.0.deliver(&engine, outputs);
            Ok(())
        })
        .await
    }

    pub(crate) async fn disconnect(&self, way: Way) -> Result<(), SyncError> {
        self.0.cut(way);
        self.step(0, vec![way.closed()]).await
    }
}

/// Dials for so long.
async fn within<T>(
    timeout: Duration,
    dial: impl Future<Output = Result<T, SyncError>>,
) -> Result<T, SyncError> {
    let dialled = tokio::time::timeout(timeout, dial).await;
    dialled.unwrap_or_else(|_| {
        let text = format!("nobody answered within {} s", timeout.as_secs_f32());
        Err(SyncError::Offline(text))
    })
}

pub(crate) async fn off<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, ReplicaError> + Send + 'static,
) -> Result<T, SyncError> {
    match tokio::task::spawn_blocking(act).await {
        Ok(result) => Ok(result?),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(SyncError::Cut(error.to_string())),
        },
    }
}

fn send(backlog: &mut Backlog, output: Output) {
    match output {
        Output::Send { stream, priority, bytes } => {
            backlog.send(stream, priority, Bytes::from(bytes));
        }
        Output::Peer(_, PeerOutput::Send(bytes)) => {
            backlog.send(0, fieldkeep_protocol::priority::CONTROL, Bytes::from(bytes));
        }
        Output::Close(code, text) | Output::Peer(_, PeerOutput::Close(code, text)) => {
            backlog.close(code.number(), &text);
        }
        Output::Changed(_) | Output::Met(_) => {}
    }
}

/// Turns an event into an input, or into the reason why the connection is over.
fn take(
    way: Way,
    event: Event,
    backlog: &mut Backlog,
    inputs: &mut Vec<Input>,
) -> Option<ClosedReason> {
    match event {
        Event::Bytes { stream, bytes } => inputs.push(way.bytes(stream, bytes.to_vec())),
        Event::Finished { stream } => inputs.push(way.finished(stream)),
        Event::Writable { stream } => backlog.writable(stream),
        Event::Closed { reason } => return Some(reason),
    }
    None
}

/// Lets what was sent last arrive: the relay closes once it has heard the end of the control stream.
async fn hang_up(backlog: &mut Backlog, receiver: &mut Receiver) {
    backlog.finish(0);
    let closed = async {
        loop {
            match receiver.recv().await {
                Event::Writable { stream } => backlog.writable(stream),
                Event::Closed { .. } => return,
                Event::Bytes { .. } | Event::Finished { .. } => {}
            }
        }
    };
    let _ = tokio::time::timeout(GOODBYE, closed).await;
}

async fn finish(backlog: Backlog, mut receiver: Receiver) {
    backlog.close(Code::Done.number(), "done");
    let _ = tokio::time::timeout(Duration::from_millis(200), async {
        while !matches!(receiver.recv().await, Event::Closed { .. }) {}
    })
    .await;
}

pub(crate) fn refusal(code: Code, text: String) -> SyncError {
    match code {
        Code::Revoked => SyncError::Revoked(text),
        Code::NotAMember | Code::Denied | Code::ForeignOrganisation => SyncError::Denied(text),
        Code::Done
        | Code::Malformed
        | Code::TooLong
        | Code::UnknownFrame
        | Code::OutOfOrder
        | Code::Version
        | Code::InvitationUnknown
        | Code::InvitationExpired
        | Code::Membership
        | Code::Busy
        | Code::Storage
        | Code::GoingAway
        | Code::Unchained
        | Code::Unvouched
        | Code::Refused => SyncError::Cut(text),
    }
}
