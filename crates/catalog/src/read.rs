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
use toml::de::{DeTable, DeValue};

use crate::error::{Problems, suggestion};
use crate::object::{Field, Kind, ObjectType};
use crate::schema::{self, Scalars};

mod items;

/// Names that the store gives to what every record and every child has.
const RESERVED: &[&str] = &["id", "deleted"];
/// The most buckets of a type.
const BUCKETS: i64 = 65_536;

/// A rule as it is written.
pub(crate) struct RawRule {
    pub(crate) ty: TypeName,
    pub(crate) name: String,
    pub(crate) cel: String,
    pub(crate) reason: String,
    pub(crate) path: String,
    pub(crate) span: Range<usize>,
}

/// What is read of a catalog: the types without their rules, and the rules.
pub(crate) struct Raw {
    pub(crate) types: BTreeMap<TypeName, ObjectType>,
    pub(crate) rules: Vec<RawRule>,
}

/// Reads a catalog's source, adding to `problems` what is wrong with it.
pub(crate) fn read(source: &str, problems: &mut Problems<'_>) -> Raw {
    let (root, errors) = DeTable::parse_recoverable(source);
    for error in errors {
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        problems.add(&error.span().unwrap_or_default(), "", message, "");
    }
    let mut reader = Reader { problems, rules: Vec::new(), references: Vec::new() };
    let types = reader.catalog(root.get_ref(), root.span());
    reader.check_references(&types);
    Raw { types, rules: reader.rules }
}

struct Reader<'p, 's> {
    problems: &'p mut Problems<'s>,
    rules: Vec<RawRule>,
    /// References to types, checked when all types are known.
    references: Vec<(String, String, Range<usize>)>,
}

impl Reader<'_, '_> {
    fn catalog(
        &mut self,
        root: &DeTable<'_>,
        span: Range<usize>,
    ) -> BTreeMap<TypeName, ObjectType> {
        self.known_keys(root, "", &["catalog", "type"]);
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
        self.known_keys(table, path, &["scope", "buckets", "field", "rule"]);
        let fields = self.fields(table, path, true);
        let scope = self.text(table, path, "scope").map(|(scope, span)| {
            self.check_scope(&scope, &fields, &format!("{path}.scope"), &span);
            scope
        });
        let buckets = self.buckets(table, path);
        self.raw_rules(name, table, path);
        let place = self.problems.place(span);
        ObjectType { name: name.clone(), scope, buckets, fields, rules: Vec::new(), place }
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
        self.known_keys(table, path, &["kind", "ref", "required", "unique", "schema", "field"]);
        let kind = self.kind(table, path, top);
        let (schema, validator) = self.schema(table, path, kind).unzip();
        let field = Field {
            kind,
            reference: self.reference(table, path, kind),
            required: self.flag(table, path, "required"),
            unique: self.unique(table, path, kind, top),
            schema,
            validator,
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
            Some(kind) => kind,
            None if word == "attachment" => {
                let remedy = "keep the file's name in a register until they are";
                self.problems.add(&span, path, "attachments are not supported yet", remedy);
                Kind::Register
            }
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

    fn raw_rules(&mut self, ty: &TypeName, table: &DeTable<'_>, path: &str) {
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
            self.known_keys(table, &path, &["name", "cel", "reason"]);
            let name = self.needed(table, &path, "name", &value.span());
            let cel = self.needed(table, &path, "cel", &value.span());
            let reason = self.needed(table, &path, "reason", &value.span());
            let (Some(name), Some(cel), Some(reason)) = (name, cel, reason) else {
                continue;
            };
            if !is_name(&name.0) || names.contains(&name.0) {
                let problem = format!("`{}` does not name a rule, or names a second one", name.0);
                let remedy = "use lower-case letters, digits and `_`, once in the type";
                self.problems.add(&name.1, format!("{path}.name"), problem, remedy);
            }
            let (path, span) = (format!("{path}.{}.cel", name.0), cel.1);
            names.push(name.0.clone());
            let (name, cel, reason) = (name.0, cel.0, reason.0);
            self.rules.push(RawRule { ty: ty.clone(), name, cel, reason, path, span });
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
