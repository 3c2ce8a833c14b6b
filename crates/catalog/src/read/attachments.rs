//! Attachment fields as they are written in a catalog.

use std::ops::Range;

use fieldkeep_model::blob::BLOB_MAX;
use toml::de::{DeTable, DeValue};

use super::Reader;
use crate::attachment::{Attachments, COUNT_DEFAULT, COUNT_MAX, Location, SIZE_DEFAULT, is_media};
use crate::object::{Field, Kind};

impl Reader<'_, '_> {
    pub(super) fn attachment_field(
        &mut self,
        table: &DeTable<'_>,
        path: &str,
        span: &Range<usize>,
    ) -> Field {
        let known = ["kind", "required", "media", "max_size", "max_count", "location"];
        self.known_keys(table, path, &known);
        let attachments = Attachments {
            media: self.media(table, &format!("{path}.media")),
            max_size: self.size(table, path),
            max_count: self.count(table, path),
            location: self.fate_of_location(table, path),
        };
        let place = self.problems.place(span);
        Field {
            required: self.flag(table, path, "required"),
            children: attachments.children(place),
            attachments: Some(attachments),
            place,
            ..Field::plain(Kind::Attachment)
        }
    }

    fn media(&mut self, table: &DeTable<'_>, path: &str) -> Vec<String> {
        let Some(value) = table.get("media") else { return Vec::new() };
        let DeValue::Array(listed) = value.get_ref() else {
            self.expected(value, path, "a list such as [\"image/*\", \"application/pdf\"]");
            return Vec::new();
        };
        let mut media = Vec::new();
        for value in listed {
            match value.get_ref() {
                DeValue::String(text) if is_media(text) => media.push(text.to_string()),
                DeValue::String(text) => {
                    let problem = format!("`{text}` is no media type");
                    let remedy = "write one as image/jpeg, or a family as image/*, in lower case";
                    self.problems.add(&value.span(), path, problem, remedy);
                }
                DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_)
                | DeValue::Table(_) => self.expected(value, path, "a text in quotes"),
            }
        }
        media
    }

    /// Bytes, as a number or as a text with a unit.
    fn size(&mut self, table: &DeTable<'_>, path: &str) -> u64 {
        let Some(value) = table.get("max_size") else { return SIZE_DEFAULT };
        let read = match value.get_ref() {
            DeValue::String(text) => bytes(text),
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => None,
        };
        if let Some(size) = read.filter(|size| (1..=BLOB_MAX).contains(size)) {
            return size;
        }
        let remedy = "write bytes, or a text such as \"20 MiB\", up to 64 GiB";
        let path = format!("{path}.max_size");
        self.problems.add(&value.span(), path, "this is no size of a file", remedy);
        SIZE_DEFAULT
    }

    fn count(&mut self, table: &DeTable<'_>, path: &str) -> u64 {
        let Some((count, span)) = self.integer(table, path, "max_count") else {
            return COUNT_DEFAULT;
        };
        match u64::try_from(count) {
            Ok(count @ 1..=COUNT_MAX) => count,
            Ok(_) | Err(_) => {
                let problem = format!("{count} is no number of files");
                let remedy = format!("write a number from 1 to {COUNT_MAX}");
                self.problems.add(&span, format!("{path}.max_count"), problem, &remedy);
                COUNT_DEFAULT
            }
        }
    }

    fn fate_of_location(&mut self, table: &DeTable<'_>, path: &str) -> Location {
        match self.text(table, path, "location") {
            None => Location::Keep,
            Some((word, _)) if word == "keep" => Location::Keep,
            Some((word, _)) if word == "strip" => Location::Strip,
            Some((word, span)) => {
                let problem = format!("`{word}` is nothing to be done to a location");
                let remedy = "write \"keep\" or \"strip\"";
                self.problems.add(&span, format!("{path}.location"), problem, remedy);
                Location::Keep
            }
        }
    }
}

/// Reads `20 MiB`, `500 kB` or `3 GB`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}
