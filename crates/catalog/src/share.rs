//! Sharing: a record as plain text, for whoever has nothing but a messenger.
//!
//! A type says how by a template, which sees the record and the records that it refers to, one step
//! far, and nothing else: no clock, no files, no other template. It may loop, but not for ever: every
//! step and every byte that it makes costs fuel, and the text has a longest length. A type without a
//! template shows its fields. Coordinates become a link to a map.

use std::collections::BTreeMap;
use std::io::{self, Write};

use fieldkeep_model::{RecordKey, TypeName};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value as Shown, escape_formatter};
use serde_json::{Map, Value};

use crate::error::suggestion;
use crate::limit;
use crate::object::{Field, Kind, ObjectType, Reference, scalar_text};

/// The one template of an environment.
const NAME: &str = "share";
/// What a template sees, and the functions that it may call.
const SEEN: [&str; 4] = ["record", "ref", "id", "type"];
const FUNCTIONS: [&str; 4] = ["range", "dict", "cycler", "joiner"];
/// How deep what a template calls may nest.
const NESTING: usize = 32;
/// The fields by which a record is called, the first that it has.
pub const TITLES: [&str; 4] = ["name", "title", "label", "subject"];

/// How a record of a type is shared.
#[derive(Debug)]
pub(crate) struct Template {
    environment: Environment<'static>,
}

/// What is shared of a record.
#[derive(Debug)]
pub struct Sheet<'s> {
    /// The record.
    pub key: &'s RecordKey,
    /// Its fields.
    pub fields: &'s Map<String, Value>,
    /// The fields of the records that it refers to, as far as they are known. A template sees those of
    /// a field as `ref.customer`, those of a child of a set as `ref.lines[line.id].product`, and what
    /// the child's id refers to as `ref.lines[line.id].id`.
    pub referred: Vec<Referred>,
}

/// A record that another one refers to.
#[derive(Clone, Debug)]
pub struct Referred {
    /// By what.
    pub by: Reference,
    /// Its fields.
    pub fields: Map<String, Value>,
}

/// Why a record was not made a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template does not end within the steps that it may take.
    #[error("the template takes more than {} steps", limit::FUEL)]
    Endless,
    /// The text is too long.
    #[error("the text is longer than {} KiB", limit::SHARED / 1024)]
    TooLong,
    /// The template asks for what cannot be done, such as adding to a field that is absent.
    #[error("line {line} of the template: {problem}")]
    Failed {
        /// The line within the template, from 1.
        line: usize,
        /// What it cannot do.
        problem: String,
    },
}

/// What is wrong with a template, at which of its lines, and what to do.
pub(crate) struct Flaw {
    pub(crate) line: usize,
    pub(crate) problem: String,
    pub(crate) remedy: String,
}

impl Template {
    /// Compiles a template and tries it on a record without fields.
    pub(crate) fn compile(source: &str) -> Result<Self, Flaw> {
        let flaw =
            |line, problem: String, remedy: &str| Flaw { line, problem, remedy: remedy.into() };
        if source.len() > limit::TEMPLATE {
            let problem = format!("the template is longer than {} KiB", limit::TEMPLATE / 1024);
            return Err(flaw(1, problem, "shorten it"));
        }
        let mut environment = Environment::new();
        environment.set_fuel(Some(limit::FUEL));
        environment.set_recursion_limit(NESTING);
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        // What can be changed from within a loop could grow, and hold itself.
        environment.remove_global("namespace");
        environment.set_formatter(|out, state, value| {
            if value.is_undefined() || value.is_none() {
                return Ok(());
            }
            escape_formatter(out, state, value)
        });
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the delimiters are the usual ones"));
        let added = environment.add_template_owned(NAME, source.to_owned());
        added.map_err(|error| {
            let remedy = "see https://jinja.palletsprojects.com/templates; macros, blocks, includes \
                          and imports are left out";
            flaw(error.line().unwrap_or(1), said(&error), remedy)
        })?;
        let template = Self { environment };
        template.tried()?;
        Ok(template)
    }

    /// A template that never ends, or calls what there is not, is found by running it.
    fn tried(&self) -> Result<(), Flaw> {
        let fields = Shown::from_pairs(Vec::<(String, Shown)>::new());
        let Err(stop) = self.render(Shown::from_pairs([("record", fields)])) else {
            return Ok(());
        };
        const UNKNOWN: [ErrorKind; 3] =
            [ErrorKind::UnknownFilter, ErrorKind::UnknownTest, ErrorKind::UnknownFunction];
        let (line, remedy) = match &stop {
            Stop::TooLong => (1, "let it loop over the record alone"),
            Stop::Error(error) if error.kind() == ErrorKind::OutOfFuel => {
                (error.line().unwrap_or(1), "let it loop over the record alone")
            }
            Stop::Error(error) if UNKNOWN.contains(&error.kind()) => {
                (error.line().unwrap_or(1), "take one of those that jinja has built in")
            }
            // Of a record that has its fields it may be right.
            Stop::Error(_) => return Ok(()),
        };
        let problem = match TemplateError::from(stop) {
            TemplateError::Failed { problem, .. } => problem,
            error @ (TemplateError::Endless | TemplateError::TooLong) => error.to_string(),
        };
        Err(Flaw { line, problem, remedy: remedy.to_owned() })
    }

    /// The names that it looks up, as `record.price` or `ref.customer.name`, ascending.
    pub(crate) fn names(&self) -> Vec<String> {
        let template = self.environment.get_template(NAME).expect("it was added");
        let mut names: Vec<_> = template.undeclared_variables(true).into_iter().collect();
        names.sort_unstable();
        names
    }

    fn render(&self, context: Shown) -> Result<String, Stop> {
        let template = self.environment.get_template(NAME).expect("it was added");
        let mut text = Text::default();
        let rendered = template.render_captured_to(context, &mut text).map(drop);
        if text.is_full {
            return Err(Stop::TooLong);
        }
        rendered.map_err(Stop::Error)?;
        Ok(String::from_utf8_lossy(&text.bytes).into_owned())
    }
}

/// What ends a template before its end.
enum Stop {
    TooLong,
    Error(minijinja::Error),
}

impl From<Stop> for TemplateError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::TooLong => Self::TooLong,
            Stop::Error(error) if error.kind() == ErrorKind::OutOfFuel => Self::Endless,
            Stop::Error(error) => {
                Self::Failed { line: error.line().unwrap_or(1), problem: said(&error) }
            }
        }
    }
}

fn said(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

/// A text that grows to its longest length and no further.
#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_full |= self.bytes.len() + bytes.len() > limit::SHARED;
        if self.is_full {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ObjectType {
    /// A record of this type as plain text, with a link to a map where it has coordinates.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn shared_text(&self, sheet: &Sheet<'_>) -> Result<String, TemplateError> {
        let mut text = match &self.share {
            Some(template) => template.render(sheet.context())?,
            None => plain(sheet),
        };
        text.truncate(text.trim_end().len());
        if let Some(link) = self.map_link(sheet.fields) {
            text.push_str(if text.is_empty() { "" } else { "\n" });
            text.push_str(&link);
        }
        if text.len() > limit::SHARED {
            return Err(TemplateError::TooLong);
        }
        Ok(text)
    }

    /// Where a record is on a map, if it has coordinates of this world.
    fn map_link(&self, fields: &Map<String, Value>) -> Option<String> {
        let degrees = |field: &String, most: f64| {
            let degrees = fields.get(field)?.as_f64()?;
            (degrees.abs() <= most).then_some(degrees)
        };
        let (latitude, longitude) = self.location.as_ref()?;
        let (latitude, longitude) = (degrees(latitude, 90.0)?, degrees(longitude, 180.0)?);
        Some(format!("https://www.openstreetmap.org/?mlat={latitude}&mlon={longitude}"))
    }

    /// What is wrong with the names that this type's template looks up: the name, and the remedy.
    pub(crate) fn unseen(&self, types: &BTreeMap<TypeName, Self>) -> Vec<(String, String)> {
        let names = self.share.as_ref().map(Template::names).unwrap_or_default().into_iter();
        let unseen = names.filter_map(|name| {
            let remedy = self.remedy(&name, types)?;
            Some((name, remedy))
        });
        unseen.collect()
    }

    fn names(&self) -> Vec<&str> {
        self.fields.keys().map(String::as_str).collect()
    }

    /// What to do about a name that the template does not see; nothing if it does.
    fn remedy(&self, name: &str, types: &BTreeMap<TypeName, Self>) -> Option<String> {
        let mut steps = name.split('.');
        let (first, second, third) = (steps.next()?, steps.next(), steps.next());
        if FUNCTIONS.contains(&first) {
            return None;
        }
        let unknown = |name: Option<&str>, known: Vec<&str>| {
            let name = name.filter(|name| !known.contains(name))?;
            Some(suggestion(name, known.into_iter()))
        };
        match first {
            "record" => unknown(second, self.names()),
            "ref" => {
                let refers = |field: &Field| {
                    field.reference.is_some()
                        || field.children.values().any(|child| child.reference.is_some())
                };
                let fields = self.fields.iter().filter(|(_, field)| refers(field));
                unknown(second, fields.map(|(name, _)| name.as_str()).collect()).or_else(|| {
                    let field = self.fields.get(second?)?;
                    let register = field.kind == Kind::Register;
                    let ty = types.get(field.reference.as_ref().filter(|_| register)?)?;
                    unknown(third, ty.names())
                })
            }
            _ => unknown(Some(first), SEEN.to_vec()),
        }
    }
}

impl Sheet<'_> {
    fn context(&self) -> Shown {
        let mut referred = Map::new();
        for Referred { by: Reference { field, child, .. }, fields } in &self.referred {
            let fields = Value::Object(fields.clone());
            let Some(child) = child else {
                referred.insert(field.clone(), fields);
                continue;
            };
            let (set, inner) = field.split_once('.').unwrap_or((field, "id"));
            let mut place = &mut referred;
            for step in [set, child] {
                let next = place.entry(step).or_insert_with(|| Value::Object(Map::new()));
                place = next.as_object_mut().expect("nothing else is put there");
            }
            place.insert(inner.to_owned(), fields);
        }
        Shown::from_pairs([
            ("record", object(self.fields)),
            ("ref", object(&referred)),
            ("id", Shown::from(self.key.id.as_str())),
            ("type", Shown::from(self.key.ty.as_str())),
        ])
    }
}

fn object(fields: &Map<String, Value>) -> Shown {
    Shown::from_pairs(fields.iter().map(|(name, value)| (name.clone(), shown(value))))
}

fn shown(value: &Value) -> Shown {
    match value {
        Value::Null => Shown::from(()),
        Value::Bool(value) => Shown::from(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Shown::from(number),
            (None, Some(number)) => Shown::from(number),
            (None, None) => Shown::from(number.to_string()),
        },
        Value::String(text) => Shown::from(text.as_str()),
        Value::Array(items) => items.iter().map(shown).collect(),
        Value::Object(fields) => object(fields),
    }
}

/// What a record is called: by its name where it has one.
#[must_use]
pub fn title(fields: &Map<String, Value>) -> Option<&str> {
    let named = TITLES.iter().find_map(|name| fields.get(*name)?.as_str());
    named.filter(|name| !name.trim().is_empty())
}

/// The type, the title and the fields, one a line.
fn plain(sheet: &Sheet<'_>) -> String {
    let title = title(sheet.fields).unwrap_or(sheet.key.id.as_str());
    let mut text = format!("{}: {title}\n", words(sheet.key.ty.as_str()));
    for (name, value) in sheet.fields {
        let children = value.as_array().filter(|items| items.iter().all(Value::is_object));
        match children {
            None => text.push_str(&format!("{}: {}\n", words(name), line(value))),
            Some(children) if children.is_empty() => {}
            Some(children) => {
                text.push_str(&format!("{}:\n", words(name)));
                for child in children.iter().filter_map(Value::as_object) {
                    let id = child.get("id").map(line).unwrap_or_default();
                    let fields = child.iter().filter(|(name, _)| *name != "id");
                    let fields =
                        fields.map(|(name, value)| format!("{} {}", words(name), line(value)));
                    let fields = fields.collect::<Vec<_>>().join(", ");
                    text.push_str(&format!("- {id}: {fields}\n"));
                }
            }
        }
    }
    text
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}

fn line(value: &Value) -> String {
    scalar_text(value).unwrap_or_else(|| value.to_string())
}
