//! A folder of backups: two copies of a store's database, `a` and `b`, and the attached files of both.
//!
//! A copy counts as a backup once its manifest is on the disk, which is written last and taken away first.
//! A backup is made in the place of the older of the two, so that the newer one stays whole whenever that
//! ends: at a power cut, a full disk, a process that is killed. Nothing here knows what a store means:
//! whoever makes a backup reads the copy back before the manifest is written.

mod laying;
mod manifest;
mod moment;

use std::fmt;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use fieldkeep_model::BlobHash;

pub use laying::{Laid, hashed, lay, sync_folder, write};
pub use manifest::{Attached, Manifest, Part};
pub use moment::Moment;

use crate::files::{disk, remove_file};
use crate::home::{self, point};
use crate::{BlobFiles, Blobs as _, Reader, Result, StoreError};

/// The file by which a folder of backups is known, and which whoever works in it has locked.
const LOCK: &str = "backup.lock";
/// The manifest of a copy.
const MANIFEST: &str = "manifest";
/// Files to be removed are looked for so many at a time.
const SWEPT: usize = 1_024;

/// One of the two places for a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    const BOTH: [Self; 2] = [Self::A, Self::B];

    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

/// Why a folder of backups cannot be worked in.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// There is no such folder, or it has none of our backups.
    #[error("{} is no folder of backups", .0.display())]
    Absent(PathBuf),
    /// Something else is in it.
    #[error("{} is not empty, and no folder of backups: nothing was written", .0.display())]
    Foreign(PathBuf),
    /// Another process works in it.
    #[error("another backup or restore works in {}: nothing was done", .0.display())]
    Busy(PathBuf),
    /// The disk refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A folder of backups; as long as this lives nobody else writes in it.
#[derive(Debug)]
pub struct BackupFolder {
    folder: PathBuf,
    /// Nothing of a folder that cannot be written to anyway.
    _lock: Option<File>,
}

impl BackupFolder {
    /// A folder to make a backup in, made if it is not there.
    ///
    /// # Errors
    /// When something else is in it, or it cannot be made.
    pub fn create(folder: &Path) -> std::result::Result<Self, FolderError> {
        point();
        DirBuilder::new().mode(0o700).recursive(true).create(folder).map_err(disk)?;
        let lock = folder.join(LOCK);
        if !lock.exists() {
            for entry in fs::read_dir(folder).map_err(disk)? {
                // The root of a file system of its own.
                if entry.map_err(disk)?.file_name() != "lost+found" {
                    return Err(FolderError::Foreign(folder.to_owned()));
                }
            }
        }
        let options = || File::options().write(true).create(true).truncate(false).open(&lock);
        let file = options().map_err(disk)?;
        locked(file.try_lock(), folder)?;
        Ok(Self { folder: folder.canonicalize().map_err(disk)?, _lock: Some(file) })
    }

    /// A folder to read backups from. It may lie on a medium that nobody writes to.
    ///
    /// # Errors
    /// When it is none, or a backup is being made in it.
    pub fn open(folder: &Path) -> std::result::Result<Self, FolderError> {
        let has = |slot: &Slot| folder.join(slot.to_string()).is_dir();
        if !Slot::BOTH.iter().any(has) {
            return Err(FolderError::Absent(folder.to_owned()));
        }
        let lock = File::open(folder.join(LOCK)).ok();
        if let Some(lock) = &lock {
            locked(lock.try_lock_shared(), folder)?;
        }
        Ok(Self { folder: folder.canonicalize().map_err(disk)?, _lock: lock })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The backups that are whole as far as their manifests go, the newest first. A copy without a
    /// manifest was not ended, and one whose manifest is not what was written is none.
    #[must_use]
    pub fn backups(&self) -> Vec<(Slot, Manifest)> {
        let found = Slot::BOTH.into_iter().filter_map(|slot| {
            let bytes = fs::read(self.directory(slot).join(MANIFEST)).ok()?;
            Some((slot, Manifest::read(&bytes)?))
        });
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|(_, manifest)| std::cmp::Reverse(manifest.number));
        found
    }

    /// Makes room for the next backup, in the place of the older one: from now on that counts as none.
    /// Returns where it is to be made, and its number.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin(&self) -> Result<(Slot, u64)> {
        let newest = self.backups().into_iter().next();
        let slot = newest.as_ref().map_or(Slot::A, |(slot, _)| slot.other());
        let directory = self.directory(slot);
        point();
        DirBuilder::new().mode(0o700).recursive(true).create(&directory).map_err(disk)?;
        remove_file(&directory.join(MANIFEST))?;
        sync_folder(&directory)?;
        sync_folder(&self.folder)?;
        Ok((slot, newest.map_or(1, |(_, manifest)| manifest.number + 1)))
    }

    /// The files of a copy.
    #[must_use]
    pub fn directory(&self, slot: Slot) -> PathBuf {
        self.folder.join(slot.to_string())
    }

    /// The database of a copy, for reading.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn reader(&self, slot: Slot) -> Result<Reader> {
        Reader::open_copy(&home::database(&self.directory(slot)))
    }

    /// The attached files of all copies.
    #[must_use]
    pub fn files(&self) -> BlobFiles {
        BlobFiles::of(&self.folder)
    }

    /// Ends a backup: everything in it is on the disk and was read back.
    ///
    /// # Errors
    /// When the disk refuses: then there is no such backup.
    pub fn finish(&self, slot: Slot, manifest: &Manifest) -> Result<()> {
        let directory = self.directory(slot);
        sync_folder(&directory)?;
        write(&directory.join(MANIFEST), &manifest.to_bytes())
    }

    /// Removes attached files that neither backup knows; returns how many.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sweep(&self) -> Result<u64> {
        let whole = self.backups().into_iter().map(|(slot, _)| self.reader(slot));
        let copies: Vec<Reader> = whole.collect::<Result<_>>()?;
        let known = |hash: &BlobHash| -> Result<bool> {
            for copy in &copies {
                if copy.has_blob(hash)? {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        let (files, mut gone, mut swept) = (self.files(), Vec::new(), 0);
        for (hash, _) in files.all()? {
            if !known(&hash)? {
                gone.push(hash);
            }
            if gone.len() == SWEPT {
                files.remove_whole(&gone)?;
                swept += std::mem::take(&mut gone).len() as u64;
            }
        }
        files.remove_whole(&gone)?;
        Ok(swept + gone.len() as u64)
    }
}

fn locked(
    locked: std::result::Result<(), TryLockError>,
    folder: &Path,
) -> std::result::Result<(), FolderError> {
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(FolderError::Busy(folder.to_owned())),
        // Some file systems have no locks.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(disk(error).into()),
    }
}
