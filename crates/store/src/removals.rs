//! Files that nothing refers to, and since when that is known; files that were removed, and when.
//!
//! A file's row and its removal change places in one commit, and its bytes go after that: whatever
//! happens in between leaves a whole file that is known, or one that is known to be removed.

use fieldkeep_model::{BlobHash, RecordKey};
use rusqlite::{OptionalExtension as _, params};

use crate::blobs::{key, named};
use crate::{Queries, Reader, Result, Store};

/// A file that nothing refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LooseBlob {
    /// The file.
    pub hash: BlobHash,
    /// Its length in bytes.
    pub size: u64,
    /// When that was first seen, milliseconds UTC.
    pub since: i64,
}

/// A file that was removed, or has come back since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedBlob {
    /// The file.
    pub hash: BlobHash,
    /// When it was removed, milliseconds UTC; nothing once it is back.
    pub time: Option<i64>,
    /// Its place in the order in which a relay tells of them.
    pub number: u64,
}

/// A file that is here whole, as a look at all of them finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenBlob {
    /// The file.
    pub hash: BlobHash,
    /// Whether a record names it, as merged or as it was last valid.
    pub named: bool,
    /// Whether it was seen before that nothing refers to it.
    pub loose: bool,
}

impl Store {
    /// Notes that nothing refers to a file, unless that was seen before.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn mark_loose(&mut self, hash: &BlobHash, time: i64) -> Result<()> {
        self.write()?
            .prepare_cached("INSERT OR IGNORE INTO loose VALUES (?, ?)")?
            .execute(params![hash.0, time])?;
        Ok(())
    }

    /// Something refers to a file: its grace time begins anew when nothing does.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn clear_loose(&mut self, hash: &BlobHash) -> Result<()> {
        self.write()?.prepare_cached("DELETE FROM loose WHERE hash = ?")?.execute([hash.0])?;
        Ok(())
    }

    /// Notes that a file was removed; its bytes may lie on the disk still, until
    /// [`Store::note_gone`]. Who showed that it is his is kept: he may know of it.
    ///
    /// # Errors
    /// When the disk refuses; nothing of it is written then.
    pub fn remove_blob(&mut self, hash: &BlobHash, time: i64) -> Result<()> {
        self.begin_step()?;
        let removed = self.replace_by_removal(hash, time);
        self.end_step(removed.is_ok())?;
        removed
    }

    fn replace_by_removal(&mut self, hash: &BlobHash, time: i64) -> Result<()> {
        self.take_blob(hash)?;
        self.clear_loose(hash)?;
        self.write()?
            .prepare_cached(
                "INSERT OR REPLACE INTO removal
                 SELECT ?, ?, coalesce(max(number), 0) + 1, 1 FROM removal",
            )?
            .execute(params![hash.0, time])?;
        Ok(())
    }

    /// Notes that the bytes of a removed file are off the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note_gone(&mut self, hash: &BlobHash) -> Result<()> {
        self.write()?
            .prepare_cached("UPDATE removal SET lies = 0 WHERE hash = ?")?
            .execute([hash.0])?;
        Ok(())
    }

    /// Notes that a file that was removed is here again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn return_blob(&mut self, hash: &BlobHash) -> Result<()> {
        self.write()?
            .prepare_cached(
                "UPDATE removal SET time = NULL, lies = 0,
                     number = (SELECT max(number) + 1 FROM removal)
                 WHERE hash = ? AND time IS NOT NULL",
            )?
            .execute([hash.0])?;
        Ok(())
    }

    /// Keeps what a relay told of a file that was removed there, or has come back.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_removal(&mut self, removed: &RemovedBlob) -> Result<()> {
        let RemovedBlob { hash, time, number } = removed;
        let Some(time) = time else { return self.forget_removal(hash) };
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO removal VALUES (?, ?, ?, 0)")?
            .execute(params![hash.0, time, *number as i64])?;
        Ok(())
    }

    /// Forgets that a relay removed a file: it has it again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_removal(&mut self, hash: &BlobHash) -> Result<()> {
        self.write()?.prepare_cached("DELETE FROM removal WHERE hash = ?")?.execute([hash.0])?;
        Ok(())
    }

    /// Forgets all that a relay told of what it removed.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_removals(&mut self) -> Result<()> {
        self.write()?.execute("DELETE FROM removal", [])?;
        Ok(())
    }
}

/// Reading which files nothing refers to, and which were removed.
pub trait Removals: Queries {
    /// The whole files after one, in the order of their names.
    ///
    /// # Errors
    /// When the disk fails.
    fn blobs_after(&self, after: Option<&BlobHash>, limit: u32) -> Result<Vec<SeenBlob>> {
        let mut query = self.connection().prepare_cached(
            "SELECT hash, EXISTS (SELECT 1 FROM attached a WHERE a.hash = blob.hash),
                 EXISTS (SELECT 1 FROM loose l WHERE l.hash = blob.hash)
             FROM blob WHERE whole = 1 AND hash > ? ORDER BY hash LIMIT ?",
        )?;
        let after = after.map_or(&[][..], |hash| &hash.0);
        let rows = query.query_map(params![after, limit], |row| {
            let hash = BlobHash(row.get(0)?);
            Ok(SeenBlob { hash, named: row.get(1)?, loose: row.get(2)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The files of which it was seen by then that nothing refers to them, at most so many, the
    /// longest ones first.
    ///
    /// # Errors
    /// When the disk fails.
    fn loose_blobs(&self, by: i64, limit: u32) -> Result<Vec<LooseBlob>> {
        let mut query = self.connection().prepare_cached(
            "SELECT l.hash, b.size, l.since FROM loose l JOIN blob b ON b.hash = l.hash
             WHERE b.whole = 1 AND l.since <= ?
                 AND NOT EXISTS (SELECT 1 FROM attached a WHERE a.hash = l.hash)
             ORDER BY l.since, l.hash LIMIT ?",
        )?;
        let rows = query.query_map(params![by, limit], |row| {
            let size = row.get::<_, i64>(1)? as u64;
            Ok(LooseBlob { hash: BlobHash(row.get(0)?), size, since: row.get(2)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Shows what no record has yet: each change that was kept aside, and each intent that is under
    /// way, as long as `wanted` says that it wants more. Chunks come as they are kept.
    ///
    /// # Errors
    /// When the disk fails.
    fn each_unmerged(&self, mut wanted: impl FnMut(Unmerged<'_>) -> bool) -> Result<()> {
        for (sql, is_change) in [
            ("SELECT bytes FROM aside ORDER BY id", true),
            ("SELECT intent FROM call WHERE outcome IS NULL", false),
        ] {
            let mut query = self.connection().prepare_cached(sql)?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let bytes = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
                let one = if is_change { Unmerged::Change(bytes) } else { Unmerged::Intent(bytes) };
                if !wanted(one) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// When a file was removed that has not come back and is not here, milliseconds UTC.
    ///
    /// # Errors
    /// When the disk fails.
    fn removal(&self, hash: &BlobHash) -> Result<Option<i64>> {
        let mut query = self.connection().prepare_cached(
            "SELECT time FROM removal r WHERE hash = ? AND time IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM blob b WHERE b.hash = r.hash AND b.whole = 1)",
        )?;
        Ok(query.query_row([hash.0], |row| row.get(0)).optional()?)
    }

    /// What was removed or has come back behind a number, at most so many, in order.
    ///
    /// # Errors
    /// When the disk fails.
    fn removals_after(&self, number: u64, limit: u32) -> Result<Vec<RemovedBlob>> {
        let mut query = self.connection().prepare_cached(
            "SELECT hash, time, number FROM removal WHERE number > ? ORDER BY number LIMIT ?",
        )?;
        let after = i64::try_from(number).unwrap_or(i64::MAX);
        let rows = query.query_map(params![after, limit], |row| {
            let number = row.get::<_, i64>(2)? as u64;
            Ok(RemovedBlob { hash: BlobHash(row.get(0)?), time: row.get(1)?, number })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The number of the newest removal or return; 0 if there was none.
    ///
    /// # Errors
    /// When the disk fails.
    fn newest_removal(&self) -> Result<u64> {
        let mut query =
            self.connection().prepare_cached("SELECT coalesce(max(number), 0) FROM removal")?;
        Ok(query.query_row([], |row| row.get::<_, i64>(0))? as u64)
    }

    /// The removed files whose bytes may lie on the disk still.
    ///
    /// # Errors
    /// When the disk fails.
    fn lying_blobs(&self) -> Result<Vec<BlobHash>> {
        let mut query =
            self.connection().prepare_cached("SELECT hash FROM removal WHERE lies = 1")?;
        let rows = query.query_map([], |row| Ok(BlobHash(row.get(0)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The files that are here whole, that a record names, and that a relay removed: it may want them
    /// again.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn returnable(&self) -> Result<Vec<(BlobHash, RecordKey)>> {
        let mut query = self.connection().prepare_cached(
            "SELECT d.hash, s.ty, r.id FROM removal d JOIN blob b ON b.hash = d.hash
                 JOIN attached a ON a.hash = d.hash JOIN record r ON r.rid = a.rid
                 JOIN segment s ON s.sid = r.sid
             WHERE d.time IS NOT NULL AND b.whole = 1 AND r.deleted = 0",
        )?;
        let rows = query.query_map([], named)?;
        rows.map(|row| key(row?)).collect()
    }
}

/// What no record has yet.
#[derive(Clone, Copy, Debug)]
pub enum Unmerged<'b> {
    /// A chunk, deflated or not.
    Change(&'b [u8]),
    /// A signed intent.
    Intent(&'b [u8]),
}

impl Removals for Store {}
impl Removals for Reader {}
