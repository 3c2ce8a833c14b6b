//! `status`: the connection, and what is here of each type.

use std::process::ExitCode;

use crate::access::Access;
use crate::args::Directory;
use crate::output::{self, Align, Output, Table, safe};
use crate::request::Request;
use crate::response::Response;
use fieldkeep_console::shape::Status;
use fieldkeep_console::{Failure, Trouble};

pub(crate) fn run(dir: &Directory, output: &mut Output) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let Response::Status(status) = access.ask(Request::Status)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        output.object("status", &status)?;
    } else {
        print(output, &status)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(output: &mut Output, status: &Status) -> Result<(), Trouble> {
    let (name, organisation) = (safe(&status.name), safe(&status.organisation));
    output.line(&format!("{name}, {} of {organisation}", status.role))?;
    output.line(&output::strip(status))?;
    if status.types.is_empty() {
        output.line("no catalog here yet: it comes from the relay with `fieldkeep sync`")?;
        return Ok(());
    }
    let right = Align::Right;
    let mut table = Table::new(&[
        ("TYPE", Align::Left),
        ("STATUS", Align::Left),
        ("LOCAL", right),
        ("SERVER", right),
        ("SERVER (ALL)", right),
        ("UNSAVED", right),
        ("CARRIED", right),
        ("HELD", right),
        ("PROVEN", Align::Left),
    ]);
    for row in &status.types {
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        table.row(vec![
            row.ty.to_string(),
            row.status.as_deref().map_or("-", words).to_owned(),
            row.local.to_string(),
            number(row.server),
            number(row.server_all),
            row.unsaved.to_string(),
            row.carried.to_string(),
            row.held.to_string(),
            row.proven_at.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table.print(output.writer())?;
    Ok(())
}

/// The words for a status.
fn words(status: &str) -> &str {
    match status {
        "fully_synced" => "Fully synced",
        "subset_synced" => "Subset synced",
        "syncing" => "Syncing",
        "paused" => "Paused",
        "incomplete" => "Incomplete",
        other => other,
    }
}
