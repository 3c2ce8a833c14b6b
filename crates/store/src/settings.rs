//! Settings, the membership log and catalogs.

use fieldkeep_model::{Epoch, Signature, Signed};
use rusqlite::{OptionalExtension, params};

use crate::error::damaged;
use crate::{Queries, Reader, Result, Store};

/// A catalog as the relay stated it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCatalog {
    /// The epoch in which it was published.
    pub epoch: Epoch,
    /// Its number: catalogs are ordered by (epoch, number).
    pub number: u64,
    /// The relay's signed statement.
    pub notice: Signed,
    /// The file.
    pub source: String,
}

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

    /// Keeps a catalog.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_catalog(&mut self, catalog: &StoredCatalog) -> Result<()> {
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO catalog VALUES (?, ?, ?, ?, ?, ?)")?
            .execute(params![
            catalog.epoch.counter as i64,
            catalog.epoch.salt,
            catalog.number as i64,
            catalog.notice.bytes,
            catalog.notice.signature.0,
            catalog.source
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

    /// The newest catalog.
    ///
    /// # Errors
    /// When the disk fails or the row is damaged.
    fn newest_catalog(&self) -> Result<Option<StoredCatalog>> {
        let mut query = self.connection().prepare_cached(
            "SELECT counter, salt, number, bytes, signature, source FROM catalog
             ORDER BY counter DESC, number DESC LIMIT 1",
        )?;
        let row = query.query_row([], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, [u8; 8]>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, Vec<u8>>(3)?,
                row.get::<_, Vec<u8>>(4)?,
                row.get::<_, String>(5)?,
            ))
        });
        let Some((counter, salt, number, bytes, signature, source)) = row.optional()? else {
            return Ok(None);
        };
        Ok(Some(StoredCatalog {
            epoch: Epoch { counter: counter as u64, salt },
            number: number as u64,
            notice: signed(bytes, &signature)?,
            source,
        }))
    }
}

impl Settings for Store {}
impl Settings for Reader {}

pub(crate) fn signed(bytes: Vec<u8>, signature: &[u8]) -> Result<Signed> {
    let signature = signature.try_into().map_err(|_| damaged("a signature"))?;
    Ok(Signed { bytes, signature: Signature(signature) })
}
