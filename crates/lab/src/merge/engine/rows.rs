//! The floor: a row for each cell in SQLite, and the writer with the highest (clock, actor) wins.
//!
//! Keeps no history, detects no conflict and merges no text.

use std::path::Path;

use fieldkeep_model::{Edit, RecordEdit, RecordId, Scalar};
use rusqlite::{Connection, params};
use serde_json::{Map, Value};

use super::Engine;
use super::json::children;
use crate::merge::bytes;

const SCHEMA: &str = "CREATE TABLE cell (
    record TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL,
    clock INTEGER NOT NULL, actor INTEGER NOT NULL,
    PRIMARY KEY (record, field)) WITHOUT ROWID";
const MERGE: &str = "INSERT INTO cell VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT DO UPDATE SET value = excluded.value, clock = excluded.clock, actor = excluded.actor
    WHERE (excluded.clock, excluded.actor) > (clock, actor)";
/// Between a set's name, a child's id and the child's field.
const WITHIN: char = '/';

/// The table.
pub(crate) struct Rows {
    database: Connection,
    actor: u64,
    clock: i64,
    /// Rows that were written since the last encoding.
    fresh: Vec<u8>,
}

impl Rows {
    /// An empty table in memory.
    pub(super) fn in_memory(actor: u64) -> Self {
        Self::of(Connection::open_in_memory().expect("memory"), actor)
    }

    /// A table in a file, which may be there already; every merge is durable when it returns.
    pub(crate) fn in_file(actor: u64, path: &Path) -> Self {
        let database = Connection::open(path).expect("the file opens");
        let journal = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
        database.query_row("PRAGMA journal_mode = WAL", [], journal).expect("SQLite takes it");
        database.execute_batch("PRAGMA synchronous = FULL").expect("SQLite takes it");
        Self::of(database, actor)
    }

    fn of(database: Connection, actor: u64) -> Self {
        let known = database.query_row("SELECT max(clock) FROM cell", [], |row| row.get(0));
        let clock: Option<i64> = known.unwrap_or_else(|_| {
            database.execute_batch(SCHEMA).expect("the table is new");
            None
        });
        Self { database, actor, clock: clock.unwrap_or(0), fresh: Vec::new() }
    }

    pub(super) fn load(actor: u64, saved: &[u8]) -> Self {
        let mut rows = Self::in_memory(actor);
        rows.take(&[saved]);
        rows
    }

    fn take(&mut self, messages: &[&[u8]]) {
        let tx = self.database.transaction().expect("nothing else is open");
        let mut merge = tx.prepare_cached(MERGE).expect("it parses");
        for message in messages {
            let mut items = bytes::items(message);
            while let Some(row) = Row::next(&mut items) {
                self.clock = self.clock.max(row.clock);
                let values = params![row.record, row.field, row.value, row.clock, row.actor];
                merge.execute(values).expect("the table takes it");
            }
        }
        drop(merge);
        tx.commit().expect("the disk takes it");
    }
}

/// One cell as it travels.
struct Row<'a> {
    record: &'a str,
    field: &'a str,
    value: &'a str,
    clock: i64,
    actor: i64,
}

impl<'a> Row<'a> {
    fn next(items: &mut impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let text = |item: &'a [u8]| std::str::from_utf8(item).expect("text");
        let number = |item: &[u8]| i64::from_be_bytes(item.try_into().expect("eight bytes"));
        Some(Self {
            record: text(items.next()?),
            field: text(items.next()?),
            value: text(items.next()?),
            clock: number(items.next()?),
            actor: number(items.next()?),
        })
    }

    fn put(&self, out: &mut Vec<u8>) {
        for text in [self.record, self.field, self.value] {
            bytes::put(out, text.as_bytes());
        }
        bytes::put(out, &self.clock.to_be_bytes());
        bytes::put(out, &self.actor.to_be_bytes());
    }
}

/// The cells that edits write.
fn cells(edits: &[Edit], prefix: &str, into: &mut Vec<(String, String)>) {
    for edit in edits {
        match edit {
            Edit::Put(field, value) => into.push((format!("{prefix}{field}"), scalar(value))),
            Edit::Child(field, child, edits) => {
                cells(edits, &format!("{field}{WITHIN}{child}{WITHIN}"), into);
            }
            Edit::Json(..)
            | Edit::Text(..)
            | Edit::Add(..)
            | Edit::Clear(_)
            | Edit::RemoveChild(..) => unreachable!("no workload for rows writes {edit:?}"),
        }
    }
}

fn scalar(value: &Scalar) -> String {
    match value {
        Scalar::Bool(value) => value.to_string(),
        Scalar::Int(number) => number.to_string(),
        Scalar::Float(number) => Value::from(*number).to_string(),
        Scalar::Str(text) => Value::from(text.as_str()).to_string(),
    }
}

/// The object at a key, put there if there is none.
fn below<'m>(map: &'m mut Map<String, Value>, key: &str) -> &'m mut Map<String, Value> {
    let entry = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    entry.as_object_mut().expect("sets and fields have different names")
}

impl Engine for Rows {
    fn write(&mut self, id: &RecordId, edit: &RecordEdit) {
        let mut written = Vec::new();
        cells(&edit.edits, "", &mut written);
        let mut message = Vec::new();
        for (field, value) in &written {
            let actor = i64::try_from(self.actor).expect("actors are few");
            let clock = self.clock + 1;
            Row { record: id.as_str(), field, value, clock, actor }.put(&mut message);
        }
        self.take(&[&message]);
        self.fresh.extend_from_slice(&message);
    }

    fn splice(&mut self, _: &RecordId, _: &str, _: usize, _: usize, _: &str) {
        unreachable!("rows merge no text: no plan asks for it")
    }

    fn encode(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.fresh)
    }

    fn apply(&mut self, messages: &[Vec<u8>]) {
        self.take(&messages.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }

    fn save(&mut self) -> Vec<u8> {
        let select = "SELECT record, field, value, clock, actor FROM cell";
        let mut select = self.database.prepare_cached(select).expect("it parses");
        let mut rows = select.query([]).expect("it reads");
        let mut saved = Vec::new();
        while let Some(row) = rows.next().expect("it reads") {
            let text = |nth: usize| row.get_ref(nth).expect("a column").as_str().expect("text");
            let number = |nth: usize| row.get(nth).expect("a number");
            let row = Row {
                record: text(0),
                field: text(1),
                value: text(2),
                clock: number(3),
                actor: number(4),
            };
            row.put(&mut saved);
        }
        saved
    }

    /// Only the clock: what is written does not depend on what is there.
    fn fork(&mut self, actor: u64) -> Box<dyn Engine> {
        Box::new(Self { clock: self.clock, ..Self::in_memory(actor) })
    }

    fn read(&self, id: &RecordId) -> Option<Value> {
        let select = "SELECT field, value FROM cell WHERE record = ?1";
        let mut select = self.database.prepare_cached(select).expect("it parses");
        let mut rows = select.query([id.as_str()]).expect("it reads");
        let (mut fields, mut sets) = (Map::new(), Map::new());
        while let Some(row) = rows.next().expect("it reads") {
            let field: String = row.get(0).expect("a name");
            let value: String = row.get(1).expect("a value");
            let value: Value = serde_json::from_str(&value).expect("JSON");
            let mut path = field.splitn(3, WITHIN);
            match (path.next(), path.next(), path.next()) {
                (Some(set), Some(child), Some(field)) => {
                    below(below(&mut sets, set), child).insert(field.to_owned(), value);
                }
                _ => {
                    fields.insert(field, value);
                }
            }
        }
        for (set, map) in sets {
            let Value::Object(map) = map else { continue };
            fields.insert(set, children(map));
        }
        (!fields.is_empty()).then_some(Value::Object(fields))
    }

    fn ids(&self) -> Vec<RecordId> {
        let select = "SELECT DISTINCT record FROM cell ORDER BY record";
        let mut select = self.database.prepare_cached(select).expect("it parses");
        let rows = select.query_map([], |row| row.get::<_, String>(0)).expect("it reads");
        rows.map(|id| RecordId::new(id.expect("a text")).expect("a record id")).collect()
    }
}
