//! A reader that stands still, and the unique values that another catalog would index, in a scratch
//! table of its own: so that what would be can be found out beside what is.

use fieldkeep_model::{RecordId, TypeName};
use rusqlite::params;

use crate::records::{Dependants, dependants};
use crate::{Reader, Records as _, Result};

impl Reader {
    /// Reads on as of now, and has a scratch table for [`Reader::claim`]. The writer goes on; until
    /// this reader goes, its log cannot shrink.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn stand_still(&self) -> Result<()> {
        self.connection.execute_batch(
            "PRAGMA temp_store = FILE; BEGIN;
             CREATE TEMP TABLE claim (ty TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL,
                 sid INTEGER NOT NULL, id TEXT NOT NULL,
                 PRIMARY KEY (ty, field, value, id, sid)) WITHOUT ROWID",
        )?;
        // A transaction sees the file as it is when it first reads it.
        self.attention_counts()?;
        Ok(())
    }

    /// Notes that a record would claim a unique value.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn claim(
        &self,
        ty: &TypeName,
        (field, value): (&str, &str),
        sid: i64,
        id: &RecordId,
    ) -> Result<()> {
        self.connection
            .prepare_cached("INSERT OR IGNORE INTO temp.claim VALUES (?, ?, ?, ?, ?)")?
            .execute(params![ty.as_str(), field, value, sid, id.as_str()])?;
        Ok(())
    }

    /// The records that would claim it, the first two by their ids: one that asks is told of another.
    ///
    /// # Errors
    /// When the scratch table cannot be read.
    pub fn would_claim(&self, ty: &TypeName, field: &str, value: &str) -> Result<Dependants> {
        let mut query = self.connection.prepare_cached(
            "SELECT min(sid), id FROM temp.claim WHERE ty = ? AND field = ? AND value = ?
             GROUP BY id ORDER BY id LIMIT 2",
        )?;
        dependants(&mut query, params![ty.as_str(), field, value])
    }
}
