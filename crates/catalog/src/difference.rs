//! What of one catalog is otherwise in the next: what may not be, what has records judged again, and
//! the declarations by name.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::TypeName;
use serde_json::Value;

use crate::catalog::Catalog;
use crate::error::{CatalogError, Place};
use crate::object::{Field, Kind, ObjectType};

/// A declaration that is not the same in the next catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The type that it belongs to.
    pub ty: TypeName,
    /// What it is.
    pub part: Part,
    /// What became of it.
    pub turn: Turn,
}

/// A declaration by which records of a type are judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The type itself.
    Type,
    /// A field, as `quantity` or `lines.quantity`.
    Field(String),
    /// A rule.
    Rule(String),
}

/// What became of a declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is new.
    Added,
    /// It says something else.
    Changed,
    /// It is gone.
    Removed,
}

impl Turn {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

impl Catalog {
    /// What keeps `next` from replacing this catalog once this one is published: in a generation of
    /// a type scope field, bucket count and the kinds of fields are frozen, and what is declared
    /// stays declared. Lines are those of `next`.
    #[must_use]
    pub fn check_successor(&self, next: &Self) -> Vec<CatalogError> {
        self.compare(next, true)
    }

    /// The same for one that need not follow this one at once: what `next` does not declare is no
    /// matter, but what both declare has the same scope field, bucket count and kinds.
    #[must_use]
    pub fn check_frozen(&self, next: &Self) -> Vec<CatalogError> {
        self.compare(next, false)
    }

    fn compare(&self, next: &Self, follows: bool) -> Vec<CatalogError> {
        let mut succession = Succession { errors: Vec::new(), follows };
        for (name, old) in self.types() {
            match next.ty(name) {
                Some(new) => succession.ty(old, new),
                None => succession.gone(
                    Place { line: 1, column: 1 },
                    format!("type.{name}"),
                    format!("the type `{name}` is published and cannot be removed"),
                    "put it back",
                ),
            }
        }
        succession.errors.sort_by_key(|error| (error.line, error.column));
        succession.errors
    }

    /// The types that `next` starts afresh.
    #[must_use]
    pub fn reshaped_types(&self, next: &Self) -> Vec<&ObjectType> {
        let both = self.types().iter().filter_map(|(name, old)| Some((old, next.ty(name)?)));
        both.filter(|(old, new)| new.generation > old.generation).map(|(old, _)| old).collect()
    }

    /// That types are started afresh where that was not asked for, as errors of `next`.
    #[must_use]
    pub fn check_generations(&self, next: &Self) -> Vec<CatalogError> {
        let reshaped = self.reshaped_types(next).into_iter();
        let errors = reshaped.filter_map(|old| {
            let (name, new) = (&old.name, next.ty(&old.name)?);
            let problem =
                format!("a new generation, where {} is in force, is not published", old.generation);
            let remedy = format!("`fieldkeep relay reshape {name} --catalog FILE` starts it");
            Some(new.place.error(format!("type.{name}.generation"), problem, remedy))
        });
        errors.collect()
    }

    /// The types of this catalog by which records are judged otherwise in `next`, and those that it
    /// lacks: a judgement depends on the declaration of its own type alone.
    #[must_use]
    pub fn changed_types(&self, next: &Self) -> Vec<TypeName> {
        let names: BTreeSet<&TypeName> = self.types().keys().chain(next.types().keys()).collect();
        let changed = names.into_iter().filter(|name| match (self.ty(name), next.ty(name)) {
            (Some(old), Some(new)) => !same_type(old, new),
            (None, _) | (_, None) => true,
        });
        changed.cloned().collect()
    }

    /// What is otherwise in `next` of that by which records are judged, by type.
    #[must_use]
    pub fn differences(&self, next: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        for ty in self.changed_types(next) {
            let mut tell = |part, turn| found.push(Difference { ty: ty.clone(), part, turn });
            match (self.ty(&ty), next.ty(&ty)) {
                (Some(old), Some(new)) => {
                    if (&old.scope, old.generation) != (&new.scope, new.generation) {
                        tell(Part::Type, Turn::Changed);
                    }
                    turns(fields_of(old), fields_of(new), Part::Field, &mut tell);
                    turns(rules_of(old), rules_of(new), Part::Rule, &mut tell);
                }
                (None, Some(_)) => tell(Part::Type, Turn::Added),
                (Some(_), None) => tell(Part::Type, Turn::Removed),
                (None, None) => {}
            }
        }
        found
    }
}

/// What became of each of some declarations.
fn turns<T: PartialEq>(
    old: BTreeMap<String, T>,
    new: BTreeMap<String, T>,
    part: fn(String) -> Part,
    tell: &mut impl FnMut(Part, Turn),
) {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) if old != new => tell(part(name.clone()), Turn::Changed),
            (None, Some(_)) => tell(part(name.clone()), Turn::Added),
            (Some(_), None) => tell(part(name.clone()), Turn::Removed),
            _ => {}
        }
    }
}

fn same_type(old: &ObjectType, new: &ObjectType) -> bool {
    let names = |ty: &ObjectType| ty.rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>();
    names(old) == names(new)
        && rules_of(old) == rules_of(new)
        && (&old.scope, old.generation) == (&new.scope, new.generation)
        && fields_of(old) == fields_of(new)
}

/// What decides each rule, and its reason.
fn rules_of(ty: &ObjectType) -> BTreeMap<String, (&str, &str)> {
    let rules = ty.rules.iter();
    rules.map(|rule| (rule.name.clone(), (rule.text.as_str(), rule.reason.as_str()))).collect()
}

/// By what the values of a field are judged.
#[derive(PartialEq)]
struct Demands<'c> {
    kind: Kind,
    reference: Option<&'c TypeName>,
    required: bool,
    unique: bool,
    schema: Option<&'c Value>,
    files: Option<(u64, &'c [String])>,
}

/// What each field demands, those of children included.
fn fields_of(ty: &ObjectType) -> BTreeMap<String, Demands<'_>> {
    let mut found = BTreeMap::new();
    for (name, field) in &ty.fields {
        found.insert(name.clone(), demands(field));
        for (inner, child) in &field.children {
            found.insert(format!("{name}.{inner}"), demands(child));
        }
    }
    found
}

fn demands(field: &Field) -> Demands<'_> {
    Demands {
        kind: field.kind,
        reference: field.reference.as_ref(),
        required: field.required,
        unique: field.unique,
        schema: field.schema.as_ref(),
        files: field.attachments.as_ref().map(|files| (files.max_count, &*files.media)),
    }
}

/// Whether one catalog may come after another.
struct Succession {
    errors: Vec<CatalogError>,
    /// Whether it follows at once, and has to declare what the other does.
    follows: bool,
}

impl Succession {
    fn gone(&mut self, place: Place, key: String, problem: String, way: &str) {
        if self.follows {
            self.errors.push(place.error(key, problem, way));
        }
    }

    fn ty(&mut self, old: &ObjectType, new: &ObjectType) {
        let key = format!("type.{}", old.name);
        if new.generation < old.generation {
            let problem = format!(
                "this is of generation {}, and {} has been started afresh since: {} is in force",
                new.generation, old.name, old.generation
            );
            let remedy = "`fieldkeep relay catalog show > FILE` prints what is in force: write \
                          into that what is to hold, and publish it";
            self.errors.push(new.place.error(format!("{key}.generation"), problem, remedy));
            return;
        }
        let afresh = new.generation > old.generation;
        if old.scope != new.scope && !afresh {
            let [was, is] = [old, new].map(|ty| ty.scope.as_deref().unwrap_or("none"));
            let problem =
                format!("the scope field is published as `{was}` and cannot become `{is}`");
            self.errors.push(new.place.error(format!("{key}.scope"), problem, way(old)));
        }
        if old.buckets != new.buckets && !afresh {
            let problem = format!("published with {} buckets, not {}", old.buckets, new.buckets);
            self.errors.push(new.place.error(format!("{key}.buckets"), problem, way(old)));
        }
        self.fields(&old.fields, &new.fields, &key, (old, new));
    }

    fn fields(
        &mut self,
        old: &BTreeMap<String, Field>,
        new: &BTreeMap<String, Field>,
        path: &str,
        types: (&ObjectType, &ObjectType),
    ) {
        let afresh = types.1.generation > types.0.generation;
        for (name, old) in old {
            let key = format!("{path}.field.{name}");
            match new.get(name) {
                None => {
                    let problem = format!("the field `{name}` is published and cannot be removed");
                    self.gone(types.1.place, key, problem, "put it back");
                }
                Some(new) if new.kind != old.kind && !(afresh && old.kind.becomes(new.kind)) => {
                    let (was, is) = (old.kind.word(), new.kind.word());
                    let problem = format!("published as a {was}, it cannot become a {is}");
                    let way =
                        if old.kind.becomes(new.kind) { way(types.0) } else { STAYS.to_owned() };
                    self.errors.push(new.place.error(key, problem, way));
                }
                Some(new) => self.fields(&old.children, &new.children, &key, types),
            }
        }
    }
}

/// What is done about what a generation does not allow.
fn way(ty: &ObjectType) -> String {
    format!("put it back, or start the type afresh: `fieldkeep relay reshape {}`", ty.name)
}

/// The same of what no generation allows.
const STAYS: &str = "put it back, or declare another field beside it";
