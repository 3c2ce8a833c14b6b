//! Compaction: rows of the log become packs, which cold starts send as they lie.
//!
//! A pack is written only after it was decoded again and every hash found equal. It ends where
//! signed heads vouch for everything in it, so that it can be handed on alone.

use std::collections::BTreeMap;

use fieldkeep_documents::batch;
use fieldkeep_model::{ChangeHeader, Pos, SegmentId};
use fieldkeep_store::{Log as _, PackRow, StoreError};

use crate::log::{Entry, unpack};
use crate::replica::{Replica, ReplicaError};

/// Rows stay rows until there are so many.
const ROWS: u64 = 1_000;
/// A pack holds about so many bytes of changes; wire frames bound it.
const PACK_BYTES: usize = 512 * 1024;
/// The compression of packs while there is work.
pub(crate) const FRESH: i32 = 3;
/// The compression of packs when there is none.
pub(crate) const IDLE: i32 = 19;

impl Replica {
    /// Packs a segment's rows if there are enough of them, or any at all if `all` is set. Returns
    /// how many entries were packed.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn compact(&mut self, id: &SegmentId, all: bool) -> Result<u64, ReplicaError> {
        let mut packed = 0;
        loop {
            let row = self.row(id);
            let rows = row.tip - row.packed;
            if rows == 0 || (rows < ROWS && !all) {
                return Ok(packed);
            }
            let Some(last) = self.pack_next(id)? else { return Ok(packed) };
            let row = self.row_mut(id);
            packed += last - row.packed;
            row.packed = last;
        }
    }

    fn pack_next(&mut self, id: &SegmentId) -> Result<Option<Pos>, ReplicaError> {
        let row = self.row(id);
        let (sid, first, tip) = (row.sid, row.packed + 1, row.tip);
        let waiting = self.store.outgoing(sid)?.first().map_or(Pos::MAX, |change| change.pos);
        let heads = self.store.heads(sid, first, tip)?;
        let mut entries: Vec<Entry> = Vec::new();
        let (mut taken, mut end) = (0, 0);
        let mut newest = BTreeMap::new();
        let rows = self.store.changes(sid, first, PACK_BYTES * 2)?;
        for row in rows.into_iter().take_while(|row| row.pos < waiting) {
            let header = ChangeHeader::parse(&row.bytes).ok().filter(|h| h.hash == row.hash);
            let header =
                header.ok_or_else(|| StoreError::Damaged(format!("change {}", row.pos)))?;
            taken += row.bytes.len();
            if !self.me.signs_for(&header.actor) {
                newest.insert(header.actor, header.hash);
            }
            entries.push(Entry {
                pos: row.pos,
                header,
                tainted: row.flags.tainted,
                bytes: row.bytes,
            });
            let vouched =
                newest.values().all(|hash| heads.iter().any(|(_, h)| h.head.hash == *hash));
            if vouched {
                end = entries.len();
                if taken >= PACK_BYTES {
                    break;
                }
            }
        }
        entries.truncate(end);
        let Some(last) = entries.last().map(|entry| entry.pos) else { return Ok(None) };
        let chain = self.chain_at(id, first - 1)?.unwrap_or(fieldkeep_model::Chain::START);
        let pack = encode(&entries, chain, FRESH)?;
        let mut keep: BTreeMap<_, Pos> = BTreeMap::new();
        for (pos, head) in heads.iter().filter(|(pos, _)| *pos <= last) {
            keep.insert(head.head.actor, *pos);
        }
        let keep: Vec<Pos> = keep.into_values().collect();
        self.store.put_pack(sid, &pack, &keep)?;
        Ok(Some(last))
    }

    /// Compresses one pack that was written in haste, harder. Returns whether there was one.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn recompress(&mut self, id: &SegmentId) -> Result<bool, ReplicaError> {
        let sid = self.row(id).sid;
        let Some(pos) = self.store.pack_below(sid, IDLE)? else { return Ok(false) };
        let Some(pack) = self.store.pack(sid, pos)? else { return Ok(false) };
        let entries = unpack(&pack)?;
        let harder = encode(&entries, pack.chain, IDLE)?;
        let heads = self.store.heads(sid, pack.first, pack.last)?;
        let keep: Vec<Pos> = heads.into_iter().map(|(pos, _)| pos).collect();
        self.store.put_pack(sid, &harder, &keep)?;
        Ok(true)
    }
}

/// Encodes entries as a pack, and decodes it again to be sure.
fn encode(
    entries: &[Entry],
    chain: fieldkeep_model::Chain,
    level: i32,
) -> Result<PackRow, ReplicaError> {
    let chunks: Vec<&[u8]> = entries.iter().map(|entry| entry.bytes.as_slice()).collect();
    let bytes = batch::encode(&chunks, level);
    let pack = PackRow {
        first: entries[0].pos,
        last: entries[entries.len() - 1].pos,
        level,
        raw: chunks.iter().map(|chunk| chunk.len() as u64).sum(),
        hash: *blake3::hash(&bytes).as_bytes(),
        chain,
        tainted: entries.iter().filter(|entry| entry.tainted).map(|entry| entry.pos).collect(),
        bytes,
    };
    let again = unpack(&pack)?;
    let equal = again.len() == entries.len()
        && again
            .iter()
            .zip(entries)
            .all(|(a, b)| a.header.hash == b.header.hash && a.bytes == b.bytes);
    if equal {
        Ok(pack)
    } else {
        Err(StoreError::Damaged("a pack that does not reproduce its changes".into()).into())
    }
}
