//! The tables, and how a file comes to have them.

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::{Result, StoreError};

/// "FKP1", so that tools can tell the file.
const APPLICATION: i64 = 0x464b_5031;

/// Each step brings the file from one version to the next; none is ever changed.
const MIGRATIONS: [&str; 2] = [
    r"
CREATE TABLE setting (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE member (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL, signature BLOB NOT NULL);
CREATE TABLE catalog (
    counter INTEGER NOT NULL, salt BLOB NOT NULL, number INTEGER NOT NULL,
    bytes BLOB NOT NULL, signature BLOB NOT NULL, source TEXT NOT NULL,
    PRIMARY KEY (counter, number, salt)) WITHOUT ROWID;
CREATE TABLE segment (
    sid INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, ty TEXT NOT NULL, scope TEXT NOT NULL,
    buckets INTEGER NOT NULL, bucket INTEGER NOT NULL, generation INTEGER NOT NULL,
    tip INTEGER NOT NULL, chain BLOB NOT NULL, sum BLOB NOT NULL, packed INTEGER NOT NULL,
    done INTEGER NOT NULL, damaged INTEGER NOT NULL,
    verdict INTEGER NOT NULL, judged INTEGER NOT NULL, judged_catalog INTEGER NOT NULL,
    counter INTEGER NOT NULL, salt BLOB NOT NULL, pos INTEGER NOT NULL, log_chain BLOB NOT NULL,
    heads BLOB NOT NULL, records INTEGER NOT NULL, live INTEGER NOT NULL, held INTEGER NOT NULL,
    rows BLOB NOT NULL);
-- A log entry's key is sid << 40 | pos, so that one B-tree serves all segments in order.
CREATE TABLE change (
    key INTEGER PRIMARY KEY, actor BLOB NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL,
    flags INTEGER NOT NULL, bytes BLOB NOT NULL);
CREATE INDEX change_flagged ON change (key) WHERE flags != 0;
CREATE TABLE pack (
    key INTEGER PRIMARY KEY, last INTEGER NOT NULL, level INTEGER NOT NULL, raw INTEGER NOT NULL,
    hash BLOB NOT NULL, chain BLOB NOT NULL, flags BLOB NOT NULL, bytes BLOB NOT NULL);
CREATE TABLE head (
    key INTEGER NOT NULL, actor BLOB NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL,
    signature BLOB NOT NULL, chain BLOB NOT NULL, PRIMARY KEY (key, actor)) WITHOUT ROWID;
CREATE TABLE outbox (key INTEGER PRIMARY KEY, actor BLOB NOT NULL, seq INTEGER NOT NULL,
    refused TEXT, records TEXT NOT NULL);
CREATE TABLE acked (sid INTEGER NOT NULL, actor BLOB NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (sid, actor)) WITHOUT ROWID;
CREATE TABLE snapshot (sid INTEGER NOT NULL, slot INTEGER NOT NULL, pos INTEGER NOT NULL,
    document BLOB NOT NULL, PRIMARY KEY (sid, slot));
CREATE TABLE history (sid INTEGER PRIMARY KEY, pos INTEGER NOT NULL, bytes BLOB NOT NULL);
CREATE TABLE aside (
    id INTEGER PRIMARY KEY, sid INTEGER NOT NULL, hash BLOB NOT NULL, actor BLOB NOT NULL,
    seq INTEGER NOT NULL, reason TEXT NOT NULL, time INTEGER NOT NULL, records TEXT NOT NULL,
    head BLOB NOT NULL, bytes BLOB NOT NULL, UNIQUE (sid, hash));
CREATE TABLE record (
    rid INTEGER PRIMARY KEY, sid INTEGER NOT NULL, id TEXT NOT NULL, json TEXT NOT NULL,
    hash BLOB NOT NULL, deleted INTEGER NOT NULL, pos INTEGER NOT NULL, state INTEGER NOT NULL,
    unsaved INTEGER NOT NULL, conflicts TEXT NOT NULL, valid TEXT, valid_pos INTEGER NOT NULL,
    forecast BLOB);
CREATE UNIQUE INDEX record_by_id ON record (id, sid);
CREATE INDEX record_in_segment ON record (sid);
CREATE INDEX record_pending ON record (sid) WHERE state >= 3;
CREATE INDEX record_attention ON record (state) WHERE state IN (1, 2, 4);
CREATE TABLE reference (rid INTEGER NOT NULL, field TEXT NOT NULL, ty TEXT NOT NULL,
    id TEXT NOT NULL, PRIMARY KEY (ty, id, rid, field)) WITHOUT ROWID;
CREATE INDEX reference_by_record ON reference (rid);
CREATE TABLE uniqueness (rid INTEGER NOT NULL, ty TEXT NOT NULL, field TEXT NOT NULL,
    value TEXT NOT NULL, PRIMARY KEY (ty, field, value, rid)) WITHOUT ROWID;
CREATE INDEX uniqueness_by_record ON uniqueness (rid);
CREATE TABLE verdict_block (
    sid INTEGER NOT NULL, counter INTEGER NOT NULL, number INTEGER NOT NULL, bytes BLOB NOT NULL,
    signature BLOB NOT NULL, openings BLOB NOT NULL, PRIMARY KEY (sid, counter, number))
    WITHOUT ROWID;
CREATE TABLE verdict (sid INTEGER NOT NULL, id TEXT NOT NULL, bytes BLOB NOT NULL,
    openings BLOB NOT NULL, PRIMARY KEY (sid, id)) WITHOUT ROWID;
CREATE TABLE judged_block (sid INTEGER PRIMARY KEY, bytes BLOB NOT NULL, signature BLOB NOT NULL);
CREATE TABLE dismissal (ty TEXT NOT NULL, id TEXT NOT NULL, hash BLOB NOT NULL, who TEXT NOT NULL,
    note TEXT NOT NULL, time INTEGER NOT NULL, PRIMARY KEY (ty, id)) WITHOUT ROWID;
CREATE TABLE server_count (ty TEXT PRIMARY KEY, in_scope INTEGER NOT NULL, everything INTEGER NOT NULL,
    held INTEGER NOT NULL) WITHOUT ROWID;
",
    r"
CREATE TABLE receipt (sid INTEGER NOT NULL, actor BLOB NOT NULL, seq INTEGER NOT NULL,
    bytes BLOB NOT NULL, signature BLOB NOT NULL, PRIMARY KEY (sid, actor)) WITHOUT ROWID;
",
];

/// Sets the connection up and brings the file to the newest version.
pub(crate) fn prepare(connection: &Connection) -> Result<()> {
    tune(connection)?;
    let application: i64 = connection.query_row("PRAGMA application_id", [], |r| r.get(0))?;
    let version: u32 = connection.query_row("PRAGMA user_version", [], |r| r.get(0))?;
    if application != APPLICATION && version > 0 {
        return Err(StoreError::Foreign);
    }
    if version as usize > MIGRATIONS.len() {
        return Err(StoreError::TooNew);
    }
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    for (done, step) in MIGRATIONS.iter().enumerate().skip(version as usize) {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {step} PRAGMA application_id = {APPLICATION}; \
             PRAGMA user_version = {}; COMMIT;",
            done + 1
        ))?;
    }
    Ok(())
}

/// What every connection needs, readers included.
pub(crate) fn tune(connection: &Connection) -> Result<()> {
    connection.set_prepared_statement_cache_capacity(128);
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    // Else a statement whose parameters could meet a partial index is planned anew each time that
    // they change, which costs more than running it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch("PRAGMA cache_size = -16000; PRAGMA temp_store = MEMORY")?;
    Ok(())
}
