//! Today: is everything sent, what needs attention, what is to be done.

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::{Chrome, page, words};
use crate::Failure;
use crate::server::App;
use crate::shape::{Advice, Record};

/// Records that need attention which are shown here; the rest are on their own page.
const SHOWN: usize = 5;

#[derive(Template)]
#[template(path = "today.html")]
struct Today {
    chrome: Chrome,
    advice: Vec<Advice>,
    /// Whether the relay has refused all that is here alone.
    refused: bool,
    attention: Vec<Record>,
    more: usize,
    /// Records that wait for another one: nobody has to do anything about those yet.
    waiting: usize,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/", get(today))
}

async fn today(State(app): State<App>) -> Response {
    page(&app, |app| {
        let chrome = Chrome::of(app, "today", "Today", "/")?;
        let members = app.device().members();
        let attention = app.device().attention()?;
        let open = attention.into_iter().filter(|view| view.dismissed.is_none());
        let open = open.map(|view| Record::new(view, &members));
        let (waiting, mut attention): (Vec<_>, Vec<_>) =
            open.partition(|record| record.state == "waiting");
        let more = attention.len().saturating_sub(SHOWN);
        attention.truncate(SHOWN);
        let advice: Vec<Advice> = app.device().advice()?.into_iter().map(Advice::from).collect();
        let refused = advice.iter().any(|advice| advice.situation == "not_taken");
        // What the banners and the list say already.
        let advice = advice.into_iter().filter(|advice| {
            !matches!(
                advice.situation.as_str(),
                "held"
                    | "sync_error"
                    | "all_paused"
                    | "unsaved"
                    | "not_taken"
                    | "files_unsent"
                    | "syncing"
            )
        });
        Ok::<_, Failure>(Today {
            chrome,
            advice: advice.collect(),
            refused,
            attention,
            more,
            waiting: waiting.len(),
        })
    })
    .await
}
