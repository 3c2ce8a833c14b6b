//! Bundles: what a relay takes from a device by a file, and what goes back the same way: the log,
//! verdicts, receipts, proofs and attached files, as a session and its lanes would bring them.
//!
//! Nothing is kept of who has taken which bundle: where a device stands, its own last bundle says.

mod accepting;
mod packing;
mod unpacking;

pub use packing::Packing;
pub use unpacking::Unpacking;
