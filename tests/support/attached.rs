//! Files that are attached to records.

use std::path::{Path, PathBuf};

use fieldkeep_device::Device;
use fieldkeep_model::{BlobHash, Grant, RecordKey, TypeName};

use super::Site;

pub(crate) fn key(text: &str) -> RecordKey {
    text.parse().expect("a record's name")
}

/// Bytes that do not repeat.
pub(crate) fn content(len: usize, seed: u8) -> Vec<u8> {
    let mut reader = blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof();
    let mut bytes = vec![0; len];
    reader.fill(&mut bytes);
    bytes
}

pub(crate) fn file(site: &Site, name: &str, bytes: &[u8]) -> PathBuf {
    let path = site.path(name);
    std::fs::write(&path, bytes).expect("it is written");
    path
}

pub(crate) fn attach(device: &Device, record: &str, path: &Path) -> BlobHash {
    device.attach(&key(record), "photos", path, None, None).expect("it is attached").hash
}

/// What lies under a file's name in a directory.
pub(crate) fn stored(site: &Site, of: &str, hash: &BlobHash) -> Option<Vec<u8>> {
    std::fs::read(site.path(of).join("blobs").join(hash.to_string())).ok()
}

/// A device that may read and write the visits of one outlet.
pub(crate) async fn limited(site: &Site, name: &str, outlet: &str) -> Device {
    let ticket = site.invited(name, visits_of(outlet), i64::MAX).await;
    site.join(&ticket, name).await
}

pub(crate) fn visits_of(outlet: &str) -> Vec<Grant> {
    let ty = TypeName::new("visit").expect("a name");
    vec![Grant { ty: Some(ty), scope: Some(outlet.to_owned()) }]
}
