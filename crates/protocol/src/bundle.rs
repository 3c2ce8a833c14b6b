//! Bundles: what one member hands another in a file, where there is no network at all.
//!
//! A bundle is the frames of a session, one way: a header that says whose it is and for whom, the
//! frames, and the writer's signature over all of it. It is not encrypted. Contains no file handling:
//! bytes are written to and read from whatever the shell has opened, a frame at a time.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use fieldkeep_model::header::write_uleb;
use fieldkeep_model::status::LeftOut;
use fieldkeep_model::{
    ActorId, Epoch, KeyPair, OrgId, Pos, PublicKey, Receipt, SegmentId, Seq, Signature, Signed,
};
use minicbor::{Decode, Encode};

use crate::frame::{Frame, Framed as _, Members};
use crate::meet::Standpoint;

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
/// The longest header, in bytes.
const HEADER_MAX: u64 = 64 * 1024;
/// Bytes of a membership log that one bundle may bring: as in a session.
const MEMBERS_MAX: usize = 16 * 1024 * 1024;
/// Segments that one bundle may name.
const SEGMENTS_MAX: usize = 64 * 1024;
/// Actors and receipts that one bundle may name, over all segments.
const STAMPS_MAX: usize = 256 * 1024;

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
    /// The sum as a number.
    #[must_use]
    pub fn members_sum(&self) -> u128 {
        u128::from_be_bytes(self.members_sum)
    }
}

/// blake3 of all of a bundle but its trailer: what names it.
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

/// Writes a bundle, frame by frame.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    hasher: blake3::Hasher,
    size: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a bundle.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(out: W, header: &Header) -> io::Result<Self> {
        let body = minicbor::to_vec(header).expect("encoding into memory cannot fail");
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        write_uleb(&mut bytes, body.len() as u64);
        bytes.extend(body);
        let mut writer = Self { out, hasher: blake3::Hasher::new(), size: 0 };
        writer.frames(&bytes)?;
        Ok(writer)
    }

    /// Adds encoded frames.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn frames(&mut self, frames: &[u8]) -> io::Result<()> {
        self.hasher.update(frames);
        self.size += frames.len() as u64;
        self.out.write_all(frames)
    }

    /// Signs the bundle, and so ends it. Returns what names it, and its size in bytes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self, keys: &KeyPair) -> io::Result<(Digest, u64)> {
        let digest = *self.hasher.finalize().as_bytes();
        let mut trailer = Vec::new();
        write_uleb(&mut trailer, TRAILER);
        write_uleb(&mut trailer, TRAILER_SIZE as u64);
        trailer.extend(digest);
        trailer.extend(keys.sign(CONTEXT, &digest).0);
        self.out.write_all(&trailer)?;
        self.out.flush()?;
        Ok((Digest(digest), self.size + trailer.len() as u64))
    }
}

/// Reads a bundle, frame by frame: no more of it than one frame is in memory.
#[derive(Debug)]
pub struct Reader<R> {
    read: R,
    hasher: blake3::Hasher,
    header: Header,
    /// Entries that the next frame of their kind begins with, and their bytes.
    parts: Vec<Signed>,
    parts_size: usize,
    digest: Option<Digest>,
}

impl<R: Read> Reader<R> {
    /// Reads a bundle's header.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(mut read: R) -> Result<Self, ReadError> {
        let mut begin = [0; MAGIC.len() + 1];
        match fill(&mut read, &mut begin) {
            Err(ReadError::CutShort) => return Err(ReadError::NotABundle),
            other => other?,
        }
        let (magic, version) = begin.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(ReadError::NotABundle);
        }
        if version != [VERSION] {
            return Err(ReadError::TooNew(version[0]));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&begin);
        let (length, bytes) = uleb(&mut read)?;
        if length > HEADER_MAX {
            return Err(ReadError::Altered);
        }
        hasher.update(&bytes);
        let body = take(&mut read, length)?;
        hasher.update(&body);
        let header = minicbor::decode(&body).map_err(|_| ReadError::Altered)?;
        Ok(Self { read, hasher, header, parts: Vec::new(), parts_size: 0, digest: None })
    }

    /// Whose it is, and for whom.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next frame; none once the signature was read, and found to be its writer's over all that
    /// came before it. Entries that were parted come together.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if self.digest.is_some() {
                return Ok(None);
            }
            let (number, head) = uleb(&mut self.read)?;
            let (length, rest) = uleb(&mut self.read)?;
            if number == TRAILER {
                self.finish(length)?;
                return Ok(None);
            }
            if length > u64::from(crate::FRAME_MAX) {
                return Err(ReadError::Altered);
            }
            let body = take(&mut self.read, length)?;
            self.hasher.update(&head).update(&rest).update(&body);
            match Frame::decode(number, &body).map_err(|_| ReadError::Altered)? {
                Some(Frame::Part(part)) => self.keep_part(part)?,
                Some(Frame::Members(last)) => {
                    self.parts_size = 0;
                    let mut entries = std::mem::take(&mut self.parts);
                    entries.extend(last.entries);
                    return Ok(Some(Frame::Members(Members { base: last.base, entries })));
                }
                Some(frame) => return Ok(Some(frame)),
                // What a later version adds and everybody may pass over.
                None => {}
            }
        }
    }

    fn keep_part(&mut self, part: Members) -> Result<(), ReadError> {
        self.parts_size += part.size();
        if self.parts_size > MEMBERS_MAX {
            return Err(ReadError::Malformed("too many members"));
        }
        self.parts.extend(part.entries);
        Ok(())
    }

    /// Reads the trailer, and sees that it ends the file.
    fn finish(&mut self, length: u64) -> Result<(), ReadError> {
        if length != TRAILER_SIZE as u64 {
            return Err(ReadError::Altered);
        }
        let trailer = take(&mut self.read, length)?;
        let (digest, signature) = trailer.split_at(32);
        let signature = Signature(signature.try_into().expect("as long as was asked for"));
        let signed = self.hasher.finalize().as_bytes() == digest
            && self.header.from.verifies(CONTEXT, digest, &signature);
        let ended = self.read.read(&mut [0]).map_err(ReadError::Io)? == 0;
        if !signed || !ended {
            return Err(ReadError::Altered);
        }
        self.digest = Some(Digest(digest.try_into().expect("as long as was asked for")));
        Ok(())
    }
}

/// What one reading of a whole bundle shows: that it is sound, who else belongs to the organisation,
/// and what its writer has, and its receiver by it.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Whose it is, and for whom.
    pub header: Header,
    /// What names it.
    pub digest: Digest,
    /// The entries of the membership log that it brings.
    pub members: Vec<Signed>,
    /// Where its writer stood in segments that both may hold.
    pub standpoints: BTreeMap<SegmentId, Standpoint>,
    /// The newest receipt of each actor that it brings.
    pub receipts: BTreeMap<(SegmentId, ActorId), (Epoch, Seq)>,
    /// What its writer exchanges with nobody.
    pub left_out: LeftOut,
    /// Where the relay's log begins in it, of each segment.
    pub begins: BTreeMap<SegmentId, Pos>,
}

impl Survey {
    /// Reads a bundle to its end. Nothing in it is believed but that its writer signed it.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn of(read: impl Read) -> Result<Self, ReadError> {
        let mut reader = Reader::open(read)?;
        let mut survey = Self {
            header: reader.header().clone(),
            digest: Digest([0; 32]),
            members: Vec::new(),
            standpoints: BTreeMap::new(),
            receipts: BTreeMap::new(),
            left_out: LeftOut::default(),
            begins: BTreeMap::new(),
        };
        let mut stamps = 0;
        let mut malformed = None;
        while let Some(frame) = reader.next_frame()? {
            // Whether it is what was signed is told first.
            malformed = malformed.or(survey.note(frame, &mut stamps).err());
        }
        match (malformed, reader.digest) {
            (Some(why), _) => Err(ReadError::Malformed(why)),
            (None, Some(digest)) => Ok(Self { digest, ..survey }),
            (None, None) => Err(ReadError::CutShort),
        }
    }

    fn note(&mut self, frame: Frame, stamps: &mut usize) -> Result<(), &'static str> {
        match frame {
            Frame::Members(members) => {
                let size: usize = self.members.iter().map(|entry| entry.bytes.len() + 72).sum();
                if size + members.size() > MEMBERS_MAX {
                    return Err("too many members");
                }
                self.members.extend(members.entries);
            }
            Frame::Meet(meet) => {
                for standpoint in meet.segments {
                    *stamps += standpoint.held.stamps.len() + standpoint.aside.stamps.len();
                    self.standpoints.insert(standpoint.segment, standpoint);
                }
            }
            Frame::Receipt(receipt) => {
                let stated: Receipt = receipt.read().ok_or("a receipt that does not decode")?;
                *stamps += 1;
                let newest = self.receipts.entry((stated.segment, stated.actor)).or_default();
                *newest = (stated.epoch, stated.seq).max(*newest);
            }
            Frame::Mode(left_out) => self.left_out = left_out,
            Frame::Delta(delta) => {
                self.begins.entry(delta.segment.id).or_insert(delta.first);
            }
            Frame::Catalog(_)
            | Frame::Push(_)
            | Frame::Verdicts(_)
            | Frame::Proof(_)
            | Frame::Stats(_)
            | Frame::Witness(_) => {}
            Frame::Hello(_)
            | Frame::Welcome(_)
            | Frame::Join(_)
            | Frame::Offer(_)
            | Frame::OfferReply(_)
            | Frame::Ack(_)
            | Frame::Nack(_)
            | Frame::Credit(_)
            | Frame::Rejudge(_)
            | Frame::Dismiss(_)
            | Frame::GoAway(_)
            | Frame::Error(_)
            | Frame::Vector(_)
            | Frame::Part(_)
            | Frame::Call(_)
            | Frame::Outcome(_)
            | Frame::Ask(_)
            | Frame::Answer(_) => return Err("a frame of a conversation"),
        }
        let segments = self.standpoints.len().max(self.begins.len());
        if *stamps > STAMPS_MAX || segments > SEGMENTS_MAX {
            return Err("more segments or actors than any organisation has");
        }
        Ok(())
    }
}

/// Reads bytes until a buffer is full.
fn fill(read: &mut impl Read, bytes: &mut [u8]) -> Result<(), ReadError> {
    read.read_exact(bytes).map_err(|error| {
        let ended = error.kind() == io::ErrorKind::UnexpectedEof;
        if ended { ReadError::CutShort } else { ReadError::Io(error) }
    })
}

/// Reads so many bytes, as they come: what is claimed and not there takes no memory.
fn take(read: &mut impl Read, length: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    read.take(length).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    if (bytes.len() as u64) < length { Err(ReadError::CutShort) } else { Ok(bytes) }
}

/// Reads a number below 2^35, and its bytes.
fn uleb(read: &mut impl Read) -> Result<(u64, Vec<u8>), ReadError> {
    let (mut value, mut bytes) = (0u64, Vec::new());
    for shift in (0..35).step_by(7) {
        let mut byte = [0];
        fill(read, &mut byte)?;
        bytes.push(byte[0]);
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok((value, bytes));
        }
    }
    Err(ReadError::Altered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Credit, Proof};
    use fieldkeep_model::Seed;

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

    fn proof() -> Frame {
        let segment = SegmentId([6; 16]);
        Frame::Proof(Proof { segment, pos: 1, heads: [7; 32], records: 1, rows: [8; 16] })
    }

    #[test]
    fn a_bundle_is_read_as_it_was_written() {
        let bytes = written(&[proof(), proof()]);
        let mut reader = Reader::open(&bytes[..]).expect("a bundle");
        assert_eq!(reader.header(), &header());
        assert_eq!(reader.next_frame().expect("a frame"), Some(proof()));
        assert_eq!(reader.next_frame().expect("a frame"), Some(proof()));
        assert_eq!(reader.next_frame().expect("the end"), None);
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
