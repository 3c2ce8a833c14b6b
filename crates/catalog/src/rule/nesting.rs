//! A look at a rule's source before it is parsed: how deep it nests, and that it holds nothing but
//! ASCII outside of texts. Keeps the parser's recursion short.

use super::RuleError;
use crate::limit;

/// Refuses a source that nests deeper than [`limit::NESTING`].
pub(super) fn check(source: &str) -> Result<(), RuleError> {
    let mut scanner = Scanner { bytes: source.as_bytes(), at: 0 };
    let (mut open, mut conditionals, mut prefixes) = (0usize, 0usize, 0usize);
    while let Some(byte) = scanner.next() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            b'?' => conditionals += 1,
            b'!' | b'-' => prefixes += 1,
            _ if !byte.is_ascii() => {
                return Err(RuleError::Syntax("a character outside of a text".to_owned()));
            }
            _ => {}
        }
        if !byte.is_ascii_whitespace() && !matches!(byte, b'!' | b'-') {
            prefixes = 0;
        }
        if open + conditionals + prefixes > limit::NESTING {
            return Err(RuleError::TooDeep);
        }
    }
    Ok(())
}

/// The bytes of a source outside of comments; a text counts as one quote.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        match byte {
            b'/' if self.bytes[self.at..].starts_with(b"//") => self.skip_line(),
            b'"' | b'\'' => self.skip_text(byte),
            _ => self.at += 1,
        }
        Some(byte)
    }

    fn skip_line(&mut self) {
        let rest = &self.bytes[self.at..];
        self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    }

    fn skip_text(&mut self, quote: u8) {
        let raw = self.at > 0 && matches!(self.bytes[self.at - 1], b'r' | b'R');
        let triple = self.bytes[self.at..].starts_with(&[quote; 3]);
        let end: &[u8] = if triple { &[quote; 3] } else { &[quote] };
        self.at += end.len();
        while self.at < self.bytes.len() && !self.bytes[self.at..].starts_with(end) {
            self.at += if self.bytes[self.at] == b'\\' && !raw { 2 } else { 1 };
        }
        self.at = (self.at + end.len()).min(self.bytes.len());
    }
}
