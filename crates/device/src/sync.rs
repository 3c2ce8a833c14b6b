//! Syncing: one connection to the relay, until everything is proven equal or for as long as it
//! lasts.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use fieldkeep_link::{
    Backlog, BindError, ClosedReason, Connection, DialError, Endpoint, Event, Limits, Receiver,
};
use fieldkeep_protocol::Code;
use fieldkeep_replica::{Integrity, ReplicaError};
use fieldkeep_store::StoreError;
use tokio::sync::mpsc;

use crate::device::{Device, now};
use crate::engine::{Input, Output, Progress};

/// What a sync came to.
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
    /// Bytes of frames that were sent.
    pub bytes_sent: u64,
    /// Bytes of frames that came.
    pub bytes_received: u64,
}

/// Why a sync did not end well. What was captured is safe on the device in every case.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The relay was not reached.
    #[error(
        "the relay was not reached ({0}); everything is safe on this device: try again when there is a signal"
    )]
    Offline(String),
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
        "the connection ended ({0}); what has a receipt is safe on the relay, the rest on this device: sync again"
    )]
    Cut(String),
    /// It took too long.
    #[error("not everything was exchanged within {0} s ({1}); nothing is lost: sync again")]
    Timeout(u64, String),
    /// A proof was not equal.
    #[error("{0}; they were derived again from the changes: sync again to prove it")]
    Integrity(Integrity),
    /// This end cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The store failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<StoreError> for SyncError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

/// How a session stands.
enum Standing {
    UnderWay,
    Complete,
    Failed,
}

/// How a session ended.
enum Ended {
    Complete,
    Closed(String),
}

impl Device {
    /// Syncs until everything is exchanged, judged and proven equal.
    ///
    /// # Errors
    /// See [`SyncError`]; nothing is lost in any case.
    pub async fn sync(&self, timeout: Duration) -> Result<SyncReport, SyncError> {
        match self.sync_once(timeout).await {
            // The relay may have forgotten this device: the second time it brings its enrolment.
            Err(SyncError::Denied(_)) if self.engine().is_forgotten() => {
                self.sync_once(timeout).await
            }
            other => other,
        }
    }

    async fn sync_once(&self, timeout: Duration) -> Result<SyncReport, SyncError> {
        let (_endpoint, connection) = self.dial().await?;
        let session = self.session(connection, |progress| progress.complete());
        let ended = match tokio::time::timeout(timeout, session).await {
            Ok(ended) => ended?,
            Err(_) => {
                self.disconnect().await?;
                let progress = self.engine().progress()?;
                let text = format!("{} to send, {} segments open", progress.waiting, progress.open);
                return Err(SyncError::Timeout(timeout.as_secs(), text));
            }
        };
        let progress = self.engine().progress()?;
        self.disconnect().await?;
        if let Some(wrong) = progress.integrity {
            self.mend()?;
            return Err(SyncError::Integrity(wrong));
        }
        match (ended, progress.ended) {
            (Ended::Complete, _) => {}
            (Ended::Closed(_), Some((code, text))) => return Err(refusal(code, text)),
            (Ended::Closed(text), None) => return Err(SyncError::Cut(text)),
        }
        if let Some(wrong) = self.mend()? {
            return Err(SyncError::Integrity(wrong));
        }
        let progress = self.engine().progress()?;
        self.report(&progress)
    }

    /// Syncs for as long as the connection lasts; changes go both ways as they happen.
    ///
    /// # Errors
    /// When the relay is not reached or refuses; a connection that ends later is no error.
    pub async fn stay_connected(&self) -> Result<String, SyncError> {
        let (_endpoint, connection) = self.dial().await?;
        let ended = self.session(connection, |_| false).await?;
        let progress = self.engine().progress()?;
        self.disconnect().await?;
        match (ended, progress.ended) {
            (_, Some((code, text))) => Err(refusal(code, text)),
            (Ended::Closed(text), None) => Ok(text),
            (Ended::Complete, None) => Ok(String::new()),
        }
    }

    /// Ends the connection that is open, if there is one; whoever waits on it is told. Returns
    /// whether there was one.
    pub fn hang_up(&self) -> bool {
        self.0.close_connection(Code::Done, "the device ends the session")
    }

    /// Whether a session with the relay is open.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.engine().is_online()
    }

    /// How far the present connection has come, or the last one came.
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
        Ok(SyncReport { sent, received, refused, proven, held, bytes_sent, bytes_received })
    }

    /// Checks every stored row; what is wrong is derived again, and told.
    fn mend(&self) -> Result<Option<Integrity>, ReplicaError> {
        let mut engine = self.engine();
        let ids: Vec<_> = engine.replica().segments().keys().copied().collect();
        let mut found = None;
        for id in ids {
            if let Some(wrong) = engine.replica().verify(&id)? {
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

    async fn dial(&self) -> Result<(Endpoint, Connection), SyncError> {
        let remote = self.remote()?;
        let mut last = SyncError::NoAddress;
        for address in remote.addresses {
            let endpoint = Endpoint::bind(any_port(address), &self.0.seed.tls(), Limits::DEVICE)?;
            match endpoint.connect(address, &remote.key).await {
                Ok(connection) => return Ok((endpoint, connection)),
                Err(error @ DialError::WrongKey { .. }) => {
                    last = SyncError::Denied(error.to_string());
                }
                Err(error) => last = SyncError::Offline(error.to_string()),
            }
        }
        Err(last)
    }

    /// Carries a connection's bytes to the engine and back, until it is done or over.
    async fn session(
        &self,
        connection: Connection,
        done: impl Fn(&Progress) -> bool,
    ) -> Result<Ended, SyncError> {
        let (sender, mut receiver) = connection.carry(fieldkeep_link::Role::Dialer);
        let mut backlog = Backlog::new(sender);
        let (outputs, mut outgoing) = mpsc::unbounded_channel();
        self.0.connect(Some(outputs));
        self.step(vec![Input::Connected]).await?;
        loop {
            while let Ok(output) = outgoing.try_recv() {
                send(&mut backlog, output);
            }
            let mut inputs = Vec::new();
            let mut closed = None;
            let working = self.engine().has_work();
            tokio::select! {
                biased;
                output = outgoing.recv() => {
                    output.into_iter().for_each(|output| send(&mut backlog, output));
                    continue;
                }
                event = receiver.recv() => closed = take(event, &mut backlog, &mut inputs),
                () = std::future::ready(()), if working => {}
            }
            while closed.is_none() && inputs.len() < 4_096 {
                tokio::select! {
                    biased;
                    event = receiver.recv() => closed = take(event, &mut backlog, &mut inputs),
                    () = std::future::ready(()) => break,
                }
            }
            let idle = inputs.is_empty();
            if !idle {
                self.step(inputs).await?;
            }
            if idle && working && closed.is_none() {
                self.work().await?;
            }
            if let Some(ClosedReason { code, text, .. }) = closed {
                let code = code.and_then(Code::from_number);
                self.engine().ended(code, &text);
                return Ok(Ended::Closed(text));
            }
            match self.standing(&done)? {
                Standing::UnderWay => {}
                Standing::Complete => {
                    finish(backlog, receiver).await;
                    return Ok(Ended::Complete);
                }
                Standing::Failed => {
                    // The relay is told why.
                    while let Ok(output) = outgoing.try_recv() {
                        send(&mut backlog, output);
                    }
                    finish(backlog, receiver).await;
                    return Ok(Ended::Closed("this device ended the session".into()));
                }
            }
        }
    }

    fn standing(&self, done: impl Fn(&Progress) -> bool) -> Result<Standing, ReplicaError> {
        let engine = self.engine();
        Ok(if engine.has_failed() {
            Standing::Failed
        } else if engine.may_be_complete() && done(&engine.progress()?) {
            Standing::Complete
        } else {
            Standing::UnderWay
        })
    }

    /// Takes inputs into one commit, off the async threads.
    async fn step(&self, inputs: Vec<Input>) -> Result<(), SyncError> {
        let device = self.clone();
        off(move || {
            let mut engine = device.engine();
            let now = now();
            let taken = inputs.into_iter().try_for_each(|input| engine.handle(now, input));
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

    async fn disconnect(&self) -> Result<(), SyncError> {
        self.0.connect(None);
        self.step(vec![Input::Closed]).await
    }
}

async fn off<T: Send + 'static>(
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
        Output::Close(code, text) => backlog.close(code.number(), &text),
        Output::Changed(_) => {}
    }
}

/// Turns an event into an input, or into the reason why the connection is over.
fn take(event: Event, backlog: &mut Backlog, inputs: &mut Vec<Input>) -> Option<ClosedReason> {
    match event {
        Event::Bytes { stream, bytes } => inputs.push(Input::Bytes(stream, bytes.to_vec())),
        Event::Finished { stream } => inputs.push(Input::Finished(stream)),
        Event::Writable { stream } => backlog.writable(stream),
        Event::Closed { reason } => return Some(reason),
    }
    None
}

async fn finish(backlog: Backlog, mut receiver: Receiver) {
    backlog.close(Code::Done.number(), "done");
    let _ = tokio::time::timeout(Duration::from_millis(200), async {
        while !matches!(receiver.recv().await, Event::Closed { .. }) {}
    })
    .await;
}

fn refusal(code: Code, text: String) -> SyncError {
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

/// Any port of the family that reaches an address; loopback only where the address is loopback.
pub(crate) fn any_port(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(to) if to.ip().is_loopback() => (Ipv4Addr::LOCALHOST, 0).into(),
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(to) if to.ip().is_loopback() => (Ipv6Addr::LOCALHOST, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
