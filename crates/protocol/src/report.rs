//! A report: what a device says of itself, so that whoever runs the relay can see what is out there.
//! It is a claim, and nothing is decided by it.

use fieldkeep_model::TypeName;
use minicbor::{Decode, Encode};

/// Types that a report tells of, at most.
pub const TYPES_TOLD: usize = 64;

/// What a device has, and what of it the relay has not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Report {
    /// When, by the device's clock, milliseconds UTC.
    #[n(0)]
    pub time: i64,
    /// The number of the catalog that it goes by, 0 for none.
    #[n(1)]
    pub catalog: u64,
    /// How many entries of the membership log it holds.
    #[n(2)]
    pub members: u64,
    /// Changes that have no receipt, its own and those that it carries for others.
    #[n(3)]
    pub waiting: u64,
    /// Changes besides that the relay did not take.
    #[n(4)]
    pub refused: u64,
    /// Attached files that the relay does not have yet.
    #[n(5)]
    pub files: u64,
    /// Whether it leaves out some of what it may exchange: paused, or not subscribed to.
    #[n(6)]
    pub leaves_out: bool,
    /// What it holds of each type, [`TYPES_TOLD`] at most.
    #[n(7)]
    pub types: Vec<TypeHeld>,
}

/// What a device holds of a type.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TypeHeld {
    /// The type.
    #[n(0)]
    pub ty: TypeName,
    /// Records that are not deleted.
    #[n(1)]
    pub records: u64,
    /// Records of which a change has no receipt.
    #[n(2)]
    pub unsaved: u64,
}

impl Report {
    /// Whether it says that the relay has everything that its sender has.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        (self.waiting, self.refused, self.files) == (0, 0, 0)
    }

    /// The same, apart from when it was made and how many records there are: those change all the time.
    #[must_use]
    pub fn essence(&self) -> Self {
        Self { time: 0, types: Vec::new(), ..self.clone() }
    }

    /// No more of it than a report may say.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.types.truncate(TYPES_TOLD);
        self
    }
}
