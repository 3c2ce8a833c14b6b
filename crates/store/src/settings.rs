//! Settings and the membership log.

use fieldkeep_model::{Signature, Signed};
use rusqlite::{OptionalExtension, params};

use crate::error::damaged;
use crate::{Queries, Reader, Result, Store};

impl Store {
    /// Sets a value.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn set(&mut self, key: &str, value: &[u8]) -> Result<()> {
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO setting VALUES (?, ?)")?
            .execute(params![key, value])?;
        Ok(())
    }

    /// Takes a value out.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn unset(&mut self, key: &str) -> Result<()> {
        self.write()?.prepare_cached("DELETE FROM setting WHERE key = ?")?.execute([key])?;
        Ok(())
    }

    /// Forgets the values whose keys begin like that.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn unset_beginning(&mut self, beginning: &str) -> Result<()> {
        self.write()?
            .prepare_cached("DELETE FROM setting WHERE substr(key, 1, length(?1)) = ?1")?
            .execute([beginning])?;
        Ok(())
    }

    /// Appends an entry of the membership log.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append_member(&mut self, number: u64, entry: &Signed) -> Result<()> {
        self.write()?.prepare_cached("INSERT INTO member VALUES (?, ?, ?)")?.execute(params![
            number as i64,
            entry.bytes,
            entry.signature.0
        ])?;
        Ok(())
    }
}

/// Reading settings.
pub trait Settings: Queries {
    /// A value.
    ///
    /// # Errors
    /// When the disk fails.
    fn setting(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let mut query =
            self.connection().prepare_cached("SELECT value FROM setting WHERE key = ?")?;
        Ok(query.query_row([key], |row| row.get(0)).optional()?)
    }

    /// The values whose keys begin like that, with what follows in their keys. What the keys begin with
    /// ends in ASCII.
    ///
    /// # Errors
    /// When the disk fails.
    fn settings_under(&self, beginning: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let mut query = self.connection().prepare_cached(
            "SELECT substr(key, length(?1) + 1), value FROM setting
             WHERE key >= ?1 AND key < ?1 || char(127) ORDER BY key",
        )?;
        let rows = query.query_map([beginning], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The membership log.
    ///
    /// # Errors
    /// When the disk fails or an entry is damaged.
    fn members(&self) -> Result<Vec<Signed>> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT bytes, signature FROM member ORDER BY number")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        rows.map(|row| {
            let (bytes, signature) = row?;
            signed(bytes, &signature)
        })
        .collect()
    }
}

impl Settings for Store {}
impl Settings for Reader {}

pub(crate) fn signed(bytes: Vec<u8>, signature: &[u8]) -> Result<Signed> {
    let signature = signature.try_into().map_err(|_| damaged("a signature"))?;
    Ok(Signed { bytes, signature: Signature(signature) })
}
