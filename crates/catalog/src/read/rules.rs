//! Rules as they are written, and the modules that they name: checked for their shape here, and compiled
//! when all types are known, because a rule may look into the records that a field refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use data_encoding::BASE64;
use fieldkeep_model::TypeName;
use fieldkeep_model::id::is_name;
use toml::de::{DeTable, DeValue};

use super::Reader;
use crate::error::{Problems, suggestion};
use crate::limit;
use crate::object::ObjectType;
use crate::rule::program::Program;
use crate::rule::{By, Engine, Rule, Vocabulary, Written};

/// Letters in a line of a module's text.
const LINE: usize = 96;

/// A rule as it is written.
pub(crate) struct RawRule {
    ty: TypeName,
    written: Written,
    by: RawBy,
    path: String,
    span: Range<usize>,
}

/// What is to decide.
enum RawBy {
    Cel(String),
    Declared { how: How, name: String, reads: Names, refs: Names },
}

/// What decides by what it declares that it reads.
enum How {
    Module,
    Judge { version: i64 },
}

/// Names with where each stands.
type Names = Vec<(String, Range<usize>)>;

/// The modules of a catalog by name.
pub(crate) type Modules = BTreeMap<String, Arc<Program>>;

impl Reader<'_, '_> {
    pub(super) fn modules(&mut self, root: &DeTable<'_>) -> Modules {
        let mut modules = Modules::new();
        for (name, value) in self.named_tables(root, "", "module") {
            let path = format!("module.{name}");
            if !is_name(name.get_ref()) {
                self.not_a_name(name, &path, "module");
            }
            let Some(table) = self.table(value, &path) else { continue };
            self.known_keys(table, &path, &["wasm"]);
            let (text, span) = self.needed_in(table, &path, "wasm", &name.span(), "a module");
            if text.is_empty() {
                continue;
            }
            let path = format!("{path}.wasm");
            let written: Vec<u8> =
                text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
            let Ok(wasm) = BASE64.decode(&written) else {
                let remedy =
                    "`fieldkeep relay catalog module FILE` prints it as it is to stand here";
                self.problems.add(&span, path, "this is no base64", remedy);
                continue;
            };
            if wasm.len() > limit::MODULE {
                let problem = format!("the module is longer than {} KiB", limit::MODULE / 1024);
                self.problems.add(&span, path, problem, "compile it for size, and strip it");
                continue;
            }
            match Program::new(&wasm) {
                Ok(program) => {
                    modules.insert(name.get_ref().to_string(), Arc::new(program));
                }
                Err(error) => self.problems.add(&span, path, error.to_string(), error.remedy()),
            }
        }
        modules
    }

    pub(super) fn raw_rules(&mut self, ty: &TypeName, table: &DeTable<'_>, path: &str) {
        let Some(value) = table.get("rule") else {
            return;
        };
        let path = format!("{path}.rule");
        let DeValue::Array(rules) = value.get_ref() else {
            let remedy = format!("write each rule under `[[{path}]]`");
            self.problems.add(&value.span(), path, "rules are a list", remedy);
            return;
        };
        let mut names: Vec<String> = Vec::new();
        for value in rules {
            let Some(table) = self.table(value, &path) else {
                continue;
            };
            let name = self.needed(table, &path, "name", &value.span());
            let by = self.decided_by(table, &path, &value.span());
            let reason = self.needed(table, &path, "reason", &value.span());
            let (Some(name), Some((by, key, span)), Some(reason)) = (name, by, reason) else {
                continue;
            };
            if !is_name(&name.0) || names.contains(&name.0) {
                let problem = format!("`{}` does not name a rule, or names a second one", name.0);
                let remedy = "use lower-case letters, digits and `_`, once in the type";
                self.problems.add(&name.1, format!("{path}.name"), problem, remedy);
            }
            let path = format!("{path}.{}.{key}", name.0);
            names.push(name.0.clone());
            let place = self.problems.place(&span);
            let written = Written { name: name.0, reason: reason.0, place };
            self.rules.push(RawRule { ty: ty.clone(), written, by, path, span });
        }
    }

    /// What decides a rule, with its key and where that stands.
    fn decided_by(
        &mut self,
        table: &DeTable<'_>,
        path: &str,
        span: &Range<usize>,
    ) -> Option<(RawBy, &'static str, Range<usize>)> {
        let ways = ["cel", "module", "judge"];
        let mut given = ways.into_iter().filter(|way| table.contains_key(*way));
        let way = given.next().unwrap_or("cel");
        if given.next().is_some() {
            let problem = "a rule is decided by `cel`, by a `module` or by a `judge`";
            self.problems.add(span, path, problem, "leave the others out");
            return None;
        }
        match way {
            "cel" => self.known_keys(table, path, &["name", "cel", "reason"]),
            "module" => {
                self.known_keys(table, path, &["name", "module", "reads", "refs", "reason"])
            }
            _ => {
                let known = ["name", "judge", "version", "reads", "refs", "reason"];
                self.known_keys(table, path, &known);
            }
        }
        let (text, at) = self.needed(table, path, way, span)?;
        if way == "cel" {
            return Some((RawBy::Cel(text), way, at));
        }
        if !table.contains_key("reads") {
            let problem = format!("a rule that a {way} decides needs `reads`");
            let remedy = "add `reads = [\"…\"]`: it sees those fields, and no others";
            self.problems.add(span, path, problem, remedy);
        }
        let (reads, refs) = (self.names(table, path, "reads"), self.names(table, path, "refs"));
        let version = self.integer(table, path, "version").map_or(1, |(version, _)| version);
        let how = if way == "module" { How::Module } else { How::Judge { version } };
        Some((RawBy::Declared { how, name: text, reads, refs }, way, at))
    }

    fn names(&mut self, table: &DeTable<'_>, path: &str, key: &str) -> Names {
        let Some(value) = table.get(key) else { return Vec::new() };
        let path = format!("{path}.{key}");
        let DeValue::Array(items) = value.get_ref() else {
            self.expected(value, &path, "a list of fields");
            return Vec::new();
        };
        let mut names = Vec::new();
        for item in items {
            if let DeValue::String(name) = item.get_ref() {
                names.push((name.to_string(), item.span()));
            } else {
                self.expected(item, &path, "the name of a field in quotes");
            }
        }
        names
    }
}

/// A module as it stands in a catalog.
pub(crate) fn module_text(name: &str, wasm: &[u8]) -> String {
    let encoded = BASE64.encode(wasm);
    let lines: Vec<&str> = (0..encoded.len().div_ceil(LINE))
        .map(|line| &encoded[line * LINE..encoded.len().min((line + 1) * LINE)])
        .collect();
    format!("[module.{name}]\nwasm = \"\"\"\n{}\n\"\"\"\n", lines.join("\n"))
}

/// Compiles every rule against the fields of its type and of the types that it refers to.
pub(crate) fn compile(
    types: &BTreeMap<TypeName, ObjectType>,
    modules: &Modules,
    raw: Vec<RawRule>,
    engine: &mut Engine,
    problems: &mut Problems<'_>,
) -> Vec<(TypeName, Rule)> {
    let mut rules = Vec::new();
    for RawRule { ty, written, by, path, span } in raw {
        let object = &types[&ty];
        match by {
            RawBy::Cel(cel) => {
                match Rule::compile(written, cel, &Vocabulary::new(object, types), engine) {
                    Ok(rule) => rules.push((ty, rule)),
                    Err(error) => problems.add(&span, path, error.to_string(), error.remedy()),
                }
            }
            RawBy::Declared { how, name, reads, refs } => {
                let needs = known(&reads, &path, "field", object, problems, |_| true);
                let refs = known(&refs, &path, "reference", object, problems, |name| {
                    object.fields[name].reference.is_some()
                        && object.fields[name].children.is_empty()
                });
                let (by, title) = match how {
                    How::Judge { version } => {
                        let title = format!("judge {name}, version {version},");
                        (By::Judge(name), title)
                    }
                    How::Module => {
                        let Some(program) = modules.get(&name) else {
                            let remedy = suggestion(&name, modules.keys().map(String::as_str));
                            let problem = format!("the module `{name}` is not declared");
                            problems.add(&span, path, problem, remedy);
                            continue;
                        };
                        let hash = program.hash().to_hex();
                        (By::Module(Arc::clone(program)), format!("module {name} {hash}"))
                    }
                };
                rules.push((ty, Rule::declared(written, by, &title, needs, refs)));
            }
        }
    }
    rules
}

/// The names that stand for fields of the type; those that do not are told.
fn known(
    names: &Names,
    path: &str,
    what: &str,
    ty: &ObjectType,
    problems: &mut Problems<'_>,
    fits: impl Fn(&str) -> bool,
) -> BTreeSet<String> {
    let fitting = || ty.fields.keys().map(String::as_str).filter(|name| fits(name));
    let mut found = BTreeSet::new();
    for (name, span) in names {
        if fitting().any(|field| field == name) {
            found.insert(name.clone());
        } else {
            let problem = format!("the type `{}` has no {what} `{name}`", ty.name);
            problems.add(span, path.to_owned(), problem, suggestion(name, fitting()));
        }
    }
    found
}
