//! What is measured, and how: times of single operations, bytes, and memory as the allocator and the
//! system count it.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::engine::{Engine, WIRE_LEVEL};

/// What the counting allocator says.
#[derive(Clone, Copy, Debug, Default)]
struct Heap {
    live: u64,
    peak: u64,
}

static HEAP: OnceLock<fn() -> (u64, u64)> = OnceLock::new();

/// Tells how this process counts its allocations: the bytes that are live, and the most that ever
/// were at once. Without it heap figures are left out; the first call counts.
pub fn count_heap(with: fn() -> (u64, u64)) {
    let _ = HEAP.set(with);
}

fn heap() -> Option<Heap> {
    HEAP.get().map(|counts| counts()).map(|(live, peak)| Heap { live, peak })
}

/// The figures of one run, by name; what each means is in [`crate::merge::results::METRICS`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Metrics {
    /// The figures.
    pub figures: BTreeMap<String, f64>,
    /// The hash of all records at the end.
    pub content: Option<String>,
    #[serde(skip)]
    began: Heap,
}

impl Metrics {
    /// Begins to measure: what is allocated before is no engine's.
    pub(crate) fn begin() -> Self {
        Self { began: heap().unwrap_or_default(), ..Self::default() }
    }

    pub(crate) fn set(&mut self, name: &str, figure: f64) {
        self.figures.insert(name.to_owned(), figure);
    }

    pub(crate) fn content(&mut self, hash: String) {
        self.content = Some(hash);
    }

    /// Does some work, and notes how many milliseconds it took.
    pub(crate) fn time<T>(&mut self, name: &str, work: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let result = work();
        self.set(&format!("{name}_ms"), begin.elapsed().as_secs_f64() * 1e3);
        result
    }

    /// Notes the times of many operations.
    pub(crate) fn times(&mut self, name: &str, times: &Times) {
        if times.seconds.is_empty() {
            return;
        }
        self.set(&format!("{name}_us_median"), times.quantile(0.5) * 1e6);
        self.set(&format!("{name}_us_p99"), times.quantile(0.99) * 1e6);
        self.set(&format!("{name}_total_ms"), times.total * 1e3);
    }

    /// Bytes that are allocated beyond those of the beginning, if they are counted.
    pub(crate) fn live(&self) -> Option<f64> {
        heap().map(|heap| heap.live.saturating_sub(self.began.live) as f64)
    }

    /// Notes how much memory there is at this point, and how much there ever was.
    pub(crate) fn memory(&mut self) {
        if let Some(live) = self.live() {
            self.set("heap_live_bytes", live);
        }
        if let Some(heap) = heap() {
            let peak = heap.peak.saturating_sub(self.began.live);
            self.set("heap_peak_bytes", peak as f64);
        }
        if let Some(peak) = status("VmHWM:") {
            self.set("rss_peak_bytes", peak as f64);
        }
    }

    /// Notes the bytes of messages.
    pub(crate) fn wire(&mut self, engine: &dyn Engine, messages: &[Vec<u8>]) {
        let raw: usize = messages.iter().map(Vec::len).sum();
        self.set("wire_bytes", raw as f64);
        let packed = self.time("pack", || engine.pack(messages));
        self.set("wire_packed_bytes", packed.len() as f64);
    }

    /// Notes the bytes of the saved state, and returns it.
    pub(crate) fn save(&mut self, engine: &mut dyn Engine) -> Vec<u8> {
        let saved = self.time("save", || engine.save());
        self.set("saved_bytes", saved.len() as f64);
        let packed = zstd::bulk::compress(&saved, WIRE_LEVEL).expect("memory takes it");
        self.set("saved_packed_bytes", packed.len() as f64);
        saved
    }
}

/// How long operations took.
#[derive(Debug, Default)]
pub(crate) struct Times {
    seconds: Vec<f64>,
    total: f64,
}

impl Times {
    pub(crate) fn add(&mut self, seconds: f64) {
        self.seconds.push(seconds);
        self.total += seconds;
    }

    /// Does so many operations at once; each counts with its share.
    pub(crate) fn each(&mut self, count: usize, work: impl FnOnce()) {
        self.counted(|| {
            work();
            count
        });
    }

    /// Does some operations, and is told how many they were; none leaves no trace.
    pub(crate) fn counted(&mut self, work: impl FnOnce() -> usize) {
        let begin = Instant::now();
        let count = work();
        let took = begin.elapsed().as_secs_f64();
        if count > 0 {
            self.seconds.push(took / count as f64);
            self.total += took;
        }
    }

    /// The time below which that share of the operations lies.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let nth = (last as f64 * share).round() as usize;
        sorted.get(nth).copied().unwrap_or(f64::NAN)
    }
}

/// A size from a process's status, in bytes.
fn status(name: &str) -> Option<u64> {
    size_in(&std::fs::read_to_string("/proc/self/status").ok()?, name)
}

/// The memory that a process has at present, in bytes.
pub(crate) fn resident(process: u32) -> Option<u64> {
    size_in(&std::fs::read_to_string(format!("/proc/{process}/status")).ok()?, "VmRSS:")
}

fn size_in(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 12 kB\n";
        assert_eq!(size_in(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(size_in(status, "VmSwap:"), None);
    }

    #[test]
    fn quantiles_are_taken_from_the_sorted_times() {
        let mut times = Times::default();
        (1..=100).rev().for_each(|n| times.add(f64::from(n)));
        assert_eq!(times.quantile(0.99), 99.0);
        assert_eq!(times.quantile(0.0), 1.0);
        assert!((times.quantile(0.5) - 50.0).abs() <= 1.0);
    }
}
