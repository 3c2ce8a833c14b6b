//! From TOML to object types: the shape of a catalog, every error with its line.
//!
//! Reads on after an error, so that an author sees as many at once as can be told apart. Unknown
//! keys are errors at every level. Rules are kept as text: they are compiled when all types are
//! known, because a rule may look into the records that a field refers to.

use std::collections::BTreeMap;
use std::ops::Range;

use fieldkeep_model::TypeName;
use fieldkeep_model::id::is_name;
use jsonschema::Validator;
use serde_json::Value;
use toml::Spanned;
use toml::de::DeTable;

use crate::action::{Action, Query};
use crate::error::{Problems, suggestion};
use crate::object::{Field, Kind, ObjectType};
use crate::rule::Engine;
use crate::schema::{self, Scalars};
use crate::share::Template;
use rules::{Modules, RawRule};

mod attachments;
mod items;
mod online;
pub(crate) mod rules;

/// Names that the store gives to what every record and every child has.
const RESERVED: &[&str] = &["id", "deleted"];
/// What a type declares.
const TYPE_KEYS: &[&str] =
    &["scope", "buckets", "generation", "field", "rule", "online_only", "share", "location"];
/// The most buckets of a type.
const BUCKETS: i64 = 65_536;

/// What is read of a catalog: the types without their rules, the rules, and what needs a connection.
pub(crate) struct Raw {
    pub(crate) types: BTreeMap<TypeName, ObjectType>,
    pub(crate) rules: Vec<RawRule>,
    pub(crate) modules: Modules,
    pub(crate) actions: BTreeMap<String, Action>,
    pub(crate) queries: BTreeMap<String, Query>,
}

/// Reads a catalog's source, adding to `problems` what is wrong with it.
pub(crate) fn read<'s>(source: &'s str, engine: &mut Engine, problems: &mut Problems<'s>) -> Raw {
    let (root, errors) = DeTable::parse_recoverable(source);
    for error in errors {
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        problems.add(&error.span().unwrap_or_default(), "", message, "");
    }
    let (rules, references, templates) = (Vec::new(), Vec::new(), Vec::new());
    let mut reader = Reader { source, problems, rules, references, templates };
    let mut types = reader.catalog(root.get_ref(), root.span());
    let modules = reader.modules(root.get_ref());
    reader.online_only(root.get_ref(), &mut types, engine);
    let actions = reader.actions(root.get_ref(), &types, engine);
    let queries = reader.queries(root.get_ref(), &types);
    reader.check_references(&types);
    reader.check_templates(&types);
    Raw { types, rules: reader.rules, modules, actions, queries }
}

struct Reader<'p, 's> {
    source: &'s str,
    problems: &'p mut Problems<'s>,
    rules: Vec<RawRule>,
    /// References to types, checked when all types are known.
    references: Vec<(String, String, Range<usize>)>,
    /// Where types have templates, whose names are checked when all types are known.
    templates: Vec<(TypeName, Range<usize>)>,
}

impl Reader<'_, '_> {
    fn catalog(
        &mut self,
        root: &DeTable<'_>,
        span: Range<usize>,
    ) -> BTreeMap<TypeName, ObjectType> {
        self.known_keys(root, "", &["catalog", "type", "module", "action", "query"]);
        match (root.contains_key("catalog"), self.integer(root, "", "catalog")) {
            (true, None | Some((1, _))) => {}
            (true, Some((version, span))) => {
                let problem = format!("unknown catalog format {version}");
                self.problems.add(&span, "catalog", problem, "this program reads format 1");
            }
            (false, _) => {
                let remedy = "begin the file with `catalog = 1`";
                self.problems.add(
                    &(span.start..span.start),
                    "catalog",
                    "the format is missing",
                    remedy,
                );
            }
        }
        let mut types = BTreeMap::new();
        for (name, value) in self.named_tables(root, "", "type") {
            let path = format!("type.{name}");
            let Ok(ty) = TypeName::new(name.get_ref().to_string()) else {
                self.not_a_name(name, &path, "type");
                continue;
            };
            if let Some(table) = self.table(value, &path) {
                let read = self.object_type(&ty, table, &path, &name.span());
                types.insert(ty, read);
            }
        }
        types
    }

    fn object_type(
        &mut self,
        name: &TypeName,
        table: &DeTable<'_>,
        path: &str,
        span: &Range<usize>,
    ) -> ObjectType {
        self.known_keys(table, path, TYPE_KEYS);
        let fields = self.fields(table, path, true);
        let scope = self.text(table, path, "scope").map(|(scope, span)| {
            self.check_scope(&scope, &fields, &format!("{path}.scope"), &span);
            scope
        });
        let buckets = self.buckets(table, path);
        let generation = self.generation(table, path);
        self.raw_rules(name, table, path);
        let share = self.share(name, table, path);
        let location = self.location(table, path, &fields);
        let place = self.problems.place(span);
        ObjectType {
            name: name.clone(),
            scope,
            buckets,
            generation,
            fields,
            rules: Vec::new(),
            online_only: None,
            location,
            share,
            place,
        }
    }

    fn share(&mut self, ty: &TypeName, table: &DeTable<'_>, path: &str) -> Option<Template> {
        let (source, span) = self.text(table, path, "share")?;
        match Template::compile(&source) {
            Ok(template) => {
                self.templates.push((ty.clone(), span));
                Some(template)
            }
            Err(flaw) => {
                let span = self.line_within(&span, flaw.line);
                self.problems.add(&span, format!("{path}.share"), flaw.problem, flaw.remedy);
                None
            }
        }
    }

    /// Where a line of a text of several lines stands.
    fn line_within(&self, span: &Range<usize>, line: usize) -> Range<usize> {
        let text = self.source.get(span.clone()).unwrap_or_default();
        // The line that the quotes are alone on does not count; other texts have one line.
        let alone = ["\"\"\"\n", "'''\n", "\"\"\"\r\n", "'''\r\n"];
        let skipped = usize::from(alone.iter().any(|quotes| text.starts_with(quotes)));
        let mut starts = text.match_indices('\n').map(|(at, _)| span.start + at + 1);
        let start = (line + skipped).checked_sub(2).and_then(|nth| starts.nth(nth));
        start.map_or_else(|| span.clone(), |start| start..start)
    }

    fn location(
        &mut self,
        table: &DeTable<'_>,
        path: &str,
        fields: &BTreeMap<String, Field>,
    ) -> Option<(String, String)> {
        let value = table.get("location")?;
        let path = format!("{path}.location");
        let names: Option<Vec<&str>> = value
            .get_ref()
            .as_array()
            .and_then(|names| names.iter().map(|name| name.get_ref().as_str()).collect());
        let Some([latitude, longitude]) = names.as_deref() else {
            let remedy = "write location = [\"latitude\", \"longitude\"]";
            let problem = "a location is two fields";
            self.problems.add(&value.span(), path, problem, remedy);
            return None;
        };
        for name in [latitude, longitude] {
            self.check_coordinate(name, fields, &path, &value.span());
        }
        Some(((*latitude).to_owned(), (*longitude).to_owned()))
    }

    fn check_coordinate(
        &mut self,
        name: &str,
        fields: &BTreeMap<String, Field>,
        path: &str,
        span: &Range<usize>,
    ) {
        let is_number = |field: &&Field| {
            field.kind == Kind::Register && Scalars::of(field.schema.as_ref()).float
        };
        let numbers = fields.iter().filter(|(_, field)| is_number(field));
        match fields.get(name) {
            Some(field) if is_number(&field) => {}
            Some(_) => {
                let problem = format!("`{name}` holds no number");
                let remedy = "a coordinate is a register with schema = { type = \"number\" }";
                self.problems.add(span, path, problem, remedy);
            }
            None => {
                let problem = format!("the field `{name}` is not declared");
                let remedy = suggestion(name, numbers.map(|(name, _)| name.as_str()));
                self.problems.add(span, path, problem, remedy);
            }
        }
    }

    fn buckets(&mut self, table: &DeTable<'_>, path: &str) -> u32 {
        let Some((buckets, span)) = self.integer(table, path, "buckets") else {
            return 1;
        };
        match u32::try_from(buckets) {
            Ok(count) if count.is_power_of_two() && buckets <= BUCKETS => count,
            _ => {
                let problem = format!("{buckets} is no number of buckets");
                let remedy = "write a power of two from 1 to 65536";
                self.problems.add(&span, format!("{path}.buckets"), problem, remedy);
                1
            }
        }
    }

    fn generation(&mut self, table: &DeTable<'_>, path: &str) -> u32 {
        let Some((generation, span)) = self.integer(table, path, "generation") else {
            return 0;
        };
        u32::try_from(generation).unwrap_or_else(|_| {
            let problem = format!("{generation} is no number of a generation");
            let remedy = "the first one is 0; `fieldkeep relay reshape` writes the later ones";
            self.problems.add(&span, format!("{path}.generation"), problem, remedy);
            0
        })
    }

    fn check_scope(
        &mut self,
        scope: &str,
        fields: &BTreeMap<String, Field>,
        path: &str,
        span: &Range<usize>,
    ) {
        match fields.get(scope) {
            Some(field) if field.kind == Kind::Register => {}
            Some(field) => {
                let problem = format!("the scope field `{scope}` is a {}", field.kind.word());
                self.problems.add(span, path, problem, "a scope field is a register");
            }
            None => {
                let problem = format!("the scope field `{scope}` is not declared");
                let registers = fields.iter().filter(|(_, field)| field.kind == Kind::Register);
                let remedy = suggestion(scope, registers.map(|(name, _)| name.as_str()));
                self.problems.add(span, path, problem, remedy);
            }
        }
    }

    fn fields(&mut self, table: &DeTable<'_>, path: &str, top: bool) -> BTreeMap<String, Field> {
        let mut fields = BTreeMap::new();
        for (name, value) in self.named_tables(table, path, "field") {
            let path = format!("{path}.field.{name}");
            if !is_name(name.get_ref()) {
                self.not_a_name(name, &path, "field");
            } else if RESERVED.contains(&name.get_ref().as_ref()) {
                let problem = format!("`{name}` is reserved: every record and child has it");
                self.problems.add(&name.span(), &path, problem, "choose another name");
            } else if let Some(table) = self.table(value, &path) {
                let field = self.field(table, &path, &name.span(), top);
                fields.insert(name.get_ref().to_string(), field);
            }
        }
        fields
    }

    fn field(&mut self, table: &DeTable<'_>, path: &str, span: &Range<usize>, top: bool) -> Field {
        let kind = self.kind(table, path, top);
        if kind == Kind::Attachment {
            return self.attachment_field(table, path, span);
        }
        self.known_keys(table, path, &["kind", "ref", "required", "unique", "schema", "field"]);
        let (schema, validator) = self.schema(table, path, kind).unzip();
        let field = Field {
            kind,
            reference: self.reference(table, path, kind),
            required: self.flag(table, path, "required"),
            unique: self.unique(table, path, kind, top),
            schema,
            validator,
            attachments: None,
            children: self.fields(table, path, false),
            place: self.problems.place(span),
        };
        if kind != Kind::Set && table.contains_key("field") {
            let remedy = "write kind = \"set\", or remove them";
            self.problems.add(span, path, format!("a {} has no fields", kind.word()), remedy);
        }
        field
    }

    fn kind(&mut self, table: &DeTable<'_>, path: &str, top: bool) -> Kind {
        let Some((word, span)) = self.text(table, path, "kind") else {
            return Kind::Register;
        };
        let path = format!("{path}.kind");
        match Kind::ALL.into_iter().find(|kind| kind.word() == word) {
            Some(Kind::Set) if !top => {
                let remedy = "declare a type of its own and refer to it, or use kind = \"json\"";
                self.problems.add(&span, path, "sets do not nest", remedy);
                Kind::Json
            }
            Some(Kind::Attachment) if !top => {
                let remedy = "attach files to the record itself";
                self.problems.add(&span, path, "children have no attachments", remedy);
                Kind::Json
            }
            Some(kind) => kind,
            None => {
                let remedy = suggestion(&word, Kind::ALL.iter().map(|kind| kind.word()));
                self.problems.add(&span, path, format!("unknown kind `{word}`"), remedy);
                Kind::Register
            }
        }
    }

    fn reference(&mut self, table: &DeTable<'_>, path: &str, kind: Kind) -> Option<TypeName> {
        let (name, span) = self.text(table, path, "ref")?;
        let path = format!("{path}.ref");
        if !matches!(kind, Kind::Register | Kind::Set) {
            let problem = format!("a {} refers to nothing", kind.word());
            self.problems.add(&span, path, problem, "a register or a set may");
            return None;
        }
        let ty = TypeName::new(name.clone()).ok();
        self.references.push((name, path, span));
        ty
    }

    fn unique(&mut self, table: &DeTable<'_>, path: &str, kind: Kind, top: bool) -> bool {
        let unique = self.flag(table, path, "unique");
        if unique && !(top && kind == Kind::Register) {
            let span = table.get("unique").map(Spanned::span).unwrap_or_default();
            let remedy = "only a register of the record itself can be";
            self.problems.add(
                &span,
                format!("{path}.unique"),
                "this field cannot be unique",
                remedy,
            );
        }
        unique
    }

    fn schema(
        &mut self,
        table: &DeTable<'_>,
        path: &str,
        kind: Kind,
    ) -> Option<(Value, Validator)> {
        let value = table.get("schema")?;
        let path = format!("{path}.schema");
        self.table(value, &path)?;
        let schema = self.json(value, &path)?;
        if kind == Kind::Register && !Scalars::of(Some(&schema)).any() {
            let remedy = "write string, integer, number or boolean, or use kind = \"json\"";
            self.problems.add(&value.span(), path, "a register holds a single value", remedy);
            return None;
        }
        match schema::compile(&schema) {
            Ok(validator) => Some((schema, validator)),
            Err(error) => {
                self.problems.add(&value.span(), path, error.to_string(), error.remedy());
                None
            }
        }
    }

    fn check_templates(&mut self, types: &BTreeMap<TypeName, ObjectType>) {
        for (name, span) in std::mem::take(&mut self.templates) {
            for (unseen, remedy) in types[&name].unseen(types) {
                let problem = format!("the template does not see `{unseen}`");
                self.problems.add(&span, format!("type.{name}.share"), problem, remedy);
            }
        }
    }

    fn check_references(&mut self, types: &BTreeMap<TypeName, ObjectType>) {
        for (name, path, span) in std::mem::take(&mut self.references) {
            if !types.keys().any(|ty| ty.as_str() == name) {
                let remedy = suggestion(&name, types.keys().map(TypeName::as_str));
                self.problems.add(
                    &span,
                    path,
                    format!("the type `{name}` is not declared"),
                    remedy,
                );
            }
        }
    }
}
