//! Taking over what was downloaded again beside what is here, in one commit.

use std::collections::BTreeSet;

use fieldkeep_model::{RecordId, SegmentAddress, SegmentId, TypeName};
use fieldkeep_replica::{Adopted, Published, Replica, ReplicaError};
use fieldkeep_store::{Log as _, Pins as _, Records as _, SegmentRow, StoreError};

use super::Engine;

/// What a fresh download has changed.
///
/// ```
/// # use serde_json::json;
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// device.save(&"customer/c2".parse()?, &json!({"name": "Pier"}))?; // Not on the relay yet.
/// let exchanged = device.resync(None, Duration::from_secs(60)).await?.exchanged;
/// assert_eq!((exchanged.kept, exchanged.removed), (1, 0));
/// # Ok(()) });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchanged {
    /// Changes that were here and not in what came: they are kept, and sent.
    pub kept: u64,
    /// Records that this device may not read any more, or does not want, and that were removed.
    pub removed: u64,
}

impl Engine {
    /// Replaces what is here of some types by what another replica of this device has downloaded.
    /// `clears` says whether what this device may not read any more, or did not subscribe to, goes. A
    /// commit must follow.
    ///
    /// ```
    /// # use std::collections::BTreeSet;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let mut copy = wire.copy();
    /// let orders = BTreeSet::from(["order".parse()?]);
    /// wire.relay(&mut copy)?; // Nothing is there yet: the order is on this device alone.
    /// assert_eq!(ann.adopt(copy.replica(), &orders, false, 0)?.removed, 0);
    /// ann.commit()?;
    /// assert!(ann.replica().views().record(&"order/o1".parse()?)?.is_some());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a store fails; nothing of it is kept once it is given up.
    pub fn adopt(
        &mut self,
        fresh: &Replica,
        types: &BTreeSet<TypeName>,
        clears: bool,
        now: i64,
    ) -> Result<Exchanged, ReplicaError> {
        self.now = now;
        self.replica.append_members(fresh.members().since(0))?;
        if let Some(published) = fresh.published() {
            for id in self.outlived(published) {
                self.retire(&id)?;
            }
            let source = published.catalog.source().to_owned();
            self.replica.move_to_catalog(published.notice.clone(), source)?;
            self.paused = self.stored_pauses()?;
        }
        if fresh.epoch() != self.replica.epoch() {
            self.enter_epoch(fresh.epoch())?;
        }
        let mut exchanged = Exchanged::default();
        let offered = |row: &&SegmentRow| types.contains(&row.address.ty) && row.tip > 0;
        let offered: BTreeSet<SegmentId> =
            fresh.segments().values().filter(offered).map(|row| row.id).collect();
        for id in &offered {
            match self.replica.adopt(id, fresh, now)? {
                Adopted::Replaced { kept, .. } => exchanged.kept += kept,
                Adopted::Forked => self.replica.reset_cursor(id),
            }
            self.rescan(id);
            let records = self.records_of(id)?;
            self.note_changed(id, records);
        }
        if clears {
            let here = self.replica.segments().values();
            // What is wanted and is not offered the relay has lost: it is sent again.
            let gone = here.filter(|row| types.contains(&row.address.ty) && self.is_given_up(row));
            let gone: Vec<SegmentId> = gone.map(|row| row.id).collect();
            for id in gone {
                if !self.is_in_use(&id)? {
                    exchanged.removed += self.remove(&id)?;
                }
            }
        }
        Ok(exchanged)
    }

    /// The segments in force that are of another generation than a catalog declares their type in.
    fn outlived(&self, published: &Published) -> Vec<SegmentId> {
        let rows = self.replica.segments().values();
        let in_force = rows.filter(|row| !self.replica.is_apart(&row.address));
        let outlived = in_force.filter(|row| {
            let declared = published.catalog.ty(&row.address.ty);
            declared.is_some_and(|ty| ty.generation != row.address.generation)
        });
        outlived.map(|row| row.id).collect()
    }

    /// Whether what another replica of this device has downloaded of some types can take the place of
    /// what is here. Where that is of a later generation, everything of the earlier one has to be on the
    /// relay, which has it carried over; what the relay refuses does not count.
    pub(crate) fn is_ready_for(
        &self,
        fresh: &Replica,
        types: &BTreeSet<TypeName>,
    ) -> Result<bool, StoreError> {
        for id in fresh.published().map(|published| self.outlived(published)).unwrap_or_default() {
            let row = &self.replica.segments()[&id];
            let outgoing = self.replica.store().outgoing(row.sid)?;
            let unsaved = outgoing.iter().any(|change| change.refused.is_none());
            if unsaved || row.tip > 0 && !types.contains(&row.address.ty) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes a segment out of what is read and exchanged: another generation has its records. What lies
    /// aside in it, or was refused, is kept.
    fn retire(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        let store = self.replica.store();
        let sid = self.replica.segments()[id].sid;
        if store.outgoing_in(sid)? == (0, 0) && store.asides_in(sid)?.is_empty() {
            return self.remove(id).map(drop);
        }
        let records = self.records_of(id)?;
        self.note_changed(id, records);
        self.open.remove(id);
        self.pushed.remove(id);
        self.replica.retire(id)
    }

    /// Whether a segment is one that this device may not read, or has left out for good. Of what it left
    /// out nobody has asked a relay that was put back meanwhile: that stays, until it is proven again.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let row = ann.replica().segments().values().next().expect("its order lies there");
    /// assert!(!ann.is_given_up(row)); // It may read it, and left nothing out.
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn is_given_up(&self, row: &SegmentRow) -> bool {
        let SegmentAddress { ty, scope, .. } = &row.address;
        let left_out = self.paused.unsubscribes(ty, scope) && self.replica.is_proven(&row.id);
        left_out || !self.may_read(&row.address)
    }

    /// Whether something of a segment may not go: it is unsaved, lies aside, or is in use.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let orders = *ann.replica().segments().keys().next().expect("its order lies there");
    /// assert!(ann.is_in_use(&orders)?); // The order is unsaved.
    /// wire.relay(&mut ann)?;
    /// assert!(!ann.is_in_use(&orders)?);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn is_in_use(&self, id: &SegmentId) -> Result<bool, StoreError> {
        let (row, store) = (&self.replica.segments()[id], self.replica.store());
        if store.outgoing_in(row.sid)? != (0, 0) || !store.asides_in(row.sid)?.is_empty() {
            return Ok(true);
        }
        let pinned = store.pins()?.into_iter().filter(|pin| pin.key.ty == row.address.ty);
        for pin in pinned {
            if store.record(row.sid, &pin.key.id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn remove(&mut self, id: &SegmentId) -> Result<u64, ReplicaError> {
        let records = self.records_of(id)?;
        let live = self.replica.segments()[id].live;
        self.note_changed(id, records);
        self.open.remove(id);
        self.pushed.remove(id);
        for peer in self.peers.values_mut() {
            peer.shared.remove(id);
        }
        self.replica.remove_segment(id)?;
        Ok(live)
    }

    fn records_of(&self, id: &SegmentId) -> Result<Vec<RecordId>, StoreError> {
        let sid = self.replica.segments()[id].sid;
        let rows = self.replica.store().records_behind(sid, 0, usize::MAX >> 1)?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }
}
