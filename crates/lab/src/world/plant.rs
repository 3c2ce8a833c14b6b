//! Mistakes that can be planted in the shells around the engines, one for each oracle: an oracle
//! that does not find its plant tests nothing. Product code knows nothing of them.

use std::fmt;
use std::str::FromStr;

use super::oracle::Oracle;

/// A mistake of a shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// The relay's shell lets receipts out, and its disk does not have what they speak of.
    EarlyAck,
    /// A device's disk says that it has what it has not.
    LyingSync,
    /// A copy of a device is noticed, and goes on as the same incarnation.
    ReusedIncarnation,
    /// A change comes into the relay's log past the gate.
    SkippedGate,
    /// A device takes the relay's position for its own without having the changes.
    StaleCursor,
    /// A device takes its changes for received without a receipt.
    UnearnedReceipt,
    /// A row of the projection is not what the changes say.
    AlteredRecord,
    /// A verdict on a device is not what the relay stated.
    AlteredVerdict,
    /// A device forecasts by another catalog than the relay judges by.
    OtherCatalog,
    /// The shell deletes a record that nobody deleted.
    SystemDelete,
    /// A change that is permitted is marked in the relay's log as merged without permission.
    WrongTaint,
    /// While a record is held, the relay judges nothing else.
    HeldBlocks,
    /// A device's shell leaves a scope out for its person, and does not tell the engine.
    ForgottenSubscription,
    /// A device's shell makes a call once more when its connection has ended.
    CalledAnew,
    /// A device writes upon a state that needs a connection.
    OfflineEdit,
    /// A device's shell sends a file before its record is on the relay.
    EarlyFile,
    /// A device's shell takes a file for sent as soon as its bytes have left.
    ForgottenFile,
    /// The relay's shell gives a file to whoever knows its name.
    OpenDoor,
    /// The relay is never told that a connection ended.
    LeakedConnection,
    /// A device never comes back after its first failure.
    NoReturn,
    /// A node panics.
    Panic,
}

impl Plant {
    /// Every plant.
    pub const ALL: [Self; 21] = [
        Self::EarlyAck,
        Self::LyingSync,
        Self::ReusedIncarnation,
        Self::SkippedGate,
        Self::StaleCursor,
        Self::UnearnedReceipt,
        Self::AlteredRecord,
        Self::AlteredVerdict,
        Self::OtherCatalog,
        Self::SystemDelete,
        Self::WrongTaint,
        Self::HeldBlocks,
        Self::ForgottenSubscription,
        Self::CalledAnew,
        Self::OfflineEdit,
        Self::EarlyFile,
        Self::ForgottenFile,
        Self::OpenDoor,
        Self::LeakedConnection,
        Self::NoReturn,
        Self::Panic,
    ];

    /// The word for it on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::EarlyAck => "early-ack",
            Self::LyingSync => "lying-sync",
            Self::ReusedIncarnation => "reused-incarnation",
            Self::SkippedGate => "skipped-gate",
            Self::StaleCursor => "stale-cursor",
            Self::UnearnedReceipt => "unearned-receipt",
            Self::AlteredRecord => "altered-record",
            Self::AlteredVerdict => "altered-verdict",
            Self::OtherCatalog => "other-catalog",
            Self::SystemDelete => "system-delete",
            Self::WrongTaint => "wrong-taint",
            Self::HeldBlocks => "held-blocks",
            Self::ForgottenSubscription => "forgotten-subscription",
            Self::CalledAnew => "called-anew",
            Self::OfflineEdit => "offline-edit",
            Self::EarlyFile => "early-file",
            Self::ForgottenFile => "forgotten-file",
            Self::OpenDoor => "open-door",
            Self::LeakedConnection => "leaked-connection",
            Self::NoReturn => "no-return",
            Self::Panic => "panic",
        }
    }

    /// The oracles that must find it: the one that it is planted for first.
    #[must_use]
    pub fn found_by(self) -> &'static [Oracle] {
        match self {
            Self::EarlyAck => &[Oracle::Lost, Oracle::Unsaved],
            Self::LyingSync => &[Oracle::Saved],
            Self::ReusedIncarnation => &[Oracle::Incarnation],
            Self::SkippedGate => &[Oracle::Gate, Oracle::Settles],
            Self::StaleCursor => &[Oracle::Synced],
            Self::UnearnedReceipt => &[Oracle::Unsaved],
            Self::AlteredRecord => &[Oracle::Projection],
            Self::AlteredVerdict => &[Oracle::Verdicts],
            Self::OtherCatalog => &[Oracle::Forecast],
            Self::SystemDelete => &[Oracle::Deletion],
            Self::WrongTaint => &[Oracle::Permitted],
            Self::HeldBlocks => &[Oracle::Held],
            Self::ForgottenSubscription => &[Oracle::LeftOut],
            Self::CalledAnew => &[Oracle::Called],
            Self::OfflineEdit => &[Oracle::Online],
            Self::EarlyFile | Self::ForgottenFile => &[Oracle::Filed],
            Self::OpenDoor => &[Oracle::Opened],
            Self::LeakedConnection => &[Oracle::Bounded],
            Self::NoReturn => &[Oracle::Settles],
            Self::Panic => &[Oracle::Contained],
        }
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that names no plant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is nothing to plant that is called `{word}`: {known}", known = Plant::ALL.map(Plant::word).join(", "))]
pub struct UnknownPlant {
    word: String,
}

impl FromStr for Plant {
    type Err = UnknownPlant;

    fn from_str(word: &str) -> Result<Self, UnknownPlant> {
        let found = Self::ALL.into_iter().find(|plant| plant.word() == word);
        found.ok_or_else(|| UnknownPlant { word: word.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_oracle_has_a_plant() {
        let covered: BTreeSet<_> = Plant::ALL.iter().map(|plant| plant.found_by()[0]).collect();
        let bare = Oracle::ALL.into_iter().filter(|oracle| !covered.contains(oracle));
        let bare: Vec<_> = bare.collect();
        assert_eq!(bare, Vec::<Oracle>::new(), "nothing shows that these can fail");
    }
}
