//! What all benchmarks share: how far one is, and the folder that its results go to.

use std::path::Path;
use std::{fs, io};

/// How far a benchmark is.
#[derive(Clone, Debug)]
pub struct Progress<T> {
    /// The result that has just been had; nothing before the first one.
    pub ended: Option<T>,
    /// Results that are there.
    pub done: usize,
    /// All results.
    pub total: usize,
    /// What is measured now; nothing after the last one.
    pub next: Option<String>,
}

/// A number that a benchmark cannot be run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given} {what} are not possible: give {least} to {most}")]
pub struct OutOfBounds {
    /// Of what.
    pub what: &'static str,
    /// What was typed.
    pub given: u64,
    /// The least.
    pub least: u64,
    /// The most.
    pub most: u64,
}

/// Whether a number lies within its bounds.
pub(crate) fn within(
    what: &'static str,
    given: u64,
    least: u64,
    most: u64,
) -> Result<(), OutOfBounds> {
    let fits = (least..=most).contains(&given);
    if fits { Ok(()) } else { Err(OutOfBounds { what, given, least, most }) }
}

/// Makes a folder, and looks whether files can be made in it.
pub(crate) fn writable(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let probe = folder.join("results.partial");
    fs::write(&probe, b"")?;
    fs::remove_file(&probe)
}

/// Puts a file in another one's place, so that whoever reads sees one of both.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes)?;
    fs::rename(partial, path)
}
