//! What goes wrong, as it is told: a kind with an exit code, what happened, and what to do.

use std::path::Path;

use fieldkeep_catalog::ValueError;
use fieldkeep_device::{JoinError, MeetError, OpenError, PutError, SyncError};
use fieldkeep_link::OpenKeyError;
use fieldkeep_relay::{DirectoryError, InitError, ServeError};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{HomeError, StoreError};
use serde::{Deserialize, Serialize};

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Code {
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
    pub(crate) fn number(self) -> u8 {
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
pub(crate) struct Failure {
    /// Its kind.
    pub(crate) code: Code,
    /// What happened.
    pub(crate) message: String,
    /// What to do; empty where the message says it.
    pub(crate) remedy: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: remedy.into() }
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        let mut code = Code::Failure;
        if error.kind() == std::io::ErrorKind::NotFound {
            code = Code::NotFound;
        } else if error.kind() == std::io::ErrorKind::PermissionDenied {
            code = Code::Denied;
        }
        Self::new(code, format!("{}: {error}", path.display()), "check the path")
    }

    /// A record that is not there.
    pub(crate) fn absent(record: impl std::fmt::Display) -> Self {
        let remedy =
            "`fieldkeep list TYPE` shows what there is; `fieldkeep sync` fetches what is new";
        Self::new(Code::NotFound, format!("there is no record {record}"), remedy)
    }

    /// An answer to another question: the owner is another version.
    pub(crate) fn unexpected() -> Self {
        let message = "the owner of the directory answered something else";
        Self::new(Code::Failure, message, "it may be another version: stop it, and start this one")
    }

    fn plain(code: Code, error: &dyn std::fmt::Display) -> Self {
        Self::new(code, error.to_string(), "")
    }
}

/// Why a command ended: it failed, or its output went nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// It failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] std::io::Error),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let damaged = matches!(error, StoreError::Damaged(_) | StoreError::Foreign);
        Self::plain(if damaged { Code::Integrity } else { Code::Failure }, &error)
    }
}

impl From<ReplicaError> for Failure {
    fn from(error: ReplicaError) -> Self {
        match error {
            ReplicaError::Store(error) => error.into(),
            ReplicaError::Membership(_) | ReplicaError::Damaged(..) => {
                Self::plain(Code::Integrity, &error)
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

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        match &error {
            HomeError::Absent(_) => Self::plain(Code::NotFound, &error),
            HomeError::NotEmpty(_) => Self::plain(Code::Failure, &error),
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
        Self::plain(Code::Denied, &error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Home(error) => error.into(),
            OpenError::Key(error) => error.into(),
            OpenError::NotADevice(_) => Self::plain(Code::Usage, &error),
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

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Bind(_) => Self::plain(Code::Failure, &error),
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
            PutError::NoCatalog => Self::plain(Code::Offline, &error),
            PutError::UnknownType { .. } => Self::plain(Code::Usage, &error),
            PutError::Absent(key) => Self::absent(key),
            PutError::Deleted(_)
            | PutError::ScopeChange { .. }
            | PutError::Write(_)
            | PutError::Refused(_) => Self::new(Code::Held, error.to_string(), "nothing was saved"),
            PutError::Replica(error) => error.into(),
        }
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Home(error) => error.into(),
            JoinError::Key(_) => Self::plain(Code::Failure, &error),
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
            JoinError::Bind(_) => Self::plain(Code::Offline, &error),
        }
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
            MeetError::Bind(_) => Self::plain(Code::Usage, &error),
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
            SyncError::Bind(_) => Self::plain(Code::Offline, &error),
            SyncError::Replica(error) => error.into(),
        }
    }
}
