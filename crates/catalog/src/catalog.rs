//! The catalog: object types and rules, parsed once and shared.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use fieldkeep_model::{CatalogHash, TypeName};

use crate::action::{Action, Query};
use crate::error::{CatalogError, Problems, suggestion};
use crate::judges::Judges;
use crate::limit;
use crate::object::ObjectType;
use crate::read;
use crate::rule::{By, Dead, Engine, Rule};

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
        let rules =
            read::rules::compile(&raw.types, &raw.modules, raw.rules, &mut engine, &mut problems);
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

    /// A module of WebAssembly as it is to stand in a catalog, under that name.
    ///
    /// # Errors
    /// What would be wrong with it there.
    pub fn module_text(name: &str, wasm: &[u8]) -> Result<String, Vec<CatalogError>> {
        let text = read::rules::module_text(name, wasm);
        Self::parse(&format!("catalog = 1\n{text}"))?;
        Ok(text)
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

    /// The rules in Rust that the catalog names and a relay does not have, as errors of this catalog.
    #[must_use]
    pub fn unjudged(&self, judges: &Judges) -> Vec<CatalogError> {
        let rules =
            self.0.types.values().flat_map(|ty| ty.rules.iter().map(move |rule| (ty, rule)));
        let missing = rules.filter_map(|(ty, rule)| {
            let By::Judge(name) = &rule.by else { return None };
            if judges.names().any(|known| known == name) {
                return None;
            }
            let key = format!("type.{}.rule.{}.judge", ty.name, rule.name);
            let problem = format!("this relay has no judge `{name}`");
            let remedy = match judges.names().next() {
                Some(_) => suggestion(name, judges.names()),
                None => "only a program that embeds the relay brings judges".to_owned(),
            };
            Some(rule.place.error(key, problem, remedy))
        });
        missing.collect()
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Why a rule of a type decides nothing, if that can be proven.
    #[must_use]
    pub fn dead_rule(&self, ty: &ObjectType, rule: &Rule) -> Option<Dead> {
        ty.dead(rule, self.engine())
    }
}
