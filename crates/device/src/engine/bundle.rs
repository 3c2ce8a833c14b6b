//! Bundles: a session in one direction, by a file instead of a connection.
//!
//! What is packed for another device is what it would get at a meeting, from the same hands; for the
//! relay it is what has no receipt. What comes goes the way of the same frames of a session, and the
//! relay's log is followed from where this device stands in it. Attached files go and come as on
//! lanes. A segment or a file that is refused holds up no other.

mod files;
mod packing;
mod unpacking;

use super::peer::PeerId;

pub use packing::Packing;
pub use unpacking::Unpacking;

/// The number of the peer that a bundle is exchanged with; no connection has it.
pub(super) const FILE: PeerId = PeerId::MAX;
