//! Actions, queries and edits that need a connection, as a catalog has them.
//!
//! Names are looked up when all types are known: expressions are compiled here, against those.

use std::collections::BTreeMap;
use std::ops::Range;

use fieldkeep_model::TypeName;
use fieldkeep_model::id::is_name;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Reader;
use super::items::Item;
use crate::action::{Action, Effect, HostCall, Inputs, Named, Party, Piece, Query, Who};
use crate::error::suggestion;
use crate::object::{Kind, ObjectType};
use crate::rule::{Engine, Formula, Rule, RuleError, Vocabulary, Written};

type Types = BTreeMap<TypeName, ObjectType>;

/// The longest SQL of a query, in bytes.
const SQL: usize = 16 * 1024;
/// Records that one action writes.
const EFFECTS: usize = 32;

impl Reader<'_, '_> {
    pub(super) fn actions(
        &mut self,
        root: &DeTable<'_>,
        types: &Types,
        engine: &mut Engine,
    ) -> BTreeMap<String, Action> {
        let mut actions = BTreeMap::new();
        for (name, value) in self.named_tables(root, "", "action") {
            let path = format!("action.{name}");
            if !is_name(name.get_ref()) {
                self.not_a_name(name, &path, "action");
            } else if let Some(table) = self.table(value, &path) {
                let action = self.action(name.get_ref(), table, &path, types, engine, &name.span());
                actions.insert(name.get_ref().to_string(), action);
            }
        }
        actions
    }

    fn action(
        &mut self,
        name: &str,
        table: &DeTable<'_>,
        path: &str,
        types: &Types,
        engine: &mut Engine,
        span: &Range<usize>,
    ) -> Action {
        let known = ["description", "who", "input", "record", "require", "effect", "call"];
        self.known_keys(table, path, &known);
        let input = self.inputs(table, path, "input");
        let records = self.records(table, path, &input, types);
        let (mut requires, mut effects) = (Vec::new(), Vec::new());
        let named = records
            .iter()
            .filter_map(|(name, named)| Some((name.as_str(), &types.get(&named.ty)?.fields)));
        let vocabulary = Vocabulary::call(&input.fields, named);
        for (at, require) in (1..).zip(self.tables(table, path, "require")) {
            requires.extend(self.require(require, path, at, &vocabulary, engine));
        }
        for effect in self.tables(table, path, "effect") {
            effects.extend(self.effect(
                effect,
                &format!("{path}.effect"),
                types,
                &vocabulary,
                engine,
            ));
        }
        let host = self.host(table, path);
        if effects.len() > EFFECTS {
            let problem = format!("an action writes at most {EFFECTS} records");
            self.problems.add(span, path, problem, "do the rest by another action");
        }
        if effects.is_empty() && host.is_none() {
            let remedy = format!("add `[[{path}.effect]]`, or `call = {{ host = …, path = … }}`");
            self.problems.add(span, path, "the action does nothing", remedy);
        }
        let who = self.who(table, path, types, span);
        let description = self.text(table, path, "description").map(|(text, _)| text);
        let description = description.unwrap_or_default();
        Action { name: name.to_owned(), description, who, input, host, records, requires, effects }
    }

    pub(super) fn queries(&mut self, root: &DeTable<'_>, types: &Types) -> BTreeMap<String, Query> {
        let mut queries = BTreeMap::new();
        for (name, value) in self.named_tables(root, "", "query") {
            let path = format!("query.{name}");
            if !is_name(name.get_ref()) {
                self.not_a_name(name, &path, "query");
                continue;
            }
            let Some(table) = self.table(value, &path) else { continue };
            let known = ["description", "who", "param", "sql", "organisation_wide"];
            self.known_keys(table, &path, &known);
            let (sql, span) = self.needed_in(table, &path, "sql", &name.span(), "a query");
            if sql.len() > SQL {
                let problem = format!("the SQL is longer than {} KiB", SQL / 1024);
                self.problems.add(&span, format!("{path}.sql"), problem, "shorten it");
            }
            let query = Query {
                name: name.get_ref().to_string(),
                description: self.text(table, &path, "description").unwrap_or_default().0,
                who: self.who(table, &path, types, &name.span()),
                params: self.inputs(table, &path, "param"),
                sql,
                organisation_wide: self.flag(table, &path, "organisation_wide"),
                place: self.problems.place(&span),
            };
            queries.insert(query.name.clone(), query);
        }
        queries
    }

    /// In which state records of a type are edited only by way of a relay.
    pub(super) fn online_only(
        &mut self,
        root: &DeTable<'_>,
        types: &mut Types,
        engine: &mut Engine,
    ) {
        let Some(DeValue::Table(tables)) = root.get("type").map(Spanned::get_ref) else { return };
        for (name, value) in tables {
            let (DeValue::Table(table), Ok(ty)) =
                (value.get_ref(), TypeName::new(name.get_ref().to_string()))
            else {
                continue;
            };
            let path = format!("type.{name}");
            let Some((cel, span)) = self.text(table, &path, "online_only") else { continue };
            let Some(object) = types.get(&ty) else { continue };
            let (name, reason) = ("online_only".to_owned(), String::new());
            let written = Written { name, reason, place: self.problems.place(&span) };
            let rule = Rule::compile(written, cel, &Vocabulary::before(object), engine);
            let rule = self.compiled(rule, format!("{path}.online_only"), &span);
            if let Some(object) = types.get_mut(&ty) {
                object.online_only = rule;
            }
        }
    }

    fn compiled<T>(
        &mut self,
        compiled: Result<T, RuleError>,
        path: String,
        span: &Range<usize>,
    ) -> Option<T> {
        compiled.map_err(|e| self.problems.add(span, path, e.to_string(), e.remedy())).ok()
    }

    /// Named values: registers and JSON.
    fn inputs(&mut self, table: &DeTable<'_>, path: &str, key: &str) -> Inputs {
        let mut fields = BTreeMap::new();
        for (name, value) in self.named_tables(table, path, key) {
            let path = format!("{path}.{key}.{name}");
            if !is_name(name.get_ref()) {
                self.not_a_name(name, &path, key);
            } else if let Some(table) = self.table(value, &path) {
                let field = self.field(table, &path, &name.span(), true);
                if !matches!(field.kind, Kind::Register | Kind::Json) || field.unique {
                    let problem = "what is asked for is a single value, or JSON";
                    let remedy = "write kind = \"register\" or kind = \"json\"";
                    self.problems.add(&name.span(), &path, problem, remedy);
                }
                fields.insert(name.get_ref().to_string(), field);
            }
        }
        Inputs { fields }
    }

    /// `lead = "lead/{input.lead}"`: the records that an action is about. A `?` at the end allows for
    /// none.
    fn records(
        &mut self,
        table: &DeTable<'_>,
        path: &str,
        input: &Inputs,
        types: &Types,
    ) -> BTreeMap<String, Named> {
        let mut records = BTreeMap::new();
        let Some(value) = table.get("record") else { return records };
        let path = format!("{path}.record");
        let Some(table) = self.table(value, &path) else { return records };
        for (name, value) in table {
            if !is_name(name.get_ref()) {
                self.not_a_name(name, &format!("{path}.{name}"), "record");
                continue;
            }
            let Some((text, span)) = self.text(table, &path, name.get_ref()) else { continue };
            let path = format!("{path}.{name}");
            match named(&text, input) {
                Err((problem, remedy)) => self.problems.add(&span, path, problem, remedy),
                Ok(named) if !types.contains_key(&named.ty) => {
                    let remedy = suggestion(named.ty.as_str(), types.keys().map(TypeName::as_str));
                    let problem = format!("the type `{}` is not declared", named.ty);
                    self.problems.add(&value.span(), path, problem, remedy);
                }
                Ok(named) => {
                    records.insert(name.get_ref().to_string(), named);
                }
            }
        }
        records
    }

    fn tables<'t, 'i>(
        &mut self,
        table: &'t DeTable<'i>,
        path: &str,
        key: &str,
    ) -> Vec<(&'t DeTable<'i>, Range<usize>)> {
        let Some(value) = table.get(key) else { return Vec::new() };
        let path = format!("{path}.{key}");
        let DeValue::Array(items) = value.get_ref() else {
            let remedy = format!("write each under `[[{path}]]`");
            self.problems.add(&value.span(), path, "these are a list", remedy);
            return Vec::new();
        };
        let tables = items.iter().filter_map(|item| Some((self.table(item, &path)?, item.span())));
        tables.collect()
    }

    fn require(
        &mut self,
        (table, span): (&DeTable<'_>, Range<usize>),
        path: &str,
        number: usize,
        vocabulary: &Vocabulary<'_>,
        engine: &mut Engine,
    ) -> Option<Rule> {
        let path = format!("{path}.require");
        self.known_keys(table, &path, &["cel", "reason"]);
        let what = "a precondition";
        let (cel, at) = self.needed_in(table, &path, "cel", &span, what);
        let (reason, _) = self.needed_in(table, &path, "reason", &span, what);
        if cel.is_empty() {
            return None;
        }
        let written =
            Written { name: format!("require_{number}"), reason, place: self.problems.place(&at) };
        let rule = Rule::compile(written, cel, vocabulary, engine);
        self.compiled(rule, format!("{path}.cel"), &at)
    }

    fn effect(
        &mut self,
        (table, span): (&DeTable<'_>, Range<usize>),
        path: &str,
        types: &Types,
        vocabulary: &Vocabulary<'_>,
        engine: &mut Engine,
    ) -> Option<Effect> {
        self.known_keys(table, path, &["type", "id", "fields", "delete"]);
        let (name, at) = self.needed_in(table, path, "type", &span, "an effect");
        let Some((ty, object)) = types.iter().find(|(ty, _)| ty.as_str() == name) else {
            if !name.is_empty() {
                let remedy = suggestion(&name, types.keys().map(TypeName::as_str));
                let problem = format!("the type `{name}` is not declared");
                self.problems.add(&at, format!("{path}.type"), problem, remedy);
            }
            return None;
        };
        let id = self.text(table, path, "id").and_then(|(cel, span)| {
            let formula = Formula::compile(&cel, vocabulary, engine);
            self.compiled(formula, format!("{path}.id"), &span)
        });
        let mut fields = BTreeMap::new();
        let written = table.get("fields").and_then(|value| self.table(value, path));
        for (name, value) in written.into_iter().flatten() {
            let path = format!("{path}.fields.{name}");
            let DeValue::String(cel) = value.get_ref() else {
                self.expected(value, &path, "an expression in quotes");
                continue;
            };
            if !object.fields.contains_key(name.get_ref().as_ref()) {
                let known = object.fields.keys().map(String::as_str);
                let remedy = suggestion(name.get_ref(), known);
                let problem = format!("the type `{ty}` has no field `{name}`");
                self.problems.add(&name.span(), path, problem, remedy);
                continue;
            }
            let formula = Formula::compile(cel, vocabulary, engine);
            if let Some(formula) = self.compiled(formula, path, &value.span()) {
                fields.insert(name.get_ref().to_string(), formula);
            }
        }
        let delete = self.flag(table, path, "delete");
        if delete != fields.is_empty() {
            let problem = "an effect either deletes a record or writes fields of it";
            self.problems.add(&span, path, problem, "leave one of both out");
        }
        Some(Effect { ty: ty.clone(), id, fields, delete })
    }

    fn host(&mut self, table: &DeTable<'_>, path: &str) -> Option<HostCall> {
        let value = table.get("call")?;
        let path = format!("{path}.call");
        let table = self.table(value, &path)?;
        self.known_keys(table, &path, &["host", "path"]);
        let (host, span) = self.needed_in(table, &path, "host", &value.span(), "a call");
        let (place, at) = self.needed_in(table, &path, "path", &value.span(), "a call");
        if !host.is_empty() && !is_name(&host) {
            let remedy = "the relay's `relay.toml` says under `[host.NAME]` where it is";
            self.problems.add(&span, format!("{path}.host"), "this is no name of a host", remedy);
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%?=&".contains(&byte);
        let is_path = place.starts_with('/') && place.bytes().all(plain);
        if !(place.is_empty() || is_path) {
            let remedy = "begin it with `/`, and encode what is no plain character";
            self.problems.add(&at, format!("{path}.path"), "this is no path", remedy);
        }
        Some(HostCall { host, path: place })
    }

    /// `who = "everyone"`, or a list of names, and of types as `order=42` or `order=*`.
    fn who(&mut self, table: &DeTable<'_>, path: &str, types: &Types, span: &Range<usize>) -> Who {
        let remedy = "write who = \"everyone\", or a list of names and of grants as \"order=42\" or \"order=*\"";
        let path = format!("{path}.who");
        let Some(value) = table.get("who") else {
            self.problems.add(span, path, "nobody may: `who` is missing", remedy);
            return Who::These(Vec::new());
        };
        match value.get_ref() {
            DeValue::String(text) if text == "everyone" => Who::Everyone,
            DeValue::Array(items) => {
                let parties = items.iter().filter_map(|item| self.party(item, &path, types));
                Who::These(parties.collect())
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => {
                self.problems.add(&value.span(), path, "this does not say who may", remedy);
                Who::These(Vec::new())
            }
        }
    }

    fn party(&mut self, item: &Item<'_>, path: &str, types: &Types) -> Option<Party> {
        let DeValue::String(text) = item.get_ref() else {
            self.expected(item, path, "a text in quotes");
            return None;
        };
        let Some((ty, scope)) = text.split_once('=') else {
            return Some(Party::Name(text.to_string()));
        };
        let Some((ty, _)) = types.iter().find(|(known, _)| known.as_str() == ty) else {
            let remedy = suggestion(ty, types.keys().map(TypeName::as_str));
            let problem = format!("the type `{ty}` is not declared");
            self.problems.add(&item.span(), path, problem, remedy);
            return None;
        };
        Some(Party::Granted(ty.clone(), (scope != "*").then(|| scope.to_owned())))
    }

    pub(super) fn needed_in(
        &mut self,
        table: &DeTable<'_>,
        path: &str,
        key: &str,
        span: &Range<usize>,
        what: &str,
    ) -> (String, Range<usize>) {
        if !table.contains_key(key) {
            let remedy = format!("add `{key} = \"…\"`");
            self.problems.add(span, path, format!("{what} needs `{key}`"), remedy);
        }
        self.text(table, path, key).unwrap_or_else(|| (String::new(), span.clone()))
    }
}

/// Reads `type/text{input.field}`.
fn named(text: &str, input: &Inputs) -> Result<Named, (String, String)> {
    let shape = || {
        let remedy =
            "write it as \"lead/{input.lead}\", with a `?` behind it where there may be none";
        (format!("`{text}` names no record"), remedy.to_owned())
    };
    let (whole, optional) = text.strip_suffix('?').map_or((text, false), |whole| (whole, true));
    let (ty, mut rest) = whole.split_once('/').ok_or_else(shape)?;
    let ty = TypeName::new(ty).map_err(|_| shape())?;
    let mut id = Vec::new();
    while !rest.is_empty() {
        let (plain, name) = match rest.split_once('{') {
            None => (std::mem::take(&mut rest), None),
            Some((plain, more)) => {
                let (name, more) = more.split_once('}').ok_or_else(shape)?;
                rest = more;
                (plain, Some(name))
            }
        };
        id.extend((!plain.is_empty()).then(|| Piece::Text(plain.to_owned())));
        match name.map(|name| (name, name.strip_prefix("input."))) {
            None => {}
            Some(("caller.name", _)) => id.push(Piece::Caller),
            Some((_, Some(field))) if input.fields.contains_key(field) => {
                id.push(Piece::Input(field.to_owned()));
            }
            Some((name, _)) => {
                let known = input.fields.keys().map(|field| format!("input.{field}"));
                let known: Vec<String> = known.chain(["caller.name".to_owned()]).collect();
                let remedy = suggestion(name, known.iter().map(String::as_str));
                return Err((format!("`{name}` stands for nothing here"), remedy));
            }
        }
    }
    if id.is_empty() { Err(shape()) } else { Ok(Named { ty, id, optional }) }
}
