//! `relay gc`: the attached files that nothing refers to.

use std::path::Path;

use crate::access::Access;
use crate::output::{Output, several};
use crate::request::Request;
use crate::response::{Collected, Pile, Response};
use fieldkeep_console::{Failure, Trouble};

pub(super) fn run(directory: &Path, dry_run: bool, output: &mut Output) -> Result<(), Trouble> {
    let mut access = Access::new(directory)?;
    let Response::Collected(collected) = access.ask(Request::Collect(dry_run))? else {
        return Err(Failure::unexpected().into());
    };
    if output.is_json() {
        return Ok(output.object("relay-gc", &*collected)?);
    }
    lines(&collected).iter().try_for_each(|line| output.line(line))?;
    Ok(())
}

fn lines(collected: &Collected) -> Vec<String> {
    let Collected { dry_run, after_seconds, waits, since, now, later, next, files } = collected;
    let mut lines = vec![match after_seconds {
        Some(seconds) => {
            format!("what nothing refers to goes {} after that was first seen", time(*seconds))
        }
        None => "collection is not turned on: nothing goes".to_owned(),
    }];
    let Some(since) = since else {
        lines.push("something refers to every file".to_owned());
        return lines;
    };
    lines.extend(waits.as_ref().map(|waits| format!("nothing goes at present: {waits}")));
    let all = Pile { files: now.files + later.files, bytes: now.bytes + later.bytes };
    lines.push(format!("nothing refers to {}: first seen {since}", pile(all)));
    if after_seconds.is_some() {
        let went = if *dry_run { "would go now" } else { "removed" };
        lines.push(format!("{went}: {}", pile(*now)));
    }
    if let Some(next) = next {
        lines.push(format!("later: {}, the next {next}", pile(*later)));
    }
    for file in files {
        let goes = file.goes.as_ref().map(|goes| format!(", goes {goes}")).unwrap_or_default();
        let (hash, size, since) = (&file.hash, file.size, &file.since);
        lines.push(format!("  {hash}  {size} bytes  since {since}{goes}"));
    }
    lines
}

fn pile(pile: Pile) -> String {
    format!("{}, {}", several(pile.files, "file"), several(pile.bytes, "byte"))
}

/// A grace time as it is written.
fn time(seconds: u64) -> String {
    let hours = seconds / 3_600;
    if hours.is_multiple_of(24) { format!("{}d", hours / 24) } else { format!("{hours}h") }
}
