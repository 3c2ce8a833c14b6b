//! Attached files, and how far they are.

use fieldkeep_device::{AttachedFile, FileState, FileView};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::removed::removed_on;
use crate::time::day;

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
