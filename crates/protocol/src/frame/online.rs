//! What is asked of a relay at once: calls and questions.

use fieldkeep_model::{CallOutcome, Refusal, Signed};
use minicbor::{Decode, Encode};

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Call {
    /// The intent that the device signed.
    #[n(0)]
    pub intent: Signed,
    /// Whether nobody waits for it any more: if it has not been carried out, it never will be.
    #[n(1)]
    pub withdrawn: bool,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Outcome {
    /// The device's number for it.
    #[n(0)]
    pub number: u64,
    /// What came of it.
    #[n(1)]
    pub outcome: CallOutcome,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ask {
    /// A number by which the answer is known; it means nothing beyond this connection.
    #[n(0)]
    pub number: u64,
    /// The query of the catalog.
    #[n(1)]
    pub query: String,
    /// The text of a JSON object: its parameters.
    #[n(2)]
    pub params: String,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Answer {
    /// The question's number.
    #[n(0)]
    pub number: u64,
    /// What it is.
    #[n(1)]
    pub said: Said,
}

/// What a question is answered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Said {
    /// Rows.
    #[n(0)]
    Rows {
        /// The names of the columns.
        #[n(0)]
        columns: Vec<String>,
        /// The text of a JSON list of lists: the rows.
        #[n(1)]
        rows: String,
        /// Whether these are all.
        #[n(2)]
        whole: bool,
    },
    /// No answer.
    #[n(1)]
    Refused {
        /// Which kind of no.
        #[n(0)]
        refusal: Refusal,
        /// Why, in a sentence.
        #[n(1)]
        reason: String,
    },
}
