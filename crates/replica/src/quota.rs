//! How much is kept of whom, on a relay: counted where the log grows, and what becomes of more than may be.
//!
//! A quota is soft, because whoever met the author may have merged the change already: it is kept aside,
//! unmerged, as one that was not permitted is, and merged once something builds on it. Once there is room
//! again, what lay aside is admitted.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::{ChangeHeader, DeviceNumber, Pos, SegmentId, SignedHead};
use fieldkeep_store::{Aside, Log as _};

use crate::acceptance::{ACCEPTED, NOT_PERMITTED};
use crate::admit::Origin;
use crate::log::Entry;
use crate::replica::{Replica, ReplicaError};

/// Why a change lies aside that too much is stored for already.
pub const OVER_QUOTA: &str = "over_quota";

/// Of whom as much is stored as may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverQuota {
    /// These devices.
    pub devices: BTreeSet<DeviceNumber>,
    /// Everybody.
    pub everybody: bool,
}

impl OverQuota {
    fn has(&self, device: DeviceNumber) -> bool {
        self.everybody || self.devices.contains(&device)
    }
}

/// Whether what lies aside for that reason is merged when something builds on it.
pub(crate) fn may_be_built_on(reason: &str) -> bool {
    [NOT_PERMITTED, ACCEPTED, OVER_QUOTA].contains(&reason)
}

impl Replica {
    /// From now on further changes of these devices are kept aside.
    pub fn set_over_quota(&mut self, over: OverQuota) {
        self.over_quota = over;
    }

    /// Why a change is kept aside instead of being admitted.
    pub(crate) fn kept_back(&self, id: &SegmentId, header: &ChangeHeader) -> Option<&'static str> {
        if !self.is_authorised(id, header) {
            return Some(NOT_PERMITTED);
        }
        self.over_quota.has(header.actor.device()).then_some(OVER_QUOTA)
    }

    /// Bytes of changes that members brought into the log since this was asked last, and of the verdicts
    /// that came of them, by author; in the transaction that is under way.
    pub fn take_appended(&mut self) -> BTreeMap<DeviceNumber, u64> {
        std::mem::take(&mut self.appended)
    }

    /// Counts for the author of a change what is stated because of it: a few bytes to a record that is
    /// held have its last valid content stated again, which everybody gets and nothing deletes.
    pub(crate) fn charge(
        &mut self,
        id: &SegmentId,
        pos: Pos,
        bytes: u64,
    ) -> Result<(), ReplicaError> {
        if let Some((author, ..)) = self.load(id)?.history.change_at(pos) {
            *self.appended.entry(author.device()).or_default() += bytes;
        }
        Ok(())
    }

    /// Bytes of all changes in the log, by author. Reads all of it.
    ///
    /// # Errors
    /// When the disk fails or an entry is damaged.
    pub fn log_bytes(&self) -> Result<BTreeMap<DeviceNumber, u64>, ReplicaError> {
        let mut bytes = BTreeMap::new();
        for row in self.segments.values().filter(|row| !row.damaged) {
            self.each_entry(row.sid, 1, |Entry { header, bytes: chunk, .. }| {
                *bytes.entry(header.actor.device()).or_default() += chunk.len() as u64;
                Ok::<_, ReplicaError>(())
            })?;
        }
        Ok(bytes)
    }

    /// Admits what lies aside because too much was stored of its author, where that is so no more.
    /// Returns the segments that have grown.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn readmit_within_quota(&mut self) -> Result<BTreeSet<SegmentId>, ReplicaError> {
        self.readmit(|replica, aside| {
            aside.reason == OVER_QUOTA && !replica.over_quota.has(aside.actor.device())
        })
    }

    /// Admits what lies aside, is wanted and is authorised.
    pub(crate) fn readmit(
        &mut self,
        wanted: impl Fn(&Self, &Aside) -> bool,
    ) -> Result<BTreeSet<SegmentId>, ReplicaError> {
        let mut grown = BTreeSet::new();
        for aside in self.store.asides()? {
            let Some(row) = self.segment_of(aside.sid) else { continue };
            let (id, sid) = (row.id, row.sid);
            let header = ChangeHeader::parse(&aside.bytes).ok();
            let header = header.filter(|_| wanted(self, &aside));
            // The head may name a later change: nothing vouches for this one without that.
            let Ok(head) = minicbor::decode::<SignedHead>(&aside.head) else { continue };
            let authorised = |header: &ChangeHeader| {
                self.is_authorised(&id, header) && self.is_head_authorised(&id, &head.head)
            };
            let Some(header) = header.filter(authorised) else { continue };
            // What waits for something else stays aside until that builds on it.
            let Ok(admitted) = self.load(&id)?.history.check(&aside.bytes) else { continue };
            self.append(&id, &aside.bytes, admitted, Origin::Peer)?;
            self.store.take_aside(sid, &header.hash)?;
            self.keep_heads(&id, &[head])?;
            self.note_newest(&id, &header.actor, header.seq)?;
            grown.insert(id);
        }
        Ok(grown)
    }
}
