//! Statuses: what is shown of a record and of an object type.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::id::{SegmentAddress, TypeName};
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

/// What a device leaves out of every exchange, but for counts: types that are paused, and scopes that
/// it did not subscribe to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct LeftOut {
    /// Whether it is every type, those that a later catalog declares among them.
    #[n(0)]
    pub all: bool,
    /// The types that were paused one by one.
    #[n(1)]
    pub types: BTreeSet<TypeName>,
    /// Of these types nothing is exchanged but those scopes; of others, everything that was granted.
    #[n(2)]
    #[cbor(default)]
    pub scopes: Subscriptions,
    /// The generations that are exchanged of types that were started afresh; the first one of others.
    #[n(3)]
    #[cbor(skip_if = "Generations::is_empty")]
    pub generations: Generations,
}

/// The generations that types are in; 0 for one that is not named.
pub type Generations = BTreeMap<TypeName, u32>;

/// The scopes that are exchanged of a type; all that were granted of one that is not named.
pub type Subscriptions = BTreeMap<TypeName, BTreeSet<String>>;

impl LeftOut {
    /// Whether a type is paused.
    #[must_use]
    pub fn pauses(&self, ty: &TypeName) -> bool {
        self.all || self.types.contains(ty)
    }

    /// Whether a scope of a type is one that was not subscribed to.
    #[must_use]
    pub fn unsubscribes(&self, ty: &TypeName, scope: &str) -> bool {
        self.scopes.get(ty).is_some_and(|wanted| !wanted.contains(scope))
    }

    /// Whether a segment is of another generation than its type is in.
    #[must_use]
    pub fn outlives(&self, address: &SegmentAddress) -> bool {
        self.generations.get(&address.ty).copied().unwrap_or_default() != address.generation
    }

    /// Whether a segment is left out.
    #[must_use]
    pub fn covers(&self, address: &SegmentAddress) -> bool {
        self.withholds(address) || self.outlives(address)
    }

    /// Whether what has no receipt in a segment is not sent: what is of another generation is, because it
    /// is carried over.
    #[must_use]
    pub fn withholds(&self, address: &SegmentAddress) -> bool {
        self.pauses(&address.ty) || self.unsubscribes(&address.ty, &address.scope)
    }

    /// Whether somebody has left something out: which generation is exchanged is for the catalog to say.
    #[must_use]
    pub fn is_chosen(&self) -> bool {
        self.all || !self.types.is_empty() || !self.scopes.is_empty()
    }

    /// Whether nothing is, of the first generations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.is_chosen() && self.generations.is_empty()
    }
}

/// The status of an object type on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TypeStatus {
    /// Downloading.
    Syncing,
    /// Nothing is exchanged until somebody resumes it.
    Paused,
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
            Self::Paused => "Paused",
            Self::FullySynced => "Fully synced",
            Self::SubsetSynced => "Subset synced",
            Self::Incomplete => "Incomplete",
        }
    }
}
