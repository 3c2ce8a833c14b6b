//! `join`: a ticket makes a directory a device.

use std::process::ExitCode;

use fieldkeep_model::Ticket;
use serde::Serialize;

use crate::args::{Directory, Join};
use crate::output::{Output, safe};
use fieldkeep_console::{Code, Failure, Trouble};

#[derive(Serialize)]
struct Shape<'j> {
    name: &'j str,
    dir: &'j str,
}

pub(crate) fn run(args: &Join, dir: &Directory, output: &mut Output) -> Result<ExitCode, Trouble> {
    let directory = dir.path()?;
    let ticket = read_ticket(&args.ticket)?;
    let joining = fieldkeep_device::join(&ticket, &directory);
    let name = crate::sync::until_interrupted(joining)?.map_err(Failure::from)?;
    let shown = directory.display().to_string();
    if output.is_json() {
        output.object("join", &Shape { name: &name, dir: &shown })?;
    } else {
        output.line(&format!("joined as {} in {shown}", safe(&name)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read_ticket(text: &str) -> Result<Ticket, Failure> {
    let mut line = String::new();
    if text == "-" {
        let read = std::io::stdin().read_line(&mut line);
        read.map_err(|error| {
            Failure::new(
                Code::Failure,
                format!("standard input: {error}"),
                "type the ticket instead",
            )
        })?;
    } else {
        text.clone_into(&mut line);
    }
    line.parse().map_err(|error: fieldkeep_model::ticket::TicketError| {
        Failure::new(Code::Usage, error.to_string(), "ask for another: `fieldkeep relay invite`")
    })
}
