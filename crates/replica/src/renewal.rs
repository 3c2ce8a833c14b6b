//! Renewal: looking at all records of a type again, because what they are judged by has changed.
//!
//! Goes on in slices, beside everything else. What is left to do is on the disk, so that it is
//! done after a restart too; a segment that was begun is begun again then, which states nothing
//! twice.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::{RecordId, SegmentId, TypeName};
use fieldkeep_store::{RecordRow, Records as _, Settings as _, Store, StoreError};

use crate::identity::Role;
use crate::judging::{fields_of, unchanged};
use crate::replica::{Replica, ReplicaError};

/// The setting that holds the segments that are left.
const SETTING: &str = "renewal";

/// What is left: segments, each with the number of the last record that was looked at.
#[derive(Debug, Default)]
pub(crate) struct Renewal(BTreeMap<SegmentId, i64>);

impl Renewal {
    /// What was left when the store was closed.
    pub(crate) fn stored(store: &Store) -> Result<Self, StoreError> {
        let Some(bytes) = store.setting(SETTING)? else { return Ok(Self::default()) };
        let damaged = |_| StoreError::Damaged("what is to be judged again".into());
        let segments: Vec<SegmentId> = minicbor::decode(&bytes).map_err(damaged)?;
        Ok(Self(segments.into_iter().map(|id| (id, 0)).collect()))
    }
}

/// What a slice of a renewal did.
#[derive(Clone, Debug)]
pub struct Renewed {
    /// The segment that was worked on.
    pub segment: SegmentId,
    /// The records that were looked at.
    pub records: Vec<RecordId>,
    /// Segments with verdicts that were not there before.
    pub judged: Vec<SegmentId>,
    /// Whether the segment is done.
    pub complete: bool,
}

impl Replica {
    /// Whether records are left to be looked at again.
    #[must_use]
    pub fn is_renewing(&self) -> bool {
        !self.renewal.0.is_empty()
    }

    /// Of how many segments.
    #[must_use]
    pub fn renewing(&self) -> usize {
        self.renewal.0.len()
    }

    /// Whether records of that segment are.
    #[must_use]
    pub fn is_renewing_in(&self, id: &SegmentId) -> bool {
        self.renewal.0.contains_key(id)
    }

    /// Has all records of those types looked at again.
    pub(crate) fn renew_types(&mut self, types: &[TypeName]) -> Result<(), StoreError> {
        let rows = self.segments.values().filter(|row| types.contains(&row.address.ty));
        let ids = rows.map(|row| row.id).collect();
        self.renew_segments(&ids)
    }

    /// Has all records of those segments looked at again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn renew_segments(&mut self, ids: &BTreeSet<SegmentId>) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.renewal.0.extend(ids.iter().map(|id| (*id, 0)));
        self.save_renewal()
    }

    fn save_renewal(&mut self) -> Result<(), StoreError> {
        let left: Vec<_> = self.renewal.0.keys().copied().collect();
        let bytes = minicbor::to_vec(left).expect("encoding into memory cannot fail");
        self.store.set(SETTING, &bytes)
    }

    /// Looks at a slice of the records that are left: their indexes, and their verdicts on a relay,
    /// their forecasts on a device. Nothing if none are left; a commit must follow.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn renew(&mut self, limit: usize) -> Result<Option<Renewed>, ReplicaError> {
        let Some((segment, after)) = self.renewal.0.iter().next().map(|(id, at)| (*id, *at)) else {
            return Ok(None);
        };
        let rows = match self.segments.get(&segment).filter(|row| !row.damaged) {
            Some(row) => self.store.records_behind(row.sid, after, limit)?,
            None => Vec::new(),
        };
        let complete = rows.len() < limit;
        match rows.last() {
            Some(last) if !complete => drop(self.renewal.0.insert(segment, last.rid)),
            _ => {
                self.renewal.0.remove(&segment);
                self.save_renewal()?;
            }
        }
        let records = rows.iter().map(|row| row.id.clone()).collect();
        let judged = if rows.is_empty() { Vec::new() } else { self.look_again(&segment, rows)? };
        Ok(Some(Renewed { segment, records, judged, complete }))
    }

    fn look_again(
        &mut self,
        id: &SegmentId,
        rows: Vec<RecordRow>,
    ) -> Result<Vec<SegmentId>, ReplicaError> {
        for row in &rows {
            self.index(id, row, true, &fields_of(&row.json))?;
        }
        let subjects = rows.into_iter().map(|row| unchanged(*id, row)).collect();
        match self.me.role {
            Role::Relay => self.issue_verdicts(id, subjects),
            Role::Device => self.forecast_all(subjects).map(|_| Vec::new()),
        }
    }
}
