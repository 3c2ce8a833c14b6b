//! What is kept: one SQLite file in WAL mode, of a device or a relay.
//!
//! Ground state is changes, signed heads, the membership log, catalogs, verdict blocks and what was
//! kept aside; nothing here deletes one, but for log rows that a verified pack replaces. All else
//! is derived and keyed by the log position that it was derived at. The store is synchronous, knows
//! neither Automerge nor the network, and draws no time and no randomness. A transaction opens with
//! the first write and ends with [`Store::commit`], which returns when the disk has it.

mod asking;
pub mod backup;
mod blobs;
mod calls;
mod catalogs;
mod contacts;
mod error;
#[cfg(feature = "failpoints")]
mod failpoint;
mod files;
mod generations;
pub mod home;
mod log;
mod operators;
mod permissions;
mod pins;
mod quarantine;
mod receipts;
mod records;
mod rehearsal;
mod removals;
mod schema;
mod search;
mod segments;
mod settings;
mod soundness;
mod space;
mod verdicts;

pub use asking::{AskError, Question, ROWS, Rows};
pub use blobs::{BlobRow, Blobs, LackingFile, LackingPlace, OpenFile, Upload};
pub use calls::{CallRow, Calls};
pub use catalogs::{Catalogs, Publication, StoredCatalog, Turned};
pub use contacts::{Contact, Contacts};
pub use error::StoreError;
pub use files::{ABANDONED, BlobFiles, Incoming};
pub use generations::{Apart, Generations};
pub use home::{Home, HomeError};
pub use log::{Aside, ChangeRow, Flags, Log, Outgoing, PackRow, Snapshot};
pub use operators::{Deed, OperatorRow, Operators};
pub use permissions::Permissions;
pub use pins::{Pin, Pins};
pub use quarantine::{
    Decision, Found, Place, Quarantine, SoughtDecisions, Wanted, about_device, about_rule,
};
pub use receipts::Receipts;
pub use records::{Dependants, Page, RecordRow, Records, Tally, digest};
pub use removals::{LooseBlob, Removals, RemovedBlob, SeenBlob, Unmerged};
pub use search::Search;
pub use segments::{Cursor, SegmentRow, Segments};
pub use settings::Settings;
pub use soundness::Soundness;
pub use space::{Space, space};
pub use verdicts::{BlockRow, Dismissal, StandingVerdict, Verdicts};

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// Results of the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The one writer of a directory's SQLite file.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    writing: bool,
    /// The steps under way, outermost first.
    steps: Vec<Step>,
}

/// How a step can be undone.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// It is all that the transaction holds so far: the pages need no second copy for it.
    Whole,
    /// There is a savepoint before it.
    Part,
}

/// A reader beside the writer: it sees what is committed, and blocks nobody.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
}

impl Store {
    /// Opens the file, creating and migrating it as needed.
    ///
    /// # Errors
    /// When the file cannot be opened, is not ours, or was written by a newer version.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = watched(Connection::open(path)?);
        schema::prepare(&connection)?;
        Ok(Self { connection, writing: false, steps: Vec::new() })
    }

    /// A store that lives in memory only and is gone with the process: for simulations, and for
    /// whatever else needs a scratch store.
    ///
    /// # Errors
    /// When SQLite refuses: a fault of ours.
    pub fn in_memory() -> Result<Self> {
        let connection = Connection::open_in_memory()?;
        schema::prepare(&connection)?;
        Ok(Self { connection, writing: false, steps: Vec::new() })
    }

    /// An independent copy in memory of what is committed, page by page: what a backup or an image
    /// of the disk would hold.
    ///
    /// # Errors
    /// When the store cannot be read.
    ///
    /// # Panics
    /// When something awaits the commit: a copy would hold it, and a backup would not.
    pub fn copy(&self) -> Result<Self> {
        assert!(!self.writing, "only what is committed can be copied");
        let mut connection = Connection::open_in_memory()?;
        let copying = rusqlite::backup::Backup::new(&self.connection, &mut connection)?;
        copying.step(-1)?;
        drop(copying);
        schema::tune(&connection)?;
        Ok(Self { connection, writing: false, steps: Vec::new() })
    }

    /// Makes everything written since the last commit durable.
    ///
    /// # Errors
    /// When the disk refuses; the transaction is rolled back then, and nothing of it was saved.
    pub fn commit(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.writing) {
            return Ok(());
        }
        self.connection.prepare_cached("COMMIT")?.execute([]).map_err(|error| {
            self.abandon();
            StoreError::from(error)
        })?;
        Ok(())
    }

    /// Forgets everything written since the last commit.
    pub fn rollback(&mut self) {
        if std::mem::take(&mut self.writing) {
            self.abandon();
        }
    }

    fn abandon(&self) {
        // SQLite may have rolled back by itself; then there is nothing left to do.
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    /// Begins a step within the transaction that is under way: what is written until
    /// [`Store::end_step`] can be undone alone.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin_step(&mut self) -> Result<()> {
        let step = if self.writing { Step::Part } else { Step::Whole };
        match step {
            Step::Whole => {
                self.write()?;
            }
            Step::Part => self.savepoint("SAVEPOINT step")?,
        }
        self.steps.push(step);
        Ok(())
    }

    /// Ends the innermost step and keeps or undoes what was written in it.
    ///
    /// # Errors
    /// When the disk refuses. [`StoreError::Full`] when SQLite has given the whole transaction up
    /// for want of room: nothing since the last commit is kept then.
    pub fn end_step(&mut self, keep: bool) -> Result<()> {
        let step = self.steps.pop();
        let lost = !self.writing || self.connection.is_autocommit();
        if lost {
            // The one who is told first is the innermost; the others have nothing left to undo.
            let told = !std::mem::take(&mut self.writing);
            return if told && !keep { Ok(()) } else { Err(StoreError::Full) };
        }
        match step {
            Some(Step::Part) => {
                if !keep {
                    self.savepoint("ROLLBACK TO step")?;
                }
                self.savepoint("RELEASE step")
            }
            Some(Step::Whole) | None => {
                if !keep {
                    self.rollback();
                }
                Ok(())
            }
        }
    }

    fn savepoint(&mut self, statement: &str) -> Result<()> {
        self.write()?.prepare_cached(statement)?.execute([])?;
        Ok(())
    }

    /// Bounds the file to so many pages beyond those that it has; beyond that the disk counts as
    /// full. `None` lifts the bound.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn bound_growth(&mut self, pages: Option<u32>) -> Result<()> {
        let used: u32 = self.connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let most = pages.map_or(u32::MAX - 1, |pages| used.saturating_add(pages));
        self.connection.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(()))?;
        Ok(())
    }

    /// How the store waits for the disk, as SQLite counts it: 2 is `FULL`, each commit synced before
    /// it returns; 1 is `NORMAL`, which syncs when the log is carried over; 0 never waits.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sync_level(&self) -> Result<u8> {
        Ok(self.connection.query_row("PRAGMA synchronous", [], |row| row.get(0))?)
    }

    /// Whether something awaits the commit.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.writing
    }

    /// The connection with a transaction under way.
    fn write(&mut self) -> Result<&Connection> {
        if !self.writing {
            self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            self.writing = true;
        }
        Ok(&self.connection)
    }
}

impl Reader {
    /// Opens a file that a [`Store`] made.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = watched(Connection::open_with_flags(path, flags)?);
        schema::tune(&connection)?;
        Ok(Self { connection })
    }
}

#[cfg(feature = "failpoints")]
use failpoint::watched;

#[cfg(not(feature = "failpoints"))]
fn watched(connection: Connection) -> Connection {
    connection
}

/// What both the writer and readers can be asked: everything that does not write.
pub trait Queries {
    #[doc(hidden)]
    fn connection(&self) -> &Connection;
}

impl Queries for Store {
    fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Queries for Reader {
    fn connection(&self) -> &Connection {
        &self.connection
    }
}
