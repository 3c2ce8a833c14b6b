//! The verdict log, and what was dismissed.

use fieldkeep_model::{Epoch, RecordHash, RecordId, RecordKey, Signed, TypeName};
use rusqlite::{OptionalExtension, params};

use crate::settings::signed;
use crate::{Queries, Reader, Result, Store};

/// A block of the verdict log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRow {
    /// The epoch.
    pub epoch: Epoch,
    /// The number of its last verdict.
    pub number: u64,
    /// The relay's statement.
    pub block: Signed,
    /// What opens its sealed arguments, encoded.
    pub openings: Vec<u8>,
}

/// A record that somebody put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dismissal {
    /// The content that was dismissed: a later one is a new matter.
    pub hash: RecordHash,
    /// Who did it.
    pub who: String,
    /// Why.
    pub note: String,
    /// When, milliseconds UTC.
    pub time: i64,
}

/// What stands of a record that is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingVerdict {
    /// The verdict, encoded.
    pub bytes: Vec<u8>,
    /// What opens its sealed arguments, encoded.
    pub openings: Vec<u8>,
    /// When the newest change that it objects to was written, milliseconds UTC; 0 if there is none.
    pub since: i64,
    /// What it speaks of: [`crate::about_rule`] and [`crate::about_device`], one after the other.
    pub about: String,
}

impl Store {
    /// Appends a block with verdicts.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append_block(&mut self, sid: i64, row: &BlockRow) -> Result<()> {
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO verdict_block VALUES (?, ?, ?, ?, ?, ?)")?
            .execute(params![
                sid,
                row.epoch.counter as i64,
                row.number as i64,
                row.block.bytes,
                row.block.signature.0,
                row.openings
            ])?;
        Ok(())
    }

    /// Keeps what stands of a record: its newest verdict, or nothing once it is valid.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_verdict(
        &mut self,
        sid: i64,
        id: &RecordId,
        verdict: Option<&StandingVerdict>,
    ) -> Result<()> {
        let connection = self.write()?;
        match verdict {
            Some(StandingVerdict { bytes, openings, since, about }) => connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO verdict (sid, id, bytes, openings, since, about)
                     VALUES (?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![sid, id.as_str(), bytes, openings, since, about])?,
            None => connection
                .prepare_cached("DELETE FROM verdict WHERE sid = ? AND id = ?")?
                .execute(params![sid, id.as_str()])?,
        };
        Ok(())
    }

    /// Forgets what stands of a segment's records; returns which records those were.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn clear_verdicts(&mut self, sid: i64) -> Result<Vec<RecordId>> {
        let connection = self.write()?;
        // Their states follow from the next block: until then the relay has not judged them.
        connection.execute(
            "UPDATE record SET state = 5 WHERE sid = ?1 AND state < 3 AND id IN
                (SELECT id FROM verdict WHERE sid = ?1)",
            [sid],
        )?;
        let mut delete =
            connection.prepare_cached("DELETE FROM verdict WHERE sid = ? RETURNING id")?;
        let ids = delete.query_map([sid], |row| row.get::<_, String>(0))?;
        let ids = ids.collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(ids.into_iter().filter_map(|id| RecordId::new(id).ok()).collect())
    }

    /// Forgets every verdict and block of a segment: they are followed from the beginning.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_verdicts(&mut self, sid: i64) -> Result<()> {
        let connection = self.write()?;
        for table in ["verdict", "verdict_block", "judged_block"] {
            connection.execute(&format!("DELETE FROM {table} WHERE sid = ?"), [sid])?;
        }
        Ok(())
    }

    /// Keeps the newest block of a segment, with or without verdicts: how far it is judged.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_judged(&mut self, sid: i64, block: &Signed) -> Result<()> {
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO judged_block VALUES (?, ?, ?)")?
            .execute(params![sid, block.bytes, block.signature.0])?;
        Ok(())
    }

    /// Dismisses a record, or reopens it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_dismissal(&mut self, key: &RecordKey, dismissal: Option<&Dismissal>) -> Result<()> {
        let connection = self.write()?;
        let (ty, id) = (key.ty.as_str(), key.id.as_str());
        match dismissal {
            Some(d) => connection
                .prepare_cached("INSERT OR REPLACE INTO dismissal VALUES (?, ?, ?, ?, ?, ?)")?
                .execute(params![ty, id, d.hash.0, d.who, d.note, d.time])?,
            None => connection
                .prepare_cached("DELETE FROM dismissal WHERE ty = ? AND id = ?")?
                .execute([ty, id])?,
        };
        Ok(())
    }
}

/// Reading verdicts.
pub trait Verdicts: Queries {
    /// The blocks of an epoch after a number, at most so many.
    ///
    /// # Errors
    /// When the disk fails.
    fn blocks(&self, sid: i64, epoch: Epoch, after: u64, limit: usize) -> Result<Vec<BlockRow>> {
        let mut query = self.connection().prepare_cached(
            "SELECT number, bytes, signature, openings FROM verdict_block
             WHERE sid = ? AND counter = ? AND number > ? ORDER BY number LIMIT ?",
        )?;
        let params = params![sid, epoch.counter as i64, after as i64, limit as i64];
        let rows = query.query_map(params, |row| {
            Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?, row.get(3)?))
        })?;
        rows.map(|row| {
            let (number, bytes, signature, openings) = row?;
            let block = signed(bytes, &signature)?;
            Ok(BlockRow { epoch, number: number as u64, block, openings })
        })
        .collect()
    }

    /// The verdict that stands of a record, with what opens its sealed arguments, both encoded.
    ///
    /// # Errors
    /// When the disk fails.
    fn verdict(&self, sid: i64, id: &RecordId) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT bytes, openings FROM verdict WHERE sid = ? AND id = ?")?;
        let row = query.query_row(params![sid, id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)));
        Ok(row.optional()?)
    }

    /// Every verdict that stands of a segment's records, with its openings, encoded.
    ///
    /// # Errors
    /// When the disk fails.
    fn standing_verdicts(&self, sid: i64) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT bytes, openings FROM verdict WHERE sid = ? ORDER BY id")?;
        let rows = query.query_map([sid], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// When what the oldest matter among the held records is about was written: of each its newest change
    /// that the rules object to, milliseconds UTC. Deleted records are left out.
    ///
    /// # Errors
    /// When the disk fails.
    fn held_since(&self) -> Result<Option<i64>> {
        let mut query = self.connection().prepare_cached(
            "SELECT v.since FROM verdict v INDEXED BY verdict_found
                 CROSS JOIN record r ON r.id = v.id AND r.sid = v.sid
             WHERE v.since > 0 AND r.state = 1 AND r.deleted = 0 ORDER BY v.since LIMIT 1",
        )?;
        Ok(query.query_row([], |row| row.get(0)).optional()?)
    }

    /// The newest block of a segment.
    ///
    /// # Errors
    /// When the disk fails.
    fn judged(&self, sid: i64) -> Result<Option<Signed>> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT bytes, signature FROM judged_block WHERE sid = ?")?;
        let row = query
            .query_row([sid], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?;
        row.map(|(bytes, signature)| signed(bytes, &signature)).transpose()
    }

    /// How many records of a type somebody put aside, as they are or as they were before.
    ///
    /// # Errors
    /// When the disk fails.
    fn dismissals(&self, ty: &TypeName) -> Result<u64> {
        let mut query =
            self.connection().prepare_cached("SELECT count(*) FROM dismissal WHERE ty = ?")?;
        Ok(query.query_row([ty.as_str()], |row| row.get::<_, i64>(0))? as u64)
    }

    /// Whether and why a record was put aside.
    ///
    /// # Errors
    /// When the disk fails.
    fn dismissal(&self, key: &RecordKey) -> Result<Option<Dismissal>> {
        let mut query = self.connection().prepare_cached(
            "SELECT hash, who, note, time FROM dismissal WHERE ty = ? AND id = ?",
        )?;
        let row = query.query_row([key.ty.as_str(), key.id.as_str()], |row| {
            Ok(Dismissal {
                hash: RecordHash(row.get(0)?),
                who: row.get(1)?,
                note: row.get(2)?,
                time: row.get(3)?,
            })
        });
        Ok(row.optional()?)
    }
}

impl Verdicts for Store {}
impl Verdicts for Reader {}
