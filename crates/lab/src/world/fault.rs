//! What goes wrong in the world: each kind of fault by name, and how often each has struck.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Packets are lost, so streams overtake each other.
    Loss,
    /// A connection ends at any byte, and neither side is told.
    Cut,
    /// A device is out of reach for a while, in the middle of whatever it does.
    Partition,
    /// A device's process ends: before a commit, after it, or between.
    Kill,
    /// The same of the relay.
    RelayKill,
    /// A device's disk takes nothing more for a while.
    DiskFull,
    /// The same of the relay's.
    RelayDiskFull,
    /// A device's directory is copied and both copies are used; the copy is noticed.
    Clone,
    /// The same, and nothing tells the copies apart.
    SilentClone,
    /// A device's directory is put back from an old copy, which is noticed.
    Restore,
    /// The same, and nothing tells that it happened.
    SilentRestore,
    /// The relay's directory is put back from an old copy.
    RelayRestore,
    /// A device's clock is wrong by years, or jumps.
    Clock,
    /// A peer says what it may not say now, or what is no frame at all.
    Nonsense,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::Loss,
        Self::Cut,
        Self::Partition,
        Self::Kill,
        Self::RelayKill,
        Self::DiskFull,
        Self::RelayDiskFull,
        Self::Clone,
        Self::SilentClone,
        Self::Restore,
        Self::SilentRestore,
        Self::RelayRestore,
        Self::Clock,
        Self::Nonsense,
    ];

    /// The word for it on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Cut => "cut",
            Self::Partition => "partition",
            Self::Kill => "kill",
            Self::RelayKill => "relay-kill",
            Self::DiskFull => "disk-full",
            Self::RelayDiskFull => "relay-disk-full",
            Self::Clone => "clone",
            Self::SilentClone => "silent-clone",
            Self::Restore => "restore",
            Self::SilentRestore => "silent-restore",
            Self::RelayRestore => "relay-restore",
            Self::Clock => "clock",
            Self::Nonsense => "nonsense",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The faults of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub BTreeSet<Fault>);

impl Faults {
    /// All kinds.
    #[must_use]
    pub fn all() -> Self {
        Self(Fault::ALL.into())
    }

    /// Whether a kind is among them.
    #[must_use]
    pub fn has(&self, fault: Fault) -> bool {
        self.0.contains(&fault)
    }
}

/// A word that names no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no fault `{word}`: all, none, or of {known}", known = Fault::ALL.map(Fault::word).join(", "))]
pub struct UnknownFault {
    word: String,
}

impl FromStr for Faults {
    type Err = UnknownFault;

    /// `all`, `none`, or kinds with commas between.
    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        match text {
            "all" => Ok(Self::all()),
            "none" => Ok(Self::default()),
            list => {
                let kind = |word: &str| {
                    let found = Fault::ALL.into_iter().find(|fault| fault.word() == word);
                    found.ok_or_else(|| UnknownFault { word: word.to_owned() })
                };
                list.split(',').map(kind).collect::<Result<_, _>>().map(Self)
            }
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::all() {
            return f.write_str("all");
        }
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let words: Vec<_> = self.0.iter().map(|fault| fault.word()).collect();
        f.write_str(&words.join(","))
    }
}

/// How often each kind of fault has struck, or of decision was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally<K = Fault>(pub BTreeMap<K, u64>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Copy + Ord> Tally<K> {
    pub(crate) fn struck(&mut self, kind: K) {
        *self.0.entry(kind).or_default() += 1;
    }

    /// How often a kind has struck.
    #[must_use]
    pub fn of(&self, kind: K) -> u64 {
        self.0.get(&kind).copied().unwrap_or_default()
    }

    /// Counts what struck in another run, too.
    pub fn add(&mut self, other: &Self) {
        for (kind, times) in &other.0 {
            *self.0.entry(*kind).or_default() += times;
        }
    }

    /// The kinds that were asked for and never struck.
    #[must_use]
    pub fn missing(&self, asked: &BTreeSet<K>) -> Vec<K> {
        asked.iter().copied().filter(|kind| self.of(*kind) == 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_faults_are_read_as_they_are_written() {
        for text in ["all", "none", "cut,kill,relay-restore"] {
            let faults: Faults = text.parse().expect("known words");
            assert_eq!(faults.to_string(), text);
        }
        let unknown = "cut,meteor".parse::<Faults>().expect_err("there is none");
        assert!(
            unknown.to_string().starts_with("there is no fault `meteor`: all, none, or of loss")
        );
    }

    #[test]
    fn a_fault_that_was_asked_for_and_never_struck_is_missing() {
        let asked: Faults = "cut,kill".parse().expect("known words");
        let mut tally = Tally::default();
        tally.struck(Fault::Cut);
        assert_eq!(tally.missing(&asked.0), [Fault::Kill]);
    }
}
