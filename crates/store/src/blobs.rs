//! Attached files: which are known, which are here whole, which records name them, what waits to be
//! uploaded. Their bytes are files: see `files`.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::{BlobHash, BlobTree, RecordId, RecordKey, TypeName};
use rusqlite::{OptionalExtension as _, Row, params};

use crate::error::damaged;
use crate::{Queries, Reader, Result, Store, StoreError};

/// A file that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRow {
    /// What verifies it.
    pub tree: BlobTree,
    /// Whether all of it is here.
    pub whole: bool,
    /// Since when it is known, milliseconds UTC.
    pub time: i64,
}

/// A whole file that is open to those who may read a segment, and one of the records there that name
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// The file.
    pub hash: BlobHash,
    /// The segment.
    pub sid: i64,
    /// The record.
    pub record: RecordId,
}

/// A file that this device attached, or carries for who did, and the relay does not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The file.
    pub hash: BlobHash,
    /// The record that it is attached to.
    pub key: RecordKey,
    /// Why the relay did not take it; nothing as long as that is to be tried.
    pub failed: Option<String>,
    /// When it was attached, milliseconds UTC.
    pub time: i64,
}

impl Store {
    /// Keeps what is known of a file. That nothing refers to it is to be seen anew.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_blob(&mut self, tree: &BlobTree, whole: bool, time: i64) -> Result<()> {
        self.clear_loose(&tree.hash())?;
        self.write()?
            .prepare_cached(
                "INSERT INTO blob VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (hash) DO UPDATE SET whole = max(whole, ?4)",
            )?
            .execute(params![tree.hash().0, tree.size() as i64, tree.to_bytes(), whole, time])?;
        Ok(())
    }

    /// Forgets a file.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn take_blob(&mut self, hash: &BlobHash) -> Result<()> {
        self.write()?.prepare_cached("DELETE FROM blob WHERE hash = ?")?.execute([hash.0])?;
        Ok(())
    }

    /// Notes that a member has shown that a file is his, for the records of a segment. That nothing
    /// refers to it is to be seen anew.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn open_blob(&mut self, hash: &BlobHash, sid: i64, member: u64, time: i64) -> Result<()> {
        self.clear_loose(hash)?;
        self.write()?
            .prepare_cached("INSERT OR IGNORE INTO blob_opened VALUES (?, ?, ?, ?)")?
            .execute(params![hash.0, sid, member as i64, time])?;
        Ok(())
    }

    /// Keeps an upload that waits, or why it failed.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_upload(&mut self, upload: &Upload) -> Result<()> {
        let Upload { hash, key, failed, time } = upload;
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO upload VALUES (?, ?, ?, ?, ?)")?
            .execute(params![hash.0, key.ty.as_str(), key.id.as_str(), failed, time])?;
        Ok(())
    }

    /// An upload is done.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn take_upload(&mut self, hash: &BlobHash, key: &RecordKey) -> Result<()> {
        self.write()?
            .prepare_cached("DELETE FROM upload WHERE hash = ? AND ty = ? AND id = ?")?
            .execute(params![hash.0, key.ty.as_str(), key.id.as_str()])?;
        Ok(())
    }

    /// Has uploads that failed tried again; returns how many.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn retry_uploads(&mut self) -> Result<u64> {
        let retried = self
            .write()?
            .prepare_cached("UPDATE upload SET failed = NULL WHERE failed IS NOT NULL")?
            .execute([])?;
        Ok(retried as u64)
    }

    /// Has every file that is here brought again, for each record that names it and lies where it was
    /// attached or given: a relay that was put back may have lost them. A record that merely names it is
    /// not opened by that.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn bring_again(&mut self, time: i64) -> Result<()> {
        self.write()?
            .prepare_cached(
                "INSERT OR IGNORE INTO upload SELECT a.hash, s.ty, r.id, NULL, ?
                 FROM attached a JOIN blob b ON b.hash = a.hash AND b.whole = 1
                     JOIN record r ON r.rid = a.rid JOIN segment s ON s.sid = r.sid
                     JOIN blob_opened o ON o.hash = a.hash AND o.sid = r.sid
                 WHERE r.deleted = 0",
            )?
            .execute([time])?;
        Ok(())
    }

    /// Replaces the files that a record names.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn index_blobs(
        &mut self,
        rid: i64,
        known: bool,
        blobs: &[(String, BlobHash)],
    ) -> Result<()> {
        if !known && blobs.is_empty() {
            return Ok(());
        }
        let connection = self.write()?;
        if known {
            let mut query =
                connection.prepare_cached("SELECT field, hash FROM attached WHERE rid = ?")?;
            let rows = query.query_map([rid], |row| Ok((row.get(0)?, BlobHash(row.get(1)?))))?;
            let indexed: BTreeSet<(String, BlobHash)> = rows.collect::<rusqlite::Result<_>>()?;
            if indexed == blobs.iter().cloned().collect() {
                return Ok(());
            }
            connection.prepare_cached("DELETE FROM attached WHERE rid = ?")?.execute([rid])?;
        }
        for (field, hash) in blobs {
            connection
                .prepare_cached("INSERT OR IGNORE INTO attached VALUES (?, ?, ?)")?
                .execute(params![rid, field, hash.0])?;
        }
        Ok(())
    }
}

/// Reading what is known of files.
pub trait Blobs: Queries {
    /// What is known of a file.
    ///
    /// # Errors
    /// When the disk fails or the row is damaged.
    fn blob(&self, hash: &BlobHash) -> Result<Option<BlobRow>> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT size, tree, whole, time FROM blob WHERE hash = ?")?;
        let row = query.query_row([hash.0], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?, row.get(3)?))
        });
        let Some((size, tree, whole, time)) = row.optional()? else { return Ok(None) };
        let tree = BlobTree::new(*hash, size as u64, &tree);
        let tree = tree.map_err(|_| damaged("the tree of an attached file"))?;
        Ok(Some(BlobRow { tree, whole, time }))
    }

    /// Whether all of a file is here.
    ///
    /// # Errors
    /// When the disk fails.
    fn has_blob(&self, hash: &BlobHash) -> Result<bool> {
        let mut query =
            self.connection().prepare_cached("SELECT whole FROM blob WHERE hash = ?")?;
        Ok(query.query_row([hash.0], |row| row.get(0)).optional()?.unwrap_or(false))
    }

    /// The bytes of all files that are here whole. Looks at all of them.
    ///
    /// # Errors
    /// When the disk fails.
    fn blob_bytes(&self) -> Result<u64> {
        let sum = "SELECT coalesce(sum(size), 0) FROM blob WHERE whole = 1";
        Ok(self.connection().query_row(sum, [], |row| row.get::<_, i64>(0))? as u64)
    }

    /// The bytes of the whole files that each member has shown to be his, each file once for him. Looks at
    /// all of them.
    ///
    /// # Errors
    /// When the disk fails.
    fn blob_bytes_by_member(&self) -> Result<BTreeMap<u64, u64>> {
        let mut query = self.connection().prepare_cached(
            "SELECT member, sum(size) FROM
                 (SELECT DISTINCT o.member, o.hash, b.size FROM blob_opened o
                     JOIN blob b ON b.hash = o.hash AND b.whole = 1)
             GROUP BY member",
        )?;
        let rows = query.query_map([], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The segments for which somebody has shown that a file is his.
    ///
    /// # Errors
    /// When the disk fails.
    fn blob_opened(&self, hash: &BlobHash) -> Result<Vec<i64>> {
        let mut query =
            self.connection().prepare_cached("SELECT sid FROM blob_opened WHERE hash = ?")?;
        let rows = query.query_map([hash.0], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Whether a member has shown that a file is his, wherever.
    ///
    /// # Errors
    /// When the disk fails.
    fn is_opened_by(&self, hash: &BlobHash, member: u64) -> Result<bool> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT 1 FROM blob_opened WHERE hash = ? AND member = ? LIMIT 1")?;
        Ok(query.exists(params![hash.0, member as i64])?)
    }

    /// The segments with a record that names a file.
    ///
    /// # Errors
    /// When the disk fails.
    fn blob_named(&self, hash: &BlobHash) -> Result<Vec<i64>> {
        let mut query = self.connection().prepare_cached(
            "SELECT DISTINCT r.sid FROM attached a JOIN record r ON r.rid = a.rid WHERE a.hash = ?",
        )?;
        let rows = query.query_map([hash.0], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The whole files that records name and that are open to whom may read those, behind a file and
    /// segment in the order of both, at most so many.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn files_open(&self, after: Option<(BlobHash, i64)>, limit: u32) -> Result<Vec<OpenFile>> {
        // CROSS keeps the order of the join, and with it that of the index.
        let mut query = self.connection().prepare_cached(
            "SELECT o.hash, o.sid, min(r.id) FROM blob_opened o
                 CROSS JOIN blob b ON b.hash = o.hash AND b.whole = 1
                 CROSS JOIN attached a ON a.hash = o.hash
                 CROSS JOIN record r ON r.rid = a.rid AND r.sid = o.sid AND r.deleted = 0
             WHERE (o.hash, o.sid) > (?1, ?2)
             GROUP BY o.hash, o.sid ORDER BY o.hash, o.sid LIMIT ?3",
        )?;
        let (hash, sid) = after.map_or((Vec::new(), 0), |(hash, sid)| (hash.0.to_vec(), sid));
        let rows = query.query_map(params![hash, sid, limit], |row| {
            Ok((BlobHash(row.get(0)?), row.get(1)?, row.get::<_, String>(2)?))
        })?;
        rows.map(|row| {
            let (hash, sid, record) = row?;
            let record = record.parse().map_err(|_| damaged("the id of a record with files"))?;
            Ok(OpenFile { hash, sid, record })
        })
        .collect()
    }

    /// The files that records name and of which not everything is here, newest records first; those
    /// that the relay removed left out.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn blobs_lacking(&self, limit: u32) -> Result<Vec<(BlobHash, RecordKey)>> {
        let mut query = self.connection().prepare_cached(
            "SELECT a.hash, s.ty, r.id FROM attached a JOIN record r ON r.rid = a.rid
                 JOIN segment s ON s.sid = r.sid LEFT JOIN blob b ON b.hash = a.hash
             WHERE coalesce(b.whole, 0) = 0 AND r.deleted = 0
                 AND NOT EXISTS (SELECT 1 FROM removal d WHERE d.hash = a.hash)
             GROUP BY a.hash ORDER BY max(r.rid) DESC LIMIT ?",
        )?;
        let rows = query.query_map([limit], named)?;
        rows.map(|row| key(row?)).collect()
    }

    /// What waits to be uploaded, and what failed, oldest first.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn uploads(&self) -> Result<Vec<Upload>> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT hash, ty, id, failed, time FROM upload ORDER BY time, hash")?;
        let rows = query.query_map([], |row| {
            Ok((named(row)?, row.get::<_, Option<String>>(3)?, row.get(4)?))
        })?;
        rows.map(|row| {
            let (row, failed, time) = row?;
            let (hash, key) = key(row)?;
            Ok(Upload { hash, key, failed, time })
        })
        .collect()
    }

    /// The files of which all is here, with their lengths in bytes.
    ///
    /// # Errors
    /// When the disk fails.
    fn blobs_here(&self) -> Result<Vec<(BlobHash, u64)>> {
        let mut here = Vec::new();
        self.each_blob_here(|hash, size| {
            here.push((hash, size));
            Ok::<_, StoreError>(())
        })?;
        Ok(here)
    }

    /// Calls `visit` with each of them, in the order of their hashes.
    ///
    /// # Errors
    /// When the disk fails, and what `visit` says.
    fn each_blob_here<E: From<StoreError>>(
        &self,
        mut visit: impl FnMut(BlobHash, u64) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let fail = |error: rusqlite::Error| E::from(error.into());
        let sql = "SELECT hash, size FROM blob WHERE whole = 1 ORDER BY hash";
        let mut query = self.connection().prepare_cached(sql).map_err(fail)?;
        let mut rows = query.query([]).map_err(fail)?;
        while let Some(row) = rows.next().map_err(fail)? {
            let size: i64 = row.get(1).map_err(fail)?;
            visit(BlobHash(row.get(0).map_err(fail)?), size as u64)?;
        }
        Ok(())
    }

    /// How many files wait to be uploaded or failed, and how many of them failed.
    ///
    /// # Errors
    /// When the disk fails.
    fn upload_counts(&self) -> Result<[u64; 2]> {
        let mut query =
            self.connection().prepare_cached("SELECT count(*), count(failed) FROM upload")?;
        let counts = query.query_row([], |row| Ok([row.get::<_, i64>(0)?, row.get(1)?]))?;
        Ok(counts.map(|count| count as u64))
    }
}

pub(crate) type Named = ([u8; 32], String, String);

pub(crate) fn named(row: &Row<'_>) -> rusqlite::Result<Named> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

pub(crate) fn key((hash, ty, id): Named) -> Result<(BlobHash, RecordKey)> {
    let ty = TypeName::new(ty).map_err(|_| damaged("the type of a record with files"))?;
    let id = id.parse().map_err(|_| damaged("the id of a record with files"))?;
    Ok((BlobHash(hash), RecordKey::new(ty, id)))
}

impl Blobs for Store {}
impl Blobs for Reader {}
