//! The ids: one newtype each, parsed at the boundary and trusted afterwards.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// A position in a segment's log; the first entry has position 1, and 0 means "before the first".
pub type Pos = u64;
/// An actor's change counter within one segment; the first change has 1.
pub type Seq = u64;
/// A member's number: the index of the entry of the membership log that admitted it.
pub type DeviceNumber = u64;

macro_rules! bytes_id {
    ($(#[$meta:meta])* $name:ident, $len:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(with = "minicbor::bytes")] pub [u8; $len]);

        impl $name {
            /// The length in bytes.
            pub const LEN: usize = $len;

            /// Reads the id from exactly as many bytes as it has.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The raw bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let short = &self.0[..self.0.len().min(6)];
                write!(f, "{}({})", stringify!($name), data_encoding::HEXLOWER.encode(short))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
                bytes.as_deref().and_then(Self::from_slice).ok_or(InvalidId::NotHex($len))
            }
        }
    };
}

bytes_id! {
    /// An organisation: the first 16 bytes of blake3 over the first entry of its membership log.
    OrgId, 16
}
bytes_id! {
    /// A segment: see [`SegmentAddress::id`].
    SegmentId, 16
}
bytes_id! {
    /// An Automerge change: SHA-256 of its chunk's type, length and body.
    ChangeHash, 32
}
bytes_id! {
    /// An Automerge actor: device number (8 bytes, big-endian), incarnation (4, big-endian) and the
    /// first 8 bytes of blake3(device public key), so that ids sort by the age of the enrolment.
    ActorId, 20
}
bytes_id! {
    /// The running digest of a log: `chain(pos) = blake3(chain(pos - 1) || hash)`, 16 bytes.
    Chain, 16
}
bytes_id! {
    /// A catalog: blake3 of its file's bytes.
    CatalogHash, 32
}
bytes_id! {
    /// A record's content: blake3 of its canonical JSON.
    RecordHash, 32
}
bytes_id! {
    /// A file that is attached to a record: blake3 of its bytes.
    BlobHash, 32
}

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Not hexadecimal, or of another length (in bytes).
    #[error("expected {0} bytes in hexadecimal")]
    NotHex(usize),
    /// A record id is 1 to 128 bytes.
    #[error("a record id has 1 to 128 bytes, this one has {0}")]
    RecordIdLength(usize),
    /// A record id holds no slash and no control character.
    #[error("a record id holds no `/` and no control characters")]
    RecordIdCharacter,
    /// A type or field name is a letter, then letters, digits and underscores, 64 bytes at most.
    #[error(
        "`{0}` is not a name: use lower-case letters, digits and `_`, beginning with a letter, at most 64"
    )]
    Name(String),
    /// A record is addressed as TYPE/ID.
    #[error("`{0}` does not name a record: write TYPE/ID, as in order/7")]
    RecordKey(String),
}

impl ActorId {
    /// Puts an actor id together from its three parts.
    #[must_use]
    pub fn new(device: DeviceNumber, incarnation: u32, key: &crate::PublicKey) -> Self {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&device.to_be_bytes());
        bytes[8..12].copy_from_slice(&incarnation.to_be_bytes());
        bytes[12..].copy_from_slice(&blake3::hash(key.as_bytes()).as_bytes()[..8]);
        Self(bytes)
    }

    /// The number of the member whose actor this is.
    #[must_use]
    pub fn device(&self) -> DeviceNumber {
        u64::from_be_bytes(self.0[..8].try_into().expect("eight bytes"))
    }

    /// Which life of the device wrote: it changes after every restore.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        u32::from_be_bytes(self.0[8..12].try_into().expect("four bytes"))
    }

    /// Whether this actor belongs to the member with that number and key.
    #[must_use]
    pub fn belongs_to(&self, device: DeviceNumber, key: &crate::PublicKey) -> bool {
        *self == Self::new(device, self.incarnation(), key)
    }
}

impl Chain {
    /// The chain of an empty log.
    pub const START: Self = Self([0; 16]);

    /// The chain after one more entry.
    #[must_use]
    pub fn extend(&self, hash: &ChangeHash) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(&hash.0);
        let digest = hasher.finalize();
        Self(digest.as_bytes()[..16].try_into().expect("sixteen bytes"))
    }
}

impl RecordHash {
    /// The hash of a record's canonical JSON.
    #[must_use]
    pub fn of(canonical: &str) -> Self {
        Self(*blake3::hash(canonical.as_bytes()).as_bytes())
    }
}

impl CatalogHash {
    /// The hash of a catalog file.
    #[must_use]
    pub fn of(source: &str) -> Self {
        Self(*blake3::hash(source.as_bytes()).as_bytes())
    }
}

/// The life of a relay's log: a restore opens the next one, a crash does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Epoch {
    /// Rises with every restore.
    #[n(0)]
    pub counter: u64,
    /// Drawn when the epoch is opened, so that two restores of one copy differ.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub salt: [u8; 8],
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.counter, data_encoding::HEXLOWER.encode(&self.salt))
    }
}

/// The name of an object type, such as `order`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(try_from = "String", into = "String")]
pub struct TypeName(#[n(0)] String);

impl TypeName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`InvalidId::Name`] when it is not a lower-case identifier of at most 64 bytes.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidId> {
        let name = name.into();
        if is_name(&name) { Ok(Self(name)) } else { Err(InvalidId::Name(name)) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a text may name a type or a field: a lower-case letter, then lower-case letters, digits
/// and underscores, 64 bytes at most.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The id of a record within its type: 1 to 128 bytes, verbatim, no `/`, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(try_from = "String", into = "String")]
pub struct RecordId(#[n(0)] String);

impl RecordId {
    /// Parses a record id.
    ///
    /// # Errors
    /// When it is empty, longer than 128 bytes, or holds a slash or a control character.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidId> {
        let id = id.into();
        if id.is_empty() || id.len() > 128 {
            return Err(InvalidId::RecordIdLength(id.len()));
        }
        if id.chars().any(|c| c == '/' || c.is_control()) {
            return Err(InvalidId::RecordIdCharacter);
        }
        Ok(Self(id))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bucket that holds this record, of `buckets` (a power of two): the first bits of
    /// blake3(id).
    #[must_use]
    pub fn bucket(&self, buckets: u32) -> u32 {
        if buckets <= 1 {
            return 0;
        }
        let digest = blake3::hash(self.0.as_bytes());
        let head = u32::from_be_bytes(digest.as_bytes()[..4].try_into().expect("four bytes"));
        head >> (32 - buckets.trailing_zeros())
    }
}

macro_rules! text_id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                Self::new(d.str()?).map_err(minicbor::decode::Error::custom)
            }
        }
    };
}

text_id!(TypeName);
text_id!(RecordId);

/// The part of a type that a segment holds: the scope field's value at creation, empty if absent.
pub type Scope = String;

/// A record's full name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct RecordKey {
    /// Its object type.
    #[n(0)]
    pub ty: TypeName,
    /// Its id within the type.
    #[n(1)]
    pub id: RecordId,
}

impl RecordKey {
    /// Names a record.
    #[must_use]
    pub fn new(ty: TypeName, id: RecordId) -> Self {
        Self { ty, id }
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ty, self.id)
    }
}

impl FromStr for RecordKey {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (ty, id) = text.split_once('/').ok_or_else(|| InvalidId::RecordKey(text.to_owned()))?;
        Ok(Self { ty: TypeName::new(ty)?, id: RecordId::new(id)? })
    }
}

/// What a segment holds; its [`SegmentId`] is a digest of this and the organisation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct SegmentAddress {
    /// The object type.
    #[n(0)]
    pub ty: TypeName,
    /// The scope field's value, empty if the type has none.
    #[n(1)]
    pub scope: Scope,
    /// How many buckets the type has.
    #[n(2)]
    pub buckets: u32,
    /// Which of them this is.
    #[n(3)]
    pub bucket: u32,
    /// Rises when a type is started afresh.
    #[n(4)]
    pub generation: u32,
}

impl SegmentAddress {
    /// The segment's id: the first 16 bytes of blake3 in derive-key mode over the parts, each
    /// preceded by its length (`docs/format.md`).
    #[must_use]
    pub fn id(&self, org: &OrgId) -> SegmentId {
        let mut hasher = blake3::Hasher::new_derive_key("fieldkeep 1 segment id");
        hasher.update(&org.0);
        for text in [self.ty.as_str(), &self.scope] {
            hasher.update(&(text.len() as u32).to_be_bytes()).update(text.as_bytes());
        }
        for number in [self.buckets, self.bucket, self.generation] {
            hasher.update(&number.to_be_bytes());
        }
        SegmentId(hasher.finalize().as_bytes()[..16].try_into().expect("sixteen bytes"))
    }
}

impl fmt::Display for SegmentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ty)?;
        if !self.scope.is_empty() {
            write!(f, ":{}", self.scope)?;
        }
        if self.buckets > 1 {
            write!(f, "#{}/{}", self.bucket, self.buckets)?;
        }
        Ok(())
    }
}
