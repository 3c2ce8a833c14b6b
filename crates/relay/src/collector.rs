//! The collector that traces are sent to, as `relay.toml` names it: where it is, and of how many sessions it
//! hears.
//!
//! ```toml
//! [traces]
//! endpoint = "http://127.0.0.1:4318"    # OTLP over HTTP; `/v1/traces` is added
//! ratio = 0.1                           # one session in ten; all of them unless it says so
//! ```

use serde::Deserialize;
use toml::Value;

use crate::host::address;

/// Of how many sessions it hears unless something is said.
const RATIO: f64 = 1.0;

/// Where traces go.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collector {
    /// Its address, without a path for traces and without a slash at its end.
    #[serde(deserialize_with = "endpoint")]
    pub endpoint: String,
    /// The share of the sessions that are traced: above 0, and 1 at most.
    #[serde(default = "all", deserialize_with = "ratio")]
    pub ratio: f64,
}

fn all() -> f64 {
    RATIO
}

fn endpoint<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    address(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

fn ratio<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let said = match Value::deserialize(from)? {
        Value::Float(ratio) => Some(ratio),
        Value::Integer(1) => Some(1.0),
        Value::Integer(_)
        | Value::String(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_)
        | Value::Table(_) => None,
    };
    let said = said.filter(|ratio| *ratio > 0.0 && *ratio <= 1.0);
    said.ok_or_else(|| serde::de::Error::custom("write a number above 0, and 1 at most"))
}
