//! Who may use the console of a relay, and the trail of what operators did there, which is only added to.
//!
//! Of a password only its hash is here. What is decided about held records has its own trail.

use rusqlite::{OptionalExtension as _, Row, params};

use crate::{Queries, Reader, Result, Store};

/// An account of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorRow {
    /// Its name.
    pub name: String,
    /// What it may do, in one word.
    pub role: String,
    /// The hash of its password, as a PHC string.
    pub password: String,
    /// When it was last changed, milliseconds UTC.
    pub time: i64,
    /// Who did that.
    pub who: String,
}

/// What an operator did, or was not let do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// Its number: they rise.
    pub number: u64,
    /// When, milliseconds UTC.
    pub time: i64,
    /// Who, by the name that was given.
    pub who: String,
    /// What, in one word.
    pub act: String,
    /// To whom, or why not.
    pub note: String,
}

impl Store {
    /// Keeps an account, in place of the one of that name.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_operator(&mut self, operator: &OperatorRow) -> Result<()> {
        let OperatorRow { name, role, password, time, who } = operator;
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO operator VALUES (?, ?, ?, ?, ?)")?
            .execute(params![name, role, password, time, who])?;
        Ok(())
    }

    /// Removes an account.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove_operator(&mut self, name: &str) -> Result<()> {
        self.write()?.prepare_cached("DELETE FROM operator WHERE name = ?")?.execute([name])?;
        Ok(())
    }

    /// Adds to the trail; the deed's number is drawn here.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn add_deed(&mut self, deed: &Deed) -> Result<()> {
        let Deed { time, who, act, note, .. } = deed;
        self.write()?
            .prepare_cached("INSERT INTO deed (time, who, act, note) VALUES (?, ?, ?, ?)")?
            .execute(params![time, who, act, note])?;
        Ok(())
    }
}

/// Reading accounts, and their trail.
pub trait Operators: Queries {
    /// The account of a name.
    ///
    /// # Errors
    /// When the disk fails.
    fn operator(&self, name: &str) -> Result<Option<OperatorRow>> {
        let sql = "SELECT name, role, password, time, who FROM operator WHERE name = ?";
        let mut query = self.connection().prepare_cached(sql)?;
        Ok(query.query_row([name], account).optional()?)
    }

    /// All accounts, by name.
    ///
    /// # Errors
    /// When the disk fails.
    fn operators(&self) -> Result<Vec<OperatorRow>> {
        let sql = "SELECT name, role, password, time, who FROM operator ORDER BY name";
        let mut query = self.connection().prepare_cached(sql)?;
        Ok(query.query_map([], account)?.collect::<rusqlite::Result<_>>()?)
    }

    /// What operators did, newest first, before a number, at most so many.
    ///
    /// # Errors
    /// When the disk fails.
    fn deeds(&self, before: Option<u64>, limit: usize) -> Result<Vec<Deed>> {
        let mut query = self.connection().prepare_cached(
            "SELECT number, time, who, act, note FROM deed WHERE number < ?
             ORDER BY number DESC LIMIT ?",
        )?;
        let before = before.map_or(i64::MAX, |before| before as i64);
        let deeds = query.query_map(params![before, limit as i64], |row| {
            Ok(Deed {
                number: row.get::<_, i64>(0)? as u64,
                time: row.get(1)?,
                who: row.get(2)?,
                act: row.get(3)?,
                note: row.get(4)?,
            })
        })?;
        Ok(deeds.collect::<rusqlite::Result<_>>()?)
    }
}

impl Operators for Store {}
impl Operators for Reader {}

fn account(row: &Row<'_>) -> rusqlite::Result<OperatorRow> {
    Ok(OperatorRow {
        name: row.get(0)?,
        role: row.get(1)?,
        password: row.get(2)?,
        time: row.get(3)?,
        who: row.get(4)?,
    })
}
