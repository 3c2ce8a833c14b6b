//! Limits of a relay as they are told: which there are, what is used of them, and how somebody was slowed
//! down or refused.

use fieldkeep_relay::limits::{Limits, Share, Use};

use crate::words::several;

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its name.
    pub name: &'static str,
    /// What it is called in `relay.toml`.
    pub key: &'static str,
    /// Of what it is a number.
    pub unit: Unit,
    /// What each device may; nothing where there is no limit.
    pub device: Option<u64>,
    /// What all devices together may.
    pub all: Option<u64>,
    /// What they use of it.
    pub used: u64,
}

/// Of what a limit is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Of bytes.
    Bytes,
    /// Of something that is counted.
    Count,
}

impl Line {
    /// Every limit of a device and of all together, with what all use.
    #[must_use]
    pub fn all(limits: &Limits, used: &Use) -> [Self; 5] {
        type May = fn(&Share) -> Option<u64>;
        let Use { bytes, changes, connections, stored, .. } = used;
        let line = |name, key, unit, may: May, used| {
            let (device, all) = (may(&limits.device), may(&limits.organisation));
            Self { name, key, unit, device, all, used }
        };
        let files = stored.file_bytes + stored.begun_bytes;
        [
            line("bytes a minute", "bytes_a_minute", Unit::Bytes, |may| may.bytes_a_minute, *bytes),
            line(
                "changes a minute",
                "changes_a_minute",
                Unit::Count,
                |may| may.changes_a_minute,
                *changes,
            ),
            line(
                "connections a minute",
                "connections_a_minute",
                Unit::Count,
                |may| may.connections_a_minute,
                *connections,
            ),
            line(
                "bytes in the log",
                "log_bytes",
                Unit::Bytes,
                |may| may.log_bytes,
                stored.log_bytes,
            ),
            line("bytes of files", "file_bytes", Unit::Bytes, |may| may.file_bytes, files),
        ]
    }
}

/// How a device was slowed down or refused, a sentence each; `at` tells times.
pub fn sentences(used: &Use, at: impl Fn(i64) -> String) -> Vec<String> {
    let Use { slowed, refused, stored, .. } = used;
    let mut sentences = Vec::new();
    if let Some(last) = slowed.last_ms {
        let seconds = slowed.millis / 1_000;
        let lasts = slowed.since_ms.map_or_else(
            || format!("last at {}", at(last)),
            |since| format!("again since {}", at(since)),
        );
        let times = several(slowed.times, "time");
        sentences.push(format!("slowed down {times}, {seconds} s in all, {lasts}"));
    }
    if let Some(last) = refused.last_ms {
        let (sessions, files) = (refused.sessions, refused.files);
        let last = at(last);
        let (sessions, files) = (several(sessions, "session"), several(files, "file"));
        sentences.push(format!("{sessions} and {files} refused, the last at {last}"));
    }
    if stored.aside_bytes > 0 {
        let aside = bytes(stored.aside_bytes);
        sentences
            .push(format!("{aside} of its changes lie aside: `relay quarantine list` says why"));
    }
    sentences
}

/// Bytes as they are written in `relay.toml`, to three figures.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in units {
        if value < 1_024.0 {
            break;
        }
        (value, unit) = (value / 1_024.0, larger);
    }
    let whole = value.fract() == 0.0 || value >= 100.0;
    if whole { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_to_three_figures() {
        let shown = [0, 1_023, 1_024, 1_536, 300 << 20, 4 << 30].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "300 MiB", "4 GiB"]);
    }
}
