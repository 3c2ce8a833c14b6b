//! How the story is told: chapters of sentences for people, with their figures for programs.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::output::safe;

/// How wide a line may get.
const WIDTH: usize = 78;

/// A part of the day: what happened, and its figures.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Chapter {
    /// What it is about.
    pub(super) title: &'static str,
    /// What happened, a paragraph each; those that begin with `- ` are points of the one before.
    pub(super) text: Vec<String>,
    /// The same in figures.
    pub(super) facts: Map<String, Value>,
}

impl Chapter {
    pub(super) fn new(title: &'static str) -> Self {
        Self { title, ..Self::default() }
    }

    /// Tells something.
    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.text.push(text.into());
    }

    /// Tells a point of what was told before.
    pub(super) fn point(&mut self, text: impl AsRef<str>) {
        self.text.push(format!("- {}", text.as_ref()));
    }

    /// Keeps a figure.
    pub(super) fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// Writes the chapter for people.
    pub(super) fn print(&self, number: usize, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\n{number}  {}", self.title)?;
        for text in &self.text {
            let (first, rest) =
                if text.starts_with("- ") { ("   ", "     ") } else { ("   ", "   ") };
            for line in wrapped(&safe(text), first, rest) {
                writeln!(out, "{line}")?;
            }
        }
        Ok(())
    }
}

/// Breaks a text into lines; a word that is longer than a line stays whole.
fn wrapped(text: &str, first: &str, rest: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = first.to_owned();
    let mut fresh = true;
    for word in text.split(' ') {
        let length = line.chars().count() + usize::from(!fresh) + word.chars().count();
        if !fresh && length > WIDTH {
            lines.push(std::mem::replace(&mut line, rest.to_owned()));
            fresh = true;
        }
        if !fresh {
            line.push(' ');
        }
        line.push_str(word);
        fresh = false;
    }
    lines.push(line);
    lines
}

/// `1 record`, `3 records`.
pub(super) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A duration with the digits that matter.
pub(super) fn took(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.01 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else {
        format!("{seconds:.1} s")
    }
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn all_of(parts: &[String]) -> String {
    match parts {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_./:=,+-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_the_width_and_lose_no_word() {
        let text = "one two three ".repeat(20);
        let lines = wrapped(text.trim(), "   ", "     ");
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH));
        let words: Vec<_> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
        assert_eq!(words.join(" "), text.trim());
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quoted("order/ann-2"), "order/ann-2");
        assert_eq!(quoted("lines[water].quantity=12"), "'lines[water].quantity=12'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn lists_read_as_sentences() {
        let parts =
            |n: usize| ["a", "b", "c"][..n].iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(all_of(&parts(1)), "a");
        assert_eq!(all_of(&parts(3)), "a, b and c");
        assert_eq!((count(1, "order"), count(2, "order")), ("1 order".into(), "2 orders".into()));
    }
}
