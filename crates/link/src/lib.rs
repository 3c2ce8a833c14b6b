//! What is carried: bytes of many prioritised streams between two members that proved their keys.
//!
//! QUIC with TLS 1.3 and raw public keys both ways (RFC 7250), key files, the carrier that moves the
//! streams of one connection, and discovery on the local network. Knows no frames, no sessions and no
//! membership: whether a proven key may speak is decided above. Callers import neither quinn nor
//! rustls nor mdns-sd.

pub mod backlog;
pub mod carrier;
pub mod connection;
pub mod discovery;
pub mod endpoint;
pub mod identity;
pub mod lane;
pub mod limits;
mod tls;

pub use backlog::Backlog;
pub use carrier::{CONTROL, Event, Receiver, Role, SendError, Sender};
pub use connection::{ClosedReason, Connection};
pub use discovery::{Discovery, DiscoveryError, ServiceId, Sighting};
pub use endpoint::{BindError, DialError, Endpoint, HandshakeError, Incoming};
pub use identity::{CreateKeyError, KeyFile, OpenKeyError};
pub use lane::{Lane, LaneError, LaneReader, LaneWriter};
pub use limits::Limits;
