//! Receipts: what a relay signs of a change that is durable there.
//!
//! A device that never sees the relay can be shown one by another device: it is as good there as it
//! was where it was issued, for as long as its epoch lasts.

use minicbor::{Decode, Encode};

use crate::id::{ActorId, ChangeHash, Epoch, OrgId, Pos, SegmentId, Seq};

/// The context under which receipts are signed.
pub const CONTEXT: &str = "fieldkeep 1 receipt";

/// The change is durable on the relay, and with it all earlier ones of its actor, because each names
/// the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Receipt {
    /// The organisation.
    #[n(0)]
    pub org: OrgId,
    /// The epoch of the relay's log. A reset of the log voids the receipt.
    #[n(1)]
    pub epoch: Epoch,
    /// The segment.
    #[n(2)]
    pub segment: SegmentId,
    /// The change's author.
    #[n(3)]
    pub actor: ActorId,
    /// The author's counter.
    #[n(4)]
    pub seq: Seq,
    /// The change.
    #[n(5)]
    pub hash: ChangeHash,
    /// The log's end when it was signed: the change lies at or before that position.
    #[n(6)]
    pub pos: Pos,
}
