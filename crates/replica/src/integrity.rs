//! Integrity: whether what is stored is what was written, and what is derived is what it is derived from.
//!
//! Works on a replica's store, and as well on a reader beside it or a copy of it. Writes nothing.

use fieldkeep_documents::Document;
use fieldkeep_model::{Chain, ChangeHeader, Pos, SegmentAddress, SegmentId};
use fieldkeep_store::{Apart, Generations, Log, RecordRow, Records, SegmentRow, Settings};

use crate::admit::log_digest;
use crate::generations::{comes_to, stored_generations};
use crate::log::each_entry;
use crate::replica::{Replica, ReplicaError};

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

/// Reads every change and record of a segment and compares them with what was kept of them when they were
/// written: each change with its hash, all of them with the log's length, sum and chain, and the records
/// with their sum.
///
/// # Errors
/// When the store cannot be read; what is found wrong is the result.
pub fn verify(
    store: &(impl Log + Records),
    row: &SegmentRow,
) -> Result<Option<Integrity>, ReplicaError> {
    let (mut sum, mut count, mut chain) = (0u128, 0, Chain::START);
    let read = each_entry(store, row.sid, 1, |entry| {
        sum = sum.wrapping_add(log_digest(&entry.header.hash));
        chain = chain.extend(&entry.header.hash);
        count += 1;
        Ok::<_, ReplicaError>(())
    });
    if read.is_err() || (count, sum, chain) != (row.tip, row.sum, row.chain) {
        return Ok(Some(Integrity::Changes(row.address.to_string())));
    }
    if store.sum_rows(row.sid)? != (row.records, row.rows) {
        return Ok(Some(Integrity::Records(row.address.to_string())));
    }
    Ok(None)
}

/// Whether every record of a segment reads as its changes come to, as far as they are merged, and no other
/// is there. Merges them anew.
///
/// # Errors
/// When the store cannot be read, or its changes do not merge.
pub fn is_projected(
    store: &(impl Log + Records + Generations + Settings),
    row: &SegmentRow,
) -> Result<bool, ReplicaError> {
    let rows = store.records_behind(row.sid, 0, usize::MAX >> 1)?;
    let mut chunks = Vec::new();
    each_entry(store, row.sid, 1, |entry| {
        chunks.extend((entry.pos <= row.done).then_some(entry.bytes));
        Ok::<_, ReplicaError>(())
    })?;
    let mut document = Document::new();
    let merged = document.apply(chunks.iter().map(Vec::as_slice));
    merged.map_err(|error| ReplicaError::Damaged(row.id, error.to_string()))?;
    let SegmentAddress { ty, generation, .. } = &row.address;
    if stored_generations(store)?.get(ty).copied().unwrap_or_default() == *generation {
        return Ok(reads_as(&document, &rows));
    }
    let apart = store.apart()?.remove(&row.sid).unwrap_or_default();
    Ok(rows.is_empty() && sums_to(&document, &apart))
}

/// Calls `visit` with the header of every change in a segment's log behind a position.
///
/// # Errors
/// When the store cannot be read, or a change is damaged.
pub fn each_change_behind(
    store: &impl Log,
    sid: i64,
    pos: Pos,
    mut visit: impl FnMut(&ChangeHeader),
) -> Result<(), ReplicaError> {
    each_entry(store, sid, pos + 1, |entry| {
        visit(&entry.header);
        Ok(())
    })
}

/// Whether a document of another generation comes to what was counted of it.
fn sums_to(document: &Document, apart: &Apart) -> bool {
    comes_to(document) == (apart.records, apart.rows)
}

fn reads_as(document: &Document, rows: &[RecordRow]) -> bool {
    let equal = |row: &RecordRow| {
        document.record(&row.id).is_some_and(|record| record.canonical() == row.json)
    };
    rows.len() == document.ids().len() && rows.iter().all(equal)
}

impl Replica {
    /// Verifies a segment: see [`verify`].
    ///
    /// # Errors
    /// When the replica fails; what is found wrong is the result.
    pub fn verify(&self, id: &SegmentId) -> Result<Option<Integrity>, ReplicaError> {
        verify(&self.store, self.row(id))
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
        let apart = self.is_apart(&self.row(id).address).then(|| self.apart(id));
        let document = self.load_document(id)?.document.as_ref().expect("just loaded");
        Ok(match apart {
            Some(apart) => rows.is_empty() && sums_to(document, &apart),
            None => reads_as(document, &rows),
        })
    }
}
