//! From a table's header to fields: by name in snake case, or as the command says.

use std::path::Path;

use fieldkeep_catalog::ObjectType;

use crate::args::Import;
use fieldkeep_console::{Code, Failure};

/// What each column of a table is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// The field of each column; none where it names a record.
    pub(super) fields: Vec<Option<String>>,
    /// The column that holds the id.
    pub(super) id: Option<usize>,
    /// The column that holds the parent's id.
    pub(super) parent: Option<usize>,
}

/// Reads a header.
///
/// # Errors
/// When a column matches no field, two match one, or one that the command names is not there.
pub(super) fn read(
    header: &[&str],
    args: &Import,
    object: &ObjectType,
    set: Option<&str>,
) -> Result<Columns, Failure> {
    let fields = match set.and_then(|set| object.fields.get(set)) {
        Some(set) => &set.children,
        None => &object.fields,
    };
    let known: Vec<&str> = fields.keys().map(String::as_str).collect();
    let place = |name: &Option<String>| {
        name.as_ref().map(|name| find(header, name, &args.file)).transpose()
    };
    let (id, parent) = (place(&args.id)?, place(&args.parent)?);
    // As `export` writes it, unless the column says something else.
    let says =
        |field: &str| known.contains(&field) || args.map.iter().any(|(from, _)| from == field);
    let exported = || header.iter().position(|column| *column == "id" && !says("id"));
    let id = id.or_else(|| exported().filter(|_| set.is_none()));
    for (column, field) in &args.map {
        find(header, column, &args.file)?;
        if !known.contains(&field.as_str()) {
            let message = format!("--map {column}={field} names a field that is not declared");
            return Err(Failure::new(
                Code::Usage,
                message,
                format!("there are {}", known.join(", ")),
            ));
        }
    }
    let mut matched: Vec<Option<String>> = Vec::new();
    for (at, column) in header.iter().enumerate() {
        if Some(at) == id || Some(at) == parent {
            matched.push(None);
            continue;
        }
        let field = field_of(column, args, &known)?;
        if let Some(other) = matched.iter().position(|other| other.as_deref() == Some(&field)) {
            let message =
                format!("the columns `{}` and `{column}` both fill `{field}`", header[other]);
            return Err(Failure::new(
                Code::Usage,
                message,
                "map one of them to another with --map",
            ));
        }
        matched.push(Some(field));
    }
    Ok(Columns { fields: matched, id, parent })
}

fn find(header: &[&str], name: &str, path: &Path) -> Result<usize, Failure> {
    header.iter().position(|column| *column == name).ok_or_else(|| {
        let message = format!("{} has no column `{name}`", path.display());
        Failure::new(Code::Usage, message, format!("it has {}", header.join(", ")))
    })
}

fn field_of(column: &str, args: &Import, known: &[&str]) -> Result<String, Failure> {
    let mapped = args.map.iter().find(|(name, _)| name == column);
    let name = mapped.map_or_else(|| snake(column), |(_, field)| field.clone());
    if known.contains(&name.as_str()) {
        return Ok(name);
    }
    let message = format!("the column `{column}` matches no field: there is no `{name}`");
    let remedy = format!(
        "say which field it fills with --map '{column}=FIELD', or that it names the record with \
         --id '{column}'; there are {}",
        known.join(", ")
    );
    Err(Failure::new(Code::Usage, message, remedy))
}

/// A column's name as a field is named: `CustomerID` as `customer_id`, `Tail flags` as `tail_flags`.
fn snake(column: &str) -> String {
    let chars: Vec<char> = column.chars().collect();
    let mut name = String::new();
    for (at, c) in chars.iter().enumerate() {
        if !c.is_alphanumeric() {
            if !name.is_empty() && !name.ends_with('_') {
                name.push('_');
            }
            continue;
        }
        let before = at.checked_sub(1).map(|at| chars[at]);
        let begins_word = c.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase()
                    || before.is_numeric()
                    || (before.is_uppercase()
                        && chars.get(at + 1).is_some_and(|after| after.is_lowercase()))
            });
        if begins_word && !name.ends_with('_') {
            name.push('_');
        }
        name.extend(c.to_lowercase());
    }
    name.trim_end_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_fields_in_snake_case() {
        for (column, field) in [
            ("CustomerID", "customer_id"),
            ("Unique Squirrel ID", "unique_squirrel_id"),
            ("Above Ground Sighter Measurement", "above_ground_sighter_measurement"),
            ("X", "x"),
            ("Tail flags", "tail_flags"),
            ("TitleOfCourtesy", "title_of_courtesy"),
            ("HTTPServer", "http_server"),
            ("already_snake", "already_snake"),
            ("  Unit-Price (EUR) ", "unit_price_eur"),
            ("Line2Text", "line2_text"),
        ] {
            assert_eq!(snake(column), field);
        }
    }
}
