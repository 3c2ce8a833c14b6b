//! Showing that one has a file: a hash over all of it, with a key that nobody knew before.

use std::fs::File;

use blake3::Hasher;
use fieldkeep_store::StoreError;

/// blake3 of a file's bytes, keyed with a salt. Who knows the file's name alone cannot say it.
///
/// # Errors
/// When the disk fails.
pub fn possession(file: &File, salt: &[u8; 32]) -> Result<[u8; 32], StoreError> {
    let mut hasher = Hasher::new_keyed(salt);
    let read = hasher.update_reader(file);
    read.map_err(|error| StoreError::Disk(error.to_string()))?;
    Ok(*hasher.finalize().as_bytes())
}
