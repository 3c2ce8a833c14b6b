//! Words, numbers and pictures for what is shown, on a device's console and a relay's.

use serde_json::Value;

use crate::shape::Record;

/// A word with a shape and a colour, which say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Badge {
    pub(crate) word: &'static str,
    /// The picture's name.
    pub(crate) icon: &'static str,
    /// `good`, `calm`, `busy`, `warn` or `bad`.
    pub(crate) tone: &'static str,
}

pub(crate) const fn badge(word: &'static str, icon: &'static str, tone: &'static str) -> Badge {
    Badge { word, icon, tone }
}

/// The badge of a record's state.
pub(crate) fn of_state(state: &str) -> Badge {
    match state {
        "valid" => badge("Valid", "check", "good"),
        "held" => badge("Held", "hold", "bad"),
        "waiting" => badge("Waiting", "clock", "warn"),
        "likely_valid" => badge("Likely valid", "dots", "calm"),
        "likely_held" => badge("Likely held", "hold", "warn"),
        _ => badge("To be judged", "dots", "calm"),
    }
}

/// A number with its thousands apart.
pub(crate) fn count(number: &u64) -> String {
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

/// So many of something, as templates pass numbers.
pub(crate) fn many(number: &u64, what: &str) -> String {
    several(*number, what)
}

/// So many changes.
pub(crate) fn changes(number: &u64) -> String {
    several(*number, "change")
}

/// So many milliseconds, in the unit that suits them.
pub(crate) fn duration(ms: i64) -> String {
    let minutes = ms.max(0) / 60_000;
    match minutes {
        0 => "less than a minute".to_owned(),
        1..120 => several(minutes, "minute"),
        120..2_880 => several(minutes / 60, "hour"),
        _ => several(minutes / 1_440, "day"),
    }
}

/// So many records.
pub(crate) fn records(number: &u64) -> String {
    several(*number, "record")
}

/// A field's name as a label: `outlet_id` as `Outlet id`.
pub(crate) fn label(name: &str) -> String {
    let text = name.replace('_', " ");
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// A sentence without the marks that a terminal needs.
pub(crate) fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// A value as it is read.
pub(crate) fn value(value: &Value) -> String {
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
pub(crate) fn title(record: &Record) -> String {
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
    fn a_duration_is_told_in_the_unit_that_suits_it() {
        let shown = [-5, 59_999, 60_000, 7_200_000, 172_800_000].map(duration);
        assert_eq!(
            shown,
            ["less than a minute", "less than a minute", "1 minute", "2 hours", "2 days"]
        );
    }

    #[test]
    fn a_label_reads_like_words() {
        assert_eq!(label("outlet_id"), "Outlet id");
        assert_eq!(label(""), "");
    }
}
