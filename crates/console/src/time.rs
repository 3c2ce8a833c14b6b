//! Times as they are told: to programs as RFC 3339, to people by the clock on their wall.

use fieldkeep_device::Moment;

/// Milliseconds UTC as RFC 3339; the number itself where no calendar has it.
#[must_use]
pub fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}

/// The day of a time in milliseconds UTC, as 2026-11-29, by UTC.
#[must_use]
pub(crate) fn day(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms);
    time.map_or_else(|_| ms.to_string(), |time| time.strftime("%Y-%m-%d").to_string())
}

/// A moment as it is typed: a time as RFC 3339, or a change.
#[must_use]
pub fn moment(text: &str) -> Moment {
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Moment::Time(time.as_millisecond()),
        Err(_) => Moment::Change(text.to_owned()),
    }
}

/// Milliseconds UTC by this machine's own clock: the time alone today, with the day before that.
pub(crate) fn local(ms: i64, now: i64) -> String {
    let zoned = |ms| {
        let time = jiff::Timestamp::from_millisecond(ms).ok()?;
        Some(time.to_zoned(jiff::tz::TimeZone::system()))
    };
    let (Some(then), Some(now)) = (zoned(ms), zoned(now)) else { return rfc3339(ms) };
    let format = match (then.date() == now.date(), then.year() == now.year()) {
        (true, _) => "%H:%M:%S",
        (false, true) => "%-d %b %H:%M",
        (false, false) => "%-d %b %Y %H:%M",
    };
    then.strftime(format).to_string()
}

/// Milliseconds UTC.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_541_000_000_123), "2018-10-31T15:33:20.123Z");
        assert_eq!(rfc3339(i64::MAX), i64::MAX.to_string());
    }
}
