//! Medians, the clock of one thread, and what disk this is.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// The median of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    assert!(!figures.is_empty(), "a median needs figures");
    figures.sort_unstable_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 {
        figures[middle]
    } else {
        f64::midpoint(figures[middle - 1], figures[middle])
    }
}

/// How long some work takes, in microseconds, and what it returns.
pub(crate) fn micros<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begin = Instant::now();
    let result = work();
    (begin.elapsed().as_secs_f64() * 1e6, result)
}

/// The processor time that this thread has used so far.
pub(crate) fn thread_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    let nanoseconds = text.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the first number is the time on a processor"))
}

/// The least-squares slope of points.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let below: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    above / below
}

/// The disk under a directory.
pub(crate) struct Disk {
    system: String,
    fsync_micros: f64,
}

impl Disk {
    /// Looks at the disk under a directory, and refuses one that is memory.
    pub(crate) fn examine(directory: &Path) -> Self {
        let system = file_system(directory);
        assert!(
            !["tmpfs", "ramfs"].contains(&system.as_str()),
            "{} is memory, no disk: name another directory with FIELDKEEP_BENCH_DIR",
            directory.display()
        );
        let mut file = tempfile::tempfile_in(directory).expect("the directory can be written");
        let write = |file: &mut File| {
            micros(|| {
                file.write_all(&[7; 4096]).expect("the disk takes 4 KB");
                file.sync_data().expect("the disk syncs");
            })
            .0
        };
        let times = (0..101).map(|_| write(&mut file)).collect();
        Self { system, fsync_micros: median(times) }
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, 4 KB written and synced in {:.0} µs", self.system, self.fsync_micros)
    }
}

fn file_system(directory: &Path) -> String {
    let directory = directory.canonicalize().expect("the directory is there");
    let mounts = std::fs::read_to_string("/proc/mounts").expect("Linux tells what is mounted");
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    });
    let over = mounts.filter(|(at, _)| directory.starts_with(at));
    over.max_by_key(|(at, _)| at.len()).map_or_else(|| "unknown".to_owned(), |(_, system)| system)
}
