//! Bundles: what one member hands another in a file, where there is no network at all.
//!
//! A bundle is the frames of a session, one way: a header that says whose it is and for whom, the
//! frames, attached files, and the writer's signature over all of it but the bytes of those files,
//! which their names vouch for: a bad byte of a photo costs that photo. It is not encrypted. Contains
//! no file handling: bytes are written to and read from whatever the shell has opened, a frame at a
//! time.

mod enclosed;
mod outcome;
mod reader;
mod survey;
mod writer;

use std::io;

use fieldkeep_model::{Epoch, Member, MembershipLog, OrgId, PublicKey};
use minicbor::{Decode, Encode};

pub use enclosed::{Content, Enclosed, Enclosing, Enclosure, Entry, Has, Told};
pub use outcome::{NotTaken, Packed, Subject, Unpacked};
pub use reader::Reader;
pub use survey::Survey;
pub use writer::Writer;

/// The context under which bundles are signed.
pub const CONTEXT: &str = "fieldkeep 1 bundle";
/// What every bundle begins with.
pub const MAGIC: [u8; 8] = *b"FKBUNDLE";
/// The version that this software writes.
pub const VERSION: u8 = 1;

/// The type of the trailer, which is no frame: nothing follows it.
const TRAILER: u64 = 0;
/// Digest and signature.
const TRAILER_SIZE: usize = 32 + 64;
/// The type of a piece of a file: its body is the file's bytes as they are.
const PIECE: u64 = 89;
/// The bytes of a piece, but for a file's last one.
pub const PIECE_SIZE: u64 = 256 * 1024;

/// Whose a bundle is, for whom, and where its writer stood.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    /// The organisation.
    #[n(0)]
    pub org: OrgId,
    /// The writer's signing key.
    #[n(1)]
    pub from: PublicKey,
    /// The receiver's signing key.
    #[n(2)]
    pub to: PublicKey,
    /// When it was written, milliseconds UTC by the writer's clock.
    #[n(3)]
    pub created: i64,
    /// The epoch of the relay's log, as far as the writer knew.
    #[n(4)]
    pub epoch: Epoch,
    /// The number of the catalog that the writer held, 0 for none.
    #[n(5)]
    pub catalog: u64,
    /// How many entries of the membership log the writer held.
    #[n(6)]
    pub members: u64,
    /// The sum of their hashes, as in [`crate::frame::Hello`].
    #[cbor(n(7), with = "minicbor::bytes")]
    pub members_sum: [u8; 16],
    /// The digest of the bundle that it builds on: what that shows the receiver to have is left out.
    #[n(8)]
    pub since: Option<Digest>,
}

impl Header {
    /// The header of a bundle that somebody writes at that time, with that catalog, from where he
    /// stands in an epoch.
    #[must_use]
    pub fn of(
        members: &MembershipLog,
        (from, to): (PublicKey, PublicKey),
        created: i64,
        (epoch, catalog): (Epoch, u64),
        since: Option<&Survey>,
    ) -> Self {
        Self {
            org: members.org(),
            from,
            to,
            created,
            epoch,
            catalog,
            members: members.len(),
            members_sum: members.sum().to_be_bytes(),
            since: since.map(|since| since.digest),
        }
    }

    /// The sum as a number.
    #[must_use]
    pub fn members_sum(&self) -> u128 {
        u128::from_be_bytes(self.members_sum)
    }
}

/// blake3 of all of a bundle but its trailer and the bytes of its files: what names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Digest(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

/// Why a file cannot be read as a bundle. Nothing of it was taken.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system failed.
    #[error("the bundle cannot be read: {0}")]
    Io(io::Error),
    /// It begins otherwise.
    #[error("this is no bundle")]
    NotABundle,
    /// A later version wrote it: update this software.
    #[error("this bundle is of version {0}, which this software does not know")]
    TooNew(u8),
    /// It ends before its signature: copy it again.
    #[error("the bundle is cut short")]
    CutShort,
    /// It is not what its writer signed: copy it again, or ask for another.
    #[error("the bundle is not what its writer signed: it was altered or damaged")]
    Altered,
    /// It is what its writer signed, and no bundle that this software would write.
    #[error("the bundle holds what no bundle may hold ({0})")]
    Malformed(&'static str),
}

/// Why a sound bundle is not taken, or none is written for that member. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It was written in another organisation.
    #[error("the bundle belongs to another organisation")]
    Foreign,
    /// It is for somebody else, who alone may read it.
    #[error("the bundle was written for {0}")]
    ForAnother(String),
    /// It is for somebody whom nobody here knows.
    #[error("the bundle was written for somebody else")]
    ForAStranger,
    /// Nobody here knows its writer.
    #[error("whoever wrote the bundle is no member of the organisation")]
    Stranger,
    /// It brings a catalog or a receipt that no relay of the organisation signed.
    #[error("the bundle brings what no relay signed")]
    Unsigned,
    /// Everything was taken from its writer, or from whom it is to be for.
    #[error("{0} was revoked")]
    Revoked(String),
    /// Something in it is no change.
    #[error("the bundle brings bytes that are no changes")]
    Nonsense,
    /// An operator is to accept it, and nothing was taken from its writer.
    #[error("{0} was not revoked")]
    InGoodStanding(String),
    /// The admin is about to sign what becomes of its writer.
    #[error("what {0} may do is being changed")]
    Suspended(String),
    /// What it brings of the membership log contradicts what is here.
    #[error("the membership log in the bundle does not fit: {0}")]
    Membership(String),
    /// It builds on an earlier one, which was not taken here.
    #[error("the bundle builds on an earlier one that was not imported here")]
    Gap,
    /// The relay has opened another epoch since, or this device knows one that the relay has lost.
    #[error("the bundle is of an epoch of the relay's log that is over")]
    Over,
    /// The relay's log in it is not the one that is known here.
    #[error("the relay's log in the bundle is not the one that is known here")]
    AnotherLog,
    /// The earlier bundle was exchanged between others.
    #[error("the earlier bundle was not exchanged with {0}")]
    BetweenOthers(String),
    /// A bundle for oneself.
    #[error("a bundle is for somebody else")]
    ForOneself,
}

/// Whom a bundle is for, if he may have one from whoever has that signing key.
///
/// # Errors
/// [`Unfit`] where that member gets none, or `since` was exchanged with another.
pub fn receiver<'m>(
    members: &'m MembershipLog,
    mine: &PublicKey,
    to: &PublicKey,
    since: Option<&Survey>,
) -> Result<&'m Member, Unfit> {
    let member = members.by_signing(to).ok_or(Unfit::ForAStranger)?;
    if to == mine {
        return Err(Unfit::ForOneself);
    }
    if member.revoked {
        return Err(Unfit::Revoked(member.name.clone()));
    }
    if let Some(Survey { header, .. }) = since {
        let between = [(*mine, *to), (*to, *mine)].contains(&(header.from, header.to));
        if header.org != members.org() || !between {
            return Err(Unfit::BetweenOthers(member.name.clone()));
        }
    }
    Ok(member)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frame;
    use crate::blob::Upload;
    use crate::frame::{Credit, Proof};
    use fieldkeep_model::header::write_uleb;
    use fieldkeep_model::{BlobHash, Seed, SegmentId};

    fn header() -> Header {
        Header {
            org: OrgId([1; 16]),
            from: Seed([2; 32]).signing().public(),
            to: Seed([3; 32]).signing().public(),
            created: 1_700_000_000_000,
            epoch: Epoch { counter: 1, salt: [4; 8] },
            catalog: 1,
            members: 3,
            members_sum: [5; 16],
            since: None,
        }
    }

    fn written(frames: &[Frame]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header()).expect("memory");
        frames.iter().for_each(|frame| writer.frames(&frame.encode()).expect("memory"));
        writer.finish(&Seed([2; 32]).signing()).expect("memory");
        bytes
    }

    /// A bundle with a file of so many bytes, all of them the same; how many of them are in it.
    fn with_file(size: u64, there: usize) -> Vec<u8> {
        let (hash, record) = (BlobHash([9; 32]), "visit/v1".parse().expect("a record's name"));
        let file = Upload { hash, record, size, tree: Vec::new() };
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header()).expect("memory");
        writer.frames(&proof().encode()).expect("memory");
        let whole = writer.file(&Enclosure { file, waits: false }, &mut &vec![7; there][..]);
        assert_eq!(whole.expect("memory"), there as u64 == size);
        writer.finish(&Seed([2; 32]).signing()).expect("memory");
        bytes
    }

    fn proof() -> Frame {
        let segment = SegmentId([6; 16]);
        Frame::Proof(Proof { segment, pos: 1, heads: [7; 32], records: 1, rows: [8; 16] })
    }

    #[test]
    fn a_bundle_is_read_as_it_was_written() {
        let bytes = written(&[proof(), proof()]);
        let mut reader = Reader::open(&bytes[..]).expect("a bundle");
        assert_eq!(reader.header(), &header());
        for _ in 0..2 {
            assert_eq!(reader.next_entry().expect("a frame"), Some(Entry::Frame(proof())));
        }
        assert_eq!(reader.next_entry().expect("the end"), None);
        assert_eq!(Survey::of(&bytes[..]).expect("it is sound").header, header());
    }

    #[test]
    fn a_bundle_cut_anywhere_or_with_any_bit_turned_is_refused() {
        let bytes = written(&[proof()]);
        for cut in 0..bytes.len() {
            Survey::of(&bytes[..cut]).expect_err("it is cut");
        }
        for at in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[at / 8] ^= 1 << (at % 8);
            Survey::of(&altered[..]).expect_err("it is altered");
        }
        Survey::of(&[&bytes[..], &[0]].concat()[..]).expect_err("something follows");
    }

    #[test]
    fn the_bytes_of_a_file_come_in_pieces_and_as_they_are() {
        let size = PIECE_SIZE + 5;
        let bytes = with_file(size, size as usize);
        let mut reader = Reader::open(&bytes[..]).expect("a bundle");
        let mut pieces = Vec::new();
        while let Some(entry) = reader.next_entry().expect("an entry") {
            if let Entry::Piece(piece) = entry {
                pieces.push(piece);
            }
        }
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [PIECE_SIZE as usize, 5]);
        assert!(pieces.concat().iter().all(|byte| *byte == 7));
        let survey = Survey::of(&bytes[..]).expect("it is sound");
        assert_eq!(survey.given.keys().collect::<Vec<_>>(), [&BlobHash([9; 32])]);
    }

    #[test]
    fn a_bit_of_a_file_that_turned_costs_not_the_bundle_and_any_other_does() {
        let sound = with_file(200, 200);
        let first = sound.windows(200).position(|bytes| bytes == [7; 200]).expect("it is in it");
        for at in 0..sound.len() {
            let mut altered = sound.clone();
            altered[at] ^= 4;
            let of_the_file = (first..first + 200).contains(&at);
            assert_eq!(Survey::of(&altered[..]).is_ok(), of_the_file, "byte {at}");
        }
    }

    #[test]
    fn a_file_that_its_writer_could_not_read_to_its_end_leaves_a_sound_bundle() {
        for there in [0, 1, PIECE_SIZE as usize, PIECE_SIZE as usize + 1] {
            Survey::of(&with_file(PIECE_SIZE + 5, there)[..]).expect("the rest of it is of use");
        }
    }

    #[test]
    fn pieces_of_no_file_and_frames_behind_files_are_in_no_bundle() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header()).expect("memory");
        let mut piece = Vec::new();
        write_uleb(&mut piece, PIECE);
        write_uleb(&mut piece, 0);
        writer.frames(&piece).expect("memory");
        writer.finish(&Seed([2; 32]).signing()).expect("memory");
        assert!(matches!(Survey::of(&bytes[..]), Err(ReadError::Malformed(_))));
        let (hash, record) = (BlobHash([9; 32]), "visit/v1".parse().expect("a record's name"));
        let file = Upload { hash, record, size: 0, tree: Vec::new() };
        let file = Enclosed::File(Enclosure { file, waits: false });
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header()).expect("memory");
        writer.frames(&[file.encode(), proof().encode()].concat()).expect("memory");
        writer.finish(&Seed([2; 32]).signing()).expect("memory");
        assert!(matches!(Survey::of(&bytes[..]), Err(ReadError::Malformed(_))));
    }

    #[test]
    fn a_frame_that_is_of_a_conversation_is_in_no_bundle() {
        let credit = Frame::Credit(Credit { segment: SegmentId([6; 16]), pos: 1 });
        let refused = Survey::of(&written(&[credit])[..]);
        assert!(matches!(refused, Err(ReadError::Malformed(_))), "{refused:?}");
    }

    #[test]
    fn a_length_that_is_only_claimed_takes_no_memory() {
        let mut bytes = written(&[]);
        bytes.truncate(bytes.len() - TRAILER_SIZE - 2);
        write_uleb(&mut bytes, 15);
        write_uleb(&mut bytes, u64::from(crate::FRAME_MAX));
        assert!(matches!(Survey::of(&bytes[..]), Err(ReadError::CutShort)));
        write_uleb(&mut bytes, u64::from(crate::FRAME_MAX) + 1);
        assert!(Survey::of(&bytes[..]).is_err());
    }
}
