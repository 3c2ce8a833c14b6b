//! What an import would not take: every row, with its line and why.

use std::process::ExitCode;

use serde::Serialize;

use super::rows::Bad;
use super::rows_of;
use crate::args::Import;
use crate::output::{Output, safe};
use fieldkeep_console::Trouble;

/// Rows that are listed for people; programs get all of them.
const LISTED: usize = 50;

#[derive(Serialize)]
struct Shape<'i> {
    #[serde(rename = "type")]
    ty: &'i str,
    rows: u64,
    good: u64,
    bad: &'i [Bad],
}

/// Tells them. The exit code is that of the first.
pub(super) fn print(
    output: &mut Output,
    args: &Import,
    rows: u64,
    bad: &[Bad],
) -> Result<ExitCode, Trouble> {
    let mut lines: Vec<u64> = bad.iter().map(|bad| bad.line).collect();
    lines.dedup();
    let wrong = lines.len() as u64;
    let good = rows.saturating_sub(wrong);
    let code = bad.first().map_or(ExitCode::SUCCESS, |bad: &Bad| ExitCode::from(bad.code.number()));
    if output.is_json() {
        output.object("import-dry-run", &Shape { ty: &args.target, rows, good, bad })?;
        return Ok(code);
    }
    for Bad { line, reason, .. } in bad.iter().take(LISTED) {
        output.line(&format!("line {line}: {}", safe(reason)))?;
    }
    if bad.len() > LISTED {
        output.line(&format!("and {} more: --json tells all", bad.len() - LISTED))?;
    }
    let told = if wrong == 0 {
        format!("{} of {} can be imported", rows_of(rows), args.target)
    } else {
        format!("{wrong} of {} of {} cannot be imported", rows_of(rows), args.target)
    };
    output.line(&format!("{told}; nothing was written"))?;
    Ok(code)
}
