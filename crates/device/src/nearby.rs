//! Other devices, with no relay between: calling one, and being called.

mod company;
pub(crate) mod finding;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fieldkeep_link::{BindError, Connection, DialError, DiscoveryError, Endpoint, Limits};
use fieldkeep_model::PeerAddress;
use fieldkeep_protocol::Code;
use fieldkeep_replica::ReplicaError;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::device::{Device, Event};
use crate::engine::{PeerId, PeerProgress};
use crate::reach::{NO_NETWORK, ReachError, reach};
use crate::sync::{Ended, Opening, SyncError, Until, Way, refusal};

/// Devices that may be connected at a time.
const PEERS: usize = 32;

/// How often it is looked whether all have gone.
const LOOK: Duration = Duration::from_millis(20);

/// Why an exchange with another device did not end well. What was captured is safe in every case.
///
/// ```
/// # use fieldkeep_device::MeetError;
/// # use std::net::SocketAddr;
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// let nobody: SocketAddr = "127.0.0.1:9".parse()?;
/// let met = device.sync_with(nobody, Duration::from_millis(100)).await;
/// assert!(matches!(met, Err(MeetError::Unreachable(_))));
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum MeetError {
    /// Nobody was reached there.
    #[error("no device was reached ({0}); everything is safe on this device: try again")]
    Unreachable(String),
    /// The device was not seen on the local network, or did not answer.
    #[error("it was not found on this network within {} s; everything is safe on this device", .0.as_secs_f32())]
    NotFound(Duration),
    /// Another device answers there than the one that was meant.
    #[error("another device answers at {0} than the one that was meant: nothing was exchanged")]
    Another(SocketAddr),
    /// The other device refused this one, or this one refused it.
    #[error("the devices do not exchange anything ({text}); nothing is lost on either")]
    Refused {
        /// Under which code.
        code: Code,
        /// Why.
        text: String,
    },
    /// The connection ended before everything was exchanged.
    #[error(
        "the connection ended ({0}); what had arrived is kept, and the next meeting goes on from there"
    )]
    Cut(String),
    /// It took too long.
    #[error("not everything was exchanged within {:.1} s ({text}); nothing is lost: meet again", patience.as_secs_f32())]
    Timeout {
        /// How long was waited.
        patience: Duration,
        /// What was missing.
        text: String,
    },
    /// There is no looking around.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// This end cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The store failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl MeetError {
    /// What it means that a session ended with a code.
    fn ended(code: Code, text: String) -> Self {
        let refused =
            matches!(refusal(code, text.clone()), SyncError::Revoked(_) | SyncError::Denied(_));
        if refused { Self::Refused { code, text } } else { Self::Cut(text) }
    }
}

impl From<SyncError> for MeetError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Replica(error) => Self::Replica(error),
            SyncError::Bind(error) => Self::Bind(error),
            other @ (SyncError::Offline(_)
            | SyncError::NoAddress
            | SyncError::Another(_)
            | SyncError::Denied(_)
            | SyncError::Revoked(_)
            | SyncError::Cut(_)
            | SyncError::Timeout(..)
            | SyncError::Integrity(_)) => Self::Cut(other.to_string()),
        }
    }
}

/// Where a device listens for others.
///
/// ```
/// # fieldkeep_lab::camp::example(async |device| {
/// let listener = device.listen("127.0.0.1:0".parse()?)?;
/// assert!(device.listening().is_some());
/// drop(listener);
/// assert!(device.listening().is_none());
/// # Ok(()) });
/// ```
#[derive(Clone, Debug)]
pub struct Listener(Arc<Socket>);

/// A socket that others call. While it is there, the device says where it listens.
#[derive(Debug)]
struct Socket {
    device: Device,
    endpoint: Endpoint,
    address: SocketAddr,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.device.0.listens_no_more(self.address);
    }
}

impl Device {
    /// Exchanges everything with a device whose address is known, until both hold the same.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::meeting(async |ann, ben| {
    /// # let listener = ben.listen("127.0.0.1:0".parse()?)?;
    /// # let address = listener.address();
    /// # tokio::spawn(async move { listener.serve().await });
    /// let met = ann.sync_with(address, Duration::from_secs(60)).await?;
    /// assert_eq!((met.name.as_deref(), met.sent), (Some("ben"), 2));
    /// assert!(ben.get(&"order/o1".parse()?)?.is_some());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`MeetError`]; nothing is lost in any case.
    pub async fn sync_with(
        &self,
        place: impl Into<PeerAddress>,
        timeout: Duration,
    ) -> Result<PeerProgress, MeetError> {
        let until = Instant::now() + timeout;
        let called = timeout_at(until, self.reach_peer(&place.into())).await;
        let (_endpoint, connection) = called.unwrap_or_else(|_| {
            let text = format!("nobody answered within {} s", timeout.as_secs_f32());
            Err(MeetError::Unreachable(text))
        })?;
        self.meet(connection, until, timeout).await
    }

    /// Exchanges everything over a connection, until both hold the same: until then, which is so long
    /// after whoever waits for it began.
    async fn meet(
        &self,
        connection: Connection,
        until: Instant,
        patience: Duration,
    ) -> Result<PeerProgress, MeetError> {
        let meeting = Meeting::new(self);
        let session = self.session(connection, meeting.way(), Opening::Calls, Until::Complete);
        let ended = timeout_at(until, session).await;
        let progress = meeting.progress()?;
        match (ended, progress.ended.clone()) {
            (Ok(Err(error)), _) => Err(error.into()),
            (_, Some((code, text))) => Err(MeetError::ended(code, text)),
            (Ok(Ok(Ended::Complete)), None) => Ok(progress),
            (Ok(Ok(Ended::Closed(text))), None) => Err(MeetError::Cut(text)),
            (Err(_), None) => {
                let text = format!("{} segments open", progress.open);
                Err(MeetError::Timeout { patience, text })
            }
        }
    }

    /// Stays connected to a device whose address is known for as long as that lasts: what either
    /// writes reaches the other at once.
    ///
    /// ```
    /// # use fieldkeep_device::Tier;
    /// # use serde_json::json;
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::meeting(async |ann, ben| {
    /// # let listener = ben.listen("127.0.0.1:0".parse()?)?;
    /// # let address = listener.address();
    /// # tokio::spawn(async move { listener.serve().await });
    /// let staying = tokio::spawn({
    ///     let ann = ann.clone();
    ///     async move { ann.stay_with(address).await }
    /// });
    /// let pier = "customer/c2".parse()?;
    /// ann.save(&pier, &json!({"name": "Pier"}))?;
    /// let there = ben.reached(&pier, Tier::Device, Duration::from_secs(60)).await?;
    /// assert_eq!(there.fields["name"], "Pier");
    /// staying.abort();
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When it is not reached or refuses; a connection that ends later is no error.
    pub async fn stay_with(
        &self,
        place: impl Into<PeerAddress>,
    ) -> Result<PeerProgress, MeetError> {
        let (_endpoint, connection) = self.reach_peer(&place.into()).await?;
        self.exchange(connection, Opening::Calls).await
    }

    /// How far the exchange has come with each device that is connected to this one.
    ///
    /// ```
    /// # use fieldkeep_device::Event;
    /// # fieldkeep_lab::camp::meeting(async |ann, ben| {
    /// # let listener = ben.listen("127.0.0.1:0".parse()?)?;
    /// # let address = listener.address();
    /// # tokio::spawn(async move { listener.serve().await });
    /// let mut events = ann.watch();
    /// # let staying = ann.clone();
    /// # let staying = tokio::spawn(async move { staying.stay_with(address).await });
    /// while events.recv().await? != Event::Met("ben".into()) {}
    /// assert_eq!(ann.meetings()?[0].name.as_deref(), Some("ben"));
    /// # staying.abort();
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn meetings(&self) -> Result<Vec<PeerProgress>, ReplicaError> {
        self.engine().meetings()
    }

    /// Listens for other devices.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let listener = device.listen("127.0.0.1:0".parse()?)?; // Port 0 takes any free one.
    /// assert_ne!(listener.address().port(), 0);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn listen(&self, address: SocketAddr) -> Result<Listener, MeetError> {
        let endpoint = Endpoint::bind(address, &self.0.seed.tls(), Limits::DEVICE)?;
        let address = endpoint.local_addr().map_err(|error| BindError::Io { address, error })?;
        self.0.listens(address);
        Ok(Listener(Arc::new(Socket { device: self.clone(), endpoint, address })))
    }

    /// Ends the exchanges with all other devices, so that they need not find out by themselves.
    /// Returns when they are over, or after so long.
    ///
    /// ```
    /// # use fieldkeep_device::Event;
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::meeting(async |ann, ben| {
    /// # let listener = ben.listen("127.0.0.1:0".parse()?)?;
    /// # let address = listener.address();
    /// # tokio::spawn(async move { listener.serve().await });
    /// # let mut events = ann.watch();
    /// # let staying = ann.clone();
    /// # let staying = tokio::spawn(async move { staying.stay_with(address).await });
    /// # while events.recv().await? != Event::Met("ben".into()) {}
    /// assert_eq!(ann.meetings()?.len(), 1);
    /// ann.part(Duration::from_secs(60)).await;
    /// assert!(ann.meetings()?.is_empty());
    /// # Ok(()) });
    /// ```
    pub async fn part(&self, patience: Duration) {
        self.0.close_peers(Code::Done, "this device ends the session");
        let over = async {
            while self.0.has_peers() {
                tokio::time::sleep(LOOK).await;
            }
            // What closes a connection is on its way by then.
            tokio::time::sleep(LOOK).await;
        };
        let _ = tokio::time::timeout(patience, over).await;
    }

    /// Calls a device, at whichever of its addresses answers.
    async fn reach_peer(&self, place: &PeerAddress) -> Result<(Endpoint, Connection), MeetError> {
        let reached = reach(&place.addresses, place.key.as_ref(), &self.0.seed.tls()).await;
        reached.map_err(|error| match error {
            ReachError::NoAddress => MeetError::Unreachable("no address is known of it".into()),
            ReachError::NoNetwork => MeetError::Unreachable(NO_NETWORK.to_owned()),
            ReachError::Bind(error) => error.into(),
            ReachError::Dial(DialError::WrongKey { address, .. }) => MeetError::Another(address),
            ReachError::Dial(error) => MeetError::Unreachable(error.to_string()),
        })
    }

    async fn exchange(
        &self,
        connection: Connection,
        opening: Opening,
    ) -> Result<PeerProgress, MeetError> {
        let meeting = Meeting::new(self);
        let ended = self.session(connection, meeting.way(), opening, Until::Cut).await;
        let progress = meeting.progress()?;
        match (ended, progress.ended.clone()) {
            (Err(error), _) => Err(error.into()),
            (Ok(_), Some((code, text))) => Err(MeetError::ended(code, text)),
            (Ok(_), None) => Ok(progress),
        }
    }
}

/// A connection to another device, from its beginning until it is over or whoever waits for it has
/// gone: nothing of it stays in the engine then.
struct Meeting {
    device: Device,
    id: PeerId,
}

impl Meeting {
    fn new(device: &Device) -> Self {
        Self { device: device.clone(), id: device.0.next_peer() }
    }

    fn way(&self) -> Way {
        Way::Peer(self.id)
    }

    /// How far it has come.
    fn progress(&self) -> Result<PeerProgress, ReplicaError> {
        Ok(self.device.engine().peer_progress(self.id)?.unwrap_or_default())
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        self.device.0.cut(self.way());
        if let Some(progress) = self.progress().ok().filter(|progress| progress.met) {
            let _ = self.device.0.events.send(Event::Left(progress));
        }
        self.device.engine().forget_peer(self.id);
    }
}

impl Listener {
    /// Where it listens.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let listener = device.listen("127.0.0.1:0".parse()?)?;
    /// assert_eq!(device.listening().expect("it does").addresses, [listener.address()]);
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    fn device(&self) -> &Device {
        &self.0.device
    }

    /// Exchanges with every device that calls, until this is dropped.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::meeting(async |ann, ben| {
    /// let listener = ben.listen("127.0.0.1:0".parse()?)?;
    /// let address = listener.address();
    /// let serving = tokio::spawn(async move { listener.serve().await });
    /// assert!(ann.sync_with(address, Duration::from_secs(60)).await?.complete());
    /// serving.abort(); // Nobody is listened for any more.
    /// # Ok(()) });
    /// ```
    pub async fn serve(&self) {
        let mut sessions: JoinSet<()> = JoinSet::new();
        while let Some(incoming) = self.0.endpoint.accept().await {
            while sessions.try_join_next().is_some() {}
            if sessions.len() >= PEERS {
                continue;
            }
            let device = self.device().clone();
            sessions.spawn(async move {
                let connection = match incoming.handshake().await {
                    Ok(connection) => connection,
                    Err(error) => return tracing::debug!(%error, "a handshake failed"),
                };
                if let Err(error) = device.exchange(connection, Opening::Answers).await {
                    tracing::debug!(%error, "an exchange with a device");
                }
            });
        }
    }
}
