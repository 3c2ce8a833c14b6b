//! The membership log: who belongs to an organisation, and what each may do.
//!
//! Append-only; every entry names the one before it and is signed by the admin key, but for a join,
//! which the invitation's one-time key signs, a device's new keys, which its old ones sign, the
//! admission of either, which a relay signs, and what the recovery key signs. Every replica holds it
//! and folds it to the same members, in whatever order entries came.

mod log;
mod member;
mod request;

pub use log::{MembershipError, MembershipLog};
pub use member::{Grant, Invitation, Member};
pub use request::{PaperError, SignedEntry, SigningRequest, Wanted};

use minicbor::{Decode, Encode};

use crate::id::{ActorId, ChangeHash, DeviceNumber, SegmentId, Seq};
use crate::key::{KeyPair, PublicKey, Signed};

/// The context under which entries are signed.
pub const CONTEXT: &str = "fieldkeep 1 membership";
/// The gate version that this software speaks.
pub const GATE_VERSION: u32 = 1;

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Act {
    /// Founds the organisation; always the first entry.
    #[n(0)]
    Found {
        /// The organisation's name.
        #[n(0)]
        name: String,
        /// The key that signs all but joins.
        #[n(1)]
        admin: PublicKey,
        /// The gate version of the whole organisation.
        #[n(2)]
        gate: u32,
        /// Makes two organisations of one name and key differ.
        #[cbor(n(3), with = "minicbor::bytes")]
        salt: [u8; 16],
    },
    /// Makes a relay a member.
    #[n(1)]
    Relay {
        /// Its keys.
        #[n(0)]
        keys: MemberKeys,
        /// Its name.
        #[n(1)]
        name: String,
    },
    /// Invites one device.
    #[n(2)]
    Invite {
        /// The public half of the one-time key in the ticket.
        #[n(0)]
        key: PublicKey,
        /// The name that the member will have.
        #[n(1)]
        name: String,
        /// What the member will be granted.
        #[n(2)]
        grants: Vec<Grant>,
        /// When the invitation ends, milliseconds UTC by the relay's clock.
        #[n(3)]
        expires_ms: i64,
    },
    /// Takes up an invitation; signed with its one-time key. Nobody is a member by it before a
    /// relay has admitted it.
    #[n(3)]
    Join {
        /// The index of the invitation's entry.
        #[n(0)]
        invite: u64,
        /// The device's keys, made on the device.
        #[n(1)]
        keys: MemberKeys,
    },
    /// Replaces what a member is granted.
    #[n(4)]
    Grant {
        /// The member's signing key.
        #[n(0)]
        member: PublicKey,
        /// What it may from now on.
        #[n(1)]
        grants: Vec<Grant>,
        /// What the relay holds of it where the new grants do not reach.
        #[n(2)]
        cuts: Vec<CutOff>,
    },
    /// Takes a member's permissions away for good.
    #[n(5)]
    Revoke {
        /// The member's signing key.
        #[n(0)]
        member: PublicKey,
        /// What the relay holds of it.
        #[n(1)]
        cuts: Vec<CutOff>,
    },
    /// Admits whoever joins, or takes new keys, by the entry right before it: a relay took a join while
    /// the invitation was good. Signed by that relay.
    #[n(6)]
    Admit {
        /// The relay's number.
        #[n(0)]
        relay: DeviceNumber,
    },
    /// Gives a device another name.
    #[n(7)]
    Rename {
        /// The member's signing key.
        #[n(0)]
        member: PublicKey,
        /// Its name from now on.
        #[n(1)]
        name: String,
    },
    /// Replaces the admin key, which signs this.
    #[n(8)]
    RotateAdmin {
        /// The key that signs what follows.
        #[n(0)]
        admin: PublicKey,
        /// The ends of other branches that stand: what the old key signed elsewhere is void.
        #[cbor(n(1), with = "hashes")]
        others: Vec<[u8; 32]>,
    },
    /// Names the key that can replace a lost admin key. The admin key signs the first; who is named
    /// already signs for another.
    #[n(9)]
    NameRecovery {
        /// The recovery key.
        #[n(0)]
        key: PublicKey,
    },
    /// Replaces the admin key; signed by the recovery key.
    #[n(10)]
    Recover {
        /// The key that signs what follows.
        #[n(0)]
        admin: PublicKey,
        /// As in a rotation.
        #[cbor(n(1), with = "hashes")]
        others: Vec<[u8; 32]>,
    },
    /// Replaces a relay's keys.
    #[n(11)]
    RotateRelay {
        /// The signing key that it has.
        #[n(0)]
        relay: PublicKey,
        /// The keys that it will have.
        #[n(1)]
        keys: MemberKeys,
    },
    /// Replaces a device's keys; signed with the ones that it has. They are its keys only once a relay
    /// has admitted that.
    #[n(12)]
    RotateDevice {
        /// The signing key that it has.
        #[n(0)]
        member: PublicKey,
        /// The keys that it will have.
        #[n(1)]
        keys: MemberKeys,
    },
}

impl Act {
    /// Whether a relay's admission has to follow it.
    #[must_use]
    pub fn awaits_admission(&self) -> bool {
        matches!(self, Self::Join { .. } | Self::RotateDevice { .. })
    }

    /// Whose permissions it changes, to what, and how far what the member wrote stays authorised.
    #[must_use]
    pub fn permissions(&self) -> Option<(&PublicKey, &[Grant], &[CutOff])> {
        match self {
            Self::Grant { member, grants, cuts } => Some((member, grants, cuts)),
            Self::Revoke { member, cuts } => Some((member, &[], cuts)),
            Self::Found { .. }
            | Self::Relay { .. }
            | Self::Invite { .. }
            | Self::Join { .. }
            | Self::Admit { .. }
            | Self::Rename { .. }
            | Self::RotateAdmin { .. }
            | Self::NameRecovery { .. }
            | Self::Recover { .. }
            | Self::RotateRelay { .. }
            | Self::RotateDevice { .. } => None,
        }
    }
}

/// Hashes of entries, as a list of byte strings.
mod hashes {
    use minicbor::bytes::ByteArray;
    use minicbor::decode::{Decoder, Error};
    use minicbor::encode::{self, Encoder, Write};

    pub(super) fn encode<C, W: Write>(
        hashes: &[[u8; 32]],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(hashes.len() as u64)?;
        hashes.iter().try_for_each(|hash| e.bytes(hash).map(drop))
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<[u8; 32]>, Error> {
        let hashes: Vec<ByteArray<32>> = d.decode()?;
        Ok(hashes.into_iter().map(Into::into).collect())
    }
}

/// How far an actor's changes in a segment stay authorised after its member lost the permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CutOff {
    /// The segment.
    #[n(0)]
    pub segment: SegmentId,
    /// One of the member's actors.
    #[n(1)]
    pub actor: ActorId,
    /// The newest of its changes that the relay's log held.
    #[n(2)]
    pub seq: Seq,
    /// That change's hash.
    #[n(3)]
    pub hash: ChangeHash,
}
/// A member's public keys, both derived from one seed that never leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MemberKeys {
    /// Signs statements.
    #[n(0)]
    pub signing: PublicKey,
    /// Proves the connection.
    #[n(1)]
    pub tls: PublicKey,
}

impl MemberKeys {
    /// The public keys of a seed.
    #[must_use]
    pub fn of(seed: &crate::Seed) -> Self {
        Self { signing: seed.signing().public(), tls: seed.tls().public() }
    }
}
/// An entry as it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// blake3 of the entry before, zero for the first.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub previous: [u8; 32],
    /// What it does.
    #[n(1)]
    pub act: Act,
}

/// A relay's admission of whoever joins, or takes new keys, by an entry that it has just looked at.
#[must_use]
pub fn admission(join: &Signed, relay: DeviceNumber, keys: &KeyPair) -> Signed {
    Signed::new(CONTEXT, &Entry { previous: join.digest(), act: Act::Admit { relay } }, keys)
}
