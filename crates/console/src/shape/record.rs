//! A record as it is shown, and what is said of it.

use fieldkeep_model::status::State;
use fieldkeep_model::{ActorId, MembershipLog, RecordId, TypeName};
use fieldkeep_replica::{CulpritView, RecordView};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Change, Gone, History};
use crate::time::rfc3339;

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
    /// The rule of each reason by its name, or what kind of reason it is: `schema`, `unique`, and so on.
    pub rules: Vec<String>,
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

/// A record with a change that the relay has not taken: it stays on the device.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NotTaken {
    /// Its type.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub ty: TypeName,
    /// Its id.
    #[schema(value_type = String)]
    pub id: RecordId,
    /// The generation of its type where it is so, if that is over: it is no longer among the records.
    pub generation: Option<u32>,
    /// Why, as the relay says.
    pub why: String,
    /// Its fields there.
    #[schema(value_type = Object)]
    pub fields: Map<String, Value>,
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
            rules: view.rules,
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

impl From<fieldkeep_store::Pin> for Pin {
    fn from(pin: fieldkeep_store::Pin) -> Self {
        let since = rfc3339(pin.time);
        Self { record: pin.key.to_string(), owner: pin.owner, reason: pin.reason, since }
    }
}

impl From<fieldkeep_replica::NotTaken> for NotTaken {
    fn from(one: fieldkeep_replica::NotTaken) -> Self {
        let fieldkeep_replica::NotTaken { key, generation, why, fields } = one;
        Self { ty: key.ty, id: key.id, generation, why, fields }
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

/// A member's name; its number where the log does not know it.
#[must_use]
pub fn device_name(members: &MembershipLog, number: u64) -> String {
    members.member(number).map_or_else(|| format!("device {number}"), |member| member.name.clone())
}
