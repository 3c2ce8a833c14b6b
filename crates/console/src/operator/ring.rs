//! How the relay was doing: samples of the last minutes and of the last day. In memory, bounded, and
//! gone with the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fieldkeep_relay::Sample;
use fieldkeep_store::Quarantine as _;
use tokio::time::{MissedTickBehavior, interval};

use super::App;
use crate::Failure;

/// Between two samples.
const PACE: Duration = Duration::from_secs(2);
/// Counting held records by rule takes a while where there are many: at most one part of so many is spent
/// on it.
const SHARE: u32 = 20;

/// How far back is looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Span {
    /// The last ten minutes, every two seconds.
    #[default]
    Minutes,
    /// The last day, every four minutes.
    Day,
}

/// A sample, and how many records were held for each rule then.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) sample: Sample,
    pub(super) rules: Arc<BTreeMap<String, u64>>,
}

/// The moments that are kept.
#[derive(Debug, Default)]
pub(super) struct Ring(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    minutes: VecDeque<Moment>,
    day: VecDeque<Moment>,
}

impl Span {
    /// How long it is, and how long from one moment to the next, in milliseconds.
    pub(super) fn lengths_ms(self) -> (i64, i64) {
        match self {
            Self::Minutes => (10 * 60_000, 2_000),
            Self::Day => (24 * 3_600_000, 240_000),
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Minutes => "minutes",
            Self::Day => "day",
        }
    }
}

impl Kept {
    fn of(&mut self, span: Span) -> &mut VecDeque<Moment> {
        match span {
            Span::Minutes => &mut self.minutes,
            Span::Day => &mut self.day,
        }
    }

    fn push(&mut self, moment: &Moment) {
        for span in [Span::Minutes, Span::Day] {
            let (length, step) = span.lengths_ms();
            let kept = self.of(span);
            // A clock that was set back begins anew.
            if kept.back().is_some_and(|last| last.sample.time > moment.sample.time) {
                kept.clear();
            }
            // Ticks come a little early or late.
            let since = kept.back().map(|last| moment.sample.time - last.sample.time);
            let due = since.is_none_or(|since| since >= step - 1_000);
            if due {
                kept.push_back(moment.clone());
            }
            while kept.front().is_some_and(|first| moment.sample.time - first.sample.time > length)
            {
                kept.pop_front();
            }
        }
    }
}

impl Ring {
    /// The moments of a span, the oldest first.
    pub(super) fn moments(&self, span: Span) -> Vec<Moment> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.of(span).iter().cloned().collect()
    }

    fn push(&self, moment: &Moment) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(moment);
    }
}

/// What of a sample makes a page look otherwise.
fn shown(sample: &Sample) -> [u64; 6] {
    let Sample { held, waiting, records, decided, catalog, devices, .. } = sample;
    [*held, *waiting, *records, *decided, *catalog, *devices]
}

impl App {
    /// Takes samples, and tells pages that something has happened, until it is aborted.
    pub(super) async fn keep_samples(self) {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rules = Arc::new(BTreeMap::new());
        let (mut before, mut counted, mut due) = (None, None, Instant::now());
        loop {
            pace.tick().await;
            let sample = self.office().vitals().sample();
            let told = [sample.held, sample.waiting, sample.verdicts];
            let began = Instant::now();
            if counted != Some(told) && began >= due {
                let found = self
                    .on_disk(|app| Ok::<_, Failure>(app.office().reader()?.held_by_rule()?))
                    .await;
                match found {
                    Ok(found) => rules = Arc::new(found),
                    Err(error) => tracing::warn!(%error, "held records were not counted by rule"),
                }
                (counted, due) = (Some(told), Instant::now() + began.elapsed() * SHARE);
            }
            let look = shown(&sample);
            self.ring().push(&Moment { sample, rules: Arc::clone(&rules) });
            self.desk().sample();
            if before != Some(look) {
                self.desk().turn();
                before = Some(look);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A relay that has nothing to do.
    pub(in crate::operator) fn calm(time: i64) -> Moment {
        let sample = Sample {
            time,
            admitted: 0,
            verdicts: 0,
            bytes: (0, 0),
            commits: fieldkeep_relay::CommitTimes::default(),
            lag: 0,
            renewing: 0,
            queue: 0,
            devices: 0,
            records: 0,
            held: 0,
            waiting: 0,
            decided: 0,
            catalog: 0,
            stored: 0,
        };
        Moment { sample, rules: Arc::default() }
    }

    #[test]
    fn what_is_kept_is_bounded_and_reaches_back_as_far_as_it_says() {
        let ring = Ring::default();
        for nth in 0..90_000 {
            ring.push(&calm(nth * 2_000));
        }
        for span in [Span::Minutes, Span::Day] {
            let (moments, (length, step)) = (ring.moments(span), span.lengths_ms());
            let reach = moments[moments.len() - 1].sample.time - moments[0].sample.time;
            assert!(reach <= length && reach > length - 2 * step, "{span:?}: {reach}");
            assert!(moments.len() as i64 <= length / step + 1, "{span:?}: {}", moments.len());
        }
        let newest = ring.moments(Span::Minutes).pop().expect("it is not empty");
        assert_eq!(newest.sample.time, 89_999 * 2_000);
        ring.push(&calm(5));
        assert_eq!(ring.moments(Span::Day).len(), 1, "the clock was set back");
    }
}
