//! Proofs: what must be equal on two replicas that hold the same, and checks of what is stored.

use fieldkeep_model::{ChangeHash, Pos, SegmentId};
use fieldkeep_store::{Log as _, RecordRow, Records as _};

use crate::admit::log_digest;
use crate::replica::{Replica, ReplicaError};

/// What a segment looks like at a position of the relay's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentProof {
    /// The position; it is also the number of changes.
    pub pos: Pos,
    /// blake3 over the sorted heads, which commit to the whole history.
    pub heads: [u8; 32],
    /// How many records there are.
    pub records: u64,
    /// The sum over the records' digests.
    pub rows: u128,
}

/// What a check of the stored data found wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Integrity {
    /// Changes are missing, or not what was written.
    #[error("the changes of {0} are not what was written")]
    Changes(String),
    /// Records are not what their changes say.
    #[error("the records of {0} are not what its changes say")]
    Records(String),
}

impl Replica {
    /// The proof of a segment on a relay: of its whole log, if that is materialised.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn proof(&mut self, id: &SegmentId) -> Result<Option<SegmentProof>, ReplicaError> {
        let row = self.row(id);
        let (pos, records, rows) = (row.tip, row.records, row.rows);
        if row.done < row.tip {
            return Ok(None);
        }
        let heads = self.load(id)?.history.heads();
        Ok(Some(SegmentProof { pos, heads: digest(&heads), records, rows }))
    }

    /// Whether a relay's proof holds here: its position is where the cursor stands and the heads of
    /// that prefix are equal; and where nothing else is in the segment, the records are equal too.
    #[must_use]
    pub fn holds(&self, id: &SegmentId, proof: &SegmentProof) -> bool {
        let Some(row) = self.segments.get(id) else { return proof.pos == 0 };
        let same_log = row.cursor.pos == proof.pos && digest(&row.cursor.heads) == proof.heads;
        let nothing_else = row.tip == row.cursor.pos && row.done == row.tip;
        same_log && (!nothing_else || (row.records, row.rows) == (proof.records, proof.rows))
    }

    /// Reads every change and record of a segment and compares them with what was kept of them when
    /// they were written.
    ///
    /// # Errors
    /// When the replica fails; what is found wrong is the result.
    pub fn verify(&self, id: &SegmentId) -> Result<Option<Integrity>, ReplicaError> {
        let row = self.row(id);
        let (mut sum, mut count) = (0u128, 0);
        let read = self.each_entry(row.sid, 1, |entry| {
            sum = sum.wrapping_add(log_digest(&entry.header.hash));
            count += 1;
            Ok::<_, ReplicaError>(())
        });
        if read.is_err() || (count, sum) != (row.tip, row.sum) {
            return Ok(Some(Integrity::Changes(row.address.to_string())));
        }
        if self.store.sum_rows(row.sid)? != (row.records, row.rows) {
            return Ok(Some(Integrity::Records(row.address.to_string())));
        }
        Ok(None)
    }

    /// Whether every record of a segment reads as its document says, and no other is there.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn is_projected(&mut self, id: &SegmentId) -> Result<bool, ReplicaError> {
        let rows = self.store.records_behind(self.row(id).sid, 0, usize::MAX >> 1)?;
        if self.row(id).tip == 0 {
            return Ok(rows.is_empty());
        }
        let document = self.load_document(id)?.document.as_ref().expect("just loaded");
        let equal = |row: &RecordRow| {
            document.record(&row.id).is_some_and(|record| record.canonical() == row.json)
        };
        Ok(rows.len() == document.ids().len() && rows.iter().all(equal))
    }

    /// Derives a segment's records and document again from its changes.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn derive_again(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        let sid = self.row(id).sid;
        self.store.clear_records(sid)?;
        self.cache.evict(id);
        let row = self.row_mut(id);
        (row.done, row.records, row.live, row.rows) = (0, 0, 0, 0);
        (row.held, row.waiting) = (0, 0);
        self.behind.insert(*id);
        self.materialise(id, usize::MAX)?;
        for change in self.store.outgoing(sid)? {
            self.store.unsettle(sid, &change.records)?;
        }
        Ok(())
    }
}

/// blake3 over sorted heads.
fn digest(heads: &[ChangeHash]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for head in heads {
        hasher.update(&head.0);
    }
    *hasher.finalize().as_bytes()
}
