//! A moment of a relay's life in plain numbers, for whoever draws how they move. Nothing is counted for it,
//! and the engine is not asked.

use std::array::from_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many steps of time are told apart.
const STEPS: usize = 64;
/// The first step, in microseconds; each further one is longer by the fourth root of two, the last but one
/// about 2.6 s.
const FIRST_US: f64 = 50.0;

/// How a relay stands at a moment. Counts only rise, from the start of the process; what moves between two
/// moments is their difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When, milliseconds UTC.
    pub time: i64,
    /// Changes that were made durable, a count.
    pub admitted: u64,
    /// Verdicts that were stated, a count.
    pub verdicts: u64,
    /// Bytes of frames that came and went, counts.
    pub bytes: (u64, u64),
    /// How long commits took, counts.
    pub commits: CommitTimes,
    /// Changes that are not merged and judged yet.
    pub lag: u64,
    /// Segments to be judged anew.
    pub renewing: u64,
    /// Inputs that wait for the engine.
    pub queue: u64,
    /// Devices that are connected.
    pub devices: u64,
    /// Records that are not deleted.
    pub records: u64,
    /// Records that break a rule.
    pub held: u64,
    /// Records that wait for another one.
    pub waiting: u64,
    /// What was decided of held records, a count.
    pub decided: u64,
    /// The number of the catalog in force, 0 without one.
    pub catalog: u64,
    /// Bytes of the database and its journal.
    pub stored: u64,
}

/// How many commits took how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitTimes([u64; STEPS]);

/// The same while it is counted.
#[derive(Debug)]
pub(crate) struct Stopwatch([AtomicU64; STEPS]);

impl Default for Stopwatch {
    fn default() -> Self {
        Self(from_fn(|_| AtomicU64::new(0)))
    }
}

impl Stopwatch {
    pub(crate) fn add(&self, took: Duration) {
        self.0[step(took)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> CommitTimes {
        CommitTimes(from_fn(|at| self.0[at].load(Ordering::Relaxed)))
    }
}

fn step(took: Duration) -> usize {
    let steps = (took.as_secs_f64() * 1e6 / FIRST_US).log2() * 4.0;
    // A float becomes 0 where it is negative.
    (steps.ceil() as usize).min(STEPS - 1)
}

impl Default for CommitTimes {
    fn default() -> Self {
        Self([0; STEPS])
    }
}

impl CommitTimes {
    /// What came since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(from_fn(|at| self.0[at].saturating_sub(earlier.0[at])))
    }

    /// How many commits.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The time within which such a share of them was done, in milliseconds, a fifth too much at most;
    /// nothing if there was none.
    #[must_use]
    pub fn within_ms(&self, share: f64) -> Option<f64> {
        let wanted = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.0.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(FIRST_US / 1e3 * (found as f64 / 4.0).exp2())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_a_fifth_too_long_at_most() {
        for us in [51u64, 400, 3_000, 17_000, 900_000] {
            let watch = Stopwatch::default();
            watch.add(Duration::from_micros(us));
            let told = watch.read().within_ms(0.99).expect("there is one") * 1e3;
            assert!(told >= us as f64 * 0.999 && told <= us as f64 * 1.2, "{us}: {told}");
        }
    }

    #[test]
    fn a_share_of_the_commits_is_within_its_time() {
        let watch = Stopwatch::default();
        assert_eq!(watch.read().within_ms(0.5), None);
        (0..99).for_each(|_| watch.add(Duration::from_millis(1)));
        let earlier = watch.read();
        watch.add(Duration::from_secs(60));
        let all = watch.read();
        assert!(all.within_ms(0.5).expect("some") < 1.3);
        assert!(all.within_ms(1.0).expect("some") > 2_000.0, "the last step has no end");
        assert_eq!(all.since(&earlier).count(), 1);
        watch.add(Duration::ZERO);
    }
}
