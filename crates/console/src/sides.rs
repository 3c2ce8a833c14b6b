//! A record as merged beside how it last passed, field by field.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::words::{self, label};

/// A field as merged, beside what it was when the record last passed.
#[derive(Debug)]
pub(crate) struct Row {
    /// The field as an edit names it.
    pub(crate) name: String,
    /// The same as a label.
    pub(crate) field: String,
    pub(crate) merged: String,
    pub(crate) valid: String,
    pub(crate) differs: bool,
    /// Whether a reason speaks of it.
    pub(crate) blamed: bool,
    /// Whether it belongs to a child.
    pub(crate) inner: bool,
}

/// The fields of a record in rows, those of children under their set.
pub(crate) fn rows(
    fields: &Map<String, Value>,
    valid: Option<&Map<String, Value>>,
    blamed: &[String],
) -> Vec<Row> {
    let mut rows = Vec::new();
    let empty = Map::new();
    let before = valid.unwrap_or(&empty);
    for (name, (merged, last)) in both(fields, before) {
        let children = |value: Option<&Value>| -> Option<Map<String, Value>> {
            let children = value?
                .as_array()?
                .iter()
                .map(|child| Some((child.get("id")?.as_str()?.to_owned(), child.clone())));
            children.collect()
        };
        let is_blamed = blamed
            .iter()
            .any(|field| field == name || field.split(['.', '[']).next() == Some(name));
        let is_set = merged.or(last).and_then(|value| children(Some(value)));
        let Some(_) = is_set.filter(|children| !children.is_empty()) else {
            rows.push(Row::new(name, label(name), merged, last, valid.is_some(), is_blamed));
            continue;
        };
        rows.push(Row::new(name, label(name), merged, last, valid.is_some(), is_blamed));
        let (now, then) =
            (children(merged).unwrap_or_default(), children(last).unwrap_or_default());
        for (id, (now, then)) in both(&now, &then) {
            let (now, then) = (now.and_then(Value::as_object), then.and_then(Value::as_object));
            for (field, (now, then)) in both(now.unwrap_or(&empty), then.unwrap_or(&empty)) {
                if field != "id" {
                    let text = format!("{id}: {}", label(field).to_lowercase());
                    let row = Row::new(field, text, now, then, valid.is_some(), false);
                    rows.push(Row { inner: true, ..row });
                }
            }
        }
    }
    rows
}

type Sides<'v> = (Option<&'v Value>, Option<&'v Value>);

/// The fields of two records, in order of name.
fn both<'v>(
    one: &'v Map<String, Value>,
    other: &'v Map<String, Value>,
) -> BTreeMap<&'v str, Sides<'v>> {
    let mut all: BTreeMap<&str, Sides<'_>> = BTreeMap::new();
    for (name, value) in one {
        all.entry(name).or_default().0 = Some(value);
    }
    for (name, value) in other {
        all.entry(name).or_default().1 = Some(value);
    }
    all
}

impl Row {
    pub(crate) fn new(
        name: &str,
        field: String,
        merged: Option<&Value>,
        valid: Option<&Value>,
        compared: bool,
        blamed: bool,
    ) -> Self {
        let text = |value: Option<&Value>| value.map(words::value).unwrap_or_default();
        let differs = compared && merged != valid;
        let (merged, valid) = (text(merged), text(valid));
        Self { name: name.to_owned(), field, merged, valid, differs, blamed, inner: false }
    }
}
