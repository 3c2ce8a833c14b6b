//! What a user changes in a record: a list of edits, each of one field, independent of how the
//! change was typed and of how the document stores it.

use serde::{Deserialize, Serialize};

/// A value that a register holds. Times are integer milliseconds UTC; money is text, verbatim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite floating-point number; not a number and infinities are refused by the gate.
    Float(f64),
    /// Text, replaced whole.
    Str(String),
}

/// One edit of one field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Edit {
    /// Sets a register.
    Put(String, Scalar),
    /// Sets a json field to a whole JSON value, given as its text.
    Json(String, String),
    /// Replaces the content of a collaborative text; the change holds only what differs.
    Text(String, String),
    /// Adds to a counter, creating it at that value where there is none.
    Add(String, i64),
    /// Removes a field of any kind.
    Clear(String),
    /// Edits a child of a set, creating it where there is none (and undeleting it).
    Child(String, String, Vec<Self>),
    /// Removes a child of a set, softly.
    RemoveChild(String, String),
}

impl Edit {
    /// The field that is edited.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::Put(field, _)
            | Self::Json(field, _)
            | Self::Text(field, _)
            | Self::Add(field, _)
            | Self::Clear(field)
            | Self::Child(field, ..)
            | Self::RemoveChild(field, _) => field,
        }
    }
}

/// What one write does to one record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordEdit {
    /// The edits, in order.
    pub edits: Vec<Edit>,
    /// Sets or lifts the soft deletion.
    pub deleted: Option<bool>,
}

impl From<Vec<Edit>> for RecordEdit {
    fn from(edits: Vec<Edit>) -> Self {
        Self { edits, deleted: None }
    }
}

impl RecordEdit {
    /// The soft deletion of a record.
    #[must_use]
    pub fn delete() -> Self {
        Self { edits: Vec::new(), deleted: Some(true) }
    }
}
