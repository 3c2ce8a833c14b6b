//! Verdicts: what a relay states of a record at given heads under a given catalog.
//!
//! A segment's verdict log holds a [`VerdictBlock`] per judged batch, each signed as a whole. A
//! record without a verdict of its own is valid as far as the newest block has judged.

use minicbor::{Decode, Encode};

use crate::id::{ActorId, ChangeHash, Epoch, OrgId, Pos, RecordHash, RecordId, SegmentId, Seq};

/// The context under which blocks are signed.
pub const CONTEXT: &str = "fieldkeep 1 verdicts";

/// What a judgement comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Outcome {
    /// Every rule passed.
    #[n(0)]
    Valid,
    /// A rule, the schema, a reference or a permission is broken.
    #[n(1)]
    Held,
    /// It refers to a record that is not there yet.
    #[n(2)]
    Waiting,
}

impl Outcome {
    /// The word for it, in output and documents.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Held => "held",
            Self::Waiting => "waiting",
        }
    }
}

/// Why a record is held or waits: a message id and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reason {
    /// The message: `schema`, `required`, `reference_absent`, `reference_deleted`, `unique`, `rule`,
    /// `rule_failed`, `unknown_schema`, `scope_changed`, `not_permitted`; `more` for those that
    /// are not listed.
    #[n(0)]
    pub id: String,
    /// The rule's name, for `rule` and `rule_failed`.
    #[n(1)]
    pub rule: Option<String>,
    /// The fields of the record that the rule reads, as `quantity` or `lines.quantity`.
    #[n(2)]
    pub fields: Vec<String>,
    /// The arguments by name.
    #[n(3)]
    pub args: Vec<Arg>,
}

/// An argument of a reason.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Arg {
    /// Its name in the message.
    #[n(0)]
    pub name: String,
    /// Its value, or the seal of a value that only some may read.
    #[n(1)]
    pub value: ArgValue,
}

/// A value in the open, or the commitment to one that lies in an [`Opening`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ArgValue {
    /// Everyone who holds the verdict may read it.
    #[n(0)]
    Open(#[n(0)] String),
    /// blake3 of a salt and the value: only those who may read the other record get the opening.
    #[n(1)]
    Sealed(#[cbor(n(0), with = "minicbor::bytes")] [u8; 16]),
}

/// What opens a sealed argument: it travels beside the signed block, to those who may read the
/// record that it speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Opening {
    /// Drawn at random, so that a value cannot be guessed from its seal.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub salt: [u8; 16],
    /// The value.
    #[n(1)]
    pub value: String,
    /// The segment of the record that it speaks of.
    #[n(2)]
    pub segment: SegmentId,
}

impl Opening {
    /// The commitment that stands in the signed reason.
    #[must_use]
    pub fn seal(&self) -> [u8; 16] {
        let digest = blake3::keyed_hash(
            &blake3::derive_key("fieldkeep 1 sealed argument", &self.salt),
            self.value.as_bytes(),
        );
        digest.as_bytes()[..16].try_into().expect("sixteen bytes")
    }
}

/// A change that wrote a current value which the broken rule reads.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Culprit {
    /// The change.
    #[n(0)]
    pub hash: ChangeHash,
    /// Its author; the device's number is in it.
    #[n(1)]
    pub actor: ActorId,
    /// The author's counter.
    #[n(2)]
    pub seq: Seq,
    /// The person, as the change's message says.
    #[n(3)]
    pub person: String,
    /// The author's clock, milliseconds UTC.
    #[n(4)]
    pub time: i64,
    /// The fields that it wrote.
    #[n(5)]
    pub fields: Vec<String>,
}

/// The newest state of a record that passed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LastValid {
    /// The segment's heads when it passed.
    #[n(0)]
    pub heads: Vec<ChangeHash>,
    /// Its canonical JSON.
    #[n(1)]
    pub json: String,
}

/// What the relay states of one record. Only changes of state are stated: held, waiting, held for
/// another reason or at other content, and valid again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Verdict {
    /// The record, within the segment's type.
    #[n(0)]
    pub id: RecordId,
    /// What the judgement came to.
    #[n(1)]
    pub outcome: Outcome,
    /// The content that was judged.
    #[n(2)]
    pub record: RecordHash,
    /// Why, unless valid.
    #[n(3)]
    pub reasons: Vec<Reason>,
    /// Who wrote what the rules object to.
    #[n(4)]
    pub culprits: Vec<Culprit>,
    /// What passed last, if ever and if not valid.
    #[n(5)]
    pub last_valid: Option<LastValid>,
}

/// A batch of verdicts of one segment, as it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VerdictBlock {
    /// The organisation.
    #[n(0)]
    pub org: OrgId,
    /// The segment.
    #[n(1)]
    pub segment: SegmentId,
    /// The relay's epoch: blocks are ordered by (epoch, number).
    #[n(2)]
    pub epoch: Epoch,
    /// The number of the block's last verdict: it rises by one with every verdict.
    #[n(3)]
    pub number: u64,
    /// The number of the catalog that it was judged by.
    #[n(4)]
    pub catalog: u64,
    /// The log position through which everything is judged.
    #[n(5)]
    pub pos: Pos,
    /// The segment's heads at that position.
    #[n(6)]
    pub heads: Vec<ChangeHash>,
    /// The verdicts.
    #[n(7)]
    pub verdicts: Vec<Verdict>,
}

/// How far somebody has a segment's verdicts. Blocks are ordered by this, and the greatest one stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Judged {
    /// The epoch of the newest block.
    #[n(0)]
    pub epoch: Epoch,
    /// The number of its last verdict.
    #[n(1)]
    pub number: u64,
    /// The position through which it judges.
    #[n(2)]
    pub pos: Pos,
}

impl VerdictBlock {
    /// Where it lies in the order of verdicts.
    #[must_use]
    pub fn judged(&self) -> Judged {
        Judged { epoch: self.epoch, number: self.number, pos: self.pos }
    }
}
