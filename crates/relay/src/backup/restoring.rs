//! Putting a backup in place of a relay that was lost.
//!
//! Everything is laid beside the place and read back there; then it gets its name in one step. What is put
//! in place says of itself that it was: whoever opens it first opens a new epoch, so that no number is used
//! twice, whenever this ends.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use fieldkeep_link::OpenKeyError;
use fieldkeep_model::BlobHash;
use fieldkeep_store::backup::{BackupFolder, FolderError, Manifest, lay, sync_folder, write};
use fieldkeep_store::{BlobFiles, Blobs as _, Home, HomeError, Reader, Store, StoreError, home};

use super::checking::check;
use super::{FILES, LastBackup, Progress, Stage, Told};
use crate::directory::{Directory, DirectoryError, PUT_BACK, all_keys};
use crate::recovery::Mark;
use crate::server::now;

/// Which of a folder's two backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest.
    Newest,
    /// The one before.
    Earlier,
}

/// What becomes of a directory that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupied {
    /// Nothing is done.
    Refused,
    /// It gets another name, and is kept.
    MovedAside,
}

/// A backup that was put in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutBack {
    /// What it was of.
    pub manifest: Manifest,
    /// The directory that was in the way, under its new name.
    pub moved: Option<PathBuf>,
    /// Attached files that the backup does not have: devices that have them bring them.
    pub lacking: u64,
    /// The counter of the epoch that was opened.
    pub epoch: u64,
    /// What of derived state is not as it should be, in words.
    pub notices: Vec<String>,
}

/// Why nothing was put in place.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The folder cannot be read from.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// No such backup was ended in it.
    #[error("{} has no such backup that is whole", .0.display())]
    Nothing(PathBuf),
    /// The backup is not what was written.
    #[error("backup {number} in {} cannot be relied on: {why}", folder.display())]
    Unsound {
        /// The folder.
        folder: PathBuf,
        /// The backup's number.
        number: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Something is in the directory.
    #[error("{} is not empty", .0.display())]
    Occupied(PathBuf),
    /// The directory is in use.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The key in the backup cannot be read.
    #[error(transparent)]
    Key(#[from] OpenKeyError),
    /// It lies in place, and could not be opened.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The disk fails or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Verifies a backup, puts it in place as a relay's directory, and opens a new epoch in it.
///
/// # Errors
/// See [`RestoreError`]: the backup is never changed, and a directory that was there is kept.
pub fn restore_backup(
    from: &Path,
    relay: &Path,
    which: Which,
    occupied: Occupied,
    told: Told<'_>,
) -> Result<PutBack, RestoreError> {
    let folder = BackupFolder::open(from)?;
    let place = match which {
        Which::Newest => 0,
        Which::Earlier => 1,
    };
    let nothing = || RestoreError::Nothing(from.to_owned());
    let (slot, manifest) = folder.backups().into_iter().nth(place).ok_or_else(nothing)?;
    let relay = std::path::absolute(relay).map_err(disk)?;
    let in_the_way = is_occupied(&relay)?;
    if in_the_way && occupied == Occupied::Refused {
        return Err(RestoreError::Occupied(relay));
    }
    // Nobody may serve what is moved aside.
    let is_ours = home::database(&relay).is_file();
    let owned = is_ours.then(|| Home::open(&relay)).transpose()?;
    let staging = named(&relay, ".restoring");
    // Of a restore that was cut short.
    remove(&staging)?;
    fs::create_dir_all(relay.parent().unwrap_or(&relay)).map_err(disk)?;
    let backup = Backup { folder: &folder, directory: folder.directory(slot), manifest };
    let laid = backup.lay_in(&staging, told);
    let (lacking, notices) = laid.inspect_err(|_| drop(remove(&staging)))?;
    let Backup { manifest, .. } = backup;
    let moved = in_the_way.then(|| aside(&relay));
    if let Some(moved) = &moved {
        fs::rename(&relay, moved).map_err(disk)?;
    }
    fs::rename(&staging, &relay).map_err(disk)?;
    sync_folder(relay.parent().unwrap_or(&relay))?;
    drop(owned);
    let (replica, _home, _seed) =
        Directory::open(&relay)?.into_replica().map_err(DirectoryError::from)?;
    let epoch = replica.epoch().counter;
    Ok(PutBack { manifest, moved, lacking, epoch, notices })
}

/// A backup that is being put in place.
struct Backup<'f> {
    folder: &'f BackupFolder,
    directory: PathBuf,
    manifest: Manifest,
}

impl Backup<'_> {
    /// Lays it there and reads it back. Returns how many attached files it lacks, and what else is to be
    /// told.
    fn lay_in(&self, to: &Path, told: Told<'_>) -> Result<(u64, Vec<String>), RestoreError> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new().mode(0o700).create(to).map_err(disk)?;
        let (from, database) = (home::database(&self.directory), home::database(to));
        let mut from = File::open(from).map_err(disk)?;
        let total = self.manifest.database.bytes;
        let laid = lay(&mut from, &database, &mut |done| {
            told(Progress { stage: Stage::Writing, done, total });
        })?;
        if laid.part != self.manifest.database {
            return Err(self.unsound("the database is not what was written"));
        }
        for name in FILES {
            let Some(part) = self.manifest.files.iter().find(|part| part.name == name) else {
                continue;
            };
            let bytes = fs::read(self.directory.join(name)).map_err(disk)?;
            if blake3::hash(&bytes).to_hex().as_str() != part.blake3 {
                return Err(self.unsound(&format!("{name} is not what was written")));
            }
            write(&to.join(name), &bytes)?;
        }
        let keys = all_keys(to)?;
        // An older version may have made it: its tables are brought up to date first.
        drop(Store::open(&database)?);
        let copy = Reader::open(&database)?;
        let mut found = self.manifest.clone();
        let checked = check(&copy, &keys, &mut found, told);
        let notices = checked.map_err(|flaw| self.unsound(&flaw.to_string()))?;
        if found != self.manifest {
            return Err(self.unsound("it has other contents than its manifest says"));
        }
        let lacking = self.lay_files(&copy, to, told)?;
        drop(copy);
        self.mark(&database, &lacking)?;
        sync_folder(to)?;
        Ok((lacking.len() as u64, notices))
    }

    fn lay_files(
        &self,
        copy: &Reader,
        to: &Path,
        told: Told<'_>,
    ) -> Result<Vec<BlobHash>, RestoreError> {
        let (from, to) = (self.folder.files(), BlobFiles::of(to));
        let (total, mut done, mut lacking) = (copy.blob_bytes()?, 0, Vec::new());
        copy.each_blob_here(|hash, size| {
            if !to.take_over(&from, &hash, size)? {
                lacking.push(hash);
            }
            done += size;
            told(Progress { stage: Stage::Files, done, total });
            Ok::<_, RestoreError>(())
        })?;
        Ok(lacking)
    }

    /// Says in the database itself that it was put back, and from when it is.
    fn mark(&self, database: &Path, lacking: &[BlobHash]) -> Result<(), RestoreError> {
        let mut store = Store::open(database)?;
        for hash in lacking {
            store.take_blob(hash)?;
        }
        store.set("identity", PUT_BACK)?;
        Mark::now(&store, now(), Some(self.manifest.taken))?.note(&mut store)?;
        let folder = self.folder.path().display().to_string();
        let Manifest { taken, number, .. } = self.manifest;
        LastBackup { taken, folder, number }.note(&mut store)?;
        Ok(store.commit()?)
    }

    fn unsound(&self, why: &str) -> RestoreError {
        let (folder, number) = (self.folder.path().to_owned(), self.manifest.number);
        RestoreError::Unsound { folder, number, why: why.to_owned() }
    }
}

fn is_occupied(directory: &Path) -> Result<bool, StoreError> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(disk(error)),
    }
}

/// A name that nothing has yet, for a directory that is in the way.
fn aside(directory: &Path) -> PathBuf {
    let names = (1..).map(|number| named(directory, &format!(".before-{number}")));
    names.into_iter().find(|name| !name.exists()).expect("numbers do not end")
}

fn named(directory: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(directory.as_os_str());
    name.push(ending);
    name.into()
}

fn remove(directory: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn disk(error: io::Error) -> StoreError {
    error.into()
}
