//! A connection whose both ends proved their keys, before anything was carried over it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use fieldkeep_model::PublicKey;
use quinn::{ConnectionError, VarInt};

/// A peer's words are cut here before they reach a log.
const TEXT_CHARS_MAX: usize = 200;

/// A connection with a proven peer. Dropped, it is closed with code 0.
pub struct Connection {
    pub(crate) quic: quinn::Connection,
    pub(crate) peer: PublicKey,
    pub(crate) send_window: u32,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedReason {
    /// The code that a side gave; `None` if the connection was lost or broken.
    pub code: Option<u32>,
    /// What that side said, or what happened, for a person. A peer's words: cut and without
    /// control characters, and still not to be trusted.
    pub text: String,
    /// Whether the peer ended it.
    pub by_peer: bool,
}

impl Connection {
    pub(crate) fn new(quic: quinn::Connection, peer: PublicKey, send_window: u32) -> Self {
        Self { quic, peer, send_window }
    }

    /// The bare connection beneath, for measuring what everything above it costs.
    #[must_use]
    pub fn into_quic(self) -> quinn::Connection {
        self.quic
    }

    /// The key that the peer proved.
    #[must_use]
    pub fn peer(&self) -> PublicKey {
        self.peer
    }

    /// Where the peer is; it may move while the connection lives.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.quic.remote_address())
    }

    /// The estimated round trip time.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.quic.rtt()
    }

    /// Ends the connection, telling the peer why. The reason should stay under 1 KiB.
    pub fn close(&self, code: u32, reason: &str) {
        self.quic.close(VarInt::from_u32(code), reason.as_bytes());
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({:?} at {})", self.peer, self.remote_address())
    }
}

impl ClosedReason {
    pub(crate) fn of(error: &ConnectionError) -> Self {
        let (code, text, by_peer) = match error {
            ConnectionError::ApplicationClosed(close) => {
                let code = u32::try_from(close.error_code.into_inner()).ok();
                (code, String::from_utf8_lossy(&close.reason).into_owned(), true)
            }
            ConnectionError::ConnectionClosed(close) => (None, close.to_string(), true),
            ConnectionError::Reset => (None, "the peer was restarted".into(), true),
            ConnectionError::TimedOut => {
                (None, "the peer was not heard for too long".into(), false)
            }
            ConnectionError::LocallyClosed => (None, "closed by this side".into(), false),
            ConnectionError::TransportError(_)
            | ConnectionError::VersionMismatch
            | ConnectionError::CidsExhausted => (None, error.to_string(), false),
        };
        let text = text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect();
        Self { code, text, by_peer }
    }
}

impl fmt::Display for ClosedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.by_peer { "closed by the peer: " } else { "" })?;
        f.write_str(&self.text)?;
        self.code.map_or(Ok(()), |code| write!(f, " (code {code})"))
    }
}

/// An IPv4 peer of an IPv6 socket by its IPv4 address.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
