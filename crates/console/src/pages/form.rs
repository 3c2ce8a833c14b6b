//! The form of a record: an input for each field of the catalog, and from what comes back the words of
//! an edit. Only what the user changed is written, so that what others wrote meanwhile stays.

use std::collections::BTreeMap;

use fieldkeep_catalog::{Field, Kind, ObjectType};
use fieldkeep_device::fresh_id;
use serde_json::{Map, Value};

use super::words::{self, label};

/// An input of a form.
#[derive(Debug)]
pub(super) struct Input {
    /// The field, as an edit names it: `customer`, or `lines[7].quantity`.
    pub(super) name: String,
    pub(super) label: String,
    pub(super) shape: Shape,
    /// What is in it.
    pub(super) value: String,
    /// What was in it when it was first shown.
    pub(super) was: String,
    pub(super) hint: String,
    pub(super) required: bool,
}

/// How a field is typed in.
#[derive(Debug)]
pub(super) enum Shape {
    Line,
    Area,
    Number {
        whole: bool,
    },
    /// One of those.
    Choice(Vec<(String, String)>),
    /// A number that is added to.
    Counter,
    /// What says where the record lies: it is never changed.
    Fixed,
    /// Children, and the inputs of one more, with its id where that is typed.
    Set {
        children: Vec<Child>,
        fresh: Vec<Input>,
        fresh_id: Option<String>,
    },
}

impl Input {
    pub(super) fn is_wide(&self) -> bool {
        matches!(self.shape, Shape::Area)
    }

    pub(super) fn is_fixed(&self) -> bool {
        matches!(self.shape, Shape::Fixed)
    }

    pub(super) fn is_counter(&self) -> bool {
        matches!(self.shape, Shape::Counter)
    }
}

/// A child of a set.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) id: String,
    pub(super) inputs: Vec<Input>,
    /// Whether it is ticked to be removed.
    pub(super) removed: bool,
}

/// What came back of a form.
#[derive(Debug, Default)]
pub(super) struct Answers(Vec<(String, String)>);

impl Answers {
    pub(super) fn new(pairs: Vec<(String, String)>) -> Self {
        // Browsers end lines as the network does.
        Self(pairs.into_iter().map(|(name, value)| (name, value.replace("\r\n", "\n"))).collect())
    }

    /// The id that was typed for a record that is to be made.
    pub(super) fn id(&self) -> Option<String> {
        self.get("id", "").filter(|id| !id.trim().is_empty()).map(|id| id.trim().to_owned())
    }

    fn get(&self, kind: &str, name: &str) -> Option<&str> {
        let mut all = self.0.iter();
        let found = all.find(|(key, _)| key.split_once(':').unwrap_or((key, "")) == (kind, name));
        found.map(|(_, value)| value.as_str())
    }

    /// A set to which an entry is to be added that has an id and nothing else.
    pub(super) fn lonely(&self) -> Option<&str> {
        let named = self.0.iter().filter_map(|(key, id)| Some((key.strip_prefix("newid:")?, id)));
        let mut lonely = named.filter(|(set, id)| {
            let added = format!("{set}.");
            let has_field = |(key, value): &(String, String)| {
                let (kind, name) = key.split_once(':').unwrap_or_default();
                matches!(kind, "new" | "newadd") && name.starts_with(&added) && !value.is_empty()
            };
            !id.trim().is_empty() && !self.0.iter().any(has_field)
        });
        lonely.next().map(|(set, _)| set)
    }

    /// The edit as words: what differs from what was shown.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut added: Vec<(&str, String)> = Vec::new();
        for (key, value) in &self.0 {
            let Some((kind, name)) = key.split_once(':') else { continue };
            match kind {
                "f" if self.get("was", name).unwrap_or_default() != value => {
                    words.push(format!("{name}={value}"));
                }
                "add" if !value.trim().is_empty() => {
                    let value = value.trim();
                    words.push(format!("{name}+={}", value.strip_prefix('+').unwrap_or(value)));
                }
                "remove" => words.push(format!("{name}=")),
                "new" | "newadd" if !value.is_empty() => {
                    let Some((set, field)) = name.split_once('.') else { continue };
                    if !added.iter().any(|(other, _)| *other == set) {
                        let named = self.get("newid", set).filter(|id| !id.trim().is_empty());
                        added.push((
                            set,
                            named.map_or_else(|| fresh_id().to_string(), |id| id.trim().to_owned()),
                        ));
                    }
                    let id =
                        added.iter().find(|(other, _)| *other == set).map(|(_, id)| id.as_str());
                    let sign = if kind == "newadd" { "+=" } else { "=" };
                    words.push(format!("{set}[{}].{field}{sign}{value}", id.unwrap_or_default()));
                }
                _ => {}
            }
        }
        words
    }
}

/// The inputs of a type, with what a record has, or what was typed already.
pub(super) fn inputs(
    object: &ObjectType,
    fields: &Map<String, Value>,
    answers: &Answers,
    exists: bool,
) -> Vec<Input> {
    // Files are attached where the record is shown.
    let typed = object.fields.iter().filter(|(_, field)| field.kind != Kind::Attachment);
    let mut ranked: Vec<_> = typed.collect();
    // What takes the most room comes last.
    let room = |kind| match kind {
        Kind::Register | Kind::Counter => 0,
        Kind::Text | Kind::Json => 1,
        Kind::Set | Kind::Attachment => 2,
    };
    ranked.sort_by_key(|(name, field)| (room(field.kind), !field.required, (*name).clone()));
    let inputs = ranked.into_iter().map(|(name, field)| {
        let fixed = exists && object.scope.as_ref() == Some(name);
        input(name, name, field, fields.get(name), answers, fixed)
    });
    inputs.collect()
}

/// The inputs of what an action or a query asks for.
pub(super) fn fields(
    asked: &BTreeMap<String, Field>,
    known: &Map<String, Value>,
    answers: &Answers,
) -> Vec<Input> {
    let inputs =
        asked.iter().map(|(name, field)| input(name, name, field, known.get(name), answers, false));
    inputs.collect()
}

fn input(
    path: &str,
    name: &str,
    field: &Field,
    value: Option<&Value>,
    answers: &Answers,
    fixed: bool,
) -> Input {
    let was = match (field.kind, value) {
        (_, None) | (Kind::Counter | Kind::Set | Kind::Attachment, _) => String::new(),
        (Kind::Json, Some(value)) => value.to_string(),
        (Kind::Register | Kind::Text, Some(value)) => typed_text(value),
    };
    let kind = if field.kind == Kind::Counter { "add" } else { "f" };
    let typed = answers.get(kind, path).map(str::to_owned);
    // A form that comes back keeps what it was first shown with: only that tells what was changed.
    let was = answers.get("was", path).map_or(was, str::to_owned);
    let shape = if fixed { Shape::Fixed } else { shape(path, field, value, answers) };
    let mut hint = match (&field.reference, field.kind) {
        (Some(ty), Kind::Register) => {
            format!("Refers to {}, by id", label(ty.as_str()).to_lowercase())
        }
        (_, Kind::Counter) => {
            format!("It is {} and is added to", value.map_or("0".into(), words::value))
        }
        (_, Kind::Json) => "JSON".to_owned(),
        _ if fixed => "It says where the record is kept and cannot change".to_owned(),
        _ => String::new(),
    };
    if field.unique {
        hint = format!(
            "{hint}{}No other record may have the same",
            if hint.is_empty() { "" } else { ". " }
        );
    }
    Input {
        name: path.to_owned(),
        label: label(name),
        shape,
        value: typed.unwrap_or_else(|| was.clone()),
        was,
        hint,
        required: field.required,
    }
}

fn shape(path: &str, field: &Field, value: Option<&Value>, answers: &Answers) -> Shape {
    let schema = |name: &str| field.schema.as_ref().and_then(|schema| schema.get(name));
    match field.kind {
        Kind::Counter => Shape::Counter,
        Kind::Attachment => Shape::Fixed,
        Kind::Text | Kind::Json => Shape::Area,
        Kind::Set => {
            let empty = Vec::new();
            let children = value.and_then(Value::as_array).unwrap_or(&empty).iter();
            let children = children.filter_map(|child| {
                let id = child.get("id")?.as_str()?.to_owned();
                let inputs = field.children.iter().map(|(name, field)| {
                    let path = format!("{path}[{id}].{name}");
                    input(&path, name, field, child.get(name), answers, false)
                });
                let inputs = inputs.collect();
                let removed = answers.get("remove", &format!("{path}[{id}]")).is_some();
                Some(Child { id, inputs, removed })
            });
            let fresh = field.children.iter().map(|(name, field)| {
                let path = format!("{path}.{name}");
                let kind = if field.kind == Kind::Counter { "newadd" } else { "new" };
                let typed = answers.get(kind, &path).unwrap_or_default();
                let blank = input(&path, name, field, None, &Answers::default(), false);
                Input { value: typed.to_owned(), ..blank }
            });
            let typed = answers.get("newid", path).unwrap_or_default().to_owned();
            let fresh_id = field.reference.is_some().then_some(typed);
            Shape::Set { children: children.collect(), fresh: fresh.collect(), fresh_id }
        }
        Kind::Register => {
            // What is stored, or was typed, can be none of what is allowed: the form keeps it all the same.
            let typed = answers.get("f", path).map(str::to_owned);
            let stored = typed.or_else(|| value.map(typed_text)).unwrap_or_default();
            let choice = |mut options: Vec<(String, String)>| {
                if !stored.is_empty() && options.iter().all(|(value, _)| *value != stored) {
                    options.push((stored.clone(), stored.clone()));
                }
                Shape::Choice(options)
            };
            if stored.contains('\n') {
                return Shape::Area;
            }
            if let Some(options) = schema("enum").and_then(Value::as_array) {
                let options = options.iter().map(|value| (typed_text(value), words::value(value)));
                return choice(options.collect());
            }
            let number = stored.is_empty() || stored.parse::<f64>().is_ok();
            match schema("type").and_then(Value::as_str) {
                Some("integer") if number => Shape::Number { whole: true },
                Some("number") if number => Shape::Number { whole: false },
                Some("boolean") => {
                    let options = [("true", "yes"), ("false", "no")];
                    choice(options.map(|(v, l)| (v.to_owned(), l.to_owned())).to_vec())
                }
                _ if schema("maxLength").and_then(Value::as_u64).is_some_and(|most| most > 120) => {
                    Shape::Area
                }
                _ => Shape::Line,
            }
        }
    }
}

/// A value as it is typed in.
fn typed_text(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            words::value(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pairs: &[(&str, &str)]) -> Vec<String> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Answers::new(pairs.collect()).words()
    }

    #[test]
    fn only_what_was_changed_is_written() {
        let same =
            [("was:name", "Kiosk"), ("f:name", "Kiosk"), ("was:city", "Riga"), ("f:city", "")];
        assert_eq!(words(&same), ["city="]);
        assert_eq!(words(&[("was:note", "a\nb"), ("f:note", "a\r\nb")]), Vec::<String>::new());
    }

    #[test]
    fn counters_are_added_to_and_children_edited_removed_and_made() {
        assert_eq!(words(&[("add:stock", "+3"), ("add:boxes", " ")]), ["stock+=3"]);
        assert_eq!(
            words(&[("f:lines[7].quantity", "2"), ("remove:lines[8]", "on")]),
            ["lines[7].quantity=2", "lines[8]="]
        );
        let made =
            words(&[("newid:lines", "p1"), ("new:lines.product", "tea"), ("new:lines.note", "")]);
        assert_eq!(made, ["lines[p1].product=tea"]);
        let counted = words(&[("newid:lines", " p1 "), ("newadd:lines.boxes", "3")]);
        assert_eq!(counted, ["lines[p1].boxes+=3"]);
    }

    #[test]
    fn an_entry_with_an_id_and_nothing_else_is_noticed() {
        let answers = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Answers::new(pairs.collect())
        };
        assert_eq!(
            answers(&[("newid:lines", "p1"), ("new:lines.note", "")]).lonely(),
            Some("lines")
        );
        assert_eq!(answers(&[("newid:lines", "p1"), ("new:lines.note", "x")]).lonely(), None);
    }

    #[test]
    fn a_stored_value_that_is_not_allowed_stays_in_the_form() {
        let catalog = "catalog = 1\n[type.order.field]\n\
            state = { schema = { enum = [\"draft\", \"placed\"] } }\n\
            paid = { schema = { type = \"boolean\" } }\n\
            pages = { schema = { type = \"integer\" } }\n";
        let catalog = fieldkeep_catalog::Catalog::parse(catalog).expect("a catalog");
        let order = catalog.ty(&"order".parse().expect("a name")).expect("a type");
        let fields = serde_json::json!({"state": "lost", "paid": "perhaps", "pages": "many"});
        let fields = fields.as_object().expect("an object");
        for input in inputs(order, fields, &Answers::default(), true) {
            let kept = match &input.shape {
                Shape::Choice(options) => options.iter().any(|(value, _)| *value == input.was),
                Shape::Line => true,
                Shape::Area
                | Shape::Number { .. }
                | Shape::Counter
                | Shape::Fixed
                | Shape::Set { .. } => false,
            };
            assert!(kept && input.value == input.was, "{input:?}");
        }
    }
}
