//! What goes wrong between two who exchange: over a connection, or by a file.

use fieldkeep_device::{BundleError, JoinError, MeetError, ReadError, SyncError, Unfit};

use super::{Code, Failure};

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Home(error) => error.into(),
            JoinError::Key(_) => Self::new(
                Code::Failure,
                error.to_string(),
                "ask for a fresh ticket, and join in another directory",
            ),
            JoinError::Offline(_) => {
                let remedy =
                    "nothing was made, and the ticket is still good: try again with a signal";
                Self::new(Code::Offline, error.to_string(), remedy)
            }
            JoinError::Denied(_) => Self::new(
                Code::Denied,
                error.to_string(),
                "ask for a fresh ticket: `fieldkeep relay invite`",
            ),
            JoinError::Impostor => {
                Self::new(Code::Denied, error.to_string(), "ask for a fresh ticket")
            }
            JoinError::Replica(error) => error.into(),
            JoinError::Bind(_) => Self::new(Code::Offline, error.to_string(), "try again"),
        }
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        match error {
            BundleError::Read(error) => error.into(),
            BundleError::Unfit(unfit) => unfit.into(),
            BundleError::Unknown => {
                Self::new(Code::NotFound, error.to_string(), "there is no bundle: name a member")
            }
            BundleError::Write(_) => {
                Self::new(Code::Failure, error.to_string(), "there is no bundle: try again")
            }
            BundleError::Replica(error) => error.into(),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let text = error.to_string();
        let (code, remedy) = match error {
            ReadError::Io(_) => (Code::Failure, "nothing was changed: try again"),
            ReadError::NotABundle => {
                (Code::Held, "nothing was changed: `fieldkeep bundle export` writes one")
            }
            ReadError::TooNew(_) => (Code::Held, "nothing was changed: update this software"),
            ReadError::CutShort | ReadError::Altered => {
                (Code::Integrity, "nothing was changed: copy the file again, or ask for another")
            }
            ReadError::Malformed(_) => (Code::Held, "nothing was changed: ask for another"),
        };
        Self::new(code, text, remedy)
    }
}

impl From<Unfit> for Failure {
    fn from(unfit: Unfit) -> Self {
        let (code, remedy) = match &unfit {
            Unfit::Unsigned => {
                (Code::Denied, "nothing that is here was lost: ask another for a bundle")
            }
            Unfit::Foreign | Unfit::Stranger => {
                (Code::Denied, "nothing was changed: ask a member for a bundle")
            }
            Unfit::ForAnother(_) | Unfit::ForAStranger => (
                Code::Denied,
                "nothing was changed: ask for one that is exported --for this device",
            ),
            Unfit::Revoked(_) => (
                Code::Denied,
                "nothing was changed: a revoked device exchanges nothing any more; on a relay \
                     `fieldkeep relay quarantine accept FILE` takes what it had captured",
            ),
            Unfit::InGoodStanding(_) => (
                Code::Usage,
                "take it as anybody's: `fieldkeep bundle import FILE`; what lies aside for want of a \
                 scope is taken when that is granted",
            ),
            Unfit::Suspended(_) => (Code::Denied, "nothing was changed: try again in a moment"),
            Unfit::Membership(_) | Unfit::Nonsense => {
                (Code::Integrity, "nothing was changed: ask for another")
            }
            Unfit::Gap => (
                Code::Held,
                "nothing was changed: import the bundle before it first, or ask for one that is \
                 exported without --since",
            ),
            Unfit::Over => (
                Code::Held,
                "nothing was changed: bring the relay a bundle of this device, and ask it for \
                 another",
            ),
            Unfit::AnotherLog => (
                Code::Held,
                "nothing was lost: bring the relay a bundle of this device, and ask it for one \
                 that is exported without --since",
            ),
            Unfit::BetweenOthers(_) => {
                (Code::Usage, "--since names a bundle that went to or came from that very member")
            }
            Unfit::ForOneself => (Code::Usage, "name `relay`, or another device"),
        };
        Self::new(code, unfit.to_string(), remedy)
    }
}

impl From<MeetError> for Failure {
    fn from(error: MeetError) -> Self {
        let text = error.to_string();
        match error {
            MeetError::Unreachable(_) => {
                let remedy = "the other device has to listen: `fieldkeep sync --watch --listen ADDRESS` there";
                Self::new(Code::Offline, text, remedy)
            }
            MeetError::NotFound(_) => {
                let remedy = "its `fieldkeep sync --watch --nearby` has to run on the same network, or type the address that its `fieldkeep peers --qr` prints";
                Self::new(Code::Offline, text, remedy)
            }
            MeetError::Another(_) => {
                Self::new(Code::Denied, text, "ask for the line that its `peers --qr` prints now")
            }
            MeetError::Discovery(_) => {
                Self::new(Code::Offline, text, "`fieldkeep sync --peer ADDRESS`")
            }
            MeetError::Refused { .. } => {
                Self::new(Code::Denied, text, "ask whoever runs the organisation's relay")
            }
            MeetError::Cut(_) => Self::new(Code::Offline, text, "meet again"),
            MeetError::Timeout { .. } => {
                Self::new(Code::Failure, text, "meet again, or give it longer with --timeout")
            }
            MeetError::Bind(_) => Self::new(Code::Usage, text, "give another address"),
            MeetError::Replica(error) => error.into(),
        }
    }
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        let safe = "everything is safe on this device";
        match error {
            SyncError::Offline(why) => {
                let message = format!("the relay was not reached ({why}); {safe}");
                Self::new(Code::Offline, message, "try again when there is a signal")
            }
            SyncError::Another(_) => Self::new(
                Code::Denied,
                error.to_string(),
                "`fieldkeep sync --relay ADDRESS` where the relay is, or ask for a fresh ticket if it was set up again",
            ),
            SyncError::NoAddress => {
                let message = format!("no address of the relay is known here; {safe}");
                Self::new(Code::Offline, message, "join again with a ticket that has one")
            }
            SyncError::Denied(why) => {
                let message = format!("the relay refused this device ({why}); {safe}");
                Self::new(Code::Denied, message, "ask whoever runs the relay")
            }
            SyncError::Revoked(_) => {
                let remedy = "ask whoever runs the relay; what was captured can be handed in: \
                              `fieldkeep bundle export FILE --for relay`";
                Self::new(Code::Denied, error.to_string(), remedy)
            }
            SyncError::Cut(_) => Self::new(Code::Offline, error.to_string(), "sync again"),
            SyncError::Timeout(..) => Self::new(
                Code::Failure,
                error.to_string(),
                "sync again, or give it longer with --timeout",
            ),
            SyncError::Integrity(_) => Self::new(Code::Integrity, error.to_string(), "sync again"),
            SyncError::Bind(_) => Self::new(Code::Offline, error.to_string(), "sync again"),
            SyncError::Replica(error) => error.into(),
        }
    }
}
