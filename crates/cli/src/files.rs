//! `attach` and `attachments`: files of records.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fieldkeep_model::RecordKey;
use serde_json::json;

use crate::access::Access;
use crate::args::{Attach, Attachments, Directory};
use crate::output::{Output, safe, several};
use crate::request::{Name, Request};
use crate::response::Response;
use fieldkeep_console::shape::Attachment;
use fieldkeep_console::{Failure, Trouble};

/// How long a file that is shared is waited for, in milliseconds.
const FETCHED_WITHIN_MS: u64 = 600_000;

pub(crate) fn attach(
    args: Attach,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let Attach { record, field, file, name, media } = args;
    // Whoever owns the directory may work elsewhere.
    let path = std::path::absolute(&file).map_err(|error| Failure::file(&file, &error))?;
    let record = (record.ty, record.id);
    let (files, _) = ask(Request::Attach { record, field, path, name, media }, dir)?;
    if output.is_json() {
        output.object("attach", &files.first())?;
    } else {
        files.iter().try_for_each(|file| output.line(&file.hash))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn run(
    command: Attachments,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    match command {
        Attachments::List { record } => {
            let record = record.map(|key| (key.ty, key.id));
            let (files, paused) = ask(Request::Attachments(record), dir)?;
            list(&files, paused, output)?;
        }
        Attachments::Get { record, file, out, timeout } => {
            get(&record, file, out.as_deref(), timeout, dir, output)?;
        }
        Attachments::Retry => {
            let mut access = Access::new(&dir.path()?)?;
            let Response::Taken(count) = access.ask(Request::RetryFiles)? else {
                return Err(Failure::unexpected().into());
            };
            if output.is_json() {
                output.object("retry", &json!({ "retried": count }))?;
            } else {
                output.line(&format!("{} will be tried again", several(count, "file")))?;
            }
        }
        Attachments::Pause => pause(true, dir, output)?,
        Attachments::Resume => pause(false, dir, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(request: Request, dir: &Directory) -> Result<(Vec<Attachment>, bool), Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let Response::Attachments(files, paused) = access.ask(request)? else {
        return Err(Failure::unexpected().into());
    };
    Ok((files, paused))
}

fn pause(paused: bool, dir: &Directory, output: &mut Output) -> Result<(), Trouble> {
    let (files, paused) = ask(Request::PauseFiles(paused), dir)?;
    if output.is_json() {
        let waiting = files.len();
        output.object("attachments", &json!({ "paused": paused, "waiting": waiting }))?;
    } else if paused {
        output
            .line("files are paused: records go on, and so do files after `attachments resume`")?;
    } else {
        output.line("files are exchanged")?;
    }
    Ok(())
}

fn list(files: &[Attachment], paused: bool, output: &mut Output) -> Result<(), Trouble> {
    if output.is_json() {
        return Ok(output.object("attachments", &json!({ "records": files, "paused": paused }))?);
    }
    if files.is_empty() {
        output.line("no files")?;
    }
    for file in files {
        output.line(&format!(
            "{}  {}  {}  {} bytes  {}  {}",
            safe(&file.record),
            safe(&file.name),
            safe(&file.media),
            file.size,
            &file.hash[..8],
            safe(&file.standing())
        ))?;
    }
    if paused {
        output.line("files are paused: `fieldkeep attachments resume` goes on")?;
    }
    Ok(())
}

/// Writes the files of a record into a folder, under their names; those that are not here are fetched.
pub(crate) fn write_beside(access: &mut Access, record: &Name, into: &Path) -> Result<(), Trouble> {
    let asked = access.ask(Request::Attachments(Some(record.clone())))?;
    let Response::Attachments(files, _) = asked else { return Err(Failure::unexpected().into()) };
    std::fs::create_dir_all(into).map_err(|error| Failure::file(into, &error))?;
    let mut taken = BTreeSet::new();
    for file in files {
        if file.removed.is_some() {
            crate::note(&format!("{}: {}", safe(&file.name), file.standing()));
            continue;
        }
        let fetch = Request::Fetch(record.clone(), file.hash.clone(), FETCHED_WITHIN_MS);
        let Response::Fetched(here) = access.ask(fetch)? else {
            return Err(Failure::unexpected().into());
        };
        let path = into.join(plain_name(&file, &mut taken));
        std::fs::copy(&here, &path).map_err(|error| Failure::file(&path, &error))?;
    }
    Ok(())
}

/// A name that is a file's in one folder and nothing else: somebody else chose it.
fn plain_name(file: &Attachment, taken: &mut BTreeSet<String>) -> String {
    let kept = |c: char| !c.is_control() && !"/\\:*?\"<>|".contains(c);
    let name: String = file.name.chars().filter(|c| kept(*c)).collect();
    let name = name.trim_start_matches('.').trim().to_owned();
    let short = &file.hash[..8];
    let name = if name.is_empty() { short.to_owned() } else { name };
    if taken.insert(name.to_lowercase()) {
        return name;
    }
    let other = format!("{short}-{name}");
    taken.insert(other.to_lowercase());
    other
}

fn get(
    record: &RecordKey,
    file: String,
    out: Option<&Path>,
    timeout: std::time::Duration,
    dir: &Directory,
    output: &mut Output,
) -> Result<(), Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let name = (record.ty.clone(), record.id.clone());
    let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let Response::Fetched(here) = access.ask(Request::Fetch(name, file, millis))? else {
        return Err(Failure::unexpected().into());
    };
    let path: PathBuf = match out {
        Some(out) => {
            std::fs::copy(&here, out).map_err(|error| Failure::file(out, &error))?;
            out.to_owned()
        }
        None => here,
    };
    if output.is_json() {
        output.object("attachment", &json!({ "path": path }))?;
    } else {
        output.line(&path.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Attachment {
        Attachment {
            record: String::new(),
            field: String::new(),
            hash: "0123456789abcdef".to_owned(),
            name: name.to_owned(),
            media: String::new(),
            size: 0,
            state: String::new(),
            done: None,
            reason: None,
            removed: None,
            here: true,
        }
    }

    #[test]
    fn a_name_that_somebody_chose_leads_nowhere_else() {
        let mut taken = BTreeSet::new();
        let mut plain = |name: &str| plain_name(&named(name), &mut taken);
        assert_eq!(plain("../../.bashrc"), "bashrc");
        assert_eq!(plain("front.png"), "front.png");
        assert_eq!(plain("FRONT.png"), "01234567-FRONT.png");
        assert_eq!(plain("..."), "01234567");
    }
}
