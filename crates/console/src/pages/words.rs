//! Words, numbers and pictures for what is shown.

use serde_json::Value;

use crate::desk::{Book, Work};
use crate::shape::{Record, Status, TypeRow};
use crate::time::local;

/// A word with a shape and a colour, which say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Badge {
    pub(super) word: &'static str,
    /// The picture's name.
    pub(super) icon: &'static str,
    /// `good`, `calm`, `busy`, `warn` or `bad`.
    pub(super) tone: &'static str,
}

const fn badge(word: &'static str, icon: &'static str, tone: &'static str) -> Badge {
    Badge { word, icon, tone }
}

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

/// The badge of a record's state.
pub(super) fn of_state(state: &str) -> Badge {
    match state {
        "valid" => badge("Valid", "check", "good"),
        "held" => badge("Held", "hold", "bad"),
        "waiting" => badge("Waiting", "clock", "warn"),
        "likely_valid" => badge("Likely valid", "dots", "calm"),
        "likely_held" => badge("Likely held", "hold", "warn"),
        _ => badge("To be judged", "dots", "calm"),
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

/// A number with its thousands apart.
pub(super) fn count(number: &u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of something.
pub(crate) fn several(number: impl TryInto<u64>, what: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{} {what}{}", count(&number), if number == 1 { "" } else { "s" })
}

/// So many changes.
pub(crate) fn changes(number: &u64) -> String {
    several(*number, "change")
}

/// So many records.
pub(crate) fn records(number: &u64) -> String {
    several(*number, "record")
}

/// A field's name as a label: `outlet_id` as `Outlet id`.
pub(super) fn label(name: &str) -> String {
    let text = name.replace('_', " ");
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// A sentence without the marks that a terminal needs.
pub(super) fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// A value as it is read.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(children) if children.iter().all(|child| child.get("id").is_some()) => {
            match children.len() {
                1 => "1 entry".to_owned(),
                many => format!("{many} entries"),
            }
        }
        Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// What a record is called: by its name where it has one.
pub(super) fn title(record: &Record) -> String {
    let named = fieldkeep_catalog::title(&record.fields);
    named.map_or_else(|| record.id.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        let shown = [0, 999, 1_000, 1_234_567].map(|number| count(&number));
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_label_reads_like_words() {
        assert_eq!(label("outlet_id"), "Outlet id");
        assert_eq!(label(""), "");
    }
}
