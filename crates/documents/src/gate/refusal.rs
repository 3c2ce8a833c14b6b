//! Refusals: at which stage the gate stopped a change, and why.

use std::fmt;

use fieldkeep_model::{ChangeHash, HeaderError};

/// Why a change was not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stage {stage}: {code}")]
pub struct Refusal {
    /// The stage that decided: 0, 2, 3 or 4.
    pub stage: u8,
    /// The reason.
    pub code: Code,
}

impl Refusal {
    pub(super) fn at(stage: u8) -> impl Fn(Code) -> Self {
        move |code| Self { stage, code }
    }

    /// The changes that this one waits for, if that is all that is wrong so far.
    #[must_use]
    pub fn waits(&self) -> Option<&[ChangeHash]> {
        if let Code::MissingDeps(missing) = &self.code { Some(missing) } else { None }
    }

    /// Whether every honest replica refuses this change, whatever else it knows. What waits, is
    /// known already, or is the other branch of a fork is not refused in this sense.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self.code, Code::MissingDeps(_) | Code::Known | Code::Fork { .. })
    }
}

macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident = $code:literal,)*) => {
        /// A reason of the gate. The text of [`Code::as_str`] is stable: it travels in refusals.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Code {
            /// Stage 0: the header is at fault.
            Header(HeaderError),
            /// Stage 2: changes that it builds upon are not held. It waits.
            MissingDeps(Vec<ChangeHash>),
            /// Stage 2: well-formed, but another change of this actor with this seq is held.
            Fork {
                /// The change that is held.
                held: ChangeHash,
            },
            $($(#[$meta])* $name,)*
        }

        impl Code {
            /// The reason's stable name, in kebab case.
            #[must_use]
            pub fn as_str(&self) -> &'static str {
                match self {
                    Self::Header(error) => header_code(*error),
                    Self::MissingDeps(_) => "missing-deps",
                    Self::Fork { .. } => "fork",
                    $(Self::$name => $code,)*
                }
            }
        }
    };
}

codes! {
    /// Stage 2: the identical change is held already.
    Known = "known",
    /// Stage 2: the seq does not follow the newest change of the actor that it builds upon.
    Seq = "seq",
    /// Stage 2: it does not name its author's previous change as a direct dependency.
    Predecessor = "predecessor",
    /// Stage 2: a dependency is an ancestor of another one.
    RedundantDep = "redundant-dep",
    /// Stage 2: its first operation does not follow the highest that it builds upon.
    StartOp = "start-op",
    /// Stage 3: the columns cannot be read.
    Malformed = "malformed",
    /// Stage 3: the columns are not encoded as Automerge encodes them.
    NotCanonical = "not-canonical",
    /// Stage 4: marks are not allowed.
    Mark = "mark",
    /// Stage 4: tables are not allowed.
    Table = "table",
    /// Stage 4: the object does not exist in the change's past.
    UnknownObject = "unknown-object",
    /// Stage 4: the object is named by an operation that made none.
    NotAnObject = "not-an-object",
    /// Stage 4: a map is addressed by element, or a sequence by key.
    KeyKind = "key-kind",
    /// Stage 4: a key is empty or longer than 256 bytes.
    KeyLength = "key-length",
    /// Stage 4: the element does not exist in the change's past.
    UnknownElement = "unknown-element",
    /// Stage 4: the element is of another sequence, or is not an insertion.
    NotAnElement = "not-an-element",
    /// Stage 4: an object would lie deeper than 8 below the root.
    Depth = "depth",
    /// Stage 4: an insertion that deletes or increments, and so puts nothing there.
    EmptyInsert = "empty-insert",
    /// Stage 4: an insertion names predecessors.
    InsertWithPred = "insert-with-pred",
    /// Stage 4: a deletion, an increment or an element's update names no predecessor.
    WithoutPred = "without-pred",
    /// Stage 4: a predecessor does not exist in the change's past.
    UnknownPred = "unknown-pred",
    /// Stage 4: a predecessor is of another object, key or element.
    PredElsewhere = "pred-elsewhere",
    /// Stage 4: a predecessor is a deletion or an increment.
    PredNotAValue = "pred-not-a-value",
    /// Stage 4: a predecessor is named twice.
    PredRepeated = "pred-repeated",
    /// Stage 4: an increment of something that is not a counter.
    NotACounter = "not-a-counter",
    /// Stage 4: a counter's start or an increment is beyond 2^32 either side of zero.
    CounterRange = "counter-range",
    /// Stage 4: a timestamp, which Fieldkeep writes as an integer, or a type nobody knows.
    ValueType = "value-type",
    /// Stage 4: a floating-point number that is infinite or not a number.
    NotFinite = "not-finite",
    /// Stage 4: in a text, something else than insertions of short strings and deletions.
    TextOperation = "text-operation",
    /// Stage 4: at the root, something else than the creation of a record.
    RootOperation = "root-operation",
    /// Stage 4: a key at the root is not a record id.
    RecordId = "record-id",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn header_code(error: HeaderError) -> &'static str {
    match error {
        HeaderError::TooLong => "too-long",
        HeaderError::NotAChunk => "not-a-chunk",
        HeaderError::NotAChange => "not-a-change",
        HeaderError::Length => "length",
        HeaderError::Bomb => "bomb",
        HeaderError::Deflate => "deflate",
        HeaderError::Checksum => "checksum",
        HeaderError::Number => "number",
        HeaderError::TooManyDeps => "too-many-deps",
        HeaderError::DepsUnsorted => "deps-unsorted",
        HeaderError::Actor => "actor",
        HeaderError::Message => "message",
        HeaderError::Column => "column",
        HeaderError::TooManyOps => "too-many-ops",
        HeaderError::CounterTooHigh => "counter-too-high",
        HeaderError::ExtraBytes => "extra-bytes",
    }
}
