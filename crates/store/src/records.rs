//! The projection: what applications read, and the indexes that judging needs.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::status::State;
use fieldkeep_model::{BlobHash, Pos, RecordHash, RecordId, TypeName};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::error::damaged;
use crate::{Queries, Reader, Result, Store, StoreError};

/// A record as it is read.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordRow {
    /// Its number in this store, 0 before it is first saved.
    pub rid: i64,
    /// The segment's number in this store.
    pub sid: i64,
    /// Its id.
    pub id: RecordId,
    /// Its canonical JSON, as merged.
    pub json: String,
    /// The hash of that.
    pub hash: RecordHash,
    /// Whether it is softly deleted.
    pub deleted: bool,
    /// The position in the relay's log of the newest change that touched it, 0 while a device does
    /// not know it.
    pub pos: Pos,
    /// What is known of its validity.
    pub state: State,
    /// How many changes that touch it have no receipt.
    pub unsaved: u64,
    /// The fields with concurrent values.
    pub conflicts: Vec<String>,
    /// Its canonical JSON when it last passed, unless that is the present one.
    pub valid: Option<String>,
    /// The relay's log position through which it last passed, 0 if never.
    pub valid_pos: Pos,
    /// This replica's own reasons, encoded, while it forecasts.
    pub forecast: Option<Vec<u8>>,
}

impl RecordRow {
    /// What this record adds to its segment's sum of rows.
    #[must_use]
    pub fn digest(&self) -> u128 {
        digest(&self.id, &self.hash)
    }
}

/// What a record with that content adds to its segment's sum of rows.
#[must_use]
pub fn digest(id: &RecordId, hash: &RecordHash) -> u128 {
    let mut hasher = blake3::Hasher::new_derive_key("fieldkeep 1 record digest");
    hasher.update(&hash.0).update(id.as_str().as_bytes());
    u128::from_be_bytes(hasher.finalize().as_bytes()[..16].try_into().expect("sixteen bytes"))
}

/// What of a type is asked for.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Ids after this one.
    pub after: Option<String>,
    /// At most so many; all if 0.
    pub limit: usize,
    /// Whether deleted ones count.
    pub deleted: bool,
}

/// Counts of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records with changes that have no receipt, whoever wrote them.
    pub unsaved: u64,
    /// Held records, deleted ones left out.
    pub held: u64,
}

/// Records that depend on another, with the segments that they lie in.
pub type Dependants = Vec<(i64, RecordId)>;

const COLUMNS: &str = "rid, sid, id, json, hash, deleted, pos, state, unsaved, conflicts, valid, \
                       valid_pos, forecast";

impl Store {
    /// Saves a record; its number is set if it had none.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_record(&mut self, row: &mut RecordRow) -> Result<()> {
        const INSERT: &str = "INSERT INTO record (json, hash, deleted, pos, state, unsaved, conflicts, \
             valid, valid_pos, forecast, sid, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        const UPDATE: &str = "UPDATE record SET json = ?, hash = ?, deleted = ?, pos = ?, state = ?, \
             unsaved = ?, conflicts = ?, valid = ?, valid_pos = ?, forecast = ? WHERE rid = ?";
        let connection = self.write()?;
        let content = params![
            row.json,
            row.hash.0,
            row.deleted,
            row.pos as i64,
            row.state.code(),
            row.unsaved as i64,
            row.conflicts.join("\n"),
            row.valid,
            row.valid_pos as i64,
            row.forecast
        ];
        if row.rid != 0 {
            let mut update = connection.prepare_cached(UPDATE)?;
            update.execute(&[content, params![row.rid]].concat()[..])?;
            return Ok(());
        }
        let mut insert = connection.prepare_cached(INSERT)?;
        insert.execute(&[content, params![row.sid, row.id.as_str()]].concat()[..])?;
        row.rid = connection.last_insert_rowid();
        Ok(())
    }

    /// Replaces what a record refers to, claims as unique, and has attached where its type has files.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn index_record(
        &mut self,
        rid: i64,
        ty: &TypeName,
        known: bool,
        references: &[(String, TypeName, RecordId)],
        unique: &[(String, String)],
        blobs: Option<&[(String, BlobHash)]>,
    ) -> Result<()> {
        if let Some(blobs) = blobs {
            self.index_blobs(rid, known, blobs)?;
        }
        let connection = self.write()?;
        if known && is_indexed(connection, rid, references, unique)? {
            return Ok(());
        }
        if known {
            connection.prepare_cached("DELETE FROM reference WHERE rid = ?")?.execute([rid])?;
            connection.prepare_cached("DELETE FROM uniqueness WHERE rid = ?")?.execute([rid])?;
        }
        for (field, other, id) in references {
            connection
                .prepare_cached("INSERT OR IGNORE INTO reference VALUES (?, ?, ?, ?)")?
                .execute(params![rid, field, other.as_str(), id.as_str()])?;
        }
        for (field, value) in unique {
            connection
                .prepare_cached("INSERT OR IGNORE INTO uniqueness VALUES (?, ?, ?, ?)")?
                .execute(params![rid, ty.as_str(), field, value])?;
        }
        Ok(())
    }

    /// Removes every record of a segment from the projection, to be derived again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn clear_records(&mut self, sid: i64) -> Result<()> {
        let connection = self.write()?;
        for index in ["reference", "uniqueness", "attached"] {
            connection.execute(
                &format!("DELETE FROM {index} WHERE rid IN (SELECT rid FROM record WHERE sid = ?)"),
                [sid],
            )?;
        }
        connection.execute("DELETE FROM record WHERE sid = ?", [sid])?;
        Ok(())
    }

    /// Notes that a change of some records has a receipt, and where in the relay's log it lies.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn settle(&mut self, sid: i64, records: &[RecordId], pos: Pos) -> Result<()> {
        let connection = self.write()?;
        for id in records {
            connection
                .prepare_cached(
                    "UPDATE record SET unsaved = max(unsaved - 1, 0), pos = max(pos, ?)
                     WHERE id = ? AND sid = ?",
                )?
                .execute(params![pos as i64, id.as_str(), sid])?;
        }
        Ok(())
    }

    /// Notes that one more change of some records has no receipt.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn unsettle(&mut self, sid: i64, records: &[RecordId]) -> Result<()> {
        let connection = self.write()?;
        for id in records {
            connection
                .prepare_cached("UPDATE record SET unsaved = unsaved + 1 WHERE id = ? AND sid = ?")?
                .execute(params![id.as_str(), sid])?;
        }
        Ok(())
    }

    /// Notes that everything saved of a segment lies at or before a position of the relay's log,
    /// where that was not known: after the segment was derived again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn place(&mut self, sid: i64, pos: Pos) -> Result<()> {
        self.write()?
            .prepare_cached(
                "UPDATE record SET pos = ?2
                 WHERE sid = ?1 AND state >= 3 AND unsaved = 0 AND pos = 0",
            )?
            .execute(params![sid, pos as i64])?;
        Ok(())
    }

    /// Marks records valid that the relay has judged and stated nothing of: those of a segment whose
    /// newest change lies at or before a position of its log. Returns them.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn pass_judged(&mut self, sid: i64, pos: Pos) -> Result<Vec<RecordId>> {
        let mut update = self.write()?.prepare_cached(
            "UPDATE record SET state = 0, forecast = NULL, valid = NULL
             WHERE sid = ?1 AND state >= 3 AND unsaved = 0 AND pos BETWEEN 1 AND ?2
               AND NOT EXISTS (SELECT 1 FROM verdict v WHERE v.sid = ?1 AND v.id = record.id)
             RETURNING id",
        )?;
        let ids = update.query_map(params![sid, pos as i64], |row| row.get::<_, String>(0))?;
        let ids = ids.collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(ids.into_iter().filter_map(|id| RecordId::new(id).ok()).collect())
    }

    /// Counts unsaved and held records afresh.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn rebuild_tallies(&mut self) -> Result<()> {
        let counted = self.recount()?;
        let connection = self.write()?;
        connection.execute("DELETE FROM tally", [])?;
        let mut keep = connection.prepare_cached("INSERT INTO tally VALUES (?, ?, ?)")?;
        for (sid, Tally { unsaved, held }) in counted {
            keep.execute(params![sid, unsaved as i64, held as i64])?;
        }
        Ok(())
    }

    /// Replaces the relay's counts.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_server_count(&mut self, ty: &TypeName, counts: [u64; 3]) -> Result<()> {
        let [in_scope, all, held] = counts.map(|n| n as i64);
        self.write()?
            .prepare_cached("INSERT OR REPLACE INTO server_count VALUES (?, ?, ?, ?)")?
            .execute(params![ty.as_str(), in_scope, all, held])?;
        Ok(())
    }
}

/// Reading records.
pub trait Records: Queries {
    /// A record of a segment.
    ///
    /// # Errors
    /// When the disk fails or the row is damaged.
    fn record(&self, sid: i64, id: &RecordId) -> Result<Option<RecordRow>> {
        let sql = format!("SELECT {COLUMNS} FROM record WHERE id = ? AND sid = ?");
        let mut query = self.connection().prepare_cached(&sql)?;
        query.query_row(params![id.as_str(), sid], |row| Ok(read(row))).optional()?.transpose()
    }

    /// A record by its number.
    ///
    /// # Errors
    /// When the disk fails or the row is damaged.
    fn record_by_number(&self, rid: i64) -> Result<Option<RecordRow>> {
        let sql = format!("SELECT {COLUMNS} FROM record WHERE rid = ?");
        let mut query = self.connection().prepare_cached(&sql)?;
        query.query_row([rid], |row| Ok(read(row))).optional()?.transpose()
    }

    /// The records of that type and id: one, but where two devices created it in different scopes.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn find(&self, ty: &TypeName, id: &RecordId) -> Result<Vec<RecordRow>> {
        // CROSS keeps the order of the join: the id is what is rare.
        let mut query = self.connection().prepare_cached(
            "SELECT r.rid, r.sid, r.id, r.json, r.hash, r.deleted, r.pos, r.state, r.unsaved,
                 r.conflicts, r.valid, r.valid_pos, r.forecast
             FROM record r CROSS JOIN segment s ON s.sid = r.sid
             WHERE r.id = ? AND s.ty = ? ORDER BY r.deleted, r.rid",
        )?;
        let rows = query.query_map(params![id.as_str(), ty.as_str()], |row| Ok(read(row)))?;
        rows.map(|row| row?).collect()
    }

    /// The first of what [`Records::find`] returns, without its content: the segment's number,
    /// whether the record is deleted, and what is known of its validity.
    ///
    /// # Errors
    /// When the disk fails or the row is damaged.
    fn presence(&self, ty: &TypeName, id: &RecordId) -> Result<Option<(i64, bool, State)>> {
        let mut query = self.connection().prepare_cached(
            "SELECT r.sid, r.deleted, r.state FROM record r CROSS JOIN segment s ON s.sid = r.sid
             WHERE r.id = ? AND s.ty = ? ORDER BY r.deleted, r.rid LIMIT 1",
        )?;
        let row = query.query_row(params![id.as_str(), ty.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        });
        let Some((sid, deleted, state)) = row.optional()? else { return Ok(None) };
        let state = State::from_code(state).ok_or_else(|| damaged("a record's state"))?;
        Ok(Some((sid, deleted, state)))
    }

    /// A page of a segment's records, in order of id.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn records(&self, ty: &TypeName, page: &Page) -> Result<Vec<RecordRow>> {
        let columns = COLUMNS.split(", ").map(|c| format!("r.{c}")).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT {columns} FROM record r JOIN segment s ON s.sid = r.sid
             WHERE s.ty = ? AND r.id > ? AND (? OR NOT r.deleted) ORDER BY r.id, r.rid LIMIT ?"
        );
        let mut query = self.connection().prepare_cached(&sql)?;
        let limit = if page.limit == 0 { -1 } else { page.limit as i64 };
        let after = page.after.as_deref().unwrap_or("");
        let rows = query
            .query_map(params![ty.as_str(), after, page.deleted, limit], |row| Ok(read(row)))?;
        rows.map(|row| row?).collect()
    }

    /// The records of a segment behind a number, at most so many.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn records_behind(&self, sid: i64, rid: i64, limit: usize) -> Result<Vec<RecordRow>> {
        let sql =
            format!("SELECT {COLUMNS} FROM record WHERE sid = ? AND rid > ? ORDER BY rid LIMIT ?");
        let mut query = self.connection().prepare_cached(&sql)?;
        let rows = query.query_map(params![sid, rid, limit as i64], |row| Ok(read(row)))?;
        rows.map(|row| row?).collect()
    }

    /// How many records of a segment have a number through this one.
    ///
    /// # Errors
    /// When the disk fails.
    fn count_through(&self, sid: i64, rid: i64) -> Result<u64> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT count(*) FROM record WHERE sid = ? AND rid <= ?")?;
        Ok(query.query_row([sid, rid], |row| row.get::<_, i64>(0))? as u64)
    }

    /// The records that are held, wait, or are likely to be held.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn attention(&self) -> Result<Vec<RecordRow>> {
        let sql = format!("SELECT {COLUMNS} FROM record WHERE state IN (1, 2, 4) ORDER BY rid");
        let mut query = self.connection().prepare_cached(&sql)?;
        let rows = query.query_map([], |row| Ok(read(row)))?;
        rows.map(|row| row?).collect()
    }

    /// How many records are held, and how many wait.
    ///
    /// # Errors
    /// When the disk fails.
    fn attention_counts(&self) -> Result<(u64, u64)> {
        let mut query = self.connection().prepare_cached(
            "SELECT sum(state = 1), sum(state = 2) FROM record WHERE state IN (1, 2, 4)",
        )?;
        let count = |n: Option<i64>| n.unwrap_or(0) as u64;
        Ok(query.query_row([], |row| Ok((count(row.get(0)?), count(row.get(1)?))))?)
    }

    /// The counts of every segment: its records with changes that have no receipt, and its held
    /// records, deleted ones left out.
    ///
    /// # Errors
    /// When the disk fails.
    fn tallies(&self) -> Result<BTreeMap<i64, Tally>> {
        let mut query = self.connection().prepare_cached("SELECT sid, unsaved, held FROM tally")?;
        read_tallies(&mut query)
    }

    /// The same, counted afresh.
    ///
    /// # Errors
    /// When the disk fails.
    fn recount(&self) -> Result<BTreeMap<i64, Tally>> {
        let mut query = self.connection().prepare_cached(
            "SELECT s.sid, coalesce(sum(r.unsaved > 0), 0),
                 coalesce(sum(r.state = 1 AND r.deleted = 0), 0)
             FROM segment s LEFT JOIN record r ON r.sid = s.sid GROUP BY s.sid",
        )?;
        read_tallies(&mut query)
    }

    /// How many records of each segment are not deleted, and how many of those are held, and wait; counted
    /// afresh.
    ///
    /// # Errors
    /// When the disk fails.
    fn count_standing(&self) -> Result<BTreeMap<i64, [u64; 3]>> {
        let mut query = self.connection().prepare_cached(
            "SELECT sid, count(*), sum(state = 1), sum(state = 2) FROM record WHERE deleted = 0
             GROUP BY sid",
        )?;
        let rows = query.query_map([], |row| {
            let count = |at| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)? as u64);
            Ok((row.get(0)?, [count(1)?, count(2)?, count(3)?]))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// By segment how many records have changes without a receipt of other devices alone.
    ///
    /// # Errors
    /// When the disk fails.
    fn carried_records(&self) -> Result<BTreeMap<i64, u64>> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT key >> 40, records FROM outbox WHERE carried = 1")?;
        let mut changes: BTreeMap<(i64, String), u64> = BTreeMap::new();
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (sid, ids): (i64, String) = (row.get(0)?, row.get(1)?);
            for id in ids.lines() {
                *changes.entry((sid, id.to_owned())).or_default() += 1;
            }
        }
        let mut unsaved = self
            .connection()
            .prepare_cached("SELECT unsaved FROM record WHERE id = ? AND sid = ?")?;
        let mut carried = BTreeMap::new();
        for ((sid, id), changes) in changes {
            let all = unsaved.query_row(params![id, sid], |row| row.get::<_, i64>(0)).optional()?;
            // Its own change would be one more.
            *carried.entry(sid).or_default() += u64::from(all == Some(changes as i64));
        }
        Ok(carried)
    }

    /// The segments with records that are saved and not judged, as far as is known here.
    ///
    /// # Errors
    /// When the disk fails.
    fn pending_segments(&self) -> Result<Vec<i64>> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT DISTINCT sid FROM record WHERE state >= 3 AND unsaved = 0")?;
        let rows = query.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The records that refer to a record.
    ///
    /// # Errors
    /// When the disk fails.
    fn referrers(&self, ty: &TypeName, id: &RecordId) -> Result<Dependants> {
        let mut query = self.connection().prepare_cached(
            "SELECT DISTINCT r.sid, r.id FROM reference f JOIN record r ON r.rid = f.rid
             WHERE f.ty = ? AND f.id = ?",
        )?;
        dependants(&mut query, params![ty.as_str(), id.as_str()])
    }

    /// The records that claim a unique value.
    ///
    /// # Errors
    /// When the disk fails.
    fn claimants(&self, ty: &TypeName, field: &str, value: &str) -> Result<Dependants> {
        let mut query = self.connection().prepare_cached(
            "SELECT r.sid, r.id FROM uniqueness u JOIN record r ON r.rid = u.rid
             WHERE u.ty = ? AND u.field = ? AND u.value = ? ORDER BY r.id",
        )?;
        dependants(&mut query, params![ty.as_str(), field, value])
    }

    /// The first hundred of them: whoever asks whether another one claims it needs no more, and a value
    /// that everybody has is told as soon as any other.
    ///
    /// # Errors
    /// When the disk fails.
    fn first_claimants(&self, ty: &TypeName, field: &str, value: &str) -> Result<Dependants> {
        let mut query = self.connection().prepare_cached(
            "SELECT r.sid, r.id FROM uniqueness u CROSS JOIN record r ON r.rid = u.rid
             WHERE u.ty = ? AND u.field = ? AND u.value = ? ORDER BY u.rid LIMIT 100",
        )?;
        dependants(&mut query, params![ty.as_str(), field, value])
    }

    /// How many records a segment has, and the sum of what they add, by the hashes that are kept.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn sum_kept(&self, sid: i64) -> Result<(u64, u128)> {
        let mut query =
            self.connection().prepare_cached("SELECT id, hash FROM record WHERE sid = ?")?;
        let mut rows = query.query([sid])?;
        let (mut count, mut sum) = (0, 0u128);
        while let Some(row) = rows.next()? {
            let id = RecordId::new(row.get::<_, String>(0)?).map_err(|_| damaged("a record id"))?;
            sum = sum.wrapping_add(digest(&id, &RecordHash(row.get(1)?)));
            count += 1;
        }
        Ok((count, sum))
    }

    /// What a record claims as unique.
    ///
    /// # Errors
    /// When the disk fails.
    fn claims(&self, rid: i64) -> Result<Vec<(String, String)>> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT field, value FROM uniqueness WHERE rid = ?")?;
        let rows = query.query_map([rid], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The relay's counts of each type: in scope, all, held.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn server_counts(&self) -> Result<Vec<(TypeName, [u64; 3])>> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT ty, in_scope, everything, held FROM server_count")?;
        let rows = query.query_map([], |row| {
            let count = |at| row.get::<_, i64>(at).map(|count| count as u64);
            Ok((row.get::<_, String>(0)?, [count(1)?, count(2)?, count(3)?]))
        })?;
        rows.map(|row| {
            let (ty, counts) = row?;
            Ok((TypeName::new(ty).map_err(|_| damaged("a type name"))?, counts))
        })
        .collect()
    }

    /// Counts and sums the rows of a segment afresh, from their content.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn sum_rows(&self, sid: i64) -> Result<(u64, u128)> {
        let mut query =
            self.connection().prepare_cached("SELECT id, json FROM record WHERE sid = ?")?;
        let mut rows = query.query([sid])?;
        let (mut count, mut sum) = (0, 0u128);
        while let Some(row) = rows.next()? {
            let id = RecordId::new(row.get::<_, String>(0)?).map_err(|_| damaged("a record id"))?;
            let json = row.get_ref(1)?.as_str().map_err(|_| damaged("a record"))?;
            sum = sum.wrapping_add(digest(&id, &RecordHash::of(json)));
            count += 1;
        }
        Ok((count, sum))
    }
}

impl Records for Store {}
impl Records for Reader {}

/// Whether the indexes say already what a record refers to and claims. To look is much cheaper than
/// to write the same again.
fn is_indexed(
    connection: &Connection,
    rid: i64,
    references: &[(String, TypeName, RecordId)],
    unique: &[(String, String)],
) -> Result<bool> {
    let mut query =
        connection.prepare_cached("SELECT field, ty, id FROM reference WHERE rid = ?")?;
    let rows = query.query_map([rid], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let held: BTreeSet<(String, String, String)> = rows.collect::<rusqlite::Result<_>>()?;
    let wanted = references.iter();
    let wanted = wanted.map(|(field, ty, id)| (field.clone(), ty.to_string(), id.to_string()));
    if held != wanted.collect() {
        return Ok(false);
    }
    let mut query =
        connection.prepare_cached("SELECT field, value FROM uniqueness WHERE rid = ?")?;
    let rows = query.query_map([rid], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let held: BTreeSet<(String, String)> = rows.collect::<rusqlite::Result<_>>()?;
    Ok(held == unique.iter().cloned().collect())
}

fn read_tallies(query: &mut rusqlite::CachedStatement<'_>) -> Result<BTreeMap<i64, Tally>> {
    let rows = query.query_map([], |row| {
        let count = |at| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)? as u64);
        Ok((row.get(0)?, Tally { unsaved: count(1)?, held: count(2)? }))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn dependants(
    query: &mut rusqlite::CachedStatement<'_>,
    params: impl rusqlite::Params,
) -> Result<Dependants> {
    let rows = query.query_map(params, |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (sid, id) = row?;
        Ok((sid, RecordId::new(id).map_err(|_| damaged("a record id"))?))
    })
    .collect()
}

fn read(row: &Row<'_>) -> Result<RecordRow> {
    let conflicts: String = row.get(9)?;
    let state = State::from_code(row.get(7)?).ok_or_else(|| damaged("a record's state"))?;
    let id: String = row.get(2)?;
    Ok(RecordRow {
        rid: row.get(0)?,
        sid: row.get(1)?,
        id: RecordId::new(id).map_err(|_| damaged("a record id"))?,
        json: row.get(3)?,
        hash: RecordHash(row.get(4)?),
        deleted: row.get(5)?,
        pos: row.get::<_, i64>(6)? as u64,
        state,
        unsaved: row.get::<_, i64>(8).map_err(StoreError::from)? as u64,
        conflicts: conflicts.lines().map(str::to_owned).collect(),
        valid: row.get(10)?,
        valid_pos: row.get::<_, i64>(11)? as u64,
        forecast: row.get(12)?,
    })
}
