//! The values that a catalog's tables hold, each with its error where it is of another type.

use std::ops::Range;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::Reader;
use crate::error::suggestion;

/// A value and where it stands.
pub(super) type Item<'s> = Spanned<DeValue<'s>>;

impl Reader<'_, '_> {
    pub(super) fn known_keys(&mut self, table: &DeTable<'_>, path: &str, known: &[&str]) {
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let remedy = suggestion(key.get_ref(), known.iter().copied());
            let path = join(path, key.get_ref());
            self.problems.add(&key.span(), path, format!("unknown key `{key}`"), remedy);
        }
    }

    pub(super) fn not_a_name(&mut self, name: &Spanned<DeString<'_>>, path: &str, what: &str) {
        let problem = format!("`{name}` does not name a {what}");
        let remedy = "use lower-case letters, digits and `_`, beginning with a letter, at most 64";
        self.problems.add(&name.span(), path, problem, remedy);
    }

    /// The entries of a table of tables, such as `type` and `field`.
    pub(super) fn named_tables<'t, 'i>(
        &mut self,
        table: &'t DeTable<'i>,
        path: &str,
        key: &str,
    ) -> Vec<(&'t Spanned<DeString<'i>>, &'t Item<'i>)> {
        let Some(value) = table.get(key) else {
            return Vec::new();
        };
        self.table(value, &join(path, key)).into_iter().flatten().collect()
    }

    pub(super) fn table<'t, 'i>(
        &mut self,
        value: &'t Item<'i>,
        path: &str,
    ) -> Option<&'t DeTable<'i>> {
        if let DeValue::Table(table) = value.get_ref() {
            return Some(table);
        }
        self.expected(value, path, "a table");
        None
    }

    pub(super) fn text(
        &mut self,
        table: &DeTable<'_>,
        path: &str,
        key: &str,
    ) -> Option<(String, Range<usize>)> {
        let value = table.get(key)?;
        if let DeValue::String(text) = value.get_ref() {
            return Some((text.to_string(), value.span()));
        }
        self.expected(value, &join(path, key), "a text in quotes");
        None
    }

    pub(super) fn needed(
        &mut self,
        table: &DeTable<'_>,
        path: &str,
        key: &str,
        span: &Range<usize>,
    ) -> Option<(String, Range<usize>)> {
        if !table.contains_key(key) {
            let remedy = format!("add `{key} = \"…\"`");
            self.problems.add(span, path, format!("a rule needs `{key}`"), remedy);
        }
        self.text(table, path, key)
    }

    pub(super) fn flag(&mut self, table: &DeTable<'_>, path: &str, key: &str) -> bool {
        let Some(value) = table.get(key) else {
            return false;
        };
        if let DeValue::Boolean(flag) = value.get_ref() {
            return *flag;
        }
        self.expected(value, &join(path, key), "`true` or `false`");
        false
    }

    pub(super) fn integer(
        &mut self,
        table: &DeTable<'_>,
        path: &str,
        key: &str,
    ) -> Option<(i64, Range<usize>)> {
        let value = table.get(key)?;
        if let DeValue::Integer(number) = value.get_ref()
            && let Ok(number) = i64::from_str_radix(number.as_str(), number.radix())
        {
            return Some((number, value.span()));
        }
        self.expected(value, &join(path, key), "a whole number of 64 bits");
        None
    }

    pub(super) fn expected(&mut self, value: &Item<'_>, path: &str, what: &str) {
        let problem = format!("expected {what}, found {}", described(value.get_ref()));
        self.problems.add(&value.span(), path, problem, "");
    }

    pub(super) fn json(&mut self, value: &Item<'_>, path: &str) -> Option<Value> {
        let number = |text: &str| text.parse::<f64>().ok().and_then(Number::from_f64);
        let json = match value.get_ref() {
            DeValue::String(text) => Some(Value::String(text.to_string())),
            DeValue::Boolean(flag) => Some(Value::Bool(*flag)),
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(Value::from)
            }
            DeValue::Float(float) => number(float.as_str()).map(Value::Number),
            DeValue::Array(items) => {
                return items.iter().map(|item| self.json(item, path)).collect();
            }
            DeValue::Table(table) => {
                let entry = |(key, value): (&Spanned<DeString<'_>>, &Item<'_>)| {
                    Some((key.get_ref().to_string(), self.json(value, path)?))
                };
                return table.iter().map(entry).collect::<Option<Map<_, _>>>().map(Value::Object);
            }
            DeValue::Datetime(_) => None,
        };
        if json.is_none() {
            let remedy = "write it as a text in quotes";
            self.problems.add(&value.span(), path, "JSON has no such value", remedy);
        }
        json
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
