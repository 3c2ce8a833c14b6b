//! Full-text search over the records of a device: an index of words that is brought up to date when it
//! is asked. What changes a record only notes that; relays keep none of it.

use fieldkeep_model::{RecordId, RecordKey, TypeName};
use rusqlite::params;
use serde_json::Value;

use crate::error::damaged;
use crate::{Queries, Reader, Result, Store};

/// Records that are compared by how well they fit: a word that a third of all records have is no reason
/// to weigh them all.
const RANKED: i64 = 2_000;

/// The index, and what keeps note of what it lacks. The words are not kept a second time.
const TABLES: &str = "
CREATE VIRTUAL TABLE word USING fts5(text, content='', contentless_delete=1,
    tokenize='unicode61 remove_diacritics 2');
CREATE TABLE unindexed (rid INTEGER PRIMARY KEY);
INSERT INTO unindexed SELECT rid FROM record;
CREATE TRIGGER record_worded AFTER INSERT ON record BEGIN
    INSERT OR IGNORE INTO unindexed VALUES (NEW.rid);
END;
CREATE TRIGGER record_reworded AFTER UPDATE OF json, deleted ON record
WHEN OLD.json != NEW.json OR OLD.deleted != NEW.deleted BEGIN
    INSERT OR IGNORE INTO unindexed VALUES (NEW.rid);
END;
CREATE TRIGGER record_unworded AFTER DELETE ON record BEGIN
    INSERT OR IGNORE INTO unindexed VALUES (OLD.rid);
END;
";

impl Store {
    /// Makes the index, if there is none. It is filled by [`Store::index_words`].
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn make_searchable(&mut self) -> Result<()> {
        let there = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'word')";
        if self.connection.query_row(there, [], |row| row.get::<_, bool>(0))? {
            return Ok(());
        }
        Ok(self.write()?.execute_batch(TABLES)?)
    }

    /// Empties the index: it is filled afresh.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn rebuild_words(&mut self) -> Result<()> {
        let afresh = "INSERT INTO word (word) VALUES ('delete-all');
             INSERT OR IGNORE INTO unindexed SELECT rid FROM record;";
        Ok(self.write()?.execute_batch(afresh)?)
    }

    /// Brings the index up to date for at most so many records. Returns whether more are left.
    ///
    /// # Errors
    /// When the disk refuses, or a row is damaged.
    pub fn index_words(&mut self, limit: usize) -> Result<bool> {
        let pending: Vec<i64> = {
            let sql = "SELECT rid FROM unindexed ORDER BY rid LIMIT ?";
            let mut query = self.connection.prepare_cached(sql)?;
            let rows = query.query_map([limit as i64], |row| row.get(0))?;
            rows.collect::<rusqlite::Result<_>>()?
        };
        let Some(last) = pending.last().copied() else { return Ok(false) };
        let connection = self.write()?;
        let mut forget = connection.prepare_cached("DELETE FROM word WHERE rowid = ?")?;
        let mut read = connection
            .prepare_cached("SELECT id, json FROM record WHERE rid = ? AND deleted = 0")?;
        let mut index =
            connection.prepare_cached("INSERT INTO word (rowid, text) VALUES (?, ?)")?;
        for rid in &pending {
            forget.execute([rid])?;
            let mut rows = read.query([rid])?;
            let Some(row) = rows.next()? else { continue };
            let mut text: String = row.get(0)?;
            let json: Value = serde_json::from_str(row.get_ref(1)?.as_str().map_err(unread)?)
                .map_err(|_| damaged("a record"))?;
            words(&json, &mut text);
            index.execute(params![rid, text])?;
        }
        connection.prepare_cached("DELETE FROM unindexed WHERE rid <= ?")?.execute([last])?;
        Ok(pending.len() == limit)
    }
}

fn unread(_: rusqlite::types::FromSqlError) -> crate::StoreError {
    damaged("a record")
}

/// Every value within a value, as text.
fn words(value: &Value, text: &mut String) {
    match value {
        Value::String(value) => {
            text.push(' ');
            text.push_str(value);
        }
        Value::Number(number) => {
            text.push(' ');
            text.push_str(&number.to_string());
        }
        Value::Array(values) => values.iter().for_each(|value| words(value, text)),
        Value::Object(values) => values.values().for_each(|value| words(value, text)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Searching.
pub trait Search: Queries {
    /// The records that have all words of a text, the last of them as a beginning, best first among the
    /// newest 2,000 that have them; at most so many, of one type or of all.
    ///
    /// # Errors
    /// When the disk fails or a row is damaged.
    fn search(&self, text: &str, ty: Option<&TypeName>, limit: usize) -> Result<Vec<RecordKey>> {
        let words: Vec<String> = text
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(|word| format!("\"{word}\""))
            .collect();
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = format!("{}*", words.join(" "));
        // CROSS keeps the order of the join: the words come first, newest records before older ones.
        let mut query = self.connection().prepare_cached(
            "SELECT ty, id FROM (
                 SELECT s.ty, r.id, w.rank AS rank FROM word w
                 CROSS JOIN record r ON r.rid = w.rowid CROSS JOIN segment s ON s.sid = r.sid
                 WHERE w.text MATCH ?1 AND (?2 IS NULL OR s.ty = ?2) AND r.deleted = 0
                 ORDER BY w.rowid DESC LIMIT ?4)
             ORDER BY rank LIMIT ?3",
        )?;
        let params = params![wanted, ty.map(TypeName::as_str), limit as i64, RANKED];
        let rows = query
            .query_map(params, |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        rows.map(|row| {
            let (ty, id) = row?;
            let ty = TypeName::new(ty).map_err(|_| damaged("a type name"))?;
            Ok(RecordKey::new(ty, RecordId::new(id).map_err(|_| damaged("a record id"))?))
        })
        .collect()
    }
}

impl Search for Store {}
impl Search for Reader {}
