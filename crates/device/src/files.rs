//! Attached files: kept beside the records that name them, sent after those, fetched when asked for or by
//! rule. Whatever becomes of a file, no change waits for it.

mod attaching;
mod exchange;
mod fetching;
mod location;
mod removed;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fieldkeep_catalog::AttachedFile;
use fieldkeep_model::{BlobHash, Epoch, RecordKey};
use fieldkeep_replica::{RecordView, ReplicaError};
use fieldkeep_store::{BlobFiles, Blobs as _, Removals as _, Settings as _, StoreError, Upload};
use tokio::sync::{Notify, watch};

pub use attaching::AttachError;
pub use fetching::FetchError;
pub use location::LocationError;
pub use removed::removed_on;

use crate::device::{Device, now};
use crate::engine::PeerId;

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

/// What became of files in a sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilesSynced {
    /// Files that the relay has by it.
    pub sent: u64,
    /// Files that have come.
    pub received: u64,
    /// Files that still wait to be sent.
    pub waiting: u64,
    /// Files that were not taken, or not to be had: a retry tries them again.
    pub failed: u64,
}

/// A file that a record names, and where it stands.
///
/// ```
/// # fieldkeep_lab::camp::example(async |device| {
/// let photo = device.directory().join("front.txt");
/// std::fs::write(&photo, "the shelf")?;
/// let customer = "customer/c1".parse()?;
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
    /// Why some were not fetched, with the record for which each was asked for.
    failed: BTreeMap<BlobHash, (RecordKey, String)>,
    /// Those that were given up on this connection: the next one tries them again.
    rested: BTreeSet<BlobHash>,
    /// Those that the relay is asked to name.
    coming: BTreeSet<BlobHash>,
    /// How many were sent and fetched on the present connection to the relay, or on the last one.
    went: u64,
    came: u64,
    /// How often each connected device did not give a file on its present connection.
    refused: BTreeMap<PeerId, BTreeMap<BlobHash, u32>>,
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

    /// What may be exchanged has changed: who waits for a file looks again, and so does who exchanges them.
    pub(crate) fn turn(&self) {
        self.has_ended();
        self.look();
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
    /// The files of a record, or, where none is given, all that wait to be sent, and all that failed.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let photo = device.directory().join("front.txt");
    /// std::fs::write(&photo, "the shelf")?;
    /// let customer = "customer/c1".parse()?;
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
        let all = key.is_some();
        let keys: Vec<RecordKey> = match key {
            Some(key) => vec![key.clone()],
            None => {
                let uploads = self.engine().replica().store().uploads()?;
                let mut keys: BTreeSet<_> = uploads.into_iter().map(|upload| upload.key).collect();
                let open = self.0.transfers.open();
                keys.extend(open.failed.values().map(|(key, _)| key.clone()));
                drop(open);
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
                found.extend((all || !rests).then_some(one));
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
                (None, None, Some((_, why))) => FileState::Failed(why.clone()),
                (None, None, None) => FileState::Elsewhere,
            },
        };
        Ok(FileView { key: view.key.clone(), file, state, here })
    }

    /// What became of files on the last connection to the relay.
    pub(crate) fn files_synced(&self) -> Result<FilesSynced, StoreError> {
        let [all, refused] = self.engine().replica().store().upload_counts()?;
        let book = self.0.transfers.open();
        Ok(FilesSynced {
            sent: book.went,
            received: book.came,
            waiting: all - refused,
            failed: refused + book.failed.len() as u64,
        })
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
        self.0.transfers.turn();
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
    /// only. Returns what was said before.
    ///
    /// ```
    /// # use fieldkeep_device::{Device, Download};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// # let path = device.directory().to_owned();
    /// # drop(device);
    /// std::fs::write(path.join("device.toml"), "[files]\ndownload = \"unmetered\"\n")?;
    /// let device = Device::open(&path)?;
    /// assert_eq!(device.settings().files.download, Download::Unmetered);
    /// assert!(!device.set_metered(true)); // The telephone's own network: nothing is fetched by rule meanwhile.
    /// # Ok(()) });
    /// ```
    pub fn set_metered(&self, metered: bool) -> bool {
        let before = self.0.transfers.metered.swap(metered, Ordering::Relaxed);
        self.0.transfers.look();
        before
    }
}
