//! `export`: all records of a type, as lines of JSON, as a table, or as Automerge documents. A file
//! is written whole or not at all.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fieldkeep_catalog::{Catalog, Kind};
use fieldkeep_model::TypeName;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::access::Access;
use crate::args::{Directory, Export, Format, absolute};
use crate::output::Output;
use crate::request::Request;
use crate::response::Response;
use fieldkeep_console::shape::Record;
use fieldkeep_console::{Code, Failure, Trouble};

#[derive(Serialize)]
struct Shape<'e> {
    #[serde(rename = "type")]
    ty: &'e str,
    records: Option<u64>,
    files: Vec<String>,
}

pub(crate) fn run(args: Export, dir: &Directory, output: &mut Output) -> Result<ExitCode, Trouble> {
    let mut access = Access::new(&dir.path()?)?;
    match (args.format, &args.out) {
        (Format::Automerge, Some(into)) => documents(&mut access, &args.ty, into, output)?,
        (Format::Automerge, None) => {
            let message = "documents are written into a directory";
            return Err(Failure::new(Code::Usage, message, "name it with --out").into());
        }
        (Format::Jsonl | Format::Csv, None) => {
            rows(&mut access, &args.ty, args.format, output.writer())?;
        }
        (Format::Jsonl | Format::Csv, Some(path)) => {
            let count = into_file(&mut access, &args.ty, args.format, path)?;
            let files = vec![path.display().to_string()];
            tell(output, &args.ty, Some(count), files)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn documents(
    access: &mut Access,
    ty: &TypeName,
    into: &Path,
    output: &mut Output,
) -> Result<(), Trouble> {
    let request = Request::Documents(ty.clone(), absolute(into)?);
    let Response::Documents(files) = access.ask(request)? else {
        return Err(Failure::unexpected().into());
    };
    let shown = |path: &PathBuf| path.display().to_string();
    tell(output, ty, None, files.iter().map(shown).collect())?;
    Ok(())
}

fn tell(
    output: &mut Output,
    ty: &TypeName,
    records: Option<u64>,
    files: Vec<String>,
) -> io::Result<()> {
    if output.is_json() {
        return output.object("export", &Shape { ty: ty.as_str(), records, files });
    }
    for file in files {
        output.line(&file)?;
    }
    Ok(())
}

fn into_file(
    access: &mut Access,
    ty: &TypeName,
    format: Format,
    path: &Path,
) -> Result<u64, Trouble> {
    let failed = |error: io::Error| Failure::file(path, &error);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let file = tempfile::NamedTempFile::new_in(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    let mut writer = BufWriter::new(file);
    let count = rows(access, ty, format, &mut writer).map_err(|trouble| match trouble {
        Trouble::Output(error) => failed(error).into(),
        Trouble::Failed(failure) => Trouble::Failed(failure),
    })?;
    let file = writer.into_inner().map_err(|error| failed(error.into_error()))?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(count)
}

fn rows(
    access: &mut Access,
    ty: &TypeName,
    format: Format,
    out: &mut impl Write,
) -> Result<u64, Trouble> {
    let request = Request::List { ty: ty.clone(), filters: Vec::new(), limit: None };
    let mut count = 0;
    if format == Format::Jsonl {
        access.ask_for_records(request, &mut |record| {
            count += 1;
            serde_json::to_writer(&mut *out, &with_id(record)).map_err(io::Error::from)?;
            Ok(out.write_all(b"\n")?)
        })?;
        return Ok(count);
    }
    let fields = fields(access, ty)?;
    let mut table = csv::Writer::from_writer(out);
    table
        .write_record(std::iter::once("id").chain(fields.iter().map(|(name, _)| name.as_str())))
        .map_err(broken)?;
    access.ask_for_records(request, &mut |record| {
        count += 1;
        let cells = fields.iter().map(|(field, kind)| {
            record.fields.get(field).map_or_else(String::new, |value| cell(value, *kind))
        });
        let row = std::iter::once(record.id.as_str().to_owned()).chain(cells);
        Ok(table.write_record(row).map_err(broken)?)
    })?;
    table.flush()?;
    Ok(count)
}

/// A record's fields with its id before them.
fn with_id(record: Record) -> Map<String, Value> {
    let id = ("id".to_owned(), Value::from(String::from(record.id)));
    std::iter::once(id).chain(record.fields).collect()
}

/// The columns of a type's table.
fn fields(access: &mut Access, ty: &TypeName) -> Result<Vec<(String, Kind)>, Trouble> {
    let catalog = catalog(access)?;
    let fields = catalog.ty(ty).into_iter().flat_map(|object| &object.fields);
    Ok(fields.map(|(name, field)| (name.clone(), field.kind)).collect())
}

/// The catalog of the directory.
///
/// # Errors
/// When there is none.
pub(crate) fn catalog(access: &mut Access) -> Result<Catalog, Trouble> {
    let Response::Catalog(source) = access.ask(Request::Catalog)? else {
        return Err(Failure::unexpected().into());
    };
    let source = source.ok_or_else(|| {
        let message = "there is no catalog here yet, so no object type is known";
        Failure::new(Code::Offline, message, "it comes from the relay: `fieldkeep sync`")
    })?;
    let parsed = Catalog::parse(&source);
    Ok(parsed.map_err(|errors| Failure::from(fieldkeep_replica::ReplicaError::Catalog(errors)))?)
}

/// A value as `import` reads it: a text of the JSON kind is in quotes, else it would be none.
fn cell(value: &Value, kind: Kind) -> String {
    match value {
        Value::String(text) if kind != Kind::Json => text.clone(),
        Value::Null if kind != Kind::Json => String::new(),
        Value::String(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Array(_)
        | Value::Object(_) => value.to_string(),
    }
}

fn broken(error: csv::Error) -> io::Error {
    error.into()
}
