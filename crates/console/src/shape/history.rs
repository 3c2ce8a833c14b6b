//! What became of a record: its changes, and what was shared of it.

use fieldkeep_model::{MembershipLog, RecordId, TypeName};
use fieldkeep_replica::{HistoryEntry, HistoryPage};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::device_name;
use super::removed::removed_on;
use crate::time::rfc3339;

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
    /// The change of an earlier generation of the type that a relay repeated by it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub repeats: Option<String>,
    /// Whether a generation of the type began with it: it holds what the record had come to.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub begins: bool,
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

impl Change {
    /// Who wrote it, for people: nobody wrote what a generation began with.
    #[must_use]
    pub fn who(&self) -> &str {
        if self.begins { "As it stood" } else { &self.person }
    }

    /// A change with the names of devices.
    #[must_use]
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
            repeats: entry.repeats.map(|hash| hash.to_string()),
            begins: entry.begins,
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
