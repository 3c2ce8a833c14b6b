//! Times: read from a clock here and nowhere else in this crate, and durations as they are typed.

use std::time::Duration;

/// Milliseconds UTC.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Reads 90s, 15m, 1h, 7d.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write 90s, 15m, 1h or 7d");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    // A century is more than anybody means, and keeps sums of times from overflowing.
    let total = count.checked_mul(seconds).filter(|total| *total <= 100 * 366 * 24 * 60 * 60);
    total.filter(|total| *total > 0).map(Duration::from_secs).ok_or_else(wrong)
}

/// Reads a moment, as 2026-01-31T08:00:00Z, or a day, as 2026-01-31, which begins at midnight UTC:
/// milliseconds UTC.
pub(crate) fn moment(text: &str) -> Result<i64, String> {
    let wrong = || format!("`{text}` is no time: write 2026-01-31, or 2026-01-31T08:00:00Z");
    let time = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let day = text.parse::<jiff::civil::Date>().ok()?;
        day.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|day| day.timestamp())
    });
    time.map(jiff::Timestamp::as_millisecond).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_utc() {
        assert_eq!(moment("1970-01-02"), Ok(86_400_000));
        assert_eq!(moment("1970-01-02T00:00:01Z"), Ok(86_401_000));
        assert!(moment("yesterday").is_err() && moment("2026-13-01").is_err());
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3_600)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in ["", "5", "s", "-1s", "0s", "1w", "99999999999999999999d", "1é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
