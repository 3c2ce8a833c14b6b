//! What is exchanged: frames and sessions of the sync protocol, ALPN `fieldkeep/1`.
//!
//! Contains no networking code, no storage and no clock. Bytes go in, frames come out; whether a
//! frame may come now is decided here, what it means is decided by the engines.

pub mod blob;
pub mod bundle;
pub mod frame;
pub mod meet;
pub mod offer;
pub mod report;
pub mod session;

pub use frame::{Code, DecodeError, FileFrame, Frame, FrameBuffer, Framed};
pub use meet::{Anchor, Meet, Standpoint};
pub use offer::{Offer, OfferEntry, root};
pub use report::{Report, TypeHeld};
pub use session::{Phase, Role, Session, Violation};

/// A frame that says nothing: of a type that everybody passes over. Who calls a stranger opens the
/// control stream with it, and leaves the first word to him.
pub const NOTHING: [u8; 2] = [0, 0];
/// The protocol version that this software speaks.
pub const VERSION: u32 = 1;
/// The longest frame that this software accepts, in bytes; both sides state theirs.
pub const FRAME_MAX: u32 = 2 * 1024 * 1024;
/// How many bytes of a segment's log a relay sends ahead of the device's last confirmation.
pub const WINDOW: u64 = 1024 * 1024;
/// How many bytes of changes a batch is filled with.
pub const BATCH: usize = 256 * 1024;

/// How many bytes of changes a device sends another one ahead of its last confirmation: what is sent
/// again after a cut.
pub const PEER_WINDOW: u64 = 64 * 1024;

/// What somebody understands beyond version 1, a bit each.
pub mod capability {
    /// Receipts as statements that the relay signs.
    pub const RECEIPTS: u64 = 1;
    /// Reports: a relay that says so keeps what devices say of themselves.
    pub const REPORTS: u64 = 2;
}

/// The priorities of the streams: higher goes first.
pub mod priority {
    /// The control stream.
    pub const CONTROL: i32 = 50;
    /// Changes as they happen.
    pub const LIVE: i32 = 40;
    /// A device's own changes.
    pub const PUSH: i32 = 30;
    /// What a device missed.
    pub const DELTA: i32 = 20;
    /// Attached files: whatever else there is goes first.
    pub const BLOB: i32 = 0;
}
