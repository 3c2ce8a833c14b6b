//! Types that are started afresh: what stands of segments that are of another generation than their
//! type, and where their records went.
//!
//! Such a segment has a log, and no records in the projection: a record is in one segment, that of its
//! type's generation, and keeps its number when it moves there, so that whatever refers to it does so
//! still.

use std::collections::BTreeMap;

use fieldkeep_model::{Pos, RecordId, SegmentId};
use rusqlite::{OptionalExtension as _, params};

use crate::{Queries, Reader, Result, Store};

/// A segment that is of another generation than its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Apart {
    /// Through which position its records were carried over as they stood.
    pub cut: Pos,
    /// Through which position everything was carried over.
    pub done: Pos,
    /// How many records its document has.
    pub records: u64,
    /// The sum of their digests.
    pub rows: u128,
}

impl Store {
    /// Writes down what stands of a segment that is of another generation than its type.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_apart(&mut self, sid: i64, apart: &Apart) -> Result<()> {
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO apart VALUES (?, ?, ?, ?, ?)")?
            .execute(params![
                sid,
                apart.cut as i64,
                apart.done as i64,
                apart.records as i64,
                apart.rows.to_be_bytes()
            ])?;
        Ok(())
    }

    /// Notes that a segment is taken out, because a file has it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note_archived(&mut self, id: &SegmentId) -> Result<()> {
        self.write()?
            .prepare_cached("INSERT OR IGNORE INTO archived VALUES (?)")?
            .execute([id.0])?;
        Ok(())
    }

    /// Notes that a segment is of its type's generation.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove_apart(&mut self, sid: i64) -> Result<()> {
        self.write()?.prepare_cached("DELETE FROM apart WHERE sid = ?")?.execute([sid])?;
        Ok(())
    }

    /// Notes in which segment of the next generation a record is.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note_moved(&mut self, sid: i64, id: &RecordId, target: i64) -> Result<()> {
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO moved VALUES (?, ?, ?)")?
            .execute(params![sid, id.as_str(), target])?;
        Ok(())
    }

    /// Moves the records of a segment to where they are in the next generation, with what stands of
    /// their verdicts and whom their files are open to. Those that are nowhere there go.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn move_records(&mut self, sid: i64) -> Result<()> {
        let connection = self.write()?;
        connection.execute(
            "INSERT OR IGNORE INTO blob_opened
                 SELECT DISTINCT o.hash, m.target, o.member, o.time FROM blob_opened o
                     JOIN attached a ON a.hash = o.hash JOIN record r ON r.rid = a.rid
                     JOIN moved m ON m.sid = r.sid AND m.id = r.id
                 WHERE o.sid = ?1 AND r.sid = ?1",
            [sid],
        )?;
        for (table, besides) in [("record", ", pos = 0, valid_pos = 0"), ("verdict", "")] {
            connection.execute(
                &format!(
                    "UPDATE {table} SET sid = m.target{besides} FROM moved m
                     WHERE {table}.sid = ?1 AND m.sid = ?1 AND m.id = {table}.id"
                ),
                [sid],
            )?;
        }
        connection.execute("DELETE FROM verdict WHERE sid = ?", [sid])?;
        self.clear_records(sid)
    }

    /// Notes that records of a segment that are valid were so at a position.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn pass_valid(&mut self, sid: i64, pos: Pos) -> Result<()> {
        self.write()?
            .prepare_cached("UPDATE record SET valid_pos = ? WHERE sid = ? AND state = 0")?
            .execute([pos as i64, sid])?;
        Ok(())
    }

    /// Counts segments' records anew, after they were moved; and forgets where they were.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn settle_moved(&mut self) -> Result<()> {
        let connection = self.write()?;
        connection.execute_batch(
            "UPDATE tally SET
                 unsaved = (SELECT count(*) FROM record r WHERE r.sid = tally.sid AND r.unsaved > 0),
                 held = (SELECT count(*) FROM record r WHERE r.sid = tally.sid AND r.state = 1
                     AND r.deleted = 0)
             WHERE sid IN (SELECT sid FROM moved UNION SELECT target FROM moved);
             DELETE FROM moved;",
        )?;
        Ok(())
    }
}

/// Reading what stands of generations.
pub trait Generations: Queries {
    /// The segments that are of another generation than their type, by number.
    ///
    /// # Errors
    /// When the disk fails.
    fn apart(&self) -> Result<BTreeMap<i64, Apart>> {
        let mut query =
            self.connection().prepare_cached("SELECT sid, cut, done, records, rows FROM apart")?;
        let rows = query.query_map([], |row| {
            let number = |at| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)? as u64);
            let (cut, done, records) = (number(1)?, number(2)?, number(3)?);
            let rows = u128::from_be_bytes(row.get(4)?);
            Ok((row.get(0)?, Apart { cut, done, records, rows }))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The segments that were taken out.
    ///
    /// # Errors
    /// When the disk fails.
    fn archived(&self) -> Result<Vec<SegmentId>> {
        let mut query = self.connection().prepare_cached("SELECT id FROM archived")?;
        let rows = query.query_map([], |row| row.get(0).map(SegmentId))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// In which segment of the next generation a record of that segment is.
    ///
    /// # Errors
    /// When the disk fails.
    fn moved_to(&self, sid: i64, id: &RecordId) -> Result<Option<i64>> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT target FROM moved WHERE sid = ? AND id = ?")?;
        Ok(query.query_row(params![sid, id.as_str()], |row| row.get(0)).optional()?)
    }
}

impl Generations for Store {}
impl Generations for Reader {}
