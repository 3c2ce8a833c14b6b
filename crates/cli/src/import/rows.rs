//! From a file to writes: CSV and JSON lines, records and children.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};

use fieldkeep_model::RecordId;
use serde_json::{Map, Value};

use super::columns::{self, Columns};
use super::{Target, unusable};
use crate::args::Import;
use crate::failure::{Code, Failure};
use crate::output::safe;
use crate::request::{Content, Write};

/// A file's content.
pub(super) struct Rows {
    /// How many rows it has.
    pub(super) rows: u64,
    /// What they write, each with the line of its first row.
    pub(super) writes: Vec<(u64, Write)>,
}

/// Reads a file.
///
/// # Errors
/// When it cannot be read, its columns do not match, an id is malformed or occurs twice.
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
    fn meet(&mut self, args: &Import, parent: &str, id: &str, line: u64) -> Result<(), Failure> {
        match self.0.insert((parent.to_owned(), id.to_owned()), line) {
            None => Ok(()),
            Some(first) => {
                let of = if parent.is_empty() {
                    String::new()
                } else {
                    format!(" of `{}`", safe(parent))
                };
                let problem =
                    format!("the id `{}`{of} is on line {first} and on line {line}", safe(id));
                let remedy = "each record is one row: correct the file, or choose another --id; nothing was written";
                Err(unusable(&args.file, problem, remedy))
            }
        }
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

    /// Calls with each row's line, its record and the cells of its fields.
    fn each(
        mut self,
        args: &Import,
        mut act: impl FnMut(u64, &csv::StringRecord, Vec<(String, String)>) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let mut rows = 0;
        let mut row = csv::StringRecord::new();
        while self.reader.read_record(&mut row).map_err(|error| unreadable(args, error))? {
            rows += 1;
            let line = row.position().map_or(0, csv::Position::line);
            let fields = self.columns.fields.iter().zip(&row);
            let cells = fields.filter_map(|(field, cell)| Some((field.clone()?, cell.to_owned())));
            act(line, &row, cells.filter(|(_, cell)| !cell.is_empty()).collect())?;
        }
        Ok(rows)
    }
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
    let rows = table.each(args, |line, row, cells| {
        let id = id_column.map(|at| named(args, row, at, line)).transpose()?;
        if let Some(id) = &id {
            seen.meet(args, "", id.as_str(), line)?;
        }
        writes.push((line, write(target, id, vec![Content::Cells(cells)])));
        Ok(())
    })?;
    Ok(Rows { rows, writes })
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
    let rows = table.each(args, |line, row, cells| {
        let parent = named(args, row, parent_column, line)?;
        let id = named(args, row, id_column, line)?;
        seen.meet(args, parent.as_str(), id.as_str(), line)?;
        let place = *places.entry(parent.clone()).or_insert_with(|| {
            writes.push((line, write(target, Some(parent), Vec::new())));
            writes.len() - 1
        });
        let child = Content::Child { set: set.to_owned(), id: id.into(), cells };
        writes[place].1.contents.push(child);
        Ok(())
    })?;
    Ok(Rows { rows, writes })
}

fn json_rows(args: &Import, target: &Target<'_>) -> Result<Rows, Failure> {
    let file = File::open(&args.file).map_err(|error| Failure::file(&args.file, &error))?;
    let (mut seen, mut writes) = (Seen::default(), Vec::new());
    for (line, text) in (1..).zip(BufReader::new(file).lines()) {
        let text = text.map_err(|error| Failure::file(&args.file, &error))?;
        if text.trim().is_empty() {
            continue;
        }
        let object: Map<String, Value> = serde_json::from_str(&text).map_err(|error| {
            unusable(
                &args.file,
                format!("line {line}: not a JSON object: {error}"),
                "correct the file; nothing was written",
            )
        })?;
        let (id, object) = json_row(args, object, line)?;
        if let Some(id) = &id {
            seen.meet(args, "", id.as_str(), line)?;
        }
        let content = Content::Object(Value::Object(object).to_string());
        writes.push((line, write(target, id, vec![content])));
    }
    Ok(Rows { rows: writes.len() as u64, writes })
}

/// Takes the id out of an object, and names its fields as the command says.
fn json_row(
    args: &Import,
    mut object: Map<String, Value>,
    line: u64,
) -> Result<(Option<RecordId>, Map<String, Value>), Failure> {
    let column = args.id.as_deref().unwrap_or("id");
    let id = match object.remove(column) {
        None if args.id.is_some() => {
            let problem = format!("line {line}: there is no `{column}`");
            return Err(unusable(&args.file, problem, "correct the file; nothing was written"));
        }
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            let problem = format!("line {line}: `{column}` is no id");
            return Err(unusable(&args.file, problem, "correct the file; nothing was written"));
        }
    };
    let id = id.map(|id| record_id(args, id, line)).transpose()?;
    let renamed = object.into_iter().map(|(name, value)| {
        let mapped = args.map.iter().find(|(from, _)| *from == name);
        (mapped.map_or(name, |(_, field)| field.clone()), value)
    });
    Ok((id, renamed.collect()))
}

fn named(
    args: &Import,
    row: &csv::StringRecord,
    at: usize,
    line: u64,
) -> Result<RecordId, Failure> {
    record_id(args, row.get(at).unwrap_or_default().to_owned(), line)
}

fn record_id(args: &Import, text: String, line: u64) -> Result<RecordId, Failure> {
    RecordId::new(text).map_err(|error| {
        unusable(
            &args.file,
            format!("line {line}: {error}"),
            "correct the file; nothing was written",
        )
    })
}

fn write(target: &Target<'_>, id: Option<RecordId>, contents: Vec<Content>) -> Write {
    Write { ty: target.ty.clone(), id, contents, deleted: None, totals: true }
}
