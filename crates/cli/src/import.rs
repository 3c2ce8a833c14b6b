//! `import`: a file's rows become records. The whole file is read and parsed by the catalog before
//! anything is written; then it is written in batches, each durable at once.

mod batches;
mod columns;
mod rows;

use std::path::Path;
use std::process::ExitCode;

use fieldkeep_catalog::{Catalog, ObjectType};
use fieldkeep_model::{RecordId, TypeName};
use serde::Serialize;

use crate::access::Access;
use crate::args::{Directory, Import};
use crate::attention::records;
use crate::execute;
use crate::failure::{Code, Failure, Trouble};
use crate::output::Output;
use crate::request::{Request, Response, Write};

use batches::Tally;

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
    let file = rows::read(args, &target)?;
    for (line, write) in &file.writes {
        check(&target, *line, write)?;
    }
    if target.set.is_some() {
        check_parents(&mut access, &target.ty, &file.writes)?;
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
    let tally = batches::write(&mut access, writes, again)?;
    print(output, args, rows, &tally)?;
    Ok(ExitCode::SUCCESS)
}

fn print(output: &mut Output, args: &Import, rows: u64, tally: &Tally) -> Result<(), Trouble> {
    let Tally { records: count, written, unchanged, likely_held } = *tally;
    if output.is_json() {
        let ty = args.target.as_str();
        output.object(
            "import",
            &Shape { ty, rows, records: count, written, unchanged, likely_held },
        )?;
        return Ok(());
    }
    let into =
        if args.parent.is_some() { format!(" into {}", records(count)) } else { String::new() };
    output.line(&format!(
        "imported {rows} rows of {}{into}: {written} written, {unchanged} unchanged",
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
fn check(target: &Target<'_>, line: u64, write: &Write) -> Result<(), Failure> {
    for content in &write.contents {
        execute::edits(target.object, content.clone()).map_err(|failure| {
            let message = format!("line {line}: {}", failure.message);
            let remedy = "correct the file; nothing was written";
            Failure::new(failure.code, message, remedy)
        })?;
    }
    Ok(())
}

/// Where a record lies among the type's segments: its scope, as far as the row tells, and bucket.
fn place(target: &Target<'_>, write: &Write) -> (String, u32) {
    let id = write.id.as_ref();
    let bucket = id.map_or(0, |id| id.bucket(target.object.buckets));
    let scope = target.object.scope.as_ref();
    let scope = scope.and_then(|field| write.contents.iter().find_map(|c| c.field(field)));
    (scope.unwrap_or_default(), bucket)
}

fn check_parents(
    access: &mut Access,
    ty: &TypeName,
    writes: &[(u64, Write)],
) -> Result<(), Trouble> {
    for some in writes.chunks(LOOKUP) {
        let ids: Vec<RecordId> = some.iter().filter_map(|(_, write)| write.id.clone()).collect();
        let Response::Missing(missing) = access.ask(Request::Missing(ty.clone(), ids))? else {
            return Err(Failure::unexpected().into());
        };
        let first =
            some.iter().find(|(_, write)| write.id.as_ref().is_some_and(|id| missing.contains(id)));
        if let Some((line, write)) = first {
            let id = write.id.as_ref().map(RecordId::as_str).unwrap_or_default();
            let message = format!("line {line}: there is no record {ty}/{id}");
            let remedy = format!("import the records of {ty} first; nothing was written");
            return Err(Failure::new(Code::NotFound, message, remedy).into());
        }
    }
    Ok(())
}

/// A file that cannot be used.
fn unusable(path: &Path, problem: impl std::fmt::Display, remedy: impl Into<String>) -> Failure {
    Failure::new(Code::Held, format!("{}: {problem}", path.display()), remedy)
}
