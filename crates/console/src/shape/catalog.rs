//! The shapes of what is told of catalogs: what a file comes to, what it would change, and which there
//! were.

use std::collections::BTreeMap;

use fieldkeep_catalog::{Catalog, Dead, Difference, Part, limit};
use fieldkeep_relay::{Outlook, Present, Sequel, Trial, Weight};
use fieldkeep_replica::{KeptCatalog, RenewalProgress};
use serde::{Deserialize, Serialize};

use super::reshape::Afresh;
use crate::time::rfc3339;

/// What a catalog file comes to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Checked {
    /// Its hash.
    pub hash: String,
    /// The most steps that an expression may take.
    pub budget: u64,
    /// Its types.
    pub types: Vec<CheckedType>,
    /// Its actions.
    pub actions: Vec<String>,
    /// Its queries.
    pub queries: Vec<String>,
    /// How many rules decide nothing.
    pub dead_rules: u64,
    /// Whether it may follow what was published; none where no directory was named.
    pub follows: Option<Follows>,
}

/// A type of a catalog file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckedType {
    /// Its name.
    #[serde(rename = "type")]
    pub ty: String,
    /// The field that says in which scope a record lies.
    pub scope: Option<String>,
    /// How many fields it has.
    pub fields: u64,
    /// Its rules.
    pub rules: Vec<CheckedRule>,
}

/// A rule of a catalog file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckedRule {
    /// Its name.
    pub name: String,
    /// What it reads.
    pub reads: Vec<String>,
    /// The most steps that it takes, for the largest record; of a module, after how many it is stopped.
    pub steps: u64,
    /// What that may be at most; nothing for a rule in Rust, which bounds itself.
    pub budget: Option<u64>,
    /// Why it decides nothing, if that is proven: `never_broken`, `always_broken` or `repeats`.
    pub dead: Option<String>,
    /// The same as a sentence.
    pub remark: Option<String>,
}

/// Whether a catalog may follow what was published.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Follows {
    /// The number of the catalog in force; 0 if there is none.
    pub number: u64,
    /// Whether it is that very one.
    pub same: bool,
    /// What stands in the way.
    pub problems: Vec<String>,
}

impl From<Sequel> for Follows {
    fn from(Sequel { number, same, problems }: Sequel) -> Self {
        Self { number, same, problems }
    }
}

impl Checked {
    /// What a catalog comes to by itself.
    #[must_use]
    pub fn of(catalog: &Catalog) -> Self {
        let types: Vec<CheckedType> = catalog
            .types()
            .values()
            .map(|ty| CheckedType {
                ty: ty.name.to_string(),
                scope: ty.scope.clone(),
                fields: ty.fields.len() as u64,
                rules: ty
                    .rules
                    .iter()
                    .map(|rule| {
                        let dead = catalog.dead_rule(ty, rule);
                        let (dead, remark) = dead.as_ref().map(remark).unzip();
                        let (name, reads) = (rule.name.clone(), rule.reads.clone());
                        let (steps, budget) = (rule.steps, rule.budget());
                        CheckedRule { name, reads, steps, budget, dead, remark }
                    })
                    .collect(),
            })
            .collect();
        let rules = types.iter().flat_map(|ty| &ty.rules);
        Self {
            hash: catalog.hash().to_string(),
            budget: limit::STEPS,
            actions: catalog.actions().keys().cloned().collect(),
            queries: catalog.queries().keys().cloned().collect(),
            dead_rules: rules.filter(|rule| rule.dead.is_some()).count() as u64,
            types,
            follows: None,
        }
    }
}

fn remark(dead: &Dead) -> (String, String) {
    let (word, remark) = match dead {
        Dead::NeverBroken => ("never_broken", "every record satisfies it: it can hold none".into()),
        Dead::AlwaysBroken => {
            ("always_broken", "no record satisfies it: it holds every one that it judges".into())
        }
        Dead::Repeats(other) => ("repeats", format!("`{other}` before it says the same")),
    };
    (word.to_owned(), remark)
}

/// What a catalog would change if it were published now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Diff {
    /// The number of the catalog in force.
    pub number: u64,
    /// The hash of the one that is tried.
    pub hash: String,
    /// Whether they are the same.
    pub same: bool,
    /// The declarations that are otherwise.
    pub changes: Vec<Change>,
    /// Records that were judged by it.
    pub records: u64,
    /// Changes that are not merged yet, and so not in it.
    pub unmerged: u64,
    /// Records that the catalog in force has not judged itself yet: what it does to them is counted here.
    pub renewing: u64,
    /// How many records would be otherwise.
    pub counts: Counts,
    /// By type.
    pub types: BTreeMap<String, Counts>,
    /// By what causes it, the heaviest first.
    pub causes: Vec<Cause>,
    /// By device.
    pub devices: Vec<Sight>,
    /// What stands in the way of publishing it.
    pub problems: Vec<String>,
}

/// A declaration that is otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Its type.
    #[serde(rename = "type")]
    pub ty: String,
    /// The rule, if it is one.
    pub rule: Option<String>,
    /// The field, if it is one.
    pub field: Option<String>,
    /// `added`, `changed` or `removed`.
    pub change: String,
}

/// How many records would be otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Those that would be held and are not.
    pub held: u64,
    /// Those that would wait and do not.
    pub waiting: u64,
    /// Those that would be valid and are not.
    pub released: u64,
    /// Those that stay held, or waiting, for other reasons.
    pub otherwise: u64,
}

impl From<Weight> for Counts {
    fn from(Weight { held, waiting, released, otherwise }: Weight) -> Self {
        Self { held, waiting, released, otherwise }
    }
}

/// A rule, or another demand on records, and what it would do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cause {
    /// Its type.
    #[serde(rename = "type")]
    pub ty: String,
    /// The message: `rule`, `required`, `schema`, `unique`, `unknown_schema` and so on.
    pub reason: String,
    /// The rule, if it is one.
    pub rule: Option<String>,
    /// The field, if it is of one.
    pub field: Option<String>,
    /// What became of its declaration, if that is otherwise: `added`, `changed` or `removed`.
    pub change: Option<String>,
    /// The records that it is a reason for.
    pub counts: Counts,
    /// The most frequent sentences, of how many records each.
    pub sentences: Vec<Sentence>,
    /// Some of the records.
    pub examples: Vec<Example>,
}

/// What is said of some records.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sentence {
    /// Of how many.
    pub records: u64,
    /// What.
    pub text: String,
}

/// A record, for instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Example {
    /// Its type and id.
    pub record: String,
    /// What it is.
    pub before: String,
    /// What it would be.
    pub after: String,
    /// Why.
    pub reason: String,
}

/// What a device would see.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sight {
    /// Its name.
    pub device: String,
    /// Its number.
    pub number: u64,
    /// Whether it is connected: it would have the catalog at once.
    pub connected: bool,
    /// What it runs, as it said last.
    pub software: Option<String>,
    /// The number of the catalog that it has, as it said last.
    pub catalog: Option<u64>,
    /// The records that it may read.
    pub counts: Counts,
}

impl Diff {
    /// What a trial came to.
    #[must_use]
    pub fn of(trial: Trial) -> Self {
        let Trial { outlook, catalog, problems } = trial;
        Self::new(outlook, &catalog, problems)
    }

    /// What an outlook says.
    #[must_use]
    pub fn new(outlook: Outlook, next: &Catalog, problems: Vec<String>) -> Self {
        let mut causes: Vec<Cause> = outlook
            .causes
            .iter()
            .map(|(name, cause)| {
                let (ty, reason, of) = name;
                let of = Some(of.clone()).filter(|of| !of.is_empty());
                let (rule, field) = if reason == "rule" { (of, None) } else { (None, of) };
                let sentences = cause
                    .sentences
                    .iter()
                    .map(|(records, text)| Sentence { records: *records, text: text.clone() });
                let examples = cause.examples.iter().map(|example| Example {
                    record: example.key.to_string(),
                    before: example.before.word().to_owned(),
                    after: example.after.word().to_owned(),
                    reason: example.reason.clone(),
                });
                Cause {
                    ty: ty.to_string(),
                    reason: reason.clone(),
                    rule,
                    field,
                    change: outlook.turn(name).map(|turn| turn.word().to_owned()),
                    counts: cause.weight.into(),
                    sentences: sentences.collect(),
                    examples: examples.collect(),
                }
            })
            .collect();
        causes.sort_by_key(|cause| {
            let Counts { held, waiting, released, otherwise } = cause.counts;
            std::cmp::Reverse(held + waiting + released + otherwise)
        });
        let types = outlook.types.iter();
        Self {
            number: outlook.number,
            hash: next.hash().to_string(),
            same: outlook.same,
            changes: outlook.differences.into_iter().map(Change::from).collect(),
            records: outlook.records,
            unmerged: outlook.unmerged,
            renewing: outlook.renewing,
            counts: outlook.weight.into(),
            types: types.map(|(ty, weight)| (ty.to_string(), (*weight).into())).collect(),
            causes,
            devices: outlook.devices.into_iter().map(Sight::from).collect(),
            problems,
        }
    }
}

impl From<Difference> for Change {
    fn from(Difference { ty, part, turn }: Difference) -> Self {
        let (rule, field) = match part {
            Part::Type => (None, None),
            Part::Field(name) => (None, Some(name)),
            Part::Rule(name) => (Some(name), None),
        };
        Self { ty: ty.to_string(), rule, field, change: turn.word().to_owned() }
    }
}

impl From<fieldkeep_relay::Sight> for Sight {
    fn from(sight: fieldkeep_relay::Sight) -> Self {
        let connected = sight.present.is_some();
        let known = sight.present.or(sight.last);
        let (software, catalog) =
            known.map(|Present { software, catalog }| (software, catalog)).unzip();
        Self {
            device: sight.name,
            number: sight.number,
            connected,
            software,
            catalog,
            counts: sight.weight.into(),
        }
    }
}

/// A catalog that was published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Its number.
    pub number: u64,
    /// The counter of the epoch in which it was published.
    pub epoch: u64,
    /// Its hash.
    pub hash: String,
    /// When it was published, if that was noted.
    pub published_at: Option<String>,
    /// Why.
    pub note: String,
    /// Whether it is the one in force.
    pub in_force: bool,
    /// Records that came to be held by it.
    pub held: u64,
    /// Records that came to wait by it.
    pub waiting: u64,
    /// Records that came to be valid by it.
    pub released: u64,
}

impl Kept {
    /// Catalogs that are kept, the one in force first.
    #[must_use]
    pub fn all(kept: Vec<KeptCatalog>) -> Vec<Self> {
        let shown = kept.into_iter().enumerate().map(|(nth, kept)| {
            let turned = kept.publication.turned;
            Self {
                number: kept.number,
                epoch: kept.epoch.counter,
                hash: kept.hash.to_string(),
                published_at: kept.publication.time.map(rfc3339),
                note: kept.publication.note,
                in_force: nth == 0,
                held: turned.held,
                waiting: turned.waiting,
                released: turned.released,
            }
        });
        shown.collect()
    }
}

/// Where the catalog in force stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Standing {
    /// The catalog.
    pub catalog: Option<Kept>,
    /// Records that are still to be judged by it.
    pub left: u64,
    /// Of how many.
    pub of: u64,
    /// Whether the relay serves, and so goes on with them.
    pub serving: bool,
    /// Devices that are connected.
    pub connected: u64,
    /// Those of them that have been sent it.
    pub up_to_date: u64,
    /// A new generation of a type that is being written, and how far it is.
    pub afresh: Option<Afresh>,
}

impl Standing {
    /// Where it stands, by what is kept and who is connected.
    #[must_use]
    pub fn new(
        kept: Vec<KeptCatalog>,
        RenewalProgress { left, all }: RenewalProgress,
        present: &BTreeMap<u64, Present>,
        serving: bool,
        afresh: Option<Afresh>,
    ) -> Self {
        let catalog = Kept::all(kept).into_iter().next();
        let number = catalog.as_ref().map_or(0, |catalog| catalog.number);
        let up_to_date = present.values().filter(|present| present.catalog == number);
        let (connected, up_to_date) = (present.len() as u64, up_to_date.count() as u64);
        Self { catalog, left, of: all, serving, connected, up_to_date, afresh }
    }
}
