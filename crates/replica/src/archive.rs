//! Generations that are over: what is in them, and taking them out once a verified file has them.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_documents::Record;
use fieldkeep_model::{Chain, Pos, RecordId, SegmentAddress, SegmentId};
use fieldkeep_store::{Generations as _, Log as _, StoreError};

use crate::acceptance::ACCEPTED;
use crate::replica::{Replica, ReplicaError};

/// A segment of a generation that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastSegment {
    /// The segment.
    pub id: SegmentId,
    /// What it holds.
    pub address: SegmentAddress,
    /// How many changes its log has.
    pub tip: Pos,
    /// The chain after the last.
    pub chain: Chain,
    /// How many records they come to.
    pub records: u64,
    /// How many of the changes are not carried over.
    pub late: u64,
    /// How many changes lie aside of it, and would be carried over if they were permitted.
    pub aside: u64,
}

impl Replica {
    /// The segments of generations that are over.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn past(&self) -> Result<Vec<PastSegment>, StoreError> {
        let mut asides: BTreeMap<i64, u64> = BTreeMap::new();
        for aside in self.store.asides()?.iter().filter(|aside| aside.reason != ACCEPTED) {
            *asides.entry(aside.sid).or_default() += 1;
        }
        let past = self.segments.values().filter(|row| self.is_past(&row.address));
        let past = past.filter(|row| row.tip > 0 || asides.contains_key(&row.sid));
        let past = past.map(|row| {
            let apart = self.apart(&row.id);
            PastSegment {
                aside: asides.get(&row.sid).copied().unwrap_or_default(),
                id: row.id,
                address: row.address.clone(),
                tip: row.tip,
                chain: row.chain,
                records: apart.records,
                late: row.tip.saturating_sub(apart.done),
            }
        });
        Ok(past.collect())
    }

    /// The records of a segment of a generation that is over, as they stand in it.
    ///
    /// # Errors
    /// When the segment cannot be merged.
    pub fn read_past(&mut self, id: &SegmentId) -> Result<Vec<(RecordId, Record)>, ReplicaError> {
        let document = self.document(id)?;
        let ids = document.ids().into_iter();
        Ok(ids.filter_map(|id| Some((id.clone(), document.record(&id)?))).collect())
    }

    /// Takes segments of generations that are over out, which a verified file has to there. Nothing that
    /// arrives for them is taken any more. A commit must follow. Returns how many there were; nothing of
    /// it is done where one has grown since, is not carried over, or has something that lies aside.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_past(
        &mut self,
        archived: &[(SegmentId, Pos, Chain)],
    ) -> Result<Option<u64>, ReplicaError> {
        let past = self.past()?;
        let stands = |(id, tip, chain): &(SegmentId, Pos, Chain)| {
            let mut same = past.iter().filter(|past| past.id == *id);
            same.any(|past| (past.tip, past.chain, past.late, past.aside) == (*tip, *chain, 0, 0))
        };
        if !archived.iter().all(stands) {
            return Ok(None);
        }
        for (id, ..) in archived {
            self.store.note_archived(id)?;
            self.archived.insert(*id);
            self.apart.remove(id);
            self.remove_segment(id)?;
        }
        Ok(Some(archived.len() as u64))
    }

    /// The segments that were taken out whose ids begin with those bytes.
    #[must_use]
    pub fn archived_beginning(&self, short: &[u8; 8]) -> Option<SegmentId> {
        let mut first = [0; 16];
        first[..8].copy_from_slice(short);
        let id = self.archived.range(SegmentId(first)..).next()?;
        id.0.starts_with(short).then_some(*id)
    }

    pub(crate) fn recall_archived(&mut self) -> Result<(), StoreError> {
        self.archived = self.store.archived()?.into_iter().collect::<BTreeSet<_>>();
        Ok(())
    }
}
