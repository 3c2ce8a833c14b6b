//! Backups of a relay's directory: taken beside whoever serves it, read back before they count, and put in
//! place again in a new epoch.
//!
//! In a backup are the database as it stood at one moment, the relay's key, `relay.toml`, and the attached
//! files. The admin key is not: who finds a backup can pose as the relay, and can enrol nobody. Certificates
//! that `relay.toml` names are not in it either.

mod checking;
mod noted;
mod restoring;
mod running;
mod taking;

pub use checking::Flaw;
pub use noted::LastBackup;
pub use restoring::{Occupied, PutBack, RestoreError, Which, restore_backup};
pub use running::{BackupState, Backups};
pub use taking::{BackupError, Taken, Thorough, take_backup};

/// How far a backup, or a restore, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// How much of it is done: bytes, or changes while they are checked.
    pub done: u64,
    /// Of how much.
    pub total: u64,
}

/// What is being done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The moment is taken: the database is copied as it stands.
    Moment,
    /// What differs is written.
    Writing,
    /// It is read back.
    ReadingBack,
    /// Attached files are copied.
    Files,
    /// Changes and records are checked.
    Checking,
}

impl Stage {
    /// The same in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Moment => "copying the database as it stands",
            Self::Writing => "writing what differs",
            Self::ReadingBack => "reading it back",
            Self::Files => "attached files",
            Self::Checking => "checking changes and records",
        }
    }
}

/// Who hears how far it is.
pub(crate) type Told<'t> = &'t mut dyn FnMut(Progress);

/// The files of a relay's directory that are in a backup beside the database, as far as they are there.
pub(crate) const FILES: [&str; 3] = ["key", "key.next", crate::config::FILE];
