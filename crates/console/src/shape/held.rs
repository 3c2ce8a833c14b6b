//! What a relay's operators look after: held records, decisions, accounts.

use std::collections::BTreeMap;

use fieldkeep_model::{MembershipLog, SegmentAddress};
use fieldkeep_replica::{Blame, HeldView};
use fieldkeep_store::{Log as _, Reader, Segments as _, StoreError, Wanted};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Change, Record, device_name};
use crate::time::rfc3339;

/// What holds a record, has it wait, or keeps a change aside, besides the rules of the catalog.
pub const REASONS: [&str; 11] = [
    "schema",
    "required",
    "unique",
    "reference_absent",
    "reference_deleted",
    "rule_failed",
    "scope_changed",
    "unknown_schema",
    "not_permitted",
    "over_quota",
    "fork",
];

/// A record in the quarantine of a relay.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Held {
    /// The record.
    pub record: Record,
    /// When the newest change that the rules object to was written, by its author's clock.
    pub since: Option<String>,
    /// Who looks after it.
    pub assigned: Option<String>,
}

/// What is to blame for a held record.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Blamed {
    /// `changes`, without any one of which it would not be held as it is; `surroundings`, where it would
    /// be held as it last was valid, too; or `too_many`, where that was not looked for.
    pub what: String,
    /// The changes, oldest first.
    pub changes: Vec<Change>,
    /// How many changes came since it was last valid, where they are too many.
    pub since: Option<u64>,
}

impl Blamed {
    /// What was found, with the names of devices.
    #[must_use]
    pub fn new(blame: Blame, members: &MembershipLog) -> Self {
        let (what, changes, since) = match blame {
            Blame::Changes(changes) => ("changes", changes, None),
            Blame::Surroundings => ("surroundings", Vec::new(), None),
            Blame::TooMany(since) => ("too_many", Vec::new(), Some(since)),
        };
        let changes = changes.into_iter().map(|change| Change::new(change, members)).collect();
        Self { what: what.to_owned(), changes, since }
    }
}

/// What was decided about a held record.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// Its number: they rise.
    pub number: u64,
    /// When.
    pub time: String,
    /// Who decided it.
    pub who: String,
    /// `dismiss`, `reopen`, `assign`, `rejudge` or `accept`.
    pub act: String,
    /// The record.
    pub record: String,
    /// Why, or who looks after it.
    pub note: String,
}

/// An account on the relay's console.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Operator {
    /// Its name.
    pub name: String,
    /// `view`, `judge` or `administer`.
    pub role: String,
    /// When it was last changed.
    pub since: String,
    /// Who did that.
    pub by: String,
}

/// What an operator did on the console, or was not let do.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Deed {
    /// Its number: they rise.
    pub number: u64,
    /// When.
    pub time: String,
    /// Who, by the name that was given.
    pub who: String,
    /// `sign_in`, `sign_out`, `refused`, `denied`, `publish`, `roll_back`, `rejudge`, `export`; of
    /// accounts `add`, `password`, `role`, `remove`.
    pub act: String,
    /// To whom, or why not.
    pub note: String,
}

/// A change that was kept aside.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Aside {
    /// The type that it belongs to.
    #[serde(rename = "type")]
    pub ty: String,
    /// The records that it touches, as far as they can be told.
    pub records: Vec<String>,
    /// `not_permitted`, `over_quota` or `fork`.
    pub reason: String,
    /// The author's device.
    pub device: String,
    /// When it came.
    pub time: String,
    /// The change's hash.
    pub change: String,
}

impl Held {
    /// A record of the quarantine as it is shown, with the names of devices.
    #[must_use]
    pub fn new(held: HeldView, members: &MembershipLog) -> Self {
        let HeldView { view, since, person } = held;
        let since = since.map(rfc3339);
        Self { record: Record::new(view, members), since, assigned: person }
    }
}

impl Aside {
    /// The changes that were kept aside, with the names of devices: those that the same conditions single
    /// out as records. Nobody puts a change aside or has it assigned.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sought(
        store: &Reader,
        members: &MembershipLog,
        wanted: &Wanted,
    ) -> Result<Vec<Self>, StoreError> {
        if wanted.dismissed == Some(true) || wanted.person.is_some() {
            return Ok(Vec::new());
        }
        let segments = store.segments()?.into_iter().map(|row| (row.sid, row.address));
        let segments: BTreeMap<i64, SegmentAddress> = segments.collect();
        let text = wanted.text.as_ref().map(|text| text.to_lowercase());
        let mut asides = Vec::new();
        for aside in store.asides()?.into_iter().filter(|aside| aside.reason != "accepted") {
            let Some(SegmentAddress { ty, scope, .. }) = segments.get(&aside.sid) else { continue };
            let names = |text| aside.records.iter().any(|id| id.to_lowercase().contains(text));
            let sought = wanted.ty.as_ref().is_none_or(|wanted| wanted == ty)
                && wanted.scope.as_ref().is_none_or(|wanted| wanted == scope)
                && wanted.rule.as_ref().is_none_or(|wanted| *wanted == aside.reason)
                && wanted.device.is_none_or(|wanted| wanted == aside.actor.device())
                && wanted.until.is_none_or(|until| aside.time <= until)
                && text.as_deref().is_none_or(names);
            if sought {
                asides.push(Self {
                    ty: ty.to_string(),
                    reason: aside.reason,
                    device: device_name(members, aside.actor.device()),
                    time: rfc3339(aside.time),
                    change: aside.hash.to_string(),
                    records: aside.records,
                });
            }
        }
        Ok(asides)
    }
}

impl From<fieldkeep_store::OperatorRow> for Operator {
    fn from(row: fieldkeep_store::OperatorRow) -> Self {
        let fieldkeep_store::OperatorRow { name, role, time, who, .. } = row;
        Self { name, role, since: rfc3339(time), by: who }
    }
}

impl From<fieldkeep_store::Deed> for Deed {
    fn from(deed: fieldkeep_store::Deed) -> Self {
        let fieldkeep_store::Deed { number, time, who, act, note } = deed;
        Self { number, time: rfc3339(time), who, act, note }
    }
}

impl From<fieldkeep_store::Decision> for Decision {
    fn from(decision: fieldkeep_store::Decision) -> Self {
        let fieldkeep_store::Decision { number, time, who, act, key, note } = decision;
        Self { number, time: rfc3339(time), who, act, record: key.to_string(), note }
    }
}
