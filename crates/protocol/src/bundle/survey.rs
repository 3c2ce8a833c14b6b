//! What one reading of a whole bundle shows, before anything of it is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use fieldkeep_model::status::LeftOut;
use fieldkeep_model::{
    ActorId, BlobHash, Epoch, Member, MembershipLog, Pos, PublicKey, Receipt, RecordKey, SegmentId,
    Seq, Signed,
};

use super::reader::MEMBERS_MAX;
use super::{Digest, Enclosed, Enclosure, Entry, Header, ReadError, Reader, Unfit};
use crate::frame::Frame;
use crate::meet::Standpoint;

/// Segments that one bundle may name.
const SEGMENTS_MAX: usize = 64 * 1024;
/// Actors and receipts that one bundle may name, over all segments.
const STAMPS_MAX: usize = 256 * 1024;
/// Files that are remembered of one.
const FILES_NOTED: usize = 64 * 1024;

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
    /// The files whose bytes are in it, each with the records that it is for.
    pub given: BTreeMap<BlobHash, BTreeSet<RecordKey>>,
    /// The files that its writer has besides: of which segments' records, and whether the receiver
    /// has them too. What is beyond a number that is remembered would be packed again.
    pub has: BTreeMap<BlobHash, BTreeMap<SegmentId, bool>>,
}

/// What is noted while a bundle is read through.
#[derive(Default)]
struct Noted {
    /// Actors and receipts.
    stamps: usize,
    /// Files.
    files: usize,
    /// Whether the files have begun: nothing else follows them.
    in_files: bool,
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
            given: BTreeMap::new(),
            has: BTreeMap::new(),
        };
        let (mut noted, mut malformed) = (Noted::default(), None);
        while let Some(entry) = reader.next_entry()? {
            // Whether it is what was signed is told first.
            malformed = malformed.or(survey.note(entry, &mut noted).err());
        }
        match (malformed, reader.digest()) {
            (Some(why), _) => Err(ReadError::Malformed(why)),
            (None, Some(digest)) => Ok(Self { digest, ..survey }),
            (None, None) => Err(ReadError::CutShort),
        }
    }

    /// Whoever wrote a bundle for the member of that key, where it is fit to be taken by him.
    ///
    /// # Errors
    /// [`Unfit`] where it is not.
    pub fn sender(&self, members: &MembershipLog, mine: &PublicKey) -> Result<Member, Unfit> {
        let from = self.writer(members, mine)?;
        if from.revoked { Err(Unfit::Revoked(from.name)) } else { Ok(from) }
    }

    /// The same where everything was taken from whoever wrote it: an operator may take it all the same.
    ///
    /// # Errors
    /// [`Unfit`] where it is another's, or one that is taken without an operator.
    pub fn revoked_sender(
        &self,
        members: &MembershipLog,
        mine: &PublicKey,
    ) -> Result<Member, Unfit> {
        let from = self.writer(members, mine)?;
        if from.revoked { Ok(from) } else { Err(Unfit::InGoodStanding(from.name)) }
    }

    fn writer(&self, members: &MembershipLog, mine: &PublicKey) -> Result<Member, Unfit> {
        let Header { org, from, to, .. } = &self.header;
        if *org != members.org() {
            return Err(Unfit::Foreign);
        }
        let mut log = members.clone();
        let merged = log.merge(&self.members);
        if to != mine {
            let name = log.by_signing(to).map(|member| member.name.clone());
            return Err(name.map_or(Unfit::ForAStranger, Unfit::ForAnother));
        }
        // A key that was replaced signs nothing any more.
        let from = log.by_signing(from).filter(|by| by.keys.signing == *from);
        let from = from.ok_or(Unfit::Stranger)?;
        merged.map_err(|error| Unfit::Membership(error.to_string()))?;
        Ok(from.clone())
    }

    /// Whether it shows that member to have a file: because he wrote so, or it was for him and brings
    /// it, or says that he has it.
    #[must_use]
    pub fn shows_file(&self, member: &PublicKey, hash: &BlobHash) -> bool {
        let has = self.has.get(hash);
        let said =
            has.is_some_and(|has| self.header.from == *member || has.values().any(|both| *both));
        said || self.given.contains_key(hash)
    }

    fn note(&mut self, entry: Entry, noted: &mut Noted) -> Result<(), &'static str> {
        let of_a_file = matches!(entry, Entry::Piece(_) | Entry::Enclosed(Enclosed::File(_)));
        if noted.in_files && !of_a_file {
            return Err("something else behind its files");
        }
        match entry {
            Entry::Frame(frame) => return self.note_frame(frame, &mut noted.stamps),
            Entry::Enclosed(Enclosed::Has(has)) => {
                for hash in has.files {
                    noted.files += 1;
                    if noted.files <= FILES_NOTED {
                        self.has.entry(hash).or_default().insert(has.segment, has.both);
                    }
                }
            }
            Entry::Enclosed(Enclosed::File(Enclosure { file, .. })) => {
                noted.in_files = true;
                noted.files += 1;
                if noted.files <= FILES_NOTED {
                    self.given.entry(file.hash).or_default().insert(file.record);
                }
            }
            Entry::Enclosed(Enclosed::Told(_)) => {}
            Entry::Piece(_) if !noted.in_files => return Err("bytes of no file"),
            Entry::Piece(_) => {}
        }
        Ok(())
    }

    fn note_frame(&mut self, frame: Frame, stamps: &mut usize) -> Result<(), &'static str> {
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
            | Frame::Rejudge(_)
            | Frame::Dismiss(_)
            | Frame::Witness(_)
            | Frame::Report(_) => {}
            Frame::Hello(_)
            | Frame::Welcome(_)
            | Frame::Join(_)
            | Frame::Offer(_)
            | Frame::OfferReply(_)
            | Frame::Ack(_)
            | Frame::Nack(_)
            | Frame::Credit(_)
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
