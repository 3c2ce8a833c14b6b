//! What is printed: JSON for programs, tables and sentences for people. Everything goes through one
//! buffered writer; a reader that goes away ends the command without a word.

mod code;
mod human;
mod table;

use std::io::{self, BufWriter, Stdout, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use fieldkeep_console::Failure;

pub(crate) use code::code;
pub(crate) use human::{aside, change, conflict, fields_of, record, strip, why};
pub(crate) use table::{Align, Records, Table, cell, safe, several};

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    writer: BufWriter<Stdout>,
}

impl Output {
    /// Output for people, or JSON.
    pub(crate) fn new(json: bool) -> Self {
        Self { json, writer: BufWriter::new(io::stdout()) }
    }

    /// Whether JSON is wanted.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.writer, "{text}")
    }

    /// Prints a value as one JSON object that begins with its schema.
    pub(crate) fn object(&mut self, schema: &str, value: &impl Serialize) -> io::Result<()> {
        let mut object = Map::new();
        object.insert("schema".into(), Value::from(format!("fieldkeep/{schema}/1")));
        if let Value::Object(fields) = serde_json::to_value(value)? {
            object.extend(fields);
        }
        serde_json::to_writer(&mut self.writer, &object)?;
        writeln!(self.writer)
    }

    /// The writer, for what is streamed.
    pub(crate) fn writer(&mut self) -> &mut impl Write {
        &mut self.writer
    }

    /// Makes everything visible.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Tells a failure: a line on stderr, or a JSON object on stdout.
    pub(crate) fn failure(&mut self, failure: &Failure) -> io::Result<()> {
        if self.json {
            // What was begun on this line stays broken off: the error stands on one of its own.
            #[derive(Serialize)]
            struct Shape<'f> {
                code: &'f fieldkeep_console::Code,
                exit: u8,
                message: &'f str,
                remedy: &'f str,
            }
            let Failure { code, message, remedy } = failure;
            return self.object("error", &Shape { code, exit: code.number(), message, remedy });
        }
        // A catalog has as many errors as it has: each stands on a line of its own.
        let lines: Vec<String> = failure.message.lines().map(safe).collect();
        let several = lines.len() > 1;
        let mut text = lines.join("\n  ");
        if !failure.remedy.is_empty() {
            let between = if several { "\n" } else { ": " };
            text = format!("{text}{between}{}", safe(&failure.remedy));
        }
        writeln!(io::stderr().lock(), "fieldkeep: {text}")
    }
}

/// A list of JSON objects under `records`, written one by one. Nothing is printed before the first
/// one or the end, so that a failure before stands alone.
pub(crate) struct Stream<'o> {
    output: &'o mut Output,
    head: Option<Map<String, Value>>,
    first: bool,
}

impl<'o> Stream<'o> {
    /// An object of that schema with some fields before its records.
    pub(crate) fn new(output: &'o mut Output, schema: &str, fields: &[(&str, Value)]) -> Self {
        let mut head = Map::new();
        head.insert("schema".into(), Value::from(format!("fieldkeep/{schema}/1")));
        head.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Self { output, head: Some(head), first: true }
    }

    /// Writes a record.
    pub(crate) fn push(&mut self, record: &impl Serialize) -> io::Result<()> {
        self.begin()?;
        self.output.writer.write_all(if self.first { b"\n" } else { b",\n" })?;
        self.first = false;
        Ok(serde_json::to_writer(&mut self.output.writer, record)?)
    }

    /// Ends the object, with fields that are known only at the end.
    pub(crate) fn end(mut self, fields: &[(&str, Value)]) -> io::Result<()> {
        self.begin()?;
        write!(self.output.writer, "]")?;
        for (name, value) in fields {
            write!(self.output.writer, ",{}:{value}", Value::from(*name))?;
        }
        writeln!(self.output.writer, "}}")
    }

    fn begin(&mut self) -> io::Result<()> {
        let Some(head) = self.head.take() else { return Ok(()) };
        let head = Value::Object(head).to_string();
        let open = head.strip_suffix('}').unwrap_or(&head);
        write!(self.output.writer, "{open},\"records\":[")
    }
}
