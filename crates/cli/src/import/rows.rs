//! From a file to writes: CSV and JSON lines, records and children.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};

use fieldkeep_model::RecordId;
use serde::Serialize;
use serde_json::{Map, Value};

use super::columns::{self, Columns};
use super::{Target, unusable};
use crate::args::Import;
use crate::output::safe;
use crate::request::{Content, Write};
use fieldkeep_console::{Code, Failure};

/// A file's content.
pub(super) struct Rows {
    /// How many rows it has.
    pub(super) rows: u64,
    /// What they write, each with the line of its first row.
    pub(super) writes: Vec<(u64, Write)>,
    /// Those that cannot be read.
    pub(super) bad: Vec<Bad>,
}

/// A row that cannot be imported.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Bad {
    /// Its line.
    pub(super) line: u64,
    /// Why not.
    pub(super) reason: String,
    /// What kind of a failure that is.
    #[serde(skip)]
    pub(super) code: Code,
}

impl Bad {
    pub(super) fn new(line: u64, reason: impl Into<String>) -> Self {
        Self { line, reason: reason.into(), code: Code::Held }
    }
}

/// Reads a file.
///
/// # Errors
/// When it cannot be read, or its columns do not match. What is wrong with a row alone is told with
/// the rows.
pub(super) fn read(args: &Import, target: &Target<'_>) -> Result<Rows, Failure> {
    let extension = args.file.extension().map(|extension| extension.to_ascii_lowercase());
    match (extension.as_ref().and_then(|extension| extension.to_str()), &target.set) {
        (Some("csv"), None) if args.parent.is_none() => csv_rows(args, target),
        (Some("csv"), Some(set)) => children(args, target, set),
        (Some("csv"), None) => {
            let message = "--parent is for children";
            Err(Failure::new(Code::Usage, message, "name their set, as in order.lines"))
        }
        (Some("jsonl" | "ndjson"), None) => json_rows(args, target),
        (Some("jsonl" | "ndjson"), Some(_)) => {
            let message = "children are imported from CSV";
            Err(Failure::new(Code::Usage, message, "in JSON lines they are lists in their records"))
        }
        _ => {
            let message = format!("{} is neither .csv nor .jsonl", args.file.display());
            Err(Failure::new(Code::Usage, message, "rename it, or convert it"))
        }
    }
}

/// Where each id occurred first.
#[derive(Default)]
struct Seen(HashMap<(String, String), u64>);

impl Seen {
    fn meet(&mut self, parent: &str, id: &str, line: u64) -> Result<(), String> {
        let first = *self.0.entry((parent.to_owned(), id.to_owned())).or_insert(line);
        if first == line {
            return Ok(());
        }
        let of = if parent.is_empty() { String::new() } else { format!(" of `{}`", safe(parent)) };
        Err(format!("the id `{}`{of} is on line {first} already: each record is one row", safe(id)))
    }
}

/// The rows of a table.
struct Table {
    columns: Columns,
    reader: csv::Reader<File>,
}

impl Table {
    fn open(args: &Import, target: &Target<'_>) -> Result<Self, Failure> {
        let reader = csv::ReaderBuilder::new().from_path(&args.file);
        let mut reader = reader.map_err(|error| unreadable(args, error))?;
        let header = reader.headers().map_err(|error| unreadable(args, error))?.clone();
        // A byte order mark is no part of the first name.
        let names = header.iter().map(|name| name.trim_start_matches('\u{feff}'));
        let names: Vec<_> = names.collect();
        let columns = columns::read(&names, args, target.object, target.set.as_deref())?;
        Ok(Self { columns, reader })
    }

    /// Calls with each row's line, its record and the cells of its fields. Returns how many rows
    /// there are, and those that cannot be read.
    fn each(
        mut self,
        args: &Import,
        mut act: impl FnMut(u64, &csv::StringRecord, Vec<(String, String)>) -> Result<(), String>,
    ) -> Result<(u64, Vec<Bad>), Failure> {
        let (mut rows, mut bad) = (0, Vec::new());
        let mut row = csv::StringRecord::new();
        loop {
            match self.reader.read_record(&mut row) {
                Ok(false) => return Ok((rows, bad)),
                Ok(true) => {}
                Err(error) => {
                    rows += 1;
                    bad.push(broken(&error).ok_or_else(|| unreadable(args, error))?);
                    continue;
                }
            }
            rows += 1;
            let line = row.position().map_or(0, csv::Position::line);
            let fields = self.columns.fields.iter().zip(&row);
            let cells = fields.filter_map(|(field, cell)| Some((field.clone()?, cell.to_owned())));
            let cells = cells.filter(|(_, cell)| !cell.is_empty()).collect();
            bad.extend(act(line, &row, cells).err().map(|reason| Bad::new(line, reason)));
        }
    }
}

/// What is wrong with a row alone: the next one can be read all the same.
fn broken(error: &csv::Error) -> Option<Bad> {
    let line = error.position().map_or(0, csv::Position::line);
    if let csv::ErrorKind::UnequalLengths { expected_len, len, .. } = error.kind() {
        let reason = format!("it has {len} cells, and the header has {expected_len}");
        return Some(Bad::new(line, reason));
    }
    let text = matches!(error.kind(), csv::ErrorKind::Utf8 { .. });
    text.then(|| Bad::new(line, "it is no UTF-8 text"))
}

fn unreadable(args: &Import, error: csv::Error) -> Failure {
    let text = error.to_string();
    if let csv::ErrorKind::Io(error) = error.into_kind() {
        return Failure::file(&args.file, &error);
    }
    unusable(&args.file, text, "correct the file; nothing was written")
}

fn csv_rows(args: &Import, target: &Target<'_>) -> Result<Rows, Failure> {
    let table = Table::open(args, target)?;
    let id_column = table.columns.id;
    let (mut seen, mut writes) = (Seen::default(), Vec::new());
    let (rows, bad) = table.each(args, |line, row, cells| {
        let id = id_column.map(|at| named(row, at)).transpose()?;
        if let Some(id) = &id {
            seen.meet("", id.as_str(), line)?;
        }
        writes.push((line, write(target, id, vec![Content::Cells(cells)])));
        Ok(())
    })?;
    Ok(Rows { rows, writes, bad })
}

fn children(args: &Import, target: &Target<'_>, set: &str) -> Result<Rows, Failure> {
    let table = Table::open(args, target)?;
    let (Some(id_column), Some(parent_column)) = (table.columns.id, table.columns.parent) else {
        let message = "children need the column of their record and that of their id";
        let remedy = "give --parent COLUMN and --id COLUMN";
        return Err(Failure::new(Code::Usage, message, remedy));
    };
    let mut seen = Seen::default();
    let mut places: HashMap<RecordId, usize> = HashMap::new();
    let mut writes: Vec<(u64, Write)> = Vec::new();
    let (rows, bad) = table.each(args, |line, row, cells| {
        let parent = named(row, parent_column)?;
        let id = named(row, id_column)?;
        seen.meet(parent.as_str(), id.as_str(), line)?;
        let place = *places.entry(parent.clone()).or_insert_with(|| {
            writes.push((line, write(target, Some(parent), Vec::new())));
            writes.len() - 1
        });
        let child = Content::Child { set: set.to_owned(), id: id.into(), cells };
        writes[place].1.contents.push(child);
        Ok(())
    })?;
    Ok(Rows { rows, writes, bad })
}

fn json_rows(args: &Import, target: &Target<'_>) -> Result<Rows, Failure> {
    let file = File::open(&args.file).map_err(|error| Failure::file(&args.file, &error))?;
    let (mut seen, mut writes) = (Seen::default(), Vec::new());
    let (mut rows, mut bad) = (0, Vec::new());
    for (line, text) in (1..).zip(BufReader::new(file).split(b'\n')) {
        let text = text.map_err(|error| Failure::file(&args.file, &error))?;
        if text.trim_ascii().is_empty() {
            continue;
        }
        rows += 1;
        match json_row(args, &mut seen, &text, line) {
            Ok((id, object)) => {
                let content = Content::Object(Value::Object(object).to_string());
                writes.push((line, write(target, id, vec![content])));
            }
            Err(reason) => bad.push(Bad::new(line, reason)),
        }
    }
    Ok(Rows { rows, writes, bad })
}

/// Reads an object, takes the id out of it, and names its fields as the command says.
fn json_row(
    args: &Import,
    seen: &mut Seen,
    text: &[u8],
    line: u64,
) -> Result<(Option<RecordId>, Map<String, Value>), String> {
    let object = serde_json::from_slice(text);
    let mut object: Map<String, Value> =
        object.map_err(|error| format!("not a JSON object: {error}"))?;
    let column = args.id.as_deref().unwrap_or("id");
    let id = match object.remove(column) {
        None if args.id.is_some() => return Err(format!("there is no `{column}`")),
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(format!("`{column}` is no id"));
        }
    };
    let id = id.map(record_id).transpose()?;
    if let Some(id) = &id {
        seen.meet("", id.as_str(), line)?;
    }
    let renamed = object.into_iter().map(|(name, value)| {
        let mapped = args.map.iter().find(|(from, _)| *from == name);
        (mapped.map_or(name, |(_, field)| field.clone()), value)
    });
    Ok((id, renamed.collect()))
}

fn named(row: &csv::StringRecord, at: usize) -> Result<RecordId, String> {
    record_id(row.get(at).unwrap_or_default().to_owned())
}

fn record_id(text: String) -> Result<RecordId, String> {
    RecordId::new(text).map_err(|error| error.to_string())
}

fn write(target: &Target<'_>, id: Option<RecordId>, contents: Vec<Content>) -> Write {
    Write { ty: target.ty.clone(), id, contents, deleted: None, totals: true }
}
