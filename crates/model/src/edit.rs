//! What a user changes in a record: a list of edits, each of one field, independent of how the
//! change was typed and of how the document stores it.

use minicbor::decode::Error;
use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder};
use serde::{Deserialize, Serialize};

/// A value that a register holds. Times are integer milliseconds UTC; money is text, verbatim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Encode, Decode)]
#[serde(untagged)]
pub enum Scalar {
    /// True or false.
    #[n(0)]
    Bool(#[n(0)] bool),
    /// A whole number.
    #[n(1)]
    Int(#[n(0)] i64),
    /// A finite floating-point number; not a number and infinities are refused by the gate.
    #[n(2)]
    Float(#[n(0)] f64),
    /// Text, replaced whole.
    #[n(3)]
    Str(#[n(0)] String),
}

/// One edit of one field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Encode, Decode)]
pub enum Edit {
    /// Sets a register.
    #[n(0)]
    Put(#[n(0)] String, #[n(1)] Scalar),
    /// Sets a json field to a whole JSON value, given as its text.
    #[n(1)]
    Json(#[n(0)] String, #[n(1)] String),
    /// Replaces the content of a collaborative text; the change holds only what differs.
    #[n(2)]
    Text(#[n(0)] String, #[n(1)] String),
    /// Adds to a counter, creating it at that value where there is none.
    #[n(3)]
    Add(#[n(0)] String, #[n(1)] i64),
    /// Removes a field of any kind.
    #[n(4)]
    Clear(#[n(0)] String),
    /// Edits a child of a set, creating it where there is none (and undeleting it).
    #[n(5)]
    Child(
        #[n(0)] String,
        #[n(1)] String,
        #[cbor(n(2), encode_with = "encode_within", decode_with = "decode_within")] Vec<Self>,
    ),
    /// Removes a child of a set, softly.
    #[n(6)]
    RemoveChild(#[n(0)] String, #[n(1)] String),
}

/// An edit within a child. Children hold no sets: so reading one never recurses, whatever the bytes.
#[derive(Decode)]
enum Within {
    #[n(0)]
    Put(#[n(0)] String, #[n(1)] Scalar),
    #[n(1)]
    Json(#[n(0)] String, #[n(1)] String),
    #[n(2)]
    Text(#[n(0)] String, #[n(1)] String),
    #[n(3)]
    Add(#[n(0)] String, #[n(1)] i64),
    #[n(4)]
    Clear(#[n(0)] String),
}

fn encode_within<C, W: Write>(
    edits: &Vec<Edit>,
    encoder: &mut Encoder<W>,
    context: &mut C,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    edits.encode(encoder, context)
}

fn decode_within<'b, C>(decoder: &mut Decoder<'b>, context: &mut C) -> Result<Vec<Edit>, Error> {
    let edits: Vec<Within> = Decode::decode(decoder, context)?;
    let edits = edits.into_iter().map(|edit| match edit {
        Within::Put(field, value) => Edit::Put(field, value),
        Within::Json(field, text) => Edit::Json(field, text),
        Within::Text(field, text) => Edit::Text(field, text),
        Within::Add(field, by) => Edit::Add(field, by),
        Within::Clear(field) => Edit::Clear(field),
    });
    Ok(edits.collect())
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Encode, Decode)]
pub struct RecordEdit {
    /// The edits, in order.
    #[n(0)]
    pub edits: Vec<Edit>,
    /// Sets or lifts the soft deletion.
    #[n(1)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_comes_back_from_its_bytes_and_never_nests() {
        let inner = vec![Edit::Add("n".into(), -3), Edit::Put("f".into(), Scalar::Float(0.5))];
        let edits = vec![
            Edit::Put("a".into(), Scalar::Bool(true)),
            Edit::Json("j".into(), "[1]".into()),
            Edit::Child("lines".into(), "1".into(), inner.clone()),
            Edit::RemoveChild("lines".into(), "2".into()),
        ];
        let edit = RecordEdit { edits, deleted: Some(false) };
        let bytes = minicbor::to_vec(&edit).expect("it encodes");
        assert_eq!(minicbor::decode::<RecordEdit>(&bytes).expect("it decodes"), edit);
        let nested =
            Edit::Child("s".into(), "1".into(), vec![Edit::Child("t".into(), "2".into(), inner)]);
        let bytes = minicbor::to_vec(RecordEdit::from(vec![nested])).expect("it encodes");
        assert!(minicbor::decode::<RecordEdit>(&bytes).is_err());
    }
}
