//! Frames: `type, length, body`, where type and length are LEB128 numbers and the body is a CBOR
//! array in the order of the field numbers. Fields are added at its end and must be optional: a
//! reader passes over those that it does not know, and takes absent ones for none. That is a byte a
//! field less than a map. Unknown even types are skipped, unknown odd ones end the session.

mod buffer;
mod online;

use std::fmt;

use fieldkeep_model::status::LeftOut;
use fieldkeep_model::verdict::Opening;
use fieldkeep_model::{
    ActorId, ChangeHash, Epoch, OrgId, Pos, RecordHash, RecordKey, SegmentAddress, SegmentId, Seq,
    Signed, SignedHead, TypeName, VersionVector,
};
use minicbor::{Decode, Encode};

pub use buffer::{DecodeError, FrameBuffer, Framed};
pub use online::{Answer, Ask, Call, Outcome, Said};

use crate::blob::{
    Download, Got, Possession, Prove, Ready, Removals, Removed, Tree, Unfit, Upload, Whole,
};
use crate::meet::Meet;
use crate::offer::Offer;
use crate::report::Report;

/// The first message of either side.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// The protocol versions that the sender speaks, newest first.
    #[n(0)]
    pub versions: Vec<u32>,
    /// The sender's software, for logs.
    #[n(1)]
    pub software: String,
    /// The organisation that the sender belongs to.
    #[n(2)]
    pub org: OrgId,
    /// What the sender understands beyond version 1: see [`crate::capability`].
    #[n(3)]
    pub capabilities: u64,
    /// How many entries of the membership log the sender holds.
    #[n(4)]
    pub members: u64,
    /// blake3 of the newest of them.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub members_tip: [u8; 32],
    /// The epoch of the relay's log, as far as the sender knows.
    #[n(6)]
    pub epoch: Epoch,
    /// The number of the catalog that the sender holds, 0 for none.
    #[n(7)]
    pub catalog: u64,
    /// The longest frame that the sender accepts, in bytes.
    #[n(8)]
    pub frame_max: u32,
    /// The digest over all cursors of the sender: see [`crate::root`].
    #[cbor(n(9), with = "minicbor::bytes")]
    pub root: [u8; 16],
    /// The actor that the sender writes as, if it has one yet.
    #[n(10)]
    pub actor: Option<ActorId>,
    /// The sum of the first 16 bytes of the hashes of all entries of the membership log that the
    /// sender holds, modulo 2^128: logs may have branched.
    #[cbor(n(11), with = "minicbor::bytes")]
    pub members_sum: [u8; 16],
    /// Of a relay that has removed attached files: the newest number under which it tells of that.
    #[n(12)]
    pub removals: Option<u64>,
}

impl Hello {
    /// The sum as a number.
    #[must_use]
    pub fn members_sum(&self) -> u128 {
        u128::from_be_bytes(self.members_sum)
    }
}

/// Entries of the membership log; what an entry follows comes before it, or is known.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Members {
    /// How many entries the sender takes the receiver to hold: 0 if these are all.
    #[n(0)]
    pub base: u64,
    /// The entries.
    #[n(1)]
    pub entries: Vec<Signed>,
}

/// The catalog in force.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CatalogFile {
    /// The relay's statement: epoch, number and hash.
    #[n(0)]
    pub notice: Signed,
    /// The file.
    #[n(1)]
    pub source: String,
}

/// What a relay says of a segment whose cursor is not at its end, or that the device does not know.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OfferAnswer {
    /// The segment.
    #[n(0)]
    pub segment: SegmentRef,
    /// How the device's cursor stands to the log.
    #[n(1)]
    pub standing: Standing,
    /// The log's end.
    #[n(2)]
    pub tip: Pos,
    /// The newest seq of the device's own actor that the relay holds.
    #[n(3)]
    pub own_seq: Seq,
    /// The relay's version vector, when the standing is `Reset`.
    #[n(4)]
    pub vector: Option<VersionVector>,
    /// Which change that is, where the device has no receipt of that seq: a copy of the device may
    /// have written it.
    #[n(5)]
    pub own_hash: Option<ChangeHash>,
}

/// How a device's cursor stands to a relay's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Standing {
    /// At its end.
    #[n(0)]
    Same,
    /// Before its end; what is missing follows.
    #[n(1)]
    Behind,
    /// The cursor is not of this log: beyond its end, or with another chain. Vectors are compared.
    #[n(2)]
    Reset,
    /// The device may not hold the segment.
    #[n(3)]
    Denied,
}

/// The answer to an [`Offer`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OfferReply {
    /// The relay's epoch.
    #[n(0)]
    pub epoch: Epoch,
    /// The digest over the cursors that the device ought to have: equal roots prove all segments.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub root: [u8; 16],
    /// The segments that differ; all others stand at the log's end.
    #[n(2)]
    pub segments: Vec<OfferAnswer>,
    /// Which offer this answers: devices may offer again. 0 answers none: it tells the epoch, after
    /// a witness or when a new one was opened.
    #[n(3)]
    pub round: u64,
}

/// A segment by its id, with its address where the receiver may not know it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SegmentRef {
    /// The id.
    #[n(0)]
    pub id: SegmentId,
    /// What the segment holds; it hashes to the id.
    #[n(1)]
    pub address: Option<SegmentAddress>,
}

/// Changes of one segment that the receiver lacks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Push {
    /// The segment.
    #[n(0)]
    pub segment: SegmentRef,
    /// The changes, in causal order, as the batch codec writes them.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub batch: Vec<u8>,
    /// Signed heads that vouch for each of them.
    #[n(2)]
    pub heads: Vec<SignedHead>,
}

/// A stretch of a segment's log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Delta {
    /// The segment.
    #[n(0)]
    pub segment: SegmentRef,
    /// The position of the first entry.
    #[n(1)]
    pub first: Pos,
    /// The entries in log order: changes in the batch, or changes that the receiver is known to
    /// hold.
    #[n(2)]
    pub runs: Vec<Run>,
    /// The changes, as the batch codec writes them.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub batch: Vec<u8>,
    /// Signed heads that vouch for each of them.
    #[n(4)]
    pub heads: Vec<SignedHead>,
    /// The chain after the last entry.
    #[n(5)]
    pub chain: fieldkeep_model::Chain,
    /// The epoch of the log.
    #[n(6)]
    pub epoch: Epoch,
}

/// Neighbouring entries of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Run {
    /// So many changes of the batch.
    #[n(0)]
    Sent(#[n(0)] u64),
    /// Changes of one actor that the receiver holds: the first seq and how many.
    #[n(1)]
    Known(#[n(0)] ActorId, #[n(1)] Seq, #[n(2)] u64),
}

/// The receipt: through this seq, every change of that actor is admitted and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    /// The segment.
    #[n(0)]
    pub segment: SegmentId,
    /// The actor.
    #[n(1)]
    pub actor: ActorId,
    /// The newest durable seq.
    #[n(2)]
    pub seq: Seq,
    /// That change's hash.
    #[n(3)]
    pub hash: ChangeHash,
    /// The log's end after it.
    #[n(4)]
    pub pos: Pos,
}

/// A refusal of one change, and with it of what depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Nack {
    /// The segment.
    #[n(0)]
    pub segment: SegmentId,
    /// The change, zero where its bytes are no change.
    #[n(1)]
    pub hash: ChangeHash,
    /// The stage of the gate.
    #[n(2)]
    pub stage: u8,
    /// The code, as the gate names it.
    #[n(3)]
    pub code: String,
    /// What it means, for people.
    #[n(4)]
    pub text: String,
    /// What the receiver holds instead, for a device that has to send what is missing.
    #[n(5)]
    pub vector: Option<VersionVector>,
}

/// Verdict blocks of one segment, in order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Verdicts {
    /// The segment.
    #[n(0)]
    pub segment: SegmentId,
    /// The relay's member number.
    #[n(1)]
    pub relay: u64,
    /// The signed blocks.
    #[n(2)]
    pub blocks: Vec<Signed>,
    /// What opens the sealed arguments that the receiver may read.
    #[n(3)]
    pub openings: Vec<Opening>,
}

/// The proof of one segment: the receiver compares it with its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proof {
    /// The segment.
    #[n(0)]
    pub segment: SegmentId,
    /// The position through which it holds; it is also the number of changes.
    #[n(1)]
    pub pos: Pos,
    /// blake3 over the sorted heads.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub heads: [u8; 32],
    /// How many records there are, deleted ones included.
    #[n(3)]
    pub records: u64,
    /// The sum over the records' digests: independent of the log.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub rows: [u8; 16],
}

/// The relay's counts of one type.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TypeCount {
    /// The type.
    #[n(0)]
    pub ty: TypeName,
    /// Records in the scopes that the receiver was granted, without deleted ones.
    #[n(1)]
    pub in_scope: u64,
    /// Records of the type.
    #[n(2)]
    pub all: u64,
    /// Held records among those in scope.
    #[n(3)]
    pub held: u64,
}

/// A wish concerning one record.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Dismiss {
    /// The record.
    #[n(0)]
    pub record: RecordKey,
    /// Whether it is dismissed or reopened.
    #[n(1)]
    pub dismissed: bool,
    /// Why.
    #[n(2)]
    pub note: String,
    /// The device's number for it: a relay hears each once, whichever way they come.
    #[n(3)]
    pub number: u64,
    /// The content that it speaks of: a later one is a new matter.
    #[n(4)]
    pub content: RecordHash,
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Code {
    /// Nothing is wrong.
    #[n(0)]
    Done,
    /// A frame that does not decode.
    #[n(1)]
    Malformed,
    /// A frame longer than allowed.
    #[n(2)]
    TooLong,
    /// A frame type that must be understood and is not.
    #[n(3)]
    UnknownFrame,
    /// A frame that may not come now.
    #[n(4)]
    OutOfOrder,
    /// No common protocol version.
    #[n(5)]
    Version,
    /// Another organisation.
    #[n(6)]
    ForeignOrganisation,
    /// The key is not a member's.
    #[n(7)]
    NotAMember,
    /// The invitation is unknown or used.
    #[n(8)]
    InvitationUnknown,
    /// The invitation has expired.
    #[n(9)]
    InvitationExpired,
    /// The membership logs contradict each other.
    #[n(10)]
    Membership,
    /// The member may not do that.
    #[n(11)]
    Denied,
    /// Too many connections, or too much traffic.
    #[n(12)]
    Busy,
    /// The other side cannot store: its disk is full or broken.
    #[n(13)]
    Storage,
    /// The peer is going away.
    #[n(14)]
    GoingAway,
    /// A log that does not continue as its chain says.
    #[n(15)]
    Unchained,
    /// Changes or verdicts that nobody vouches for.
    #[n(16)]
    Unvouched,
    /// Changes that the gate refuses, from a peer that should have refused them.
    #[n(17)]
    Refused,
    /// The member was revoked.
    #[n(18)]
    Revoked,
}

/// As it is counted and logged: `going-away`.
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, letter) in format!("{self:?}").char_indices() {
            if letter.is_ascii_uppercase() && at > 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", letter.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

impl Code {
    /// The number under which the connection is closed.
    #[must_use]
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The code of a number, as far as it is known.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        let mut bytes = Vec::new();
        minicbor::encode(number, &mut bytes).ok()?;
        minicbor::decode(&bytes).ok()
    }
}

macro_rules! frames {
    ($(#[$of:meta])* $frame:ident: $($(#[$doc:meta])* $name:ident($body:ty) = $number:literal,)*) => {
        $(#[$of])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $frame {
            $($(#[$doc])* $name($body),)*
        }

        impl $frame {
            /// The frame's type number.
            #[must_use]
            pub fn number(&self) -> u64 {
                match self { $(Self::$name(_) => $number,)* }
            }

            /// The frame's name, for logs and messages.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }

            fn body(&self) -> Vec<u8> {
                match self {
                    $(Self::$name(body) => minicbor::to_vec(body),)*
                }
                .expect("encoding into memory cannot fail")
            }

            fn write(&self, bytes: &mut Vec<u8>) {
                let body = self.body();
                bytes.reserve(body.len() + 8);
                fieldkeep_model::header::write_uleb(bytes, self.number());
                fieldkeep_model::header::write_uleb(bytes, body.len() as u64);
                bytes.extend_from_slice(&body);
            }
        }

        impl Framed for $frame {
            fn decode(number: u64, body: &[u8]) -> Result<Option<Self>, DecodeError> {
                match number {
                    $($number => {
                        let mut decoder = minicbor::Decoder::new(body);
                        let frame = decoder.decode().map_err(|_| DecodeError::Malformed($number))?;
                        if decoder.position() != body.len() {
                            return Err(DecodeError::Malformed($number));
                        }
                        Ok(Some(Self::$name(frame)))
                    })*
                    even if even % 2 == 0 => Ok(None),
                    odd => Err(DecodeError::Unknown(odd)),
                }
            }
        }
    };
}
pub(crate) use frames;

frames! {
    /// The frames of a session.
    Frame:
    /// The device's first message.
    Hello(Box<Hello>) = 1,
    /// The relay's answer to it.
    Welcome(Box<Hello>) = 3,
    /// Entries that make the sender a member: its join, and what the relay may have lost before it.
    Join(Members) = 5,
    /// Entries that the receiver lacks.
    Members(Members) = 7,
    /// The catalog in force.
    Catalog(CatalogFile) = 9,
    /// The device's cursors.
    Offer(Offer) = 11,
    /// The relay's answer to them.
    OfferReply(OfferReply) = 13,
    /// Changes for the relay, or for another device.
    Push(Push) = 15,
    /// A stretch of the relay's log.
    Delta(Delta) = 17,
    /// A receipt.
    Ack(Ack) = 19,
    /// A refusal.
    Nack(Nack) = 21,
    /// What came of a segment is durable: the relay's log through a position; from another device so
    /// many changes on this connection.
    Credit(Credit) = 23,
    /// Verdicts.
    Verdicts(Verdicts) = 25,
    /// What a segment must look like.
    Proof(Proof) = 27,
    /// The relay's counts.
    Stats(Stats) = 29,
    /// Judge a record again.
    Rejudge(RecordKey) = 31,
    /// Stop trying, or try again.
    Dismiss(Dismiss) = 33,
    /// Come back after so many milliseconds.
    GoAway(GoAway) = 35,
    /// The reason for the close that follows.
    Error(ErrorFrame) = 37,
    /// What a device holds of a segment whose cursor was reset.
    Vector(Vector) = 39,
    /// A relay's statement that shows that the receiver once knew more.
    Witness(Signed) = 41,
    /// What a device holds, for another device.
    Meet(Meet) = 43,
    /// A receipt that the relay signed, for whoever it reaches.
    Receipt(Signed) = 45,
    /// Entries that the next Join or Members begins with, where one frame would be too long. Nobody
    /// makes or gets one: encoding parts what is too long, and a session puts it together.
    Part(Members) = 47,
    /// The types of which the sender exchanges nothing on this connection; a relay tells their
    /// counts all the same. It comes before what the sender says of what it holds, and voids what it
    /// has said of that before.
    Mode(LeftOut) = 49,
    /// An intent: to be carried out once, or never any more.
    Call(Call) = 51,
    /// What came of a call.
    Outcome(Outcome) = 53,
    /// A question.
    Ask(Ask) = 55,
    /// The answer to a question.
    Answer(Answer) = 57,
    /// What a device says of itself. The number is even: a relay that knows of none passes it over.
    Report(Report) = 66,
}

frames! {
    /// The frames of a file's stream.
    FileFrame:
    /// A device has a file that a record names.
    Upload(Upload) = 61,
    /// A file is asked for.
    Download(Download) = 63,
    /// A file's bytes are to come from there on.
    Ready(Ready) = 65,
    /// Whoever names a file has to show that he has it.
    Prove(Prove) = 67,
    /// He has it.
    Possession(Possession) = 69,
    /// All of a file is there.
    Whole(Whole) = 71,
    /// A file is not taken, or not given.
    Unfit(Unfit) = 73,
    /// What verifies a file.
    Tree(Tree) = 75,
    /// So much of a file came.
    Got(Got) = 77,
    /// It is asked which files were removed.
    Removals(Removals) = 79,
    /// Files that were removed.
    Removed(Removed) = 81,
}

/// Bytes of entries that go into one frame.
const PART: usize = 512 * 1024;

/// How far a device has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Credit {
    /// The segment.
    #[n(0)]
    pub segment: SegmentId,
    /// The position through which everything is durable.
    #[n(1)]
    pub pos: Pos,
}

/// The relay's counts by type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Stats {
    /// The counts.
    #[n(0)]
    pub types: Vec<TypeCount>,
}

/// A version vector of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Vector {
    /// The segment.
    #[n(0)]
    pub segment: SegmentId,
    /// What the sender holds.
    #[n(1)]
    pub vector: VersionVector,
}

/// The relay stops serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GoAway {
    /// When to come back, in milliseconds.
    #[n(0)]
    pub retry_ms: u64,
}

/// Why the session ends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ErrorFrame {
    /// The code.
    #[n(0)]
    pub code: Code,
    /// What it means, for people.
    #[n(1)]
    pub text: String,
}

impl Frame {
    /// The frame as it goes over the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Self::Join(members) | Self::Members(members) = self
            && members.size() > PART
        {
            let last = members.parted(&mut bytes);
            let joins = matches!(self, Self::Join(_));
            let last = if joins { Self::Join(last) } else { Self::Members(last) };
            last.write(&mut bytes);
        } else {
            self.write(&mut bytes);
        }
        bytes
    }
}

impl FileFrame {
    /// The frame as it goes over the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }
}

/// The bytes that an entry takes: its own, its signature's, and a few for both lengths.
fn entry_size(entry: &Signed) -> usize {
    entry.bytes.len() + 64 + 8
}

impl Members {
    /// The bytes of its entries, about.
    pub(crate) fn size(&self) -> usize {
        self.entries.iter().map(entry_size).sum()
    }

    /// Writes all entries but the last ones as parts; returns those.
    fn parted(&self, bytes: &mut Vec<u8>) -> Self {
        let (mut entries, mut size) = (Vec::new(), 0);
        for entry in &self.entries {
            size += entry_size(entry);
            if size > PART {
                let before = std::mem::take(&mut entries);
                Frame::Part(Self { base: self.base, entries: before }).write(bytes);
                size = entry_size(entry);
            }
            entries.push(entry.clone());
        }
        Self { base: self.base, entries }
    }
}
