//! Attached files.

use std::path::Path;
use std::time::Duration;

use fieldkeep_device::{AttachError, Device, PutError};
use fieldkeep_model::{BlobHash, RecordKey};

use super::run;
use super::write::PATIENCE;
use crate::access::DeviceOwner;
use crate::response::Response;
use fieldkeep_console::shape::Attachment;
use fieldkeep_console::{Code, Failure};

/// Attaches a file; by way of the relay, where the record's state asks for that.
pub(super) fn attach(
    owner: &DeviceOwner,
    key: &RecordKey,
    field: &str,
    path: &Path,
    (name, media): (Option<&str>, Option<&str>),
) -> Result<Response, Failure> {
    let device = &owner.device;
    let attached = match device.attach(key, field, path, name, media) {
        Err(AttachError::Put(PutError::NeedsConnection(_))) => {
            run(owner, device.attach_online(key, field, path, name, media, PATIENCE))??
        }
        attached => attached?,
    };
    let files = device.files(Some(key))?.into_iter();
    let files = files.filter(|view| view.file == attached);
    Ok(Response::Attachments(files.map(Attachment::from).collect(), device.files_paused()?))
}

pub(super) fn list(device: &Device, key: Option<&RecordKey>) -> Result<Response, Failure> {
    if let Some(key) = key {
        device.as_merged(key)?.ok_or_else(|| Failure::absent(key))?;
    }
    let files = device.files(key)?.into_iter().map(Attachment::from).collect();
    Ok(Response::Attachments(files, device.files_paused()?))
}

pub(super) fn fetch(
    owner: &DeviceOwner,
    key: &RecordKey,
    wanted: &str,
    patience: Duration,
) -> Result<Response, Failure> {
    let hash = named(&owner.device, key, wanted)?;
    Ok(Response::Fetched(run(owner, owner.device.fetch(key, &hash, patience))??))
}

/// The file of a record that a name or the beginning of a hash means.
fn named(device: &Device, key: &RecordKey, wanted: &str) -> Result<BlobHash, Failure> {
    device.as_merged(key)?.ok_or_else(|| Failure::absent(key))?;
    if let Ok(hash) = wanted.parse() {
        return Ok(hash);
    }
    let files = device.files(Some(key))?.into_iter();
    let begins = |hash: &BlobHash| wanted.len() >= 8 && hash.to_string().starts_with(wanted);
    let mut found =
        files.filter(|view| view.file.name == wanted || begins(&view.file.hash)).peekable();
    let first = found.next().map(|view| view.file.hash);
    match (first, found.all(|view| Some(view.file.hash) == first)) {
        (Some(hash), true) => Ok(hash),
        (Some(_), false) => {
            let message = format!("{key} has several files of that name");
            Err(Failure::new(Code::Usage, message, "say the hash of the one that is meant"))
        }
        (None, _) => {
            let message = format!("{key} has no file `{wanted}`");
            let remedy = format!("`fieldkeep attachments list {key}` lists what there is");
            Err(Failure::new(Code::NotFound, message, remedy))
        }
    }
}
