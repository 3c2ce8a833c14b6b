//! Renewal: looking at all records of a type again, because what they are judged by has changed.
//!
//! Goes on in slices, beside everything else. First every record is indexed as the catalog wants it,
//! then each is judged once: so nobody is judged by half an index, and a value that thousands claim
//! is no more work than another. What is left to do is on the disk, so that it is done after a
//! restart too; a segment that was begun is begun again then, which states nothing twice.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::{RecordId, SegmentId, TypeName};
use fieldkeep_store::{RecordRow, Records as _, Segments, Settings, StoreError};
use minicbor::{Decode, Encode};

use crate::identity::Role;
use crate::judging::{fields_of, unchanged};
use crate::replica::{Replica, ReplicaError};

/// The setting that holds the segments that are left.
const SETTING: &str = "renewal";

/// What is left.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    /// Segments to be indexed, with the number of the last record that was.
    indexing: BTreeMap<SegmentId, i64>,
    judging: BTreeMap<SegmentId, Judging>,
    /// How many records there were to be judged when the most of them were left.
    all: u64,
}

/// A segment to be judged.
#[derive(Clone, Copy, Debug)]
struct Judging {
    /// The number of the last record that was.
    after: i64,
    /// Whether that is because of the catalog.
    published: bool,
}

/// What is left, as it is kept.
#[derive(Encode, Decode)]
struct Kept {
    #[n(0)]
    indexing: Vec<SegmentId>,
    #[n(1)]
    published: Vec<SegmentId>,
    #[n(2)]
    others: Vec<SegmentId>,
}

impl Renewal {
    /// What was left when the store was closed.
    pub(crate) fn stored(store: &impl Settings) -> Result<Self, StoreError> {
        let Some(bytes) = store.setting(SETTING)? else { return Ok(Self::default()) };
        let damaged = |_| StoreError::Damaged("what is to be judged again".into());
        let Kept { indexing, published, others } = minicbor::decode(&bytes).map_err(damaged)?;
        let judged = |ids: Vec<SegmentId>, published| {
            ids.into_iter().map(move |id| (id, Judging { after: 0, published }))
        };
        Ok(Self {
            indexing: indexing.into_iter().map(|id| (id, 0)).collect(),
            judging: judged(others, false).chain(judged(published, true)).collect(),
            all: 0,
        })
    }

    pub(crate) fn contains(&self, id: &SegmentId) -> bool {
        self.indexing.contains_key(id) || self.judging.contains_key(id)
    }

    /// Whether every record is indexed as the catalog in force wants it.
    pub(crate) fn is_indexed(&self) -> bool {
        self.indexing.is_empty()
    }

    fn is_done(&self) -> bool {
        self.indexing.is_empty() && self.judging.is_empty()
    }
}

/// What a slice of a renewal did.
#[derive(Clone, Debug)]
pub struct Renewed {
    /// The segment that was worked on.
    pub segment: SegmentId,
    /// The records that were judged.
    pub records: Vec<RecordId>,
    /// Segments with verdicts that were not there before.
    pub judged: Vec<SegmentId>,
    /// Whether the segment is done.
    pub complete: bool,
}

/// How far a renewal has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenewalProgress {
    /// Records that are to be judged again.
    pub left: u64,
    /// How many there were when the most of them were left.
    pub all: u64,
}

/// What was left of a renewal when a store was closed.
///
/// # Errors
/// When the disk fails.
pub fn stored_renewal<S: Settings + Segments>(store: &S) -> Result<RenewalProgress, StoreError> {
    let renewal = Renewal::stored(store)?;
    let left = store.segments()?.into_iter().filter(|row| renewal.contains(&row.id));
    let left = left.map(|row| row.records).sum();
    Ok(RenewalProgress { left, all: left })
}

impl Replica {
    /// Whether records are left to be looked at again.
    #[must_use]
    pub fn is_renewing(&self) -> bool {
        !self.renewal.is_done()
    }

    /// Of how many segments.
    #[must_use]
    pub fn renewing(&self) -> usize {
        let Renewal { indexing, judging, .. } = &self.renewal;
        judging.len() + indexing.keys().filter(|id| !judging.contains_key(*id)).count()
    }

    /// Whether records of that segment are.
    #[must_use]
    pub fn is_renewing_in(&self, id: &SegmentId) -> bool {
        self.renewal.contains(id)
    }

    /// How many records are left to be judged again, and of how many.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn renewal_progress(&self) -> Result<RenewalProgress, StoreError> {
        let left = self.left()?;
        Ok(RenewalProgress { left, all: self.renewal.all.max(left) })
    }

    /// Takes up what was left when the store was closed.
    pub(crate) fn take_up_renewal(&mut self) -> Result<(), StoreError> {
        self.renewal = Renewal::stored(&self.store)?;
        self.renewal.all = self.left()?;
        Ok(())
    }

    fn left(&self) -> Result<u64, StoreError> {
        let mut left = 0;
        for id in self.renewal.indexing.keys().chain(self.renewal.judging.keys()) {
            let Some(row) = self.segments.get(id) else { continue };
            let judged = match self.renewal.judging.get(id) {
                Some(Judging { after, .. }) if *after > 0 => {
                    self.store.count_through(row.sid, *after)?
                }
                _ => 0,
            };
            left += row.records.saturating_sub(judged);
        }
        Ok(left)
    }

    /// Has all records of those types looked at again, because the catalog has changed.
    pub(crate) fn renew_types(&mut self, types: &[TypeName]) -> Result<(), StoreError> {
        let rows = self.segments.values();
        let rows =
            rows.filter(|row| types.contains(&row.address.ty) && !self.is_apart(&row.address));
        let ids: Vec<SegmentId> = rows.map(|row| row.id).collect();
        for id in &ids {
            self.renewal.judging.remove(id);
            self.renewal.indexing.insert(*id, 0);
        }
        self.has_begun(ids.is_empty())
    }

    /// Has all records of those segments judged again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn renew_segments(&mut self, ids: &BTreeSet<SegmentId>) -> Result<(), StoreError> {
        for id in ids {
            let published = self.renewal.judging.get(id).is_some_and(|judging| judging.published);
            self.renewal.judging.insert(*id, Judging { after: 0, published });
        }
        self.has_begun(ids.is_empty())
    }

    fn has_begun(&mut self, nothing: bool) -> Result<(), StoreError> {
        if nothing {
            return Ok(());
        }
        self.renewal.all = self.renewal.all.max(self.left()?);
        self.save_renewal()
    }

    fn save_renewal(&mut self) -> Result<(), StoreError> {
        let judging = |wanted: bool| {
            let ids =
                self.renewal.judging.iter().filter(|(_, judging)| judging.published == wanted);
            ids.map(|(id, _)| *id).collect()
        };
        let indexing = self.renewal.indexing.keys().copied().collect();
        let kept = Kept { indexing, published: judging(true), others: judging(false) };
        let bytes = minicbor::to_vec(kept).expect("encoding into memory cannot fail");
        self.store.set(SETTING, &bytes)
    }

    /// Looks at a slice of the records that are left: their indexes, then their verdicts on a relay,
    /// their forecasts on a device. Nothing if none are left; a commit must follow.
    ///
    /// # Errors
    /// When the replica fails; nothing was written then.
    pub fn renew(&mut self, limit: usize) -> Result<Option<Renewed>, ReplicaError> {
        if let Some((segment, after)) = self.renewal.indexing.first_key_value() {
            let (segment, after) = (*segment, *after);
            let slice = |replica: &mut Self| replica.index_again(segment, after, limit);
            return self.sparing(&segment, slice).map(Some);
        }
        let Some((segment, judging)) = self.renewal.judging.first_key_value() else {
            return Ok(None);
        };
        let (segment, judging) = (*segment, *judging);
        let slice = |replica: &mut Self| replica.judge_again(segment, judging, limit);
        self.sparing(&segment, slice).map(Some)
    }

    fn index_again(
        &mut self,
        segment: SegmentId,
        after: i64,
        limit: usize,
    ) -> Result<Renewed, ReplicaError> {
        let rows = self.rows_behind(&segment, after, limit)?;
        for row in &rows {
            self.index(&segment, row, true, &fields_of(&row.json))?;
        }
        match rows.last().filter(|_| rows.len() == limit) {
            Some(last) => drop(self.renewal.indexing.insert(segment, last.rid)),
            None => {
                self.renewal.indexing.remove(&segment);
                self.renewal.judging.insert(segment, Judging { after: 0, published: true });
                self.save_renewal()?;
            }
        }
        Ok(Renewed { segment, records: Vec::new(), judged: Vec::new(), complete: false })
    }

    fn judge_again(
        &mut self,
        segment: SegmentId,
        judging: Judging,
        limit: usize,
    ) -> Result<Renewed, ReplicaError> {
        let rows = self.rows_behind(&segment, judging.after, limit)?;
        let complete = rows.len() < limit;
        let last = rows.last().filter(|_| !complete).map(|last| last.rid);
        let records = rows.iter().map(|row| row.id.clone()).collect();
        let judged = if rows.is_empty() {
            Vec::new()
        } else {
            self.look_again(&segment, rows, judging.published)?
        };
        match last {
            Some(last) => {
                self.renewal.judging.insert(segment, Judging { after: last, ..judging });
            }
            None => {
                self.renewal.judging.remove(&segment);
                if self.renewal.is_done() {
                    self.renewal.all = 0;
                }
                self.save_renewal()?;
            }
        }
        Ok(Renewed { segment, records, judged, complete })
    }

    /// The next records of a segment; none of one that is damaged.
    fn rows_behind(
        &self,
        id: &SegmentId,
        after: i64,
        limit: usize,
    ) -> Result<Vec<RecordRow>, StoreError> {
        match self.segments.get(id).filter(|row| !row.damaged) {
            Some(row) => self.store.records_behind(row.sid, after, limit),
            None => Ok(Vec::new()),
        }
    }

    fn look_again(
        &mut self,
        id: &SegmentId,
        rows: Vec<RecordRow>,
        published: bool,
    ) -> Result<Vec<SegmentId>, ReplicaError> {
        let mut subjects = rows.into_iter().map(|row| unchanged(*id, row));
        if self.me.role == Role::Device {
            subjects.try_for_each(|subject| self.forecast(subject).map(drop))?;
            return Ok(Vec::new());
        }
        let (judged, turned) = self.state_verdicts(id, subjects)?;
        if published {
            self.count_turned(turned)?;
        }
        Ok(judged)
    }
}
