//! The frames of attached files. Each file has a stream of its own, which begins with what is asked
//! for; after [`Ready`], or [`Tree`], the file's bytes follow as they are until its end, and the other
//! direction says how far they came.

use fieldkeep_model::{BlobHash, RecordKey};
use minicbor::{Decode, Encode};

/// The longest frame of a file's stream, in bytes: a tree has at most half of it.
pub const BLOB_FRAME_MAX: u32 = 1024 * 1024;
/// Bytes of a file that are sent ahead of the last [`Got`].
pub const BLOB_WINDOW: u64 = 256 * 1024;

/// A device has a file that a record names.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Upload {
    /// The file.
    #[n(0)]
    pub hash: BlobHash,
    /// The record.
    #[n(1)]
    pub record: RecordKey,
    /// The file's length in bytes.
    #[n(2)]
    pub size: u64,
    /// The values of its groups.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub tree: Vec<u8>,
}

/// A file is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Download {
    /// The file.
    #[n(0)]
    pub hash: BlobHash,
    /// A record that names it.
    #[n(1)]
    pub record: RecordKey,
}

/// The bytes from there on are to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ready {
    /// How many are there already.
    #[n(0)]
    pub from: u64,
}

/// The file is there, and whoever names it has to show that he has it as well.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Prove {
    /// The key of the hash that is asked for: drawn anew each time.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub salt: [u8; 32],
}

/// That he has.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Possession {
    /// blake3 of the file's bytes, keyed with the salt.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub digest: [u8; 32],
}

/// All of the file is there, and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Whole {
    /// The file.
    #[n(0)]
    pub hash: BlobHash,
}

/// The file is not taken, or not given.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Unfit {
    /// Why, as a word.
    #[n(0)]
    pub code: String,
    /// What it means, for people.
    #[n(1)]
    pub text: String,
    /// Whether it may be otherwise in a moment.
    #[n(2)]
    pub again: bool,
}

/// What verifies the file that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Tree {
    /// The file's length in bytes.
    #[n(0)]
    pub size: u64,
    /// The values of its groups.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub tree: Vec<u8>,
    /// Whether whoever gives it waits for the relay to have it, as far as he knows; absent if not.
    #[n(2)]
    pub waits: Option<bool>,
}

/// So much of the file came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Got {
    /// The bytes before that one are there.
    #[n(0)]
    pub at: u64,
}

/// A device asks which files were removed, or have come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Removals {
    /// Behind that number of the relay's.
    #[n(0)]
    pub since: u64,
}

/// A file that was removed because nothing referred to it, or that has come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Removal {
    /// The file.
    #[n(0)]
    pub hash: BlobHash,
    /// When it was removed, milliseconds UTC; nothing once it is back.
    #[n(1)]
    pub time: Option<i64>,
}

/// Files that were removed or have come back; the one that was asked for, in answer to a [`Download`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Removed {
    /// The relay's number through which these are all that the device may know of.
    #[n(0)]
    pub number: u64,
    /// The files.
    #[n(1)]
    pub files: Vec<Removal>,
}
