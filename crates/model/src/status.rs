//! Statuses: what is shown of a record and of an object type.

use serde::Serialize;

use crate::verdict::Outcome;

/// What is known of a record's validity here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The relay judged this very content.
    Judged(Outcome),
    /// The relay has not judged this content; what this replica forecasts.
    Forecast(Forecast),
}

/// What a device itself makes of a record; never replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forecast {
    /// Every rule passes here.
    LikelyValid,
    /// A rule is broken here.
    LikelyHeld,
    /// It depends on what this device does not hold.
    NeedsRelay,
}

impl State {
    /// The word for it, in output and documents.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Judged(outcome) => outcome.word(),
            Self::Forecast(Forecast::LikelyValid) => "likely_valid",
            Self::Forecast(Forecast::LikelyHeld) => "likely_held",
            Self::Forecast(Forecast::NeedsRelay) => "needs_relay",
        }
    }

    /// The number under which it is stored.
    #[must_use]
    pub fn code(self) -> i64 {
        match self {
            Self::Judged(Outcome::Valid) => 0,
            Self::Judged(Outcome::Held) => 1,
            Self::Judged(Outcome::Waiting) => 2,
            Self::Forecast(Forecast::LikelyValid) => 3,
            Self::Forecast(Forecast::LikelyHeld) => 4,
            Self::Forecast(Forecast::NeedsRelay) => 5,
        }
    }

    /// The state of a stored number.
    #[must_use]
    pub fn from_code(code: i64) -> Option<Self> {
        Some(match code {
            0 => Self::Judged(Outcome::Valid),
            1 => Self::Judged(Outcome::Held),
            2 => Self::Judged(Outcome::Waiting),
            3 => Self::Forecast(Forecast::LikelyValid),
            4 => Self::Forecast(Forecast::LikelyHeld),
            5 => Self::Forecast(Forecast::NeedsRelay),
            _ => return None,
        })
    }
}

/// The status of an object type on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TypeStatus {
    /// Downloading.
    Syncing,
    /// Proven equal to all that the relay has, nothing unsaved, every verdict here.
    FullySynced,
    /// The same, for the scopes that this device was granted.
    SubsetSynced,
    /// Anything else.
    Incomplete,
}

impl TypeStatus {
    /// The words for it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Syncing => "Syncing",
            Self::FullySynced => "Fully synced",
            Self::SubsetSynced => "Subset synced",
            Self::Incomplete => "Incomplete",
        }
    }
}
