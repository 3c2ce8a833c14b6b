//! Object types: their fields, and what can be read off a record by its type alone.

use std::collections::BTreeMap;

use fieldkeep_model::{BlobHash, RecordId, SegmentAddress, TypeName};
use jsonschema::Validator;
use serde_json::{Map, Value};

use crate::attachment::{AttachedFile, Attachments};
use crate::error::Place;
use crate::rule::{Engine, Rule, values};
use crate::share::Template;

/// How a field merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A scalar; of concurrent writes one wins and the others are shown as a conflict.
    Register,
    /// A whole number to which concurrent writers add.
    Counter,
    /// A text that several people may edit at once.
    Text,
    /// Children by id, each with fields of its own.
    Set,
    /// Any JSON value, replaced whole.
    Json,
    /// Files: a set whose children's ids are the files' hashes.
    Attachment,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Register, Self::Counter, Self::Text, Self::Set, Self::Json, Self::Attachment];

    /// The word for it in a catalog.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Counter => "counter",
            Self::Text => "text",
            Self::Set => "set",
            Self::Json => "json",
            Self::Attachment => "attachment",
        }
    }

    /// Whether it holds children by id.
    #[must_use]
    pub fn has_children(self) -> bool {
        matches!(self, Self::Set | Self::Attachment)
    }
}

/// A field of an object type, or of the children of a set.
#[derive(Debug)]
pub struct Field {
    /// How it merges.
    pub kind: Kind,
    /// The type that the value refers to. On a set: the children's ids are ids of that type.
    pub reference: Option<TypeName>,
    /// Whether a record without it is held.
    pub required: bool,
    /// Whether no two records of the type may have the same value.
    pub unique: bool,
    /// The JSON Schema that a value meets.
    pub schema: Option<Value>,
    /// Which files it may hold; only of attachments.
    pub attachments: Option<Attachments>,
    /// The fields of the children of a set, or of attachments; empty for other kinds.
    pub children: BTreeMap<String, Self>,
    pub(crate) validator: Option<Validator>,
    pub(crate) place: Place,
}

impl Field {
    /// A field that holds anything of its kind.
    pub(crate) fn plain(kind: Kind) -> Self {
        Self {
            kind,
            reference: None,
            required: false,
            unique: false,
            schema: None,
            attachments: None,
            children: BTreeMap::new(),
            validator: None,
            place: Place::default(),
        }
    }
}

/// A value that refers to another record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The field, as `customer_id` or `lines.product`; `lines` where the children's ids refer.
    pub field: String,
    /// The child of the set that holds it.
    pub child: Option<String>,
    /// The type of the record referred to.
    pub ty: TypeName,
    /// Its id.
    pub id: RecordId,
}

/// An object type.
#[derive(Debug)]
pub struct ObjectType {
    /// Its name.
    pub name: TypeName,
    /// The register whose value at creation says which scope a record lies in.
    pub scope: Option<String>,
    /// Into how many segments each scope is divided: a power of two.
    pub buckets: u32,
    /// How often the type was started afresh.
    pub generation: u32,
    /// Its fields by name.
    pub fields: BTreeMap<String, Field>,
    /// Its rules, in the catalog's order.
    pub rules: Vec<Rule>,
    /// In which state a record is edited only by way of a relay.
    pub online_only: Option<Rule>,
    /// The registers that hold latitude and longitude, in degrees.
    pub location: Option<(String, String)>,
    /// How its records are shared.
    pub(crate) share: Option<Template>,
    pub(crate) place: Place,
}

impl ObjectType {
    /// The segment in which a record of that scope lies.
    #[must_use]
    pub fn address(&self, id: &RecordId, scope: &str) -> SegmentAddress {
        SegmentAddress {
            ty: self.name.clone(),
            scope: scope.to_owned(),
            buckets: self.buckets,
            bucket: id.bucket(self.buckets),
            generation: self.generation,
        }
    }

    /// The scope field's value as text; empty if it is absent or the type has none.
    #[must_use]
    pub fn scope_of(&self, fields: &Map<String, Value>) -> String {
        let value = self.scope.as_ref().and_then(|scope| fields.get(scope));
        value.and_then(scalar_text).unwrap_or_default()
    }

    /// The records that a record refers to, in the order of its fields. Values that cannot be ids
    /// are left out: judging reports them.
    #[must_use]
    pub fn references(&self, fields: &Map<String, Value>) -> Vec<Reference> {
        let mut found = Vec::new();
        for (name, field) in &self.fields {
            let Some(value) = fields.get(name) else {
                continue;
            };
            if field.kind.has_children() {
                child_references(name, field, value, &mut found);
            } else if let Some(ty) = &field.reference {
                found.extend(reference(name.clone(), None, ty, value));
            }
        }
        found
    }

    /// The files that a record names. What names none is left out: judging reports it.
    #[must_use]
    pub fn files(&self, fields: &Map<String, Value>) -> Vec<AttachedFile> {
        let attachments = self.fields.iter().filter(|(_, field)| field.kind == Kind::Attachment);
        let mut found = Vec::new();
        for (name, _) in attachments {
            let children = fields.get(name).and_then(Value::as_array).into_iter().flatten();
            found.extend(children.filter_map(|child| AttachedFile::read(name, child)));
        }
        found
    }

    /// The files that a state of a record refers to, with their fields: also where what it says of one is
    /// not what a file needs, because that may be mended.
    #[must_use]
    pub fn blobs(&self, fields: &Map<String, Value>) -> Vec<(String, BlobHash)> {
        let attachments = self.fields.iter().filter(|(_, field)| field.kind == Kind::Attachment);
        let named = attachments.flat_map(|(name, _)| {
            let children = fields.get(name).and_then(Value::as_array).into_iter().flatten();
            let ids = children.filter_map(|child| child.get("id")?.as_str()?.parse().ok());
            ids.map(|hash| (name.clone(), hash))
        });
        named.collect()
    }

    /// Whether records of the type may have files.
    #[must_use]
    pub fn has_attachments(&self) -> bool {
        self.fields.values().any(|field| field.kind == Kind::Attachment)
    }

    /// Whether a rule may read `previous`: whoever judges need not look it up elsewhere.
    #[must_use]
    pub fn reads_previous(&self) -> bool {
        self.rules.iter().any(Rule::reads_previous)
    }

    /// Whether a record in that state is edited only by way of a relay. An expression that cannot be
    /// evaluated, because a field is absent, asks for no connection.
    #[must_use]
    pub(crate) fn needs_connection(&self, engine: &Engine, before: &Map<String, Value>) -> bool {
        let Some(rule) = &self.online_only else { return false };
        let mut scope = engine.scope().new_inner_scope();
        let needed = rule.needs.iter().map(String::as_str);
        scope.add_variable_as_val("before", values::record(before, &self.fields, needed));
        rule.holds(&scope).unwrap_or(false)
    }

    /// The values that no other record of the type may have, with their fields. Numbers are
    /// compared by their text.
    #[must_use]
    pub fn unique_values(&self, fields: &Map<String, Value>) -> Vec<(String, String)> {
        let unique = self.fields.iter().filter(|(_, field)| field.unique);
        let values = unique.filter_map(|(name, _)| Some((name, fields.get(name)?)));
        values.filter_map(|(name, value)| Some((name.clone(), scalar_text(value)?))).collect()
    }
}

fn child_references(name: &str, field: &Field, value: &Value, found: &mut Vec<Reference>) {
    for child in value.as_array().into_iter().flatten().filter_map(Value::as_object) {
        let own = child.get("id").and_then(scalar_text);
        if let (Some(ty), Some(id)) = (&field.reference, child.get("id")) {
            found.extend(reference(name.to_owned(), own.clone(), ty, id));
        }
        for (inner, field) in &field.children {
            if let (Some(ty), Some(value)) = (&field.reference, child.get(inner)) {
                found.extend(reference(format!("{name}.{inner}"), own.clone(), ty, value));
            }
        }
    }
}

fn reference(
    field: String,
    child: Option<String>,
    ty: &TypeName,
    value: &Value,
) -> Option<Reference> {
    let id = RecordId::new(scalar_text(value)?).ok()?;
    Some(Reference { field, child, ty: ty.clone(), id })
}

/// A scalar as text; nothing for null, lists and objects.
pub(crate) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
