//! Attaching a file to a record: its bytes are kept first, then the record names it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fieldkeep_catalog::{AttachedFile, Attachments, Kind, Location, UnfitFile};
use fieldkeep_model::{BlobHash, BlobTree, RecordEdit, RecordKey};
use fieldkeep_replica::{PutError, RecordView, Replica, ReplicaError};
use fieldkeep_store::{BlobFiles, Blobs as _, StoreError, Upload};

use super::location::{self, LocationError};
use crate::device::{Device, drawn, now};
use crate::engine::{note_fetched, put_with_files};
use crate::online::OnlineError;

/// Why a file was not attached; nothing was changed.
///
/// ```
/// # use fieldkeep_device::AttachError;
/// # fieldkeep_lab::camp::example(async |device| {
/// let photo = device.directory().join("front.txt");
/// std::fs::write(&photo, "the shelf")?;
/// let customer = "customer/c1".parse()?;
/// let refused = device.attach(&customer, "name", &photo, None, None);
/// assert_eq!(refused.expect_err("no field for files").to_string(), "`name` of customer holds no files: photos does");
/// let refused = device.attach(&customer, "photos", &photo.with_extension("none"), None, None);
/// assert!(matches!(refused, Err(AttachError::Read { .. })));
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The type has no such field, or it holds no files.
    #[error("`{field}` of {ty} holds no files{}", known(.fields))]
    NoField {
        /// The type.
        ty: fieldkeep_model::TypeName,
        /// The field.
        field: String,
        /// The fields that do.
        fields: Vec<String>,
    },
    /// The file is none that the field takes.
    #[error("{field} does not take it: {why}")]
    Unfit {
        /// The field.
        field: String,
        /// Why.
        why: UnfitFile,
    },
    /// The field has as many as it may have.
    #[error("{field} has {most} files, and that is the most: remove one first")]
    Full {
        /// The field.
        field: String,
        /// How many.
        most: u64,
    },
    /// Its place is to be taken out, and cannot be.
    #[error("{}: {why}", path.display())]
    Place {
        /// The file.
        path: PathBuf,
        /// Why.
        why: LocationError,
    },
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It has no name that a record could hold.
    #[error("a file's name has 1 to {} bytes", fieldkeep_catalog::NAME_MAX)]
    Name,
    /// The record was not written.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The relay has not written the record, or did not say that it has.
    #[error(transparent)]
    Online(#[from] OnlineError),
    /// The disk refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn known(fields: &[String]) -> String {
    if fields.is_empty() { String::new() } else { format!(": {} does", fields.join(", ")) }
}

impl Device {
    /// Attaches a file to a record: it is on this device, under its hash, when this returns, and is sent
    /// after the record. The name and the media type are the file's own unless others are given.
    ///
    /// ```
    /// # use fieldkeep_device::FileState;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let photo = device.directory().join("front.txt");
    /// std::fs::write(&photo, "the shelf, as seen from the door")?;
    /// let visit = "customer/c1".parse()?;
    /// let attached = device.attach(&visit, "photos", &photo, None, None)?;
    /// assert_eq!((attached.name.as_str(), attached.size), ("front.txt", 32));
    /// assert_eq!(device.files(Some(&visit))?[0].state, FileState::WaitingForRecord);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach(
        &self,
        key: &RecordKey,
        field: &str,
        path: &Path,
        name: Option<&str>,
        media: Option<&str>,
    ) -> Result<AttachedFile, AttachError> {
        let Kept { view, attachments, file, tree } = self.keep(key, field, path, name, media)?;
        let wrote = full(&view, &attachments, &file).and_then(|()| {
            let edit: RecordEdit = vec![file.edit()].into();
            let put = |replica: &mut Replica| {
                Ok(vec![put_with_files(replica, key, &edit, Some(&tree), now())?])
            };
            self.write_all::<PutError>(put)?;
            Ok(())
        });
        if let Err(error) = wrote {
            self.keep_no_more(&file.hash)?;
            return Err(error);
        }
        Ok(file)
    }

    /// Attaches a file to a record that is edited only by way of the relay. When this returns, the relay
    /// has named it there, and it is on this device, to be sent with the next connection.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use fieldkeep_device::FileState;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let photo = device.directory().join("front.txt");
    /// std::fs::write(&photo, "the shelf")?;
    /// let (visit, patience) = ("customer/c1".parse()?, Duration::from_secs(60));
    /// device.attach_online(&visit, "photos", &photo, None, None, patience).await?;
    /// device.sync(patience).await?;
    /// assert_eq!(device.files(Some(&visit))?[0].state, FileState::Here);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`AttachError`]. Where it is not known whether the relay has named it, the file is kept, and
    /// sent if it has.
    pub async fn attach_online(
        &self,
        key: &RecordKey,
        field: &str,
        path: &Path,
        name: Option<&str>,
        media: Option<&str>,
        patience: Duration,
    ) -> Result<AttachedFile, AttachError> {
        let Kept { view, attachments, file, tree } = self.keep(key, field, path, name, media)?;
        let hash = file.hash;
        if let Err(error) = full(&view, &attachments, &file) {
            self.keep_no_more(&hash)?;
            return Err(error);
        }
        let (known, waited) = {
            let engine = self.engine();
            let store = engine.replica().store();
            let same = |upload: &Upload| (upload.hash, &upload.key) == (hash, key);
            (store.has_blob(&hash)?, store.uploads()?.iter().any(same))
        };
        let _coming = Coming::new(self, hash);
        let noted = self.with_replica(|replica| {
            note_fetched(replica, key, &tree, true, now())?;
            Ok::<_, ReplicaError>(())
        });
        noted.map_err(PutError::from)?;
        let wrote = self.put_online(key, &vec![file.edit()].into(), patience).await;
        let Err(error) = wrote else { return Ok(file) };
        let may_be_done = match &error {
            OnlineError::Unsettled
            | OnlineError::Timeout(_)
            | OnlineError::Forgotten
            | OnlineError::Lost
            | OnlineError::Sync(_)
            | OnlineError::Put(_) => true,
            OnlineError::NeedsConnection(_)
            | OnlineError::NoCatalog
            | OnlineError::Unknown { .. }
            | OnlineError::Misfit(_)
            | OnlineError::TooLong
            | OnlineError::Refused { .. } => false,
        };
        if !may_be_done {
            let forgotten = self.with_replica(|replica| {
                let store = replica.store_mut();
                if !waited {
                    store.take_upload(&hash, key)?;
                }
                if !known {
                    store.take_blob(&hash)?;
                }
                Ok::<_, ReplicaError>(())
            });
            forgotten.map_err(PutError::from)?;
            self.keep_no_more(&hash)?;
        }
        Err(error.into())
    }

    /// Keeps the bytes of a file for a field that takes it; no record names it yet.
    fn keep(
        &self,
        key: &RecordKey,
        field: &str,
        path: &Path,
        name: Option<&str>,
        media: Option<&str>,
    ) -> Result<Kept, AttachError> {
        let attachments = self.attachment_field(key, field)?;
        let view = self.as_merged(key)?.filter(|view| !view.deleted);
        let view = view.ok_or_else(|| PutError::Absent(key.clone()))?;
        let unread = |error| AttachError::Read { path: path.to_owned(), error };
        let mut source = File::open(path).map_err(unread)?;
        let metadata = source.metadata().map_err(unread)?;
        if !metadata.is_file() {
            return Err(unread(std::io::Error::other("it is no file")));
        }
        let own = || path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.map(str::to_owned).or_else(own).ok_or(AttachError::Name)?;
        if name.is_empty() || name.len() > fieldkeep_catalog::NAME_MAX {
            return Err(AttachError::Name);
        }
        let media = media.map_or_else(|| media_of(&name), |media| media.to_ascii_lowercase());
        let size = metadata.len();
        let unfit = |why| AttachError::Unfit { field: field.to_owned(), why };
        attachments.check(&media, size).map_err(unfit)?;
        let files = BlobFiles::of(self.directory());
        let tree = if attachments.location == Location::Strip && location::may_say(&media) {
            let cleared = cleared(&mut source, size).map_err(|error| match error {
                Uncleared::Read(error) => unread(error),
                Uncleared::Place(why) => AttachError::Place { path: path.to_owned(), why },
            })?;
            files.add(&mut &cleared[..], cleared.len() as u64, drawn()?)?
        } else {
            files.add(&mut source, size, drawn()?)?
        };
        let (hash, size) = (tree.hash(), tree.size());
        let file = AttachedFile { field: field.to_owned(), hash, name, media, size };
        Ok(Kept { view, attachments, file, tree })
    }

    /// Lets go of a file that was kept and that no record names after all.
    fn keep_no_more(&self, hash: &BlobHash) -> Result<(), StoreError> {
        if !self.engine().replica().store().has_blob(hash)? {
            BlobFiles::of(self.directory()).remove(hash)?;
        }
        Ok(())
    }

    fn attachment_field(&self, key: &RecordKey, field: &str) -> Result<Attachments, AttachError> {
        let catalog = self.catalog().ok_or(PutError::NoCatalog)?;
        let object = catalog.ty(&key.ty);
        let found = object.and_then(|object| object.fields.get(field)?.attachments.clone());
        found.ok_or_else(|| {
            let fields = object.into_iter().flat_map(|object| &object.fields);
            let fields = fields.filter(|(_, field)| field.kind == Kind::Attachment);
            let fields = fields.map(|(name, _)| name.clone()).collect();
            AttachError::NoField { ty: key.ty.clone(), field: field.to_owned(), fields }
        })
    }
}

/// A file whose bytes are kept for a record.
struct Kept {
    view: RecordView,
    attachments: Attachments,
    file: AttachedFile,
    tree: BlobTree,
}

/// A file that the relay is asked to name: it is not sent as long as this is there.
struct Coming<'d> {
    device: &'d Device,
    hash: BlobHash,
}

impl<'d> Coming<'d> {
    fn new(device: &'d Device, hash: BlobHash) -> Self {
        device.0.transfers.open().coming.insert(hash);
        Self { device, hash }
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.device.0.transfers.open().coming.remove(&self.hash);
        self.device.0.transfers.look();
    }
}

/// Why a picture was not read without its place.
enum Uncleared {
    Read(std::io::Error),
    Place(LocationError),
}

/// A picture without its place, in memory.
fn cleared(source: &mut File, size: u64) -> Result<Vec<u8>, Uncleared> {
    if size > location::LARGEST {
        return Err(Uncleared::Place(LocationError::Unknown));
    }
    let mut picture = Vec::new();
    source.take(location::LARGEST).read_to_end(&mut picture).map_err(Uncleared::Read)?;
    location::without_place(&picture).map_err(Uncleared::Place)
}

/// Whether a record's field has room for one more file.
fn full(
    view: &RecordView,
    attachments: &Attachments,
    file: &AttachedFile,
) -> Result<(), AttachError> {
    let held = view.fields.get(&file.field).and_then(serde_json::Value::as_array);
    let held = held.map_or(&[][..], Vec::as_slice);
    let hash = file.hash.to_string();
    let again = held.iter().any(|child| child["id"].as_str() == Some(&hash));
    if !again && held.len() as u64 >= attachments.max_count {
        return Err(AttachError::Full { field: file.field.clone(), most: attachments.max_count });
    }
    Ok(())
}

/// The media type that a name's ending says.
fn media_of(name: &str) -> String {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    match ending.as_deref().unwrap_or_default() {
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "heic" => "image/heic",
        "svg" => "image/svg+xml",
        "pdf" => "application/pdf",
        "txt" | "log" => "text/plain",
        "csv" => "text/csv",
        "json" => "application/json",
        "zip" => "application/zip",
        "mp4" => "video/mp4",
        "mov" => "video/quicktime",
        "mp3" => "audio/mpeg",
        "m4a" => "audio/mp4",
        "wav" => "audio/wav",
        "doc" => "application/msword",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xls" => "application/vnd.ms-excel",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        _ => "application/octet-stream",
    }
    .to_owned()
}
