//! The trail of the quarantine: what was decided, by whom, when and why. It is only added to.

use askama::Template;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Extension, Router};
use fieldkeep_store::{Quarantine as _, SoughtDecisions};
use serde::Deserialize;

use super::held::{DEEDS, deed, held_path};
use super::{Answer, Chrome, page};
use crate::operator::App;
use crate::operator::gate::Who;
use crate::time::rfc3339;
use crate::words;

/// Decisions on a page.
const ROWS: usize = 50;

#[derive(Template)]
#[template(path = "operator/trail.html")]
struct Trail {
    chrome: Chrome,
    rows: Vec<Row>,
    /// Before which decision the next page begins.
    next: Option<u64>,
    later: bool,
    /// What can be decided, in words, and whether only that is shown.
    acts: [(&'static str, &'static str, bool); DEEDS.len()],
    /// The same in the page's address.
    of: String,
}

/// What an address says behind its question mark.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sought {
    before: Option<u64>,
    act: Option<String>,
}

#[derive(Debug)]
struct Row {
    time: String,
    who: String,
    deed: &'static str,
    record: String,
    path: String,
    note: String,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/quarantine/trail", get(trail))
}

async fn trail(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Query(Sought { before, act }): Query<Sought>,
) -> Answer {
    page(&app, move |app, reading| {
        let acts = DEEDS.map(|(name, words)| (name, words, act.as_deref() == Some(name)));
        let act = act.filter(|act| acts.iter().any(|(name, ..)| name == act));
        let of = act.as_ref().map_or_else(String::new, |act| format!("act={act}&"));
        let path = before.map_or_else(String::new, |before| format!("before={before}"));
        let path = format!("/quarantine/trail?{of}{path}");
        let chrome = Chrome::of(app, &who, reading, "quarantine", "Trail", &path);
        let sought = SoughtDecisions { act, before, ..SoughtDecisions::default() };
        let decisions = reading.store.decisions(&sought, ROWS)?;
        let last = decisions.last().map(|decision| decision.number);
        let next = last.filter(|last| decisions.len() == ROWS && *last > 1);
        let rows = decisions.into_iter().map(|decision| Row {
            time: rfc3339(decision.time),
            deed: deed(&decision.act),
            record: decision.key.to_string(),
            path: held_path(&decision.key),
            who: decision.who,
            note: match &*decision.act {
                "assign" => format!("to {}", decision.note),
                _ => decision.note,
            },
        });
        Ok(Trail { chrome, rows: rows.collect(), next, later: before.is_some(), acts, of })
    })
    .await
}
