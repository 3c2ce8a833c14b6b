//! The bytes of attached files: each a file under its hash, beside the database.
//!
//! A name is 64 hexadecimal digits and nothing else. A file has its name only once all of it is on
//! the disk and verified: until then it is a part, which goes on where it ends, and whose groups are
//! looked at again before that.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use fieldkeep_model::blob::GroupCheck;
use fieldkeep_model::{BlobHash, BlobTree, TreeBuilder};

use crate::home::point;
use crate::{Result, StoreError};

/// Bytes that are read or written at once.
const PIECE: usize = 256 * 1024;
/// What was begun and not touched for so long is given up: whoever goes on with it begins anew.
pub const ABANDONED: Duration = Duration::from_hours(7 * 24);

/// The folder of a directory's files.
#[derive(Clone, Debug)]
pub struct BlobFiles {
    folder: PathBuf,
}

/// A file that comes in parts.
#[derive(Debug)]
pub struct Incoming {
    files: BlobFiles,
    tree: BlobTree,
    file: File,
    at: u64,
    check: GroupCheck,
}

impl BlobFiles {
    /// Those of a directory of a device or relay.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self { folder: directory.join("blobs") }
    }

    /// Where a whole file lies.
    #[must_use]
    pub fn path(&self, hash: &BlobHash) -> PathBuf {
        self.folder.join(hash.to_string())
    }

    fn part(&self, hash: &BlobHash) -> PathBuf {
        self.folder.join(format!("{hash}.part"))
    }

    /// Opens a whole file.
    ///
    /// # Errors
    /// When it is not there, or the disk fails.
    pub fn open(&self, hash: &BlobHash) -> Result<File> {
        File::open(self.path(hash)).map_err(disk)
    }

    /// Copies a file in under its hash; it is durable when this returns. It has to be as long as it is
    /// said to be.
    ///
    /// # Errors
    /// When it cannot be read, has another length, or the disk refuses: nothing of it is kept then.
    pub fn add(&self, source: &mut impl Read, size: u64, salt: [u8; 8]) -> Result<BlobTree> {
        fs::create_dir_all(&self.folder).map_err(disk)?;
        let beside = self.folder.join(format!("{:016x}.new", u64::from_be_bytes(salt)));
        let added = self.copy(source, size, &beside);
        if added.is_err() {
            // It may not be there at all.
            let _ = fs::remove_file(&beside);
        }
        added
    }

    fn copy(&self, source: &mut impl Read, size: u64, beside: &Path) -> Result<BlobTree> {
        let mut file = File::create(beside).map_err(disk)?;
        let changed =
            || StoreError::Disk("the file changed while it was read, or cannot be read".into());
        let tree = pour(source, size, &mut file)?.ok_or_else(changed)?;
        self.settle(&file, beside, &tree.hash())?;
        Ok(tree)
    }

    /// Copies a whole file of another directory in; it is durable when this returns. Whether it was there
    /// and is what its name says: else nothing of it is kept.
    ///
    /// # Errors
    /// When the disk refuses: nothing of it is kept then.
    pub fn take_over(&self, from: &Self, hash: &BlobHash, size: u64) -> Result<bool> {
        let Ok(mut source) = from.open(hash) else { return Ok(false) };
        fs::create_dir_all(&self.folder).map_err(disk)?;
        let beside = self.part(hash);
        point();
        let taken = File::create(&beside).map_err(disk).and_then(|mut file| {
            let tree = pour(&mut source, size, &mut file)?;
            let sound = tree.is_some_and(|tree| tree.hash() == *hash);
            if sound {
                self.settle(&file, &beside, hash)?;
            }
            Ok(sound)
        });
        if !matches!(taken, Ok(true)) {
            let _ = fs::remove_file(&beside);
        }
        taken
    }

    /// Gives a file that is whole its name.
    fn settle(&self, file: &File, from: &Path, hash: &BlobHash) -> Result<()> {
        point();
        file.sync_all().map_err(disk)?;
        point();
        fs::rename(from, self.path(hash)).map_err(disk)?;
        self.sync()
    }

    /// Makes durable which names there are.
    fn sync(&self) -> Result<()> {
        point();
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(disk)
    }

    /// Begins to take a file in, or goes on where a part of it ends: what is there of it is verified
    /// first, and what is wrong is cut off. Nothing while somebody else takes it in.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn receive(&self, tree: BlobTree) -> Result<Option<Incoming>> {
        fs::create_dir_all(&self.folder).map_err(disk)?;
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(self.part(&tree.hash())).map_err(disk)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(disk(error)),
        }
        let mut incoming =
            Incoming { files: self.clone(), check: tree.check_from(0), tree, file, at: 0 };
        incoming.take_up()?;
        Ok(Some(incoming))
    }

    /// Whether a whole file is what its name says. Reads all of it.
    #[must_use]
    pub fn is_sound(&self, hash: &BlobHash, size: u64) -> bool {
        let source = self.open(hash).ok();
        let tree =
            source.and_then(|mut file| pour(&mut file, size, &mut io::sink()).ok().flatten());
        tree.is_some_and(|tree| tree.hash() == *hash)
    }

    /// Removes a file, whole or in part.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove(&self, hash: &BlobHash) -> Result<()> {
        for path in [self.path(hash), self.part(hash)] {
            remove_file(&path)?;
        }
        Ok(())
    }

    /// Removes whole files; that they are gone is durable when this returns.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove_whole(&self, hashes: &[BlobHash]) -> Result<()> {
        hashes.iter().try_for_each(|hash| remove_file(&self.path(hash)))?;
        if self.folder.is_dir() { self.sync() } else { Ok(()) }
    }

    /// Whether a whole file lies here.
    #[must_use]
    pub fn is_there(&self, hash: &BlobHash) -> bool {
        self.path(hash).is_file()
    }

    /// Removes what was begun and not touched for [`ABANDONED`] by then, in milliseconds UTC. Returns how
    /// much that was. What somebody writes at the moment stays.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn clear_abandoned(&self, now: i64) -> Result<u64> {
        let mut cleared = 0;
        let now = Duration::from_millis(now.unsigned_abs());
        let Some(entries) = self.entries()? else { return Ok(0) };
        for entry in entries {
            let path = entry.map_err(disk)?.path();
            let begun = path.extension().is_some_and(|ending| ending == "part" || ending == "new");
            // Whoever wrote it may give it its name at any moment.
            let Some(file) = begun.then(|| File::open(&path).ok()).flatten() else { continue };
            let touched = file.metadata().and_then(|metadata| metadata.modified()).map_err(disk)?;
            let touched = touched.duration_since(UNIX_EPOCH).unwrap_or_default();
            if now.saturating_sub(touched) >= ABANDONED && file.try_lock().is_ok() {
                remove_file(&path)?;
                cleared += 1;
            }
        }
        Ok(cleared)
    }

    /// How long a whole file is, if it lies here.
    #[must_use]
    pub fn length(&self, hash: &BlobHash) -> Option<u64> {
        fs::metadata(self.path(hash)).ok().map(|file| file.len())
    }

    fn entries(&self) -> Result<Option<fs::ReadDir>> {
        match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            entries => Ok(Some(entries.map_err(disk)?)),
        }
    }

    /// The whole files that are here, with their lengths.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn all(&self) -> Result<Vec<(BlobHash, u64)>> {
        let Some(entries) = self.entries()? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(disk)?;
            let hash = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(hash) = hash {
                found.push((hash, entry.metadata().map_err(disk)?.len()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

impl Incoming {
    /// How many bytes are here: the next ones begin there.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The file's tree.
    #[must_use]
    pub fn tree(&self) -> &BlobTree {
        &self.tree
    }

    /// Whether all of it is here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.at == self.tree.size()
    }

    fn take_up(&mut self) -> Result<()> {
        let there = self.file.metadata().map_err(disk)?.len().min(self.tree.size());
        let mut piece = vec![0; PIECE];
        while self.at < there {
            let most = (there - self.at).min(self.check.room(&self.tree)).min(PIECE as u64);
            let most = usize::try_from(most).expect("a piece fits in memory");
            self.file.read_exact(&mut piece[..most]).map_err(disk)?;
            match self.check.take(&self.tree, &piece[..most]) {
                Ok(_) => self.at += most as u64,
                Err(group) => {
                    self.back_to(group)?;
                    break;
                }
            }
        }
        self.file.set_len(self.at).map_err(disk)
    }

    fn back_to(&mut self, group: u64) -> Result<()> {
        self.at = group;
        self.check = self.tree.check_from(group);
        self.file.set_len(group).map_err(disk)?;
        self.file.seek(SeekFrom::Start(group)).map_err(disk)?;
        Ok(())
    }

    /// Takes the next bytes in. Returns where a group begins that is not the file's: it is forgotten,
    /// and comes again.
    ///
    /// # Errors
    /// When the disk refuses, or more came than the file has.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<Option<u64>> {
        while !bytes.is_empty() {
            let room = usize::try_from(self.check.room(&self.tree)).unwrap_or(usize::MAX);
            if room == 0 {
                return Err(StoreError::Disk("more came than the file has".into()));
            }
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.file.write_all(now).map_err(disk)?;
            self.at += now.len() as u64;
            if let Err(group) = self.check.take(&self.tree, now) {
                self.back_to(group)?;
                return Ok(Some(group));
            }
            bytes = rest;
        }
        Ok(None)
    }

    /// Keeps nothing of it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn discard(self) -> Result<()> {
        fs::remove_file(self.files.part(&self.tree.hash())).map_err(disk)
    }

    /// Makes a whole file durable under its name.
    ///
    /// # Errors
    /// When it is not whole, or the disk refuses.
    pub fn finish(self) -> Result<BlobTree> {
        if !self.is_whole() {
            return Err(StoreError::Disk("the file is not whole yet".into()));
        }
        // An empty file has no byte that would have been looked at.
        let (hash, mut check) = (self.tree.hash(), self.check.clone());
        if self.tree.size() == 0 && check.take(&self.tree, &[]).is_err() {
            return Err(StoreError::Disk("an empty file has another name".into()));
        }
        self.files.settle(&self.file, &self.files.part(&hash), &hash)?;
        Ok(self.tree)
    }
}

/// Copies what a source has, and tells its tree; nothing where it cannot be read, or has another length.
fn pour(source: &mut impl Read, size: u64, to: &mut impl Write) -> Result<Option<BlobTree>> {
    let Ok(mut builder) = TreeBuilder::new(size) else { return Ok(None) };
    let mut piece = vec![0; PIECE];
    loop {
        let read = match source.read(&mut piece) {
            Ok(0) => return Ok(builder.finish().ok()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Ok(None),
        };
        if builder.take(&piece[..read]).is_err() {
            return Ok(None);
        }
        to.write_all(&piece[..read]).map_err(disk)?;
    }
}

pub(crate) fn remove_file(path: &Path) -> Result<()> {
    point();
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(crate) fn disk(error: io::Error) -> StoreError {
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Vec<u8> {
        (0..200_000u32).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    fn tree() -> BlobTree {
        let mut builder = TreeBuilder::new(200_000).expect("small");
        builder.take(&content()).expect("as long as said");
        builder.finish().expect("all of it")
    }

    #[test]
    fn a_file_goes_on_at_any_byte_after_any_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, content) = (BlobFiles::of(directory.path()), content());
        for cut in [0, 1, 65_535, 65_536, 65_537, 131_072, 199_999, 200_000] {
            let mut incoming = files.receive(tree()).expect("it begins").expect("nobody else");
            assert_eq!(incoming.at(), 0);
            assert_eq!(incoming.take(&content[..cut]).expect("it writes"), None);
            drop(incoming);
            let mut incoming = files.receive(tree()).expect("it goes on").expect("nobody else");
            assert_eq!(incoming.at(), cut as u64);
            assert_eq!(incoming.take(&content[cut..]).expect("it writes"), None);
            let tree = incoming.finish().expect("it is whole");
            assert_eq!(fs::read(files.path(&tree.hash())).expect("it is there"), content);
            files.remove(&tree.hash()).expect("it goes");
        }
    }

    #[test]
    fn one_at_a_time_takes_a_file_in() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = BlobFiles::of(directory.path());
        let first = files.receive(tree()).expect("it begins");
        assert!(files.receive(tree()).expect("it looks").is_none());
        drop(first);
        assert!(files.receive(tree()).expect("it looks").is_some());
    }

    #[test]
    fn what_is_wrong_is_cut_off_and_comes_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = BlobFiles::of(directory.path());
        let mut wrong = content();
        wrong[70_000] ^= 1;
        let mut incoming = files.receive(tree()).expect("it begins").expect("nobody else");
        assert_eq!(incoming.take(&wrong).expect("it writes"), Some(65_536));
        assert_eq!(incoming.at(), 65_536);
        drop(incoming);
        // A disk that lost what was not synced gives back something else.
        let part = files.part(&tree().hash());
        let mut torn = content();
        torn[10] = 0xff;
        fs::write(&part, &torn[..100_000]).expect("it is written");
        let mut incoming = files.receive(tree()).expect("it goes on").expect("nobody else");
        assert_eq!(incoming.at(), 0);
        assert_eq!(incoming.take(&content()).expect("it writes"), None);
        incoming.finish().expect("it is whole");
    }

    #[test]
    fn what_was_begun_and_left_goes_after_a_while() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = BlobFiles::of(directory.path());
        let whole = files.add(&mut &content()[..], 200_000, [1; 8]).expect("it is kept");
        let mut other = content();
        other[0] ^= 1;
        let mut builder = TreeBuilder::new(200_000).expect("small");
        builder.take(&other).expect("as long as said");
        let begun = builder.finish().expect("all of it");
        let path = files.part(&begun.hash());
        let incoming = files.receive(begun).expect("it begins").expect("nobody else");
        let beside = directory.path().join("blobs").join("00000000000000aa.new");
        fs::write(&beside, b"half").expect("it is written");
        let touched = fs::metadata(&beside).and_then(|metadata| metadata.modified());
        let touched = touched.expect("it is there").duration_since(UNIX_EPOCH).expect("after 1970");
        let at = |time: Duration| i64::try_from(time.as_millis()).expect("a time");
        let (now, later) = (at(touched), at(touched + ABANDONED + Duration::from_secs(60)));
        assert_eq!(files.clear_abandoned(now).expect("it looks"), 0, "they are fresh");
        assert_eq!(files.clear_abandoned(later).expect("it looks"), 1, "one is being written");
        assert!(path.exists() && !beside.exists());
        drop(incoming);
        assert_eq!(files.clear_abandoned(later).expect("it looks"), 1);
        assert_eq!(files.all().expect("it reads"), [(whole.hash(), 200_000)]);
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_not_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = BlobFiles::of(directory.path());
        let added = files.add(&mut &content()[..], 199_999, [1; 8]);
        assert!(added.expect_err("it is longer").to_string().contains("changed"));
        assert_eq!(fs::read_dir(directory.path().join("blobs")).expect("a folder").count(), 0);
        let tree = files.add(&mut &content()[..], 200_000, [1; 8]).expect("it is as long");
        assert_eq!(files.all().expect("it reads"), [(tree.hash(), 200_000)]);
    }
}
