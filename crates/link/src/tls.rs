//! TLS 1.3 with raw public keys (RFC 7250): who the other side is, and nothing else.
//!
//! Both sides prove an ed25519 key. Who dials a relay pins the key that it expects; who accepts, or
//! dials whoever is near, lets any key in, because membership is decided above. No certificates, no
//! expiry and so no clock, no session tickets, no early data. The crypto provider is built here,
//! never the process's default.

use std::sync::{Arc, OnceLock};

use fieldkeep_model::{KeyPair, PublicKey};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme,
};

/// What both sides must speak.
const ALPN: &[u8] = b"fieldkeep/1";
/// What precedes an ed25519 secret in PKCS #8 (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// What precedes an ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
const PROVES_TLS13: &str = "the ring provider speaks TLS 1.3";

/// This side's identity.
pub(crate) struct Identity {
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
}

/// Where a dialer's verifier leaves the key that it refused.
pub(crate) type Refused = Arc<OnceLock<PublicKey>>;

impl Identity {
    pub(crate) fn new(keys: &KeyPair) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let secret = [&PKCS8_PREFIX[..], &keys.secret()].concat();
        let signer = provider
            .key_provider
            .load_private_key(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(secret)))
            .expect("any 32 bytes are an ed25519 secret");
        let public = [&SPKI_PREFIX[..], keys.public().as_bytes()].concat();
        let key = Arc::new(CertifiedKey::new(vec![CertificateDer::from(public)], signer));
        Self { provider, key }
    }

    pub(crate) fn accepting(&self) -> Arc<QuicServerConfig> {
        let verifier = AnyKey(Signatures(self.provider.clone()));
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect(PROVES_TLS13)
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.key.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Arc::new(config.try_into().expect(PROVES_TLS13))
    }

    pub(crate) fn dialling(
        &self,
        expected: Option<&PublicKey>,
    ) -> (Arc<QuicClientConfig>, Refused) {
        let refused = Refused::default();
        let verifier = PinnedKey {
            expected: expected.copied(),
            refused: refused.clone(),
            signatures: Signatures(self.provider.clone()),
        };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect(PROVES_TLS13)
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                self.key.clone(),
            )));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        (Arc::new(config.try_into().expect(PROVES_TLS13)), refused)
    }
}

/// The key that the other side of a finished handshake proved.
pub(crate) fn proven(connection: &quinn::Connection) -> Option<PublicKey> {
    let identity = connection.peer_identity()?;
    let keys = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    read(keys.first()?)
}

/// The ed25519 key of a SubjectPublicKeyInfo, if it is one in its only encoding.
fn read(presented: &[u8]) -> Option<PublicKey> {
    presented.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(PublicKey)
}

fn present(presented: &CertificateDer<'_>) -> Result<PublicKey, Error> {
    read(presented).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// Verifies signatures of the handshake: ed25519 and no other scheme.
#[derive(Debug)]
struct Signatures(Arc<CryptoProvider>);

impl Signatures {
    fn verify(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signature.scheme != SignatureScheme::ED25519 {
            return Err(Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon));
        }
        let key = SubjectPublicKeyInfoDer::from(presented.as_ref());
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }
}

fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
}

/// The dialer's view: one key, known beforehand, or whichever is proven.
#[derive(Debug)]
struct PinnedKey {
    expected: Option<PublicKey>,
    refused: Refused,
    signatures: Signatures,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = present(presented)?;
        if self.expected.is_none_or(|expected| key == expected) {
            return Ok(ServerCertVerified::assertion());
        }
        // A handshake presents one key, so the cell is empty.
        let _ = self.refused.set(key);
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify(message, presented, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The acceptor's view: any key, as long as it is proven.
#[derive(Debug)]
struct AnyKey(Signatures);

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        presented: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        present(presented).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify(message, presented, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ed25519_key_in_its_one_encoding_is_read() {
        let key = KeyPair::from_secret([1; 32]).public();
        let whole = [&SPKI_PREFIX[..], key.as_bytes()].concat();
        assert_eq!(read(&whole), Some(key));
        assert_eq!(read(&whole[..43]), None);
        assert_eq!(read(&[&whole[..], &[0]].concat()), None);
        let mut x25519 = whole;
        x25519[8] = 0x6e;
        assert_eq!(read(&x25519), None);
    }
}
