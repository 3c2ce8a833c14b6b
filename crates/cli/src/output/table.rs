//! Aligned tables. A long list is not held back for its widths: they follow from its beginning.

use std::io::{self, Write};

use serde_json::Value;

use fieldkeep_console::shape::Record;

/// Rows from which the widths of a list follow.
const LEAD: usize = 200;
/// The widest a cell gets in a list, in characters.
const CELL: usize = 32;
/// How wide a list gets where the terminal does not say, in characters.
const WIDTH: usize = 120;

/// On which side a column is flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table that is printed whole.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|(name, align)| ((*name).to_owned(), *align)).collect();
        Self { columns, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| safe(cell)).collect());
    }

    /// Prints it.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let widths = self.widths();
        let names: Vec<_> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        for row in std::iter::once(&names).chain(&self.rows) {
            self.print_row(out, row, &widths)?;
        }
        Ok(())
    }

    fn widths(&self) -> Vec<usize> {
        let of = |(at, (name, _)): (usize, &(String, Align))| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| length(cell));
            cells.max().unwrap_or(0).max(length(name))
        };
        self.columns.iter().enumerate().map(of).collect()
    }

    fn print_row(&self, out: &mut impl Write, row: &[String], widths: &[usize]) -> io::Result<()> {
        let mut line = String::new();
        for ((cell, width), (_, align)) in row.iter().zip(widths).zip(&self.columns) {
            let gap = " ".repeat(width.saturating_sub(length(cell)));
            let [before, after] = if *align == Align::Left { ["", &gap] } else { [&*gap, ""] };
            line.extend([before, cell, after, "  "]);
        }
        writeln!(out, "{}", line.trim_end())
    }
}

/// Records as a table that grows.
#[derive(Debug, Default)]
pub(crate) struct Records {
    lead: Vec<Record>,
    shape: Option<(Vec<String>, Vec<usize>)>,
    count: u64,
}

impl Records {
    /// Adds a record; prints it once the widths are known.
    pub(crate) fn push(&mut self, record: Record, out: &mut impl Write) -> io::Result<()> {
        self.count += 1;
        match &self.shape {
            Some((fields, widths)) => print_cells(out, &cells(&record, fields), widths),
            None if self.lead.len() < LEAD => {
                self.lead.push(record);
                Ok(())
            }
            None => {
                self.lead.push(record);
                self.begin(out)
            }
        }
    }

    /// Prints what is still held back; returns how many records there were.
    pub(crate) fn end(mut self, out: &mut impl Write) -> io::Result<u64> {
        if self.shape.is_none() && !self.lead.is_empty() {
            self.begin(out)?;
        }
        Ok(self.count)
    }

    /// Chooses the columns, and prints the rows so far.
    fn begin(&mut self, out: &mut impl Write) -> io::Result<()> {
        let rows = std::mem::take(&mut self.lead);
        let mut fields: Vec<String> = Vec::new();
        for record in &rows {
            let fresh: Vec<_> =
                record.fields.keys().filter(|key| !fields.contains(key)).cloned().collect();
            fields.extend(fresh);
        }
        let mut head = vec!["ID".to_owned(), "STATE".to_owned()];
        head.extend(fields.iter().map(|field| field.to_uppercase()));
        let mut widths: Vec<usize> = head.iter().map(|name| length(name)).collect();
        let body: Vec<_> = rows.iter().map(|record| cells(record, &fields)).collect();
        for row in &body {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(length(cell));
            }
        }
        let fitting = fitting(&widths);
        widths.truncate(fitting);
        fields.truncate(fitting.saturating_sub(2));
        print_cells(out, &head, &widths)?;
        for row in &body {
            print_cells(out, row, &widths)?;
        }
        self.shape = Some((fields, widths));
        Ok(())
    }
}

/// How many columns fit.
fn fitting(widths: &[usize]) -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let room: usize = columns.unwrap_or(WIDTH);
    let mut used = 0;
    let fits = widths.iter().take_while(|width| {
        used += **width + 2;
        used <= room + 2
    });
    fits.count().max(2)
}

fn cells(record: &Record, fields: &[String]) -> Vec<String> {
    let mark = if record.unsaved { "*" } else { "" };
    let mut cells = vec![shown(record.id.as_str()), format!("{}{mark}", record.state)];
    cells
        .extend(fields.iter().map(|field| record.fields.get(field).map_or_else(String::new, cell)));
    cells
}

fn print_cells(out: &mut impl Write, cells: &[String], widths: &[usize]) -> io::Result<()> {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(cell);
        line.push_str(&" ".repeat(width.saturating_sub(length(cell)) + 2));
    }
    writeln!(out, "{}", line.trim_end())
}

/// A value in a cell: sets as their number, long texts cut.
pub(crate) fn cell(value: &Value) -> String {
    let text = match value {
        Value::String(text) => safe(text),
        Value::Array(items) if items.iter().all(Value::is_object) => match items.len() {
            1 => "1 entry".to_owned(),
            count => format!("{count} entries"),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            safe(&value.to_string())
        }
    };
    if length(&text) <= CELL {
        return text;
    }
    text.chars().take(CELL - 1).chain(['…']).collect()
}

/// An id as it is; quoted where its end could not be seen.
fn shown(id: &str) -> String {
    if id.trim() == id { safe(id) } else { format!("'{}'", safe(id)) }
}

/// So many of something: `1 change`, `3 changes`.
pub(crate) fn several(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Text without what would move the cursor or fool the eye: control characters are spelled out.
pub(crate) fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&[("TYPE", Align::Left), ("LOCAL", Align::Right)]);
        table.row(vec!["order".into(), "1".into()]);
        table.row(vec!["x".into(), "1234567".into()]);
        let mut out = Vec::new();
        table.print(&mut out).expect("memory takes it");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text, "TYPE     LOCAL\norder        1\nx      1234567\n");
    }

    #[test]
    fn what_a_terminal_would_obey_is_spelled_out() {
        assert_eq!(safe("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(shown("ALFKI "), "'ALFKI '");
    }
}
