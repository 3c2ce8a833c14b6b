//! The relay's configuration: `relay.toml` in its directory, which people write. A key that is not known is
//! an error that names those that are.
//!
//! ```toml
//! listen = "0.0.0.0:7440"      # where `serve` listens for devices
//! health = "127.0.0.1:7441"    # where it answers /healthz, /readyz and /metrics: nowhere unless it says so
//!
//! [host.erp]                   # a host that actions call
//! url = "https://erp.local/api"
//! timeout = "3s"               # how long it may take: 10 s unless it says so
//! ca = "erp.pem"               # who vouches for it, if not whom browsers trust
//!
//! [collection]                 # attached files that nothing refers to go: none ever unless it says so
//! after = "30d"                # that long after it was seen
//!
//! [traces]                     # a collector that hears what takes time: nobody unless it says so
//! endpoint = "http://127.0.0.1:4318"
//!
//! [limits.device]              # what each device may; [limits.organisation] is what all may together
//! bytes_a_minute = "64MiB"
//! log_bytes = "none"           # no limit
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::collector::Collector;
use crate::host::Hosts;
use crate::limits::{self, Limits};

/// The file's name.
pub(crate) const FILE: &str = "relay.toml";
/// The shortest and the longest grace time.
const GRACE: (Duration, Duration) = (Duration::from_hours(1), Duration::from_hours(3_650 * 24));

/// What whoever runs a relay has set.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where devices are listened for.
    pub listen: Option<SocketAddr>,
    /// Where the relay tells how it is doing.
    pub health: Option<SocketAddr>,
    /// Where operators find the console.
    pub console: Option<SocketAddr>,
    /// The address by which they reach it through a proxy, as `https://relay.example`.
    pub behind_proxy: Option<String>,
    /// How long after it was seen that nothing refers to an attached file it goes; none ever goes if
    /// that is not said.
    pub collect_after: Option<Duration>,
    /// What devices may bring and have stored.
    pub limits: Limits,
    /// Where traces go; nowhere if that is not said.
    pub traces: Option<Collector>,
    /// The hosts that actions call.
    pub(crate) hosts: Hosts,
}

/// The file as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    listen: Option<SocketAddr>,
    health: Option<SocketAddr>,
    console: Option<SocketAddr>,
    behind_proxy: Option<String>,
    #[serde(default)]
    host: toml::Table,
    collection: Option<Collection>,
    traces: Option<Collector>,
    #[serde(default)]
    limits: limits::Written,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Collection {
    after: Grace,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Grace(Duration);

impl TryFrom<String> for Grace {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let hours = [("h", 1), ("d", 24)].into_iter().find_map(|(unit, hours)| {
            text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(hours)
        });
        let said = hours.and_then(|hours| hours.checked_mul(3_600)).map(Duration::from_secs);
        let said = said.filter(|said| (GRACE.0..=GRACE.1).contains(said));
        said.map(Self).ok_or("write \"1h\" to \"3650d\"")
    }
}

/// Why a relay's configuration is not to be understood.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// It says something that means nothing.
    #[error("{}: {problem}", file.display())]
    Unclear {
        /// The file.
        file: PathBuf,
        /// What, and where.
        problem: String,
    },
}

impl Config {
    /// Reads the configuration of a directory; nothing is set where there is no file.
    ///
    /// # Errors
    /// When the file cannot be read, or says what nobody understands.
    pub fn read(directory: &Path) -> Result<Self, ConfigError> {
        let file = directory.join(FILE);
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(ConfigError::Io { file, error }),
        };
        let written = toml::from_str(&text).map_err(|error| error.to_string());
        let config =
            written.and_then(|written| {
                let Written {
                    listen,
                    health,
                    console,
                    behind_proxy,
                    host,
                    collection,
                    traces,
                    limits,
                } = written;
                let hosts = Hosts::parse(&host, directory)?;
                let collect_after = collection.map(|collection| collection.after.0);
                let limits = limits.limits();
                let set = Self { listen, health, console, behind_proxy, ..Self::default() };
                Ok(Self { collect_after, limits, traces, hosts, ..set })
            });
        config.map_err(|problem| ConfigError::Unclear {
            file,
            problem: problem.trim_end().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config, String> {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join(FILE), text).expect("it is written");
        Config::read(directory.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_set_is_read_and_a_directory_without_a_file_sets_nothing() {
        let set =
            config("listen = \"0.0.0.0:1\"\nhealth = \"127.0.0.1:2\"\n").expect("it is clear");
        assert_eq!(set.listen, Some(([0, 0, 0, 0], 1).into()));
        assert_eq!(set.health, Some(([127, 0, 0, 1], 2).into()));
        let nowhere = tempfile::tempdir().expect("a directory");
        let nothing = Config::read(nowhere.path()).expect("nothing is set");
        assert_eq!((nothing.listen, nothing.health, nothing.collect_after), (None, None, None));
        assert_eq!(nothing.limits, Limits::default());
    }

    #[test]
    fn collection_is_off_until_it_is_said_after_how_long() {
        for (after, hours) in [("1h", 1), ("30d", 720), ("3650d", 87_600)] {
            let set = config(&format!("[collection]\nafter = \"{after}\"")).expect("it is clear");
            assert_eq!(set.collect_after, Some(Duration::from_hours(hours)));
        }
        for wrong in ["30", "\"30m\"", "\"0d\"", "\"3651d\""] {
            assert!(config(&format!("[collection]\nafter = {wrong}")).is_err(), "{wrong}");
        }
        let error = config("[collection]\nafter = \"30m\"").expect_err("no grace time");
        assert!(error.contains("write \"1h\" to \"3650d\""), "{error}");
        assert!(config("collection = true").is_err());
        assert!(config("[collection]").expect_err("no time").contains("`after`"));
    }

    #[test]
    fn nothing_is_traced_until_it_is_said_where_to() {
        assert_eq!(config("").expect("it is clear").traces, None);
        let all = |ratio: &str| {
            let text = format!("[traces]\nendpoint = \"http://[::1]:4318/\"\n{ratio}");
            config(&text).map(|set| set.traces.expect("it is said"))
        };
        for (said, ratio) in [("", 1.0), ("ratio = 1", 1.0), ("ratio = 0.25", 0.25)] {
            let endpoint = "http://[::1]:4318".to_owned();
            assert_eq!(all(said), Ok(Collector { endpoint, ratio }), "{said}");
        }
        for wrong in ["ratio = 0", "ratio = 1.5", "ratio = nan", "ratio = \"all\"", "rate = 1"] {
            assert!(all(wrong).is_err(), "{wrong}");
        }
        let error = all("ratio = 2").expect_err("more than all");
        assert!(error.contains("above 0, and 1 at most") && error.contains("line 3"), "{error}");
        assert!(config("[traces]").expect_err("no collector").contains("`endpoint`"));
        let error = config("[traces]\nendpoint = \"127.0.0.1:4318\"").expect_err("no address");
        assert!(error.contains("http://"), "{error}");
    }

    #[test]
    fn a_key_that_is_not_known_is_named_with_those_that_are() {
        let error =
            config("listen = \"0.0.0.0:1\"\nhelth = \"127.0.0.1:2\"\n").expect_err("a typo");
        assert!(error.contains("line 2") && error.contains("`helth`"), "{error}");
        assert!(error.contains("`health`") && error.contains("`host`"), "{error}");
        let error =
            config("[host.erp]\nurl = \"http://a\"\ntimeot = \"3s\"\n").expect_err("a typo");
        assert!(error.contains("`host.erp.timeot`") && error.contains("`timeout`"), "{error}");
        let error = config("[collection]\nafter = \"1d\"\ngrace = 1").expect_err("a typo");
        assert!(error.contains("`grace`") && error.contains("`after`"), "{error}");
        let error = config("[limits.device]\nbytes = \"1MiB\"\n").expect_err("a typo");
        assert!(error.contains("line 2") && error.contains("`bytes_a_minute`"), "{error}");
        assert!(config("health = \"here\"\n").expect_err("no address").contains("line 1"));
    }
}
