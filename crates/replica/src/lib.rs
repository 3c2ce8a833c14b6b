//! What happens: admission, the log, materialising, judging and verdicts, on one store.
//!
//! A [`Replica`] is the engine that devices and relays share. It takes times and randomness as
//! arguments, knows no network, no thread and no clock. Everything that it writes becomes durable
//! together, with [`Replica::commit`]; the shell lets nothing out before that.

mod acceptance;
mod admit;
mod adopt;
mod archive;
mod blame;
mod cache;
mod carry;
mod compact;
mod culprits;
pub mod doctor;
mod extent;
mod fork;
mod generations;
mod identity;
pub mod integrity;
mod judging;
mod log;
mod materialise;
mod mending;
mod not_taken;
mod online;
mod past;
mod permission;
mod proof;
mod publishing;
mod quota;
mod read;
mod receipts;
mod received;
mod rehearsal;
mod renewal;
mod replica;
mod reshape;
mod rotation;
mod steps;
mod taint;
mod verdicts;
mod witness;
mod write;

pub use acceptance::{ACCEPTED, Accepted, Accepting};
pub use admit::{AdmitError, Batch, BatchError, Received, Refused};
pub use adopt::Adopted;
pub use archive::PastSegment;
pub use blame::Blame;
pub use cache::RELAY_MEMORY;
pub use carry::{Carried, Known, UndecidedFork};
pub use doctor::{Check, Finding};
pub use generations::stored_generations;
pub use identity::{Me, Role};
pub use integrity::Integrity;
pub use log::{Item, Stretch};
pub use materialise::Materialised;
pub use not_taken::NotTaken;
pub use online::{Standing, WriteForError, WrittenFor};
pub use past::{FieldChange, HistoryEntry, HistoryError, HistoryPage, Moment, WriterView};
pub use proof::SegmentProof;
pub use publishing::{
    KeptCatalog, Note, Published, RollBackError, earlier_catalog, kept_catalogs, unpublishable,
};
pub use quota::{OVER_QUOTA, OverQuota};
pub use read::{
    AttentionView, CulpritView, HeldView, Reading, RecordView, Referrers, TypeCounts, Views,
};
pub use received::{Follow, FollowError, Settled};
pub use rehearsal::{Fate, Rehearsal};
pub use renewal::{RenewalProgress, Renewed, stored_renewal};
pub use replica::{Replica, ReplicaError};
pub use reshape::{Reshape, ReshapeError, Reshaped, Reshaping, rehearse_reshape, stored_reshape};
pub use verdicts::VerdictPage;
pub use witness::StatementError;
pub use write::{OutgoingBatch, PutError, Wrote, declared};

/// The target of spans that tell how long parts of what is being done take. Whoever listens makes them only
/// within a span of its own choice, so that they cost nothing elsewhere; no clock is read here for them.
pub const PART: &str = "fieldkeep::traces::part";
