//! What goes wrong on a relay: at its directory, its catalog, its backups.

use fieldkeep_model::RecordKey;
use fieldkeep_relay::archive::ArchiveError;
use fieldkeep_relay::{
    ArriveError, BackupError, ConfigError, DirectoryError, InitError, RestoreError, ServeError,
    Standing,
};
use fieldkeep_replica::{ReshapeError, RollBackError};
use fieldkeep_store::StoreError;
use fieldkeep_store::backup::FolderError;

use super::{Code, Failure};

impl Failure {
    /// A record that a relay does not have.
    #[must_use]
    pub fn unheld(record: &RecordKey) -> Self {
        let remedy = "`fieldkeep relay quarantine list` shows what is held";
        Self::new(Code::NotFound, format!("there is no record {record}"), remedy)
    }

    /// Nothing if a text is no longer than so many characters.
    ///
    /// # Errors
    /// How long it is, and may be.
    pub fn unless_short(what: &str, text: &str, most: usize) -> Result<(), Self> {
        let length = text.chars().count();
        if length <= most {
            return Ok(());
        }
        let message = format!("{what} has {length} characters, and may have {most}");
        Err(Self::new(Code::Usage, message, "nothing was changed: make it shorter"))
    }

    /// Nothing if something was decided about a record.
    ///
    /// # Errors
    /// Why there was nothing to decide.
    pub fn unless_decided(record: &RecordKey, standing: Standing) -> Result<(), Self> {
        match standing {
            Standing::Decided => Ok(()),
            Standing::Absent => Err(Self::unheld(record)),
            Standing::Valid => {
                let message = format!("{record} is valid: there is nothing to decide");
                let remedy =
                    "nothing was changed: `fieldkeep relay quarantine list` shows what is held";
                Err(Self::new(Code::Usage, message, remedy))
            }
        }
    }
}

impl From<RollBackError> for Failure {
    fn from(error: RollBackError) -> Self {
        let remedy = match error {
            RollBackError::Replica(error) => return error.into(),
            RollBackError::Unknown(_) => {
                "nothing was changed: `fieldkeep relay catalog list` shows which are"
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
            ReshapeError::NoCatalog => {
                (Code::NotFound, "`fieldkeep relay catalog publish FILE` publishes one")
            }
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

impl From<ArriveError> for Failure {
    fn from(error: ArriveError) -> Self {
        match error {
            ArriveError::Read(error) => error.into(),
            ArriveError::Store(error) => error.into(),
        }
    }
}
