//! A store as it stands at one moment, in a file of its own: page by page, beside the writer, which waits
//! for nothing.
//!
//! The copy goes to a disk that is quick, and from there to the backup: so the store's journal has to keep
//! old pages for no longer than one copy takes, however slow the backup's medium is.

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::files::{disk, remove_file};
use crate::home::point;
use crate::space::space;
use crate::{Reader, Result, Segments as _, Soundness as _, StoreError, schema, watched};

/// Pages that are copied in one go.
const PAGES: i32 = 256;
/// The copy's name while it is made. What a process that died left of it is written over.
const SCRATCH: &str = "backup.tmp";
/// How long a file that somebody else has at the moment is waited for, before it is tried again.
const PAUSE: Duration = Duration::from_millis(5);
/// What is left free beside the store, in bytes.
const SPARE: u64 = 64 * 1024 * 1024;

/// A store as it stood at one moment. The file has no name, and is gone with this.
#[derive(Debug)]
pub struct Moment {
    file: File,
}

impl Moment {
    /// Copies what a reader sees now, to beside the store if there is plenty of room, else to another
    /// folder. Tells as it goes how many bytes it has copied, and of how many.
    ///
    /// # Errors
    /// When the store cannot be read, or there is no room.
    pub fn take(
        reader: &Reader,
        store: &Path,
        other: &Path,
        told: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let beside = store.parent().unwrap_or(store);
        let size = reader.bytes()?;
        let roomy = space(beside).is_some_and(|space| space.free / 2 > size + SPARE);
        let path = if roomy { beside } else { other }.join(SCRATCH);
        let file = scratch(&path)?;
        let copied = copy(reader, &path, told);
        // Open as it is, it needs no name any more.
        remove_file(&path)?;
        copied.map(|()| Self { file })
    }

    /// The copy.
    #[must_use]
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }
}

fn scratch(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    point();
    let file = options.open(path).map_err(disk)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::Disk("another backup of this store is being made".into()));
        }
        Err(TryLockError::Error(error)) => return Err(disk(error)),
    }
    file.set_len(0).map_err(disk)?;
    Ok(file)
}

fn copy(reader: &Reader, path: &Path, told: &mut dyn FnMut(u64, u64)) -> Result<()> {
    reader.connection.execute_batch("BEGIN")?;
    // A transaction sees the file as it is when it first reads it.
    reader.segments()?;
    let page: u32 = reader.connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let mut copy = watched(Connection::open(path)?);
    copy.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = OFF")?;
    copy.query_row("PRAGMA journal_mode = OFF", [], |_| Ok(()))?;
    let backup = Backup::new(&reader.connection, &mut copy)?;
    loop {
        match backup.step(PAGES)? {
            StepResult::Done => break,
            // Nobody else has either file for longer than a moment.
            StepResult::Busy | StepResult::Locked => std::thread::sleep(PAUSE),
            _ => {}
        }
        let (left, all) = (backup.progress().remaining, backup.progress().pagecount);
        let bytes = |pages: i32| u64::from(pages.unsigned_abs()) * u64::from(page);
        told(bytes(all - left), bytes(all));
    }
    drop(backup);
    copy.close().map_err(|(_, error)| error)?;
    reader.connection.execute_batch("COMMIT")?;
    Ok(())
}

impl Reader {
    /// Opens a database that nobody writes to, and leaves nothing beside it: it may lie on a medium that
    /// cannot be written.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open_copy(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI;
        let connection = watched(Connection::open_with_flags(unchanging(path), flags)?);
        schema::tune(&connection)?;
        Ok(Self { connection })
    }
}

/// The address of a file that does not change while it is open.
fn unchanging(path: &Path) -> PathBuf {
    let mut address = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(byte) {
            address.push(char::from(*byte));
        } else {
            address.push_str(&format!("%{byte:02X}"));
        }
    }
    address.push_str("?immutable=1");
    PathBuf::from(address)
}
