//! Access: who has an account on this console, and what operators did here. The trail is only added to.

use askama::Template;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Extension, Router};
use fieldkeep_store::Operators as _;

use super::{Answer, Before, Chrome, page};
use crate::operator::App;
use crate::operator::gate::Who;
use crate::shape::{Deed, Operator};
use crate::words;

/// Deeds on a page.
const ROWS: usize = 50;

#[derive(Template)]
#[template(path = "operator/access.html")]
struct Access {
    chrome: Chrome,
    operators: Vec<Operator>,
    deeds: Vec<Deed>,
    /// Before which deed the next page begins.
    next: Option<u64>,
    later: bool,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/access", get(access))
}

async fn access(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Query(Before { before }): Query<Before>,
) -> Answer {
    page(&app, move |app, reading| {
        let chrome = Chrome::of(app, &who, reading, "access", "Access", "/access");
        let operators = reading.store.operators()?.into_iter().map(Operator::from).collect();
        let deeds = reading.store.deeds(before, ROWS)?;
        let last = deeds.last().map(|deed| deed.number);
        let next = last.filter(|last| deeds.len() == ROWS && *last > 1);
        let deeds = deeds.into_iter().map(Deed::from).collect();
        Ok(Access { chrome, operators, deeds, next, later: before.is_some() })
    })
    .await
}

impl Access {
    /// What was done, in words.
    fn words(&self, deed: &Deed) -> &'static str {
        match &*deed.act {
            "sign_in" => "signed in",
            "sign_out" => "signed out",
            "refused" => "was not let in",
            "denied" => "was not let do",
            "publish" => "published",
            "roll_back" => "went back to",
            "back_up" => "asked for a backup in",
            "back_up_failed" => "got no backup in",
            "rejudge" => "had judged again",
            "export" => "exported",
            "add" => "gave an account to",
            "password" => "changed the password of",
            "role" => "changed the role of",
            "remove" => "took the account from",
            _ => "did",
        }
    }

    /// Whether somebody should look at it.
    fn is_grave(&self, deed: &Deed) -> bool {
        matches!(&*deed.act, "refused" | "denied" | "back_up_failed")
    }
}
