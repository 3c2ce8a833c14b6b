//! What stands in bundles besides the frames of a session: attached files, and how far the wishes of a
//! device were told.

use fieldkeep_model::{BlobHash, SegmentId};
use minicbor::{Decode, Encode};

use crate::blob::Upload;
use crate::frame::{DecodeError, Frame, Framed, frames};

frames! {
    /// The frames that stand in bundles only.
    Enclosed:
    /// Which files the writer has.
    Has(Has) = 83,
    /// A file; its bytes follow.
    File(Enclosure) = 85,
    /// Through which of its wishes a device has told the relay, or the relay has heard it.
    Told(Told) = 87,
}

impl Enclosed {
    /// The frame as it stands in the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }
}

/// Files that the writer has, each named by records of one segment that the receiver may read. From a
/// relay that is its receipt for them: it gives them to all who may read the segment. What a device
/// says to a relay leaves out those that wait for one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Has {
    /// The segment.
    #[n(0)]
    pub segment: SegmentId,
    /// The files.
    #[n(1)]
    pub files: Vec<BlobHash>,
    /// Whether the receiver is known to have them too.
    #[n(2)]
    pub both: bool,
}

/// A file that is in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Enclosure {
    /// The file, and a record that names it.
    #[n(0)]
    pub file: Upload,
    /// Whether the writer has not heard that the relay has it: who takes it carries it there.
    #[n(1)]
    pub waits: bool,
}

/// How far wishes were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Told {
    /// The number of the last one.
    #[n(0)]
    pub number: u64,
}

/// What a bundle consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A frame as in a session.
    Frame(Frame),
    /// One that stands in bundles only.
    Enclosed(Enclosed),
    /// The next bytes of the file that was named last. Nothing but the file's name vouches for them.
    Piece(Vec<u8>),
}

impl Entry {
    pub(super) fn decode(number: u64, body: &[u8]) -> Result<Option<Self>, DecodeError> {
        match Enclosed::decode(number, body) {
            Err(DecodeError::Unknown(_)) | Ok(None) => {
                Ok(Frame::decode(number, body)?.map(Self::Frame))
            }
            enclosed => Ok(enclosed?.map(Self::Enclosed)),
        }
    }
}

/// What is written next into a bundle in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Encoded frames.
    Frames(Vec<u8>),
    /// A file, with its bytes.
    File(Box<Enclosure>),
}

/// Whether a bundle brings the bytes of attached files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enclosing {
    /// Those that the receiver may have and is not known to have.
    #[default]
    Files,
    /// None of them.
    NoFiles,
}
