//! Which records of the quarantine are sought, as an address says it.

use fieldkeep_model::TypeName;
use fieldkeep_replica::Reading;
use fieldkeep_store::{Place, Segments as _, Wanted};

use crate::pages::{segment, type_name};
use crate::{Code, Failure};

/// Ages that can be asked for: what is typed, what is shown, and milliseconds.
pub(super) const AGES: [(&str, &str, i64); 5] = [
    ("1h", "an hour", 3_600_000),
    ("1d", "a day", 86_400_000),
    ("7d", "a week", 7 * 86_400_000),
    ("30d", "30 days", 30 * 86_400_000),
    ("365d", "a year", 365 * 86_400_000),
];

/// What is sought; what is empty does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sought {
    pub(super) ty: String,
    pub(super) scope: String,
    pub(super) rule: String,
    /// The device's number.
    pub(super) device: String,
    pub(super) older: String,
    pub(super) text: String,
    /// `open` or `aside`.
    pub(super) state: String,
    pub(super) assigned: String,
    /// Behind which place.
    pub(super) after: String,
    /// How it all stood when it was shown.
    pub(super) seen: String,
}

impl Sought {
    /// What an address or a form says; what it says besides is no matter.
    pub(super) fn of(pairs: &[(String, String)]) -> Self {
        let mut sought = Self::default();
        for (name, value) in pairs {
            if let Some((_, field)) = sought.fields().into_iter().find(|(known, _)| known == name) {
                value.trim().clone_into(field);
            }
        }
        sought
    }

    fn fields(&mut self) -> [(&'static str, &mut String); 10] {
        [
            ("type", &mut self.ty),
            ("scope", &mut self.scope),
            ("rule", &mut self.rule),
            ("device", &mut self.device),
            ("older", &mut self.older),
            ("text", &mut self.text),
            ("state", &mut self.state),
            ("assigned", &mut self.assigned),
            ("after", &mut self.after),
            ("seen", &mut self.seen),
        ]
    }

    /// The conditions that are set, as fields.
    pub(super) fn conditions(&self) -> Vec<(&'static str, String)> {
        let mut all = Self { after: String::new(), seen: String::new(), ..self.clone() };
        let set = all.fields().into_iter().filter(|(_, value)| !value.is_empty());
        set.map(|(name, value)| (name, value.clone())).collect()
    }

    /// The same as a part of an address.
    pub(super) fn query(&self) -> String {
        let pairs = self.conditions().into_iter();
        let pairs: Vec<_> =
            pairs.map(|(name, value)| format!("{name}={}", segment(&value))).collect();
        pairs.join("&")
    }

    /// Whether conditions are set that are not looked for often.
    pub(super) fn is_rare(&self) -> bool {
        let rare = [&self.scope, &self.device, &self.older, &self.assigned];
        rare.iter().any(|value| !value.is_empty())
    }

    /// What is looked for.
    ///
    /// # Errors
    /// When something of it is not there, or is not to be understood.
    pub(super) fn wanted(&self, reading: &Reading, now: i64) -> Result<Wanted, Failure> {
        let text = |value: &String| Some(value.clone()).filter(|value| !value.is_empty());
        let ty = text(&self.ty).map(|ty| declared(reading, &ty)).transpose()?;
        let device = text(&self.device).map(|number| {
            let known =
                number.parse().ok().filter(|number| reading.members.member(*number).is_some());
            known.ok_or_else(|| unclear(&format!("there is no device {number}")))
        });
        let older = text(&self.older).map(|age| {
            let known = AGES.iter().find(|(word, ..)| *word == age);
            known.map(|(.., ms)| now - ms).ok_or_else(|| unclear(&format!("`{age}` is no age")))
        });
        let dismissed = match &*self.state {
            "" => None,
            "open" => Some(false),
            "aside" => Some(true),
            other => return Err(unclear(&format!("`{other}` is no state"))),
        };
        Ok(Wanted {
            ty,
            scope: text(&self.scope),
            rule: text(&self.rule),
            device: device.transpose()?,
            until: older.transpose()?,
            text: text(&self.text),
            dismissed,
            person: text(&self.assigned),
        })
    }

    /// The place from which to go on.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn place(&self) -> Result<Option<Place>, Failure> {
        if self.after.is_empty() {
            return Ok(None);
        }
        self.after.parse().map(Some).map_err(|()| unclear("this page is none"))
    }
}

fn declared(reading: &Reading, ty: &str) -> Result<TypeName, Failure> {
    let name = type_name(ty)?;
    let declared = reading.catalog.as_ref().is_some_and(|catalog| catalog.ty(&name).is_some());
    if declared || reading.store.segments()?.iter().any(|row| row.address.ty == name) {
        return Ok(name);
    }
    Err(unclear(&format!("the catalog has no object type {ty}")))
}

fn unclear(text: &str) -> Failure {
    Failure::new(Code::Usage, text, "go back to the quarantine, and choose from what it offers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_what_is_sought_and_comes_back_the_same() {
        let pairs = [("type", "order"), ("text", " a&b=c "), ("nothing", "x"), ("after", "1.2.x")];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let sought = Sought::of(&pairs);
        assert_eq!((&*sought.ty, &*sought.text, &*sought.after), ("order", "a&b=c", "1.2.x"));
        assert_eq!(sought.query(), "type=order&text=a%26b%3Dc");
        assert!(!sought.is_rare());
        assert!(Sought { older: "1d".into(), ..sought }.is_rare());
    }
}
