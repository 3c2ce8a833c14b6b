//! JSON Schema fragments: a closed vocabulary without references, so that checking a value costs no
//! more than the product of their sizes, and with linear regular expressions only.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use crate::error::suggestion;
use crate::limit;

/// Keywords whose value is no schema.
const PLAIN: &[&str] = &[
    "type",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minContains",
    "maxContains",
    "required",
    "minProperties",
    "maxProperties",
    "title",
    "description",
    "examples",
];
/// Keywords whose value is a schema.
const ONE: &[&str] =
    &["items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else"];
/// Keywords whose value is a list of schemas.
const MANY: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value is an object of schemas.
const NAMED: &[&str] = &["properties", "patternProperties"];
/// Formats that are checked the same everywhere.
const FORMATS: &[&str] =
    &["date", "time", "date-time", "duration", "uuid", "email", "ipv4", "ipv6", "hostname", "uri"];

/// Why a schema is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A keyword that is unknown, or known to JSON Schema and not supported here.
    #[error("unknown keyword `{0}`")]
    Keyword(String, String),
    /// A reference: what it leads to could not be bounded.
    #[error("schemas hold no references, and `{0}` is one")]
    Reference(String),
    /// A format that is unknown.
    #[error("unknown format `{0}`")]
    Format(String, String),
    /// What the schema compiler objects to.
    #[error("{0}")]
    Invalid(String),
}

impl SchemaError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &str {
        match self {
            Self::Keyword(_, remedy) | Self::Format(_, remedy) => remedy,
            Self::Reference(_) => "write the schema out in place",
            Self::Invalid(_) => "",
        }
    }
}

/// Compiles a schema.
pub(crate) fn compile(schema: &Value) -> Result<Validator, SchemaError> {
    vocabulary(schema)?;
    let patterns = PatternOptions::regex().size_limit(limit::PATTERN);
    let options = jsonschema::options().with_draft(jsonschema::Draft::Draft202012);
    let options = options.with_pattern_options(patterns).should_validate_formats(true);
    options.build(schema).map_err(|error| SchemaError::Invalid(shorten(&error.to_string())))
}

fn vocabulary(schema: &Value) -> Result<(), SchemaError> {
    let Some(object) = schema.as_object() else {
        return Ok(());
    };
    for (keyword, value) in object {
        let keyword = keyword.as_str();
        if ONE.contains(&keyword) {
            vocabulary(value)?;
        } else if MANY.contains(&keyword) {
            value.as_array().into_iter().flatten().try_for_each(vocabulary)?;
        } else if NAMED.contains(&keyword) {
            value
                .as_object()
                .into_iter()
                .flat_map(|named| named.values())
                .try_for_each(vocabulary)?;
        } else if !PLAIN.contains(&keyword) {
            return Err(unknown(keyword));
        }
    }
    match object.get("format").and_then(Value::as_str) {
        Some(format) if !FORMATS.contains(&format) => {
            let remedy = suggestion(format, FORMATS.iter().copied());
            Err(SchemaError::Format(format.to_owned(), remedy))
        }
        _ => Ok(()),
    }
}

fn unknown(keyword: &str) -> SchemaError {
    if keyword.starts_with('$') {
        return SchemaError::Reference(keyword.to_owned());
    }
    let known = [PLAIN, ONE, MANY, NAMED].concat();
    SchemaError::Keyword(keyword.to_owned(), suggestion(keyword, known.into_iter()))
}

/// Cuts a message that quotes a long value.
pub(crate) fn shorten(message: &str) -> String {
    const LIMIT: usize = 300;
    match message.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

/// Which scalars a schema's `type` admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scalars {
    pub(crate) text: bool,
    pub(crate) int: bool,
    pub(crate) float: bool,
    pub(crate) boolean: bool,
}

impl Scalars {
    /// What a schema admits; without a type everything, texts included.
    pub(crate) fn of(schema: Option<&Value>) -> Self {
        let Some(ty) = schema.and_then(|schema| schema.get("type")) else {
            return Self { text: true, int: true, float: true, boolean: true };
        };
        let several = ty.as_array().map(Vec::as_slice);
        let admits = |word: &str| {
            several.unwrap_or(std::slice::from_ref(ty)).iter().any(|each| each == word)
        };
        Self {
            text: admits("string"),
            int: admits("integer"),
            float: admits("number"),
            boolean: admits("boolean"),
        }
    }

    /// Whether it admits any.
    pub(crate) fn any(self) -> bool {
        self.text || self.int || self.float || self.boolean
    }

    /// The words for it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self { boolean: true, int: false, float: false, .. } => "`true` or `false`",
            Self { int: true, float: false, .. } => "a whole number of 64 bits",
            Self { .. } => "a finite number",
        }
    }
}
