//! The shapes of what is shown: records, verdicts, statuses, as JSON has them.

pub mod catalog;
pub mod export;
pub mod fleet;
pub mod limits;
mod removed;

use std::collections::BTreeMap;

use fieldkeep_device::{
    AttachedFile, Device, FileState, FileView, FilesSynced, Finding, PeerProgress, Strip,
    SyncReport, TypeView,
};
use fieldkeep_model::status::{self, State, TypeStatus};
use fieldkeep_model::{ActorId, CallOutcome, MembershipLog, RecordId, Refusal, TypeName, Wish};
use fieldkeep_replica::{
    Blame, CulpritView, HeldView, HistoryEntry, HistoryPage, RecordView, ReplicaError,
};
use fieldkeep_store::{Log as _, Reader, Segments as _, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

pub use removed::Gone;
pub(crate) use removed::gone;
use removed::removed_on;

use crate::time::{day, rfc3339};

/// A record.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// Its type.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub ty: TypeName,
    /// Its id.
    #[schema(value_type = String)]
    pub id: RecordId,
    /// Its fields as merged; sets are arrays ordered by `id`.
    #[schema(value_type = Object)]
    pub fields: Map<String, Value>,
    /// What is known of its validity: `valid`, `held` and `waiting` are the relay's word,
    /// `likely_valid`, `likely_held` and `needs_relay` a forecast.
    pub state: String,
    /// Whether a change of it has no receipt of the relay.
    pub unsaved: bool,
    /// The relay's verdict on this very content; none while it is to be judged.
    pub verdict: Option<Verdict>,
    /// What is expected of content that is to be judged.
    pub forecast: Option<Forecast>,
    /// The fields that the reasons speak of, as `discount` or `lines.quantity`.
    pub reason_fields: Vec<String>,
    /// Since when that is so: when the newest change that the rules object to was written, by its author's
    /// clock. None where no change is the reason.
    pub since: Option<String>,
    /// Whether it is softly deleted.
    pub deleted: bool,
    /// The fields with concurrent values.
    pub conflicts: Vec<String>,
    /// Who put it aside.
    pub dismissed: Option<Dismissed>,
}

/// What the relay says of a record.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// `valid`, `held` or `waiting`.
    pub outcome: String,
    /// Why, in sentences.
    pub reasons: Vec<String>,
    /// Who wrote what the rules object to.
    pub culprits: Vec<Culprit>,
    /// The fields as they last passed; none if they never did.
    #[schema(value_type = Option<Object>)]
    pub last_valid: Option<Map<String, Value>>,
}

/// What this replica expects of the verdict.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Forecast {
    /// Why it is likely to be held.
    pub reasons: Vec<String>,
    /// The fields as they last passed, as far as known here.
    #[schema(value_type = Option<Object>)]
    pub last_valid: Option<Map<String, Value>>,
}

/// A change that a verdict names.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Culprit {
    /// Who, as the change says.
    pub person: String,
    /// The device's name, as the membership log has it.
    pub device: String,
    /// The author's clock.
    pub time: String,
    /// The fields that it wrote.
    pub fields: Vec<String>,
    /// The change's hash.
    pub change: String,
}

/// Who put a record aside.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Dismissed {
    /// Who.
    pub who: String,
    /// Why.
    pub note: String,
    /// When.
    pub time: String,
}

/// A change in a record's history.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// Who, as the change says.
    pub person: String,
    /// The device's name.
    pub device: String,
    /// The author's clock.
    pub time: String,
    /// The change's hash.
    pub change: String,
    /// What it wrote.
    pub writes: Vec<FieldWrite>,
}

/// Changes of a record.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// The changes, newest first.
    pub history: Vec<Change>,
    /// How many there are in all.
    pub changes: u64,
    /// The change before which there are more; none if there are not.
    pub next: Option<String>,
}

/// A record as a text to be sent to somebody.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Shared {
    /// Its type.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub ty: TypeName,
    /// Its id.
    #[schema(value_type = String)]
    pub id: RecordId,
    /// The text.
    pub text: String,
}

/// One field that a change wrote.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FieldWrite {
    /// The field, as `customer` or `lines[7].quantity`.
    pub field: String,
    /// What was written; null if it was cleared.
    pub value: Option<Value>,
    /// Whether it was added to what was there.
    pub added: bool,
    /// What the author had before him; null if nothing.
    pub before: Option<Value>,
    /// What it was right after the change; null if it was cleared.
    pub after: Option<Value>,
    /// The day on which the file was removed that it speaks of, as 2026-11-29.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<String>,
}

/// Concurrent values of a field.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Conflict {
    /// The field.
    pub field: String,
    /// The values, the one that wins first.
    pub values: Vec<ConflictValue>,
}

/// One of several concurrent values.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConflictValue {
    /// The value.
    pub value: Value,
    /// The name of the device that wrote it.
    pub device: String,
}

/// A record as it was asked for.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Got {
    /// The record.
    #[serde(flatten)]
    pub record: Record,
    /// The changes that made it, newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<Change>>,
    /// How many changes there are in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<u64>,
    /// The change before which there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The concurrent values of its fields.
    #[serde(rename = "concurrent", skip_serializing_if = "Option::is_none")]
    pub conflicts: Option<Vec<Conflict>>,
}

/// A record as it was once.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Past {
    /// Its type.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub ty: TypeName,
    /// Its id.
    #[schema(value_type = String)]
    pub id: RecordId,
    /// Its fields.
    #[schema(value_type = Object)]
    pub fields: Map<String, Value>,
    /// Those of its files that were removed since.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<Gone>,
}

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
    /// `dismiss`, `reopen`, `assign` or `rejudge`.
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

/// Where a record is, and why it looks as it does.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The type.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub ty: TypeName,
    /// The id.
    #[schema(value_type = String)]
    pub id: RecordId,
    /// The record, if it is here.
    pub record: Option<Record>,
    /// The segment that it lies in.
    pub segment: Option<String>,
    /// The scope.
    pub scope: Option<String>,
    /// Whether this device may read it.
    pub granted: bool,
    /// Whether its type is paused.
    pub paused: bool,
    /// Whether its segment is proven equal to the relay's.
    pub proven: bool,
    /// Changes of it without a receipt.
    pub unsaved_changes: u64,
    /// The newest change of each device that wrote it.
    pub heads: Vec<String>,
    /// Who wrote it.
    pub writers: Vec<Writer>,
    /// All of it in sentences.
    pub sentences: Vec<String>,
}

/// A device that wrote a record.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Writer {
    /// Its name.
    pub device: String,
    /// How many changes.
    pub changes: u64,
    /// When it wrote last, by its clock.
    pub last: String,
}

/// A record that is in use.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Pin {
    /// The record.
    pub record: String,
    /// Who has it in use.
    pub owner: String,
    /// What for.
    pub reason: String,
    /// Since when.
    pub since: String,
}

/// A file that a record names.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// The record.
    pub record: String,
    /// The field.
    pub field: String,
    /// The file: blake3 of its bytes.
    pub hash: String,
    /// What it is called.
    pub name: String,
    /// Its media type, as whoever attached it said.
    pub media: String,
    /// Its length in bytes.
    pub size: u64,
    /// Where it stands: waiting_for_record, waiting_for_connection, uploading, here, elsewhere,
    /// downloading, failed, removed.
    pub state: String,
    /// Bytes that went over, while it is on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The day on which the relay removed it, as 2026-11-29, by UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<String>,
    /// Whether all of it is on this device.
    pub here: bool,
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

/// What became of attached files in a sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Files {
    /// Files that the relay has by it.
    pub sent: u64,
    /// Files that have come.
    pub received: u64,
    /// Files that still wait to be sent.
    pub waiting: u64,
    /// Files that the relay did not take, or that were not to be had.
    pub failed: u64,
}

/// The devices on the local network.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Peers {
    /// Where this device listens, with its key, as `sync --peer` takes it; nothing if it does not.
    pub listening: Option<String>,
    /// The others.
    pub peers: Vec<Peer>,
}

/// A device on the local network.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Its name; nothing if it is no member that is known here.
    pub name: Option<String>,
    /// Its member number likewise.
    pub number: Option<u64>,
    /// Where it was reached; nothing if it has called this one and was not seen besides.
    pub address: Option<String>,
    /// `connected`, `near`, `revoked` or `stranger`.
    pub state: String,
}

/// What an exchange with another device came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Met {
    /// The other device's name.
    pub name: String,
    /// Changes that it has now.
    pub sent: u64,
    /// Changes that came from it.
    pub received: u64,
    /// Segments that were proven equal.
    pub proven: u64,
    /// Forks that no relay has decided: both branches are kept.
    pub forked: u64,
    /// Held records here.
    pub held: u64,
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
    /// The changes that were kept aside, with the names of devices.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn all(store: &Reader, members: &MembershipLog) -> Result<Vec<Self>, StoreError> {
        let segments = store.segments()?;
        let ty_of =
            |sid| segments.iter().find(|row| row.sid == sid).map(|row| row.address.ty.to_string());
        let undecided = store.asides()?.into_iter().filter(|aside| aside.reason != "accepted");
        let asides = undecided.map(|aside| Self {
            ty: ty_of(aside.sid).unwrap_or_default(),
            records: aside.records,
            reason: aside.reason,
            device: device_name(members, aside.actor.device()),
            time: rfc3339(aside.time),
            change: aside.hash.to_string(),
        });
        Ok(asides.collect())
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

impl Record {
    /// A record as it is shown, with the names of devices.
    #[must_use]
    pub fn new(view: RecordView, members: &MembershipLog) -> Self {
        let state = view.state.word().to_owned();
        let culprits = view.culprits.iter().map(|culprit| Culprit::new(culprit, members)).collect();
        let (mut verdict, mut forecast) = (None, None);
        let (reasons, last_valid) = (view.reasons, view.last_valid);
        match view.state {
            State::Judged(_) => {
                let outcome = state.clone();
                verdict = Some(Verdict { outcome, reasons, culprits, last_valid });
            }
            State::Forecast(_) => forecast = Some(Forecast { reasons, last_valid }),
        }
        let dismissed = view.dismissed.map(|dismissal| Dismissed {
            who: dismissal.who,
            note: dismissal.note,
            time: rfc3339(dismissal.time),
        });
        Self {
            ty: view.key.ty,
            id: view.key.id,
            fields: view.fields,
            state,
            unsaved: view.unsaved,
            verdict,
            forecast,
            reason_fields: view.reason_fields,
            since: view.since.map(rfc3339),
            deleted: view.deleted,
            conflicts: view.conflicts,
            dismissed,
        }
    }

    /// Whether it is held, waits, or is likely to be held.
    #[must_use]
    pub fn breaks_a_rule(&self) -> bool {
        matches!(&*self.state, "held" | "waiting" | "likely_held")
    }

    /// Why it is held or waits, or is likely to be.
    #[must_use]
    pub fn reasons(&self) -> &[String] {
        match (&self.verdict, &self.forecast) {
            (Some(verdict), _) => &verdict.reasons,
            (None, Some(forecast)) => &forecast.reasons,
            (None, None) => &[],
        }
    }

    /// The fields as they last passed.
    #[must_use]
    pub fn last_valid(&self) -> Option<&Map<String, Value>> {
        match (&self.verdict, &self.forecast) {
            (Some(verdict), _) => verdict.last_valid.as_ref(),
            (None, Some(forecast)) => forecast.last_valid.as_ref(),
            (None, None) => None,
        }
    }
}

impl Culprit {
    fn new(culprit: &CulpritView, members: &MembershipLog) -> Self {
        Self {
            person: culprit.person.clone(),
            device: device_name(members, culprit.device),
            time: rfc3339(culprit.time),
            fields: culprit.fields.clone(),
            change: culprit.hash.to_string(),
        }
    }
}

impl Change {
    #[must_use]
    /// A change with the names of devices.
    pub fn new(entry: HistoryEntry, members: &MembershipLog) -> Self {
        let writes = entry.writes.into_iter().map(|write| FieldWrite {
            field: write.field,
            value: write.value,
            added: write.added,
            before: write.before,
            after: write.after,
            removed: None,
        });
        Self {
            person: entry.person,
            device: device_name(members, entry.device),
            time: rfc3339(entry.time),
            change: entry.hash.to_string(),
            writes: writes.collect(),
        }
    }
}

/// The longest value in a sentence, in characters.
const CLIPPED: usize = 120;

impl FieldWrite {
    /// What was done, in words: `discount: 10 → 15`.
    #[must_use]
    pub fn sentence(&self, text: impl Fn(&Value) -> String) -> String {
        let done = self.done(text);
        match &self.removed {
            Some(day) => format!("{done} ({})", removed_on(day)),
            None => done,
        }
    }

    fn done(&self, text: impl Fn(&Value) -> String) -> String {
        if let Some(of) = self.field.strip_suffix("~deleted") {
            return match (of.trim_end_matches('.'), self.value.is_some()) {
                ("", true) => "deleted".to_owned(),
                ("", false) => "brought back".to_owned(),
                (entry, true) => format!("{entry} removed"),
                (entry, false) => format!("{entry} brought back"),
            };
        }
        let side = |value: &Option<Value>| {
            let text = value.as_ref().map_or_else(|| "none".to_owned(), &text);
            match text.char_indices().nth(CLIPPED) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None if text.is_empty() => "empty".to_owned(),
                None => text,
            }
        };
        format!("{}: {} → {}", self.field, side(&self.before), side(&self.after))
    }
}

impl History {
    /// Changes with the names of devices.
    #[must_use]
    pub fn new(page: HistoryPage, members: &MembershipLog) -> Self {
        let entries = page.entries.into_iter();
        Self {
            history: entries.map(|entry| Change::new(entry, members)).collect(),
            changes: page.changes,
            next: page.next.map(|hash| hash.to_string()),
        }
    }
}

impl Got {
    /// A record with what was asked for besides.
    #[must_use]
    pub fn new(record: Record, history: Option<History>, conflicts: Option<Vec<Conflict>>) -> Self {
        let (history, changes, next) = match history {
            Some(History { history, changes, next }) => (Some(history), Some(changes), next),
            None => (None, None, None),
        };
        Self { record, history, changes, next, conflicts }
    }
}

impl ConflictValue {
    #[must_use]
    /// A value with the name of the device that wrote it.
    pub fn new(value: Value, actor: ActorId, members: &MembershipLog) -> Self {
        Self { value, device: device_name(members, actor.device()) }
    }
}

impl From<PeerProgress> for Peer {
    fn from(progress: PeerProgress) -> Self {
        let PeerProgress { name, number, .. } = progress;
        Self { name, number, address: None, state: "connected".to_owned() }
    }
}

impl Peers {
    /// Where a device listens, and who is connected to it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn of(device: &Device) -> Result<Self, ReplicaError> {
        let listening = device.listening().filter(|place| !place.addresses.is_empty());
        let met = device.meetings()?.into_iter().filter(|met| met.number.is_some());
        let peers = met.map(Peer::from).collect();
        Ok(Self { listening: listening.map(|place| place.to_string()), peers })
    }
}

impl From<PeerProgress> for Met {
    fn from(progress: PeerProgress) -> Self {
        let PeerProgress { name, sent, received, proven, forked, .. } = progress;
        Self { name: name.unwrap_or_default(), sent, received, proven, forked, held: 0 }
    }
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

impl From<FileView> for Attachment {
    fn from(view: FileView) -> Self {
        let (mut done, mut reason, mut removed) = (None, None, None);
        let state = match view.state {
            FileState::WaitingForRecord => "waiting_for_record",
            FileState::WaitingForConnection => "waiting_for_connection",
            FileState::Uploading(bytes) => {
                done = Some(bytes);
                "uploading"
            }
            FileState::Here => "here",
            FileState::Elsewhere => "elsewhere",
            FileState::Downloading(bytes) => {
                done = Some(bytes);
                "downloading"
            }
            FileState::Failed(why) => {
                reason = Some(why);
                "failed"
            }
            FileState::Removed(time) => {
                removed = Some(day(time));
                "removed"
            }
        };
        let AttachedFile { field, hash, name, media, size } = view.file;
        Self {
            record: view.key.to_string(),
            field,
            hash: hash.to_string(),
            name,
            media,
            size,
            state: state.to_owned(),
            done,
            reason,
            removed,
            here: view.here,
        }
    }
}

impl Attachment {
    /// Where it stands, in words.
    #[must_use]
    pub fn standing(&self) -> String {
        let of = |done: Option<u64>| format!("{} of {}", done.unwrap_or(0), self.size);
        match &*self.state {
            "waiting_for_record" => "waiting for its record".to_owned(),
            "waiting_for_connection" => "waiting for a connection".to_owned(),
            "uploading" => format!("uploading {} bytes", of(self.done)),
            "downloading" => format!("downloading {} bytes", of(self.done)),
            "elsewhere" => "not on this device".to_owned(),
            "failed" => format!("failed: {}", self.reason.as_deref().unwrap_or_default()),
            "removed" => removed_on(self.removed.as_deref().unwrap_or_default()),
            _ => "here and on the relay".to_owned(),
        }
    }
}

impl From<fieldkeep_store::Pin> for Pin {
    fn from(pin: fieldkeep_store::Pin) -> Self {
        let since = rfc3339(pin.time);
        Self { record: pin.key.to_string(), owner: pin.owner, reason: pin.reason, since }
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

impl Explanation {
    /// What is told of a record, with the names of devices.
    #[must_use]
    pub fn new(explained: fieldkeep_device::Explanation, members: &MembershipLog) -> Self {
        let sentences = explained.sentences();
        let writers = explained.writers.into_iter().map(|(device, changes, last)| Writer {
            device,
            changes,
            last: rfc3339(last),
        });
        Self {
            ty: explained.key.ty,
            id: explained.key.id,
            segment: explained.address.as_ref().map(ToString::to_string),
            scope: explained.address.map(|address| address.scope),
            granted: explained.granted,
            paused: explained.paused,
            proven: explained.proven,
            unsaved_changes: explained.unsent,
            heads: explained.heads,
            writers: writers.collect(),
            sentences,
            record: explained.view.map(|view| Record::new(view, members)),
        }
    }
}

impl Conflict {
    /// The concurrent values of a field, with the names of devices.
    #[must_use]
    pub fn new(conflict: fieldkeep_device::Conflict, members: &MembershipLog) -> Self {
        let values = conflict.values.into_iter();
        let values = values.map(|(value, actor, _)| ConflictValue::new(value, actor, members));
        Self { field: conflict.field, values: values.collect() }
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

/// A member's name; its number where the log does not know it.
#[must_use]
pub fn device_name(members: &MembershipLog, number: u64) -> String {
    members.member(number).map_or_else(|| format!("device {number}"), |member| member.name.clone())
}

/// What a call has done.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Called {
    /// The text that names the call: the id of what it created, unless the catalog gives another.
    pub id: String,
    /// The records that it wrote, as `type/id`.
    pub records: Vec<String>,
    /// What the host has answered, where the action calls one.
    pub answer: Option<String>,
}

impl From<fieldkeep_device::Called> for Called {
    fn from(called: fieldkeep_device::Called) -> Self {
        let fieldkeep_device::Called { id, records, answer } = called;
        Self { id, records: records.iter().map(ToString::to_string).collect(), answer }
    }
}

/// What a question is answered.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows.
    #[schema(value_type = Vec<Vec<Object>>)]
    pub rows: Vec<Vec<Value>>,
    /// Whether these are all.
    pub whole: bool,
}

impl From<fieldkeep_device::Answer> for Answer {
    fn from(answer: fieldkeep_device::Answer) -> Self {
        let fieldkeep_device::Answer { columns, rows, whole } = answer;
        Self { columns, rows, whole }
    }
}

/// A call of this device.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CallRow {
    /// The device's number for it.
    pub number: u64,
    /// When it was made.
    pub time: String,
    /// The action, or the record that was to be edited.
    pub what: String,
    /// `under_way`, `withdrawn` (nobody waits, and the relay has not said), `done`, `refused`, `not_done`
    /// (withdrawn before it was carried out) or `unknown` (it was too long ago).
    pub state: String,
    /// Why it was refused.
    pub reason: Option<String>,
    /// The records that it wrote.
    pub records: Vec<String>,
}

impl From<fieldkeep_device::CallView> for CallRow {
    fn from(call: fieldkeep_device::CallView) -> Self {
        let what = match call.wish {
            Wish::Action { name, .. } => name,
            Wish::Edit { record, .. } => record.to_string(),
        };
        let (mut reason, mut records) = (None, Vec::new());
        let state = match call.outcome {
            None if call.withdrawn => "withdrawn",
            None => "under_way",
            Some(CallOutcome::Done { effects, .. }) => {
                records = effects.iter().map(|effect| effect.record.to_string()).collect();
                "done"
            }
            Some(CallOutcome::Refused { refusal, reason: why }) => {
                reason = Some(why);
                if refusal == Refusal::Withdrawn { "not_done" } else { "refused" }
            }
            Some(CallOutcome::Stale(_) | CallOutcome::Lost) => "unknown",
        };
        let (number, time, state) = (call.number, rfc3339(call.time), state.to_owned());
        Self { number, time, what, state, reason, records }
    }
}
