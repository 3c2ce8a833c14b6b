//! Segments: where each stands.

use fieldkeep_model::{Chain, ChangeHash, Epoch, Pos, SegmentAddress, SegmentId, TypeName};
use rusqlite::{Row, params};

use crate::error::damaged;
use crate::{Queries, Reader, Result, Store, StoreError};

/// Where a device stands in the relay's log of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The log's epoch.
    pub epoch: Epoch,
    /// The position through which everything is applied.
    pub pos: Pos,
    /// The chain at that position.
    pub chain: [u8; 16],
    /// The heads of that prefix, sorted.
    pub heads: Vec<ChangeHash>,
}

impl Cursor {
    /// The chain as a chain.
    #[must_use]
    pub fn chain(&self) -> Chain {
        Chain(self.chain)
    }
}

/// A segment's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRow {
    /// Its number in this store.
    pub sid: i64,
    /// Its id.
    pub id: SegmentId,
    /// What it holds.
    pub address: SegmentAddress,
    /// The end of this store's own log.
    pub tip: Pos,
    /// The chain at that end.
    pub chain: Chain,
    /// The sum of all hashes in the log, modulo 2^128: finds a lost or exchanged row.
    pub sum: u128,
    /// Positions up to here lie in packs.
    pub packed: Pos,
    /// Positions up to here are materialised.
    pub done: Pos,
    /// Whether materialising failed: an alarm, and nothing else stops.
    pub damaged: bool,
    /// The number of the newest verdict.
    pub verdict: u64,
    /// The position of the relay's log through which everything is judged.
    pub judged: Pos,
    /// The number of the catalog that it was judged by.
    pub judged_catalog: u64,
    /// On a device: where it stands in the relay's log.
    pub cursor: Cursor,
    /// On a device: how far the relay's log is known to reach.
    pub told: Pos,
    /// On a device: through which position everything was proven equal to the relay's.
    pub proven: Pos,
    /// When that was, milliseconds UTC.
    pub proven_time: i64,
    /// How many records there are, deleted ones included.
    pub records: u64,
    /// How many are not deleted.
    pub live: u64,
    /// On a relay: how many of them are held. A device counts them when it is asked.
    pub held: u64,
    /// On a relay: how many of them wait for another record.
    pub waiting: u64,
    /// The sum of the records' digests, modulo 2^128.
    pub rows: u128,
}

impl SegmentRow {
    fn new(sid: i64, id: SegmentId, address: SegmentAddress) -> Self {
        Self {
            sid,
            id,
            address,
            tip: 0,
            chain: Chain::START,
            sum: 0,
            packed: 0,
            done: 0,
            damaged: false,
            verdict: 0,
            judged: 0,
            judged_catalog: 0,
            cursor: Cursor::default(),
            told: 0,
            proven: 0,
            proven_time: 0,
            records: 0,
            live: 0,
            held: 0,
            waiting: 0,
            rows: 0,
        }
    }

    /// The key of a log entry.
    pub(crate) fn key(sid: i64, pos: Pos) -> i64 {
        sid << 40 | pos as i64
    }
}

impl Store {
    /// Creates a segment's row.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn create_segment(&mut self, id: SegmentId, address: SegmentAddress) -> Result<SegmentRow> {
        let connection = self.write()?;
        let zero = [0u8; 16];
        connection
            .prepare_cached(
                "INSERT INTO segment (id, ty, scope, buckets, bucket, generation, tip, chain, sum,
                    packed, done, damaged, verdict, judged, judged_catalog, counter, salt, pos,
                    log_chain, heads, records, live, held, rows)
                 VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, 0, 0, 0, 0, 0, 0, 0, ?, 0, ?, x'', 0, 0, 0, ?)",
            )?
            .execute(params![
                id.0,
                address.ty.as_str(),
                address.scope,
                address.buckets,
                address.bucket,
                address.generation,
                zero,
                zero,
                [0u8; 8],
                zero,
                zero
            ])?;
        Ok(SegmentRow::new(connection.last_insert_rowid(), id, address))
    }

    /// Writes a segment's row back.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn save_segment(&mut self, row: &SegmentRow) -> Result<()> {
        let heads: Vec<u8> = row.cursor.heads.iter().flat_map(|hash| hash.0).collect();
        self.write()?
            .prepare_cached(
                "UPDATE segment SET tip = ?, chain = ?, sum = ?, packed = ?, done = ?, damaged = ?,
                    verdict = ?, judged = ?, judged_catalog = ?, counter = ?, salt = ?, pos = ?,
                    log_chain = ?, heads = ?, told = ?, proven = ?, proven_time = ?, records = ?,
                    live = ?, held = ?, waiting = ?, rows = ?
                 WHERE sid = ?",
            )?
            .execute(params![
                row.tip as i64,
                row.chain.0,
                row.sum.to_be_bytes(),
                row.packed as i64,
                row.done as i64,
                row.damaged,
                row.verdict as i64,
                row.judged as i64,
                row.judged_catalog as i64,
                row.cursor.epoch.counter as i64,
                row.cursor.epoch.salt,
                row.cursor.pos as i64,
                row.cursor.chain,
                heads,
                row.told as i64,
                row.proven as i64,
                row.proven_time,
                row.records as i64,
                row.live as i64,
                row.held as i64,
                row.waiting as i64,
                row.rows.to_be_bytes(),
                row.sid
            ])?;
        Ok(())
    }
}

/// Reading segments.
pub trait Segments: Queries {
    /// All segments.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn segments(&self) -> Result<Vec<SegmentRow>> {
        let mut query = self.connection().prepare_cached("SELECT * FROM segment ORDER BY sid")?;
        let rows = query.query_map([], |row| Ok(read(row)))?;
        rows.map(|row| row?).collect()
    }
}

impl Segments for Store {}
impl Segments for Reader {}

fn read(row: &Row<'_>) -> Result<SegmentRow> {
    let position = |name| row.get::<_, i64>(name).map(|n| n as u64).map_err(StoreError::from);
    let ty: String = row.get("ty")?;
    let heads: Vec<u8> = row.get("heads")?;
    Ok(SegmentRow {
        sid: row.get("sid")?,
        id: SegmentId(row.get("id")?),
        address: SegmentAddress {
            ty: TypeName::new(ty).map_err(|_| damaged("a type name"))?,
            scope: row.get("scope")?,
            buckets: row.get("buckets")?,
            bucket: row.get("bucket")?,
            generation: row.get("generation")?,
        },
        tip: position("tip")?,
        chain: Chain(row.get("chain")?),
        sum: u128::from_be_bytes(row.get("sum")?),
        packed: position("packed")?,
        done: position("done")?,
        damaged: row.get("damaged")?,
        verdict: position("verdict")?,
        judged: position("judged")?,
        judged_catalog: position("judged_catalog")?,
        cursor: Cursor {
            epoch: Epoch { counter: position("counter")?, salt: row.get("salt")? },
            pos: position("pos")?,
            chain: row.get("log_chain")?,
            heads: heads.chunks_exact(32).filter_map(ChangeHash::from_slice).collect(),
        },
        told: position("told")?,
        proven: position("proven")?,
        proven_time: row.get("proven_time")?,
        records: position("records")?,
        live: position("live")?,
        held: position("held")?,
        waiting: position("waiting")?,
        rows: u128::from_be_bytes(row.get("rows")?),
    })
}
