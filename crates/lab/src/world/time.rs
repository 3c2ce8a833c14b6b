//! Virtual time: microseconds since a run began, and what is to happen when.
//!
//! Nothing waits for a clock: the next event is the next moment. Events of one moment happen in the
//! order in which they were planned.

use std::collections::BTreeMap;
use std::fmt;

/// Microseconds since the run began.
pub type Micros = u64;

/// A thousandth of a second.
pub const MILLISECOND: Micros = 1_000;
/// A second.
pub const SECOND: Micros = 1_000 * MILLISECOND;
/// A minute.
pub const MINUTE: Micros = 60 * SECOND;
/// An hour.
pub const HOUR: Micros = 60 * MINUTE;
/// A day.
pub const DAY: Micros = 24 * HOUR;

/// What time it is on the wall of a run when it begins, in milliseconds UTC: 2 March 2026.
pub const BEGINNING_MS: i64 = 1_772_409_600_000;

/// A moment as people read it: the day of the run and the time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Micros);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(at) = *self;
        let (day, hour) = (at / DAY + 1, at % DAY / HOUR);
        let (minute, second) = (at % HOUR / MINUTE, at % MINUTE / SECOND);
        let milliseconds = at % SECOND / MILLISECOND;
        write!(f, "day {day} {hour:02}:{minute:02}:{second:02}.{milliseconds:03}")
    }
}

/// What is to happen, by time.
#[derive(Debug)]
pub(crate) struct Events<E> {
    planned: BTreeMap<(Micros, u64), E>,
    count: u64,
}

impl<E> Default for Events<E> {
    fn default() -> Self {
        Self { planned: BTreeMap::new(), count: 0 }
    }
}

impl<E> Events<E> {
    /// Plans an event, behind those of the same moment.
    pub(crate) fn plan(&mut self, at: Micros, event: E) {
        self.count += 1;
        self.planned.insert((at, self.count), event);
    }

    /// The next event, if it happens no later than `until`.
    pub(crate) fn next(&mut self, until: Micros) -> Option<(Micros, E)> {
        let entry = self.planned.first_entry()?;
        let at = entry.key().0;
        (at <= until).then(|| (at, entry.remove()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_moment_happen_in_the_order_of_their_planning() {
        let mut events = Events::default();
        for (at, event) in [(7, 'c'), (3, 'a'), (7, 'd'), (3, 'b'), (9, 'e')] {
            events.plan(at, event);
        }
        let happened: String = std::iter::from_fn(|| events.next(8)).map(|(_, e)| e).collect();
        assert_eq!(happened, "abcd");
    }

    #[test]
    fn a_moment_reads_as_day_and_time() {
        let moment = Moment(DAY + 9 * HOUR + 31 * MINUTE + 7 * SECOND + 40 * MILLISECOND);
        assert_eq!(moment.to_string(), "day 2 09:31:07.040");
    }
}
