//! How much a peer may ask of an endpoint: times, windows and counts.
//!
//! All memory that one connection can be made to hold follows from these numbers: what the peer
//! sent and nobody read (`connection_window`), what was written and not yet acknowledged
//! (`send_window`), and what the carrier queues (64 KiB for each stream).

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};

/// Transport limits of an endpoint. They bind this side only and are not negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a handshake may take, dialled or accepted.
    pub handshake: Duration,
    /// How long a connection lives without hearing from its peer; the smaller of both sides holds.
    pub idle: Duration,
    /// How often a quiet connection that this side dialled is kept alive. Accepted connections are
    /// never kept alive from this side.
    pub keep_alive: Option<Duration>,
    /// Unread bytes that one stream may hold here.
    pub stream_window: u32,
    /// Unread bytes that one connection may hold here.
    pub connection_window: u32,
    /// Bytes of one connection that were written and are not yet acknowledged.
    pub send_window: u32,
    /// Data streams that a peer may have open towards this side at once.
    pub streams: u32,
    /// Lanes that a peer may have open towards this side at once.
    pub lanes: u32,
    /// Bytes of datagrams that the system is asked to keep until they are read, as far as it lets; as many as
    /// it keeps by itself if not said.
    pub socket_buffer: Option<usize>,
    /// Handshakes in flight from which on an address must prove itself first (Retry).
    pub handshakes_before_retry: usize,
    /// Handshakes in flight from which on further ones are refused.
    pub handshakes: usize,
}

impl Limits {
    /// For a device: keeps its connections alive and downloads with a wide window.
    pub const DEVICE: Self = Self {
        handshake: Duration::from_secs(5),
        idle: Duration::from_secs(45),
        keep_alive: Some(Duration::from_secs(25)),
        stream_window: 512 * 1024,
        connection_window: 2 * 1024 * 1024,
        send_window: 512 * 1024,
        streams: 64,
        lanes: 2,
        socket_buffer: None,
        handshakes_before_retry: 8,
        handshakes: 64,
    };

    /// For a relay: many connections, each of which may hold little.
    pub const RELAY: Self = Self {
        keep_alive: None,
        stream_window: 256 * 1024,
        connection_window: 1024 * 1024,
        // A thousand devices that come back in one moment send a thousand datagrams of 1,200 bytes.
        socket_buffer: Some(4 * 1024 * 1024),
        handshakes_before_retry: 64,
        handshakes: 1024,
        ..Self::DEVICE
    };

    /// The transport of accepted connections: the dialer opens the one control stream.
    pub(crate) fn accepting(&self) -> Arc<TransportConfig> {
        let mut transport = self.transport();
        transport.max_concurrent_bidi_streams(VarInt::from_u32(1 + self.lanes));
        Arc::new(transport)
    }

    /// The transport of dialled connections.
    pub(crate) fn dialling(&self) -> Arc<TransportConfig> {
        let mut transport = self.transport();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(self.lanes))
            .keep_alive_interval(self.keep_alive);
        Arc::new(transport)
    }

    fn transport(&self) -> TransportConfig {
        let idle_ms = u32::try_from(self.idle.as_millis()).unwrap_or(u32::MAX);
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))))
            .max_concurrent_uni_streams(VarInt::from_u32(self.streams))
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(VarInt::from_u32(self.connection_window))
            .send_window(self.send_window.into())
            .datagram_receive_buffer_size(None)
            .datagram_send_buffer_size(0);
        transport
    }
}
