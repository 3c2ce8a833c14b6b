//! The shapes of what is shown: records, verdicts, statuses, as JSON has them.

use fieldkeep_device::PeerProgress;
use fieldkeep_model::status::{State, TypeStatus};
use fieldkeep_model::{ActorId, MembershipLog, RecordId, TypeName};
use fieldkeep_replica::{CulpritView, HistoryEntry, RecordView};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::time::rfc3339;

/// A record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its type.
    #[serde(rename = "type")]
    pub(crate) ty: TypeName,
    /// Its id.
    pub(crate) id: RecordId,
    /// Its fields as merged; sets are arrays ordered by `id`.
    pub(crate) fields: Map<String, Value>,
    /// What is known of its validity: `valid`, `held` and `waiting` are the relay's word,
    /// `likely_valid`, `likely_held` and `needs_relay` a forecast.
    pub(crate) state: String,
    /// Whether a change of it has no receipt of the relay.
    pub(crate) unsaved: bool,
    /// The relay's verdict on this very content; none while it is to be judged.
    pub(crate) verdict: Option<Verdict>,
    /// What is expected of content that is to be judged.
    pub(crate) forecast: Option<Forecast>,
    /// Whether it is softly deleted.
    pub(crate) deleted: bool,
    /// The fields with concurrent values.
    pub(crate) conflicts: Vec<String>,
    /// Who put it aside.
    pub(crate) dismissed: Option<Dismissed>,
}

/// What the relay says of a record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// `valid`, `held` or `waiting`.
    pub(crate) outcome: String,
    /// Why, in sentences.
    pub(crate) reasons: Vec<String>,
    /// Who wrote what the rules object to.
    pub(crate) culprits: Vec<Culprit>,
    /// The fields as they last passed; none if they never did.
    pub(crate) last_valid: Option<Map<String, Value>>,
}

/// What this replica expects of the verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Forecast {
    /// Why it is likely to be held.
    pub(crate) reasons: Vec<String>,
    /// The fields as they last passed, as far as known here.
    pub(crate) last_valid: Option<Map<String, Value>>,
}

/// A change that a verdict names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Culprit {
    /// Who, as the change says.
    pub(crate) person: String,
    /// The device's name, as the membership log has it.
    pub(crate) device: String,
    /// The author's clock.
    pub(crate) time: String,
    /// The fields that it wrote.
    pub(crate) fields: Vec<String>,
    /// The change's hash.
    pub(crate) change: String,
}

/// Who put a record aside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Dismissed {
    /// Who.
    pub(crate) who: String,
    /// Why.
    pub(crate) note: String,
    /// When.
    pub(crate) time: String,
}

/// A change in a record's history.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Change {
    /// Who, as the change says.
    pub(crate) person: String,
    /// The device's name.
    pub(crate) device: String,
    /// The author's clock.
    pub(crate) time: String,
    /// The change's hash.
    pub(crate) change: String,
    /// What it wrote.
    pub(crate) writes: Vec<FieldWrite>,
}

/// One field that a change wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FieldWrite {
    /// The field, as `customer` or `lines[7].quantity`.
    pub(crate) field: String,
    /// What was written; null if it was cleared.
    pub(crate) value: Option<Value>,
    /// Whether it was added to what was there.
    pub(crate) added: bool,
}

/// Concurrent values of a field.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Conflict {
    /// The field.
    pub(crate) field: String,
    /// The values, the one that wins first.
    pub(crate) values: Vec<ConflictValue>,
}

/// One of several concurrent values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ConflictValue {
    /// The value.
    pub(crate) value: Value,
    /// The name of the device that wrote it.
    pub(crate) device: String,
}

/// A change that was kept aside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Aside {
    /// The type that it belongs to.
    #[serde(rename = "type")]
    pub(crate) ty: String,
    /// The records that it touches, as far as they can be told.
    pub(crate) records: Vec<String>,
    /// `not_permitted` or `fork`.
    pub(crate) reason: String,
    /// The author's device.
    pub(crate) device: String,
    /// When it came.
    pub(crate) time: String,
    /// The change's hash.
    pub(crate) change: String,
}

/// The connection, and what is here of each type.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// `device` or `relay`.
    pub(crate) role: String,
    /// Its name.
    pub(crate) name: String,
    /// The organisation's name.
    pub(crate) organisation: String,
    /// `online`, `offline` or `error`; of a relay `serving` or `stopped`.
    pub(crate) connection: String,
    /// When a sync last ended well.
    pub(crate) last_sync: Option<String>,
    /// Why the last one did not.
    pub(crate) error: Option<String>,
    /// Records with changes of its own that have no receipt.
    pub(crate) unsaved: u64,
    /// Other records with changes without one, which it carries for their authors.
    pub(crate) carried: u64,
    /// Devices of which two branches are known, and no relay has decided.
    pub(crate) forks: Vec<String>,
    /// Held records.
    pub(crate) held: u64,
    /// The object types.
    pub(crate) types: Vec<TypeRow>,
}

/// What is here of a type.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TypeRow {
    /// The type.
    #[serde(rename = "type")]
    pub(crate) ty: TypeName,
    /// `fully_synced`, `subset_synced`, `incomplete` or `syncing`; none on a relay.
    pub(crate) status: Option<String>,
    /// Records here, deleted ones left out.
    pub(crate) local: u64,
    /// The relay's count of those in this device's scopes, as it last told it.
    pub(crate) server: Option<u64>,
    /// The relay's count of all.
    pub(crate) server_all: Option<u64>,
    /// Records with changes of its own that have no receipt.
    pub(crate) unsaved: u64,
    /// Other records with changes without one.
    pub(crate) carried: u64,
    /// Held records.
    pub(crate) held: u64,
}

/// What a sync came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Synced {
    /// Changes that got a receipt.
    pub(crate) sent: u64,
    /// Changes of others that were applied.
    pub(crate) received: u64,
    /// Changes that the relay did not take; they are kept here.
    pub(crate) refused: u64,
    /// Held records here.
    pub(crate) held: u64,
    /// Segments that were proven equal.
    pub(crate) proven: u64,
}

/// The devices on the local network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Peers {
    /// Where this device listens, with its key, as `sync --peer` takes it; nothing if it does not.
    pub(crate) listening: Option<String>,
    /// The others.
    pub(crate) peers: Vec<Neighbour>,
}

/// A device on the local network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Neighbour {
    /// Its name; nothing if it is no member that is known here.
    pub(crate) name: Option<String>,
    /// Its member number likewise.
    pub(crate) number: Option<u64>,
    /// Where it was reached; nothing if it has called this one and was not seen besides.
    pub(crate) address: Option<String>,
    /// `connected`, `near`, `revoked` or `stranger`.
    pub(crate) state: String,
}

/// What an exchange with another device came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Met {
    /// The other device's name.
    pub(crate) name: String,
    /// Changes that it has now.
    pub(crate) sent: u64,
    /// Changes that came from it.
    pub(crate) received: u64,
    /// Segments that were proven equal.
    pub(crate) proven: u64,
    /// Forks that no relay has decided: both branches are kept.
    pub(crate) forked: u64,
    /// Held records here.
    pub(crate) held: u64,
}

impl Record {
    /// A record as it is shown, with the names of devices.
    pub(crate) fn new(view: RecordView, members: &MembershipLog) -> Self {
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
            deleted: view.deleted,
            conflicts: view.conflicts,
            dismissed,
        }
    }

    /// Why it is held or waits, or is likely to be.
    pub(crate) fn reasons(&self) -> &[String] {
        match (&self.verdict, &self.forecast) {
            (Some(verdict), _) => &verdict.reasons,
            (None, Some(forecast)) => &forecast.reasons,
            (None, None) => &[],
        }
    }

    /// The fields as they last passed.
    pub(crate) fn last_valid(&self) -> Option<&Map<String, Value>> {
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
    pub(crate) fn new(entry: HistoryEntry, members: &MembershipLog) -> Self {
        let writes = entry.writes.into_iter().map(|write| FieldWrite {
            field: write.field,
            value: write.value,
            added: write.added,
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

impl ConflictValue {
    pub(crate) fn new(value: Value, actor: ActorId, members: &MembershipLog) -> Self {
        Self { value, device: device_name(members, actor.device()) }
    }
}

impl From<PeerProgress> for Met {
    fn from(progress: PeerProgress) -> Self {
        let PeerProgress { name, sent, received, proven, forked, .. } = progress;
        Self { name: name.unwrap_or_default(), sent, received, proven, forked, held: 0 }
    }
}

/// The word for a type's status in JSON.
pub(crate) fn status_word(status: TypeStatus) -> &'static str {
    match status {
        TypeStatus::Syncing => "syncing",
        TypeStatus::FullySynced => "fully_synced",
        TypeStatus::SubsetSynced => "subset_synced",
        TypeStatus::Incomplete => "incomplete",
    }
}

/// A member's name; its number where the log does not know it.
pub(crate) fn device_name(members: &MembershipLog, number: u64) -> String {
    members.member(number).map_or_else(|| format!("device {number}"), |member| member.name.clone())
}
