//! Steps: what is done wholly or not at all, on disk and in memory.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::SegmentId;
use fieldkeep_store::{SegmentRow, Segments as _, StoreError};

use crate::identity::Role;
use crate::replica::{Replica, ReplicaError};

impl Replica {
    /// Does something to one segment wholly or not at all, on disk and in memory.
    pub(crate) fn undoable<T, E: From<StoreError>>(
        &mut self,
        id: &SegmentId,
        act: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.attempt(id, false, act)
    }

    /// The same with something that changes what is loaded by appending to the log alone. Where it appended
    /// nothing that stays loaded: nobody has an index built again by handing over what is refused.
    pub(crate) fn appending<T, E: From<StoreError>>(
        &mut self,
        id: &SegmentId,
        act: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.attempt(id, true, act)
    }

    fn attempt<T, E: From<StoreError>>(
        &mut self,
        id: &SegmentId,
        appends: bool,
        act: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.segments.get(id).cloned();
        let appended = self.appended.clone();
        self.store.begin_step()?;
        let result = act(self);
        self.store.end_step(result.is_ok())?;
        if result.is_err() {
            let damaged = self.found_damaged(before.iter());
            self.appended = appended;
            let tip = |row: &SegmentRow| row.tip;
            let grew = self.segments.get(id).map(tip) != before.as_ref().map(tip);
            if grew || !appends {
                // What is loaded has changes that were not kept: it is read again when it is needed.
                self.cache.evict(id);
            }
            self.behind.remove(id);
            match before {
                Some(row) => {
                    self.behind.extend((row.done < row.tip && !row.damaged).then_some(*id));
                    self.segments.insert(*id, row);
                }
                None => {
                    self.dirty.remove(id);
                    self.segments.remove(id);
                }
            }
            damaged.iter().for_each(|id| self.mark_damaged(id));
        }
        result
    }

    /// Does something to many segments wholly or not at all, on disk and in memory; not at all, too,
    /// where nothing of it is to be kept. Returns which segments it moves.
    pub(crate) fn together<T, E: From<StoreError>>(
        &mut self,
        keep: bool,
        act: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<(T, BTreeSet<SegmentId>), E> {
        let before = (self.segments.clone(), self.dirty.clone(), self.behind.clone());
        let (apart, appended) = (self.apart.clone(), self.appended.clone());
        self.store.begin_step()?;
        let result = act(self);
        self.store.end_step(keep && result.is_ok())?;
        let known = &before.0;
        let moved = self.segments.iter().filter(|(id, row)| known.get(*id) != Some(*row));
        let moved: BTreeSet<SegmentId> = moved.map(|(id, _)| *id).collect();
        if !keep || result.is_err() {
            let damaged = self.found_damaged(known.values());
            // What is in memory of them has more than what is kept.
            moved.iter().for_each(|id| self.cache.evict(id));
            (self.segments, self.dirty, self.behind) = before;
            (self.apart, self.appended) = (apart, appended);
            damaged.iter().for_each(|id| self.mark_damaged(id));
        }
        Ok((result?, moved))
    }

    /// Does something that reads what other segments hold, too: where it fails, nothing of it is kept, and
    /// what of `id` is in memory is read again. Damage is the segment's whose bytes were not what was
    /// written: that one is left out from then on, and `id` may go on without it.
    pub(crate) fn sparing<T>(
        &mut self,
        id: &SegmentId,
        act: impl FnOnce(&mut Self) -> Result<T, ReplicaError>,
    ) -> Result<T, ReplicaError> {
        let unsaved: BTreeMap<SegmentId, SegmentRow> =
            self.dirty.iter().map(|id| (*id, self.segments[id].clone())).collect();
        let appended = self.appended.clone();
        // A device reads of its log whatever it merges before it writes any of it, and nothing of others:
        // it does without a step, whose pages SQLite would keep in memory.
        let step = self.me.role == Role::Relay;
        if step {
            self.store.begin_step()?;
        }
        let result = act(self);
        if step {
            self.store.end_step(result.is_ok())?;
        }
        let Err(error) = &result else { return result };
        self.appended = appended;
        self.cache.evict(id);
        self.go_back(unsaved)?;
        if error.is_damage() {
            let named =
                error.damaged().filter(|of| self.segments.get(of).is_some_and(|of| !of.damaged));
            let damaged = named.unwrap_or(*id);
            tracing::error!(segment = %damaged, %error, "a segment cannot be read");
            self.mark_damaged(&damaged);
        }
        result
    }

    /// Takes up again what the store holds of segments, and what of them was not saved.
    fn go_back(&mut self, unsaved: BTreeMap<SegmentId, SegmentRow>) -> Result<(), StoreError> {
        let mut rows: BTreeMap<SegmentId, SegmentRow> =
            self.store.segments()?.into_iter().map(|row| (row.id, row)).collect();
        self.dirty = unsaved.keys().copied().collect();
        rows.extend(unsaved);
        let moved = self.segments.iter().filter(|(id, row)| rows.get(*id) != Some(*row));
        moved.for_each(|(id, _)| self.cache.evict(id));
        self.segments = rows;
        let behind = self.segments.values().filter(|row| row.done < row.tip && !row.damaged);
        self.behind = behind.map(|row| row.id).collect();
        self.recall_generations()
    }

    /// Those of these segments that turned out to be damaged since: what a step that is undone found out
    /// still holds.
    fn found_damaged<'r>(&self, before: impl Iterator<Item = &'r SegmentRow>) -> Vec<SegmentId> {
        let since = |row: &&SegmentRow| {
            !row.damaged && self.segments.get(&row.id).is_some_and(|now| now.damaged)
        };
        before.filter(since).map(|row| row.id).collect()
    }

    /// Leaves a segment out from now on.
    fn mark_damaged(&mut self, id: &SegmentId) {
        self.cache.evict(id);
        self.row_mut(id).damaged = true;
        self.behind.remove(id);
    }
}
