//! The membership log: who belongs to an organisation, and what each may do.
//!
//! Append-only; every entry names the one before it and is signed by the admin key, but for a join,
//! which the invitation's one-time key signs, and its admission, which a relay signs. Every replica
//! holds it and folds it to the same members, in whatever order entries came.

mod log;
mod member;

pub use log::{MembershipError, MembershipLog};
pub use member::{Grant, Invitation, Member};

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
    /// Admits whoever joins by the entry right before it: a relay took the join while the invitation
    /// was good. Signed by that relay.
    #[n(6)]
    Admit {
        /// The relay's number.
        #[n(0)]
        relay: DeviceNumber,
    },
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

/// A relay's admission of whoever joins by an entry that it has just looked at.
#[must_use]
pub fn admission(join: &Signed, relay: DeviceNumber, keys: &KeyPair) -> Signed {
    Signed::new(CONTEXT, &Entry { previous: join.digest(), act: Act::Admit { relay } }, keys)
}
