//! Attached files: kept beside the records that name them, sent after those, fetched when asked for or by
//! rule. Whatever becomes of a file, no change waits for it.

mod exchange;
mod location;
mod removed;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fieldkeep_catalog::{AttachedFile, Attachments, Kind, Location, UnfitFile};
use fieldkeep_model::{BlobHash, Epoch, RecordEdit, RecordKey};
use fieldkeep_replica::{PutError, RecordView, Replica, ReplicaError};
use fieldkeep_store::{BlobFiles, Blobs as _, Removals as _, Settings as _, StoreError, Upload};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

pub use location::LocationError;
pub use removed::removed_on;

use crate::device::{Device, drawn, now};
use crate::engine::put_with_files;
use crate::sync::SyncError;

/// The setting that says that no files are exchanged.
const PAUSED: &str = "files_paused";
/// The setting that says when that was said last, milliseconds UTC.
pub(crate) const PAUSED_SINCE: &str = "files_paused_since";

/// Where an attached file stands.
///
/// ```
/// # use fieldkeep_device::FileState;
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// let photo = device.directory().join("front.txt");
/// std::fs::write(&photo, "the shelf")?;
/// let customer = "customer/c1".parse()?;
///
/// device.attach(&customer, "photos", &photo, None, None)?;
/// assert_eq!(device.files(Some(&customer))?[0].state, FileState::WaitingForRecord);
/// device.sync(Duration::from_secs(60)).await?;
/// assert_eq!(device.files(Some(&customer))?[0].state, FileState::Here); // And on the relay.
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// It is sent once the record that names it is on the relay.
    WaitingForRecord,
    /// It is sent with the next connection.
    WaitingForConnection,
    /// It is being sent: so many bytes of it are there.
    Uploading(u64),
    /// It is here, and on the relay.
    Here,
    /// It is not here, and fetched when somebody asks for it.
    Elsewhere,
    /// It is being fetched: so many bytes of it are here.
    Downloading(u64),
    /// It was not taken, or not to be had: why. A retry tries it again.
    Failed(String),
    /// It is not here, and the relay removed it when nothing referred to it: when, milliseconds UTC.
    Removed(i64),
}

/// A file that a record names, and where it stands.
///
/// ```
/// # fieldkeep_lab::camp::example(async |device| {
/// let photo = device.directory().join("front.txt");
/// std::fs::write(&photo, "the shelf")?;
/// let customer = "customer/c1".parse()?;
///
/// device.attach(&customer, "photos", &photo, None, None)?;
/// let views = device.files(Some(&customer))?;
/// assert_eq!((views[0].file.name.as_str(), views[0].file.size, views[0].here), ("front.txt", 9, true));
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileView {
    /// The record.
    pub key: RecordKey,
    /// The file, as the record names it.
    pub file: AttachedFile,
    /// Where it stands.
    pub state: FileState,
    /// Whether all of it is here.
    pub here: bool,
}

/// Why a file was not attached; nothing was changed.
///
/// ```
/// # use fieldkeep_device::AttachError;
/// # fieldkeep_lab::camp::example(async |device| {
/// let photo = device.directory().join("front.txt");
/// std::fs::write(&photo, "the shelf")?;
/// let customer = "customer/c1".parse()?;
///
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
    /// The disk refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn known(fields: &[String]) -> String {
    if fields.is_empty() { String::new() } else { format!(": {} does", fields.join(", ")) }
}

/// Why a file was not fetched.
///
/// ```
/// # use fieldkeep_device::FetchError;
/// # use fieldkeep_model::BlobHash;
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// let (customer, hash) = ("customer/c1".parse()?, BlobHash([7; 32]));
/// let refused = device.fetch(&customer, &hash, Duration::from_secs(60)).await;
/// assert!(matches!(refused, Err(FetchError::Absent(_)))); // No record here names it.
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No record here names it.
    #[error("{0} has no such file")]
    Absent(RecordKey),
    /// It is not here, and the relay removed it when nothing referred to it: when, milliseconds UTC.
    #[error("{}", removed_on(*.0))]
    Removed(i64),
    /// It is not here, and nobody gave it.
    #[error("the file is not on this device, and was not to be had: {0}")]
    Refused(String),
    /// It took too long.
    #[error(
        "the file did not come within {} s; what came of it is kept, and it goes on there",
        .0.as_secs()
    )]
    Timeout(Duration),
    /// There is no connection.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The disk fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Files on their way, of one device.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    book: Mutex<Book>,
    /// Somebody should look whether there is something to do.
    looked: Notify,
    /// Something has come to its end.
    ended: watch::Sender<u64>,
    /// Whether the present connection is paid by the byte.
    metered: AtomicBool,
    /// What the relay of the present connection has said of how much it removed.
    told: watch::Sender<Option<Told>>,
}

/// In which epoch, with how long a membership log here, and through which number.
type Told = (Epoch, u64, u64);

#[derive(Debug, Default)]
struct Book {
    /// Bytes of those that are sent.
    sending: BTreeMap<BlobHash, u64>,
    /// Bytes of those that are fetched.
    fetching: BTreeMap<BlobHash, u64>,
    /// Those that somebody waits for, with a record that names each.
    wanted: BTreeMap<BlobHash, RecordKey>,
    /// Why some were not fetched.
    failed: BTreeMap<BlobHash, String>,
    /// Those that were given up on this connection: the next one tries them again.
    rested: BTreeSet<BlobHash>,
    /// Whether it was given up to hear what the relay removed, likewise.
    unheard: bool,
}

impl Transfers {
    fn open(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes when something has come to its end.
    pub(crate) fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// A file has come in another way than over a connection.
    pub(crate) fn has_come(&self, hash: &BlobHash) {
        self.open().failed.remove(hash);
        self.has_ended();
        self.look();
    }

    fn has_ended(&self) {
        self.ended.send_modify(|times| *times += 1);
    }

    /// Takes over what the relay said of how much it has removed.
    pub(crate) fn tell(&self, told: Option<Told>) {
        self.told.send_if_modified(|known| std::mem::replace(known, told) != told);
    }

    /// Has whoever exchanges files look for something to do.
    pub(crate) fn look(&self) {
        self.looked.notify_waiters();
    }
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
        let attached = AttachedFile { field: field.to_owned(), hash, name, media, size };
        let wrote = full(&view, field, &attachments, &hash).and_then(|()| {
            let edit: RecordEdit = vec![attached.edit()].into();
            let put = |replica: &mut Replica| {
                Ok(vec![put_with_files(replica, key, &edit, Some(&tree), now())?])
            };
            self.write_all::<PutError>(put)?;
            Ok(())
        });
        if let Err(error) = wrote {
            if !self.engine().replica().store().has_blob(&hash)? {
                files.remove(&hash)?;
            }
            return Err(error);
        }
        Ok(attached)
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

    /// The files of a record, or, where none is given, all that wait to be sent or failed.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let photo = device.directory().join("front.txt");
    /// std::fs::write(&photo, "the shelf")?;
    /// let customer = "customer/c1".parse()?;
    ///
    /// device.attach(&customer, "photos", &photo, None, None)?;
    /// assert_eq!(device.files(None)?.len(), 1); // It waits.
    /// device.sync(Duration::from_secs(60)).await?;
    /// assert_eq!((device.files(None)?.len(), device.files(Some(&customer))?.len()), (0, 1));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn files(&self, key: Option<&RecordKey>) -> Result<Vec<FileView>, StoreError> {
        let keys: Vec<RecordKey> = match key {
            Some(key) => vec![key.clone()],
            None => {
                let uploads = self.engine().replica().store().uploads()?;
                let keys: BTreeSet<_> = uploads.into_iter().map(|upload| upload.key).collect();
                keys.into_iter().collect()
            }
        };
        let mut found = Vec::new();
        for key in &keys {
            let Some(view) = self.as_merged(key)? else { continue };
            for file in self.files_of(&view) {
                let one = self.file_view(&view, file)?;
                let rests = matches!(
                    one.state,
                    FileState::Here | FileState::Elsewhere | FileState::Removed(_)
                );
                let waits = !rests;
                found
                    .extend((waits || keys.len() == 1 && keys.first() == Some(key)).then_some(one));
            }
        }
        Ok(found)
    }

    /// The files that a record names, as merged.
    fn files_of(&self, view: &RecordView) -> Vec<AttachedFile> {
        let catalog = self.catalog();
        let object = catalog.as_ref().and_then(|catalog| catalog.ty(&view.key.ty));
        object.map(|object| object.files(&view.fields)).unwrap_or_default()
    }

    fn file_view(&self, view: &RecordView, file: AttachedFile) -> Result<FileView, StoreError> {
        let engine = self.engine();
        let store = engine.replica().store();
        let here = store.has_blob(&file.hash)?;
        let uploads = store.uploads()?.into_iter();
        let upload =
            uploads.into_iter().find(|upload| (upload.hash, &upload.key) == (file.hash, &view.key));
        let removed = store.removal(&file.hash)?;
        drop(engine);
        let book = self.0.transfers.open();
        let state = match upload {
            Some(Upload { failed: Some(why), .. }) => FileState::Failed(why),
            Some(_) if view.unsaved => FileState::WaitingForRecord,
            Some(_) => match book.sending.get(&file.hash) {
                Some(sent) => FileState::Uploading(*sent),
                None => FileState::WaitingForConnection,
            },
            None if here => FileState::Here,
            None => match (book.fetching.get(&file.hash), removed, book.failed.get(&file.hash)) {
                (Some(got), ..) => FileState::Downloading(*got),
                (None, Some(time), _) => FileState::Removed(time),
                (None, None, Some(why)) => FileState::Failed(why.clone()),
                (None, None, None) => FileState::Elsewhere,
            },
        };
        Ok(FileView { key: view.key.clone(), file, state, here })
    }

    /// Where a file of a record lies on this device, once it is here: fetched now if it is not.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let photo = device.directory().join("front.txt");
    /// std::fs::write(&photo, "the shelf")?;
    /// let customer = "customer/c1".parse()?;
    /// let attached = device.attach(&customer, "photos", &photo, None, None)?;
    /// let path = device.fetch(&customer, &attached.hash, Duration::from_secs(60)).await?;
    /// assert_eq!(std::fs::read_to_string(path)?, "the shelf");
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(
        &self,
        key: &RecordKey,
        hash: &BlobHash,
        patience: Duration,
    ) -> Result<PathBuf, FetchError> {
        let named = self.engine().files_named(key)?;
        let removed = || self.engine().replica().store().removal(hash);
        if !named.iter().any(|file| file.hash == *hash) {
            // An older state may name it.
            let absent = || FetchError::Absent(key.clone());
            return Err(removed()?.map_or_else(absent, FetchError::Removed));
        }
        let path = BlobFiles::of(self.directory()).path(hash);
        let mut ended = self.0.transfers.ended();
        let waiting = async {
            loop {
                if self.engine().replica().store().has_blob(hash)? {
                    return Ok(());
                }
                let why = self.0.transfers.open().failed.get(hash).cloned();
                if let Some(why) = why {
                    return Err(removed()?.map_or(FetchError::Refused(why), FetchError::Removed));
                }
                // This device holds the other end.
                let _ = ended.changed().await;
            }
        };
        if self.engine().replica().store().has_blob(hash)? {
            return Ok(path);
        }
        {
            let mut book = self.0.transfers.open();
            book.failed.remove(hash);
            book.rested.remove(hash);
            book.wanted.insert(*hash, key.clone());
        }
        self.0.transfers.look();
        let connected = self.is_online() || self.0.has_peers();
        let fetched = if connected || self.0.kept.load(Ordering::Relaxed) > 0 {
            timeout(patience, waiting).await.unwrap_or(Err(FetchError::Timeout(patience)))
        } else {
            // Nobody else has a session: this one lasts until it is here.
            match self.sync(patience).await {
                Ok(_) => timeout(Duration::ZERO, waiting)
                    .await
                    .unwrap_or_else(|_| Err(FetchError::Refused("nobody gave it".into()))),
                Err(error) => Err(removed()?.map_or(error.into(), FetchError::Removed)),
            }
        };
        self.0.transfers.open().wanted.remove(hash);
        fetched.map(|()| path)
    }

    /// Where a file lies on this device, if it is here whole.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let photo = device.directory().join("front.txt");
    /// std::fs::write(&photo, "the shelf")?;
    /// let attached = device.attach(&"customer/c1".parse()?, "photos", &photo, None, None)?;
    /// assert_eq!(std::fs::read(device.file_path(&attached.hash))?, b"the shelf");
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn file_path(&self, hash: &BlobHash) -> PathBuf {
        BlobFiles::of(self.directory()).path(hash)
    }

    /// Tries again what failed: files that the relay did not take, and those that were not to be had.
    /// Returns how many.
    ///
    /// ```
    /// # use fieldkeep_device::FileState;
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let photo = device.directory().join("front.txt");
    /// std::fs::write(&photo, "the shelf")?;
    /// let customer = "customer/c1".parse()?;
    ///
    /// let attached = device.attach(&customer, "photos", &photo, None, None)?;
    /// let kept = device.file_path(&attached.hash);
    /// std::fs::write(&kept, "the shelv")?; // The disk has rotted, and nobody takes that.
    /// device.sync(Duration::from_secs(60)).await?;
    /// assert!(matches!(device.files(None)?[0].state, FileState::Failed(_)));
    /// std::fs::write(&kept, "the shelf")?;
    /// assert_eq!(device.retry_files()?, 1);
    /// device.sync(Duration::from_secs(60)).await?;
    /// assert!(device.files(None)?.is_empty());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn retry_files(&self) -> Result<u64, ReplicaError> {
        let uploads = self
            .with_replica(|replica| Ok::<_, ReplicaError>(replica.store_mut().retry_uploads()?))?;
        let mut book = self.0.transfers.open();
        book.rested.clear();
        let downloads = std::mem::take(&mut book.failed).len() as u64;
        drop(book);
        self.0.transfers.look();
        Ok(uploads + downloads)
    }

    /// Exchanges no files until they are resumed; records go on. Kept over restarts.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let photo = device.directory().join("front.txt");
    /// std::fs::write(&photo, "the shelf")?;
    /// let customer = "customer/c1".parse()?;
    ///
    /// device.pause_files(true)?;
    /// device.attach(&customer, "photos", &photo, None, None)?;
    /// device.sync(Duration::from_secs(60)).await?; // The record goes, and its file stays.
    /// assert_eq!((device.status()?.unsaved(), device.status()?.files), (0, 1));
    /// assert!(!device.status()?.is_synced());
    /// device.pause_files(false)?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn pause_files(&self, paused: bool) -> Result<(), ReplicaError> {
        self.with_replica(|replica| {
            let store = replica.store_mut();
            if store.setting(PAUSED)?.as_deref() != Some(&[u8::from(paused)]) {
                store.set(PAUSED, &[u8::from(paused)])?;
                store.set(PAUSED_SINCE, now().to_string().as_bytes())?;
            }
            Ok::<_, ReplicaError>(())
        })?;
        self.0.transfers.look();
        self.0.tell_status();
        Ok(())
    }

    /// Whether files are paused.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// assert!(!device.files_paused()?);
    /// device.pause_files(true)?;
    /// assert!(device.files_paused()?); // After a restart, too.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn files_paused(&self) -> Result<bool, StoreError> {
        Ok(self.engine().replica().store().setting(PAUSED)?.as_deref() == Some(&[1]))
    }

    /// Says whether the present connection is paid by the byte: by rule files may be fetched on others
    /// only.
    ///
    /// ```
    /// # use fieldkeep_device::{Device, Download};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// # let path = device.directory().to_owned();
    /// # drop(device);
    /// std::fs::write(path.join("device.toml"), "[files]\ndownload = \"unmetered\"\n")?;
    /// let device = Device::open(&path)?;
    /// assert_eq!(device.settings().files.download, Download::Unmetered);
    /// device.set_metered(true); // The telephone's own network: nothing is fetched by rule meanwhile.
    /// # Ok(()) });
    /// ```
    pub fn set_metered(&self, metered: bool) {
        self.0.transfers.metered.store(metered, Ordering::Relaxed);
        self.0.transfers.look();
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

/// Whether a field has room for one more file.
fn full(
    view: &RecordView,
    field: &str,
    attachments: &Attachments,
    hash: &BlobHash,
) -> Result<(), AttachError> {
    let held = view.fields.get(field).and_then(serde_json::Value::as_array);
    let held = held.map_or(&[][..], Vec::as_slice);
    let hash = hash.to_string();
    let again = held.iter().any(|child| child["id"].as_str() == Some(&hash));
    if !again && held.len() as u64 >= attachments.max_count {
        return Err(AttachError::Full { field: field.to_owned(), most: attachments.max_count });
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
