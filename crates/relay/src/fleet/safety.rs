//! Whether a device may be upgraded or revoked without anything being lost that only it has: what is
//! known to be on the relay, what is not, and what nobody can know. It is called safe on evidence only:
//! the device is connected, and says that nothing waits.

use super::{Claim, Device};

/// What is to be done with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Put another version on it: should that fail, what only it has may be lost.
    Upgrade,
    /// Take its permissions away: what only it has is taken by hand then.
    Revoke,
}

/// How safe that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Safety {
    /// Everything that it has is on the relay.
    Safe,
    /// Nobody can tell.
    Unknown,
    /// Something is on the device alone.
    Unsafe,
}

impl Safety {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Unknown => "unknown",
            Self::Unsafe => "unsafe",
        }
    }
}

/// What is known of a device in this respect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// How safe it is.
    pub safety: Safety,
    /// What is known to be on the relay.
    pub known: Vec<String>,
    /// What is not, or not known to be.
    pub missing: Vec<String>,
    /// When what the device said was heard, by the relay's clock, milliseconds UTC.
    pub heard: Option<i64>,
}

impl Device {
    /// Whether that may be done with it.
    #[must_use]
    pub fn safe_to(&self, purpose: Purpose) -> Assessment {
        let mut known = vec![format!("{} of its changes are in the relay's log", self.saved)];
        if self.aside > 0 {
            known.push(format!("{} more are kept aside there: it may not write them", self.aside));
        }
        let mut missing = Vec::new();
        let mut safety = Safety::Safe;
        match &self.claim {
            None => {
                missing.push("it has never said what it has".to_owned());
                safety = Safety::Unknown;
            }
            Some(claim) if claim.report.is_clear() => {
                known.push("it said that the relay has everything".to_owned());
            }
            Some(claim) => {
                missing.extend(said_to_wait(claim));
                safety = Safety::Unsafe;
            }
        }
        if self.revoked && purpose == Purpose::Revoke {
            known.push("it is revoked already".to_owned());
        }
        let heard = self.claim.as_ref().map(|claim| claim.heard);
        let is_present = self.connected.zip(heard).is_some_and(|(since, heard)| heard >= since);
        if heard.is_some() && !is_present {
            missing.push("whatever was captured on it since is not known".to_owned());
            safety = safety.max(Safety::Unknown);
        }
        Assessment { safety, known, missing, heard }
    }
}

fn said_to_wait(Claim { report, .. }: &Claim) -> Vec<String> {
    let counts = [
        (report.waiting, "changes on it had no receipt"),
        (report.refused, "changes on it were not taken by the relay"),
        (report.files, "attached files on it were not on the relay"),
    ];
    let some = counts.into_iter().filter(|(count, _)| *count > 0);
    some.map(|(count, what)| format!("{count} {what}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldkeep_model::PublicKey;
    use fieldkeep_protocol::Report;

    fn device(connected: Option<i64>, report: Option<Report>) -> Device {
        Device {
            number: 3,
            key: PublicKey([3; 32]),
            name: "ann".into(),
            grants: Vec::new(),
            revoked: false,
            connected,
            seen: None,
            software: None,
            catalog: None,
            members: None,
            saved: 7,
            aside: 0,
            claim: report.map(|report| Claim { heard: 5, report }),
        }
    }

    #[test]
    fn nothing_is_called_safe_without_evidence() {
        let safety = |connected, report| device(connected, report).safe_to(Purpose::Upgrade).safety;
        let clear = Report::default();
        assert_eq!(safety(Some(5), Some(clear.clone())), Safety::Safe);
        assert_eq!(
            safety(Some(6), Some(clear.clone())),
            Safety::Unknown,
            "said on an earlier visit"
        );
        assert_eq!(safety(None, Some(clear.clone())), Safety::Unknown);
        assert_eq!(safety(Some(5), None), Safety::Unknown);
        for waiting in [
            Report { waiting: 1, ..clear.clone() },
            Report { refused: 1, ..clear.clone() },
            Report { files: 1, ..clear },
        ] {
            assert_eq!(safety(Some(5), Some(waiting.clone())), Safety::Unsafe);
            assert_eq!(safety(None, Some(waiting)), Safety::Unsafe);
        }
    }
}
