//! `relay quarantine accept`: what a revoked device had captured is not lost. An operator takes it from a
//! bundle of the device, or from what lies aside, sees beforehand what would become of it, and it goes on
//! as the relay's own.

use fieldkeep_console::{Failure, Trouble};

use crate::access::Access;
use crate::attention;
use crate::bundle::count;
use crate::output::{Output, safe};
use crate::request::{Accept, Captured, Request};
use crate::response::{Accepted, Response};

pub(super) fn run(
    access: &mut Access,
    captured: Captured,
    how: Accept,
    output: &mut Output,
) -> Result<(), Trouble> {
    let asked = Request::Accept { captured, who: super::operator(), how };
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
    let from = safe(from);
    let done = match (how, *written) {
        _ if *aside == 0 => "nothing of it lies aside".to_owned(),
        (Accept::Try, _) => {
            format!("of which {written} would be written again by the relay, in its name")
        }
        (Accept::KeepAside, _) => "kept aside: `relay quarantine list` shows them".to_owned(),
        (Accept::Write, 1) => "of which 1 was written again by the relay, in its name".to_owned(),
        (Accept::Write, _) => {
            format!("of which {written} were written again by the relay, in its name")
        }
    };
    let lay = if *aside == 0 { String::new() } else { format!("{}, ", count(*aside, "change")) };
    output.line(&format!("{from} (device {number}), revoked: {lay}{done}"))?;
    if !matches!(how, Accept::KeepAside) && written < aside {
        let rest = count(aside - written, "change");
        output.line(&format!("{rest}: built on what is not here, and kept aside until it is"))?;
    }
    for (others, what, how) in [
        (*known, "change", "more lay here, or were accepted before"),
        (*carried, "change", "of others came with them"),
        (*files, "attached file", "came with them"),
    ] {
        if others > 0 {
            output.line(&format!("{} {how}", count(others, what)))?;
        }
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
