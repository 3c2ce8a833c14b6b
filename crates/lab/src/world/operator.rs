//! What the operator decides in the world: each kind of decision by name. How often each was carried
//! out is counted like the faults that struck.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A kind of decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// A catalog with other rules is published.
    Publish,
    /// A device that was not there before is invited, and joins.
    Join,
    /// A device is revoked: it is lost, and whoever has it goes on writing.
    Revoke,
    /// A device's grants are replaced: fewer, more, or those of another territory.
    Move,
    /// The relay is put back from an old copy, and is told so.
    Restore,
}

impl Decision {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Publish, Self::Join, Self::Revoke, Self::Move, Self::Restore];

    /// The word for it on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Join => "join",
            Self::Revoke => "revoke",
            Self::Move => "move",
            Self::Restore => "restore",
        }
    }

    /// The word for it in reports, after the fact.
    #[must_use]
    pub fn done(self) -> &'static str {
        match self {
            Self::Publish => "published",
            Self::Join => "joined",
            Self::Revoke => "revoked",
            Self::Move => "moved",
            Self::Restore => "restored",
        }
    }
}

impl fmt::Display for Decision {
    /// As histories tell it, behind the name of whom it concerns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publishes a catalog",
            Self::Join => "joins",
            Self::Revoke => "is revoked",
            Self::Move => "is granted something else",
            Self::Restore => "is put back from an old copy, and told so",
        })
    }
}

/// What a device is granted from some moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// A territory, by number, in place of its own.
    Territory(usize),
    /// Its own territory, without payments and stock.
    Fewer,
    /// Every territory.
    Everywhere,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Territory(number) => write!(f, "moves to t{number}"),
            Self::Fewer => f.write_str("is kept from payments and stock"),
            Self::Everywhere => f.write_str("may work in every territory"),
        }
    }
}

/// The decisions of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decisions(pub BTreeSet<Decision>);

impl Decisions {
    /// All kinds.
    #[must_use]
    pub fn all() -> Self {
        Self(Decision::ALL.into())
    }

    /// Whether a kind is among them.
    #[must_use]
    pub fn has(&self, decision: Decision) -> bool {
        self.0.contains(&decision)
    }
}

/// A word that names no decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an operator does not `{word}`: all, none, or of {known}", known = Decision::ALL.map(Decision::word).join(", "))]
pub struct UnknownDecision {
    word: String,
}

impl FromStr for Decisions {
    type Err = UnknownDecision;

    /// `all`, `none`, or kinds with commas between.
    fn from_str(text: &str) -> Result<Self, UnknownDecision> {
        match text {
            "all" => Ok(Self::all()),
            "none" => Ok(Self::default()),
            list => {
                let kind = |word: &str| {
                    let found = Decision::ALL.into_iter().find(|kind| kind.word() == word);
                    found.ok_or_else(|| UnknownDecision { word: word.to_owned() })
                };
                list.split(',').map(kind).collect::<Result<_, _>>().map(Self)
            }
        }
    }
}

impl fmt::Display for Decisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::all() {
            return f.write_str("all");
        }
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let words: Vec<_> = self.0.iter().map(|kind| kind.word()).collect();
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_decisions_are_read_as_they_are_written() {
        for text in ["all", "none", "publish,revoke"] {
            let decisions: Decisions = text.parse().expect("known words");
            assert_eq!(decisions.to_string(), text);
        }
        let unknown = "publish,resign".parse::<Decisions>().expect_err("there is none");
        assert!(unknown.to_string().starts_with("an operator does not `resign`: all, none, or of"));
    }
}
