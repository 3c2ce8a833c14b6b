//! Limits as they are written in `relay.toml`: what is not written is as it is without a file.

use serde::Deserialize;
use toml::Value;

use super::{Limits, Share};

/// The table `[limits]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Written {
    device: WrittenShare,
    organisation: WrittenShare,
    handshakes_a_second: Option<Count>,
    strangers: Option<Count>,
    grace: Option<Grace>,
    memory_bytes: Option<Size>,
}

/// The table `[limits.device]` or `[limits.organisation]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenShare {
    bytes_a_minute: Option<Bytes>,
    changes_a_minute: Option<Most>,
    connections_a_minute: Option<Most>,
    log_bytes: Option<Bytes>,
    file_bytes: Option<Bytes>,
}

impl Written {
    /// The limits that it comes to.
    pub(crate) fn limits(self) -> Limits {
        let none = Limits::default();
        Limits {
            device: self.device.over(none.device),
            organisation: self.organisation.over(none.organisation),
            handshakes_a_second: self
                .handshakes_a_second
                .map_or(none.handshakes_a_second, |count| count.0),
            strangers: self.strangers.map_or(none.strangers, |count| count.0),
            grace_seconds: self.grace.map_or(none.grace_seconds, |grace| grace.0),
            memory_bytes: self.memory_bytes.map_or(none.memory_bytes, |size| size.0),
        }
    }
}

impl WrittenShare {
    fn over(self, share: Share) -> Share {
        Share {
            bytes_a_minute: self.bytes_a_minute.map_or(share.bytes_a_minute, |most| most.0),
            changes_a_minute: self.changes_a_minute.map_or(share.changes_a_minute, |most| most.0),
            connections_a_minute: self
                .connections_a_minute
                .map_or(share.connections_a_minute, |most| most.0),
            log_bytes: self.log_bytes.map_or(share.log_bytes, |most| most.0),
            file_bytes: self.file_bytes.map_or(share.file_bytes, |most| most.0),
        }
    }
}

/// A number that is not 0.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct Count(u64);

/// The same, or none.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct Most(Option<u64>);

/// Bytes with their unit, or none.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct Bytes(Option<u64>);

/// Bytes with their unit, enough to work with.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct Size(u64);

/// Seconds or minutes.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct Grace(u64);

/// What lifts a limit.
const NONE: &str = "none";
/// The largest count that is taken: what is more is no limit.
const COUNT: u64 = 1_000_000_000;
/// The least memory that loaded documents may be given.
const SIZE: u64 = 16 << 20;

impl TryFrom<Value> for Count {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let count = value.as_integer().and_then(|count| u64::try_from(count).ok());
        let count = count.filter(|count| (1..=COUNT).contains(count));
        count.map(Self).ok_or("write a number from 1 to 1_000_000_000")
    }
}

impl TryFrom<Value> for Most {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        if value.as_str() == Some(NONE) {
            return Ok(Self(None));
        }
        let unclear = "write a number from 1 to 1_000_000_000, or \"none\"";
        Count::try_from(value).map(|count| Self(Some(count.0))).map_err(|_| unclear)
    }
}

impl TryFrom<Value> for Bytes {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        if value.as_str() == Some(NONE) {
            return Ok(Self(None));
        }
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
        let bytes = units.into_iter().find_map(|(unit, shift)| {
            let number = value.as_str()?.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?;
            number.checked_mul(1 << shift)
        });
        let bytes = bytes.filter(|bytes| *bytes > 0);
        let unclear = "write \"64KiB\", \"256MiB\", \"4GiB\" or \"1TiB\", or \"none\"";
        bytes.map(|bytes| Self(Some(bytes))).ok_or(unclear)
    }
}

impl TryFrom<Value> for Size {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let size = Bytes::try_from(value).ok().and_then(|bytes| bytes.0);
        let size = size.filter(|size| *size >= SIZE);
        size.map(Self).ok_or("write \"16MiB\" or more, as \"256MiB\" or \"4GiB\"")
    }
}

impl TryFrom<Value> for Grace {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let units = [("s", 1), ("m", 60)];
        let seconds = units.into_iter().find_map(|(unit, seconds)| {
            value.as_str()?.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(seconds)
        });
        let seconds = seconds.filter(|seconds| (1..=3_600).contains(seconds));
        seconds.map(Self).ok_or("write \"1s\" to \"60m\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Result<Limits, String> {
        toml::from_str::<Written>(text).map(Written::limits).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_holds_and_the_rest_is_as_without_a_file() {
        assert_eq!(limits(""), Ok(Limits::default()));
        let set = limits(
            "handshakes_a_second = 9\nstrangers = 3\ngrace = \"2m\"\nmemory_bytes = \"1GiB\"\n\
             [device]\nbytes_a_minute = \"64KiB\"\nchanges_a_minute = 1_000\nfile_bytes = \"none\"\n\
             [organisation]\nlog_bytes = \"2GiB\"\nconnections_a_minute = \"none\"\n",
        );
        let set = set.expect("it is clear");
        let none = Limits::default();
        let device = Share {
            bytes_a_minute: Some(65_536),
            changes_a_minute: Some(1_000),
            file_bytes: None,
            ..none.device
        };
        let organisation =
            Share { log_bytes: Some(2 << 30), connections_a_minute: None, ..none.organisation };
        let expected = Limits {
            device,
            organisation,
            handshakes_a_second: 9,
            strangers: 3,
            grace_seconds: 120,
            memory_bytes: 1 << 30,
        };
        assert_eq!(set, expected);
    }

    #[test]
    fn what_means_nothing_is_an_error_that_says_what_to_write() {
        for (wrong, remedy) in [
            ("strangers = 0", "write a number from 1"),
            ("handshakes_a_second = \"none\"", "write a number from 1"),
            ("grace = 5", "write \"1s\" to \"60m\""),
            ("grace = \"2h\"", "write \"1s\" to \"60m\""),
            ("memory_bytes = \"none\"", "write \"16MiB\" or more"),
            ("memory_bytes = \"15MiB\"", "write \"16MiB\" or more"),
            ("[device]\nbytes_a_minute = 5", "\"256MiB\""),
            ("[device]\nlog_bytes = \"0GiB\"", "or \"none\""),
            ("[device]\nlog_bytes = \"99999999999TiB\"", "or \"none\""),
            ("[device]\nchanges_a_minute = -1", "or \"none\""),
            ("[device]\nchanges = 1", "`changes_a_minute`"),
            ("[devices]", "`organisation`"),
        ] {
            let error = limits(wrong).expect_err(wrong);
            assert!(error.contains(remedy), "{wrong}: {error}");
        }
    }
}
