//! What needs a connection: calls and queries.

use fieldkeep_model::{CallOutcome, Refusal, Wish};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::time::rfc3339;

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
