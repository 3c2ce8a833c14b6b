//! Syncing: one connection to the relay, until everything is proven equal or for as long as it
//! lasts; one such session at a time.

mod report;
mod session;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fieldkeep_link::{Connection, DialError, Endpoint};
use fieldkeep_model::{KeyPair, PublicKey};
use fieldkeep_protocol::Code;
use fieldkeep_replica::{Integrity, ReplicaError};
use fieldkeep_store::Blobs as _;
use tokio::sync::MutexGuard;
use tokio::time::{Instant, timeout_at};

pub(crate) use report::refusal;
pub use report::{SyncError, SyncReport};
pub(crate) use session::{Ended, Opening, Until, Way, off};

use crate::device::Device;
use crate::engine::Progress;
use crate::reach::{NO_NETWORK, ReachError, reach};
use crate::status::Strip;

/// Addresses of the relay that are remembered.
const RELAYS: usize = 8;
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
