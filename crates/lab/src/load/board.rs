//! When each change was written, and how long it took to be durable on each device that hears of it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fieldkeep_model::ChangeHash;
use serde::Serialize;

/// What is measured, by what went on when a change was written.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    /// What goes on.
    phase: usize,
    open: HashMap<ChangeHash, Open>,
    /// Latencies by phase, in microseconds.
    times: Vec<Vec<u64>>,
    written: u64,
    arrived: u64,
    expected: u64,
    /// Sessions that ended though nobody ended them.
    cut: u64,
    /// What went wrong, the first few.
    wrong: Vec<String>,
}

#[derive(Debug)]
struct Open {
    at: Instant,
    phase: usize,
    left: usize,
}

/// How long changes took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// How many were measured: each change once for each device that hears of it.
    pub count: usize,
    /// The median, in milliseconds.
    pub p50_ms: f64,
    /// What 99 of 100 take at most, in milliseconds.
    pub p99_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
}

impl Times {
    /// Of times in microseconds.
    pub(super) fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let at = |share: f64| {
            let place = ((micros.len() as f64 * share).ceil() as usize).max(1) - 1;
            micros.get(place).map_or(0.0, |micros| *micros as f64 / 1e3)
        };
        Self { count: micros.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}

impl Board {
    /// From now on changes are written in another phase.
    pub(super) fn enter(&self, phase: usize) {
        let mut entries = self.entries();
        entries.phase = phase;
        let phases = entries.times.len().max(phase + 1);
        entries.times.resize(phases, Vec::new());
    }

    /// A change is durable where it was written; so many devices are to hear of it.
    pub(super) fn wrote(&self, hash: ChangeHash, at: Instant, hearers: usize) {
        let mut entries = self.entries();
        entries.written += 1;
        entries.expected += hearers as u64;
        let phase = entries.phase;
        if hearers > 0 {
            entries.open.insert(hash, Open { at, phase, left: hearers });
        }
    }

    /// Changes are durable on a device that heard of them.
    pub(super) fn arrived(&self, hashes: &[ChangeHash], at: Instant) {
        let mut entries = self.entries();
        for hash in hashes {
            let Some(open) = entries.open.get_mut(hash) else { continue };
            open.left -= 1;
            let (took, phase, over) = (at.duration_since(open.at), open.phase, open.left == 0);
            if over {
                entries.open.remove(hash);
            }
            entries.arrived += 1;
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            if let Some(times) = entries.times.get_mut(phase) {
                times.push(micros);
            }
        }
    }

    /// A session ended though nobody ended it.
    pub(super) fn was_cut(&self, why: String) {
        let mut entries = self.entries();
        entries.cut += 1;
        if entries.wrong.len() < 8 {
            entries.wrong.push(why);
        }
    }

    /// The times of a phase.
    pub(super) fn times(&self, phase: usize) -> Times {
        Times::of(self.entries().times.get(phase).cloned().unwrap_or_default())
    }

    /// Arrivals that are still to come.
    pub(super) fn missing(&self) -> u64 {
        let entries = self.entries();
        entries.expected - entries.arrived
    }

    pub(super) fn written(&self) -> u64 {
        self.entries().written
    }

    /// Sessions that ended though nobody ended them, and the first reasons.
    pub(super) fn cuts(&self) -> (u64, Vec<String>) {
        let entries = self.entries();
        (entries.cut, entries.wrong.clone())
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long something took, in milliseconds.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_by_the_phase_in_which_a_change_was_written() {
        let (board, begin) = (Board::default(), Instant::now());
        let hash = |n| ChangeHash([n; 32]);
        board.enter(0);
        board.wrote(hash(1), begin, 2);
        board.enter(1);
        board.wrote(hash(2), begin, 1);
        board.arrived(&[hash(1), hash(2)], begin + Duration::from_millis(5));
        assert_eq!(board.missing(), 1);
        board.arrived(&[hash(1)], begin + Duration::from_millis(9));
        assert_eq!((board.missing(), board.written()), (0, 2));
        let (first, second) = (board.times(0), board.times(1));
        assert_eq!((first.count, first.p50_ms, first.p99_ms), (2, 5.0, 9.0));
        assert_eq!((second.count, second.max_ms), (1, 5.0));
    }

    #[test]
    fn of_a_hundred_the_last_but_one_is_the_ninety_ninth() {
        let times = Times::of((1..=100).map(|n| n * 1_000).collect());
        assert_eq!((times.p50_ms, times.p99_ms, times.max_ms), (50.0, 99.0, 100.0));
        assert_eq!(Times::of(Vec::new()), Times::default());
    }
}
