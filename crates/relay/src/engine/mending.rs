//! What a doctor has mended while devices are served: a segment at a time, so that nobody waits long.

use fieldkeep_model::SegmentId;
use fieldkeep_replica::ReplicaError;

use super::Engine;

impl Engine {
    /// Derives a segment's records again from its changes. A commit must follow. Returns whether that could
    /// be done: not where there is no such segment, or its changes do not merge.
    ///
    /// # Errors
    /// When the store fails.
    pub fn mend(&mut self, id: &SegmentId) -> Result<bool, ReplicaError> {
        if self.replica.segment(id).is_none() {
            return Ok(false);
        }
        let judged = match self.replica.project_again(id) {
            Ok(judged) => judged,
            Err(error) if error.is_damage() => {
                tracing::error!(segment = %id, %error, "a segment cannot be derived again");
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.moved.extend(judged);
        self.moved.insert(*id);
        if self.replica.segment(id).is_some_and(|row| row.done < row.tip)
            && !self.queue.contains(id)
        {
            self.queue.push_back(*id);
        }
        Ok(true)
    }

    /// Counts afresh what counts are kept of. A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn mend_counts(&mut self) -> Result<(), ReplicaError> {
        Ok(self.replica.store_mut().rebuild_tallies()?)
    }
}
