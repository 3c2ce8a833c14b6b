//! Stamped version vectors: under the admission rules the vector names the change set exactly.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::id::{ActorId, ChangeHash, Seq};

/// An actor's newest change: its seq and the first 8 bytes of its hash, which tell a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Stamp {
    /// The newest seq.
    #[n(0)]
    pub seq: Seq,
    /// The first 8 bytes of that change's hash.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub hash: [u8; 8],
}

impl Stamp {
    /// The stamp of a change.
    #[must_use]
    pub fn new(seq: Seq, hash: &ChangeHash) -> Self {
        Self { seq, hash: hash.0[..8].try_into().expect("eight bytes") }
    }
}

/// For each actor the newest change that a replica holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct VersionVector {
    /// The stamps by actor.
    #[n(0)]
    pub stamps: BTreeMap<ActorId, Stamp>,
}

impl VersionVector {
    /// The newest seq held of an actor, 0 if none.
    #[must_use]
    pub fn seq(&self, actor: &ActorId) -> Seq {
        self.stamps.get(actor).map_or(0, |stamp| stamp.seq)
    }

    /// Notes a change; changes of one actor come in order.
    pub fn note(&mut self, actor: ActorId, seq: Seq, hash: &ChangeHash) {
        self.stamps.insert(actor, Stamp::new(seq, hash));
    }

    /// What `self` holds and `other` lacks: by actor, the first seq to send.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> BTreeMap<ActorId, Seq> {
        let newer = self.stamps.iter().filter(|(actor, stamp)| stamp.seq > other.seq(actor));
        newer.map(|(actor, _)| (*actor, other.seq(actor) + 1)).collect()
    }

    /// How many changes the vector names.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.stamps.values().map(|stamp| stamp.seq).sum()
    }
}
