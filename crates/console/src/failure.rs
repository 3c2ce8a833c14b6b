//! What goes wrong, as it is told: a kind with an exit code, what happened, and what to do.

use std::path::Path;

use fieldkeep_catalog::ValueError;
use fieldkeep_device::{
    AttachError, AwaitError, BundleError, ControlError, FetchError, HistoryError, ImportError,
    JoinError, MeetError, OnlineError, OpenError, PutError, ReadError, ResolveError, ResyncError,
    RevertError, RotateError, SettingsError, ShareError, StrictError, SubscribeError, SyncError,
    Unfit,
};
use fieldkeep_link::OpenKeyError;
use fieldkeep_model::{Refusal, TypeName};
use fieldkeep_relay::archive::ArchiveError;
use fieldkeep_relay::{
    ArriveError, BackupError, ConfigError, DirectoryError, InitError, RestoreError, ServeError,
};
use fieldkeep_replica::{ReplicaError, ReshapeError, RollBackError};
use fieldkeep_store::backup::FolderError;
use fieldkeep_store::{HomeError, StoreError};
use serde::{Deserialize, Serialize};

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Anything else.
    Failure,
    /// The command was not understood.
    Usage,
    /// The record or directory is not there.
    NotFound,
    /// The record is held, or what was given is invalid.
    Held,
    /// It needs a connection.
    Offline,
    /// The relay or the file system says no.
    Denied,
    /// What is stored is not what was written.
    Integrity,
    /// Another process owns the directory.
    Locked,
    /// Ctrl-C, or SIGTERM.
    Interrupted,
}

impl Code {
    /// The exit code.
    pub fn number(self) -> u8 {
        match self {
            Self::Failure => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Held => 4,
            Self::Offline => 5,
            Self::Denied => 6,
            Self::Integrity => 7,
            Self::Locked => 8,
            Self::Interrupted => 130,
        }
    }
}

/// A failure as it is told, and as it travels from the owner of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Its kind.
    pub code: Code,
    /// What happened.
    pub message: String,
    /// What to do; empty where the message says it.
    pub remedy: String,
}

impl Failure {
    /// A failure of that kind, what happened, and what to do.
    pub fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: remedy.into() }
    }

    /// A file that cannot be read or written.
    pub fn file(path: &Path, error: &std::io::Error) -> Self {
        let mut code = Code::Failure;
        if error.kind() == std::io::ErrorKind::NotFound {
            code = Code::NotFound;
        } else if error.kind() == std::io::ErrorKind::PermissionDenied {
            code = Code::Denied;
        }
        Self::new(code, format!("{}: {error}", path.display()), "check the path")
    }

    /// A record that is not there.
    pub fn absent(record: impl std::fmt::Display) -> Self {
        let remedy =
            "`fieldkeep list TYPE` shows what there is; `fieldkeep sync` fetches what is new";
        Self::new(Code::NotFound, format!("there is no record {record}"), remedy)
    }

    /// The values of a field that somebody chose from have changed meanwhile.
    #[must_use]
    pub fn others_by_now(field: &str) -> Self {
        let text = format!("the values of {field} are others by now");
        Self::new(Code::Held, text, "nothing was saved: look at them again, and choose")
    }

    /// An answer to another question: the owner is another version.
    pub fn unexpected() -> Self {
        let message = "the owner of the directory answered something else";
        Self::new(Code::Failure, message, "it may be another version: stop it, and start this one")
    }

    /// What the relay refused to do: nothing was changed.
    fn refused(refusal: Refusal, reason: String) -> Self {
        let (code, remedy) = match refusal {
            Refusal::Unknown => (Code::Usage, "`fieldkeep sync` fetches the catalog in force"),
            Refusal::Denied => (Code::Denied, "nothing was changed: the catalog says who may"),
            Refusal::Input | Refusal::Unmet => (Code::Held, "nothing was changed"),
            Refusal::Absent => (Code::NotFound, "nothing was changed"),
            Refusal::Changed => {
                (Code::Held, "nothing was changed: look at it as it is now, and try again")
            }
            Refusal::Withdrawn => (Code::Offline, "nothing was changed: try again"),
            Refusal::Host => (Code::Failure, "whoever runs the relay can look at its log"),
            Refusal::Busy => (Code::Failure, "nothing was changed: try again later"),
            Refusal::Bounds => (Code::Failure, "narrow the question down"),
        };
        Self::new(code, reason, remedy)
    }

    fn plain(code: Code, error: &dyn std::fmt::Display) -> Self {
        Self::new(code, error.to_string(), "")
    }
}

/// Why a command ended: it failed, or its output went nowhere.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] std::io::Error),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        match error {
            StoreError::Full => Self::new(
                Code::Failure,
                "the disk is full: nothing of this was saved, nothing saved before is lost",
                "free some space, and try again",
            ),
            StoreError::ReadOnly => {
                let remedy = "check the permissions of its folder: nothing was changed";
                Self::new(Code::Denied, "the store cannot be written", remedy)
            }
            StoreError::Disk(_) => {
                Self::new(Code::Failure, text, "`fieldkeep doctor` says what is sound")
            }
            StoreError::TooNew => Self::new(Code::Failure, text, "nothing was changed"),
            StoreError::Foreign => {
                Self::new(Code::Integrity, text, "give the directory of a device or a relay")
            }
            StoreError::Damaged(_) => {
                let remedy = "`fieldkeep doctor` says what is sound; what the relay has comes back";
                Self::new(Code::Integrity, text, remedy)
            }
            StoreError::Sqlite(_) => {
                Self::new(Code::Failure, text, "nothing of this was saved: try again")
            }
        }
    }
}

impl From<ReplicaError> for Failure {
    fn from(error: ReplicaError) -> Self {
        match error {
            ReplicaError::Store(error) => error.into(),
            ReplicaError::Membership(_) | ReplicaError::Damaged(..) => {
                let remedy = "`fieldkeep doctor` says what is sound; what the relay has comes back";
                Self::new(Code::Integrity, error.to_string(), remedy)
            }
            ReplicaError::Catalog(_) => Self::plain(Code::Held, &error),
            ReplicaError::Frozen(_) => {
                let remedy = "nothing was published: put back what it names, and declare what must \
                              be otherwise beside it, under another name";
                Self::new(Code::Held, error.to_string(), remedy)
            }
            ReplicaError::CatalogUnsigned => Self::plain(Code::Denied, &error),
        }
    }
}

impl From<RollBackError> for Failure {
    fn from(error: RollBackError) -> Self {
        let remedy = match error {
            RollBackError::Replica(error) => return error.into(),
            RollBackError::Unknown(_) => {
                "nothing was published: `fieldkeep relay catalog list` shows which are"
            }
            RollBackError::Nothing => "nothing was published",
        };
        Self::new(Code::NotFound, error.to_string(), remedy)
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Io(error) => Self::file(std::path::Path::new("the archive"), &error),
            ArchiveError::Damaged(_) => {
                let remedy = "nothing was taken out of a relay by it: another copy may be whole";
                Self::new(Code::Integrity, error.to_string(), remedy)
            }
        }
    }
}

impl From<ReshapeError> for Failure {
    fn from(error: ReshapeError) -> Self {
        let (code, remedy) = match error {
            ReshapeError::Replica(error) => return error.into(),
            ReshapeError::NoCatalog => (Code::NotFound, "`fieldkeep relay publish` publishes one"),
            ReshapeError::UnknownType(_) => {
                (Code::NotFound, "`fieldkeep relay catalog show` prints what it has")
            }
            ReshapeError::UnderWay(_) => (
                Code::Failure,
                "wait until it is done, or give it up: `fieldkeep relay reshape TYPE --give-up`",
            ),
            ReshapeError::Nothing => (Code::NotFound, "nothing was changed"),
            ReshapeError::Damaged(_) => {
                (Code::Integrity, "`fieldkeep relay doctor --repair`, and try again")
            }
            ReshapeError::Catalog(_) => (Code::Held, "nothing was changed"),
        };
        Self::new(code, error.to_string(), remedy)
    }
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        match &error {
            HomeError::Absent(path) => Self::new(
                Code::NotFound,
                format!("{} is no Fieldkeep directory", path.display()),
                "`fieldkeep join` makes a device's, `fieldkeep relay init` a relay's",
            ),
            HomeError::NotEmpty(path) => Self::new(
                Code::Failure,
                format!("{} is not empty", path.display()),
                "choose another directory",
            ),
            HomeError::Owned { .. } => {
                let remedy = "wait for it to end, or stop it";
                Self::new(Code::Locked, error.to_string(), remedy)
            }
            HomeError::Io { directory, error } => Self::file(directory, error),
        }
    }
}

impl From<OpenKeyError> for Failure {
    fn from(error: OpenKeyError) -> Self {
        Self::new(Code::Denied, error.to_string(), "nothing was changed")
    }
}

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

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Home(error) => error.into(),
            DirectoryError::Key(error) => error.into(),
            DirectoryError::NotARelay(_) => Self::plain(Code::Usage, &error),
            DirectoryError::Replica(error) => error.into(),
            DirectoryError::Entropy => Self::plain(Code::Failure, &error),
        }
    }
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        match error {
            InitError::Home(error) => error.into(),
            InitError::Key(_) => Self::plain(Code::Failure, &error),
            InitError::Catalog(_) => Self::plain(Code::Held, &error),
            InitError::Replica(error) => error.into(),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Io { file, error } => Self::file(&file, &error),
            ConfigError::Unclear { .. } => {
                Self::new(Code::Usage, error.to_string(), "mend the file: nothing was done")
            }
        }
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        const KEPT: &str = "the backup before is as good as it was";
        let message = error.to_string();
        match error {
            BackupError::NotARelay(_) => {
                Self::new(Code::NotFound, message, "name a relay's directory")
            }
            BackupError::Version => {
                let remedy =
                    "take the backup with that version, or serve the relay with this one first";
                Self::new(Code::Failure, message, remedy)
            }
            BackupError::Within(_) | BackupError::Another { .. } => {
                Self::new(Code::Usage, message, "nothing was written: name another folder")
            }
            BackupError::UnderWay => Self::new(Code::Failure, message, "wait for it to end"),
            BackupError::Folder(error) => Self { remedy: folder_remedy(&error), ..error.into() },
            BackupError::Key(error) => error.into(),
            BackupError::Members(_) => Self::new(Code::Integrity, message, KEPT),
            BackupError::ReadBack(_) => {
                Self::new(Code::Integrity, message, format!("{KEPT}: take another disk"))
            }
            BackupError::Unsound(_) => {
                let remedy = format!("{KEPT}; `fieldkeep relay doctor` tells what to do");
                Self::new(Code::Integrity, message, remedy)
            }
            BackupError::Store(error) => {
                Self { remedy: format!("no backup was made; {KEPT}"), ..error.into() }
            }
        }
    }
}

fn folder_remedy(error: &FolderError) -> String {
    let remedy = match error {
        FolderError::Absent(_) => "name a folder that `fieldkeep relay backup` has written to",
        FolderError::Foreign(_) => "name an empty folder, or one of backups",
        FolderError::Busy(_) => "wait for it to end",
        FolderError::Store(StoreError::Disk(_)) => {
            "name a folder that can be made, and that is open to whoever works in it; the backup before \
             is as good as it was"
        }
        FolderError::Store(_) => "the backup before is as good as it was",
    };
    remedy.to_owned()
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::Absent(_) => Self::plain(Code::NotFound, &error),
            FolderError::Foreign(_) => Self::plain(Code::Usage, &error),
            FolderError::Busy(_) => Self::plain(Code::Locked, &error),
            // It is not the store's own disk that failed.
            FolderError::Store(StoreError::Disk(why)) => {
                Self::new(Code::Failure, format!("the folder cannot be worked in: {why}"), "")
            }
            FolderError::Store(error) => error.into(),
        }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let message = error.to_string();
        match error {
            RestoreError::Folder(error) => Self { remedy: folder_remedy(&error), ..error.into() },
            RestoreError::Nothing(_) => {
                let remedy = "nothing was done: one that was not ended counts as none";
                Self::new(Code::NotFound, message, remedy)
            }
            RestoreError::Unsound { .. } => {
                let remedy = "nothing was put in place: `--earlier` takes the one before";
                Self::new(Code::Integrity, message, remedy)
            }
            RestoreError::Occupied(_) => {
                let remedy = "nothing was done: `--move-aside` gives what is there another name, and keeps it";
                Self::new(Code::Usage, message, remedy)
            }
            RestoreError::Home(error) => error.into(),
            RestoreError::Key(error) => error.into(),
            RestoreError::Directory(error) => error.into(),
            RestoreError::Store(error) => {
                Self { remedy: "the backup is as good as it was".to_owned(), ..error.into() }
            }
        }
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Bind(_) => Self::plain(Code::Failure, &error),
            ServeError::Config(error) => error.into(),
            ServeError::Replica(error) => error.into(),
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
                Self::new(Code::Denied, text, "nothing is lost: `fieldkeep sync`, then try again")
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

impl From<ArriveError> for Failure {
    fn from(error: ArriveError) -> Self {
        match error {
            ArriveError::Read(error) => error.into(),
            ArriveError::Store(error) => error.into(),
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
                Self::new(Code::Denied, error.to_string(), "ask whoever runs the relay")
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
