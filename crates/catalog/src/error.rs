//! What is wrong with a catalog, said so that its author finds the place and the way out.

use std::fmt;
use std::ops::Range;

use crate::limit;

/// One thing that is wrong with a catalog.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct CatalogError {
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// The path of the key, as `type.order.field.total.kind`; empty where there is none.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it; empty where the problem says it.
    pub remedy: String,
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if !self.key.is_empty() {
            write!(f, ", {}", self.key)?;
        }
        write!(f, ": {}", self.problem)?;
        if !self.remedy.is_empty() {
            write!(f, ": {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Where something stands in a catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// The column in characters, counted from 1.
    pub(crate) column: usize,
}

impl Place {
    pub(crate) fn error(
        self,
        key: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> CatalogError {
        let (key, problem, remedy) = (key.into(), problem.into(), remedy.into());
        CatalogError { line: self.line, column: self.column, key, problem, remedy }
    }
}

/// Collects errors and knows the lines of the source.
pub(crate) struct Problems<'s> {
    source: &'s str,
    line_starts: Vec<usize>,
    found: Vec<CatalogError>,
}

impl<'s> Problems<'s> {
    pub(crate) fn new(source: &'s str) -> Self {
        let ends = source.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Self { source, line_starts, found: Vec::new() }
    }

    pub(crate) fn place(&self, span: &Range<usize>) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= span.start).max(1);
        let start = self.line_starts[line - 1];
        let before = self.source.as_bytes().get(start..span.start).unwrap_or_default();
        // A continuation byte of UTF-8 begins with 10: counting the others counts characters.
        let column = before.iter().filter(|byte| **byte & 0xc0 != 0x80).count() + 1;
        Place { line, column }
    }

    pub(crate) fn add(
        &mut self,
        span: &Range<usize>,
        key: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        if self.found.len() < limit::ERRORS {
            let error = self.place(span).error(key, problem, remedy);
            self.found.push(error);
        }
    }

    pub(crate) fn into_errors(mut self) -> Vec<CatalogError> {
        self.found.sort_by_key(|error| (error.line, error.column));
        self.found
    }
}

/// The nearest of some names, as a remedy: "did you mean `register`?", or the names themselves.
pub(crate) fn suggestion<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    // A third of the letters may differ: of one letter none, of `dat` and `date` one.
    let near = |(distance, name): &(usize, &&str)| 3 * distance <= name.len().max(word.len()) + 1;
    let nearest =
        known.iter().map(|name| (strsim::damerau_levenshtein(word, name), name)).filter(near).min();
    match nearest {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "there are none".to_owned(),
        None if known.len() > 12 => format!("known are `{}` and more", known[..12].join("`, `")),
        None => format!("known are `{}`", known.join("`, `")),
    }
}
