//! Words and pictures for what a device's pages show besides.

use crate::desk::{Book, Work};
use crate::shape::{Status, TypeRow};
use crate::time::local;
use crate::words::badge;

pub(crate) use crate::words::{
    Badge, changes, count, label, of_state, plain, records, several, title, value,
};

/// How the device stands to its relay, in one line.
#[derive(Clone, Debug)]
pub(super) struct Strip {
    pub(super) badge: Badge,
    /// What is to be known of it.
    pub(super) detail: String,
    /// Whether a sync that was asked for is under way.
    pub(super) syncing: bool,
}

impl Strip {
    pub(super) fn of(status: &Status, book: &Book, now: i64) -> Self {
        let time = |text: &Option<String>| {
            let time = text.as_ref()?.parse::<jiff::Timestamp>().ok()?;
            Some(local(time.as_millisecond(), now))
        };
        let syncing =
            book.running.iter().any(|work| matches!(work, Work::Sync | Work::Download(..)));
        let waiting = status.unsaved + status.carried;
        let badge = match status.connection.as_str() {
            "error" if status.permanent => badge("Refused", "cross", "bad"),
            "error" => badge("Sync error", "alert", "warn"),
            "connecting" => badge("Connecting", "sync", "busy"),
            "online" if status.synced => badge("Online, synced", "check", "good"),
            "online" => badge("Online", "sync", "busy"),
            _ => badge("Offline", "offline", "calm"),
        };
        let last = match time(&status.last_sync) {
            Some(time) => format!("Last sync {time}"),
            None => "Never synced".to_owned(),
        };
        let unsaved = match waiting {
            0 => String::new(),
            some => format!(" · {} unsaved", records(&some)),
        };
        let files = match status.files {
            0 => String::new(),
            some => format!(" · {} to be sent", several(some as usize, "file")),
        };
        let next = time(&status.retry_at).map(|time| format!(" · next try {time}"));
        let detail = format!("{last}{unsaved}{files}{}", next.unwrap_or_default());
        Self { badge, detail, syncing }
    }
}

/// The badge of a type.
pub(super) fn of_type(row: &TypeRow) -> Badge {
    match row.status.as_deref() {
        Some("fully_synced") => badge("Fully synced", "check", "good"),
        Some("subset_synced") => badge("Subset synced", "subset", "good"),
        Some("syncing") => badge("Syncing", "sync", "busy"),
        Some("paused") => badge("Paused", "pause", "calm"),
        _ => badge("Incomplete", "alert", "warn"),
    }
}

/// How much of a type is here.
pub(super) fn progress(row: &TypeRow) -> String {
    match (row.fetched, row.server) {
        (Some(come), Some(of)) => format!("Downloaded {} of {}", count(&come), count(&of)),
        (Some(come), None) => format!("Downloaded {}", count(&come)),
        // More than is exchanged: some of it was left out since.
        (None, Some(of)) if row.local > of => {
            format!("{} here, {} exchanged", count(&row.local), count(&of))
        }
        (None, Some(of)) => format!("Synced {} of {}", count(&row.local), count(&of)),
        (None, None) => format!("{} here", count(&row.local)),
    }
}
