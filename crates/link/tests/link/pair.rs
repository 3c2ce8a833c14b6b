//! Two endpoints on loopback and a connection between them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use fieldkeep_link::{
    CONTROL, Connection, Endpoint, Event, HandshakeError, Limits, Receiver, Role, Sender,
};
use fieldkeep_model::{KeyPair, PublicKey};

/// How long any step of a test may take before it counts as stuck.
pub(crate) const STUCK: Duration = Duration::from_secs(20);

pub(crate) fn keys(n: u8) -> KeyPair {
    KeyPair::from_secret([n; 32])
}

pub(crate) fn key(n: u8) -> PublicKey {
    keys(n).public()
}

pub(crate) fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

pub(crate) fn endpoint(n: u8, limits: Limits) -> Endpoint {
    Endpoint::bind(loopback(), &keys(n), limits).expect("loopback is free")
}

/// The device has key 1, the relay key 2.
pub(crate) struct Pair {
    pub(crate) device: Endpoint,
    pub(crate) relay: Endpoint,
}

/// Both ends of one connection.
pub(crate) struct Ends {
    pub(crate) device: (Sender, Receiver),
    pub(crate) relay: (Sender, Receiver),
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(Limits::DEVICE, Limits::RELAY)
    }

    pub(crate) fn with(device: Limits, relay: Limits) -> Self {
        Self { device: endpoint(1, device), relay: endpoint(2, relay) }
    }

    pub(crate) fn relay_address(&self) -> SocketAddr {
        self.relay.local_addr().expect("it is bound")
    }

    pub(crate) async fn connect(&self) -> (Connection, Connection) {
        let (dialled, accepted) = within(async {
            let expected = key(2);
            tokio::join!(self.device.connect(self.relay_address(), &expected), admit(&self.relay))
        })
        .await;
        (dialled.expect("the relay answers"), accepted.expect("the device has a key"))
    }

    /// Connects, and lets each side hear the other's first word.
    pub(crate) async fn carry(&self) -> Ends {
        let (dialled, accepted) = self.connect().await;
        let mut ends =
            Ends { device: dialled.carry(Role::Dialer), relay: accepted.carry(Role::Acceptor) };
        ends.device.0.try_send(CONTROL, 0, Bytes::from_static(b"hello")).expect("there is room");
        assert_eq!(next(&mut ends.relay.1).await, bytes(CONTROL, b"hello"));
        ends.relay.0.try_send(CONTROL, 0, Bytes::from_static(b"welcome")).expect("there is room");
        assert_eq!(next(&mut ends.device.1).await, bytes(CONTROL, b"welcome"));
        ends
    }
}

pub(crate) async fn admit(endpoint: &Endpoint) -> Result<Connection, HandshakeError> {
    endpoint.accept().await.expect("the endpoint is open").handshake().await
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(STUCK, work).await.expect("it got stuck")
}

pub(crate) async fn next(receiver: &mut Receiver) -> Event {
    within(receiver.recv()).await
}

pub(crate) fn bytes(stream: u64, bytes: &'static [u8]) -> Event {
    Event::Bytes { stream, bytes: Bytes::from_static(bytes) }
}

pub(crate) fn block(len: usize) -> Bytes {
    Bytes::from(vec![7; len])
}
