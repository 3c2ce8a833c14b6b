//! The carrier: many prioritised streams of bytes over one connection.
//!
//! Promises: the bytes of one stream arrive in order; a blocked stream holds back no other, and
//! data never holds back control; at most 64 KiB wait in each stream on the way out, and about as
//! much in all on the way in, so that a receiver that does not call [`Receiver::recv`] holds the
//! peer back. Refuses streams that are broken off: a peer that does so is closed.
//!
//! Control is stream 0, both ways, opened by the dialer, who must send for it to appear. Every
//! other stream is one-way; the sender chooses its number, and the receiver sees another one.
//! No order is promised between streams, and what was sent just before a close may be lost: say
//! in its reason what must be heard.

mod driver;
mod inbox;
mod outbox;

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use fieldkeep_model::PublicKey;
use quinn::VarInt;
use tokio::sync::{Notify, watch};

use crate::connection::{ClosedReason, Connection, canonical};
use driver::Driver;
use inbox::Inbox;
use outbox::Outbox;

/// The number of the control stream, on both sides.
pub const CONTROL: u64 = 0;
/// Bytes that may wait in one stream on the way out; one larger message may wait alone.
pub const QUEUED_MAX: usize = 64 * 1024;
/// The code with which the carrier itself closes a connection whose peer broke off a stream.
pub const BROKEN_OFF: u32 = 0xffff;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that connected: it opens the control stream.
    Dialer,
    /// The end that accepted.
    Acceptor,
}

/// What happened on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The next bytes of a stream, cut anywhere.
    Bytes {
        /// The receiver's number of the stream.
        stream: u64,
        /// At least one byte.
        bytes: Bytes,
    },
    /// The peer finished a stream: all its bytes were given out.
    Finished {
        /// The receiver's number of the stream.
        stream: u64,
    },
    /// A stream that was full takes bytes again.
    Writable {
        /// The sender's number of the stream.
        stream: u64,
    },
    /// The connection is over. Given again at every further call.
    Closed {
        /// Why.
        reason: ClosedReason,
    },
}

/// Why bytes were not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too much waits in that stream: send the bytes again after its [`Event::Writable`].
    #[error("too much waits in this stream")]
    Full(Bytes),
    /// The stream was finished.
    #[error("this stream was finished")]
    Finished,
    /// The connection is over.
    #[error("the connection is closed")]
    Closed,
}

/// The way out. Clones send over the same connection.
#[derive(Clone)]
pub struct Sender(Arc<Shared>);

/// The way in. Dropped, it closes the connection with code 0.
pub struct Receiver(Arc<Shared>);

/// What the two handles and the connection's one task share.
struct Shared {
    quic: quinn::Connection,
    peer: PublicKey,
    /// Whether the control stream is there, or never will be.
    met: watch::Sender<bool>,
    /// Told whenever a full stream takes bytes again, or none does any more.
    drained: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    outbox: Outbox,
    inbox: Inbox,
    /// The carrier's task, when it waits.
    driver: Option<Waker>,
    /// What this side said when it closed.
    said: Option<ClosedReason>,
}

impl Connection {
    /// Starts carrying: spawns the connection's one task.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn carry(self, role: Role) -> (Sender, Receiver) {
        let Self { quic, peer, send_window } = self;
        let met = watch::channel(false).0;
        let shared =
            Arc::new(Shared { quic, peer, met, drained: Notify::new(), state: Mutex::default() });
        tokio::spawn(Driver::new(shared.clone(), role, send_window));
        (Sender(shared.clone()), Receiver(shared))
    }
}

impl Sender {
    /// Queues bytes. A data stream opens at its first bytes; a later priority replaces the earlier
    /// one, higher goes first, control goes before all. A number names one stream: take another
    /// one after [`Self::finish`].
    ///
    /// # Errors
    /// Gives the bytes back when too much waits in the stream.
    pub fn try_send(&self, stream: u64, priority: i32, bytes: Bytes) -> Result<(), SendError> {
        let mut state = self.0.lock();
        state.outbox.push(stream, priority, bytes)?;
        wake(state);
        Ok(())
    }

    /// Queues bytes, waiting for room. For tasks that do not also receive: one that does would
    /// stop reading meanwhile.
    ///
    /// # Errors
    /// When the stream was finished or the connection is over.
    pub async fn send(
        &self,
        stream: u64,
        priority: i32,
        mut bytes: Bytes,
    ) -> Result<(), SendError> {
        loop {
            let drained = self.0.drained.notified();
            match self.try_send(stream, priority, bytes) {
                Err(SendError::Full(back)) => bytes = back,
                Ok(()) => return Ok(()),
                Err(error @ (SendError::Finished | SendError::Closed)) => return Err(error),
            }
            drained.await;
        }
    }

    /// How many bytes the stream takes at present.
    #[must_use]
    pub fn room(&self, stream: u64) -> usize {
        self.0.lock().outbox.room(stream)
    }

    /// Ends a stream after what waits in it. Nothing happens if it never sent.
    pub fn finish(&self, stream: u64) {
        let mut state = self.0.lock();
        state.outbox.finish(stream);
        wake(state);
    }

    /// Ends the connection at once, telling the peer why; what waits is lost. The reason should
    /// stay under 1 KiB.
    pub fn close(&self, code: u32, reason: &str) {
        self.0.close(code, reason);
    }

    /// Ends when the control stream is there: lanes come after it.
    pub(crate) async fn control_met(&self) {
        // This handle keeps the other end of it.
        let _ = self.0.met.subscribe().wait_for(|met| *met).await;
    }

    pub(crate) fn quic(&self) -> &quinn::Connection {
        &self.0.quic
    }

    /// The key that the peer proved.
    #[must_use]
    pub fn peer(&self) -> PublicKey {
        self.0.peer
    }

    /// Where the peer is at present.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.0.quic.remote_address())
    }

    /// The estimated round trip time.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.0.quic.rtt()
    }
}

impl Receiver {
    /// What happened next: control first, then room, then data. Safe to cancel.
    pub async fn recv(&mut self) -> Event {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// The same without reading: bytes stay where they are, which holds the peer back; only that there is
    /// room again, and the end once nothing is left to be read. Safe to cancel.
    pub async fn recv_unread(&mut self) -> Event {
        poll_fn(|context| self.poll(context, Inbox::pop_unread)).await
    }

    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        self.poll(context, Inbox::pop)
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        pop: impl Fn(&mut Inbox) -> Option<Event>,
    ) -> Poll<Event> {
        let mut state = self.0.lock();
        let Some(event) = pop(&mut state.inbox) else {
            state.inbox.wait(context.waker());
            return Poll::Pending;
        };
        if state.inbox.drained() {
            wake(state);
        }
        Poll::Ready(event)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.close(0, "");
        let mut state = self.0.lock();
        state.inbox.abandon();
        wake(state);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, code: u32, reason: &str) {
        if self.quic.close_reason().is_some() {
            return;
        }
        let said = ClosedReason { code: Some(code), text: reason.into(), by_peer: false };
        let mut state = self.lock();
        state.said.get_or_insert(said);
        state.outbox.close();
        drop(state);
        self.quic.close(VarInt::from_u32(code), reason.as_bytes());
        self.drained.notify_waiters();
    }
}

/// Wakes the carrier's task, after the lock is released.
fn wake(mut state: MutexGuard<'_, State>) {
    let driver = state.driver.take();
    drop(state);
    if let Some(driver) = driver {
        driver.wake();
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender({:?})", self.0.peer)
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({:?})", self.0.peer)
    }
}
