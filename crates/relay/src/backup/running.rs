//! Backups of a relay that serves, for whoever looks after it in this process: one is started, watched, and
//! what came of it is told.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fieldkeep_store::{Reader, StoreError, home};

use super::{BackupError, LastBackup, Progress, Stage, Taken, Thorough, take_backup};
use crate::server::Handle;

/// The backups of a relay that serves.
#[derive(Clone, Debug)]
pub struct Backups {
    directory: PathBuf,
    engine: Handle,
    runtime: tokio::runtime::Handle,
    state: Arc<Mutex<BackupState>>,
}

/// What is known of the backup that was started last.
#[derive(Clone, Debug, Default)]
pub enum BackupState {
    /// None was, since the process began.
    #[default]
    Idle,
    /// It is being made.
    UnderWay {
        /// Where.
        folder: PathBuf,
        /// How far it is.
        progress: Progress,
    },
    /// It was made.
    Taken(Box<Taken>),
    /// It was not, and why: the one before is as good as it was.
    Failed {
        /// Where.
        folder: PathBuf,
        /// Why.
        why: String,
    },
}

impl Backups {
    pub(crate) fn new(directory: &Path, engine: Handle, runtime: tokio::runtime::Handle) -> Self {
        Self { directory: directory.to_owned(), engine, runtime, state: Arc::default() }
    }

    /// Starts one, on a thread of its own; returns at once.
    ///
    /// # Errors
    /// [`BackupError::UnderWay`] when one is being made. Whatever else goes wrong, [`Backups::state`]
    /// tells.
    pub fn start(&self, folder: &Path, thorough: Thorough) -> Result<(), BackupError> {
        self.begin(folder)?;
        let (backups, to) = (self.clone(), folder.to_owned());
        let run = move || drop(backups.end(&to, thorough));
        let spawned = std::thread::Builder::new().name("relay-backup".into()).spawn(run);
        if let Err(error) = spawned {
            let why = error.to_string();
            *self.lock() = BackupState::Failed { folder: folder.to_owned(), why: why.clone() };
            return Err(StoreError::Disk(why).into());
        }
        Ok(())
    }

    /// Makes one, and returns when that has ended: on a thread that may wait. [`Backups::state`] tells
    /// others how far it is.
    ///
    /// # Errors
    /// See [`BackupError`]: whatever it is, the backup before is whole.
    pub fn make(&self, folder: &Path, thorough: Thorough) -> Result<Taken, BackupError> {
        self.begin(folder)?;
        self.end(folder, thorough)
    }

    /// From now on one is under way.
    fn begin(&self, folder: &Path) -> Result<(), BackupError> {
        let progress = Progress { stage: Stage::Moment, done: 0, total: 0 };
        let mut state = self.lock();
        if matches!(*state, BackupState::UnderWay { .. }) {
            return Err(BackupError::UnderWay);
        }
        *state = BackupState::UnderWay { folder: folder.to_owned(), progress };
        Ok(())
    }

    /// Makes the one that was begun.
    fn end(&self, folder: &Path, thorough: Thorough) -> Result<Taken, BackupError> {
        let made = self.run(folder, thorough);
        *self.lock() = match &made {
            Ok(taken) => BackupState::Taken(Box::new(taken.clone())),
            Err(error) => {
                tracing::error!(%error, folder = %folder.display(), "no backup was made");
                BackupState::Failed { folder: folder.to_owned(), why: error.to_string() }
            }
        };
        made
    }

    fn run(&self, folder: &Path, thorough: Thorough) -> Result<Taken, BackupError> {
        let taken = take_backup(&self.directory, folder, thorough, &mut |now| {
            if let BackupState::UnderWay { progress, .. } = &mut *self.lock() {
                *progress = now;
            }
        })?;
        let last = LastBackup::of(&taken);
        let noted =
            self.runtime.block_on(self.engine.call(move |engine| engine.note_backup(&last)));
        match noted {
            Some(noted) => noted?,
            // A relay that stops has no more to note; the backup is good.
            None => tracing::warn!("the relay stops before it has noted its backup"),
        }
        Ok(taken)
    }

    /// What is known of the one that was started last.
    #[must_use]
    pub fn state(&self) -> BackupState {
        self.lock().clone()
    }

    /// The newest good backup, whoever made it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn last(&self) -> Result<Option<LastBackup>, StoreError> {
        LastBackup::read(&Reader::open(&home::database(&self.directory))?)
    }

    fn lock(&self) -> MutexGuard<'_, BackupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
