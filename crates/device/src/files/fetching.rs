//! Fetching a file that somebody asked for.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fieldkeep_model::{BlobHash, RecordKey};
use fieldkeep_store::{BlobFiles, Blobs as _, Removals as _, StoreError};
use tokio::time::timeout;

use super::removed_on;
use crate::device::Device;
use crate::sync::SyncError;

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
    /// Files are paused on this device.
    #[error("files are paused on this device: it was not fetched")]
    Paused,
    /// Nothing of its record is exchanged: the type is paused, or the scope is not subscribed to.
    #[error(
        "{0} is left out of what is exchanged: its type is paused, or its scope is not subscribed to; \
         the file was not fetched"
    )]
    LeftOut(RecordKey),
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

impl Device {
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
                if let Some((_, why)) = why {
                    return Err(removed()?.map_or(FetchError::Refused(why), FetchError::Removed));
                }
                self.may_fetch(key)?;
                // This device holds the other end.
                let _ = ended.changed().await;
            }
        };
        if self.engine().replica().store().has_blob(hash)? {
            return Ok(path);
        }
        self.may_fetch(key)?;
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

    /// Whether files of a record are exchanged at the moment.
    fn may_fetch(&self, key: &RecordKey) -> Result<(), FetchError> {
        if self.files_paused()? {
            return Err(FetchError::Paused);
        }
        if self.engine().is_left_out(key)? {
            return Err(FetchError::LeftOut(key.clone()));
        }
        Ok(())
    }
}
