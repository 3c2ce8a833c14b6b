//! A directory of a device or relay: its files, its one owner, and whether it is a copy.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::{Result, Settings as _, Store, StoreError};

/// An owned directory: nobody else owns it as long as this lives.
#[derive(Debug)]
pub struct Home {
    directory: PathBuf,
    lock: File,
}

/// Why a directory cannot be owned.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// It is not there, or not one of ours.
    #[error("{} is no Fieldkeep directory: `fieldkeep join` makes a device's, `fieldkeep relay init` a relay's", .0.display())]
    Absent(PathBuf),
    /// Something is in it already.
    #[error("{} is not empty: choose another directory", .0.display())]
    NotEmpty(PathBuf),
    /// Another process owns it.
    #[error("{} is in use by process {owner}", directory.display())]
    Owned {
        /// The directory.
        directory: PathBuf,
        /// The process id of the owner.
        owner: String,
    },
    /// The file system refuses.
    #[error("{}: {error}", directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// What it says.
        error: std::io::Error,
    },
}

impl Drop for Home {
    fn drop(&mut self) {
        // A process that is being started has a copy of the handle for a moment: closing this one would
        // leave the directory owned until then. If it fails, closing is what is left.
        let _ = self.lock.unlock();
    }
}

impl Home {
    /// Makes a directory that is not there yet, or is empty, and owns it. One that is made only its owner may
    /// look into: all records are there.
    ///
    /// # Errors
    /// When it is not empty, or cannot be made.
    pub fn create(directory: &Path) -> std::result::Result<Self, HomeError> {
        point();
        let io = |error| HomeError::Io { directory: directory.to_owned(), error };
        fs::create_dir_all(directory.parent().unwrap_or(directory)).map_err(io)?;
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.map_err(io)?,
        }
        if fs::read_dir(directory).map_err(io)?.next().is_some() {
            return Err(HomeError::NotEmpty(directory.to_owned()));
        }
        Self::own(directory)
    }

    /// Owns a directory that [`Home::create`] made.
    ///
    /// # Errors
    /// When it is none, or another process owns it.
    pub fn open(directory: &Path) -> std::result::Result<Self, HomeError> {
        if !database(directory).is_file() {
            return Err(HomeError::Absent(directory.to_owned()));
        }
        Self::own(directory)
    }

    fn own(directory: &Path) -> std::result::Result<Self, HomeError> {
        let io = |error| HomeError::Io { directory: directory.to_owned(), error };
        let path = directory.join("lock");
        let options =
            || File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut lock = options().map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = lock.read_to_string(&mut owner);
                let owner = owner.trim().to_owned();
                return Err(HomeError::Owned { directory: directory.to_owned(), owner });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        lock.set_len(0).map_err(io)?;
        writeln!(lock, "{}", std::process::id()).map_err(io)?;
        let directory = directory.canonicalize().map_err(io)?;
        Ok(Self { directory, lock })
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Opens the database.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn store(&self) -> Result<Store> {
        Store::open(&database(&self.directory))
    }

    /// Whether the database is not the file that was written here last: a copy, or a backup that
    /// was put back. Before anything is written then, a new incarnation is needed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_copy(&self, store: &Store) -> Result<bool> {
        let recorded = store.setting("identity")?;
        Ok(recorded.is_some_and(|recorded| Some(recorded) != self.identity()))
    }

    /// Draws the file a new identity, in the store and in the user's state directory. A crash
    /// between the two costs an incarnation and nothing else.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn renew_identity(&self, store: &mut Store, token: [u8; 16]) -> Result<()> {
        if let Some(path) = self.token_path() {
            point();
            // Without a state directory device and inode have to do.
            let _ = path.parent().map(fs::create_dir_all);
            let _ = fs::write(&path, token);
        }
        match self.identity() {
            Some(identity) => store.set("identity", &identity),
            None => Err(StoreError::ReadOnly),
        }
    }

    /// Device, inode and token.
    fn identity(&self) -> Option<Vec<u8>> {
        let file = fs::metadata(database(&self.directory)).ok()?;
        let mut identity = [file.dev().to_be_bytes(), file.ino().to_be_bytes()].concat();
        let token = self.token_path().and_then(|path| fs::read(path).ok());
        identity.extend(token.unwrap_or_default());
        Some(identity)
    }

    fn token_path(&self) -> Option<PathBuf> {
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(|| {
            std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"))
        })?;
        let name = blake3::hash(self.directory.as_os_str().as_encoded_bytes()).to_hex();
        Some(state.join("fieldkeep").join(name.as_str()))
    }
}

/// Removes a directory of ours that nobody owns, with all that is in it.
///
/// # Errors
/// When the file system refuses.
pub fn remove(directory: &Path) -> std::result::Result<(), HomeError> {
    let io = |error| HomeError::Io { directory: directory.to_owned(), error };
    point();
    fs::remove_dir_all(directory).map_err(io)
}

/// Before an operation on a file: see `failpoint`.
pub(crate) fn point() {
    #[cfg(feature = "failpoints")]
    crate::failpoint::pass();
}

/// The database of a directory.
#[must_use]
pub fn database(directory: &Path) -> PathBuf {
    directory.join("fieldkeep.db")
}

/// The socket through which the owner of a directory takes commands.
#[must_use]
pub fn socket(directory: &Path) -> PathBuf {
    directory.join("owner.sock")
}

/// The key file that takes the place of a directory's, once its keys are in force.
#[must_use]
pub fn next_key(directory: &Path) -> PathBuf {
    directory.join("key.next")
}

/// The key file of a directory.
#[must_use]
pub fn key(directory: &Path) -> PathBuf {
    directory.join("key")
}
