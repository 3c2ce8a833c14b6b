//! A type that is started afresh, as it is told: what that would come to, and how far it is.

use fieldkeep_replica::{Replica, Reshaping};
use serde::{Deserialize, Serialize};

/// What a new generation of a type would come to, or how far it has come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Afresh {
    /// The type.
    #[serde(rename = "type")]
    pub ty: String,
    /// The generation that is in force.
    pub generation: u32,
    /// The one that would follow, or is being written.
    pub next: u32,
    /// Whether it is under way.
    pub under_way: bool,
    /// Records in all.
    pub records: u64,
    /// Of these so many are not in the new generation yet.
    pub records_left: u64,
    /// Changes that are repeated one by one.
    pub changes: u64,
    /// Of these so many are left.
    pub changes_left: u64,
    /// Changes of which only what they came to is carried over.
    pub shed: u64,
    /// Segments in force.
    pub segments: u64,
    /// Segments of the new generation.
    pub new_segments: u64,
    /// The largest number of records in one of them.
    pub largest: u64,
    /// Values that cannot be brought into the kind that their field has then.
    pub unfit: u64,
    /// Some of their records.
    pub unfit_records: Vec<String>,
    /// Who was granted scopes of the type, where it has another scope field then: what they may read has
    /// to be granted anew.
    pub scoped: Vec<String>,
    /// The catalog that would be in force.
    pub catalog: String,
}

impl Afresh {
    /// The same of a type, between two generations.
    #[must_use]
    pub fn new(ty: &str, (generation, next): (u32, u32), far: Reshaping) -> Self {
        Self {
            ty: ty.to_owned(),
            generation,
            next,
            records: far.records,
            records_left: far.records_left,
            changes: far.changes,
            changes_left: far.changes_left,
            shed: far.shed,
            segments: far.segments,
            new_segments: far.targets,
            largest: far.largest,
            unfit: far.unfit,
            unfit_records: far.examples.iter().map(|id| format!("{ty}/{id}")).collect(),
            ..Self::default()
        }
    }
}

impl Afresh {
    /// The new generation that a relay writes, and how far it is.
    #[must_use]
    pub fn under_way(replica: &Replica) -> Option<Self> {
        let (reshape, next) = replica.reshape()?;
        let generation = replica.generations().get(&reshape.ty).copied().unwrap_or_default();
        let far = replica.reshaping().unwrap_or_default();
        let written = Self::new(reshape.ty.as_str(), (generation, next), far);
        Some(Self { under_way: true, ..written })
    }

    /// How far it is, of a hundred.
    #[must_use]
    pub fn percent(&self) -> u64 {
        let all = self.records + self.changes;
        let left = self.records_left + self.changes_left;
        (all.saturating_sub(left) * 100).checked_div(all).unwrap_or(100)
    }
}

/// A generation that is over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastGeneration {
    /// Its type.
    #[serde(rename = "type")]
    pub ty: String,
    /// Its number.
    pub generation: u32,
    /// Segments.
    pub segments: u64,
    /// Records in it.
    pub records: u64,
    /// Changes in its logs.
    pub changes: u64,
    /// Of these so many are not carried over.
    pub late: u64,
    /// Changes that lie aside of it, and would be carried over if they were permitted.
    pub aside: u64,
}

/// A record of a generation that is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PastRecord {
    /// Its id.
    pub id: String,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Its fields.
    pub fields: serde_json::Map<String, serde_json::Value>,
}
