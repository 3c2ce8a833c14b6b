//! From what people and programs write to edits: words of a command line, cells of a table, JSON.
//!
//! Values take the type that the field's schema says: without one, and where the schema admits
//! texts, a word stays a text, so `007` stays `007`. Refuses what a field cannot represent; whether
//! a value is allowed is for the judge to say.

use fieldkeep_model::{Edit, RecordId, Scalar};

use crate::error::suggestion;
use crate::object::{Field, Kind, ObjectType};
use crate::schema::Scalars;

mod cells;
mod json;
mod towards;
mod words;

pub use towards::{child_of, value_of};
pub(crate) use words::input_from_words;

/// Why something written is no edit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A word of the command line that has no `=` or no field before it.
    #[error("`{0}` is no edit: write field=value, counter+=1 or set[ID].field=value")]
    Word(String),
    /// The type has no such field.
    #[error("unknown field `{field}`: {remedy}")]
    UnknownField {
        /// The field, as `lines.quantity` in a child.
        field: String,
        /// The nearest that there is.
        remedy: String,
    },
    /// The field cannot hold this.
    #[error("`{field}` cannot hold this: {problem}")]
    Value {
        /// The field, as `lines.quantity` in a child.
        field: String,
        /// What it can hold.
        problem: String,
    },
    /// A child's id is missing or malformed.
    #[error(
        "a child of `{field}` needs an id of 1 to 128 bytes without `/` and control characters"
    )]
    ChildId {
        /// The set.
        field: String,
    },
}

/// The fields that a value may belong to: those of a type, or those of a set's children.
#[derive(Clone, Copy)]
struct Place<'a> {
    fields: &'a std::collections::BTreeMap<String, Field>,
    /// The set, empty for the record itself.
    set: &'a str,
}

impl<'a> Place<'a> {
    fn of(ty: &'a ObjectType) -> Self {
        Self { fields: &ty.fields, set: "" }
    }

    fn within(set: &'a str, field: &'a Field) -> Self {
        Self { fields: &field.children, set }
    }

    fn path(&self, name: &str) -> String {
        if self.set.is_empty() { name.to_owned() } else { format!("{}.{name}", self.set) }
    }

    fn field(&self, name: &str) -> Result<(&'a str, &'a Field), ValueError> {
        match self.fields.get_key_value(name) {
            Some((name, field)) => Ok((name, field)),
            None => {
                let remedy = suggestion(name, self.fields.keys().map(String::as_str));
                Err(ValueError::UnknownField { field: self.path(name), remedy })
            }
        }
    }

    fn set(&self, name: &str) -> Result<(&'a str, &'a Field), ValueError> {
        let (name, field) = self.field(name)?;
        if field.kind.has_children() {
            return Ok((name, field));
        }
        Err(self.refused(name, format!("it is a {} and has no children", field.kind.word())))
    }

    fn refused(&self, name: &str, problem: impl Into<String>) -> ValueError {
        ValueError::Value { field: self.path(name), problem: problem.into() }
    }

    /// The edit that sets a field to what a word says.
    fn word(&self, name: &str, field: &Field, word: &str) -> Result<Edit, ValueError> {
        let name_owned = name.to_owned();
        match field.kind {
            Kind::Register => {
                let scalars = Scalars::of(field.schema.as_ref());
                let scalar = scalar(scalars, word);
                let expected = || self.refused(name, format!("expected {}", scalars.words()));
                Ok(Edit::Put(name_owned, scalar.ok_or_else(expected)?))
            }
            Kind::Text => Ok(Edit::Text(name_owned, word.to_owned())),
            Kind::Counter => {
                Err(self.refused(name, format!("it is a counter: write {name}+=1 or {name}-=1")))
            }
            Kind::Attachment => {
                let problem = "it holds files: write `fieldkeep attach`, or remove one by its id";
                Err(self.refused(name, problem))
            }
            Kind::Json | Kind::Set => {
                let value = serde_json::from_str(word)
                    .map_err(|error| self.refused(name, format!("expected JSON: {error}")))?;
                self.json(name, field, &value)
            }
        }
    }

    fn count(&self, name: &str, field: &Field, by: Option<i64>) -> Result<Edit, ValueError> {
        if field.kind != Kind::Counter {
            let problem = format!("it is a {}, and only a counter is added to", field.kind.word());
            return Err(self.refused(name, problem));
        }
        let by = by.ok_or_else(|| self.refused(name, "expected a whole number of 64 bits"))?;
        Ok(Edit::Add(name.to_owned(), by))
    }

    fn child_id(&self, name: &str, id: &str) -> Result<String, ValueError> {
        let malformed = |_| ValueError::ChildId { field: name.to_owned() };
        RecordId::new(id).map(String::from).map_err(malformed)
    }
}

/// Reads a word as the schema admits.
fn scalar(admitted: Scalars, word: &str) -> Option<Scalar> {
    if admitted.text {
        return Some(Scalar::Str(word.to_owned()));
    }
    let int = || word.parse().ok().filter(|_| admitted.int).map(Scalar::Int);
    let float = || word.parse().ok().filter(|float: &f64| admitted.float && float.is_finite());
    let boolean = || match word.to_ascii_lowercase().as_str() {
        "true" if admitted.boolean => Some(Scalar::Bool(true)),
        "false" if admitted.boolean => Some(Scalar::Bool(false)),
        _ => None,
    };
    int().or_else(|| float().map(Scalar::Float)).or_else(boolean)
}
