//! Files that the relay removed because nothing referred to them: a device hears of those that it may
//! know of, and brings back what a record names again and it has itself.

use fieldkeep_link::carrier::Sender;
use fieldkeep_model::{BlobHash, Epoch};
use fieldkeep_protocol::blob::{Removals as Asked, Removed};
use fieldkeep_protocol::{FileFrame, priority};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Blobs as _, Removals as _, RemovedBlob, Settings as _, StoreError, Upload};
use fieldkeep_transfer::{Talk, TransferError};

use super::exchange::disk;
use crate::device::Device;

/// The setting that says how much was heard: of which relay's epoch and by which permissions (32), and
/// through which number (8).
const HEARD: &str = "removals";

/// How a removed file is told, by when that was in milliseconds UTC: attachment removed on 2026-11-29.
///
/// ```
/// assert_eq!(fieldkeep_device::removed_on(1_795_910_400_000), "attachment removed on 2026-11-29");
/// ```
#[must_use]
pub fn removed_on(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => format!("attachment removed on {}", time.strftime("%Y-%m-%d")),
        Err(_) => "attachment removed".to_owned(),
    }
}

impl Device {
    /// When the relay removed a file that is not here, milliseconds UTC, as far as this device has
    /// heard of it.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let photo = device.directory().join("front.txt");
    /// std::fs::write(&photo, "the shelf, as seen from the door")?;
    /// let attached = device.attach(&"customer/c1".parse()?, "photos", &photo, None, None)?;
    /// assert_eq!(device.removed(&attached.hash)?, None); // It is here.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn removed(&self, hash: &BlobHash) -> Result<Option<i64>, StoreError> {
        self.engine().replica().store().removal(hash)
    }

    /// Hears what the relay removed, for as long as this is polled: once on a connection, where there is
    /// anything to hear.
    pub(super) async fn hear_of_removed(&self, sender: &Sender) {
        let mut told = self.0.transfers.told.subscribe();
        loop {
            let looked = self.0.transfers.looked.notified();
            if self.has_removed_to_hear().unwrap_or(false) {
                if let Err(error) = self.hear_removed(sender).await {
                    tracing::debug!(%error, "what the relay removed was not heard");
                    self.0.transfers.open().unheard = true;
                }
                self.0.transfers.look();
                self.0.transfers.has_ended();
            }
            tokio::select! {
                () = looked => {}
                // This device holds the other end.
                _ = told.changed() => {}
            }
        }
    }

    /// Whether the relay has removed something that was not heard.
    pub(super) fn has_removed_to_hear(&self) -> Result<bool, StoreError> {
        let given_up = self.0.transfers.open().unheard;
        Ok(!given_up && !self.files_paused()? && self.removed_since()?.is_some())
    }

    /// Behind which number it is to be asked, if it is.
    fn removed_since(&self) -> Result<Option<u64>, StoreError> {
        let Some((epoch, _, told)) = *self.0.transfers.told.borrow() else { return Ok(None) };
        let (by, heard) = self.heard()?;
        let same = by == self.hears_by(epoch);
        let since = if same { heard } else { 0 };
        Ok((since < told || !same && heard > 0).then_some(since))
    }

    fn heard(&self) -> Result<([u8; 32], u64), StoreError> {
        let kept = self.engine().replica().store().setting(HEARD)?.unwrap_or_default();
        let parts = kept
            .split_first_chunk()
            .and_then(|(by, number)| Some((*by, u64::from_be_bytes(number.try_into().ok()?))));
        Ok(parts.unwrap_or_default())
    }

    /// What is heard depends on the relay's epoch, and on what this device may read.
    fn hears_by(&self, epoch: Epoch) -> [u8; 32] {
        let engine = self.engine();
        let replica = engine.replica();
        let member = replica.members().author(&replica.me().actor());
        let grants = member.map(|member| &member.grants);
        let by = minicbor::to_vec((epoch, grants)).expect("encoding into memory cannot fail");
        *blake3::hash(&by).as_bytes()
    }

    async fn hear_removed(&self, sender: &Sender) -> Result<(), TransferError> {
        while let Some(since) = self.removed_since()? {
            let mut talk = Talk::over(sender.open_lane(priority::BLOB).await?);
            talk.say(&FileFrame::Removals(Asked { since })).await?;
            let FileFrame::Removed(removed) = talk.hear().await? else {
                return Err(TransferError::Nonsense);
            };
            let Some((epoch, _, told)) = *self.0.transfers.told.borrow() else { return Ok(()) };
            if removed.number <= since && since < told {
                return Err(TransferError::Nonsense);
            }
            let heard = [&self.hears_by(epoch)[..], &removed.number.to_be_bytes()].concat();
            self.keep_removed(&removed, Some((since, &heard)))?;
        }
        Ok(())
    }

    /// Keeps which files were removed, and how much was heard by that.
    pub(super) fn keep_removed(
        &self,
        removed: &Removed,
        heard: Option<(u64, &[u8])>,
    ) -> Result<(), StoreError> {
        let kept = self.with_replica(|replica| {
            let store = replica.store_mut();
            if let Some((since, heard)) = heard {
                if since == 0 {
                    store.forget_removals()?;
                }
                store.set(HEARD, heard)?;
            }
            for file in &removed.files {
                let (hash, time, number) = (file.hash, file.time, removed.number);
                store.put_removal(&RemovedBlob { hash, time, number })?;
            }
            Ok::<_, ReplicaError>(())
        });
        kept.map_err(disk)
    }

    /// The next file that the relay removed, that a record names again, and that is here.
    pub(super) fn next_return(&self) -> Result<Option<Upload>, StoreError> {
        let engine = self.engine();
        let store = engine.replica().store();
        let (found, uploads) = (store.returnable()?, store.uploads()?);
        drop(engine);
        for (hash, key) in found {
            let waits = uploads.iter().any(|upload| (upload.hash, &upload.key) == (hash, &key));
            let rests = self.0.transfers.open().rested.contains(&hash);
            if waits || rests || self.paused()?.pauses(&key.ty) {
                continue;
            }
            let view = self.as_merged(&key)?.filter(|view| !view.unsaved);
            let files = view.map(|view| self.files_of(&view)).unwrap_or_default();
            if files.iter().any(|file| file.hash == hash) {
                return Ok(Some(Upload { hash, key, failed: None, time: 0 }));
            }
        }
        Ok(None)
    }
}
