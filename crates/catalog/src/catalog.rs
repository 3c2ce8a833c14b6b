//! The catalog: object types and rules, parsed once and shared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use fieldkeep_model::{CatalogHash, TypeName};

use crate::action::{Action, Query};
use crate::error::{CatalogError, Place, Problems};
use crate::limit;
use crate::object::{Field, ObjectType};
use crate::read::{self, RawRule};
use crate::rule::{Engine, Rule, Vocabulary};

/// What an organisation allows: its object types with their fields and rules. Cheap to clone.
#[derive(Clone)]
pub struct Catalog(Arc<Inner>);

struct Inner {
    source: String,
    hash: CatalogHash,
    types: BTreeMap<TypeName, ObjectType>,
    actions: BTreeMap<String, Action>,
    queries: BTreeMap<String, Query>,
    engine: Engine,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Catalog({})", self.0.hash)
    }
}

impl Catalog {
    /// Reads a catalog.
    ///
    /// # Errors
    /// All that is wrong with it, in the order of the file, as far as it can be told apart: what
    /// TOML refuses, unknown keys and kinds, references to undeclared types, schemas, and rules
    /// that do not parse, name what does not exist, or may cost too much.
    pub fn parse(source: &str) -> Result<Self, Vec<CatalogError>> {
        let mut problems = Problems::new(source);
        if source.len() > limit::CATALOG {
            let problem = format!("the catalog is longer than {} KiB", limit::CATALOG / 1024);
            problems.add(&(0..0), "", problem, "shorten it");
            return Err(problems.into_errors());
        }
        let mut engine = Engine::new();
        let raw = read::read(source, &mut engine, &mut problems);
        let rules = compile_rules(&raw.types, raw.rules, &mut engine, &mut problems);
        let errors = problems.into_errors();
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut types = raw.types;
        for (name, rule) in rules {
            types.entry(name).and_modify(|ty| ty.rules.push(rule));
        }
        engine.seal();
        let (source, hash) = (source.to_owned(), CatalogHash::of(source));
        let (actions, queries) = (raw.actions, raw.queries);
        Ok(Self(Arc::new(Inner { source, hash, types, actions, queries, engine })))
    }

    /// The text that it was read from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// blake3 of that text.
    #[must_use]
    pub fn hash(&self) -> CatalogHash {
        self.0.hash
    }

    /// The object types by name.
    #[must_use]
    pub fn types(&self) -> &BTreeMap<TypeName, ObjectType> {
        &self.0.types
    }

    /// One object type.
    #[must_use]
    pub fn ty(&self, name: &TypeName) -> Option<&ObjectType> {
        self.0.types.get(name)
    }

    /// The actions by name.
    #[must_use]
    pub fn actions(&self) -> &BTreeMap<String, Action> {
        &self.0.actions
    }

    /// The queries by name.
    #[must_use]
    pub fn queries(&self) -> &BTreeMap<String, Query> {
        &self.0.queries
    }

    /// That the SQL of a query cannot be used, as an error of this catalog.
    #[must_use]
    pub fn refuse_query(&self, query: &Query, problem: impl Into<String>) -> CatalogError {
        let remedy = "read the views of the types, which have `id`, their fields and `held`";
        query.place.error(format!("query.{}.sql", query.name), problem, remedy)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// What keeps `next` from replacing this catalog once this one is published: scope field,
    /// bucket count and the kinds of fields are frozen, and what is declared stays declared. Lines
    /// are those of `next`.
    #[must_use]
    pub fn check_successor(&self, next: &Self) -> Vec<CatalogError> {
        let mut errors = Vec::new();
        for (name, old) in self.types() {
            match next.ty(name) {
                Some(new) => succeed_type(old, new, &mut errors),
                None => {
                    let problem = format!("the type `{name}` is published and cannot be removed");
                    let place = Place { line: 1, column: 1 };
                    errors.push(place.error(format!("type.{name}"), problem, "put it back"));
                }
            }
        }
        errors.sort_by_key(|error| (error.line, error.column));
        errors
    }
}

impl Catalog {
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
}

fn same_type(old: &ObjectType, new: &ObjectType) -> bool {
    let rules = old.rules.len() == new.rules.len()
        && old.rules.iter().zip(&new.rules).all(|(old, new)| {
            (&old.name, &old.cel, &old.reason) == (&new.name, &new.cel, &new.reason)
        });
    rules && old.scope == new.scope && same_fields(&old.fields, &new.fields)
}

fn same_fields(old: &BTreeMap<String, Field>, new: &BTreeMap<String, Field>) -> bool {
    let read = |field: &Field| {
        let Field { kind, reference, required, unique, schema, attachments, .. } = field;
        let files = attachments.as_ref().map(|files| (files.max_count, files.media.clone()));
        (*kind, reference.clone(), *required, *unique, schema.clone(), files)
    };
    old.len() == new.len()
        && old.iter().all(|(name, old)| {
            let same =
                |new: &Field| read(old) == read(new) && same_fields(&old.children, &new.children);
            new.get(name).is_some_and(same)
        })
}

/// Compiles every rule against the fields of its type and of the types that it refers to.
fn compile_rules(
    types: &BTreeMap<TypeName, ObjectType>,
    raw: Vec<RawRule>,
    engine: &mut Engine,
    problems: &mut Problems<'_>,
) -> Vec<(TypeName, Rule)> {
    let mut rules = Vec::new();
    for rule in raw {
        let vocabulary = Vocabulary::new(&types[&rule.ty], types);
        match Rule::compile(rule.name, rule.cel, rule.reason, &vocabulary, engine) {
            Ok(compiled) => rules.push((rule.ty, compiled)),
            Err(error) => problems.add(&rule.span, rule.path, error.to_string(), error.remedy()),
        }
    }
    rules
}

fn succeed_type(old: &ObjectType, new: &ObjectType, errors: &mut Vec<CatalogError>) {
    let key = format!("type.{}", old.name);
    let way = "put it back, or declare another type beside it";
    if old.scope != new.scope {
        let [was, is] = [old, new].map(|ty| ty.scope.as_deref().unwrap_or("none"));
        let problem = format!("the scope field is published as `{was}` and cannot become `{is}`");
        errors.push(new.place.error(format!("{key}.scope"), problem, way));
    }
    if old.buckets != new.buckets {
        let problem = format!("published with {} buckets, not {}", old.buckets, new.buckets);
        errors.push(new.place.error(format!("{key}.buckets"), problem, way));
    }
    succeed_fields(&old.fields, &new.fields, &key, new, way, errors);
}

fn succeed_fields(
    old: &BTreeMap<String, Field>,
    new: &BTreeMap<String, Field>,
    path: &str,
    ty: &ObjectType,
    way: &str,
    errors: &mut Vec<CatalogError>,
) {
    for (name, old) in old {
        let key = format!("{path}.field.{name}");
        match new.get(name) {
            None => {
                let problem = format!("the field `{name}` is published and cannot be removed");
                errors.push(ty.place.error(key, problem, way));
            }
            Some(new) if new.kind != old.kind => {
                let (was, is) = (old.kind.word(), new.kind.word());
                let problem = format!("published as a {was}, it cannot become a {is}");
                errors.push(new.place.error(key, problem, way));
            }
            Some(new) => succeed_fields(&old.children, &new.children, &key, ty, way, errors),
        }
    }
}
