//! What is stored of each device, and what becomes of more than may be: further changes are kept aside, and
//! files are refused with a reason. What is stored already stays.
//!
//! Bytes of the log are counted where it grows, and kept with it. A file counts for whoever brought it, from
//! when that began: what was begun and left counts until it is cleared away.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::{BlobHash, DeviceNumber, PublicKey};
use fieldkeep_replica::{OverQuota, ReplicaError};
use fieldkeep_store::{ABANDONED, Blobs as _, Log as _, Settings as _, StoreError};

use super::Engine;
use crate::limits::{Holding, Limits, Refused, Report, Share, Stored};

/// Where it is noted that the log was counted.
const COUNTED: &str = "stored";
/// Under this and a device's number: the bytes of its changes in the log.
const LOG: &str = "stored ";
/// Under this and a hash: who began to bring a file, its length, and when.
const BEGUN: &str = "begun ";

/// The books of what is stored.
#[derive(Debug, Default)]
pub(super) struct Storage {
    device: Option<Share>,
    organisation: Option<Share>,
    /// Whether the log was ever counted.
    counted: bool,
    log: BTreeMap<DeviceNumber, u64>,
    /// Bytes of files by who brought them, and of all: counted when that is first asked.
    files: Option<(BTreeMap<DeviceNumber, u64>, u64)>,
    begun: BTreeMap<BlobHash, Begun>,
    refused: BTreeMap<DeviceNumber, Refused>,
}

/// A file that somebody has begun to bring.
#[derive(Clone, Copy, Debug)]
struct Begun {
    device: DeviceNumber,
    size: u64,
    time: i64,
}

impl Begun {
    fn to_bytes(self) -> Vec<u8> {
        [self.device.to_be_bytes(), self.size.to_be_bytes(), self.time.to_be_bytes()].concat()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let time = number(16)?.cast_signed();
        Some(Self { device: number(0)?, size: number(8)?, time })
    }
}

impl Engine {
    /// From now on these limits hold for what is stored and for what stays in memory: what lay aside for want
    /// of room and has it by now is admitted. A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn limit(&mut self, limits: &Limits) -> Result<(), ReplicaError> {
        self.replica.limit_memory(usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX));
        self.storage.device = Some(limits.device.clone());
        self.storage.organisation = Some(limits.organisation.clone());
        self.read_stored()?;
        self.judge_quota();
        for segment in self.replica.readmit_within_quota()? {
            self.has_grown(&segment)?;
        }
        Ok(())
    }

    /// Counts the log, if that was never done: it was written by a version that did not.
    ///
    /// # Errors
    /// When the store fails.
    pub fn count_stored(&mut self) -> Result<(), ReplicaError> {
        self.read_stored()?;
        if self.storage.counted {
            return Ok(());
        }
        self.replica.take_appended();
        for (device, bytes) in self.replica.log_bytes()? {
            self.replica.store_mut().set(&format!("{LOG}{device}"), &bytes.to_be_bytes())?;
        }
        self.replica.store_mut().set(COUNTED, &[1])?;
        Ok(self.read_stored()?)
    }

    /// Reads what is on the disk.
    pub(super) fn read_stored(&mut self) -> Result<(), StoreError> {
        let store = self.replica.store();
        let logs = store.settings_under(LOG)?.into_iter().filter_map(|(key, bytes)| {
            Some((key.parse().ok()?, u64::from_be_bytes(bytes.try_into().ok()?)))
        });
        self.storage.log = logs.collect();
        let begun = store.settings_under(BEGUN)?.into_iter();
        let begun =
            begun.filter_map(|(key, bytes)| Some((key.parse().ok()?, Begun::read(&bytes)?)));
        self.storage.begun = begun.collect();
        self.storage.counted = store.setting(COUNTED)?.is_some();
        self.storage.files = None;
        Ok(())
    }

    /// Notes by how much the log has grown, in the transaction that is under way.
    pub(super) fn note_stored(&mut self) -> Result<(), StoreError> {
        let appended = self.replica.take_appended();
        if appended.is_empty() || !self.storage.counted {
            return Ok(());
        }
        for (device, more) in appended {
            let bytes = self.storage.log.entry(device).or_default();
            *bytes += more;
            let bytes = bytes.to_be_bytes();
            self.replica.store_mut().set(&format!("{LOG}{device}"), &bytes)?;
        }
        self.judge_quota();
        Ok(())
    }

    /// Finds out of whom as much is in the log as may be.
    fn judge_quota(&mut self) {
        let log_bytes = |share: &Option<Share>| share.as_ref().and_then(|share| share.log_bytes);
        let (each, all) = (log_bytes(&self.storage.device), log_bytes(&self.storage.organisation));
        let over = |bytes: u64, most: Option<u64>| most.is_some_and(|most| bytes >= most);
        let log = &self.storage.log;
        let devices = log.iter().filter(|(_, bytes)| over(**bytes, each));
        let devices = devices.map(|(device, _)| *device).collect();
        let everybody = over(log.values().sum(), all);
        self.replica.set_over_quota(OverQuota { devices, everybody });
    }

    /// Why there is no room for a file that a device brings; nothing if there is.
    pub(super) fn no_room(
        &mut self,
        device: DeviceNumber,
        hash: &BlobHash,
        size: u64,
    ) -> Result<Option<String>, StoreError> {
        let file_bytes = |share: &Option<Share>| share.as_ref().and_then(|share| share.file_bytes);
        let each = file_bytes(&self.storage.device);
        let all = file_bytes(&self.storage.organisation);
        if each.is_none() && all.is_none() {
            return Ok(None);
        }
        self.clear_begun()?;
        let begun = self.storage.begun.iter().filter(|(other, _)| *other != hash);
        let begun: Vec<Begun> = begun.map(|(_, begun)| *begun).collect();
        let (files, whole) = self.files_stored()?;
        let begun_by = |of: Option<DeviceNumber>| -> u64 {
            let theirs = begun.iter().filter(|begun| of.is_none_or(|of| begun.device == of));
            theirs.map(|begun| begun.size).sum()
        };
        let own = files.get(&device).copied().unwrap_or(0) + begun_by(Some(device));
        let together = whole + begun_by(None);
        let mut why = None;
        for (whose, used, most) in
            [("this device", own, each), ("all devices together", together, all)]
        {
            if most.is_some_and(|most| used.saturating_add(size) > most) {
                why.get_or_insert(format!(
                    "the relay has no room for it: {whose} may store {} bytes of files there, {used} are \
                     used, and this one has {size}; it stays on this device, and goes up after \
                     `attachments retry` once whoever runs the relay has made room",
                    most.unwrap_or_default(),
                ));
            }
        }
        if why.is_some() {
            let refused = self.storage.refused.entry(device).or_default();
            refused.files += 1;
            refused.last_ms = Some(self.now);
            self.metrics().limited_files.inc();
        }
        Ok(why)
    }

    fn files_stored(&mut self) -> Result<&(BTreeMap<DeviceNumber, u64>, u64), StoreError> {
        if self.storage.files.is_none() {
            let store = self.replica.store();
            self.storage.files = Some((store.blob_bytes_by_member()?, store.blob_bytes()?));
        }
        Ok(self.storage.files.get_or_insert_default())
    }

    /// A member shows that a file is his: from now on it counts for him too.
    pub(super) fn count_file(
        &mut self,
        device: DeviceNumber,
        hash: &BlobHash,
        size: u64,
    ) -> Result<(), StoreError> {
        let store = self.replica.store();
        let (his, here) = (store.is_opened_by(hash, device)?, store.has_blob(hash)?);
        if let Some((files, whole)) = &mut self.storage.files {
            *files.entry(device).or_default() += if his { 0 } else { size };
            *whole += if here { 0 } else { size };
        }
        Ok(())
    }

    /// Files went: what is left is counted when that is asked next.
    pub(super) fn files_went(&mut self) {
        self.storage.files = None;
    }

    /// Somebody begins to bring a file, or goes on with it: its room is taken.
    pub(super) fn file_begins(
        &mut self,
        device: DeviceNumber,
        hash: &BlobHash,
        size: u64,
    ) -> Result<(), StoreError> {
        let begun = Begun { device, size, time: self.now };
        self.replica.store_mut().set(&format!("{BEGUN}{hash}"), &begun.to_bytes())?;
        self.storage.begun.insert(*hash, begun);
        Ok(())
    }

    /// A file is whole: it counts as one.
    pub(super) fn file_is_whole(&mut self, hash: &BlobHash) -> Result<(), StoreError> {
        if self.storage.begun.remove(hash).is_some() {
            self.replica.store_mut().unset(&format!("{BEGUN}{hash}"))?;
        }
        Ok(())
    }

    /// Forgets what was begun and is cleared away by now.
    fn clear_begun(&mut self) -> Result<(), StoreError> {
        let long = i64::try_from(ABANDONED.as_millis()).unwrap_or(i64::MAX);
        let cleared = |begun: &Begun| self.now.saturating_sub(begun.time) >= long;
        let over = self.storage.begun.iter().filter(|(_, begun)| cleared(begun));
        for hash in over.map(|(hash, _)| *hash).collect::<Vec<_>>() {
            self.file_is_whole(&hash)?;
        }
        Ok(())
    }

    /// What is stored of every device, and how that stands to limits; who brought what of late is known
    /// only where the relay serves.
    ///
    /// # Errors
    /// When the store fails.
    pub fn limits_report(&self, limits: Limits) -> Result<Report, StoreError> {
        Ok(Report::at_rest(limits, self.holdings()?))
    }

    pub(crate) fn holdings(&self) -> Result<Vec<Holding>, StoreError> {
        let store = self.replica.store();
        let files = store.blob_bytes_by_member()?;
        let asides = store.aside_bytes_by_device()?;
        let connected: BTreeSet<PublicKey> =
            self.peers.values().filter(|peer| peer.member.is_some()).map(|peer| peer.key).collect();
        let members = self.replica.members().members().values();
        let holdings = members.filter(|member| !member.relay).map(|member| {
            let number = member.number;
            let begun = self.storage.begun.values().filter(|begun| begun.device == number);
            let of = |bytes: &BTreeMap<DeviceNumber, u64>| bytes.get(&number).copied().unwrap_or(0);
            let stored = Stored {
                log_bytes: of(&self.storage.log),
                aside_bytes: of(&asides),
                file_bytes: of(&files),
                begun_bytes: begun.map(|begun| begun.size).sum(),
            };
            Holding {
                number,
                key: member.keys.tls,
                name: member.name.clone(),
                revoked: member.revoked,
                connected: connected.contains(&member.keys.tls),
                stored,
                refused: self.storage.refused.get(&number).copied().unwrap_or_default(),
            }
        });
        Ok(holdings.collect())
    }
}
