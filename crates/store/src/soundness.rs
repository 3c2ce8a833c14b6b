//! Whether a database is sound as a file, whatever is in it.

use crate::{Queries, Reader, Result, Store};

/// Checking a database as a file.
pub trait Soundness: Queries {
    /// Has SQLite check the whole file; what it finds wrong, if anything.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn check(&self) -> Result<Option<String>> {
        let found: String =
            self.connection().query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        Ok((found != "ok").then_some(found))
    }

    /// How long it is, in bytes, with what is committed and still in its journal.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn bytes(&self) -> Result<u64> {
        let count =
            |pragma: &str| self.connection().query_row(pragma, [], |row| row.get::<_, u32>(0));
        Ok(u64::from(count("PRAGMA page_count")?) * u64::from(count("PRAGMA page_size")?))
    }
}

impl Soundness for Store {}
impl Soundness for Reader {}
