//! Intents: what a device asks a relay to do at once, and what came of it.
//!
//! A device signs an intent under a number that only rises. A relay carries out each once, keeps what
//! came of it for a day and the highest number for ever: whoever lost the answer asks again, and is
//! told the same. One that was put back from an old copy has forgotten what it did since: of the
//! intents of an epoch that is over it carries out none.

use minicbor::{Decode, Encode};

use crate::edit::RecordEdit;
use crate::id::{DeviceNumber, Epoch, OrgId, Pos, RecordHash, RecordKey, SegmentId};
use crate::key::Signed;

/// The context under which intents are signed.
pub const CONTEXT: &str = "fieldkeep 1 intent";
/// The longest intent, in bytes.
pub const INTENT: usize = 64 * 1024;

/// What a device asks for.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Intent {
    /// The organisation.
    #[n(0)]
    pub org: OrgId,
    /// The device.
    #[n(1)]
    pub device: DeviceNumber,
    /// The device's number for it: higher than any before.
    #[n(2)]
    pub number: u64,
    /// What for.
    #[n(3)]
    pub wish: Wish,
    /// Drawn for it: a copy of the device that asks for the same under the same number asks for
    /// something else.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub nonce: [u8; 16],
    /// The epoch of the relay's log when it was asked for. A relay that knows nothing of it and has
    /// another epoch was put back since, and may have carried it out before.
    #[n(5)]
    pub epoch: Epoch,
}

/// What an intent asks for.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Wish {
    /// That an action of the catalog is run.
    #[n(0)]
    Action {
        /// The action.
        #[n(0)]
        name: String,
        /// The text of a JSON object: its input.
        #[n(1)]
        input: String,
    },
    /// That a record is edited, as long as it is what the device takes it for.
    #[n(1)]
    Edit {
        /// The record.
        #[n(0)]
        record: RecordKey,
        /// The hash of the record as merged on the device.
        #[n(1)]
        expected: RecordHash,
        /// The edit.
        #[n(2)]
        edit: RecordEdit,
    },
}

/// What came of an intent: the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum CallOutcome {
    /// It was done, all of it.
    #[n(0)]
    Done {
        /// What was written.
        #[n(0)]
        effects: Vec<CallEffect>,
        /// What the host that was called has answered.
        #[n(1)]
        answer: Option<String>,
    },
    /// Nothing was done.
    #[n(1)]
    Refused {
        /// Which kind of no.
        #[n(0)]
        refusal: Refusal,
        /// Why, in a sentence.
        #[n(1)]
        reason: String,
    },
    /// Its number is not above this one, which the relay has seen, and what came of it is not known any
    /// more. Nothing was done now.
    #[n(2)]
    Stale(#[n(0)] u64),
    /// It was asked for before the relay was put back from an old copy, which knows nothing of it: it
    /// may have been done, and what it wrote may still be on devices. It is not done now.
    #[n(3)]
    Lost,
}

/// A record that a call wrote.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CallEffect {
    /// The record.
    #[n(0)]
    pub record: RecordKey,
    /// Where it lies.
    #[n(1)]
    pub segment: SegmentId,
    /// The position in the relay's log through which it is written.
    #[n(2)]
    pub pos: Pos,
}

/// Kinds of no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Refusal {
    /// The relay's catalog has no such action or query.
    #[n(0)]
    Unknown,
    /// The caller may not.
    #[n(1)]
    Denied,
    /// The input is not what is asked for.
    #[n(2)]
    Input,
    /// A record that it is about is not there.
    #[n(3)]
    Absent,
    /// A precondition is not met, or what would be written would be held.
    #[n(4)]
    Unmet,
    /// The record has changed meanwhile.
    #[n(5)]
    Changed,
    /// Nobody waited for it any more before it was run: it never will be.
    #[n(6)]
    Withdrawn,
    /// The host that was to be called refused, or did not answer.
    #[n(7)]
    Host,
    /// Too much is asked for at once.
    #[n(8)]
    Busy,
    /// What it costs is beyond its bounds.
    #[n(9)]
    Bounds,
}

/// The text that names a call wherever it shows: the id of what it creates, and the key under which a
/// host can tell that it has seen it.
#[must_use]
pub fn call_id(intent: &Signed) -> String {
    data_encoding::HEXLOWER.encode(&intent.digest()[..16])
}
