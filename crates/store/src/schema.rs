//! The tables, and how a file comes to have them.

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::{Result, StoreError};

/// "FKP1", so that tools can tell the file.
const APPLICATION: i64 = 0x464b_5031;

/// Each step brings the file from one version to the next; none is ever changed.
const MIGRATIONS: [&str; 13] = [
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
    r"
ALTER TABLE segment ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
ALTER TABLE segment ADD COLUMN proven INTEGER NOT NULL DEFAULT 0;
ALTER TABLE segment ADD COLUMN proven_time INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN carried INTEGER NOT NULL DEFAULT 0;
UPDATE outbox SET carried = 1
    WHERE substr(actor, 1, 8) != (SELECT value FROM setting WHERE key = 'number');
CREATE INDEX outbox_carried ON outbox (key) WHERE carried = 1;
-- Counts of each segment's records; whatever writes a record, a trigger keeps them.
CREATE TABLE tally (sid INTEGER PRIMARY KEY, unsaved INTEGER NOT NULL, held INTEGER NOT NULL);
INSERT INTO tally SELECT s.sid, coalesce(sum(r.unsaved > 0), 0),
        coalesce(sum(r.state = 1 AND r.deleted = 0), 0)
    FROM segment s LEFT JOIN record r ON r.sid = s.sid GROUP BY s.sid;
CREATE TRIGGER segment_tally AFTER INSERT ON segment BEGIN
    INSERT INTO tally VALUES (NEW.sid, 0, 0);
END;
CREATE TRIGGER record_counted AFTER INSERT ON record
WHEN NEW.unsaved > 0 OR (NEW.state = 1 AND NEW.deleted = 0) BEGIN
    UPDATE tally SET unsaved = unsaved + (NEW.unsaved > 0),
        held = held + (NEW.state = 1 AND NEW.deleted = 0) WHERE sid = NEW.sid;
END;
CREATE TRIGGER record_recounted AFTER UPDATE OF unsaved, state, deleted ON record
WHEN (OLD.unsaved > 0) != (NEW.unsaved > 0)
    OR (OLD.state = 1 AND OLD.deleted = 0) != (NEW.state = 1 AND NEW.deleted = 0) BEGIN
    UPDATE tally SET unsaved = unsaved + (NEW.unsaved > 0) - (OLD.unsaved > 0),
        held = held + (NEW.state = 1 AND NEW.deleted = 0) - (OLD.state = 1 AND OLD.deleted = 0)
    WHERE sid = NEW.sid;
END;
CREATE TRIGGER record_uncounted AFTER DELETE ON record
WHEN OLD.unsaved > 0 OR (OLD.state = 1 AND OLD.deleted = 0) BEGIN
    UPDATE tally SET unsaved = unsaved - (OLD.unsaved > 0),
        held = held - (OLD.state = 1 AND OLD.deleted = 0) WHERE sid = OLD.sid;
END;
",
    r"
CREATE TABLE pin (ty TEXT NOT NULL, id TEXT NOT NULL, owner TEXT NOT NULL, reason TEXT NOT NULL,
    time INTEGER NOT NULL, PRIMARY KEY (ty, id, owner)) WITHOUT ROWID;
",
    r"
CREATE TABLE call (device INTEGER NOT NULL, number INTEGER NOT NULL, intent BLOB NOT NULL,
    signature BLOB NOT NULL, time INTEGER NOT NULL, withdrawn INTEGER NOT NULL, outcome BLOB,
    PRIMARY KEY (device, number)) WITHOUT ROWID;
CREATE INDEX call_open ON call (device, number) WHERE outcome IS NULL;
CREATE TABLE call_number (device INTEGER PRIMARY KEY, highest INTEGER NOT NULL);
",
    r"
-- Attached files: those that are known with their chunk trees, and whether all of one is here.
CREATE TABLE blob (hash BLOB PRIMARY KEY, size INTEGER NOT NULL, tree BLOB NOT NULL,
    whole INTEGER NOT NULL, time INTEGER NOT NULL) WITHOUT ROWID;
-- Who showed a relay that a file is his, for which segment.
CREATE TABLE blob_opened (hash BLOB NOT NULL, sid INTEGER NOT NULL, member INTEGER NOT NULL,
    time INTEGER NOT NULL, PRIMARY KEY (hash, sid)) WITHOUT ROWID;
-- Files that this device attached, until the relay has them: why it did not take one.
CREATE TABLE upload (hash BLOB NOT NULL, ty TEXT NOT NULL, id TEXT NOT NULL, failed TEXT,
    time INTEGER NOT NULL, PRIMARY KEY (hash, ty, id)) WITHOUT ROWID;
-- Which records name a file, as merged or as they were last valid.
CREATE TABLE attached (rid INTEGER NOT NULL, field TEXT NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (hash, rid, field)) WITHOUT ROWID;
CREATE INDEX attached_by_record ON attached (rid);
",
    r"
-- When the newest change that a verdict objects to was written, and what it speaks of: rules and devices.
ALTER TABLE verdict ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE verdict ADD COLUMN about TEXT NOT NULL DEFAULT '';
CREATE INDEX verdict_found ON verdict (since, sid, id, about);
-- Who looks after a held record, and what was decided about it, which nothing alters.
CREATE TABLE assignment (ty TEXT NOT NULL, id TEXT NOT NULL, person TEXT NOT NULL,
    PRIMARY KEY (ty, id)) WITHOUT ROWID;
CREATE TABLE decision (number INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL,
    who TEXT NOT NULL, act TEXT NOT NULL, ty TEXT NOT NULL, id TEXT NOT NULL, note TEXT NOT NULL);
CREATE INDEX decision_by_record ON decision (ty, id, number);
CREATE TRIGGER decision_stays BEFORE UPDATE ON decision BEGIN
    SELECT RAISE(ABORT, 'what was decided is not altered');
END;
CREATE TRIGGER decision_is_kept BEFORE DELETE ON decision BEGIN
    SELECT RAISE(ABORT, 'what was decided is not removed');
END;
",
    r"
-- Files that nothing refers to: since when that is known. Whatever names one, a trigger forgets it.
CREATE TABLE loose (hash BLOB PRIMARY KEY, since INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER attached_again AFTER INSERT ON attached BEGIN
    DELETE FROM loose WHERE hash = NEW.hash;
END;
-- Files that were removed: when, or null once they are back; in which order that is told; and
-- whether the bytes may lie on the disk still.
CREATE TABLE removal (hash BLOB PRIMARY KEY, time INTEGER, number INTEGER NOT NULL,
    lies INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX removal_in_order ON removal (number);
CREATE INDEX removal_lying ON removal (hash) WHERE lies = 1;
",
    r"
ALTER TABLE segment ADD COLUMN waiting INTEGER NOT NULL DEFAULT 0;
UPDATE segment SET waiting =
    (SELECT count(*) FROM record r WHERE r.sid = segment.sid AND r.state = 2 AND r.deleted = 0);
",
    r"
-- What a relay notes of the catalogs that it published: when and why, and what became of records by it.
CREATE TABLE publication (counter INTEGER NOT NULL, number INTEGER NOT NULL, time INTEGER,
    note TEXT NOT NULL, held INTEGER NOT NULL, waiting INTEGER NOT NULL, released INTEGER NOT NULL,
    PRIMARY KEY (counter, number)) WITHOUT ROWID;
",
    r"
-- What a relay noted of its members' last visits, and what each said of itself last.
CREATE TABLE contact (member BLOB PRIMARY KEY, seen INTEGER NOT NULL, software TEXT NOT NULL,
    catalog INTEGER NOT NULL, members INTEGER NOT NULL, heard INTEGER, report BLOB) WITHOUT ROWID;
",
    r"
-- Who may use a relay's console, and what operators did there, which nothing alters.
CREATE TABLE operator (name TEXT PRIMARY KEY, role TEXT NOT NULL, password TEXT NOT NULL,
    time INTEGER NOT NULL, who TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE deed (number INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL,
    who TEXT NOT NULL, act TEXT NOT NULL, note TEXT NOT NULL);
CREATE TRIGGER deed_stays BEFORE UPDATE ON deed BEGIN
    SELECT RAISE(ABORT, 'what was done is not altered');
END;
CREATE TRIGGER deed_is_kept BEFORE DELETE ON deed BEGIN
    SELECT RAISE(ABORT, 'what was done is not removed');
END;
",
    r"
-- Segments that are of another generation than their type: through where they were carried over, and
-- what their documents come to. Their records are where `moved` says, or will be.
CREATE TABLE apart (sid INTEGER PRIMARY KEY, cut INTEGER NOT NULL, done INTEGER NOT NULL,
    records INTEGER NOT NULL, rows BLOB NOT NULL);
CREATE TABLE moved (sid INTEGER NOT NULL, id TEXT NOT NULL, target INTEGER NOT NULL,
    PRIMARY KEY (sid, id)) WITHOUT ROWID;
-- Segments that were taken out: a file has them.
CREATE TABLE archived (id BLOB PRIMARY KEY) WITHOUT ROWID;
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

/// Whether a file has the newest version.
pub(crate) fn is_newest(connection: &Connection) -> Result<bool> {
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(version as usize == MIGRATIONS.len())
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
