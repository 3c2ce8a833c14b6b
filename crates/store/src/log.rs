//! The log: changes as rows or in packs, signed heads, what awaits a receipt, what was kept aside,
//! and the caches that speed loading.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::head::Head;
use fieldkeep_model::{ActorId, Chain, ChangeHash, Pos, RecordId, Seq, Signature, SignedHead};
use rusqlite::{OptionalExtension, Row, params};

use crate::error::damaged;
use crate::segments::SegmentRow;
use crate::{Queries, Reader, Result, Store};

/// What is noted of a log entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Not covered by its author's grants, and merged only because something permitted builds on
    /// it: what it wrote is held.
    pub tainted: bool,
}

/// A log entry that lies in no pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRow {
    /// Its position.
    pub pos: Pos,
    /// Its author.
    pub actor: ActorId,
    /// The author's counter.
    pub seq: Seq,
    /// Its hash.
    pub hash: ChangeHash,
    /// What is noted of it.
    pub flags: Flags,
    /// The chunk.
    pub bytes: Vec<u8>,
}

/// A stretch of the log in one compressed batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackRow {
    /// The position of its first entry.
    pub first: Pos,
    /// The position of its last entry.
    pub last: Pos,
    /// The level at which it was compressed.
    pub level: i32,
    /// The sum of its chunks' lengths, in bytes.
    pub raw: u64,
    /// blake3 of the batch.
    pub hash: [u8; 32],
    /// The chain before its first entry.
    pub chain: Chain,
    /// The positions of tainted entries.
    pub tainted: Vec<Pos>,
    /// The batch.
    pub bytes: Vec<u8>,
}

/// A change that has no receipt yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its position in this store's log.
    pub pos: Pos,
    /// Its author.
    pub actor: ActorId,
    /// The author's counter.
    pub seq: Seq,
    /// The relay's reason for not taking it, if it said so.
    pub refused: Option<String>,
    /// The records that it touches.
    pub records: Vec<RecordId>,
    /// Whether another device wrote it, and this one carries it.
    pub carried: bool,
}

/// A change that was not admitted, or taken out of the log, and is kept all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The segment's number in this store.
    pub sid: i64,
    /// The change.
    pub hash: ChangeHash,
    /// Its author.
    pub actor: ActorId,
    /// The author's counter.
    pub seq: Seq,
    /// Why: `not_permitted`, `over_quota`, `fork`, or `undecided` for a branch that no relay has decided
    /// about.
    pub reason: String,
    /// When, milliseconds UTC by this replica's clock.
    pub time: i64,
    /// The records that it touches, as far as they could be told.
    pub records: Vec<String>,
    /// The signed head that vouches for it, encoded.
    pub head: Vec<u8>,
    /// The chunk.
    pub bytes: Vec<u8>,
}

/// A saved document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The log position through which it is merged.
    pub pos: Pos,
    /// The document, as `documents` saves it.
    pub document: Vec<u8>,
}

impl Store {
    /// Appends a change to a segment's log.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append_change(&mut self, sid: i64, change: &ChangeRow) -> Result<()> {
        self.write()?.prepare_cached("INSERT INTO change VALUES (?, ?, ?, ?, ?, ?)")?.execute(
            params![
                SegmentRow::key(sid, change.pos),
                change.actor.0,
                change.seq as i64,
                change.hash.0,
                i64::from(change.flags.tainted),
                change.bytes
            ],
        )?;
        Ok(())
    }

    /// Keeps a signed head at the log position of its change, with the chain there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_head(&mut self, sid: i64, pos: Pos, chain: &Chain, head: &SignedHead) -> Result<()> {
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO head VALUES (?, ?, ?, ?, ?, ?)")?
            .execute(params![
                SegmentRow::key(sid, pos),
                head.head.actor.0,
                head.head.seq as i64,
                head.head.hash.0,
                head.signature.0,
                chain.0
            ])?;
        Ok(())
    }

    /// Replaces rows by a pack that was verified to reproduce them, with the heads that it needs.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_pack(&mut self, sid: i64, pack: &PackRow, keep: &[Pos]) -> Result<()> {
        let (first, last) = (SegmentRow::key(sid, pack.first), SegmentRow::key(sid, pack.last));
        let connection = self.write()?;
        let tainted: Vec<u8> = pack.tainted.iter().flat_map(|pos| pos.to_be_bytes()).collect();
        connection
            .prepare_cached("DELETE FROM pack WHERE key BETWEEN ? AND ?")?
            .execute([first, last])?;
        connection.prepare_cached("INSERT INTO pack VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?.execute(
            params![
                first,
                pack.last as i64,
                pack.level,
                pack.raw as i64,
                pack.hash,
                pack.chain.0,
                tainted,
                pack.bytes
            ],
        )?;
        connection
            .prepare_cached("DELETE FROM change WHERE key BETWEEN ? AND ?")?
            .execute([first, last])?;
        let heads: Vec<i64> = connection
            .prepare_cached("SELECT DISTINCT key FROM head WHERE key BETWEEN ? AND ?")?
            .query_map([first, last], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for key in heads {
            if !keep.iter().any(|pos| SegmentRow::key(sid, *pos) == key) {
                connection.prepare_cached("DELETE FROM head WHERE key = ?")?.execute([key])?;
            }
        }
        Ok(())
    }

    /// Takes a segment's whole log out, because it is about to be written again without a branch
    /// that lost; the caller has the changes.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn clear_log(&mut self, sid: i64) -> Result<()> {
        let (first, last) = (SegmentRow::key(sid, 0), SegmentRow::key(sid + 1, 0) - 1);
        let connection = self.write()?;
        for table in ["change", "pack", "head", "outbox"] {
            connection.execute(
                &format!("DELETE FROM {table} WHERE key BETWEEN ? AND ?"),
                [first, last],
            )?;
        }
        self.forget_caches(sid)
    }

    /// Drops what only speeds the loading of a segment.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_caches(&mut self, sid: i64) -> Result<()> {
        let connection = self.write()?;
        for table in ["snapshot", "history"] {
            connection.execute(&format!("DELETE FROM {table} WHERE sid = ?"), [sid])?;
        }
        Ok(())
    }

    /// Takes a segment out with everything that is kept of it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove_segment(&mut self, sid: i64) -> Result<()> {
        self.clear_log(sid)?;
        self.clear_records(sid)?;
        self.forget_verdicts(sid)?;
        let connection = self.write()?;
        for table in ["acked", "aside", "receipt", "tally", "apart", "moved", "segment"] {
            connection.execute(&format!("DELETE FROM {table} WHERE sid = ?"), [sid])?;
        }
        Ok(())
    }

    /// Notes a change that needs a receipt.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_outgoing(&mut self, sid: i64, change: &Outgoing) -> Result<()> {
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?, ?, ?)")?
            .execute(params![
                SegmentRow::key(sid, change.pos),
                change.actor.0,
                change.seq as i64,
                change.refused,
                join(&change.records),
                change.carried
            ])?;
        Ok(())
    }

    /// Notes a receipt, and returns what it covers.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn acknowledge(&mut self, sid: i64, actor: &ActorId, seq: Seq) -> Result<Vec<Outgoing>> {
        let mut covered = Vec::new();
        self.each_outgoing(sid, |change| {
            // An actor's counters ascend along the log: behind the first later one is none.
            let theirs = change.actor == *actor;
            let go_on = !theirs || change.seq <= seq;
            covered.extend((theirs && go_on).then_some(change));
            go_on
        })?;
        let connection = self.write()?;
        for change in &covered {
            connection
                .prepare_cached("DELETE FROM outbox WHERE key = ?")?
                .execute([SegmentRow::key(sid, change.pos)])?;
        }
        connection
            .prepare_cached("INSERT OR REPLACE INTO acked VALUES (?, ?, ?)")?
            .execute(params![sid, actor.0, seq as i64])?;
        Ok(covered)
    }

    /// Keeps a saved document in one of two slots, the older one.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_snapshot(&mut self, sid: i64, snapshot: &Snapshot) -> Result<()> {
        let slots: Vec<(i64, i64)> = self
            .connection
            .prepare_cached("SELECT slot, pos FROM snapshot WHERE sid = ? ORDER BY pos")?
            .query_map([sid], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let slot = match slots[..] {
            [] => 0,
            [(used, _)] => 1 - used,
            [(oldest, _), ..] => oldest,
        };
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?, ?)")?
            .execute(params![sid, slot, snapshot.pos as i64, snapshot.document])?;
        Ok(())
    }

    /// Keeps the gate's index of a segment.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_history(&mut self, sid: i64, pos: Pos, bytes: &[u8]) -> Result<()> {
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO history VALUES (?, ?, ?)")?
            .execute(params![sid, pos as i64, bytes])?;
        Ok(())
    }

    /// Keeps a change aside; one that is there already stays as it is.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_aside(&mut self, aside: &Aside) -> Result<bool> {
        let put = self
            .write()?
            .prepare_cached(
                "INSERT OR IGNORE INTO aside (sid, hash, actor, seq, reason, time, records, head, bytes)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                aside.sid,
                aside.hash.0,
                aside.actor.0,
                aside.seq as i64,
                aside.reason,
                aside.time,
                aside.records.join("\n"),
                aside.head,
                aside.bytes
            ])?;
        Ok(put > 0)
    }

    /// Notes for another reason why a change lies aside.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn mark_aside(&mut self, sid: i64, hash: &ChangeHash, reason: &str) -> Result<()> {
        self.write()?
            .prepare_cached("UPDATE aside SET reason = ? WHERE sid = ? AND hash = ?")?
            .execute(params![reason, sid, hash.0])?;
        Ok(())
    }

    /// Keeps another head for a change that lies aside.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn vouch_aside(&mut self, sid: i64, hash: &ChangeHash, head: &[u8]) -> Result<()> {
        self.write()?
            .prepare_cached("UPDATE aside SET head = ? WHERE sid = ? AND hash = ?")?
            .execute(params![head, sid, hash.0])?;
        Ok(())
    }

    /// Takes out a change that was kept aside, because it is admitted after all.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn take_aside(&mut self, sid: i64, hash: &ChangeHash) -> Result<()> {
        self.write()?
            .prepare_cached("DELETE FROM aside WHERE sid = ? AND hash = ?")?
            .execute(params![sid, hash.0])?;
        Ok(())
    }
}

/// Reading the log.
pub trait Log: Queries {
    /// Rows from a position on, until so many bytes are exceeded.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn changes(&self, sid: i64, from: Pos, bytes: usize) -> Result<Vec<ChangeRow>> {
        let mut query = self.connection().prepare_cached(
            "SELECT key, actor, seq, hash, flags, bytes FROM change WHERE key BETWEEN ? AND ? ORDER BY key",
        )?;
        let bounds = [SegmentRow::key(sid, from), SegmentRow::key(sid + 1, 0) - 1];
        let mut rows = query.query(bounds)?;
        let (mut changes, mut taken) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let change = read_change(row)?;
            taken += change.bytes.len();
            changes.push(change);
            if taken >= bytes {
                break;
            }
        }
        Ok(changes)
    }

    /// Position, author, counter and hash of every entry that lies in no pack, in order. The changes
    /// themselves are not read, and may be damaged.
    ///
    /// # Errors
    /// When the disk fails.
    fn change_names(&self, sid: i64) -> Result<Vec<(Pos, ActorId, Seq, ChangeHash)>> {
        let mut query = self.connection().prepare_cached(
            "SELECT key, actor, seq, hash FROM change WHERE key BETWEEN ? AND ? ORDER BY key",
        )?;
        let bounds = [SegmentRow::key(sid, 0), SegmentRow::key(sid + 1, 0) - 1];
        let rows = query.query_map(bounds, |row| {
            let seq = row.get::<_, i64>(2)? as u64;
            Ok((pos_of(row.get(0)?), ActorId(row.get(1)?), seq, ChangeHash(row.get(3)?)))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The positions of tainted rows in a stretch of the log.
    ///
    /// # Errors
    /// When the disk fails.
    fn tainted_rows(&self, sid: i64, from: Pos, to: Pos) -> Result<Vec<Pos>> {
        let mut query = self.connection().prepare_cached(
            "SELECT key FROM change WHERE key BETWEEN ? AND ? AND flags != 0 ORDER BY key",
        )?;
        let bounds = [SegmentRow::key(sid, from), SegmentRow::key(sid, to)];
        let rows = query.query_map(bounds, |row| Ok(pos_of(row.get(0)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The pack that holds a position.
    ///
    /// # Errors
    /// When the disk fails or the pack is not what was written.
    fn pack(&self, sid: i64, pos: Pos) -> Result<Option<PackRow>> {
        let mut query = self.connection().prepare_cached(
            "SELECT key, last, level, raw, hash, flags, bytes, chain FROM pack
             WHERE key = (SELECT key FROM pack WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT 1)
               AND last >= ?",
        )?;
        let bounds = [SegmentRow::key(sid, 0), SegmentRow::key(sid, pos), pos as i64];
        let pack = query.query_row(bounds, |row| {
            let tainted: Vec<u8> = row.get(5)?;
            Ok(PackRow {
                first: pos_of(row.get(0)?),
                last: row.get::<_, i64>(1)? as u64,
                level: row.get(2)?,
                raw: row.get::<_, i64>(3)? as u64,
                hash: row.get(4)?,
                tainted: tainted
                    .chunks_exact(8)
                    .map(|b| u64::from_be_bytes(b.try_into().expect("eight bytes")))
                    .collect(),
                bytes: row.get(6)?,
                chain: Chain(row.get(7)?),
            })
        });
        let pack = pack.optional()?;
        match &pack {
            Some(pack) if *blake3::hash(&pack.bytes).as_bytes() != pack.hash => {
                Err(damaged(&format!("the pack of segment {sid} from position {}", pack.first)))
            }
            _ => Ok(pack),
        }
    }

    /// The positions at which a segment's packs begin, in order.
    ///
    /// # Errors
    /// When the disk fails.
    fn packs(&self, sid: i64) -> Result<Vec<Pos>> {
        let sql = "SELECT key FROM pack WHERE key BETWEEN ? AND ? ORDER BY key";
        let mut query = self.connection().prepare_cached(sql)?;
        let bounds = [SegmentRow::key(sid, 0), SegmentRow::key(sid + 1, 0) - 1];
        let rows = query.query_map(bounds, |row| Ok(pos_of(row.get(0)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The position of a segment's first pack that is compressed less hard than a level.
    ///
    /// # Errors
    /// When the disk fails.
    fn pack_below(&self, sid: i64, level: i32) -> Result<Option<Pos>> {
        let mut query = self.connection().prepare_cached(
            "SELECT key FROM pack WHERE key BETWEEN ? AND ? AND level < ? ORDER BY key LIMIT 1",
        )?;
        let (first, last) = (SegmentRow::key(sid, 0), SegmentRow::key(sid + 1, 0) - 1);
        let key = query.query_row(params![first, last, level], |row| row.get(0)).optional()?;
        Ok(key.map(pos_of))
    }

    /// The signed heads whose changes lie in a stretch of the log.
    ///
    /// # Errors
    /// When the disk fails.
    fn heads(&self, sid: i64, from: Pos, to: Pos) -> Result<Vec<(Pos, SignedHead)>> {
        let mut query = self.connection().prepare_cached(
            "SELECT key, actor, seq, hash, signature FROM head WHERE key BETWEEN ? AND ? ORDER BY key",
        )?;
        let bounds = [SegmentRow::key(sid, from), SegmentRow::key(sid, to)];
        let rows = query.query_map(bounds, |row| {
            let head = Head {
                actor: ActorId(row.get(1)?),
                seq: row.get::<_, i64>(2)? as u64,
                hash: ChangeHash(row.get(3)?),
            };
            let signature = row.get::<_, Vec<u8>>(4)?;
            Ok((pos_of(row.get(0)?), head, signature))
        })?;
        rows.map(|row| {
            let (pos, head, signature) = row?;
            let signature = signature.try_into().map_err(|_| damaged("a signed head"))?;
            Ok((pos, SignedHead { head, signature: Signature(signature) }))
        })
        .collect()
    }

    /// The newest position at or before `pos` whose chain is kept with a signed head.
    ///
    /// # Errors
    /// When the disk fails.
    fn chain_before(&self, sid: i64, pos: Pos) -> Result<Option<(Pos, Chain)>> {
        let mut query = self.connection().prepare_cached(
            "SELECT key, chain FROM head WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT 1",
        )?;
        let bounds = [SegmentRow::key(sid, 0), SegmentRow::key(sid, pos)];
        let row = query.query_row(bounds, |row| Ok((pos_of(row.get(0)?), Chain(row.get(1)?))));
        Ok(row.optional()?)
    }

    /// What of a segment has no receipt, in log order.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn outgoing(&self, sid: i64) -> Result<Vec<Outgoing>> {
        let mut outgoing = Vec::new();
        self.each_outgoing(sid, |change| {
            outgoing.push(change);
            true
        })?;
        Ok(outgoing)
    }

    /// Visits what of a segment has no receipt, in log order, for as long as `visit` says so.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn each_outgoing(&self, sid: i64, mut visit: impl FnMut(Outgoing) -> bool) -> Result<()> {
        let mut query = self.connection().prepare_cached(
            "SELECT key, actor, seq, refused, records, carried FROM outbox WHERE key BETWEEN ? AND ? ORDER BY key",
        )?;
        let bounds = [SegmentRow::key(sid, 0), SegmentRow::key(sid + 1, 0) - 1];
        let mut rows = query.query(bounds)?;
        while let Some(row) = rows.next()? {
            let change = Outgoing {
                pos: pos_of(row.get(0)?),
                actor: ActorId(row.get(1)?),
                seq: row.get::<_, i64>(2)? as u64,
                refused: row.get(3)?,
                records: split(&row.get::<_, String>(4)?),
                carried: row.get(5)?,
            };
            if !visit(change) {
                break;
            }
        }
        Ok(())
    }

    /// Of some records of a segment the newest change each that has no receipt: where it lies.
    ///
    /// # Errors
    /// When the disk fails.
    fn newest_outgoing(
        &self,
        sid: i64,
        records: &BTreeSet<RecordId>,
    ) -> Result<BTreeMap<RecordId, Pos>> {
        let mut query = self.connection().prepare_cached(
            "SELECT key, records FROM outbox WHERE key BETWEEN ? AND ? ORDER BY key DESC",
        )?;
        let mut rows = query.query([SegmentRow::key(sid, 0), SegmentRow::key(sid + 1, 0) - 1])?;
        let mut newest = BTreeMap::new();
        while newest.len() < records.len()
            && let Some(row) = rows.next()?
        {
            let pos = pos_of(row.get(0)?);
            let touched = split(&row.get::<_, String>(1)?).into_iter();
            for id in touched.filter(|id| records.contains(id)) {
                newest.entry(id).or_insert(pos);
            }
        }
        Ok(newest)
    }

    /// The positions after one of what of a segment is to be sent: it has no receipt, and was not
    /// refused.
    ///
    /// # Errors
    /// When the disk fails.
    fn unsent(&self, sid: i64, after: Pos) -> Result<BTreeSet<Pos>> {
        let mut query = self.connection().prepare_cached(
            "SELECT key FROM outbox WHERE key BETWEEN ? AND ? AND refused IS NULL",
        )?;
        let bounds = [SegmentRow::key(sid, after) + 1, SegmentRow::key(sid + 1, 0) - 1];
        let rows = query.query_map(bounds, |row| Ok(pos_of(row.get(0)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Whether any change has no receipt.
    ///
    /// # Errors
    /// When the disk fails.
    fn has_outgoing(&self) -> Result<bool> {
        let mut query = self.connection().prepare_cached("SELECT EXISTS (SELECT 1 FROM outbox)")?;
        Ok(query.query_row([], |row| row.get(0))?)
    }

    /// How many changes of a segment have no receipt: those that are to be sent, and those that were
    /// refused.
    ///
    /// # Errors
    /// When the disk fails.
    fn outgoing_in(&self, sid: i64) -> Result<(u64, u64)> {
        let mut query = self.connection().prepare_cached(
            "SELECT count(*), count(refused) FROM outbox WHERE key BETWEEN ? AND ?",
        )?;
        let bounds = [SegmentRow::key(sid, 0), SegmentRow::key(sid + 1, 0) - 1];
        let (all, refused) = query.query_row(bounds, |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
        })?;
        Ok((all - refused, refused))
    }

    /// The same of every segment that has any.
    ///
    /// # Errors
    /// When the disk fails.
    fn outgoing_by_segment(&self) -> Result<BTreeMap<i64, (u64, u64)>> {
        let mut query = self.connection().prepare_cached(
            "SELECT key >> 40, count(*), count(refused) FROM outbox GROUP BY key >> 40",
        )?;
        let rows = query.query_map([], |row| {
            let count = |at| row.get::<_, i64>(at).map(|count| count as u64);
            Ok((row.get(0)?, (count(1)? - count(2)?, count(2)?)))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// How many changes have no receipt.
    ///
    /// # Errors
    /// When the disk fails.
    fn outgoing_count(&self) -> Result<u64> {
        let mut query = self.connection().prepare_cached("SELECT count(*) FROM outbox")?;
        Ok(query.query_row([], |row| row.get::<_, i64>(0))? as u64)
    }

    /// The newest seq of an actor that a relay has acknowledged.
    ///
    /// # Errors
    /// When the disk fails.
    fn acknowledged(&self, sid: i64, actor: &ActorId) -> Result<Seq> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT seq FROM acked WHERE sid = ? AND actor = ?")?;
        let seq = query.query_row(params![sid, actor.0], |row| row.get::<_, i64>(0)).optional()?;
        Ok(seq.unwrap_or(0) as u64)
    }

    /// The saved documents of a segment, newest first.
    ///
    /// # Errors
    /// When the disk fails.
    fn snapshots(&self, sid: i64) -> Result<Vec<Snapshot>> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT pos, document FROM snapshot WHERE sid = ? ORDER BY pos DESC")?;
        let rows = query.query_map([sid], |row| {
            Ok(Snapshot { pos: row.get::<_, i64>(0)? as u64, document: row.get(1)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The gate's index of a segment, and the position through which it reaches.
    ///
    /// # Errors
    /// When the disk fails.
    fn history(&self, sid: i64) -> Result<Option<(Pos, Vec<u8>)>> {
        let mut query =
            self.connection().prepare_cached("SELECT pos, bytes FROM history WHERE sid = ?")?;
        let row = query.query_row([sid], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?)));
        Ok(row.optional()?)
    }

    /// What was kept aside, oldest first.
    ///
    /// # Errors
    /// When the disk fails.
    fn asides(&self) -> Result<Vec<Aside>> {
        let mut query = self.connection().prepare_cached(
            "SELECT sid, hash, actor, seq, reason, time, records, head, bytes FROM aside ORDER BY id",
        )?;
        let rows = query.query_map([], read_aside)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// What was kept aside of a segment, oldest first.
    ///
    /// # Errors
    /// When the disk fails.
    fn asides_in(&self, sid: i64) -> Result<Vec<Aside>> {
        let mut query = self.connection().prepare_cached(
            "SELECT sid, hash, actor, seq, reason, time, records, head, bytes FROM aside
             WHERE sid = ? ORDER BY id",
        )?;
        let rows = query.query_map([sid], read_aside)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// A change that was kept aside.
    ///
    /// # Errors
    /// When the disk fails.
    fn aside(&self, sid: i64, hash: &ChangeHash) -> Result<Option<Aside>> {
        let mut query = self.connection().prepare_cached(
            "SELECT sid, hash, actor, seq, reason, time, records, head, bytes FROM aside
             WHERE sid = ? AND hash = ?",
        )?;
        Ok(query.query_row(params![sid, hash.0], read_aside).optional()?)
    }

    /// The newest change of each actor that is kept aside in a segment, for each reason.
    ///
    /// # Errors
    /// When the disk fails.
    fn newest_asides(&self, sid: i64) -> Result<Vec<(Head, String)>> {
        let mut query = self.connection().prepare_cached(
            "SELECT actor, max(seq), hash, reason FROM aside WHERE sid = ? GROUP BY actor, reason",
        )?;
        let rows = query.query_map([sid], |row| {
            let seq = row.get::<_, i64>(1)? as u64;
            let head = Head { actor: ActorId(row.get(0)?), seq, hash: ChangeHash(row.get(2)?) };
            Ok((head, row.get(3)?))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// How many changes of each actor lie aside because it may not write them.
    ///
    /// # Errors
    /// When the disk fails.
    fn not_permitted_by_actor(&self) -> Result<BTreeMap<ActorId, u64>> {
        let mut query = self.connection().prepare_cached(
            "SELECT actor, count(*) FROM aside WHERE reason = 'not_permitted' GROUP BY actor",
        )?;
        let rows =
            query.query_map([], |row| Ok((ActorId(row.get(0)?), row.get::<_, i64>(1)? as u64)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// How many bytes of one member's changes lie aside, those left out that an operator accepted.
    ///
    /// # Errors
    /// When the disk fails.
    fn aside_bytes(&self, device: u64) -> Result<u64> {
        let mut query = self.connection().prepare_cached(
            "SELECT coalesce(sum(length(bytes)), 0) FROM aside
             WHERE substr(actor, 1, 8) = ? AND reason != 'accepted'",
        )?;
        let bytes = query.query_row([device.to_be_bytes()], |row| row.get::<_, i64>(0))?;
        Ok(bytes as u64)
    }

    /// The same of every device of which something lies aside.
    ///
    /// # Errors
    /// When the disk fails.
    fn aside_bytes_by_device(&self) -> Result<BTreeMap<u64, u64>> {
        let mut query = self.connection().prepare_cached(
            "SELECT substr(actor, 1, 8), sum(length(bytes)) FROM aside
             WHERE reason != 'accepted' GROUP BY substr(actor, 1, 8)",
        )?;
        let rows = query.query_map([], |row| {
            Ok((u64::from_be_bytes(row.get(0)?), row.get::<_, i64>(1)? as u64))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl Log for Store {}
impl Log for Reader {}

fn pos_of(key: i64) -> Pos {
    (key & ((1 << 40) - 1)) as u64
}

fn read_change(row: &Row<'_>) -> rusqlite::Result<ChangeRow> {
    Ok(ChangeRow {
        pos: pos_of(row.get(0)?),
        actor: ActorId(row.get(1)?),
        seq: row.get::<_, i64>(2)? as u64,
        hash: ChangeHash(row.get(3)?),
        flags: Flags { tainted: row.get::<_, i64>(4)? & 1 == 1 },
        bytes: row.get(5)?,
    })
}

fn read_aside(row: &Row<'_>) -> rusqlite::Result<Aside> {
    let records: String = row.get(6)?;
    Ok(Aside {
        sid: row.get(0)?,
        hash: ChangeHash(row.get(1)?),
        actor: ActorId(row.get(2)?),
        seq: row.get::<_, i64>(3)? as u64,
        reason: row.get(4)?,
        time: row.get(5)?,
        records: records.lines().map(str::to_owned).collect(),
        head: row.get(7)?,
        bytes: row.get(8)?,
    })
}

/// Record ids hold no control characters, so a line break parts them.
fn join(records: &[RecordId]) -> String {
    records.iter().map(RecordId::as_str).collect::<Vec<_>>().join("\n")
}

fn split(records: &str) -> Vec<RecordId> {
    records.lines().filter_map(|id| RecordId::new(id).ok()).collect()
}
