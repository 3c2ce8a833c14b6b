//! Points at which a process dies on purpose, in builds with the feature `failpoints` only: before each
//! statement that SQLite runs, and before each operation on a file. `FIELDKEEP_DIES_AT` says at which.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use rusqlite::trace::{TraceEvent, TraceEventCodes};

static PASSED: AtomicU64 = AtomicU64::new(0);
static DIES_AT: OnceLock<Option<u64>> = OnceLock::new();

/// A point. The process goes on, unless it is to die here.
pub(crate) fn pass() {
    let dies_at = DIES_AT.get_or_init(|| std::env::var("FIELDKEEP_DIES_AT").ok()?.parse().ok());
    if *dies_at == Some(PASSED.fetch_add(1, Ordering::Relaxed) + 1) {
        std::process::abort();
    }
}

/// Makes every statement of a connection a point.
pub(crate) fn watched(mut connection: Connection) -> Connection {
    fn pass_by(_: TraceEvent<'_>) {
        pass();
    }
    let traced = connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(pass_by));
    traced.expect("SQLite tells of every statement");
    connection
}
