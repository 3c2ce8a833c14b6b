//! The devices of an organisation, as a relay knows them: what it holds itself, and what each said of
//! itself, with when that was.

use fieldkeep_model::{Grant, TypeName};
use fieldkeep_relay::fleet::{Assessment, Claim, Device};
use serde::{Deserialize, Serialize};

use crate::time::rfc3339;
use crate::words::several;

/// A device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FleetDevice {
    /// Its number.
    pub number: u64,
    /// The name of whoever uses it.
    pub name: String,
    /// The key that it signs with, in hexadecimal.
    pub key: String,
    /// What it may read and write: `*` is everything, `visit=42` of a type only that scope.
    pub grants: Vec<String>,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Whether it is connected.
    pub connected: bool,
    /// When it was here last.
    pub last_contact: Option<String>,
    /// What it runs, as it said.
    pub version: Option<String>,
    /// The number of the catalog that it has, as it said.
    pub catalog: Option<u64>,
    /// How many of its changes are in the relay's log.
    pub saved: u64,
    /// How many of its changes lie aside, because it may not write there.
    pub aside: u64,
    /// What it said of itself last.
    pub said: Option<Said>,
    /// Whether something may be done with it, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assessment: Option<Assessed>,
}

/// What a device said of itself: a claim, and as old as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Said {
    /// When the relay heard it.
    pub heard: String,
    /// When that was by the device's clock.
    pub device_time: String,
    /// Changes that had no receipt.
    pub waiting: u64,
    /// Changes that the relay did not take.
    pub refused: u64,
    /// Attached files that the relay did not have.
    pub files: u64,
    /// Whether it leaves out some of what it may exchange.
    pub leaves_out: bool,
    /// What it holds.
    pub holds: Vec<Holds>,
}

impl Said {
    /// What the relay did not have, in words.
    #[must_use]
    pub fn unsent(&self) -> String {
        let changes = self.waiting + self.refused;
        match (changes, self.files) {
            (0, 0) => "nothing".to_owned(),
            (changes, 0) => several(changes, "change"),
            (0, files) => several(files, "file"),
            (changes, files) => {
                format!("{}, {}", several(changes, "change"), several(files, "file"))
            }
        }
    }
}

/// What a device holds of a type, as it said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Holds {
    /// The type.
    #[serde(rename = "type")]
    pub ty: TypeName,
    /// Records.
    pub records: u64,
    /// Records of which a change had no receipt.
    pub unsaved: u64,
}

/// Whether something may be done with a device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assessed {
    /// `safe`, `unsafe` or `unknown`.
    pub safety: String,
    /// What is known to be on the relay.
    pub known: Vec<String>,
    /// What is not, or not known to be.
    pub missing: Vec<String>,
    /// When what the device said was heard.
    pub as_of: Option<String>,
}

impl From<Device> for FleetDevice {
    fn from(device: Device) -> Self {
        Self {
            number: device.number,
            name: device.name,
            key: device.key.to_string(),
            grants: device.grants.iter().map(granted).collect(),
            revoked: device.revoked,
            connected: device.connected.is_some(),
            last_contact: device.seen.map(rfc3339),
            version: device.software,
            catalog: device.catalog,
            saved: device.saved,
            aside: device.aside,
            said: device.claim.map(Said::from),
            assessment: None,
        }
    }
}

impl From<Claim> for Said {
    fn from(Claim { heard, report }: Claim) -> Self {
        let holds = report.types.into_iter();
        Self {
            heard: rfc3339(heard),
            device_time: rfc3339(report.time),
            waiting: report.waiting,
            refused: report.refused,
            files: report.files,
            leaves_out: report.leaves_out,
            holds: holds
                .map(|held| Holds { ty: held.ty, records: held.records, unsaved: held.unsaved })
                .collect(),
        }
    }
}

impl From<Assessment> for Assessed {
    fn from(assessment: Assessment) -> Self {
        Self {
            safety: assessment.safety.word().to_owned(),
            known: assessment.known,
            missing: assessment.missing,
            as_of: assessment.heard.map(rfc3339),
        }
    }
}

/// A grant as it is typed and shown.
#[must_use]
pub fn granted(grant: &Grant) -> String {
    match (&grant.ty, &grant.scope) {
        (None, None) => "*".to_owned(),
        (None, Some(scope)) => format!("*={scope}"),
        (Some(ty), None) => ty.to_string(),
        (Some(ty), Some(scope)) => format!("{ty}={scope}"),
    }
}
