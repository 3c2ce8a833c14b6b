//! Limits: how much a device, and all of them together, may bring in a minute and have stored, and what they
//! use of that.
//!
//! Who brings more is read more slowly; who goes on for longer than a grace is sent away, and told when to
//! come back. What is to be stored beyond a limit is kept aside, or refused with a reason: nothing that was
//! acknowledged goes, and the device keeps the rest. All of it is for whoever runs the relay to set; nothing
//! here reads a clock.

mod pace;
mod throttle;
mod written;

use std::time::Duration;

use fieldkeep_model::DeviceNumber;
use fieldkeep_replica::RELAY_MEMORY;
use serde::{Deserialize, Serialize};

pub(crate) use pace::{Pace, Rate, Recent};
pub(crate) use throttle::{Amount, Arrival, Hold, Throttle};
pub(crate) use written::Written;

/// All limits of a relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// What each device may.
    pub device: Share,
    /// What all devices together may.
    pub organisation: Share,
    /// Handshakes that are begun in a second, whoever calls; twice as many at once after a quiet while.
    /// Others wait.
    pub handshakes_a_second: u64,
    /// Connections of keys that are not enrolled, at once; of more the oldest goes.
    pub strangers: u64,
    /// For how long a device is slowed down at one go before it is sent away, in seconds.
    pub grace_seconds: u64,
    /// Bytes that loaded documents and indexes take together, by estimate. What was used longest ago goes, and
    /// is loaded again when it is needed.
    pub memory_bytes: u64,
}

/// What a device, or all together, may. Nothing where there is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Bytes that are read in a minute, those of attached files too; as many at once after a quiet minute.
    pub bytes_a_minute: Option<u64>,
    /// Changes, and attached files that are asked for or brought, in a minute.
    pub changes_a_minute: Option<u64>,
    /// Connections in a minute.
    pub connections_a_minute: Option<u64>,
    /// Bytes of changes in the log. More are kept aside, unmerged.
    pub log_bytes: Option<u64>,
    /// Bytes of attached files, with those that were begun and are not whole. More are refused.
    pub file_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        let device = Share {
            bytes_a_minute: Some(256 << 20),
            changes_a_minute: Some(300_000),
            connections_a_minute: Some(120),
            log_bytes: Some(4 << 30),
            file_bytes: Some(32 << 30),
        };
        let organisation = Share {
            bytes_a_minute: Some(2 << 30),
            changes_a_minute: Some(1_500_000),
            connections_a_minute: Some(12_000),
            log_bytes: None,
            file_bytes: None,
        };
        Self {
            device,
            organisation,
            handshakes_a_second: 500,
            strangers: 64,
            grace_seconds: 300,
            memory_bytes: RELAY_MEMORY as u64,
        }
    }
}

impl Limits {
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }
}

/// The limits, and what is used of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The limits in force.
    pub limits: Limits,
    /// Since when is counted who was slowed down or refused: the start of the relay, milliseconds UTC;
    /// nothing where it does not serve.
    pub since_ms: Option<i64>,
    /// What all devices together use.
    pub organisation: Use,
    /// What each device uses, by number.
    pub devices: Vec<DeviceUse>,
    /// Whoever calls and is not enrolled.
    pub strangers: Strangers,
}

/// What a device uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceUse {
    /// Its number.
    pub number: DeviceNumber,
    /// Its name.
    pub name: String,
    /// Whether everything was taken from it.
    pub revoked: bool,
    /// Whether it is connected.
    pub connected: bool,
    /// What it uses.
    pub used: Use,
}

/// What is used of a share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// Bytes that were read in the last minute, about.
    pub bytes: u64,
    /// Changes that came in it, and files that were asked for or brought.
    pub changes: u64,
    /// Connections that were made in it.
    pub connections: u64,
    /// What is stored.
    pub stored: Stored,
    /// How it was slowed down.
    pub slowed: Slowed,
    /// What was refused.
    pub refused: Refused,
}

/// What is stored of a device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Changes in the log that it wrote, whoever brought them.
    pub log_bytes: u64,
    /// Changes of it that were kept aside.
    pub aside_bytes: u64,
    /// Attached files that it brought, each once.
    pub file_bytes: u64,
    /// The lengths of files that it has begun to bring and that are not whole.
    pub begun_bytes: u64,
}

impl Stored {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            log_bytes: self.log_bytes + other.log_bytes,
            aside_bytes: self.aside_bytes + other.aside_bytes,
            file_bytes: self.file_bytes + other.file_bytes,
            begun_bytes: self.begun_bytes + other.begun_bytes,
        }
    }
}

/// How somebody was slowed down since the relay was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slowed {
    /// How often something was left unread for a while.
    pub times: u64,
    /// For how long altogether, in milliseconds.
    pub millis: u64,
    /// Since when that goes on, milliseconds UTC; nothing if it is over.
    pub since_ms: Option<i64>,
    /// When it was last so, milliseconds UTC.
    pub last_ms: Option<i64>,
}

/// What was refused since the relay was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Sessions that ended for a limit, or did not begin.
    pub sessions: u64,
    /// Files for which there was no room.
    pub files: u64,
    /// When something was last refused, milliseconds UTC.
    pub last_ms: Option<i64>,
}

impl Refused {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            sessions: self.sessions + other.sessions,
            files: self.files + other.files,
            last_ms: self.last_ms.max(other.last_ms),
        }
    }
}

/// Whoever calls and is not enrolled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strangers {
    /// Those that are connected.
    pub connected: u64,
    /// Those that had to make room for others since the relay was started.
    pub displaced: u64,
}

/// What the engine knows of a device: who it is, and what of it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Holding {
    pub(crate) number: DeviceNumber,
    pub(crate) key: fieldkeep_model::PublicKey,
    pub(crate) name: String,
    pub(crate) revoked: bool,
    pub(crate) connected: bool,
    pub(crate) stored: Stored,
    pub(crate) refused: Refused,
}

impl Report {
    /// What is used where nobody is served.
    pub(crate) fn at_rest(limits: Limits, holdings: Vec<Holding>) -> Self {
        let mut organisation = Use::default();
        let devices = holdings.into_iter().map(|holding| {
            organisation.stored = organisation.stored.and(holding.stored);
            organisation.refused = organisation.refused.and(holding.refused);
            let used = Use { stored: holding.stored, refused: holding.refused, ..Use::default() };
            let Holding { number, name, revoked, connected, .. } = holding;
            DeviceUse { number, name, revoked, connected, used }
        });
        let devices = devices.collect();
        let strangers = Strangers::default();
        Self { limits, since_ms: None, organisation, devices, strangers }
    }
}
