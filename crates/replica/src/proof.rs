//! Proofs: what must be equal on two replicas that hold the same.

use fieldkeep_model::{ChangeHash, Pos, SegmentId};

use fieldkeep_store::{Apart, SegmentRow};

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

impl Replica {
    /// The proof of a segment on a relay: of its whole log, if that is materialised.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn proof(&mut self, id: &SegmentId) -> Result<Option<SegmentProof>, ReplicaError> {
        let row = self.row(id);
        let (pos, (records, rows)) = (row.tip, self.counted(row));
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
        same_log && (!nothing_else || self.counted(row) == (proof.records, proof.rows))
    }

    /// How many records a segment comes to, and the sum over their digests.
    fn counted(&self, row: &SegmentRow) -> (u64, u128) {
        if self.is_apart(&row.address) {
            let Apart { records, rows, .. } = self.apart(&row.id);
            return (records, rows);
        }
        (row.records, row.rows)
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
