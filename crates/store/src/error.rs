//! What can go wrong with the disk, and what to do.

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space is left. Nothing of the transaction was saved; what was saved before is untouched.
    #[error(
        "the disk is full: nothing of this was saved, nothing saved before is lost; free some space and try again"
    )]
    Full,
    /// The file or its folder cannot be written.
    #[error("the store cannot be written: check the permissions of its folder")]
    ReadOnly,
    /// The disk failed; the file has to be opened again, and is verified then.
    #[error(
        "the disk failed ({0}): what was saved before is on it as far as it can be read; start again to verify it"
    )]
    Disk(String),
    /// The file was written by a later version.
    #[error("the store was written by a newer version of this software: update it")]
    TooNew,
    /// The file is something else.
    #[error("the file is not a Fieldkeep store")]
    Foreign,
    /// A row does not hold what it must.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// A statement failed: a fault of ours.
    #[error("the store failed: {0}")]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly,
            Some(ErrorCode::NotADatabase) => Self::Foreign,
            Some(ErrorCode::SystemIoFailure) => Self::Disk(error.to_string()),
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged(error.to_string()),
            _ => Self::Sqlite(error),
        }
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{
            PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        };
        if [StorageFull, QuotaExceeded].contains(&error.kind()) {
            Self::Full
        } else if [PermissionDenied, ReadOnlyFilesystem].contains(&error.kind()) {
            Self::ReadOnly
        } else {
            Self::Disk(error.to_string())
        }
    }
}

/// A row that does not decode.
pub(crate) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}
