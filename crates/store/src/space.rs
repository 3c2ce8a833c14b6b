//! How much room a disk has.

use std::path::Path;

/// How much room a disk has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// For whoever is not its administrator.
    pub free: u64,
    /// In all.
    pub total: u64,
}

/// The room on the disk that a folder lies on, where the system tells.
#[must_use]
pub fn space(folder: &Path) -> Option<Space> {
    let told = rustix::fs::statvfs(folder).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
    Some(Space { free: bytes(told.f_bavail), total: bytes(told.f_blocks) })
}
