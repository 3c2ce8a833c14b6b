//! Signed heads: one signature over an actor's newest change vouches for its whole chain below,
//! because every change names its author's previous one.

use minicbor::{Decode, Encode};

use crate::id::{ActorId, ChangeHash, OrgId, SegmentId, Seq};
use crate::key::{KeyPair, PublicKey, Signature};

/// The context under which heads are signed.
pub const CONTEXT: &str = "fieldkeep 1 head";

/// What an author says of its newest change in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Head {
    /// The author within the segment; device number, incarnation and key digest are in it.
    #[n(0)]
    pub actor: ActorId,
    /// The newest seq.
    #[n(1)]
    pub seq: Seq,
    /// That change's hash.
    #[n(2)]
    pub hash: ChangeHash,
}

/// A head with its author's signature. Organisation and segment are signed too, but implied by
/// where the head lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedHead {
    /// The statement.
    #[n(0)]
    pub head: Head,
    /// The author's signature.
    #[n(1)]
    pub signature: Signature,
}

impl SignedHead {
    /// Signs a head.
    #[must_use]
    pub fn new(org: &OrgId, segment: &SegmentId, head: Head, keys: &KeyPair) -> Self {
        let signature = keys.sign(CONTEXT, &statement(org, segment, &head, &keys.public()));
        Self { head, signature }
    }

    /// Whether that key signed this head for that segment.
    #[must_use]
    pub fn verifies(&self, org: &OrgId, segment: &SegmentId, key: &PublicKey) -> bool {
        let statement = statement(org, segment, &self.head, key);
        self.head.actor.belongs_to(self.head.actor.device(), key)
            && key.verifies(CONTEXT, &statement, &self.signature)
    }
}

fn statement(org: &OrgId, segment: &SegmentId, head: &Head, key: &PublicKey) -> Vec<u8> {
    [&org.0[..], &segment.0, &head.actor.0, &head.seq.to_be_bytes(), &head.hash.0, &key.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Seed;

    #[test]
    fn a_head_verifies_only_where_and_by_whom_it_was_signed() {
        let keys = Seed([1; 32]).signing();
        let (org, segment) = (OrgId([1; 16]), SegmentId([2; 16]));
        let actor = ActorId::new(3, 0, &keys.public());
        let signed = SignedHead::new(
            &org,
            &segment,
            Head { actor, seq: 4, hash: ChangeHash([5; 32]) },
            &keys,
        );
        assert!(signed.verifies(&org, &segment, &keys.public()));
        assert!(!signed.verifies(&org, &SegmentId([3; 16]), &keys.public()));
        assert!(!signed.verifies(&org, &segment, &Seed([2; 32]).signing().public()));
        let mut moved = signed;
        moved.head.seq = 5;
        assert!(!moved.verifies(&org, &segment, &keys.public()));
    }
}
