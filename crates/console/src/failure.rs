//! What goes wrong, as it is told: a kind with an exit code, what happened, and what to do.

mod device;
mod exchange;
mod relay;

use std::path::Path;

use fieldkeep_link::OpenKeyError;
use fieldkeep_model::Refusal;
use fieldkeep_replica::ReplicaError;
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
        let (mut code, mut remedy) = (Code::Failure, "check the path");
        if error.kind() == std::io::ErrorKind::NotFound {
            code = Code::NotFound;
        } else if error.kind() == std::io::ErrorKind::PermissionDenied {
            code = Code::Denied;
            remedy =
                "it is opened by the process that has the directory: let that one's user have it";
        }
        Self::new(code, format!("{}: {error}", path.display()), remedy)
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
