//! New generations of types: begun by an operator, written beside everything else, and told to every
//! device once they are in force.

use fieldkeep_catalog::{Afresh, Catalog};
use fieldkeep_model::{Chain, Pos, SegmentId, TypeName};
use fieldkeep_protocol::BATCH;
use fieldkeep_protocol::frame::{Delta, SegmentRef};
use fieldkeep_replica::{Note, ReplicaError, ReshapeError, Reshaped};

use super::Engine;

impl Engine {
    /// Begins to start a type afresh. It is written when nothing else is to be done; progress is told
    /// by the replica. A commit must follow. Returns the catalog that will be in force then.
    ///
    /// # Errors
    /// See [`ReshapeError`]; nothing was changed.
    pub fn begin_reshape(
        &mut self,
        ty: &TypeName,
        file: Option<&str>,
        changes: &Afresh,
        (note, cut): (Note<'_>, Option<i64>),
    ) -> Result<Catalog, ReshapeError> {
        let catalog = self.replica.afresh(ty, file, changes)?;
        super::check_queries(&catalog)?;
        let unjudged = catalog.unjudged(self.replica.judges());
        if !unjudged.is_empty() {
            return Err(ReshapeError::Catalog(unjudged));
        }
        self.replica.begin_reshape(ty, &catalog, note, cut)?;
        Ok(catalog)
    }

    /// The stretch of a log from a position on, for an archive; nothing behind its end.
    ///
    /// # Errors
    /// When the disk fails, or a change is damaged.
    pub fn archive_stretch(
        &self,
        id: &SegmentId,
        first: Pos,
    ) -> Result<Option<(Delta, Pos)>, ReplicaError> {
        let Some(row) = self.replica.segment(id) else { return Ok(None) };
        let segment = SegmentRef { id: *id, address: Some(row.address.clone()) };
        let Some(stretch) = self.replica.stretch(id, first, BATCH, |_, _| false)? else {
            return Ok(None);
        };
        let last = stretch.last;
        Ok(Some((self.delta(segment, stretch), last)))
    }

    /// Takes segments of generations that are over out, which a verified file has to there. A commit must
    /// follow. Returns how many there were; nothing where one is otherwise by now.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_past(
        &mut self,
        archived: &[(SegmentId, Pos, Chain)],
    ) -> Result<Option<u64>, ReplicaError> {
        let forgotten = self.replica.forget_past(archived)?;
        self.drop_removed();
        Ok(forgotten)
    }

    /// Gives up a new generation that is not in force. A commit must follow.
    ///
    /// # Errors
    /// See [`ReshapeError`].
    pub fn give_up_reshape(&mut self) -> Result<TypeName, ReshapeError> {
        let given_up = self.replica.give_up_reshape();
        self.drop_removed();
        given_up
    }

    /// Forgets what is in memory of segments that are no more.
    fn drop_removed(&mut self) {
        let replica = &self.replica;
        let there = |id: &SegmentId| replica.segment(id).is_some();
        self.moved.retain(there);
        self.queue.retain(there);
        self.followers.retain(|id, _| there(id));
        for peer in self.peers.values_mut() {
            peer.following.retain(|id, _| there(id));
        }
        self.tally.retain(there);
    }

    /// Writes a slice of a new generation. Returns whether there was one.
    pub(super) fn reshape(&mut self, now: i64) -> Result<bool, ReplicaError> {
        let Some(Reshaped { moved, in_force }) = self.replica.reshape_some(now)? else {
            return Ok(false);
        };
        self.note_reshaped(moved)?;
        if in_force.is_some() {
            self.announce_catalog();
        }
        Ok(true)
    }

    /// What arrived for a generation that is in force no more is in the one that is, before anybody
    /// hears that it was judged.
    pub(super) fn carry_late(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        let carried = self.replica.carry_late(id, self.now)?;
        self.note_reshaped(carried.moved)
    }

    fn note_reshaped(
        &mut self,
        moved: impl IntoIterator<Item = SegmentId>,
    ) -> Result<(), ReplicaError> {
        for id in moved {
            self.moved.insert(id);
            if self.followers.get(&id).is_none_or(|followers| followers.is_empty()) {
                self.follow_everyone(&id)?;
            }
        }
        Ok(())
    }
}
