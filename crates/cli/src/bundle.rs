//! `bundle export` and `bundle import`: changes, verdicts, receipts and attached files by a file, where
//! there is no network at all.

use std::path::Path;
use std::process::ExitCode;

use crate::access::Access;
use crate::args::{Bundle, Directory, absolute};
use crate::output::{Output, safe};
use crate::request::Request;
use crate::response::{Bundled, Response, Unbundled};
use fieldkeep_console::{Code, Failure, Trouble};

pub(crate) fn run(
    command: Bundle,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    match command {
        Bundle::Export { file, to, since, without_attachments } => {
            let since = since.as_deref().map(absolute).transpose()?;
            let path = absolute(&file)?;
            let request = Request::ExportBundle { file: path, to, since, without_attachments };
            let Response::Bundled(bundled) = access.ask(request)? else {
                return Err(Failure::unexpected().into());
            };
            exported(&bundled, &file, output)
        }
        Bundle::Import { file } => {
            let request = Request::ImportBundle(absolute(&file)?);
            let Response::Unbundled(unbundled) = access.ask(request)? else {
                return Err(Failure::unexpected().into());
            };
            imported(&unbundled, output)
        }
    }
}

fn exported(bundled: &Bundled, file: &Path, output: &mut Output) -> Result<ExitCode, Trouble> {
    if output.is_json() {
        output.object("bundle-export", bundled)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Bundled { to, changes, files, file_bytes, unread_files, bytes, .. } = bundled;
    let mut told = count(*changes, "change");
    if *files > 0 {
        told.push_str(&format!(" and {} of {file_bytes} bytes", count(*files, "file")));
    }
    output.line(&format!("{told} for {} in {}, {bytes} bytes", safe(to), file.display()))?;
    if *unread_files > 0 {
        let unread = count(*unread_files, "file");
        output.line(&format!("{unread} could not be read: `fieldkeep doctor` tells which"))?;
    }
    output.line("it is not encrypted: whoever has the file can read what is in it")?;
    Ok(ExitCode::SUCCESS)
}

fn imported(unbundled: &Unbundled, output: &mut Output) -> Result<ExitCode, Trouble> {
    let whole = unbundled.refused == 0;
    let code = match (unbundled.unequal.is_empty(), whole) {
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(Code::Held.number()),
        (false, _) => ExitCode::from(Code::Integrity.number()),
    };
    if output.is_json() {
        output.object("bundle-import", unbundled)?;
        return Ok(code);
    }
    let Unbundled { from, changes, files, saved, saved_files, aside, .. } = unbundled;
    let Unbundled { proven, left_out, refused, .. } = unbundled;
    let mut told = format!("from {}: {}", safe(from), count(*changes, "new change"));
    if *files > 0 {
        told.push_str(&format!(", {}", count(*files, "new file")));
    }
    for (number, words) in [
        (saved, "saved by the relay"),
        (saved_files, "of the files on the relay"),
        (proven, "proven equal to the relay's"),
        (aside, "kept aside: not permitted"),
        (left_out, "left out: paused, or not subscribed to"),
    ] {
        if *number > 0 {
            told.push_str(&format!(", {number} {words}"));
        }
    }
    output.line(&told)?;
    for segment in &unbundled.unequal {
        output.line(&format!("  {}: the proof is not equal: fieldkeep doctor", safe(segment)))?;
    }
    for refusal in &unbundled.not_taken {
        let what = match (&refusal.file, &refusal.record) {
            (Some(file), Some(record)) => format!("file {:.8} of {record}", file),
            _ => refusal.segment.clone().unwrap_or_default(),
        };
        output.line(&format!("  {}: not taken: {}", safe(&what), safe(&refusal.text)))?;
    }
    if !whole {
        let gap = unbundled.not_taken.iter().any(|refusal| refusal.code == "missing-deps");
        let remedy = if gap {
            "it builds on changes that are not here: import the bundle before it, or ask for one \
             that is exported without --since"
        } else {
            "nothing that is here was lost; ask whoever wrote the bundle for its `fieldkeep doctor`"
        };
        let refused = count(*refused, "part");
        output.line(&format!("{refused} not taken, everything else was: {remedy}"))?;
    }
    Ok(code)
}

pub(crate) fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
