//! What goes wrong on a device, at what somebody does with its records.

use fieldkeep_catalog::ValueError;
use fieldkeep_device::{
    AttachError, AwaitError, ControlError, FetchError, HistoryError, ImportError, OnlineError,
    OpenError, PutError, ResolveError, ResyncError, RevertError, RotateError, SettingsError,
    ShareError, StrictError, SubscribeError,
};
use fieldkeep_model::TypeName;

use super::{Code, Failure};

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Home(error) => error.into(),
            OpenError::Key(error) => error.into(),
            OpenError::NotADevice(_) => {
                Self::new(Code::Usage, error.to_string(), "this command works on a device's")
            }
            OpenError::Settings(error) => error.into(),
            OpenError::Replica(error) => error.into(),
        }
    }
}

impl From<ValueError> for Failure {
    fn from(error: ValueError) -> Self {
        let invalid = matches!(error, ValueError::Value { .. } | ValueError::ChildId { .. });
        let code = if invalid { Code::Held } else { Code::Usage };
        Self::new(code, error.to_string(), "nothing was saved")
    }
}

impl From<PutError> for Failure {
    fn from(error: PutError) -> Self {
        match error {
            PutError::NoCatalog => Self::new(
                Code::Offline,
                "there is no catalog here yet, so no object type is known",
                "`fieldkeep sync` fetches it from the relay",
            ),
            PutError::UnknownType { ty, known } => {
                let known: Vec<_> = known.iter().map(TypeName::as_str).collect();
                let remedy = match known.is_empty() {
                    true => "nothing was saved".to_owned(),
                    false => format!("it has {}", known.join(", ")),
                };
                Self::new(Code::Usage, format!("the catalog has no object type `{ty}`"), remedy)
            }
            PutError::Absent(key) => Self::absent(key),
            PutError::NeedsConnection(_) => Self::new(
                Code::Offline,
                error.to_string(),
                "nothing was saved: try again when there is a signal",
            ),
            PutError::Deleted(_)
            | PutError::NotSubscribed { .. }
            | PutError::ScopeChange { .. }
            | PutError::Write(_)
            | PutError::Refused(_) => Self::new(Code::Held, error.to_string(), "nothing was saved"),
            PutError::Replica(error) => error.into(),
        }
    }
}

impl From<OnlineError> for Failure {
    fn from(error: OnlineError) -> Self {
        let text = error.to_string();
        match error {
            OnlineError::NeedsConnection(_) => {
                Self::new(Code::Offline, text, "try again when there is a signal")
            }
            OnlineError::NoCatalog => Self::new(Code::Offline, text, "`fieldkeep sync`"),
            OnlineError::Unknown { known, .. } => {
                let remedy = match known.is_empty() {
                    true => "there are none".to_owned(),
                    false => format!("there are {}", known.join(", ")),
                };
                Self::new(Code::Usage, text, remedy)
            }
            OnlineError::Misfit(_) | OnlineError::TooLong => {
                Self::new(Code::Held, text, "nothing was changed")
            }
            OnlineError::Refused { refusal, .. } => Self::refused(refusal, text),
            OnlineError::Unsettled | OnlineError::Timeout(_) => {
                Self::new(Code::Offline, text, "`fieldkeep sync`, then `fieldkeep calls`")
            }
            OnlineError::Forgotten | OnlineError::Lost => {
                Self::new(Code::Failure, text, "look at the records before it is called again")
            }
            OnlineError::Sync(error) => error.into(),
            OnlineError::Put(error) => error.into(),
        }
    }
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::NoField { .. } => {
                Self::new(Code::Usage, error.to_string(), NOTHING_ATTACHED)
            }
            AttachError::Unfit { .. }
            | AttachError::Full { .. }
            | AttachError::Place { .. }
            | AttachError::Name => Self::new(Code::Held, error.to_string(), NOTHING_ATTACHED),
            AttachError::Read { path, error } => Self::file(&path, &error),
            AttachError::Put(error) => error.into(),
            AttachError::Online(error) => error.into(),
            AttachError::Store(error) => error.into(),
        }
    }
}

const NOTHING_ATTACHED: &str = "nothing was attached, and nothing was changed";

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Absent(ref key) => {
                let remedy = format!("`fieldkeep attachments list {key}` lists what there is");
                Self::new(Code::NotFound, error.to_string(), remedy)
            }
            FetchError::Removed(_) => {
                let remedy =
                    "nothing referred to it any more: whoever has the file can attach it again";
                Self::new(Code::NotFound, error.to_string(), remedy)
            }
            FetchError::Refused(_) => {
                let remedy = "whoever attached it may not have sent it yet: try again later";
                Self::new(Code::NotFound, error.to_string(), remedy)
            }
            FetchError::Paused => {
                let remedy = "`fieldkeep attachments resume` goes on";
                Self::new(Code::Failure, error.to_string(), remedy)
            }
            FetchError::LeftOut(_) => {
                let remedy = "`fieldkeep resume TYPE` or `fieldkeep subscribe TYPE SCOPE` goes on";
                Self::new(Code::Failure, error.to_string(), remedy)
            }
            FetchError::Timeout(_) => {
                Self::new(Code::Offline, error.to_string(), "give it longer with --timeout")
            }
            FetchError::Sync(error) => error.into(),
            FetchError::Store(error) => error.into(),
        }
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::OutOfStep { .. } => {
                let remedy = "nothing of this was saved: wait for the other to end";
                Self::new(Code::Failure, error.to_string(), remedy)
            }
            ImportError::Put(error) => error.into(),
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::UnknownType { ref known, .. } => {
                let known: Vec<_> = known.iter().map(TypeName::as_str).collect();
                Self::new(Code::Usage, error.to_string(), format!("there are {}", known.join(", ")))
            }
            ControlError::Replica(error) => error.into(),
        }
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        match &error {
            SettingsError::Unclear { .. } => {
                Self::new(Code::Usage, error.to_string(), "mend the file: nothing was done")
            }
            SettingsError::Io { file, error } => Self::file(file, error),
        }
    }
}

impl From<SubscribeError> for Failure {
    fn from(error: SubscribeError) -> Self {
        let text = error.to_string();
        match error {
            SubscribeError::Control(error) => error.into(),
            SubscribeError::Unscoped(ty) => {
                Self::new(Code::Usage, text, format!("`fieldkeep pause {ty}` leaves all of it out"))
            }
            SubscribeError::NotGranted { .. } => {
                let remedy = "whoever runs the relay may: `fieldkeep relay grant`";
                Self::new(Code::Denied, text, remedy)
            }
            SubscribeError::Whole(ty) => {
                Self::new(Code::Usage, text, format!("`fieldkeep subscribe {ty}=SCOPE`"))
            }
            SubscribeError::Unsaved { .. } => {
                let remedy = "`fieldkeep sync` first: left out, they would never leave this device";
                Self::new(Code::Failure, text, remedy)
            }
            SubscribeError::Settings(error) => error.into(),
            SubscribeError::Replica(error) => error.into(),
        }
    }
}

impl From<ResyncError> for Failure {
    fn from(error: ResyncError) -> Self {
        match error {
            ResyncError::Control(error) => error.into(),
            ResyncError::Paused(ref ty) => {
                let remedy = format!("`fieldkeep resume {ty}` first");
                Self::new(Code::Failure, error.to_string(), remedy)
            }
            ResyncError::Sync(error) => error.into(),
            ResyncError::Copy(error) => error.into(),
        }
    }
}

impl From<RotateError> for Failure {
    fn from(error: RotateError) -> Self {
        let text = error.to_string();
        match error {
            RotateError::Create(_) => Self::new(Code::Failure, text, "nothing was changed"),
            RotateError::Open(error) => error.into(),
            RotateError::Sync(error) => error.into(),
            RotateError::Refused(_) => {
                let remedy = "nothing is lost: a relay admits new keys of a device once an hour; \
                              `fieldkeep sync` and try again then";
                Self::new(Code::Denied, text, remedy)
            }
            RotateError::Timeout(_) => {
                Self::new(Code::Offline, text, "nothing is lost: try again when there is a signal")
            }
            RotateError::Replica(error) => error.into(),
        }
    }
}

impl From<StrictError> for Failure {
    fn from(error: StrictError) -> Self {
        match error {
            StrictError::Held { .. } => {
                let remedy = "nothing was saved: put it right, or leave --strict out";
                Self::new(Code::Held, error.to_string(), remedy)
            }
            StrictError::Put(error) => error.into(),
        }
    }
}

impl From<AwaitError> for Failure {
    fn from(error: AwaitError) -> Self {
        match error {
            AwaitError::Timeout { ref key, waited } => Self::new(
                Code::Offline,
                format!("{key} did not come that far within {} s", waited.as_secs_f32()),
                "it is saved on this device, and goes on with the next sync",
            ),
            AwaitError::Store(error) => error.into(),
        }
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Absent(ref key) => Self::absent(key),
            ResolveError::NoSuchValue { ref key, .. } => {
                let remedy = format!("`fieldkeep conflicts {key}` lists what there is");
                Self::new(Code::NotFound, error.to_string(), remedy)
            }
            ResolveError::Value(error) => error.into(),
            ResolveError::Put(error) => error.into(),
        }
    }
}

impl From<HistoryError> for Failure {
    fn from(error: HistoryError) -> Self {
        let text = error.to_string();
        match error {
            HistoryError::NoSuchChange { key, .. } => Self::new(
                Code::NotFound,
                text,
                format!("`fieldkeep history {key}` lists what there is"),
            ),
            HistoryError::SeveralChanges { .. } => {
                Self::new(Code::Usage, text, "give more of its digits")
            }
            HistoryError::Replica(error) => error.into(),
        }
    }
}

impl From<RevertError> for Failure {
    fn from(error: RevertError) -> Self {
        let text = error.to_string();
        match error {
            RevertError::Absent(key) => Self::absent(key),
            RevertError::NotThere(key) => {
                let remedy =
                    format!("nothing was saved: `fieldkeep history {key}` lists its changes");
                Self::new(Code::NotFound, text, remedy)
            }
            RevertError::NoEntry { key, field } => {
                let set = field.split('[').next().unwrap_or_default();
                let remedy = format!(
                    "nothing was saved: `fieldkeep revert {key} {set}` takes all of them back"
                );
                Self::new(Code::Held, text, remedy)
            }
            RevertError::History(error) => error.into(),
            RevertError::Value(error) => error.into(),
            RevertError::Put(error) => error.into(),
        }
    }
}

impl From<ShareError> for Failure {
    fn from(error: ShareError) -> Self {
        let text = error.to_string();
        match error {
            ShareError::Absent(key) => Self::absent(key),
            ShareError::Undeclared(error) => error.into(),
            ShareError::Template { ty, .. } => {
                let remedy = format!(
                    "nothing was changed: whoever keeps the catalog mends `share` of `[type.{ty}]`, and \
                     `fieldkeep get` shows the record meanwhile"
                );
                Self::new(Code::Held, text, remedy)
            }
            ShareError::Store(error) => error.into(),
        }
    }
}
