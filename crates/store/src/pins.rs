//! Pins: records that an application has in use, and why.

use fieldkeep_model::{RecordKey, TypeName};
use rusqlite::params;

use crate::error::damaged;
use crate::{Queries, Reader, Result, Store};

/// A record that somebody has in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The record.
    pub key: RecordKey,
    /// Who has it in use: a part of an application, say.
    pub owner: String,
    /// What for.
    pub reason: String,
    /// Since when, milliseconds UTC.
    pub time: i64,
}

impl Store {
    /// Keeps a pin, in place of one of the same record and owner.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_pin(&mut self, pin: &Pin) -> Result<()> {
        let Pin { key, owner, reason, time } = pin;
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO pin VALUES (?, ?, ?, ?, ?)")?
            .execute(params![key.ty.as_str(), key.id.as_str(), owner, reason, time])?;
        Ok(())
    }

    /// Takes pins away: those of a record, of an owner, or both. Returns how many.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn take_pins(&mut self, key: Option<&RecordKey>, owner: Option<&str>) -> Result<u64> {
        let (ty, id) = key.map(|key| (key.ty.as_str(), key.id.as_str())).unzip();
        let taken = self
            .write()?
            .prepare_cached(
                "DELETE FROM pin WHERE (?1 IS NULL OR (ty = ?1 AND id = ?2))
                     AND (?3 IS NULL OR owner = ?3)",
            )?
            .execute(params![ty, id, owner])?;
        Ok(taken as u64)
    }
}

/// Reading pins.
pub trait Pins: Queries {
    /// All pins, by record and owner.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn pins(&self) -> Result<Vec<Pin>> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT ty, id, owner, reason, time FROM pin ORDER BY ty, id, owner")?;
        let rows = query.query_map([], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        })?;
        rows.map(|row| {
            let (ty, id, owner, reason, time) = row?;
            let ty = TypeName::new(ty).map_err(|_| damaged("a pin's type"))?;
            let id = id.parse().map_err(|_| damaged("a pin's record"))?;
            Ok(Pin { key: RecordKey::new(ty, id), owner, reason, time })
        })
        .collect()
    }
}

impl Pins for Store {}
impl Pins for Reader {}
