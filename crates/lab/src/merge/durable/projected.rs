//! The other engines in files: what they merge in memory, a log of messages and a row for each
//! record.

use std::path::Path;

use fieldkeep_model::RecordId;
use rusqlite::{Connection, params};
use serde_json::Value;

use super::super::cell::Cell;
use super::super::engine::{Engine, Rows, canonical, content_hash, content_of};
use super::super::workload::HUB;
use super::{Delivery, Keeper};

const SCHEMA: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS state (bytes BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS message (nth INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS record (id TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;";
const FILE: &str = "replica.sqlite";
/// The largest part of a state in one row: SQLite takes no more than a billion bytes in one.
const PART: usize = 256 << 20;

/// An engine and its database.
pub(super) struct Projected {
    engine: Box<dyn Engine>,
    database: Connection,
}

impl Projected {
    /// A replica as it was left: the state that was saved, and the messages since.
    pub(super) fn open(cell: &Cell, folder: &Path) -> Self {
        let database = Connection::open(folder.join(FILE)).expect("the file opens");
        database.execute_batch(SCHEMA).expect("SQLite takes it");
        let blobs = |sql: &str| -> Vec<Vec<u8>> {
            let mut select = database.prepare(sql).expect("it parses");
            let rows = select.query_map([], |row| row.get(0)).expect("it reads");
            rows.map(|row| row.expect("it reads")).collect()
        };
        let state = blobs("SELECT bytes FROM state ORDER BY rowid").concat();
        let mut engine = if state.is_empty() {
            cell.engine.open(HUB + 1, cell.records)
        } else {
            cell.engine.load(HUB + 1, &state)
        };
        let messages = blobs("SELECT bytes FROM message ORDER BY nth");
        if !messages.is_empty() {
            engine.apply(&messages);
        }
        Self { engine, database }
    }

    /// Makes a replica's files from a saved state.
    pub(super) fn found(cell: &Cell, folder: &Path, state: &[u8]) {
        let mut made = Self::open(cell, folder);
        made.engine = cell.engine.load(HUB + 1, state);
        let ids = made.engine.ids();
        let tx = made.database.transaction().expect("nothing else is open");
        for part in state.chunks(PART) {
            tx.execute("INSERT INTO state VALUES (?1)", [part]).expect("the disk takes it");
        }
        project(&tx, made.engine.as_ref(), &ids);
        tx.commit().expect("the disk takes it");
    }
}

fn project(tx: &Connection, engine: &dyn Engine, ids: &[RecordId]) {
    let upsert = "INSERT INTO record VALUES (?1, ?2)
        ON CONFLICT DO UPDATE SET json = excluded.json";
    let mut upsert = tx.prepare_cached(upsert).expect("it parses");
    for id in ids {
        let record = engine.read(id).expect("it was written");
        upsert.execute(params![id.as_str(), canonical(&record)]).expect("the disk takes it");
    }
}

impl Keeper for Projected {
    fn receive(&mut self, delivery: &Delivery) {
        self.engine.apply(&delivery.messages);
        let tx = self.database.transaction().expect("nothing else is open");
        let insert = "INSERT INTO message (bytes) VALUES (?1)";
        let mut insert = tx.prepare_cached(insert).expect("it parses");
        for message in &delivery.messages {
            insert.execute([message]).expect("the disk takes it");
        }
        drop(insert);
        project(&tx, self.engine.as_ref(), &delivery.touched);
        tx.commit().expect("the disk takes it");
    }

    fn content(&self) -> String {
        let select = "SELECT id, json FROM record ORDER BY id";
        let mut select = self.database.prepare(select).expect("it parses");
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("it reads");
        let rows = rows.map(|row| {
            let (id, json): (String, String) = row.expect("it reads");
            let id = RecordId::new(id).expect("a record id");
            (id, serde_json::from_str::<Value>(&json).expect("JSON"))
        });
        let rows: Vec<_> = rows.collect();
        content_of(rows.iter().map(|(id, record)| (id, record.clone())))
    }
}

/// Rows in a file: the floor.
pub(super) struct Bare(Rows);

impl Bare {
    pub(super) fn open(folder: &Path) -> Self {
        Self(Rows::in_file(HUB + 1, &folder.join(FILE)))
    }
}

impl Keeper for Bare {
    fn receive(&mut self, delivery: &Delivery) {
        self.0.apply(&delivery.messages);
    }

    fn content(&self) -> String {
        content_hash(&self.0)
    }
}
