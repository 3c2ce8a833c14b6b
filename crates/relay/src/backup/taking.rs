//! Taking a backup: one moment of the store, what differs of it written, and all of it read back.
//!
//! Reads beside whoever serves the relay, and asks nobody: the engine waits for nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fieldkeep_link::OpenKeyError;
use fieldkeep_model::{BlobHash, MembershipError, MembershipLog};
use fieldkeep_replica::PART;
use fieldkeep_store::backup::{
    Attached, BackupFolder, FolderError, Manifest, Moment, Part, Slot, hashed, lay, write,
};
use fieldkeep_store::{
    BlobFiles, Blobs as _, Reader, Settings as _, Soundness as _, StoreError, home,
};
use tracing::debug_span;
use tracing::span::EnteredSpan;

use super::checking::check;
use super::{FILES, Flaw, Progress, Stage, Told};
use crate::directory::all_keys;
use crate::engine::TRACES;
use crate::server::now;

/// How attached files are verified that a backup has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thorough {
    /// By their lengths: only those that are copied are read.
    Lengths,
    /// By their hashes: all of them are read.
    Hashes,
}

/// A backup that was made and read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The folder that it lies in.
    pub folder: PathBuf,
    /// Where in it.
    pub slot: Slot,
    /// What it is of.
    pub manifest: Manifest,
    /// Bytes of the database that the place did not have already.
    pub written: u64,
    /// Attached files that were copied, and their bytes.
    pub copied: (u64, u64),
    /// Attached files that neither of the folder's backups needs any more, and that were removed there.
    pub swept: u64,
    /// What is not as it should be, and lost by nobody.
    pub notices: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Why no backup was made. The one before is as good as it was.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The directory is not a relay's.
    #[error("{} is no relay's directory", .0.display())]
    NotARelay(PathBuf),
    /// Another version of the software wrote the store last.
    #[error("the store has the tables of another version of this software")]
    Version,
    /// The backup would lie in what it is a backup of.
    #[error("{} lies within the relay's directory, and would be lost with it", .0.display())]
    Within(PathBuf),
    /// The folder has backups of another organisation.
    #[error("{} has backups of another organisation, {name}", folder.display())]
    Another {
        /// The folder.
        folder: PathBuf,
        /// The organisation's name.
        name: String,
    },
    /// The folder cannot be worked in.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// One is being made by this process already.
    #[error("a backup is being made already")]
    UnderWay,
    /// The relay's own key cannot be read.
    #[error(transparent)]
    Key(#[from] OpenKeyError),
    /// The relay's own membership log does not verify.
    #[error(transparent)]
    Members(#[from] MembershipError),
    /// What was written reads back otherwise.
    #[error("{} does not give back what was written to it: its disk is not to be trusted", .0.display())]
    ReadBack(PathBuf),
    /// The relay's own store is not sound: what it holds would replace a backup that is.
    #[error("the relay's own store is damaged: {0}")]
    Unsound(Flaw),
    /// The disk fails or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes a backup of a relay's directory into a folder.
///
/// # Errors
/// See [`BackupError`]: whatever it is, the backup before is whole.
pub fn take_backup(
    relay: &Path,
    to: &Path,
    thorough: Thorough,
    told: Told<'_>,
) -> Result<Taken, BackupError> {
    let began = Instant::now();
    let _traced = debug_span!(target: TRACES, parent: None, "backup").entered();
    let mut stage: Option<(Stage, EnteredSpan)> = None;
    let told: Told<'_> = &mut |now: Progress| {
        if stage.as_ref().is_none_or(|(stage, _)| *stage != now.stage) {
            // One ends before the next begins.
            drop(stage.take());
            let span = debug_span!(target: PART, "stage", otel.name = now.stage.words());
            stage = Some((now.stage, span.entered()));
        }
        told(now);
    };
    let database = home::database(relay);
    let not_a_relay = || BackupError::NotARelay(relay.to_owned());
    if !database.is_file() {
        return Err(not_a_relay());
    }
    let reader = Reader::open(&database)?;
    if reader.setting("role")?.as_deref() != Some(b"relay") {
        return Err(not_a_relay());
    }
    if !reader.is_up_to_date()? {
        return Err(BackupError::Version);
    }
    let members = MembershipLog::open(reader.members()?)?;
    let folder = opened(relay, to, &members.org().to_string())?;
    let taken = now();
    let mut moment = Moment::take(&reader, &database, folder.path(), &mut |done, total| {
        told(Progress { stage: Stage::Moment, done, total });
    })?;
    let (slot, number) = folder.begin()?;
    let copy = home::database(&folder.directory(slot));
    let total = moment.file().metadata().map_err(StoreError::from)?.len();
    let laid = lay(moment.file(), &copy, &mut |done| {
        told(Progress { stage: Stage::Writing, done, total });
    })?;
    drop(moment);
    let back = hashed(&copy, &mut |done| {
        told(Progress { stage: Stage::ReadingBack, done, total });
    })?;
    if back != laid.part {
        return Err(BackupError::ReadBack(copy));
    }
    let mut manifest = Manifest::of(number, taken, laid.part);
    manifest.files = beside(relay, &folder.directory(slot))?;
    let copy = folder.reader(slot)?;
    let from = BlobFiles::of(relay);
    let mut files = Files { from, live: reader, thorough, copied: (0, 0), told: &mut *told };
    manifest.attached = files.keep(&folder, &copy)?;
    let copied = files.copied;
    let keys = all_keys(&folder.directory(slot))?;
    let notices = check(&copy, &keys, &mut manifest, told).map_err(BackupError::Unsound)?;
    drop(copy);
    folder.finish(slot, &manifest)?;
    let swept = folder.sweep().unwrap_or_else(|error| {
        tracing::warn!(%error, "attached files that no backup needs any more stay in it");
        0
    });
    let (folder, written) = (folder.path().to_owned(), laid.written);
    let took = began.elapsed();
    Ok(Taken { folder, slot, manifest, written, copied, swept, notices, took })
}

/// The folder, if a backup of this relay may lie there.
fn opened(relay: &Path, to: &Path, organisation: &str) -> Result<BackupFolder, BackupError> {
    let relay = relay.canonicalize().map_err(StoreError::from)?;
    let to = std::path::absolute(to).map_err(StoreError::from)?;
    // What is not there yet has no canonical path: what it would be made in has one.
    let present = to.ancestors().find_map(|path| path.canonicalize().ok());
    if present.is_some_and(|path| path.starts_with(&relay)) {
        return Err(BackupError::Within(to));
    }
    let folder = BackupFolder::create(&to)?;
    let backups = folder.backups();
    let other = backups.into_iter().find(|(_, manifest)| manifest.organisation != organisation);
    match other {
        Some((_, manifest)) => Err(BackupError::Another { folder: to, name: manifest.name }),
        None => Ok(folder),
    }
}

/// Copies the files that lie beside the database.
fn beside(relay: &Path, copy: &Path) -> Result<Vec<Part>, StoreError> {
    let mut parts = Vec::new();
    for name in FILES {
        let to = copy.join(name);
        match fs::read(relay.join(name)) {
            Ok(bytes) => {
                write(&to, &bytes)?;
                parts.push(hashed(&to, &mut |_| {})?);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // One of an earlier backup does not belong to this one.
                let _ = fs::remove_file(to);
            }
            Err(error) => return Err(StoreError::Disk(format!("{name}: {error}"))),
        }
    }
    Ok(parts)
}

/// Brings the attached files of a folder up to date.
struct Files<'t> {
    from: BlobFiles,
    live: Reader,
    thorough: Thorough,
    copied: (u64, u64),
    told: Told<'t>,
}

impl Files<'_> {
    fn keep(&mut self, folder: &BackupFolder, copy: &Reader) -> Result<Attached, BackupError> {
        let (to, total, mut done) = (folder.files(), copy.blob_bytes()?, 0);
        let (mut attached, mut hasher) = (Attached::default(), blake3::Hasher::new());
        copy.each_blob_here(|hash, size| {
            if self.is_kept(&to, &hash, size)? {
                attached.files += 1;
                attached.bytes += size;
                hasher.update(&hash.0).update(&size.to_be_bytes());
            } else if self.live.has_blob(&hash)? {
                attached.lacking.push(hash.to_string());
            }
            done += size;
            (self.told)(Progress { stage: Stage::Files, done, total });
            Ok::<_, BackupError>(())
        })?;
        attached.blake3 = hasher.finalize().to_hex().to_string();
        Ok(attached)
    }

    /// Whether a file lies in the backup now, and is what its name says.
    fn is_kept(&mut self, to: &BlobFiles, hash: &BlobHash, size: u64) -> Result<bool, BackupError> {
        let there = to.length(hash) == Some(size);
        if there && (self.thorough == Thorough::Lengths || to.is_sound(hash, size)) {
            return Ok(true);
        }
        if !to.take_over(&self.from, hash, size)? {
            // What lies there under its name is something else.
            to.remove(hash)?;
            return Ok(false);
        }
        if !to.is_sound(hash, size) {
            return Err(BackupError::ReadBack(to.path(hash)));
        }
        self.copied = (self.copied.0 + 1, self.copied.1 + size);
        Ok(true)
    }
}
