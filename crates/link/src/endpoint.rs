//! Endpoints: one UDP socket that dials and accepts.
//!
//! Promises that both sides of a connection proved an ed25519 key, and that a dialled connection
//! proved the expected one. A handshake that takes too long is given up; while many are in flight,
//! addresses prove themselves first, and beyond a bound they are refused. Refuses certificates,
//! early data and other protocols. How many connections one key may have is decided above.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fieldkeep_model::{KeyPair, PublicKey};
use quinn::{
    ClientConfig, ConnectError, ConnectionError, EndpointConfig, ServerConfig, TransportConfig,
    TransportErrorCode, VarInt,
};

use crate::connection::{ClosedReason, Connection, canonical};
use crate::limits::Limits;
use crate::tls::{Identity, proven};

/// Sent as the server name, which nobody reads: keys name the peers.
const SERVER_NAME: &str = "fieldkeep";
/// Bytes that may arrive for a connection before it is accepted.
const EARLY_BYTES: u64 = 16 * 1024;
/// The alert of TLS that says: no application protocol in common.
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// A UDP socket with an identity.
pub struct Endpoint {
    quic: quinn::Endpoint,
    identity: Identity,
    dialling: Arc<TransportConfig>,
    limits: Limits,
    handshakes: Arc<AtomicUsize>,
    refused: AtomicU64,
}

/// A peer at the door: its handshake has not begun. Dropped, it is refused.
pub struct Incoming {
    quic: quinn::Incoming,
    slot: Slot,
    limit: Duration,
    send_window: u32,
}

/// Why an endpoint could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The port is taken: stop the other program, or choose another port.
    #[error("another program listens on udp {0} already: stop it, or choose another port")]
    InUse(SocketAddr),
    /// The address is not one of this machine's.
    #[error("{0} is not an address of this machine")]
    NotHere(SocketAddr),
    /// The operating system does not let this user listen there.
    #[error("this user may not listen on udp {0}: choose a port above 1023")]
    Forbidden(SocketAddr),
    /// Bound outside of a tokio runtime.
    #[error("an endpoint needs a tokio runtime")]
    NoRuntime,
    /// Anything else that the socket said.
    #[error("cannot listen on udp {address}: {error}")]
    Io {
        /// Where the endpoint should have listened.
        address: SocketAddr,
        /// The cause.
        error: io::Error,
    },
}

/// Why a peer could not be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Nobody answered: no network, a wrong address, or a relay that is down. Worth a retry.
    #[error("nobody answered at {address} within {} s", limit.as_secs_f32())]
    Unreachable {
        /// Who was dialled.
        address: SocketAddr,
        /// How long was waited.
        limit: Duration,
    },
    /// Somebody else answered: an attacker, or a relay that was set up afresh.
    #[error(
        "who answers at {address} has the key {presented}, not {expected}: ask for a fresh ticket if the relay was set up again"
    )]
    WrongKey {
        /// Who was dialled.
        address: SocketAddr,
        /// The key that was pinned.
        expected: PublicKey,
        /// The key that was shown; its possession was not proven.
        presented: PublicKey,
    },
    /// What answers there speaks another protocol.
    #[error("what answers at {address} does not speak fieldkeep: {detail}")]
    NotFieldkeep {
        /// Who was dialled.
        address: SocketAddr,
        /// What was wrong.
        detail: String,
    },
    /// The peer has too many handshakes in flight. Worth a retry.
    #[error("who answers at {0} is overloaded: try again later")]
    Busy(SocketAddr),
    /// The address cannot be dialled from this socket: port 0, or IPv6 from an IPv4 socket.
    #[error(
        "{0} cannot be dialled from here: the port is 0, or it is an IPv6 address and this side has only IPv4"
    )]
    Address(SocketAddr),
    /// This endpoint was closed.
    #[error("this endpoint was closed")]
    Closed,
}

/// Why an incoming handshake failed. None of them is worth more than a debug line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer did not finish in time.
    #[error("{address} did not finish its handshake within {} s", limit.as_secs_f32())]
    Slow {
        /// The peer.
        address: SocketAddr,
        /// How long was waited.
        limit: Duration,
    },
    /// The peer showed no key, a certificate, another protocol, or left.
    #[error("the handshake with {address} failed: {detail}")]
    Failed {
        /// The peer.
        address: SocketAddr,
        /// What was wrong.
        detail: String,
    },
}

impl Endpoint {
    /// Binds a UDP socket; port 0 takes any free one. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the address is taken, not this machine's, or not allowed.
    pub fn bind(listen: SocketAddr, tls: &KeyPair, limits: Limits) -> Result<Self, BindError> {
        let runtime = quinn::default_runtime().ok_or(BindError::NoRuntime)?;
        let identity = Identity::new(tls);
        let mut accepting = ServerConfig::with_crypto(identity.accepting());
        // Past its own bound quinn ignores peers silently; ours, below it, tells them.
        accepting
            .transport_config(limits.accepting())
            .migration(true)
            .max_incoming(limits.handshakes.saturating_mul(2))
            .incoming_buffer_size(EARLY_BYTES)
            .incoming_buffer_size_total(EARLY_BYTES * limits.handshakes as u64);
        let quic = UdpSocket::bind(listen)
            .and_then(|socket| {
                if let Some(bytes) = limits.socket_buffer {
                    // What the system does not give is missed only when very many come at once.
                    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(bytes);
                }
                quinn::Endpoint::new(EndpointConfig::default(), Some(accepting), socket, runtime)
            })
            .map_err(|error| bind_error(listen, error))?;
        let dialling = limits.dialling();
        let (handshakes, refused) = (Arc::default(), AtomicU64::default());
        Ok(Self { quic, identity, dialling, limits, handshakes, refused })
    }

    /// Where the endpoint listens.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// The next peer at the door; `None` once the endpoint is closed. Give each its own task for
    /// the handshake.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let quic = self.quic.accept().await?;
            let in_flight = self.handshakes.load(Ordering::Relaxed);
            if in_flight >= self.limits.handshakes {
                tracing::debug!(in_flight, "handshake refused");
                self.refused.fetch_add(1, Ordering::Relaxed);
                quic.refuse();
            } else if in_flight >= self.limits.handshakes_before_retry
                && !quic.remote_address_validated()
            {
                // Cannot fail: an address that is not validated may always be asked to retry.
                let _ = quic.retry();
            } else {
                let slot = Slot::take(&self.handshakes);
                let Limits { handshake: limit, send_window, .. } = self.limits;
                return Some(Incoming { quic, slot, limit, send_window });
            }
        }
    }

    /// How many peers were refused at the door by now, because too many handshakes were in flight.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Dials a peer and proves both keys. The peer may still refuse this side's key: that shows as
    /// a closed connection afterwards.
    ///
    /// # Errors
    /// When nobody answers in time, or somebody else than expected.
    pub async fn connect(
        &self,
        address: SocketAddr,
        expected: &PublicKey,
    ) -> Result<Connection, DialError> {
        self.dial(address, Some(expected)).await
    }

    /// Dials whoever answers, and proves both keys: whose it is decides whether anything is said.
    ///
    /// # Errors
    /// When nobody answers in time.
    pub async fn connect_any(&self, address: SocketAddr) -> Result<Connection, DialError> {
        self.dial(address, None).await
    }

    async fn dial(
        &self,
        address: SocketAddr,
        expected: Option<&PublicKey>,
    ) -> Result<Connection, DialError> {
        let (tls, refused) = self.identity.dialling(expected);
        let mut config = ClientConfig::new(tls);
        config.transport_config(self.dialling.clone());
        let connecting =
            self.quic.connect_with(config, address, SERVER_NAME).map_err(|error| match error {
                ConnectError::InvalidRemoteAddress(_) => DialError::Address(address),
                ConnectError::EndpointStopping
                | ConnectError::CidsExhausted
                | ConnectError::InvalidServerName(_)
                | ConnectError::NoDefaultClientConfig
                | ConnectError::UnsupportedVersion => DialError::Closed,
            })?;
        let limit = self.limits.handshake;
        let quic = match tokio::time::timeout(limit, connecting).await {
            Err(_) => return Err(DialError::Unreachable { address, limit }),
            Ok(Err(error)) => match (refused.get(), expected) {
                (Some(&presented), Some(&expected)) => {
                    return Err(DialError::WrongKey { address, expected, presented });
                }
                _ => return Err(dial_error(address, limit, &error)),
            },
            Ok(Ok(quic)) => quic,
        };
        let peer = proven(&quic).expect("the verifier accepted an ed25519 key");
        Ok(Connection::new(quic, peer, self.limits.send_window))
    }

    /// Closes every connection and accepts no more.
    pub fn close(&self, code: u32, reason: &str) {
        self.quic.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// Waits until every peer was told that its connection is closed.
    pub async fn drained(&self) {
        self.quic.wait_idle().await;
    }
}

impl Incoming {
    /// Where the peer says that it is; not proven yet.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.quic.remote_address())
    }

    /// Lets the peer prove its key.
    ///
    /// # Errors
    /// When it takes too long, shows no key, or speaks another protocol.
    pub async fn handshake(self) -> Result<Connection, HandshakeError> {
        let address = self.remote_address();
        let Self { quic, slot, limit, send_window } = self;
        let failed = |error: &ConnectionError| HandshakeError::Failed {
            address,
            detail: ClosedReason::of(error).text,
        };
        let connecting = quic.accept().map_err(|error| failed(&error))?;
        let quic = match tokio::time::timeout(limit, connecting).await {
            Err(_) => return Err(HandshakeError::Slow { address, limit }),
            Ok(finished) => finished.map_err(|error| failed(&error))?,
        };
        drop(slot);
        let peer = proven(&quic).expect("the verifier accepted an ed25519 key");
        Ok(Connection::new(quic, peer, send_window))
    }
}

/// A handshake in flight, counted while it lives.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(handshakes: &Arc<AtomicUsize>) -> Self {
        handshakes.fetch_add(1, Ordering::Relaxed);
        Self(handshakes.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn bind_error(address: SocketAddr, error: io::Error) -> BindError {
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        BindError::InUse(address)
    } else if kind == io::ErrorKind::AddrNotAvailable {
        BindError::NotHere(address)
    } else if kind == io::ErrorKind::PermissionDenied {
        BindError::Forbidden(address)
    } else {
        BindError::Io { address, error }
    }
}

fn dial_error(address: SocketAddr, limit: Duration, error: &ConnectionError) -> DialError {
    let not_fieldkeep = |detail: String| DialError::NotFieldkeep { address, detail };
    match error {
        ConnectionError::ConnectionClosed(close) => match close.error_code {
            TransportErrorCode::CONNECTION_REFUSED => DialError::Busy(address),
            code if code == TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL) => {
                not_fieldkeep("it does not speak fieldkeep/1".into())
            }
            _ => not_fieldkeep(ClosedReason::of(error).text),
        },
        ConnectionError::TimedOut | ConnectionError::Reset => {
            DialError::Unreachable { address, limit }
        }
        ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => DialError::Closed,
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ApplicationClosed(_) => not_fieldkeep(ClosedReason::of(error).text),
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({:?})", self.local_addr().ok())
    }
}
