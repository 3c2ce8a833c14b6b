//! The largest value that a part of a rule can have. Sizes begin with those of [`limit`], which
//! judging enforces; a field of this record is also bound by its schema, because rules run only on
//! a record that fits it.

use std::collections::BTreeMap;

use cel::common::ast::LiteralValue;

use crate::limit;
use crate::object::{Field, Kind};
use crate::schema::Scalars;

/// Where the fields of a shape come from.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Origin<'a> {
    Record,
    Child(&'a str),
    /// The last valid state. It passed, but perhaps under an older catalog.
    Previous,
    /// Another record: its values need not fit the schemas.
    Other,
    /// A child of a set of another record or of the last valid state.
    OtherChild,
}

/// The largest value that an expression can have.
#[derive(Clone)]
pub(super) enum Shape<'a> {
    /// A number, truth value, null, or type.
    Scalar,
    /// A text of at most so many bytes.
    Text(u64),
    /// A record, or a child of a set.
    Fields(Origin<'a>, &'a BTreeMap<String, Field>),
    /// `refs`.
    Refs,
    /// A list with so many items, of so many bytes together.
    List { len: u64, bytes: u64, item: Box<Self> },
    /// Anything, nested at will: no list in it has more items, all of it no more bytes.
    Any { len: u64, bytes: u64 },
}

pub(super) const RECORD: u64 = limit::RECORD as u64;

impl<'a> Shape<'a> {
    pub(super) fn of_field(name: &'a str, field: &'a Field, origin: Origin<'a>) -> Self {
        let scalars = match origin {
            Origin::Record | Origin::Child(_) => Scalars::of(field.schema.as_ref()),
            Origin::Previous | Origin::Other | Origin::OtherChild => Scalars::of(None),
        };
        match field.kind {
            Kind::Counter => Self::Scalar,
            Kind::Register if !scalars.text => Self::Scalar,
            Kind::Register => Self::Text(text_limit(field, origin)),
            Kind::Text => Self::Text(limit::TEXT as u64),
            Kind::Json => Self::Any { len: limit::JSON_ITEMS as u64, bytes: RECORD },
            Kind::Set | Kind::Attachment => {
                let record = origin == Origin::Record;
                let origin = if record { Origin::Child(name) } else { Origin::OtherChild };
                let item = Box::new(Self::Fields(origin, &field.children));
                Self::List { len: limit::CHILDREN as u64, bytes: RECORD, item }
            }
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Scalar => 16,
            Self::Text(bytes) => bytes + 16,
            Self::Fields(..) | Self::Refs => RECORD,
            Self::List { bytes, .. } | Self::Any { bytes, .. } => *bytes,
        }
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Scalar | Self::Text(_) => 0,
            Self::Fields(_, fields) => fields.len() as u64 + 1,
            Self::Refs => limit::CHILDREN as u64,
            Self::List { len, .. } | Self::Any { len, .. } => *len,
        }
    }

    /// A shape as large as the larger of two.
    pub(super) fn join(self, other: Self) -> Self {
        let (len, bytes) = (self.len().max(other.len()), self.bytes().max(other.bytes()));
        match (self, other) {
            (Self::Scalar, Self::Scalar) => Self::Scalar,
            (Self::Scalar | Self::Text(_), Self::Scalar | Self::Text(_)) => Self::Text(bytes),
            (Self::List { item: a, .. }, Self::List { item: b, .. }) => {
                Self::List { len, bytes, item: Box::new(a.join(*b)) }
            }
            _ => Self::Any { len: len.max(limit::JSON_ITEMS as u64), bytes },
        }
    }

    /// The shape of a sum. Sums of unlike kinds are errors, and leave no value.
    pub(super) fn plus(self, other: Self) -> Self {
        let bytes = self.bytes().saturating_add(other.bytes());
        let len = self.len().saturating_add(other.len());
        match (self, other) {
            (Self::Scalar, _) | (_, Self::Scalar) => Self::Scalar,
            (Self::Text(_), Self::Text(_)) => Self::Text(bytes),
            (Self::List { item: a, .. }, Self::List { item: b, .. }) => {
                Self::List { len, bytes, item: Box::new(a.join(*b)) }
            }
            _ => Self::Any { len: len.max(nested_len()), bytes },
        }
    }
}

fn text_limit(field: &Field, origin: Origin<'_>) -> u64 {
    let own = matches!(origin, Origin::Record | Origin::Child(_));
    let schema = field.schema.as_ref().filter(|_| own);
    let chars = schema.and_then(|schema| schema.get("maxLength")?.as_u64());
    // A character has at most four bytes.
    chars
        .map_or(limit::REGISTER as u64, |chars| chars.saturating_mul(4).min(limit::REGISTER as u64))
}

pub(super) fn nested_len() -> u64 {
    limit::JSON_ITEMS as u64
}

pub(super) fn literal_shape<'a>(literal: &LiteralValue) -> Shape<'a> {
    match literal {
        LiteralValue::String(text) => Shape::Text(text.inner().len() as u64),
        LiteralValue::Bytes(bytes) => Shape::Text(bytes.inner().len() as u64),
        LiteralValue::Boolean(_)
        | LiteralValue::Double(_)
        | LiteralValue::Int(_)
        | LiteralValue::Null
        | LiteralValue::UInt(_) => Shape::Scalar,
    }
}
