//! Reasons in plain language: from a message id and its arguments to a sentence.

use fieldkeep_model::verdict::ArgValue;
use fieldkeep_model::{Reason, TypeName};

use crate::catalog::Catalog;

impl Catalog {
    /// The sentence for a reason. A broken rule is told in the catalog's own words; an argument
    /// that is sealed here reads as `another record`; an unknown message as its id.
    #[must_use]
    pub fn explain(&self, ty: &TypeName, reason: &Reason) -> String {
        let arg = |name: &str| argument(reason, name);
        let field = field(reason);
        match reason.id.as_str() {
            "unknown_schema" if reason.fields.is_empty() => {
                format!("the catalog does not declare the type `{}`", arg("type"))
            }
            "unknown_schema" => format!("the catalog does not declare {field}"),
            "required" => format!("{field} is missing"),
            "schema" => format!("{field} does not fit: {}", arg("problem")),
            "scope_changed" => format!(
                "{field} was changed from `{}` to `{}`: to move a record, delete it and create it there",
                arg("was"),
                arg("is"),
            ),
            "reference_absent" => {
                format!("{field} refers to {}, which is not there yet", arg("record"))
            }
            "reference_deleted" => {
                format!("{field} refers to {}, which is deleted", arg("record"))
            }
            "unique" => {
                format!("{field} is `{}`, and so is that of {}", arg("value"), arg("record"))
            }
            "rule" => self.rule_reason(ty, reason),
            "rule_failed" => {
                let rule = reason.rule.as_deref().unwrap_or_default();
                format!("the rule `{rule}` could not be checked: {}", arg("error"))
            }
            "needs_connection" => {
                "it was edited without a connection in a state that needs one".to_owned()
            }
            "more" => format!("it is held for {} more reasons, which are not listed", arg("count")),
            "not_permitted" => "a change to it was not permitted".to_owned(),
            other => other.to_owned(),
        }
    }

    fn rule_reason(&self, ty: &TypeName, reason: &Reason) -> String {
        let name = reason.rule.as_deref().unwrap_or_default();
        let rules = self.ty(ty).map(|ty| ty.rules.as_slice()).unwrap_or_default();
        match rules.iter().find(|rule| rule.name == name) {
            Some(rule) => rule.reason.clone(),
            None => format!("the rule `{name}` is broken"),
        }
    }
}

fn argument<'r>(reason: &'r Reason, name: &str) -> &'r str {
    match reason.args.iter().find(|arg| arg.name == name).map(|arg| &arg.value) {
        Some(ArgValue::Open(value)) => value,
        Some(ArgValue::Sealed(_)) => "another record",
        None => "",
    }
}

/// The field that a reason speaks of, with the child where it lies in one.
fn field(reason: &Reason) -> String {
    let (field, child) = (argument(reason, "field"), argument(reason, "child"));
    match (field, child) {
        ("", _) => "the record".to_owned(),
        (field, "") => format!("`{field}`"),
        (field, child) => format!("`{field}` of `{child}`"),
    }
}
