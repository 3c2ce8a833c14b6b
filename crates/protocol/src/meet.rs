//! Meeting: what two devices tell each other of what they hold, with no relay between them.
//!
//! Both know the same relay's log, or parts of it: where a device names its place in that log, the
//! few changes that it holds besides are all that is to be compared. Where the places differ, whole
//! version vectors are. Either way the difference is exact.

use fieldkeep_model::{Chain, Judged, Pos, SegmentId, VersionVector};
use minicbor::{Decode, Encode};

/// Where a device stands in segments that both may hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Meet {
    /// The segments.
    #[n(0)]
    pub segments: Vec<Standpoint>,
    /// Whether what no such frame has named is a segment that the sender holds nothing of.
    #[n(1)]
    pub whole: bool,
}

/// Where a device stands in a segment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Standpoint {
    /// The segment.
    #[n(0)]
    pub segment: SegmentId,
    /// The place in the relay's log through which it holds everything, where `held` counts from
    /// there.
    #[n(1)]
    pub anchor: Option<Anchor>,
    /// The newest changes that it holds beyond the anchor, or of all actors where there is none.
    #[n(2)]
    pub held: VersionVector,
    /// The newest changes that it keeps aside, unmerged: they need not be sent.
    #[n(3)]
    pub aside: VersionVector,
    /// How far it has the relay's verdicts.
    #[n(4)]
    pub judged: Option<Judged>,
}

/// A place in a relay's log. The chain proves that two who name it hold the same there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Anchor {
    /// The position.
    #[n(0)]
    pub pos: Pos,
    /// The chain there.
    #[n(1)]
    pub chain: Chain,
}
