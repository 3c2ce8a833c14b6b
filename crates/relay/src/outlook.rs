//! The outlook of a catalog: what it would hold and release if it were published now, by which rules,
//! for instance which records, and on whose devices that would be seen.
//!
//! Sums up a rehearsal, which runs beside the engine. Keeps a few examples and the most frequent
//! sentences of each cause, whatever the number of records.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_catalog::{Catalog, Difference, Part, Turn};
use fieldkeep_model::{
    DeviceNumber, MembershipLog, Outcome, PublicKey, Reason, RecordKey, TypeName,
};
use fieldkeep_replica::{Fate, Rehearsal, ReplicaError};
use fieldkeep_store::{Contact, Contacts as _};

use crate::engine::Present;

/// Records that are read at a time.
const SLICE: usize = 512;
/// Examples of a cause.
const EXAMPLES: usize = 3;
/// Sentences of a cause that are told.
const TOLD: usize = 3;
/// Sentences of a cause that are counted: they may quote values, of which there are many.
const COUNTED: usize = 100;

/// How many records would be otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Those that would be held and are not.
    pub held: u64,
    /// Those that would wait and do not.
    pub waiting: u64,
    /// Those that would be valid and are not.
    pub released: u64,
    /// Those that stay held, or waiting, for other reasons.
    pub otherwise: u64,
}

impl Weight {
    fn count(&mut self, fate: &Fate) {
        let count = match fate.after {
            _ if fate.after == fate.before => &mut self.otherwise,
            Outcome::Held => &mut self.held,
            Outcome::Waiting => &mut self.waiting,
            Outcome::Valid => &mut self.released,
        };
        *count += 1;
    }

    /// How many in all.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.held + self.waiting + self.released + self.otherwise
    }
}

/// A record, for instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The record.
    pub key: RecordKey,
    /// What it is.
    pub before: Outcome,
    /// What it would be.
    pub after: Outcome,
    /// Why: of a record that is released, why it is not valid now.
    pub reason: String,
}

/// What a rule, or another demand on records, would do, or did and would not do any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// The records that it is a reason for.
    pub weight: Weight,
    /// Some of them.
    pub examples: Vec<Example>,
    /// What is said of them, most frequent first: how often, and the sentence.
    pub sentences: Vec<(u64, String)>,
    counted: BTreeMap<String, u64>,
}

/// What a device would see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Its number.
    pub number: DeviceNumber,
    /// Its name.
    pub name: String,
    /// What is known of it, if it is connected: it would have the catalog at once.
    pub present: Option<Present>,
    /// What it said of itself when it was there last.
    pub last: Option<Present>,
    /// The records that it may read.
    pub weight: Weight,
}

/// Names a cause: its type, a reason's id, and the rule or the field.
pub type CauseName = (TypeName, String, String);

/// What a catalog would change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// The number of the catalog in force.
    pub number: u64,
    /// Whether it is this very one.
    pub same: bool,
    /// The declarations that are otherwise.
    pub differences: Vec<Difference>,
    /// Records that were judged by it.
    pub records: u64,
    /// Changes that are received and not merged yet: what becomes of them is not in it.
    pub unmerged: u64,
    /// Records that the catalog in force has not judged itself yet: what it would do to them is in it.
    pub renewing: u64,
    /// In all.
    pub weight: Weight,
    /// By type.
    pub types: BTreeMap<TypeName, Weight>,
    /// By what causes it; those that change and cause nothing included.
    pub causes: BTreeMap<CauseName, Cause>,
    /// By device, but for those that were revoked.
    pub devices: Vec<Sight>,
}

impl Outlook {
    /// Runs a rehearsal to its end, and sums it up.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn of(
        rehearsal: &mut Rehearsal,
        members: &MembershipLog,
        present: &BTreeMap<DeviceNumber, Present>,
    ) -> Result<Self, ReplicaError> {
        Self::watched(rehearsal, members, present, &mut |_| ())
    }

    /// The same; `told` hears now and then how many records were judged.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn watched(
        rehearsal: &mut Rehearsal,
        members: &MembershipLog,
        present: &BTreeMap<DeviceNumber, Present>,
        told: &mut dyn FnMut(u64),
    ) -> Result<Self, ReplicaError> {
        let (in_force, number) = rehearsal.in_force();
        let (in_force, next) = (in_force.cloned(), rehearsal.next().clone());
        let (unmerged, renewing) = (rehearsal.unmerged(), rehearsal.renewing());
        let mut outlook = Self { number, unmerged, renewing, ..Self::default() };
        if let Some(in_force) = &in_force {
            outlook.same = in_force.hash() == next.hash();
            outlook.differences = in_force.differences(&next);
        }
        for Difference { ty, part, .. } in &outlook.differences {
            if let Part::Rule(name) = part {
                let name = (ty.clone(), "rule".to_owned(), name.clone());
                outlook.causes.insert(name, Cause::default());
            }
        }
        let mut scopes: BTreeMap<(TypeName, String), Weight> = BTreeMap::new();
        while let Some(fates) = rehearsal.go_on(SLICE)? {
            told(rehearsal.seen());
            for fate in fates {
                let scope = (fate.key.ty.clone(), fate.scope.clone());
                scopes.entry(scope).or_default().count(&fate);
                outlook.add(fate, in_force.as_ref(), &next);
            }
        }
        outlook.records = rehearsal.seen();
        outlook.causes.values_mut().for_each(Cause::close);
        outlook.see(members, present, rehearsal.reader().contacts()?, &scopes);
        Ok(outlook)
    }

    /// What became of a declaration that is a cause.
    #[must_use]
    pub fn turn(&self, (ty, id, name): &CauseName) -> Option<Turn> {
        let rule = id == "rule";
        let found = self.differences.iter().find(|difference| {
            let part = match &difference.part {
                Part::Rule(of) => rule && of == name,
                Part::Field(of) => !rule && of == name,
                Part::Type => false,
            };
            difference.ty == *ty && part
        });
        found.map(|difference| difference.turn)
    }

    fn add(&mut self, fate: Fate, in_force: Option<&Catalog>, next: &Catalog) {
        self.weight.count(&fate);
        self.types.entry(fate.key.ty.clone()).or_default().count(&fate);
        // Of what is released the old reasons are told, of all else those that are new.
        let released = fate.after == Outcome::Valid;
        let (told, others) =
            if released { (&fate.was, &fate.reasons) } else { (&fate.reasons, &fate.was) };
        let others: BTreeSet<_> = others.iter().map(named).collect();
        let catalog = if released { in_force.unwrap_or(next) } else { next };
        let is_new = |reason: &&Reason| !others.contains(&named(reason));
        let new: Vec<&Reason> = told.iter().filter(is_new).collect();
        let told = if new.is_empty() { told.iter().collect() } else { new };
        let mut counted = BTreeSet::new();
        for reason in told {
            let (id, name) = named(reason);
            let name = (fate.key.ty.clone(), id.to_owned(), name.to_owned());
            if counted.insert(name.clone()) {
                let sentence = catalog.explain(&fate.key.ty, reason);
                self.causes.entry(name).or_default().add(&fate, sentence);
            }
        }
    }

    fn see(
        &mut self,
        members: &MembershipLog,
        present: &BTreeMap<DeviceNumber, Present>,
        mut contacts: BTreeMap<PublicKey, Contact>,
        scopes: &BTreeMap<(TypeName, String), Weight>,
    ) {
        let devices = members.members().values().filter(|m| !m.relay && !m.revoked);
        self.devices = devices
            .map(|member| {
                let mut weight = Weight::default();
                for (_, of) in scopes.iter().filter(|((ty, scope), _)| member.may(ty, scope)) {
                    weight.held += of.held;
                    weight.waiting += of.waiting;
                    weight.released += of.released;
                    weight.otherwise += of.otherwise;
                }
                let present = present.get(&member.number).cloned();
                let contact = contacts.remove(&member.identity);
                let last = contact
                    .filter(|contact| !contact.software.is_empty())
                    .map(|Contact { software, catalog, .. }| Present { software, catalog });
                let (number, name) = (member.number, member.name.clone());
                Sight { number, name, present, last, weight }
            })
            .collect();
    }
}

impl Cause {
    fn add(&mut self, fate: &Fate, sentence: String) {
        self.weight.count(fate);
        let room = self.counted.len() < COUNTED;
        match self.counted.get_mut(&sentence) {
            Some(count) => *count += 1,
            None if room => drop(self.counted.insert(sentence.clone(), 1)),
            None => {}
        }
        if self.examples.len() < EXAMPLES {
            let (key, before, after) = (fate.key.clone(), fate.before, fate.after);
            self.examples.push(Example { key, before, after, reason: sentence });
        }
    }

    /// Keeps the sentences that are told.
    fn close(&mut self) {
        let counted = std::mem::take(&mut self.counted).into_iter();
        self.sentences = counted.map(|(sentence, count)| (count, sentence)).collect();
        self.sentences.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        self.sentences.truncate(TOLD);
    }
}

/// The name of what a reason speaks of.
fn named(reason: &Reason) -> (&str, &str) {
    let field = reason.fields.first().map_or("", String::as_str);
    match &reason.rule {
        // A rule that fails and one that is broken are one rule.
        Some(rule) => ("rule", rule),
        None => (&reason.id, field),
    }
}
