//! The field side: the library that an application embeds.
//!
//! [`Device`] is durable before it returns, reads without loading a document, and syncs when it is
//! told to. [`Engine`] beneath it is sans-IO: frames go in, and what leaves comes out of
//! [`Engine::commit`], after the disk has what it speaks of.

mod device;
mod engine;
mod join;
mod nearby;
mod reach;
mod sync;

pub use device::{Device, Event, OpenError, Remote, fresh_id};
pub use engine::{
    Engine, Input, Output, PROVEN, PeerId, PeerInput, PeerOutput, PeerProgress, Progress,
};
pub use join::{JoinError, application, introduction, join};
pub use nearby::finding::Neighbour;
pub use nearby::{Listener, MeetError};
pub use reach::jittered;
pub use sync::{SyncError, SyncReport};

pub use fieldkeep_replica::{PutError, RecordView, Wrote};
