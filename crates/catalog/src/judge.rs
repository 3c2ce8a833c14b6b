//! The Judge: what a merged record comes to under a catalog.
//!
//! Asks its surroundings only for referents and for holders of unique values. Says what it could
//! not see instead of guessing. Equal arguments give equal judgements, to the byte.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::verdict::{Arg, ArgValue};
use fieldkeep_model::{Outcome, Reason, RecordId, RecordKey, SegmentId, TypeName};
use serde_json::{Map, Value};

use crate::catalog::Catalog;
use crate::judges::{Judges, Matter};
use crate::object::{ObjectType, Reference};
use crate::rule::{By, Rule, values};

pub(crate) mod shape;

/// The record to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its type.
    pub ty: &'a TypeName,
    /// Its id.
    pub id: &'a RecordId,
    /// Its fields as merged: registers as scalars, counters as whole numbers, texts as strings,
    /// sets as lists of objects ordered by `id` and including it, json as it is.
    pub fields: &'a Map<String, Value>,
    /// Whether it is deleted.
    pub deleted: bool,
    /// Its last valid state, if it had one.
    pub previous: Option<&'a Map<String, Value>>,
    /// The scope of the segment that it lies in.
    pub scope: &'a str,
}

/// What lies around a record.
pub trait Surroundings {
    /// The record that a reference leads to.
    fn referent(&self, ty: &TypeName, id: &RecordId) -> Referent;
    /// The same without its fields, which no rule looks into: often cheaper to tell.
    fn presence(&self, ty: &TypeName, id: &RecordId) -> Referent {
        self.referent(ty, id)
    }
    /// Every record of the type whose unique field has this value, deleted ones left out. The
    /// subject itself may be among them.
    fn holders(&self, ty: &TypeName, field: &str, value: &str) -> Vec<Holder>;
    /// The rules in Rust. Only a relay has them, if none: nothing where another one has to judge.
    fn judges(&self) -> Option<&Judges> {
        None
    }
}

/// Where a reference leads.
#[derive(Clone, Debug, PartialEq)]
pub enum Referent {
    /// There is no such record yet.
    Absent,
    /// It may lie in a scope that this replica does not hold.
    Elsewhere,
    /// It is deleted.
    Deleted,
    /// It is there.
    Present {
        /// Its fields as merged.
        fields: Map<String, Value>,
        /// Whether it is held itself.
        held: bool,
        /// Where it lies.
        segment: SegmentId,
    },
}

/// A record that has a unique value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Its id.
    pub id: RecordId,
    /// Where it lies.
    pub segment: SegmentId,
}

/// What a record comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Valid, held or waiting, as far as could be seen.
    pub outcome: Outcome,
    /// Why, unless valid.
    pub reasons: Vec<Reason>,
    /// The arguments that speak of another record, to be sealed from those who may not read it.
    pub private: Vec<PrivateArg>,
    /// Whether a record that it refers to is held.
    pub depends_on_held: bool,
    /// Whether everything it refers to could be seen, and every rule be asked. Where not, only a relay
    /// can judge.
    pub complete: bool,
}

/// An argument of a reason that speaks of another record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrivateArg {
    /// Which of the reasons.
    pub reason: usize,
    /// Which of its arguments.
    pub arg: usize,
    /// Where the other record lies.
    pub segment: SegmentId,
}

impl Catalog {
    /// Judges a record.
    ///
    /// A deleted record is valid. Then, in this order: the type and every field are declared
    /// (`unknown_schema`), required fields are there (`required`), values have the shape of their
    /// kind, keep to [`limit`](crate::limit) and fit their schemas (`schema`), the scope is the
    /// segment's (`scope_changed`), references lead somewhere (`reference_deleted`;
    /// `reference_absent` waits), unique values are unique (`unique`), and the rules hold (`rule`,
    /// `rule_failed`). Rules run only on a record whose fields are all declared, there, and fit
    /// their schemas; a rule that looks into a referent runs only if that can be seen.
    #[must_use]
    pub fn judge(&self, subject: &Subject<'_>, world: &dyn Surroundings) -> Judgement {
        let judgement = Judgement {
            outcome: Outcome::Valid,
            reasons: Vec::new(),
            private: Vec::new(),
            depends_on_held: false,
            complete: true,
        };
        if subject.deleted {
            return judgement;
        }
        let Some(ty) = self.ty(subject.ty) else {
            let args = vec![open("type", subject.ty.as_str())];
            let reason = reason("unknown_schema", Vec::new(), args);
            return Judgement { outcome: Outcome::Held, reasons: vec![reason], ..judgement };
        };
        let mut sitting = Sitting { catalog: self, ty, subject, world, judgement };
        sitting.fields();
        let well_formed = sitting.judgement.reasons.is_empty();
        sitting.scope();
        let seen = sitting.references();
        sitting.unique();
        if well_formed {
            sitting.rules(&seen);
        }
        sitting.close()
    }
}

/// What is known of the referents of the record's own fields.
#[derive(Default)]
struct Seen {
    referents: BTreeMap<String, Map<String, Value>>,
    /// The fields whose referent cannot be looked into.
    hidden: BTreeSet<String>,
}

struct Sitting<'a> {
    catalog: &'a Catalog,
    ty: &'a ObjectType,
    subject: &'a Subject<'a>,
    world: &'a dyn Surroundings,
    judgement: Judgement,
}

impl Sitting<'_> {
    fn hold(&mut self, id: &str, fields: Vec<String>, args: Vec<Arg>) {
        self.judgement.reasons.push(reason(id, fields, args));
    }

    fn fields(&mut self) {
        let ty = self.ty;
        let mut findings = Vec::new();
        shape::check_fields(&ty.fields, self.subject.fields, &mut findings);
        if let Some(problem) = shape::too_large(self.subject.fields) {
            findings.push(shape::Finding {
                id: "schema",
                field: String::new(),
                child: None,
                problem,
            });
        }
        for finding in findings {
            let mut args = vec![open("field", &finding.field)];
            args.extend(finding.child.map(|child| open("child", &child)));
            if !finding.problem.is_empty() {
                args.push(open("problem", &finding.problem));
            }
            let fields = Some(finding.field).filter(|field| !field.is_empty());
            self.hold(finding.id, fields.into_iter().collect(), args);
        }
    }

    fn scope(&mut self) {
        let Some(field) = &self.ty.scope else { return };
        let is = self.ty.scope_of(self.subject.fields);
        if is != self.subject.scope {
            let args = vec![open("field", field), open("was", self.subject.scope), open("is", &is)];
            self.hold("scope_changed", vec![field.clone()], args);
        }
    }

    fn references(&mut self) -> Seen {
        let mut seen = Seen::default();
        for reference in self.ty.references(self.subject.fields) {
            let looked_into = self.ty.rules.iter().any(|rule| rule.refs.contains(&reference.field));
            let referent = if looked_into {
                self.world.referent(&reference.ty, &reference.id)
            } else {
                self.world.presence(&reference.ty, &reference.id)
            };
            self.reference(reference, referent, &mut seen);
        }
        seen
    }

    fn reference(&mut self, reference: Reference, referent: Referent, seen: &mut Seen) {
        let Reference { field, ty, id, child: _ } = reference;
        let to = RecordKey::new(ty, id).to_string();
        let args = vec![open("field", &field), open("record", &to)];
        match referent {
            Referent::Present { fields, held, .. } => {
                self.judgement.depends_on_held |= held;
                seen.referents.insert(field, fields);
                return;
            }
            Referent::Absent => self.hold("reference_absent", vec![field.clone()], args),
            Referent::Deleted => self.hold("reference_deleted", vec![field.clone()], args),
            Referent::Elsewhere => self.judgement.complete = false,
        }
        seen.hidden.insert(field);
    }

    fn unique(&mut self) {
        for (field, value) in self.ty.unique_values(self.subject.fields) {
            let holders = self.world.holders(&self.ty.name, &field, &value);
            let others = holders.into_iter().filter(|holder| holder.id != *self.subject.id);
            let Some(other) = others.min() else { continue };
            let key = RecordKey::new(self.ty.name.clone(), other.id).to_string();
            let args = vec![open("field", &field), open("value", &value), open("record", &key)];
            let reason = self.judgement.reasons.len();
            self.judgement.private.push(PrivateArg { reason, arg: 2, segment: other.segment });
            self.hold("unique", vec![field], args);
        }
    }

    fn rules(&mut self, seen: &Seen) {
        let rules: Vec<_> =
            self.ty.rules.iter().filter(|rule| rule.refs.is_disjoint(&seen.hidden)).collect();
        if rules.is_empty() {
            return;
        }
        let needed = values::needed(rules.iter().map(|rule| &rule.needs));
        let view = |fields| values::record(fields, &self.ty.fields, needed.iter().copied());
        let mut scope = self.catalog.engine().scope().new_inner_scope();
        scope.add_variable_as_val("record", view(self.subject.fields));
        scope
            .add_variable_as_val("previous", self.subject.previous.map_or_else(values::null, view));
        scope.add_variable_as_val("refs", refs(&rules, self.catalog, self.ty, seen));
        for rule in rules {
            let holds = match &rule.by {
                By::Expression(_) => rule.holds(&scope),
                By::Module(program) => program.holds(&self.matter(rule, seen).to_json()),
                By::Judge(name) => {
                    let Some(judges) = self.world.judges() else {
                        self.judgement.complete = false;
                        continue;
                    };
                    judges.holds(name, &self.matter(rule, seen))
                }
            };
            let (id, error) = match holds {
                Ok(true) => continue,
                Ok(false) => ("rule", None),
                Err(error) => ("rule_failed", Some(error)),
            };
            let args = error.iter().map(|error| open("error", error)).collect();
            let broken =
                Reason { rule: Some(rule.name.clone()), ..reason(id, rule.reads.clone(), args) };
            self.judgement.reasons.push(broken);
        }
    }

    /// What a rule sees that declares what it reads.
    fn matter(&self, rule: &Rule, seen: &Seen) -> Matter {
        let view = |fields: &Map<String, Value>| {
            let seen = rule.needs.iter().filter_map(|name| {
                let set = || {
                    self.ty.fields.get(name)?.kind.has_children().then(|| Value::Array(Vec::new()))
                };
                Some((name.clone(), fields.get(name).cloned().or_else(set)?))
            });
            seen.collect()
        };
        let refs = rule.refs.iter().map(|field| {
            let referent = seen.referents.get(field);
            let referent = referent.filter(|fields| shape::too_large(fields).is_none());
            (field.clone(), referent.cloned())
        });
        let previous = self.subject.previous.map(view);
        Matter { record: view(self.subject.fields), previous, refs: refs.collect() }
    }

    fn close(mut self) -> Judgement {
        let waits = |reason: &Reason| reason.id == "reference_absent";
        self.judgement.outcome = if self.judgement.reasons.is_empty() {
            Outcome::Valid
        } else if self.judgement.reasons.iter().all(waits) {
            Outcome::Waiting
        } else {
            Outcome::Held
        };
        self.judgement
    }
}

/// The referents that rules look into. One that is too large for the rules' bounds is left out.
fn refs<'v>(
    rules: &[&'v Rule],
    catalog: &'v Catalog,
    ty: &'v ObjectType,
    seen: &'v Seen,
) -> values::Borrowed<'v> {
    let fields: BTreeSet<&str> =
        rules.iter().flat_map(|rule| &rule.refs).map(String::as_str).collect();
    let entry = |field: &'v str| {
        let referent =
            seen.referents.get(field).filter(|fields| shape::too_large(fields).is_none());
        let declared =
            ty.fields.get(field).and_then(|field| catalog.ty(field.reference.as_ref()?));
        let record = referent.zip(declared).map(|(fields, ty)| {
            values::record(fields, &ty.fields, ty.fields.keys().map(String::as_str))
        });
        (field, record)
    };
    values::refs(fields.into_iter().map(entry).collect())
}

fn reason(id: &str, fields: Vec<String>, args: Vec<Arg>) -> Reason {
    Reason { id: id.to_owned(), rule: None, fields, args }
}

fn open(name: &str, value: &str) -> Arg {
    Arg { name: name.to_owned(), value: ArgValue::Open(value.to_owned()) }
}
