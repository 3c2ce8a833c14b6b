//! Rules in Rust, for who embeds a relay, and what such a rule sees of a record.
//!
//! A rule in Rust or in a module sees what its catalog says that it reads, and no more: so it is known
//! which fields a broken one is about, and who wrote them.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::{Map, Value, json};

/// What a rule sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matter {
    /// The fields of the record that the rule reads. An absent set is an empty list.
    pub record: Map<String, Value>,
    /// The same fields of its last valid state, if it had one.
    pub previous: Option<Map<String, Value>>,
    /// By reference field, the record that it leads to; nothing where the field is absent, or that
    /// record is too large for rules.
    pub refs: BTreeMap<String, Option<Map<String, Value>>>,
}

impl Matter {
    /// As JSON: an object of `record`, `previous` and `refs`, with null for what is not there.
    #[must_use]
    pub fn to_json(&self) -> String {
        json!({ "record": self.record, "previous": self.previous, "refs": self.refs }).to_string()
    }
}

/// A rule in Rust. A catalog names it with `judge = "NAME"`; only a relay that has it can judge by it,
/// and devices say that the relay will.
///
/// It must be a function of its argument: no clock, no dice, no network, no files. A verdict that
/// depends on more is another one when the record is judged again. What it costs is for its author to
/// bound. When its code changes, raise `version` in the catalog: its records are judged again then.
pub trait Judge: Send + Sync {
    /// Whether a record satisfies the rule.
    ///
    /// # Errors
    /// Why that cannot be said: the record is held with that as its reason. It must quote no value of
    /// `refs`, which who reads it may not see. A panic holds the record likewise, and stops nothing.
    fn holds(&self, matter: &Matter) -> Result<bool, String>;
}

impl<F: Fn(&Matter) -> Result<bool, String> + Send + Sync> Judge for F {
    fn holds(&self, matter: &Matter) -> Result<bool, String> {
        self(matter)
    }
}

/// The rules in Rust that a relay has, by name. Cheap to clone.
#[derive(Clone, Default)]
pub struct Judges(BTreeMap<String, Arc<dyn Judge>>);

impl fmt::Debug for Judges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Judges {
    /// These and one more.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, judge: impl Judge + 'static) -> Self {
        self.0.insert(name.into(), Arc::new(judge));
        self
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn holds(&self, name: &str, matter: &Matter) -> Result<bool, String> {
        let judge = self.0.get(name).ok_or_else(|| format!("this relay has no judge `{name}`"))?;
        catch_unwind(AssertUnwindSafe(|| judge.holds(matter)))
            .unwrap_or_else(|_| Err(format!("the judge `{name}` failed")))
    }
}
