//! What was packed into a bundle, and what became of one that was taken in: alike for devices and
//! relays.

use std::fmt;

use fieldkeep_model::{BlobHash, RecordKey, SegmentAddress, SegmentId};

/// Refusals that are told one by one.
const TOLD: usize = 16;

/// What was packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Changes.
    pub changes: u64,
    /// Receipts, from a relay.
    pub receipts: u64,
    /// Segments of which there is anything in it.
    pub segments: u64,
    /// Attached files.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Files that belong in it and could not be read: `doctor` tells which.
    pub unread_files: u64,
}

impl Packed {
    /// Counts a file of so many bytes, of which all are in it or not.
    pub fn note_file(&mut self, size: u64, whole: bool) {
        if whole {
            self.files += 1;
            self.file_bytes += size;
        } else {
            self.unread_files += 1;
        }
    }
}

/// What was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Changes or verdicts of a segment, which may have been named or not.
    Segment(SegmentId, Option<SegmentAddress>),
    /// A file that a record names.
    File(RecordKey, BlobHash),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(_, Some(address)) => address.fmt(f),
            Self::Segment(id, None) => write!(f, "segment {id}"),
            Self::File(record, hash) => write!(f, "file {:.8} of {record}", hash.to_string()),
        }
    }
}

/// What was not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotTaken {
    /// What.
    pub subject: Subject,
    /// Why: the code of the gate, or of a file's lane.
    pub code: String,
    /// The same in words.
    pub text: String,
}

/// What a bundle brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// The name of whoever wrote it.
    pub from: String,
    /// Changes that were not here.
    pub changes: u64,
    /// Files that were not here, or not yet shown to be those of whoever wrote it.
    pub files: u64,
    /// Changes that are kept aside, because their author may not write there; on a relay.
    pub aside: u64,
    /// Changes of this device, and of those for whom it carried them, that have a receipt by now.
    pub saved: u64,
    /// Files that waited here and are on the relay by now.
    pub saved_files: u64,
    /// Segments that were proven equal to the relay's.
    pub proven: u64,
    /// Segments that this device leaves out, because their type is paused or their scope was not
    /// subscribed to.
    pub left_out: u64,
    /// How many segments and files were refused.
    pub refused: u64,
    /// The first of them.
    pub not_taken: Vec<NotTaken>,
    /// What a proof found wrong here, by segment.
    pub unequal: Vec<SegmentAddress>,
}

impl Unpacked {
    /// Notes that something was not taken.
    pub fn refuse(&mut self, subject: Subject, code: &str, text: &str) {
        self.refused += 1;
        if self.not_taken.len() < TOLD {
            let (code, text) = (code.to_owned(), text.to_owned());
            self.not_taken.push(NotTaken { subject, code, text });
        }
    }
}
