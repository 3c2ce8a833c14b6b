//! Needs attention: the held records, with their reasons and what can be done.

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::{Chrome, page, words};
use crate::Failure;
use crate::server::App;
use crate::shape::{CatalogState, NotTaken, Record};

#[derive(Template)]
#[template(path = "attention.html")]
struct Attention {
    chrome: Chrome,
    held: Vec<Record>,
    /// For another record: each is taken up by itself when that comes.
    waiting: Vec<Record>,
    dismissed: Vec<Record>,
    not_taken: Vec<NotTaken>,
    catalog: Option<CatalogState>,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/attention", get(attention))
}

async fn attention(State(app): State<App>) -> Response {
    page(&app, |app| {
        let chrome = Chrome::of(app, "attention", "Needs attention", "/attention")?;
        let members = app.device().members();
        let all = app.device().attention()?.into_iter().map(|view| Record::new(view, &members));
        let (dismissed, open): (_, Vec<_>) = all.partition(|record| record.dismissed.is_some());
        let (waiting, held) = open.into_iter().partition(|record| record.state == "waiting");
        let catalog = CatalogState::of(app.device())?;
        let not_taken = app.device().not_taken()?.into_iter().map(NotTaken::from).collect();
        Ok::<_, Failure>(Attention { chrome, held, waiting, dismissed, not_taken, catalog })
    })
    .await
}

impl Attention {
    /// The list in its parts: what somebody has to mend, and what mends itself.
    fn parts(&self) -> [(&'static str, &[Record]); 2] {
        [("", &self.held), ("Waiting for another record", &self.waiting)]
    }
}
