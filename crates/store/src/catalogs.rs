//! Catalogs: every one that was stated is kept, with what a relay noted when it published it.

use fieldkeep_model::{Epoch, Signed};
use rusqlite::{OptionalExtension, Row, params};

use crate::settings::signed;
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

/// What a relay notes of a catalog that it published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    /// When that was, milliseconds UTC, if somebody said it.
    pub time: Option<i64>,
    /// Why, in the operator's words.
    pub note: String,
    /// What became of records that were judged again because of it. One that somebody edits before its
    /// turn comes is judged with that edit, and not counted.
    pub turned: Turned,
}

/// How many records came to be otherwise than they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turned {
    /// Those that are held and were not.
    pub held: u64,
    /// Those that wait and did not.
    pub waiting: u64,
    /// Those that are valid and were not.
    pub released: u64,
}

const COLUMNS: &str = "counter, salt, number, bytes, signature, source";

impl Store {
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

    /// Notes when and why a catalog was published. What became of records is kept as it is.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note_publication(
        &mut self,
        epoch: Epoch,
        number: u64,
        time: Option<i64>,
        note: &str,
    ) -> Result<()> {
        self.write()?
            .prepare_cached(
                "INSERT INTO publication VALUES (?, ?, ?, ?, 0, 0, 0)
                 ON CONFLICT DO UPDATE SET time = excluded.time, note = excluded.note",
            )?
            .execute(params![epoch.counter as i64, number as i64, time, note])?;
        Ok(())
    }

    /// Adds what became of records to the note of a catalog.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn count_turned(&mut self, epoch: Epoch, number: u64, turned: Turned) -> Result<()> {
        let Turned { held, waiting, released } = turned;
        let [held, waiting, released] = [held, waiting, released].map(|count| count as i64);
        self.write()?
            .prepare_cached(
                "UPDATE publication SET held = held + ?3, waiting = waiting + ?4,
                     released = released + ?5 WHERE counter = ?1 AND number = ?2",
            )?
            .execute(params![epoch.counter as i64, number as i64, held, waiting, released])?;
        Ok(())
    }
}

/// Reading catalogs.
pub trait Catalogs: Queries {
    /// The newest catalog.
    ///
    /// # Errors
    /// When the disk fails or the row is damaged.
    fn newest_catalog(&self) -> Result<Option<StoredCatalog>> {
        let sql =
            format!("SELECT {COLUMNS} FROM catalog ORDER BY counter DESC, number DESC LIMIT 1");
        let mut query = self.connection().prepare_cached(&sql)?;
        query.query_row([], |row| Ok(read(row))).optional()?.transpose()
    }

    /// Shows every catalog, oldest first, until `act` has seen enough.
    ///
    /// # Errors
    /// Those of `act`; when the disk fails or a row is damaged.
    fn each_catalog<E: From<crate::StoreError>>(
        &self,
        mut act: impl FnMut(StoredCatalog) -> std::result::Result<bool, E>,
    ) -> std::result::Result<(), E> {
        let sql = format!("SELECT {COLUMNS} FROM catalog ORDER BY counter, number, salt");
        let mut query = self.connection().prepare_cached(&sql).map_err(crate::StoreError::from)?;
        let mut rows = query.query([]).map_err(crate::StoreError::from)?;
        while let Some(row) = rows.next().map_err(crate::StoreError::from)? {
            if !act(read(row)?)? {
                break;
            }
        }
        Ok(())
    }

    /// The newest catalog of a number.
    ///
    /// # Errors
    /// When the disk fails or the row is damaged.
    fn catalog(&self, number: u64) -> Result<Option<StoredCatalog>> {
        let sql =
            format!("SELECT {COLUMNS} FROM catalog WHERE number = ? ORDER BY counter DESC LIMIT 1");
        let mut query = self.connection().prepare_cached(&sql)?;
        query.query_row([number as i64], |row| Ok(read(row))).optional()?.transpose()
    }

    /// What was noted of a catalog.
    ///
    /// # Errors
    /// When the disk fails.
    fn publication(&self, epoch: Epoch, number: u64) -> Result<Option<Publication>> {
        let mut query = self.connection().prepare_cached(
            "SELECT time, note, held, waiting, released FROM publication
             WHERE counter = ? AND number = ?",
        )?;
        let row = query.query_row(params![epoch.counter as i64, number as i64], |row| {
            let count = |at| row.get::<_, i64>(at).map(|count| count as u64);
            let turned = Turned { held: count(2)?, waiting: count(3)?, released: count(4)? };
            Ok(Publication { time: row.get(0)?, note: row.get(1)?, turned })
        });
        Ok(row.optional()?)
    }
}

impl Catalogs for Store {}
impl Catalogs for Reader {}

fn read(row: &Row<'_>) -> Result<StoredCatalog> {
    let epoch = Epoch { counter: row.get::<_, i64>(0)? as u64, salt: row.get(1)? };
    let number = row.get::<_, i64>(2)? as u64;
    let notice = signed(row.get(3)?, &row.get::<_, Vec<u8>>(4)?)?;
    Ok(StoredCatalog { epoch, number, notice, source: row.get(5)? })
}
