//! `import`: a file's rows become records. The whole file is read and parsed by the catalog before
//! anything is written; then it is written in batches, each durable at once, and with it how far the
//! import has come: one that was interrupted goes on from there.

mod batches;
mod columns;
mod dry_run;
mod rows;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use fieldkeep_catalog::{Catalog, ObjectType};
use fieldkeep_model::{RecordId, TypeName};
use serde::Serialize;

use crate::access::Access;
use crate::args::{Directory, Import};
use crate::attention::records;
use crate::execute;
use crate::output::{Output, safe};
use crate::request::{Request, Write};
use crate::response::Response;
use fieldkeep_console::{Code, Failure, Trouble};

use batches::Tally;
use rows::Bad;

/// Ids that are looked up at a time.
const LOOKUP: usize = 1_000;

#[derive(Serialize)]
struct Shape<'i> {
    #[serde(rename = "type")]
    ty: &'i str,
    rows: u64,
    records: u64,
    written: u64,
    unchanged: u64,
    likely_held: u64,
    saved_before: u64,
}

/// What the rows of a file go into.
pub(crate) struct Target<'c> {
    ty: TypeName,
    object: &'c ObjectType,
    /// The set, where they are children.
    set: Option<String>,
}

pub(crate) fn run(
    args: &Import,
    dir: &Directory,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    let catalog = crate::export::catalog(&mut access)?;
    let target = target(&args.target, &catalog)?;
    let mut file = rows::read(args, &target)?;
    let mut bad = std::mem::take(&mut file.bad);
    file.writes.retain(|(line, write)| {
        let wrong = check(&target, *line, write);
        bad.extend(wrong.clone());
        wrong.is_none()
    });
    if target.set.is_some() {
        bad.extend(check_parents(&mut access, &target.ty, &file.writes)?);
    }
    if args.dry_run {
        bad.extend(rehearse(&mut access, &file.writes)?);
        bad.sort_by_key(|bad| bad.line);
        return dry_run::print(output, args, file.rows, &bad);
    }
    bad.sort_by_key(|bad| bad.line);
    if let Some(first) = bad.first() {
        let message = format!("{}: line {}: {}", args.file.display(), first.line, first.reason);
        let remedy = match bad.len() {
            1 => "correct the file; nothing was written".to_owned(),
            all => format!(
                "correct the file; nothing was written; {} are wrong: --dry-run lists them",
                rows_of(all as u64)
            ),
        };
        return Err(Failure::new(first.code, message, remedy).into());
    }
    let rows = file.rows;
    let mut writes: Vec<_> = file.writes.into_iter().map(|(_, write)| write).collect();
    // Whether a second run finds what the first one wrote.
    let named = target.set.is_none() && writes.iter().all(|write| write.id.is_some());
    let again = args.id.is_some() || named;
    if again {
        // Those of one segment go together: with ids at random every batch would touch every
        // segment, and load each anew. Records without ids stay in the file's order, by which a
        // run that was interrupted tells what it has saved.
        writes.sort_by_cached_key(|write| place(&target, write));
    }
    let job = Job::of(args, writes.len() as u64)?;
    let saved = saved(&mut access, args, &job, again)?;
    let tally = batches::write(&mut access, writes, &job, saved)?;
    print(output, args, rows, &tally)?;
    Ok(ExitCode::SUCCESS)
}

fn print(output: &mut Output, args: &Import, rows: u64, tally: &Tally) -> Result<(), Trouble> {
    let Tally { records: count, written, unchanged, likely_held, saved_before } = *tally;
    if output.is_json() {
        let ty = args.target.as_str();
        output.object(
            "import",
            &Shape { ty, rows, records: count, written, unchanged, likely_held, saved_before },
        )?;
        return Ok(());
    }
    let into =
        if args.parent.is_some() { format!(" into {}", records(count)) } else { String::new() };
    let before = if saved_before > 0 {
        format!(", {} were saved before", records(saved_before))
    } else {
        String::new()
    };
    output.line(&format!(
        "imported {rows} rows of {}{into}: {written} written, {unchanged} unchanged{before}",
        args.target
    ))?;
    if likely_held > 0 {
        output.line(&format!("{} likely held: fieldkeep attention list", records(likely_held)))?;
    }
    Ok(())
}

fn target<'c>(text: &str, catalog: &'c Catalog) -> Result<Target<'c>, Failure> {
    let (ty, set) = text.split_once('.').map_or((text, None), |(ty, set)| (ty, Some(set)));
    let wrong = |message: String| {
        let known: Vec<_> = catalog.types().keys().map(TypeName::as_str).collect();
        Failure::new(Code::Usage, message, format!("the catalog has {}", known.join(", ")))
    };
    let ty = TypeName::new(ty).map_err(|error| wrong(error.to_string()))?;
    let object =
        catalog.ty(&ty).ok_or_else(|| wrong(format!("the catalog has no object type `{ty}`")))?;
    if let Some(set) = set
        && object.fields.get(set).is_none_or(|field| field.children.is_empty())
    {
        let message = format!("the type `{ty}` has no set `{set}`");
        return Err(Failure::new(Code::Usage, message, "write TYPE.SET, as in order.lines"));
    }
    Ok(Target { ty, object, set: set.map(str::to_owned) })
}

/// Parses a row by the catalog, as the owner will.
fn check(target: &Target<'_>, line: u64, write: &Write) -> Option<Bad> {
    let failures = write.contents.iter().filter_map(|content| {
        let failure = execute::edits(target.object, content.clone()).err()?;
        Some(Bad { line, reason: failure.message, code: failure.code })
    });
    failures.into_iter().next()
}

/// Where a record lies among the type's segments: its scope, as far as the row tells, and bucket.
fn place(target: &Target<'_>, write: &Write) -> (String, u32) {
    let id = write.id.as_ref();
    let bucket = id.map_or(0, |id| id.bucket(target.object.buckets));
    let scope = target.object.scope.as_ref();
    let scope = scope.and_then(|field| write.contents.iter().find_map(|c| c.field(field)));
    (scope.unwrap_or_default(), bucket)
}

/// The rows whose records are not there.
fn check_parents(
    access: &mut Access,
    ty: &TypeName,
    writes: &[(u64, Write)],
) -> Result<Vec<Bad>, Trouble> {
    let mut bad = Vec::new();
    for some in writes.chunks(LOOKUP) {
        let ids: Vec<RecordId> = some.iter().filter_map(|(_, write)| write.id.clone()).collect();
        let Response::Missing(missing) = access.ask(Request::Missing(ty.clone(), ids))? else {
            return Err(Failure::unexpected().into());
        };
        let missing: BTreeSet<RecordId> = missing.into_iter().collect();
        for (line, write) in some {
            let Some(id) = write.id.as_ref().filter(|id| missing.contains(*id)) else { continue };
            let reason = format!(
                "there is no record {ty}/{}: import the records of {ty} first",
                safe(id.as_str())
            );
            bad.push(Bad { line: *line, reason, code: Code::NotFound });
        }
    }
    Ok(bad)
}

/// The rows that the directory would not take, though the catalog admits them.
fn rehearse(access: &mut Access, writes: &[(u64, Write)]) -> Result<Vec<Bad>, Trouble> {
    let mut bad = Vec::new();
    for some in writes.chunks(LOOKUP) {
        let rehearsed = some.iter().map(|(_, write)| write.clone()).collect();
        let Response::Rehearsed(refused) = access.ask(Request::Rehearse(rehearsed))? else {
            return Err(Failure::unexpected().into());
        };
        for (at, failure) in refused {
            let Some((line, _)) = some.get(at) else { continue };
            bad.push(Bad { line: *line, reason: failure.message, code: failure.code });
        }
    }
    Ok(bad)
}

fn rows_of(count: u64) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}

/// An import, as it is known again: by its file's content, and what of the command says how that is
/// read.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// What names it.
    file: String,
    /// How many records it writes.
    total: u64,
}

impl Job {
    fn of(args: &Import, total: u64) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::file(&args.file, &error);
        let mut hasher = blake3::Hasher::new_derive_key("fieldkeep 1 import");
        let command = (&args.target, &args.id, &args.parent, &args.map);
        let command = serde_json::to_string(&command).map_err(std::io::Error::from);
        let command = command.map_err(failed)?;
        hasher.update(&(command.len() as u64).to_be_bytes()).update(command.as_bytes());
        let mut file = std::fs::File::open(&args.file).map_err(failed)?;
        std::io::copy(&mut file, &mut hasher).map_err(failed)?;
        Ok(Self { file: hasher.finalize().to_hex().to_string(), total })
    }
}

/// How many records of an import are saved already, and need not be written again.
fn saved(access: &mut Access, args: &Import, job: &Job, again: bool) -> Result<u64, Trouble> {
    let request = Request::Imported(job.file.clone());
    let Response::Imported(progress) = access.ask(request)? else {
        return Err(Failure::unexpected().into());
    };
    let Some((done, total)) = progress else { return Ok(0) };
    if args.goes_on && total != job.total {
        let message = format!(
            "{} was read as {} when it was imported, and now as {}",
            args.file.display(),
            records(total),
            records(job.total)
        );
        let remedy = "the catalog is another one by now: nothing was written";
        return Err(Failure::new(Code::Held, message, remedy).into());
    }
    if args.goes_on {
        return Ok(done);
    }
    if !again && done < total {
        let message = format!(
            "an import of {} was interrupted: {done} of {} are saved",
            args.file.display(),
            records(total)
        );
        let remedy = "go on with --continue; nothing was written";
        return Err(Failure::new(Code::Held, message, remedy).into());
    }
    Ok(0)
}

/// A file that cannot be used.
fn unusable(path: &Path, problem: impl std::fmt::Display, remedy: impl Into<String>) -> Failure {
    Failure::new(Code::Held, format!("{}: {problem}", path.display()), remedy)
}
