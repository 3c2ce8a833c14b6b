//! Laying files in place so that they are there after a power cut: what is there already is not written
//! again.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::Result;
use crate::backup::manifest::Part;
use crate::files::disk;
use crate::home::point;

/// Bytes that are compared, and written where they differ, at once.
const PIECE: usize = 64 * 1024;
/// After so many written bytes the disk is waited for: whoever else writes to it does not wait for all.
const SYNCED: u64 = 4 * 1024 * 1024;

/// A file that lies in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laid {
    /// The file.
    pub part: Part,
    /// How many bytes of it were not there.
    pub written: u64,
}

/// Makes a file hold what another one holds, writes only what differs, and waits until the disk has it.
/// Tells as it goes how many bytes it has been through. Whoever is cut short leaves neither of two states.
///
/// # Errors
/// When a file cannot be read, or the disk refuses.
pub fn lay(from: &mut File, to: &Path, told: &mut dyn FnMut(u64)) -> Result<Laid> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    point();
    let mut there = options.open(to).map_err(disk)?;
    from.seek(SeekFrom::Start(0)).map_err(disk)?;
    let (mut wanted, mut present) = (vec![0; PIECE], vec![0; PIECE]);
    let (mut hasher, mut at, mut written, mut unsynced) = (blake3::Hasher::new(), 0, 0, 0);
    loop {
        let length = fill(from, &mut wanted).map_err(disk)?;
        if length == 0 {
            break;
        }
        hasher.update(&wanted[..length]);
        let found = fill(&mut there, &mut present[..length]).map_err(disk)?;
        if present[..found] != wanted[..length] {
            point();
            there.seek(SeekFrom::Start(at)).map_err(disk)?;
            there.write_all(&wanted[..length]).map_err(disk)?;
            written += length as u64;
            unsynced += length as u64;
        }
        at += length as u64;
        if unsynced >= SYNCED {
            there.sync_data().map_err(disk)?;
            unsynced = 0;
        }
        told(at);
    }
    point();
    there.set_len(at).map_err(disk)?;
    there.sync_all().map_err(disk)?;
    forget_cached(&there);
    Ok(Laid { part: part(to, at, &hasher), written })
}

/// A file's length and hash, as the disk has it.
///
/// # Errors
/// When it cannot be read.
pub fn hashed(path: &Path, told: &mut dyn FnMut(u64)) -> Result<Part> {
    let mut file = File::open(path).map_err(disk)?;
    let (mut piece, mut hasher, mut bytes) = (vec![0; PIECE], blake3::Hasher::new(), 0);
    loop {
        let length = fill(&mut file, &mut piece).map_err(disk)?;
        if length == 0 {
            return Ok(part(path, bytes, &hasher));
        }
        hasher.update(&piece[..length]);
        bytes += length as u64;
        told(bytes);
    }
}

/// Writes a small file in one step: whoever looks sees the old one or all of the new one. Its owner alone
/// may read it.
///
/// # Errors
/// When the disk refuses.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_added_extension("new");
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    point();
    let written = options.open(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        point();
        file.sync_all()?;
        point();
        fs::rename(&beside, path)
    });
    if let Err(error) = written {
        let _ = fs::remove_file(&beside);
        return Err(disk(error));
    }
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes durable which names a folder has.
///
/// # Errors
/// When the disk refuses.
pub fn sync_folder(folder: &Path) -> Result<()> {
    point();
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(disk)
}

/// Has what is read next come from the disk, where the system can be told so.
fn forget_cached(file: &File) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

fn part(path: &Path, bytes: u64, hasher: &blake3::Hasher) -> Part {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let blake3 = hasher.finalize().to_hex().to_string();
    Part { name: name.unwrap_or_default(), bytes, blake3 }
}

/// Reads until a piece is full or the file ends.
fn fill(file: &mut File, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match file.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
