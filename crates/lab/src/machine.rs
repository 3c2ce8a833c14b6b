//! Where a measurement ran: the machine, and the versions of what was measured.

use std::collections::BTreeMap;
use std::{fmt, fs};

use serde::Serialize;

use crate::chart;

/// A machine, as far as it tells.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many threads run at once.
    pub cores: usize,
    /// Memory in bytes.
    pub memory: u64,
    /// The system and its version.
    pub system: String,
    /// The load of the last minute when the measurement began: above the number of cores, figures
    /// are worse than they would be.
    pub load: f64,
}

impl Machine {
    /// This one, at present.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let entry = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let memory = entry(&read("/proc/meminfo"), "MemTotal");
        let memory = memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let load = read("/proc/loadavg");
        Self {
            processor: entry(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: memory.unwrap_or(0) * 1_024,
            system: format!(
                "{} {}",
                std::env::consts::OS,
                read("/proc/sys/kernel/osrelease").trim()
            ),
            load: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, memory, system, load } = self;
        let memory = chart::size(*memory as f64);
        write!(f, "{processor}, {cores} cores, {memory}, {system}, load {load:.1} at the start")
    }
}

/// Versions in a line.
pub(crate) fn told(versions: &BTreeMap<String, String>) -> String {
    let named: Vec<_> =
        versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    named.join(", ")
}

/// The versions of what is compared, as this program was built with them.
#[must_use]
pub fn versions() -> BTreeMap<String, String> {
    const NAMES: [&str; 9] = [
        "fieldkeep",
        "automerge",
        "loro",
        "yrs",
        "samod",
        "rusqlite",
        "libsqlite3-sys",
        "quinn",
        "zstd",
    ];
    let lock = include_str!("../../../Cargo.lock");
    let packages = lock.split("[[package]]").filter_map(|package| {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().trim_start_matches('=').trim().trim_matches('"').to_owned())
        };
        Some((field("name")?, field("version")?))
    });
    packages.filter(|(name, _)| NAMES.contains(&name.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_are_those_of_the_build() {
        let versions = versions();
        assert_eq!(versions.get("automerge").map(String::as_str), Some("0.12.0"));
        assert_eq!(versions.get("fieldkeep").map(String::as_str), Some(env!("CARGO_PKG_VERSION")));
    }
}
