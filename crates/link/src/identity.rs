//! Key files: a member's 32 secret bytes as one line of text, `fieldkeep-key-1 BASE32`.
//!
//! A key file is made once and never overwritten, is durable before its seed is used, and is
//! readable by its owner only. A file that others may read is refused, not repaired: whoever could
//! read it may have done so. Files are checked for their mode on Unix only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::BASE32_NOPAD;
use fieldkeep_model::Seed;

const MAGIC: &str = "fieldkeep-key-1 ";
/// More than the longest key file; what is longer is something else.
const LEN_MAX: u64 = 256;

/// The file that holds a member's seed.
#[derive(Debug)]
pub struct KeyFile;

/// Why a key file was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateKeyError {
    /// A key file is never overwritten: what it signed could not be continued.
    #[error("{0} exists already: a key file is never overwritten")]
    Exists(PathBuf),
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness for a key: {0}")]
    Entropy(getrandom::Error),
    /// The file could not be written and synced; nothing is left of it.
    #[error("cannot write the key file {path}: {error}")]
    Io {
        /// The key file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
}

/// Why a key file was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenKeyError {
    /// There is no such file.
    #[error("there is no key file {0}")]
    Absent(PathBuf),
    /// Group or others may read or write the file.
    #[error(
        "others than its owner may open the key file {0}: run `chmod 600 {0}`, and enrol a fresh key if somebody may have read it"
    )]
    Exposed(PathBuf),
    /// Not a whole key file: cut short, mistyped, or something else.
    #[error("{0} is not a whole key file: restore it from a copy, or enrol with a fresh key")]
    Garbled(PathBuf),
    /// The file could not be read.
    #[error("cannot read the key file {path}: {error}")]
    Io {
        /// The key file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
}

impl KeyFile {
    /// Draws a seed and makes its file, durable together with its directory entry.
    ///
    /// # Errors
    /// When the file exists, cannot be written and synced, or there is no randomness.
    pub fn create(path: impl AsRef<Path>) -> Result<Seed, CreateKeyError> {
        let mut seed = Seed([0; 32]);
        getrandom::fill(&mut seed.0).map_err(CreateKeyError::Entropy)?;
        Self::write(path, &seed)?;
        Ok(seed)
    }

    /// Makes the file of a seed that was drawn before, durable together with its directory entry.
    ///
    /// # Errors
    /// When the file exists, or cannot be written and synced.
    pub fn write(path: impl AsRef<Path>, seed: &Seed) -> Result<(), CreateKeyError> {
        let path = path.as_ref();
        let io_error = |error| CreateKeyError::Io { path: path.into(), error };
        let mut file = exclusive(path).map_err(|error| {
            let exists = error.kind() == io::ErrorKind::AlreadyExists;
            if exists { CreateKeyError::Exists(path.into()) } else { io_error(error) }
        })?;
        let line = format!("{MAGIC}{}\n", BASE32_NOPAD.encode(&seed.0).to_lowercase());
        let written = file
            .write_all(line.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_directory(path));
        if let Err(error) = written {
            // Half a key file would be in the way of the next attempt; that it could not be
            // removed either adds nothing to the error.
            let _ = fs::remove_file(path);
            return Err(io_error(error));
        }
        Ok(())
    }

    /// Puts a key file in the place of another, durably: whatever happens, one of them is there.
    ///
    /// # Errors
    /// When the file cannot be moved.
    pub fn replace(path: impl AsRef<Path>, by: impl AsRef<Path>) -> Result<(), OpenKeyError> {
        let (path, by) = (path.as_ref(), by.as_ref());
        let io_error = |error| OpenKeyError::Io { path: path.into(), error };
        fs::rename(by, path).and_then(|()| sync_directory(path)).map_err(io_error)
    }

    /// Reads the seed.
    ///
    /// # Errors
    /// When the file is absent, open to others than its owner, or not a whole key file.
    pub fn open(path: impl AsRef<Path>) -> Result<Seed, OpenKeyError> {
        let path = path.as_ref();
        let io_error = |error| OpenKeyError::Io { path: path.into(), error };
        let file = File::open(path).map_err(|error| {
            let absent = error.kind() == io::ErrorKind::NotFound;
            if absent { OpenKeyError::Absent(path.into()) } else { io_error(error) }
        })?;
        if exposed(&file).map_err(io_error)? {
            return Err(OpenKeyError::Exposed(path.into()));
        }
        let mut text = Vec::new();
        file.take(LEN_MAX).read_to_end(&mut text).map_err(io_error)?;
        parse(&text).ok_or_else(|| OpenKeyError::Garbled(path.into()))
    }
}

fn parse(text: &[u8]) -> Option<Seed> {
    let text = std::str::from_utf8(text).ok()?.trim_end().strip_prefix(MAGIC)?;
    let bytes = BASE32_NOPAD.decode(text.to_uppercase().as_bytes()).ok()?;
    bytes.try_into().ok().map(Seed)
}

fn exclusive(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Without this a power cut may take the file's name away, and with it the member.
#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn exposed(file: &File) -> io::Result<bool> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions());
    Ok(mode & 0o077 != 0)
}

#[cfg(not(unix))]
fn exposed(_: &File) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("device.key");
        (folder, path)
    }

    #[test]
    fn a_key_file_gives_back_its_seed_and_is_one_line_of_text() {
        let (_folder, path) = place();
        let seed = KeyFile::create(&path).expect("it is made");
        assert_eq!(KeyFile::open(&path).expect("it is whole").0, seed.0);
        let text = fs::read_to_string(&path).expect("it is text");
        assert!(text.starts_with("fieldkeep-key-1 ") && text.ends_with('\n'), "{text}");
        assert_eq!(text.len(), "fieldkeep-key-1 ".len() + 52 + 1);
    }

    #[test]
    fn a_key_file_is_never_overwritten() {
        let (_folder, path) = place();
        let seed = KeyFile::create(&path).expect("it is made");
        assert!(matches!(KeyFile::create(&path), Err(CreateKeyError::Exists(_))));
        assert_eq!(KeyFile::open(&path).expect("it is untouched").0, seed.0);
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_that_others_may_open_is_refused_with_the_remedy() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, path) = place();
        KeyFile::create(&path).expect("it is made");
        let mode = fs::metadata(&path).expect("it exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for exposed in [0o640, 0o604, 0o660, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(exposed)).expect("chmod");
            let error = KeyFile::open(&path).expect_err("it is exposed");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn what_is_not_a_whole_key_file_is_told_apart_from_an_absent_one() {
        let (_folder, path) = place();
        assert!(matches!(KeyFile::open(&path), Err(OpenKeyError::Absent(_))));
        KeyFile::create(&path).expect("it is made");
        let whole = fs::read_to_string(&path).expect("it is text");
        for text in ["", "hello", &whole[..40], &whole.replace("key-1", "key-2")] {
            fs::write(&path, text).expect("it is writable");
            assert!(matches!(KeyFile::open(&path), Err(OpenKeyError::Garbled(_))), "{text}");
        }
    }
}
