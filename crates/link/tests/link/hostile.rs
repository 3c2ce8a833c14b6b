//! Strangers at the door: no key, a certificate, another protocol, broken streams, garbage.

use std::net::UdpSocket;
use std::sync::Arc;

use fieldkeep_link::carrier::BROKEN_OFF;
use fieldkeep_link::{CONTROL, DialError, Event, HandshakeError, Limits, Role};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ResolvesClientCert};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};

use crate::pair::{Pair, admit, endpoint, key, loopback, next, within};

const PKCS8_PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
const SPKI_PREFIX: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// Presents what it is told to, and believes everybody.
#[derive(Debug)]
struct Stranger {
    presented: Option<Arc<CertifiedKey>>,
    raw_server_key: bool,
}

impl ResolvesClientCert for Stranger {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.presented.clone()
    }

    fn has_certs(&self) -> bool {
        self.presented.is_some()
    }
}

impl ResolvesServerCert for Stranger {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.presented.clone()
    }
}

impl ServerCertVerifier for Stranger {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw_server_key
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A signer with the secret of key `n`, presenting the given bytes.
fn identity(n: u8, presented: Vec<u8>) -> Arc<CertifiedKey> {
    let secret = PrivatePkcs8KeyDer::from([&PKCS8_PREFIX[..], &[n; 32]].concat());
    let signer = provider()
        .key_provider
        .load_private_key(PrivateKeyDer::Pkcs8(secret))
        .expect("an ed25519 secret");
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(presented)], signer))
}

fn raw(n: u8) -> Vec<u8> {
    [&SPKI_PREFIX[..], key(n).as_bytes()].concat()
}

fn client(presents: Arc<dyn ResolvesClientCert>, alpn: &str) -> quinn::ClientConfig {
    let believer = Stranger { presented: None, raw_server_key: true };
    let mut tls = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(believer))
        .with_client_cert_resolver(presents);
    tls.alpn_protocols = vec![alpn.into()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3")))
}

/// What the relay says of a client with that configuration.
async fn knock(config: quinn::ClientConfig) -> Result<(), HandshakeError> {
    let relay = endpoint(2, Limits::RELAY);
    let stranger = quinn::Endpoint::client(loopback()).expect("loopback is free");
    let address = relay.local_addr().expect("it is bound");
    let connecting = stranger.connect_with(config, address, "x").expect("it can be dialled");
    let knocking = tokio::spawn(async move { connecting.await.ok()?.closed().await.into() });
    let admitted = within(admit(&relay)).await.map(drop);
    relay.close(0, "");
    let _: Option<quinn::ConnectionError> = within(knocking).await.expect("no panic");
    admitted
}

fn nothing() -> Arc<dyn ResolvesClientCert> {
    Arc::new(Stranger { presented: None, raw_server_key: true })
}

fn raw_key(identity: Arc<CertifiedKey>) -> Arc<dyn ResolvesClientCert> {
    Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity))
}

#[tokio::test]
async fn a_client_gets_in_with_a_raw_key_and_our_protocol() {
    knock(client(raw_key(identity(1, raw(1))), "fieldkeep/1")).await.expect("as devices do");
}

#[tokio::test]
async fn a_client_of_another_protocol_is_refused() {
    let error =
        knock(client(raw_key(identity(1, raw(1))), "h3")).await.expect_err("not our protocol");
    assert!(matches!(error, HandshakeError::Failed { .. }), "{error}");
}

#[tokio::test]
async fn a_client_without_a_key_is_refused() {
    let error = knock(client(nothing(), "fieldkeep/1")).await.expect_err("it shows nothing");
    assert!(matches!(error, HandshakeError::Failed { .. }), "{error}");
}

#[tokio::test]
async fn a_client_with_a_certificate_is_refused() {
    let certificate = Stranger { presented: Some(identity(1, raw(1))), raw_server_key: true };
    let error =
        knock(client(Arc::new(certificate), "fieldkeep/1")).await.expect_err("a certificate");
    assert!(matches!(error, HandshakeError::Failed { .. }), "{error}");
}

#[tokio::test]
async fn a_key_that_the_client_does_not_have_is_refused() {
    let error =
        knock(client(raw_key(identity(1, raw(3))), "fieldkeep/1")).await.expect_err("stolen");
    assert!(matches!(error, HandshakeError::Failed { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_ed25519_key_is_refused() {
    let mut x25519 = raw(1);
    x25519[8] = 0x6e;
    for presented in [x25519, vec![0; 44], vec![1], [raw(1), vec![0]].concat()] {
        let config = client(raw_key(identity(1, presented)), "fieldkeep/1");
        knock(config).await.expect_err("no ed25519 key");
    }
}

/// What a device says of a server that shows a certificate, or speaks another protocol.
async fn dial(alpn: &str) -> DialError {
    let stranger = Stranger { presented: Some(identity(2, raw(2))), raw_server_key: false };
    let mut tls = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(stranger));
    tls.alpn_protocols = vec![alpn.into()];
    let tls = QuicServerConfig::try_from(tls).expect("TLS 1.3");
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let server = quinn::Endpoint::server(config, loopback()).expect("loopback is free");
    let address = server.local_addr().expect("it is bound");
    let serving = tokio::spawn(async move { server.accept().await?.await.ok() });
    let device = endpoint(1, Limits::DEVICE);
    let error = within(device.connect(address, &key(2))).await.expect_err("no relay of ours");
    serving.abort();
    error
}

#[tokio::test]
async fn a_server_that_is_no_relay_is_told_apart_from_a_silent_one() {
    for alpn in ["fieldkeep/1", "h3"] {
        let error = dial(alpn).await;
        assert!(matches!(error, DialError::NotFieldkeep { .. }), "{error}");
    }
}

#[tokio::test]
async fn garbage_leaves_the_endpoint_alive() {
    let pair = Pair::new();
    let mut ends = pair.carry().await;
    let socket = UdpSocket::bind(loopback()).expect("loopback is free");
    let mut random = 7_u64;
    for round in 0..2_000_usize {
        let packet: Vec<u8> = (0..round % 1_400)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random.to_le_bytes()[0]
            })
            .collect();
        // Every other one begins as an Initial packet of QUIC version 1.
        let begin: &[u8] = if round % 2 == 0 { b"\xc3\0\0\0\x01\x08" } else { b"" };
        socket
            .send_to(&[begin, &packet].concat(), pair.relay_address())
            .expect("loopback takes it");
    }
    let (_again, _) = pair.connect().await;
    ends.device.0.try_send(CONTROL, 0, "alive".into()).expect("there is room");
    assert_eq!(
        next(&mut ends.relay.1).await,
        Event::Bytes { stream: CONTROL, bytes: "alive".into() }
    );
}

#[tokio::test]
async fn a_peer_that_breaks_off_a_stream_is_closed() {
    let relay = endpoint(2, Limits::RELAY);
    let stranger = quinn::Endpoint::client(loopback()).expect("loopback is free");
    let address = relay.local_addr().expect("it is bound");
    let config = client(raw_key(identity(1, raw(1))), "fieldkeep/1");
    let connecting = stranger.connect_with(config, address, "x").expect("it can be dialled");
    let (connection, accepted) = within(async { tokio::join!(connecting, admit(&relay)) }).await;
    let connection = connection.expect("the relay lets it in");
    let (_sender, mut receiver) = accepted.expect("it has a key").carry(Role::Acceptor);
    let mut stream = connection.open_uni().await.expect("64 are allowed");
    stream.write_all(b"half a").await.expect("there is room");
    assert!(matches!(next(&mut receiver).await, Event::Bytes { .. }));
    stream.reset(3_u32.into()).expect("it is open");
    let Event::Closed { reason } = next(&mut receiver).await else { panic!("it is closed") };
    assert_eq!((reason.code, reason.by_peer), (Some(BROKEN_OFF), false));
}
