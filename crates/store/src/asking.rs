//! Questions in SQL, over one view for each type, and nothing else.
//!
//! A view has a record's `id`, its fields as they last passed, and `held`: whether it does not pass as
//! merged. An authorizer lets a statement read those views and call plain functions; what may be read,
//! and how long it may take, is bounded.

use std::collections::BTreeSet;

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{ToSqlOutput, Value as SqlValue, ValueRef};
use rusqlite::{Connection, ErrorCode, Statement};
use serde_json::Value;

use crate::{Reader, Result, Store, StoreError};

/// Rows that an answer has at most.
pub const ROWS: usize = 1_000;
/// Bytes of values that an answer has at most.
const BYTES: usize = 1024 * 1024;
/// Steps of SQLite's virtual machine that a question may take.
const STEPS: u32 = 10_000_000;
/// After so many steps they are counted.
const COUNTED: u32 = 1_000;
/// The longest value within a question, in bytes.
const VALUE: i32 = 2 * 1024 * 1024;

/// Functions that a question may call: they depend on their arguments alone.
const FUNCTIONS: &[&str] = &[
    "->",
    "->>",
    "abs",
    "avg",
    "ceil",
    "ceiling",
    "coalesce",
    "count",
    "cume_dist",
    "dense_rank",
    "date",
    "datetime",
    "first_value",
    "floor",
    "glob",
    "group_concat",
    "ifnull",
    "iif",
    "instr",
    "json_array_length",
    "json_extract",
    "json_type",
    "julianday",
    "lag",
    "last_value",
    "lead",
    "length",
    "like",
    "lower",
    "ltrim",
    "max",
    "min",
    "nth_value",
    "ntile",
    "nullif",
    "percent_rank",
    "rank",
    "replace",
    "round",
    "row_number",
    "rtrim",
    "sign",
    "strftime",
    "string_agg",
    "substr",
    "substring",
    "sum",
    "time",
    "total",
    "trim",
    "typeof",
    "unixepoch",
    "upper",
];

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The SQL.
    pub sql: String,
    /// The values of its parameters, by name.
    pub params: Vec<(String, Value)>,
    /// The types and their fields.
    pub views: Vec<(String, Vec<String>)>,
    /// The segments that it sees, by their numbers in this store; all if none are given.
    pub segments: Option<Vec<i64>>,
}

/// What a question came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Value>>,
    /// Whether these are all.
    pub whole: bool,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It does more than reading the views, or is no SQL.
    #[error("{0}")]
    Refused(String),
    /// It takes longer than a question may.
    #[error("it takes more than {STEPS} steps of the database, or a value in it is too large")]
    Bounds,
    /// The disk fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for AskError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted | ErrorCode::TooBig) => Self::Bounds,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::SystemIoFailure | ErrorCode::DiskFull) => {
                Self::Store(error.into())
            }
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl Store {
    /// A reader in place of a store: for one in memory, which nobody else can open.
    #[must_use]
    pub fn into_reader(self) -> Reader {
        Reader { connection: self.connection }
    }
}

impl Reader {
    /// Answers a question. The reader is of no other use afterwards, and so it is taken.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ask(mut self, question: &Question) -> std::result::Result<Rows, AskError> {
        confine(&mut self.connection, question)?;
        let mut statement = prepare(&self.connection, question)?;
        for (name, value) in &question.params {
            if let Some(index) = statement.parameter_index(&format!(":{name}"))? {
                statement.raw_bind_parameter(index, bound(value))?;
            }
        }
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut answer = Rows { columns, rows: Vec::new(), whole: true };
        let (width, mut bytes) = (answer.columns.len(), 0);
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let values: Vec<Value> =
                (0..width).map(|at| Ok(json(row.get_ref(at)?))).collect::<rusqlite::Result<_>>()?;
            bytes +=
                values.iter().map(|value| value.as_str().map_or(8, str::len) + 8).sum::<usize>();
            if answer.rows.len() == ROWS || bytes > BYTES {
                answer.whole = false;
                break;
            }
            answer.rows.push(values);
        }
        Ok(answer)
    }

    /// Whether a question could be asked of such a store: whether it is SQL that reads the views, and
    /// names no parameter but those that it is given.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn check(mut self, question: &Question) -> std::result::Result<(), AskError> {
        confine(&mut self.connection, question)?;
        let statement = prepare(&self.connection, question)?;
        for index in 1..=statement.parameter_count() {
            let name = statement.parameter_name(index).unwrap_or("?");
            let bare = name.strip_prefix(':');
            if !question.params.iter().any(|(known, _)| Some(known.as_str()) == bare) {
                return Err(AskError::Refused(format!("the parameter `{name}` is not declared")));
            }
        }
        Ok(())
    }
}

fn prepare<'c>(
    connection: &'c Connection,
    question: &Question,
) -> std::result::Result<Statement<'c>, AskError> {
    let statement = connection.prepare(&question.sql)?;
    let reads = statement.readonly() && statement.column_count() > 0;
    if reads { Ok(statement) } else { Err(AskError::Refused("it answers nothing".to_owned())) }
}

/// Makes the views, and lets nothing but them be read from then on.
fn confine(connection: &mut Connection, question: &Question) -> Result<()> {
    // What is sorted goes to the disk beyond the cache, not into memory.
    connection.execute_batch("PRAGMA temp_store = FILE; PRAGMA cache_size = -8000")?;
    let seen = match &question.segments {
        None => String::new(),
        Some(segments) => {
            let list: Vec<String> = segments.iter().map(i64::to_string).collect();
            format!(" AND r.sid IN ({})", list.join(","))
        }
    };
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    for (ty, fields) in &question.views {
        let columns = fields.iter().map(|field| {
            format!(
                ", json_extract(CASE WHEN r.state = 0 THEN r.json ELSE r.valid END, '$.{field}') AS {}",
                quoted(field)
            )
        });
        let columns: String = columns.collect();
        let of = ty.replace('\'', "''");
        connection.execute_batch(&format!(
            "CREATE TEMP VIEW {} AS SELECT r.id AS id{columns}, r.state != 0 AS held
             FROM main.record r JOIN main.segment s ON s.sid = r.sid
             WHERE s.ty = '{of}' AND r.deleted = 0{seen}",
            quoted(ty)
        ))?;
    }
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    let mut left = STEPS / COUNTED;
    connection.progress_handler(
        COUNTED as i32,
        Some(move || {
            left = left.saturating_sub(1);
            left == 0
        }),
    )?;
    let views: BTreeSet<String> = question.views.iter().map(|(ty, _)| ty.clone()).collect();
    connection.authorizer(Some(move |context: AuthContext<'_>| permit(&views, &context)))?;
    Ok(())
}

/// What a statement may do.
fn permit(views: &BTreeSet<String>, context: &AuthContext<'_>) -> Authorization {
    let within = context.accessor.is_some_and(|view| views.contains(view));
    let of_view = |table: &str| views.contains(table) && context.database_name == Some("temp");
    // Whatever is not named here is refused, also what later versions add.
    #[expect(clippy::wildcard_enum_match_arm)]
    let may = match context.action {
        AuthAction::Select => true,
        // A subquery is read under its own name, which is no table of a database.
        AuthAction::Read { table_name, .. } => {
            within || of_view(table_name) || context.database_name.is_none()
        }
        AuthAction::Function { function_name } => within || FUNCTIONS.contains(&function_name),
        _ => false,
    };
    if may { Authorization::Allow } else { Authorization::Deny }
}

fn bound(value: &Value) -> ToSqlOutput<'_> {
    match value {
        Value::Null => ToSqlOutput::Owned(SqlValue::Null),
        Value::Bool(flag) => ToSqlOutput::Owned(SqlValue::Integer(i64::from(*flag))),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => ToSqlOutput::Owned(SqlValue::Integer(int)),
            (None, Some(float)) => ToSqlOutput::Owned(SqlValue::Real(float)),
            (None, None) => ToSqlOutput::Owned(SqlValue::Text(number.to_string())),
        },
        Value::String(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        Value::Array(_) | Value::Object(_) => ToSqlOutput::Owned(SqlValue::Text(value.to_string())),
    }
}

fn json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(int) => int.into(),
        ValueRef::Real(float) => float.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        ValueRef::Blob(blob) => String::from_utf8_lossy(blob).into_owned().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(sql: &str) -> Question {
        let views = ["order", "setting"].map(|ty| (ty.to_owned(), vec!["total".to_owned()]));
        let params = vec![("least".to_owned(), Value::from(2))];
        Question { sql: sql.to_owned(), params, views: views.into(), segments: None }
    }

    fn ask(sql: &str) -> std::result::Result<Rows, AskError> {
        let mut store = Store::in_memory().expect("a store");
        store.set("secret", b"key").expect("it is set");
        store.commit().expect("it is kept");
        store.into_reader().ask(&question(sql))
    }

    #[test]
    fn a_question_reads_the_views_and_calls_plain_functions() {
        let answer = ask("WITH big AS (SELECT total FROM \"order\" WHERE total > :least)
            SELECT count(*) AS n, coalesce(sum(total), 0) AS sum FROM big");
        let answer = answer.expect("it may");
        assert_eq!(answer.columns, ["n", "sum"]);
        assert_eq!(answer.rows, [[Value::from(0), Value::from(0)]]);
        // A type has the name of a table of the store: its view is what is read.
        assert_eq!(ask("SELECT * FROM setting").expect("it may").rows.len(), 0);
    }

    #[test]
    fn nothing_else_is_read_or_done() {
        for sql in [
            "SELECT value FROM main.setting",
            "SELECT json FROM record",
            "SELECT * FROM main.\"order\"",
            "SELECT * FROM sqlite_master",
            "SELECT * FROM temp.sqlite_master",
            "DELETE FROM main.record",
            "UPDATE main.setting SET value = 1",
            "INSERT INTO main.setting VALUES ('a', 'b')",
            "CREATE TABLE t (a)",
            "CREATE TEMP VIEW v AS SELECT value FROM main.setting",
            "DROP TABLE main.record",
            "ATTACH 'other.db' AS other",
            "DETACH main",
            "PRAGMA user_version",
            "PRAGMA writable_schema = 1",
            "VACUUM INTO 'copy.db'",
            "BEGIN",
            "SELECT load_extension('x')",
            "SELECT randomblob(1000000)",
            "SELECT zeroblob(2000000000)",
            "SELECT writefile('x', 'y')",
            "SELECT * FROM json_each('[1]')",
            "SELECT * FROM pragma_table_info('record')",
            "SELECT 1; DELETE FROM main.record",
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
            "not sql at all",
            "",
        ] {
            let refused = ask(sql);
            assert!(matches!(refused, Err(AskError::Refused(_))), "{sql}: {refused:?}");
        }
    }

    #[test]
    fn a_question_that_takes_too_long_ends() {
        let ten = "(SELECT 0 UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL \
                   SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7)";
        let many = [ten; 10].join(", ");
        let endless = ask(&format!("SELECT count(*) FROM {many}"));
        assert!(matches!(endless, Err(AskError::Bounds)), "{endless:?}");
        let rows = ask(&format!("SELECT 1 FROM {}", [ten; 5].join(", "))).expect("it may");
        assert_eq!((rows.rows.len(), rows.whole), (ROWS, false));
    }
}
