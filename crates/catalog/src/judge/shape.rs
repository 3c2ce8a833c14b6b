//! Whether values have the shape of their fields: declared, there, of their kind, within the limits
//! and fit for their schemas.

use std::collections::BTreeMap;

use fieldkeep_model::{BlobHash, RecordId};
use serde_json::{Map, Value};

use crate::limit;
use crate::object::{Field, Kind, scalar_text};
use crate::schema::shorten;

/// Something that is wrong with a field.
pub(crate) struct Finding {
    /// The message.
    pub(crate) id: &'static str,
    /// The field, as `quantity` or `lines.quantity`.
    pub(crate) field: String,
    /// The child's id.
    pub(crate) child: Option<String>,
    /// What a schema or kind objects to; empty where the message says it.
    pub(crate) problem: String,
}

/// Checks the fields of a record.
pub(crate) fn check_fields(
    declared: &BTreeMap<String, Field>,
    fields: &Map<String, Value>,
    findings: &mut Vec<Finding>,
) {
    let check = Check { prefix: "", child: None };
    check.declared(declared, fields, findings);
    for (name, field) in declared.iter().filter(|(_, field)| field.kind.has_children()) {
        for child in fields.get(name).and_then(Value::as_array).into_iter().flatten() {
            let Some(child) = child.as_object() else {
                continue;
            };
            let check = Check { prefix: name, child: child.get("id").and_then(Value::as_str) };
            check.child(field, child, findings);
        }
    }
}

/// Where the fields under inspection lie.
struct Check<'a> {
    /// The set, empty for the record itself.
    prefix: &'a str,
    child: Option<&'a str>,
}

impl Check<'_> {
    fn finding(&self, id: &'static str, name: &str, problem: String) -> Finding {
        let field = match (self.prefix, name) {
            ("", name) => name.to_owned(),
            (set, "") => set.to_owned(),
            (set, name) => format!("{set}.{name}"),
        };
        Finding { id, field, child: self.child.map(str::to_owned), problem }
    }

    fn child(&self, set: &Field, fields: &Map<String, Value>, findings: &mut Vec<Finding>) {
        let unfit = |id: &str| match set.kind {
            Kind::Attachment => id.parse::<BlobHash>().is_err(),
            Kind::Register | Kind::Counter | Kind::Text | Kind::Set | Kind::Json => {
                set.reference.is_some() && RecordId::new(id).is_err()
            }
        };
        if self.child.is_none_or(unfit) {
            findings.push(self.finding("schema", "", "a child has no proper id".to_owned()));
        }
        self.declared(&set.children, fields, findings);
    }

    fn declared(
        &self,
        declared: &BTreeMap<String, Field>,
        fields: &Map<String, Value>,
        findings: &mut Vec<Finding>,
    ) {
        let id = |name: &str| name == "id" && !self.prefix.is_empty();
        // Sorted, so that the order in which a document lists its fields does not show.
        let names: std::collections::BTreeSet<&String> = fields.keys().collect();
        for name in names {
            if !declared.contains_key(name) && !id(name) {
                findings.push(self.finding("unknown_schema", name, String::new()));
            }
        }
        for (name, field) in declared {
            match fields.get(name).filter(|value| !value.is_null()) {
                None if field.required => {
                    findings.push(self.finding("required", name, String::new()));
                }
                None => {}
                Some(value) => {
                    if let Some(problem) = problem(field, value) {
                        findings.push(self.finding("schema", name, problem));
                    }
                }
            }
        }
    }
}

/// What is wrong with a value.
fn problem(field: &Field, value: &Value) -> Option<String> {
    if let Some(problem) = kind_problem(field, value) {
        return Some(problem);
    }
    let error = field.validator.as_ref()?.validate(value).err()?;
    Some(shorten(&error.to_string()))
}

fn kind_problem(field: &Field, value: &Value) -> Option<String> {
    match field.kind {
        Kind::Register => {
            let Some(text) = scalar_text(value) else {
                return Some("expected a single value".to_owned());
            };
            if text.len() > limit::REGISTER {
                return Some(format!("a text in a register has at most {} bytes", limit::REGISTER));
            }
            let refers = field.reference.is_some() && RecordId::new(text).is_err();
            refers.then(|| "this is no record id".to_owned())
        }
        Kind::Counter => {
            let whole = value.as_i64().is_some();
            (!whole).then(|| "expected a whole number of 64 bits".to_owned())
        }
        Kind::Text => match value.as_str() {
            Some(text) if text.len() > limit::TEXT => {
                Some(format!("a text has at most {} bytes", limit::TEXT))
            }
            Some(_) => None,
            None => Some("expected a text".to_owned()),
        },
        Kind::Set | Kind::Attachment => match value.as_array() {
            Some(children) if children.len() > most(field) => {
                let (has, most) = (children.len(), most(field));
                let what = if field.kind == Kind::Set { "children" } else { "files" };
                Some(format!("{has} {what} are more than {most}"))
            }
            Some(_) => None,
            None => Some("expected children".to_owned()),
        },
        Kind::Json => too_wide(value, 0),
    }
}

/// How many children a field may have.
fn most(field: &Field) -> usize {
    let files = field.attachments.as_ref().and_then(|files| usize::try_from(files.max_count).ok());
    files.unwrap_or(limit::CHILDREN)
}

/// Whether a json value nests too deep or has a list that is too long.
fn too_wide(value: &Value, depth: usize) -> Option<String> {
    if depth > limit::JSON_DEPTH {
        return Some(format!("nested deeper than {}", limit::JSON_DEPTH));
    }
    let (len, items): (usize, Box<dyn Iterator<Item = &Value>>) = match value {
        Value::Array(items) => (items.len(), Box::new(items.iter())),
        Value::Object(object) => (object.len(), Box::new(object.values())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    };
    if len > limit::JSON_ITEMS {
        return Some(format!("{len} items are more than {}", limit::JSON_ITEMS));
    }
    items.into_iter().find_map(|item| too_wide(item, depth + 1))
}

/// Whether a record is larger than rules are bounded for.
pub(crate) fn too_large(fields: &Map<String, Value>) -> Option<String> {
    let bytes: usize = fields.iter().map(|(key, value)| key.len() + weight(value)).sum();
    (bytes > limit::RECORD).then(|| format!("the record has more than {} bytes", limit::RECORD))
}

/// The bytes of a value: 16 for each scalar, and its texts and keys.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 16,
        Value::String(text) => 16 + text.len(),
        Value::Array(items) => 16 + items.iter().map(weight).sum::<usize>(),
        Value::Object(object) => {
            16 + object.iter().map(|(key, value)| key.len() + weight(value)).sum::<usize>()
        }
    }
}
