//! Where a value stands within a record: `customer`, `lines[7]`, `lines[7].quantity`.
//!
//! The written form is the one that people type. A child's id may hold any character, brackets and
//! dots included: field names hold neither, so the first `[` and the last `]` are unambiguous.

use std::collections::BTreeSet;
use std::fmt;

/// A place within a record; the record itself has an empty field.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FieldPath {
    /// The record's field.
    pub(super) field: String,
    /// The child, where the field is a set.
    pub(super) child: Option<String>,
    /// The child's field.
    pub(super) inner: Option<String>,
}

impl FieldPath {
    /// A field of the record.
    pub(super) fn field(field: &str) -> Self {
        Self { field: field.to_owned(), child: None, inner: None }
    }

    /// Reads the written form. Anything reads as something: what has no brackets is a field, or a
    /// field of every child when there is a dot.
    pub(super) fn parse(text: &str) -> Self {
        if let Some((field, rest)) = text.split_once('[')
            && let Some((child, inner)) = rest.rsplit_once(']')
        {
            let inner = inner.strip_prefix('.').map(str::to_owned);
            return Self { field: field.to_owned(), child: Some(child.to_owned()), inner };
        }
        match text.split_once('.') {
            Some((field, inner)) => {
                Self { field: field.to_owned(), child: None, inner: Some(inner.to_owned()) }
            }
            None => Self::field(text),
        }
    }

    /// The place one key further down; none below a child's field.
    pub(super) fn down(&self, key: &str) -> Option<Self> {
        let mut path = self.clone();
        if path.field.is_empty() {
            path.field = key.to_owned();
        } else if path.child.is_none() {
            path.child = Some(key.to_owned());
        } else if path.inner.is_none() {
            path.inner = Some(key.to_owned());
        } else {
            return None;
        }
        Some(path)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.field)?;
        if let Some(child) = &self.child {
            write!(f, "[{child}]")?;
        }
        if let Some(inner) = &self.inner {
            write!(f, ".{inner}")?;
        }
        Ok(())
    }
}

/// Places that are asked for, as they are written: a place is found in a few lookups, however many
/// they are.
pub(super) struct Asked<'a>(BTreeSet<&'a str>);

impl<'a> Asked<'a> {
    pub(super) fn of(fields: impl IntoIterator<Item = &'a str>) -> Self {
        Self(fields.into_iter().collect())
    }

    /// Whether a place is one of them or lies below one; `lines.quantity` names the field of every
    /// child, and an empty name all of the record.
    pub(super) fn names(&self, path: &FieldPath) -> bool {
        let FieldPath { field, child, inner } = path;
        let names = |written: &str| self.0.contains(written);
        names("")
            || names(field)
            || child.as_ref().is_some_and(|child| names(&format!("{field}[{child}]")))
            || inner.as_ref().is_some_and(|inner| names(&format!("{field}.{inner}")))
            || (child.is_some() && inner.is_some() && names(&path.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_back_as_they_are_written() {
        for text in ["", "customer", "lines[7]", "lines[7].quantity", "lines[a].b[1]].c", "a.b"] {
            assert_eq!(FieldPath::parse(text).to_string(), text);
        }
    }

    #[test]
    fn a_prefix_names_what_lies_below_it() {
        let quantity = FieldPath::parse("lines[7].quantity");
        let names = |asked: &str| Asked::of([asked]).names(&quantity);
        assert!(names("") && names("lines") && names("lines[7]") && names("lines.quantity"));
        assert!(names("lines[7].quantity"));
        assert!(!names("line") && !names("lines[8]") && !names("lines.price"));
        assert!(!names("lines[7].price"));
    }
}
