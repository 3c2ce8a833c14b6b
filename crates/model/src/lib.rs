//! What is said: the vocabulary that every other room speaks.
//!
//! Ids, change headers, version vectors, edits, signed statements, the membership log, verdicts and
//! statuses. Contains no input or output, no clock and no source of randomness: times, seeds and
//! bytes are arguments.

pub mod blob;
pub mod edit;
pub mod head;
pub mod header;
pub mod id;
pub mod intent;
pub mod key;
pub mod membership;
pub mod peer_address;
pub mod receipt;
pub mod status;
pub mod ticket;
pub mod vector;
pub mod verdict;
pub mod writing;

pub use blob::{BlobTree, TreeBuilder, TreeError};
pub use edit::{Edit, RecordEdit, Scalar};
pub use head::{Head, SignedHead};
pub use header::{ChangeHeader, HeaderError};
pub use id::{
    ActorId, BlobHash, CatalogHash, Chain, ChangeHash, DeviceNumber, Epoch, OrgId, Pos, RecordHash,
    RecordId, RecordKey, Scope, SegmentAddress, SegmentId, Seq, TypeName,
};
pub use intent::{CallEffect, CallOutcome, Intent, Refusal, Wish};
pub use key::{KeyPair, PublicKey, Seed, Signature, Signed};
pub use membership::{Grant, Member, MembershipError, MembershipLog};
pub use peer_address::{PeerAddress, PeerAddressError};
pub use receipt::Receipt;
pub use ticket::Ticket;
pub use vector::{Stamp, VersionVector};
pub use verdict::{Culprit, Judged, Outcome, Reason, Verdict, VerdictBlock};
pub use writing::{Part, Writing};
