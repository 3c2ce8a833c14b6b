//! Receipts as the relay signed them, to be shown to others.

use fieldkeep_model::{ActorId, Seq, Signed};
use rusqlite::params;

use crate::settings::signed;
use crate::{Queries, Reader, Result, Store};

impl Store {
    /// Keeps the newest receipt of an actor in a segment.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_receipt(
        &mut self,
        sid: i64,
        actor: &ActorId,
        seq: Seq,
        receipt: &Signed,
    ) -> Result<()> {
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO receipt VALUES (?, ?, ?, ?, ?)")?
            .execute(params![sid, actor.0, seq as i64, receipt.bytes, receipt.signature.0])?;
        Ok(())
    }

    /// Drops every receipt: the log that they speak of is no more.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn clear_receipts(&mut self) -> Result<()> {
        self.write()?.execute("DELETE FROM receipt", [])?;
        Ok(())
    }
}

/// Reading receipts.
pub trait Receipts: Queries {
    /// The receipts of a segment, by actor, each with its seq.
    ///
    /// # Errors
    /// When the disk fails.
    fn receipts(&self, sid: i64) -> Result<Vec<(ActorId, Seq, Signed)>> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT actor, seq, bytes, signature FROM receipt WHERE sid = ?")?;
        let rows = query.query_map([sid], |row| {
            let seq = row.get::<_, i64>(1)? as u64;
            Ok((ActorId(row.get(0)?), seq, row.get(2)?, row.get::<_, Vec<u8>>(3)?))
        })?;
        rows.map(|row| {
            let (actor, seq, bytes, signature) = row?;
            Ok((actor, seq, signed(bytes, &signature)?))
        })
        .collect()
    }
}

impl Receipts for Store {}
impl Receipts for Reader {}
