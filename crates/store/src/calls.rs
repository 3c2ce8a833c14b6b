//! Calls: what was asked of a relay to be done at once, and what came of it; on a relay by whoever
//! asked, on a device its own.

use fieldkeep_model::{DeviceNumber, Signed};
use rusqlite::{OptionalExtension, Row, params};

use crate::settings::signed;
use crate::{Queries, Reader, Result, Store};

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRow {
    /// Who calls.
    pub device: DeviceNumber,
    /// The number that it gave the call.
    pub number: u64,
    /// The intent, as it was signed.
    pub intent: Signed,
    /// When it was taken in, milliseconds UTC.
    pub time: i64,
    /// On a device: whether nobody waits for it any more.
    pub withdrawn: bool,
    /// What came of it, encoded; nothing while it is under way.
    pub outcome: Option<Vec<u8>>,
}

const COLUMNS: &str = "device, number, intent, signature, time, withdrawn, outcome";

impl Store {
    /// Keeps a call, and that its number is used.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_call(&mut self, call: &CallRow) -> Result<()> {
        let (device, number) = (call.device as i64, call.number as i64);
        self.raise_call_number(call.device, call.number)?;
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO call VALUES (?, ?, ?, ?, ?, ?, ?)")?
            .execute(params![
            device,
            number,
            call.intent.bytes,
            call.intent.signature.0,
            call.time,
            call.withdrawn,
            call.outcome
        ])?;
        Ok(())
    }

    /// Notes that a device's numbers up to one are used.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn raise_call_number(&mut self, device: DeviceNumber, number: u64) -> Result<()> {
        self.write()?
            .prepare_cached(
                "INSERT INTO call_number VALUES (?, ?)
                 ON CONFLICT (device) DO UPDATE SET highest = max(highest, excluded.highest)",
            )?
            .execute([device as i64, number as i64])?;
        Ok(())
    }

    /// Notes what came of a call.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn settle_call(&mut self, device: DeviceNumber, number: u64, outcome: &[u8]) -> Result<()> {
        self.write()?
            .prepare_cached("UPDATE call SET outcome = ? WHERE device = ? AND number = ?")?
            .execute(params![outcome, device as i64, number as i64])?;
        Ok(())
    }

    /// Notes that nobody waits for a device's calls that are under way: for one of them, or for all.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn withdraw_calls(&mut self, number: Option<u64>) -> Result<()> {
        let number = number.map(|number| number as i64);
        self.write()?
            .prepare_cached(
                "UPDATE call SET withdrawn = 1
                 WHERE outcome IS NULL AND withdrawn = 0 AND (?1 IS NULL OR number = ?1)",
            )?
            .execute([number])?;
        Ok(())
    }

    /// Forgets the calls that were taken in before a time and are settled. Their numbers stay used.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_calls(&mut self, before: i64) -> Result<()> {
        self.write()?
            .prepare_cached("DELETE FROM call WHERE outcome IS NOT NULL AND time < ?")?
            .execute([before])?;
        Ok(())
    }

    /// Forgets a call; its number stays used.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_call(&mut self, device: DeviceNumber, number: u64) -> Result<()> {
        self.write()?
            .prepare_cached("DELETE FROM call WHERE device = ? AND number = ?")?
            .execute([device as i64, number as i64])?;
        Ok(())
    }
}

/// Reading calls.
pub trait Calls: Queries {
    /// A call.
    ///
    /// # Errors
    /// When the disk fails.
    fn call(&self, device: DeviceNumber, number: u64) -> Result<Option<CallRow>> {
        let sql = format!("SELECT {COLUMNS} FROM call WHERE device = ? AND number = ?");
        let mut query = self.connection().prepare_cached(&sql)?;
        let row = query.query_row([device as i64, number as i64], raw).optional()?;
        row.map(whole).transpose()
    }

    /// The calls that are under way, oldest first.
    ///
    /// # Errors
    /// When the disk fails.
    fn open_calls(&self) -> Result<Vec<CallRow>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM call WHERE outcome IS NULL ORDER BY device, number LIMIT 1000"
        );
        let mut query = self.connection().prepare_cached(&sql)?;
        let rows = query.query_map([], raw)?;
        rows.map(|row| whole(row?)).collect()
    }

    /// A device's calls, newest first, at most so many.
    ///
    /// # Errors
    /// When the disk fails.
    fn calls_of(&self, device: DeviceNumber, limit: usize) -> Result<Vec<CallRow>> {
        let sql =
            format!("SELECT {COLUMNS} FROM call WHERE device = ? ORDER BY number DESC LIMIT ?");
        let mut query = self.connection().prepare_cached(&sql)?;
        let rows = query.query_map([device as i64, limit as i64], raw)?;
        rows.map(|row| whole(row?)).collect()
    }

    /// How many calls of a device are kept, and how many of them are under way.
    ///
    /// # Errors
    /// When the disk fails.
    fn call_counts(&self, device: DeviceNumber) -> Result<(u64, u64)> {
        let mut query = self.connection().prepare_cached(
            "SELECT count(*), count(*) FILTER (WHERE outcome IS NULL) FROM call WHERE device = ?",
        )?;
        let count = |row: &Row<'_>, at| row.get::<_, i64>(at).map(|count| count as u64);
        Ok(query.query_row([device as i64], |row| Ok((count(row, 0)?, count(row, 1)?)))?)
    }

    /// The highest number that a device has used; 0 if none.
    ///
    /// # Errors
    /// When the disk fails.
    fn call_number(&self, device: DeviceNumber) -> Result<u64> {
        let mut query =
            self.connection().prepare_cached("SELECT highest FROM call_number WHERE device = ?")?;
        let highest = query.query_row([device as i64], |row| row.get::<_, i64>(0)).optional()?;
        Ok(highest.unwrap_or(0) as u64)
    }
}

impl Calls for Store {}
impl Calls for Reader {}

fn raw(row: &Row<'_>) -> rusqlite::Result<(CallRow, Vec<u8>)> {
    let intent = Signed { bytes: row.get(2)?, signature: fieldkeep_model::Signature([0; 64]) };
    let call = CallRow {
        device: row.get::<_, i64>(0)? as u64,
        number: row.get::<_, i64>(1)? as u64,
        intent,
        time: row.get(4)?,
        withdrawn: row.get(5)?,
        outcome: row.get(6)?,
    };
    Ok((call, row.get(3)?))
}

fn whole((call, signature): (CallRow, Vec<u8>)) -> Result<CallRow> {
    let intent = signed(call.intent.bytes, &signature)?;
    Ok(CallRow { intent, ..call })
}
