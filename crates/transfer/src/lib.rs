//! What is handed over: the bytes of attached files, each on a lane of its own, or in a bundle.
//!
//! Devices and relays give and take files alike, and this is what they share: frames on a lane, giving
//! a file from a byte on, taking one in, showing that one has it, and all of that by a bundle. It
//! decides nothing: who may give or have a file is said by whoever calls. Bytes are verified as they
//! come, group by group; memory is bounded by a window or a piece, whatever the file's length.

mod enclosures;
mod giving;
mod possession;
mod taking;
mod talk;

pub use enclosures::{ArriveError, Arrived, Arriving, Enclosures, enclose, upload};
pub use giving::{Given, answer, give};
pub use possession::possession;
pub use taking::{Brought, take};
pub use talk::{Talk, TransferError};
