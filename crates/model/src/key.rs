//! Keys and signatures: ed25519, always over a context string and exact bytes.
//!
//! Draws no randomness: a key pair is derived from a [`Seed`] that the shell drew. Never prints
//! secret bytes.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

/// 32 secret bytes, from which a member's keys are derived under different context strings.
#[derive(Clone)]
pub struct Seed(pub [u8; 32]);

impl Seed {
    /// The key pair that signs statements.
    #[must_use]
    pub fn signing(&self) -> KeyPair {
        KeyPair::from_secret(blake3::derive_key("fieldkeep 1 signing key", &self.0))
    }

    /// The secret of the key pair that TLS uses; its public half is certified by no one, but bound
    /// to the signing key in the membership log.
    #[must_use]
    pub fn tls(&self) -> KeyPair {
        KeyPair::from_secret(blake3::derive_key("fieldkeep 1 tls key", &self.0))
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(secret)")
    }
}

/// An ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct PublicKey(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

impl PublicKey {
    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether this key signed those bytes under that context.
    #[must_use]
    pub fn verifies(&self, context: &str, bytes: &[u8], signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else { return false };
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(&message(context, bytes), &signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", data_encoding::HEXLOWER.encode(&self.0[..6]))
    }
}

/// An ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Signature(#[cbor(with = "minicbor::bytes")] pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", data_encoding::HEXLOWER.encode(&self.0[..6]))
    }
}

/// A secret key with its public half.
#[derive(Clone)]
pub struct KeyPair(SigningKey);

impl KeyPair {
    /// The key pair of 32 secret bytes.
    #[must_use]
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&secret))
    }

    /// The secret bytes, for a key file or a ticket.
    #[must_use]
    pub fn secret(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs bytes under a context.
    #[must_use]
    pub fn sign(&self, context: &str, bytes: &[u8]) -> Signature {
        Signature(self.0.sign(&message(context, bytes)).to_bytes())
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.public())
    }
}

/// What is signed: the context's length, the context, the bytes.
fn message(context: &str, bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(1 + context.len() + bytes.len());
    message.push(u8::try_from(context.len()).expect("contexts are short literals"));
    message.extend_from_slice(context.as_bytes());
    message.extend_from_slice(bytes);
    message
}

/// A signed statement: the exact bytes, kept verbatim, and the signature over them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Signed {
    /// The statement as it was signed.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
    /// The signature over the context of its kind and the bytes.
    #[n(1)]
    pub signature: Signature,
}

impl Signed {
    /// Encodes and signs a statement.
    pub fn new<T: Encode<()>>(context: &str, statement: &T, keys: &KeyPair) -> Self {
        let bytes = minicbor::to_vec(statement).expect("encoding into memory cannot fail");
        let signature = keys.sign(context, &bytes);
        Self { bytes, signature }
    }

    /// blake3 of the bytes: what names the statement.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(&self.bytes).as_bytes()
    }

    /// The statement, if that key signed it under that context.
    #[must_use]
    pub fn open<'b, T: Decode<'b, ()>>(&'b self, context: &str, key: &PublicKey) -> Option<T> {
        key.verifies(context, &self.bytes, &self.signature).then(|| self.read()).flatten()
    }

    /// The statement, unverified: for bytes that were verified before they were stored.
    #[must_use]
    pub fn read<'b, T: Decode<'b, ()>>(&'b self) -> Option<T> {
        minicbor::decode(&self.bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_binds_context_and_bytes() {
        let keys = Seed([7; 32]).signing();
        let signature = keys.sign("a", b"text");
        assert!(keys.public().verifies("a", b"text", &signature));
        assert!(!keys.public().verifies("b", b"text", &signature));
        assert!(!keys.public().verifies("a", b"texT", &signature));
        assert!(!Seed([8; 32]).signing().public().verifies("a", b"text", &signature));
    }

    #[test]
    fn the_tls_key_and_the_signing_key_differ() {
        let seed = Seed([7; 32]);
        assert_ne!(seed.signing().public(), seed.tls().public());
    }
}
