//! `relay quarantine accept`: what a revoked device had captured is not lost. An operator takes it from a
//! bundle of the device, sees beforehand what would become of it, and it goes on as the relay's own.

use std::path::Path;

use fieldkeep_console::{Failure, Trouble};

use crate::access::Access;
use crate::args::absolute;
use crate::attention;
use crate::output::{Output, safe};
use crate::request::{Accept, Accepted, Request, Response};

pub(super) fn run(
    access: &mut Access,
    file: &Path,
    how: Accept,
    who: String,
    output: &mut Output,
) -> Result<(), Trouble> {
    let asked = Request::Accept { file: absolute(file)?, who, how };
    let Response::Accepted(accepted) = access.ask(asked)? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        return Ok(output.object("quarantine-accept", &accepted)?);
    }
    tell(&accepted, how, output)
}

fn tell(accepted: &Accepted, how: Accept, output: &mut Output) -> Result<(), Trouble> {
    let Accepted { from, number, known, aside, written, carried, files, .. } = accepted;
    let done = match how {
        Accept::Try => format!("{written} would be written again by the relay, in its name"),
        Accept::KeepAside => "kept aside: `relay quarantine list` shows them".to_owned(),
        Accept::Write => format!("{written} written again by the relay, in its name"),
    };
    output.line(&format!("{} (device {number}), revoked: {aside} changes, {done}", safe(from)))?;
    if *known > 0 {
        output.line(&format!("{known} more were here, or were accepted before"))?;
    }
    if *carried > 0 {
        output.line(&format!("{carried} changes of others came with them"))?;
    }
    if *files > 0 {
        output.line(&format!("{files} attached files came with them"))?;
    }
    for record in &accepted.records {
        attention::print(output, record)?;
    }
    for key in &accepted.absent {
        output.line(&format!("{}: there is no such record: kept aside", safe(key)))?;
    }
    for untaken in &accepted.not_taken {
        let what = untaken.segment.as_deref().or(untaken.record.as_deref()).unwrap_or_default();
        output.line(&format!("not taken: {}: {}", safe(what), safe(&untaken.text)))?;
    }
    if matches!(how, Accept::Try) {
        output.line("nothing was changed")?;
    }
    Ok(())
}
