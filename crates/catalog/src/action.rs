//! Actions and queries: what a relay does and answers at once, for whom, and what of.
//!
//! Reads input, finds the records that an action is about, checks its preconditions and says what it
//! would write. Everything is a function of its arguments: who may, what is there and when it is are
//! told by the caller, and nothing is written here.

use std::collections::BTreeMap;

use fieldkeep_model::{Member, RecordEdit, RecordId, RecordKey, TypeName};
use serde_json::{Map, Value, json};

use crate::catalog::Catalog;
use crate::error::Place;
use crate::judge::shape;
use crate::object::{Field, scalar_text};
use crate::rule::{Formula, Rule, values};
use crate::values::ValueError;

/// Something that a relay does on request.
#[derive(Debug)]
pub struct Action {
    /// Its name.
    pub name: String,
    /// What it is for, in words.
    pub description: String,
    /// Who may call it.
    pub who: Who,
    /// What it is told.
    pub input: Inputs,
    /// The host that is called before anything is written.
    pub host: Option<HostCall>,
    pub(crate) records: BTreeMap<String, Named>,
    pub(crate) requires: Vec<Rule>,
    pub(crate) effects: Vec<Effect>,
}

/// Something that a relay answers.
#[derive(Debug)]
pub struct Query {
    /// Its name.
    pub name: String,
    /// What it is for, in words.
    pub description: String,
    /// Who may ask it.
    pub who: Who,
    /// Its parameters, which the SQL names as `:name`.
    pub params: Inputs,
    /// The question, over one view for each type.
    pub sql: String,
    /// Whether it sees every scope, whatever was granted to who asks.
    pub organisation_wide: bool,
    pub(crate) place: Place,
}

/// Who may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Every member.
    Everyone,
    /// Whoever is one of these.
    These(Vec<Party>),
}

/// Some members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// Those of that name.
    Name(String),
    /// Those that were granted a type: one scope of it, or all.
    Granted(TypeName, Option<String>),
}

/// A call of a host, by the name under which the relay's configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCall {
    /// The host.
    pub host: String,
    /// The path, beginning with `/`.
    pub path: String,
}

/// Named values of declared kinds.
#[derive(Debug, Default)]
pub struct Inputs {
    /// The values by name.
    pub fields: BTreeMap<String, Field>,
}

/// A record that an action is about.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) ty: TypeName,
    pub(crate) id: Vec<Piece>,
    /// Whether it may be absent.
    pub(crate) optional: bool,
}

/// A part of a record's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Input(String),
    Caller,
}

/// A record that an action writes.
#[derive(Debug)]
pub(crate) struct Effect {
    pub(crate) ty: TypeName,
    pub(crate) id: Option<Formula>,
    pub(crate) fields: BTreeMap<String, Formula>,
    pub(crate) delete: bool,
}

/// A call of an action.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// A text that names it, and that nothing else has for an id.
    pub id: &'a str,
    /// Who calls.
    pub caller: &'a str,
    /// When it came, milliseconds UTC.
    pub time: i64,
    /// What it was told.
    pub input: &'a Map<String, Value>,
}

/// Why an action does nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The input is not what the action asks for.
    #[error("{0}")]
    Input(String),
    /// A record that it is about is not there, or is not for the caller to see.
    #[error("there is no record {0}")]
    Absent(RecordKey),
    /// A precondition is not met, in the catalog's words.
    #[error("{0}")]
    Unmet(String),
    /// An expression of the catalog yields nothing that can be used.
    #[error("the action `{action}` cannot be carried out: {problem}")]
    Failed {
        /// The action.
        action: String,
        /// What is wrong.
        problem: String,
    },
}

impl Who {
    /// Whether a member is meant.
    #[must_use]
    pub fn includes(&self, member: &Member) -> bool {
        let granted = |ty: &TypeName, scope: &Option<String>| match scope {
            Some(scope) => member.may(ty, scope),
            None => member.may_all(ty),
        };
        let meant = |party: &Party| match party {
            Party::Name(name) => *name == member.name,
            Party::Granted(ty, scope) => granted(ty, scope),
        };
        !member.revoked
            && match self {
                Self::Everyone => true,
                Self::These(parties) => parties.iter().any(meant),
            }
    }
}

impl Inputs {
    /// What words of a command line say: `name=value`, with the types that the catalog declares.
    ///
    /// # Errors
    /// The first word that is no value, or names nothing that is asked for.
    pub fn read_words(&self, words: &[String]) -> Result<Map<String, Value>, ValueError> {
        crate::values::input_from_words(&self.fields, words)
    }

    /// Checks that the values are those that are asked for, and have the shapes that are declared.
    ///
    /// # Errors
    /// All that is wrong, in a sentence.
    pub fn check(&self, input: &Map<String, Value>) -> Result<(), CallError> {
        let mut findings = Vec::new();
        shape::check_fields(&self.fields, input, &mut findings);
        let mut problems: Vec<String> = findings.into_iter().map(|found| told(&found)).collect();
        problems.extend(shape::too_large(input).map(|_| "the input is too large".to_owned()));
        if problems.is_empty() { Ok(()) } else { Err(CallError::Input(problems.join("; "))) }
    }
}

fn told(found: &shape::Finding) -> String {
    let shape::Finding { id, field, problem, .. } = found;
    match *id {
        "required" => format!("`{field}` is missing"),
        "unknown_schema" => format!("there is no `{field}` to be given"),
        _ => format!("`{field}` does not fit: {problem}"),
    }
}

impl Action {
    /// The records that the action is about, by the names that its expressions use, and whether each
    /// may be absent.
    ///
    /// # Errors
    /// When the input names none.
    pub fn records(
        &self,
        call: &Call<'_>,
    ) -> Result<BTreeMap<&str, (Option<RecordKey>, bool)>, CallError> {
        let named = self.records.iter().map(|(name, named)| {
            let mut id = Some(String::new());
            for piece in &named.id {
                let part = match piece {
                    Piece::Text(text) => Some(text.clone()),
                    Piece::Caller => Some(call.caller.to_owned()),
                    Piece::Input(field) => call.input.get(field).and_then(scalar_text),
                };
                id = id.zip(part).map(|(id, part)| id + &part);
            }
            let id = id.and_then(|id| RecordId::new(id).ok());
            let key = id.map(|id| RecordKey::new(named.ty.clone(), id));
            if key.is_none() && !named.optional {
                let problem = format!("the input does not say which {} is meant", named.ty);
                return Err(CallError::Input(problem));
            }
            Ok((name.as_str(), (key, named.optional)))
        });
        named.collect()
    }

    fn failed(&self, problem: impl Into<String>) -> CallError {
        CallError::Failed { action: self.name.clone(), problem: problem.into() }
    }
}

impl Catalog {
    /// An action.
    #[must_use]
    pub fn action(&self, name: &str) -> Option<&Action> {
        self.actions().get(name)
    }

    /// A query.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&Query> {
        self.queries().get(name)
    }

    /// What an action writes, in order, with the records that it is about as they are: absent ones are
    /// none.
    ///
    /// # Errors
    /// When the input does not fit, a record is absent that must not be, a precondition is not met, or
    /// an expression yields nothing of use.
    pub fn plan(
        &self,
        action: &Action,
        call: &Call<'_>,
        records: &BTreeMap<&str, Option<Map<String, Value>>>,
    ) -> Result<Vec<(RecordKey, RecordEdit)>, CallError> {
        action.input.check(call.input)?;
        let caller = json!({ "name": call.caller });
        let about = json!({ "id": call.id, "time": call.time });
        let mut scope = self.engine().scope().new_inner_scope();
        let names = action.input.fields.keys().map(String::as_str);
        scope.add_variable_as_val("input", values::record(call.input, &action.input.fields, names));
        scope.add_variable_as_val("caller", values::val(&caller));
        scope.add_variable_as_val("call", values::val(&about));
        let entry = |(name, named): (&'_ String, &Named)| {
            let ty = self.ty(&named.ty)?;
            let fields = records.get(name.as_str())?.as_ref()?;
            shape::too_large(fields).is_none().then_some((ty, fields))
        };
        let seen = action.records.iter().map(|found| {
            let record = entry(found).map(|(ty, fields)| {
                values::record(fields, &ty.fields, ty.fields.keys().map(String::as_str))
            });
            (found.0.as_str(), record)
        });
        scope.add_variable_as_val("records", values::refs(seen.collect()));
        for rule in &action.requires {
            match rule.holds(&scope) {
                Ok(true) => {}
                Ok(false) => return Err(CallError::Unmet(rule.reason.clone())),
                Err(problem) => {
                    return Err(action.failed(format!("`{}`: {problem}", rule.text)));
                }
            }
        }
        let mut writes = Vec::new();
        for effect in &action.effects {
            let id = match &effect.id {
                None => call.id.to_owned(),
                Some(id) => {
                    let id = id.value(&scope).map_err(|problem| action.failed(problem))?;
                    scalar_text(&id).unwrap_or_default()
                }
            };
            let id = RecordId::new(&id);
            let id =
                id.map_err(|error| action.failed(format!("the id of a {}: {error}", effect.ty)))?;
            let key = RecordKey::new(effect.ty.clone(), id);
            if effect.delete {
                writes.push((key, RecordEdit::delete()));
                continue;
            }
            let mut fields = Map::new();
            for (field, formula) in &effect.fields {
                let value = formula.value(&scope);
                let value = value.map_err(|error| action.failed(format!("`{field}`: {error}")))?;
                fields.insert(field.clone(), value);
            }
            let ty = self.ty(&effect.ty).ok_or_else(|| action.failed("a type is missing"))?;
            let edit =
                ty.edit_from_json(&fields).map_err(|error| action.failed(error.to_string()))?;
            writes.push((key, edit));
        }
        Ok(writes)
    }

    /// Whether a record in that state is edited only by way of a relay.
    #[must_use]
    pub fn needs_connection(&self, ty: &TypeName, before: &Map<String, Value>) -> bool {
        self.ty(ty).is_some_and(|ty| ty.needs_connection(self.engine(), before))
    }

    /// Whether records of a type may need a connection to be edited.
    #[must_use]
    pub fn may_need_connection(&self, ty: &TypeName) -> bool {
        self.ty(ty).is_some_and(|ty| ty.online_only.is_some())
    }
}
