//! How a device stands: its types, what is left out, what to do about it.

use std::collections::BTreeMap;

use fieldkeep_device::{Device, FilesSynced, Finding, Strip, SyncReport, TypeView};
use fieldkeep_model::TypeName;
use fieldkeep_model::status::{self, TypeStatus};
use fieldkeep_replica::ReplicaError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Files, device_name};
use crate::time::rfc3339;

/// The connection, and what is here of each type.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// `device` or `relay`.
    pub role: String,
    /// Its name.
    pub name: String,
    /// The organisation's name.
    pub organisation: String,
    /// `online`, `connecting`, `offline` or `error`; of a relay `serving` or `stopped`.
    pub connection: String,
    /// When a sync last ended well.
    pub last_sync: Option<String>,
    /// Whether all is proven equal to what the relay has, and nothing is unsaved.
    pub synced: bool,
    /// Why the last contact did not end well.
    pub error: Option<String>,
    /// Whether trying again is of no use before somebody has done something about that.
    pub permanent: bool,
    /// When it is tried again.
    pub retry_at: Option<String>,
    /// Records with changes of its own that have no receipt.
    pub unsaved: u64,
    /// Other records with changes without one, which it carries for their authors.
    pub carried: u64,
    /// Files that it attached and the relay does not have yet.
    pub files: u64,
    /// Devices of which two branches are known, and no relay has decided.
    pub forks: Vec<String>,
    /// Held records.
    pub held: u64,
    /// The object types.
    pub types: Vec<TypeRow>,
}

/// What is here of a type.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TypeRow {
    /// The type.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub ty: TypeName,
    /// `fully_synced`, `subset_synced`, `incomplete`, `syncing` or `paused`; none on a relay.
    pub status: Option<String>,
    /// Records here, deleted ones left out.
    pub local: u64,
    /// The relay's count of those in this device's scopes, as it last told it.
    pub server: Option<u64>,
    /// The relay's count of all.
    pub server_all: Option<u64>,
    /// Records with changes of its own that have no receipt.
    pub unsaved: u64,
    /// Other records with changes without one.
    pub carried: u64,
    /// Held records.
    pub held: u64,
    /// When the whole of it was last known to be equal to what the relay has.
    pub proven_at: Option<String>,
    /// How many records have come while it is downloaded again.
    pub fetched: Option<u64>,
}

impl TypeRow {
    /// A row of a type of which nothing is known.
    #[must_use]
    pub fn of(ty: TypeName) -> Self {
        Self {
            ty,
            status: None,
            local: 0,
            server: None,
            server_all: None,
            unsaved: 0,
            carried: 0,
            held: 0,
            proven_at: None,
            fetched: None,
        }
    }
}

/// What is left out of every exchange.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Paused {
    /// Whether every type is paused.
    pub all: bool,
    /// The types that were paused one by one.
    #[schema(value_type = Vec<String>)]
    pub types: Vec<TypeName>,
    /// The only scopes that are exchanged of a type, where those are not all that were granted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scopes: BTreeMap<String, Vec<String>>,
}

/// What clearing would do.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ClearPlan {
    /// The types.
    #[schema(value_type = Vec<String>)]
    pub types: Vec<TypeName>,
    /// Records here, whose local copies go once the relay's are here.
    pub replaced: u64,
    /// Records that stay, because changes of them have no receipt.
    pub unsaved: u64,
    /// Records that stay, because they are in use.
    pub in_use: u64,
    /// Changes that lie aside, and stay.
    pub aside: u64,
    /// Records that go and do not come back: this device may not read them any more.
    pub withdrawn: u64,
}

/// What downloading again came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Resynced {
    /// The types.
    #[schema(value_type = Vec<String>)]
    pub types: Vec<TypeName>,
    /// Records of them that are here now.
    pub records: u64,
    /// Records that were removed, because this device may not read them any more.
    pub removed: u64,
    /// Changes that were sent afterwards.
    pub sent: u64,
    /// Segments that were proven equal.
    pub proven: u64,
}

/// The catalog that a device has.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CatalogState {
    /// Its number.
    pub number: u64,
    /// When it was last known to be the relay's.
    pub relays_at: Option<String>,
}

/// What is wrong, and what to do.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Advice {
    /// The situation, in one word.
    pub situation: String,
    /// The type that it is about, where it is one.
    #[serde(rename = "type")]
    #[schema(value_type = Option<String>)]
    pub ty: Option<TypeName>,
    /// The same in words.
    pub text: String,
    /// Since when.
    pub since: Option<String>,
    /// The command to run.
    pub command: String,
}

/// A check of the doctor's.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// `fine`, `notice` or `wrong`.
    pub finding: String,
    /// What was found.
    pub text: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// What a sync came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Synced {
    /// Changes that got a receipt.
    pub sent: u64,
    /// Changes of others that were applied.
    pub received: u64,
    /// Changes that the relay did not take; they are kept here.
    pub refused: u64,
    /// Held records here.
    pub held: u64,
    /// Segments that were proven equal.
    pub proven: u64,
    /// What became of attached files.
    pub files: Files,
    /// What was left out, because it is paused.
    pub paused: Paused,
}

impl Status {
    /// The status of a device.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn of(device: &Device) -> Result<Self, ReplicaError> {
        let (shown, members) = (device.status()?, device.members());
        let mut status = Self {
            role: "device".into(),
            name: device.name(),
            organisation: members.name().to_owned(),
            forks: shown.forked.iter().map(|number| device_name(&members, *number)).collect(),
            last_sync: shown.last_sync.map(rfc3339),
            synced: shown.is_synced(),
            connection: strip_word(&shown.strip).to_owned(),
            unsaved: shown.unsaved(),
            carried: shown.carried(),
            files: shown.files,
            held: shown.held(),
            ..Self::default()
        };
        match shown.strip {
            Strip::Error { reason, retry_at, permanent } => {
                (status.error, status.permanent) = (Some(reason), permanent);
                status.retry_at = retry_at.map(rfc3339);
            }
            Strip::Away { retry_at } => status.retry_at = Some(rfc3339(retry_at)),
            Strip::Offline | Strip::Connecting | Strip::Online { .. } => {}
        }
        status.types = shown.types.into_iter().map(TypeRow::from).collect();
        Ok(status)
    }
}

impl From<TypeView> for TypeRow {
    fn from(view: TypeView) -> Self {
        let TypeView { ty, status, counts, proven_at, fetched } = view;
        Self {
            status: Some(status_word(status).to_owned()),
            local: counts.local,
            server: counts.server.map(|[in_scope, _, _]| in_scope),
            server_all: counts.server.map(|[_, all, _]| all),
            unsaved: counts.unsaved,
            carried: counts.carried,
            held: counts.held,
            proven_at: proven_at.map(rfc3339),
            fetched,
            ..Self::of(ty)
        }
    }
}

impl From<status::LeftOut> for Paused {
    fn from(paused: status::LeftOut) -> Self {
        let scopes = paused.scopes.into_iter();
        let scopes = scopes.map(|(ty, wanted)| (ty.to_string(), wanted.into_iter().collect()));
        let types = paused.types.into_iter().collect();
        Self { all: paused.all, types, scopes: scopes.collect() }
    }
}

impl From<fieldkeep_device::ClearPlan> for ClearPlan {
    fn from(plan: fieldkeep_device::ClearPlan) -> Self {
        Self {
            types: plan.types.into_iter().collect(),
            replaced: plan.replaced,
            unsaved: plan.unsaved,
            in_use: plan.in_use,
            aside: plan.aside,
            withdrawn: plan.withdrawn,
        }
    }
}

impl From<fieldkeep_device::Resynced> for Resynced {
    fn from(done: fieldkeep_device::Resynced) -> Self {
        Self {
            types: done.types.into_iter().collect(),
            records: done.records,
            removed: done.exchanged.removed,
            sent: done.report.sent,
            proven: done.report.proven,
        }
    }
}

impl Synced {
    /// What a sync came to, with what it left out.
    #[must_use]
    pub fn new(report: SyncReport, paused: status::LeftOut) -> Self {
        let SyncReport { sent, received, refused, held, proven, files, .. } = report;
        let FilesSynced { sent: went, received: came, waiting, failed } = files;
        let files = Files { sent: went, received: came, waiting, failed };
        Self { sent, received, refused, held, proven, files, paused: paused.into() }
    }
}

impl From<fieldkeep_device::Advice> for Advice {
    fn from(advice: fieldkeep_device::Advice) -> Self {
        Self {
            situation: advice.situation.word().to_owned(),
            ty: advice.ty,
            text: advice.text,
            since: advice.since.map(rfc3339),
            command: format!("fieldkeep {}", advice.command),
        }
    }
}

impl CatalogState {
    /// The catalog that a device has; nothing before the first has come.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn of(device: &Device) -> Result<Option<Self>, ReplicaError> {
        let state = device.catalog_number()?;
        Ok(state.map(|(number, seen)| Self { number, relays_at: seen.map(rfc3339) }))
    }
}

impl From<fieldkeep_device::Check> for Check {
    fn from(check: fieldkeep_device::Check) -> Self {
        let finding = match check.finding {
            Finding::Fine => "fine",
            Finding::Notice => "notice",
            Finding::Wrong => "wrong",
        };
        let (name, finding) = (check.name.to_owned(), finding.to_owned());
        Self { name, finding, text: check.text, remedy: check.remedy }
    }
}

/// The word for how a device stands to its relay.
pub(crate) fn strip_word(strip: &Strip) -> &'static str {
    match strip {
        Strip::Offline | Strip::Away { .. } => "offline",
        Strip::Connecting => "connecting",
        Strip::Online { .. } => "online",
        Strip::Error { .. } => "error",
    }
}

/// The word for a type's status in JSON.
#[must_use]
pub fn status_word(status: TypeStatus) -> &'static str {
    match status {
        TypeStatus::Syncing => "syncing",
        TypeStatus::Paused => "paused",
        TypeStatus::FullySynced => "fully_synced",
        TypeStatus::SubsetSynced => "subset_synced",
        TypeStatus::Incomplete => "incomplete",
    }
}
