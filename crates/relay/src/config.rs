//! The relay's configuration: `relay.toml` in its directory, read when it starts. What it does not know
//! is an error, and so is what means nothing.
//!
//! `[host.NAME]` names hosts that actions call (see `host`); `[collection]` with `after = "30d"` turns
//! on that attached files go which nothing refers to, that long after it was seen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::Hosts;

/// The file, in the relay's directory.
pub(crate) const FILE: &str = "relay.toml";
/// The shortest and the longest grace time.
const GRACE: (Duration, Duration) = (Duration::from_hours(1), Duration::from_hours(3_650 * 24));

/// What a relay's configuration says.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The hosts that actions call.
    pub(crate) hosts: Hosts,
    /// How long after it was seen that nothing refers to an attached file it goes; none ever goes if
    /// that is not said.
    pub collect_after: Option<Duration>,
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
        /// What.
        problem: String,
    },
}

impl Config {
    /// Reads the configuration of a directory; one that says nothing if there is no file.
    ///
    /// # Errors
    /// When it cannot be read, or says something that means nothing.
    pub fn read(directory: &Path) -> Result<Self, ConfigError> {
        let file = directory.join(FILE);
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                let parsed = Self::parse(&text, directory);
                parsed.map_err(|problem| ConfigError::Unclear { file, problem })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(ConfigError::Io { file, error }),
        }
    }

    fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
        let mut config = Self::default();
        for (key, value) in &table {
            let table = value.as_table().ok_or_else(|| format!("`{key}` is no table"));
            match key.as_str() {
                "host" => config.hosts = Hosts::parse(table?, directory)?,
                "collection" => config.collect_after = Some(grace(table?)?),
                _ => {
                    return Err(format!("unknown key `{key}`: known are `collection` and `host`"));
                }
            }
        }
        Ok(config)
    }
}

fn grace(table: &toml::Table) -> Result<Duration, String> {
    if let Some(key) = table.keys().find(|key| *key != "after") {
        return Err(format!("unknown key `collection.{key}`: known is `after`"));
    }
    let said = table.get("after").and_then(toml::Value::as_str).and_then(|text| {
        let hours = [("h", 1), ("d", 24)].into_iter().find_map(|(unit, hours)| {
            text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(hours)
        });
        hours?.checked_mul(3_600).map(Duration::from_secs)
    });
    said.filter(|said| (GRACE.0..=GRACE.1).contains(said))
        .ok_or_else(|| "`collection.after`: write \"1h\" to \"3650d\"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collection_is_off_until_it_is_said_after_how_long() {
        let parse = |text: &str| Config::parse(text, Path::new("/nowhere"));
        assert_eq!(parse("").map(|config| config.collect_after), Ok(None));
        for (after, hours) in [("1h", 1), ("30d", 720), ("3650d", 87_600)] {
            let config = parse(&format!("[collection]\nafter = \"{after}\""));
            let after = config.expect("it is clear").collect_after;
            assert_eq!(after, Some(Duration::from_hours(hours)));
        }
    }

    #[test]
    fn what_means_nothing_is_an_error_that_says_what_is_known() {
        for (wrong, word) in [
            ("hosts = 1", "unknown key `hosts`: known are `collection` and `host`"),
            ("host = 1", "`host` is no table"),
            ("collection = true", "`collection` is no table"),
            ("[collection]", "`collection.after`: write"),
            ("[collection]\nafter = 30", "`collection.after`: write"),
            ("[collection]\nafter = \"30m\"", "`collection.after`: write"),
            ("[collection]\nafter = \"0d\"", "`collection.after`: write"),
            ("[collection]\nafter = \"3651d\"", "`collection.after`: write"),
            ("[collection]\nafter = \"1d\"\ngrace = 1", "unknown key `collection.grace`"),
        ] {
            let error = Config::parse(wrong, Path::new("/nowhere")).expect_err("it means nothing");
            assert!(error.contains(word), "{wrong}: {error}");
        }
    }
}
