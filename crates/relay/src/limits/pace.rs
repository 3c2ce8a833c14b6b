//! One rate: tokens that a quiet while makes up for. Time is an argument.
//!
//! What is kept is one moment: when everything that was taken is made up for. More may be taken than
//! there is, because what came is known only once it is there: then whoever took it waits.

use std::time::{Duration, Instant};

/// So much in so long; as much at once after a while that was as long and quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// How much; nothing where there is no limit.
    pub(crate) most: Option<u64>,
    /// In how long.
    pub(crate) within: Duration,
}

/// How far a rate is used up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// When everything that was taken is made up for.
    even: Option<Instant>,
}

/// The longest that is owed.
const OWED: Duration = Duration::from_hours(1);

impl Rate {
    pub(crate) fn a_minute(most: Option<u64>) -> Self {
        Self { most, within: Duration::from_mins(1) }
    }

    /// How long it takes to make up for so much.
    fn cost(&self, amount: u64) -> Duration {
        let Some(most) = self.most else { return Duration::ZERO };
        let nanos = self.within.as_nanos() * u128::from(amount) / u128::from(most.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(OWED)
    }
}

impl Pace {
    /// Takes so much, whether there is as much or not.
    pub(crate) fn take(&mut self, amount: u64, rate: Rate, now: Instant) {
        let even = self.even.unwrap_or(now).max(now) + rate.cost(amount);
        self.even = Some(even.min(now + rate.within + OWED));
    }

    /// How long nothing more is to be taken.
    pub(crate) fn wait(&self, rate: Rate, now: Instant) -> Duration {
        if rate.most.is_none() {
            return Duration::ZERO;
        }
        self.owed(now).saturating_sub(rate.within)
    }

    fn owed(&self, now: Instant) -> Duration {
        self.even.map_or(Duration::ZERO, |even| even.saturating_duration_since(now))
    }
}

/// How much there was in the last minute, about: what came in the minute before this one counts for the part
/// of it that is not over yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recent {
    /// When this minute began.
    begin: Option<Instant>,
    current: u64,
    before: u64,
}

const MINUTE: Duration = Duration::from_mins(1);

impl Recent {
    pub(crate) fn add(&mut self, amount: u64, now: Instant) {
        let begin = *self.begin.get_or_insert(now);
        let age = now.saturating_duration_since(begin);
        if age >= MINUTE {
            self.before = if age < 2 * MINUTE { self.current } else { 0 };
            let minutes = u32::try_from(age.as_secs() / MINUTE.as_secs()).unwrap_or(u32::MAX);
            (self.current, self.begin) = (0, Some(begin + MINUTE * minutes));
        }
        self.current = self.current.saturating_add(amount);
    }

    pub(crate) fn last_minute(mut self, now: Instant) -> u64 {
        self.add(0, now);
        let age = self.begin.map_or(Duration::ZERO, |begin| now.saturating_duration_since(begin));
        let left =
            MINUTE.saturating_sub(age).as_millis() * u128::from(self.before) / MINUTE.as_millis();
        self.current.saturating_add(u64::try_from(left).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { most: Some(600), within: Duration::from_mins(1) };

    #[test]
    fn a_minutes_worth_goes_at_once_and_more_waits_for_as_long_as_it_takes() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        pace.take(600, RATE, begin);
        assert_eq!(pace.wait(RATE, begin), Duration::ZERO);
        pace.take(10, RATE, begin);
        assert_eq!(pace.wait(RATE, begin), Duration::from_secs(1));
        assert_eq!(pace.wait(RATE, begin + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn a_quiet_minute_makes_up_for_everything_and_saves_nothing_beyond() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        pace.take(600, RATE, begin);
        let hour = begin + Duration::from_hours(1);
        pace.take(600, RATE, hour);
        assert_eq!(pace.wait(RATE, hour), Duration::ZERO);
        pace.take(1, RATE, hour);
        assert!(pace.wait(RATE, hour) > Duration::ZERO, "an hour has not made up for more");
    }

    #[test]
    fn over_a_long_time_no_more_goes_than_the_rate() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let (mut now, mut taken) = (begin, 0);
        while now < begin + Duration::from_mins(10) {
            pace.take(7, RATE, now);
            taken += 7;
            now += pace.wait(RATE, now).max(Duration::from_millis(1));
        }
        assert!((6_500..=6_700).contains(&taken), "ten minutes and one at once, not {taken}");
    }

    #[test]
    fn without_a_limit_nothing_waits_and_a_limit_that_is_lifted_holds_at_once() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let none = Rate::a_minute(None);
        pace.take(u64::MAX, none, now);
        assert_eq!(pace.wait(none, now), Duration::ZERO);
        pace.take(6_000, RATE, now);
        assert_eq!(pace.wait(RATE, now), Duration::from_mins(9));
        assert_eq!(pace.wait(none, now), Duration::ZERO);
    }

    #[test]
    fn the_last_minute_is_told_and_what_is_older_is_forgotten() {
        let (mut recent, begin) = (Recent::default(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        recent.add(60, begin);
        assert_eq!(recent.last_minute(after(59)), 60);
        assert_eq!(recent.last_minute(after(90)), 30, "half of that minute is over");
        recent.add(5, after(90));
        assert_eq!(recent.last_minute(after(105)), 20);
        assert_eq!(recent.last_minute(after(130)), 4);
        assert_eq!(recent.last_minute(after(180)), 0);
    }

    #[test]
    fn however_much_was_taken_it_is_made_up_for_within_about_an_hour() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for _ in 0..100 {
            pace.take(u64::MAX, RATE, now);
        }
        assert!(pace.wait(RATE, now) <= OWED);
    }
}
