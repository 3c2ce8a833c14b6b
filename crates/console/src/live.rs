//! Server-sent events: a page is told that something has changed since it was rendered, and fetches what
//! it shows.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::server::App;

/// Between two that are told: a page is not drawn more often while thousands of records come.
const PAUSE: Duration = Duration::from_millis(200);

/// What a page knows: whatever turned after that is news to it.
#[derive(Debug, Deserialize)]
struct Known {
    #[serde(default)]
    since: u64,
}

pub(crate) fn routes() -> Router<App> {
    Router::new().route("/events", get(events))
}

async fn events(
    State(app): State<App>,
    Query(known): Query<Known>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(told(app.desk().turned(), known.since)).keep_alive(KeepAlive::default())
}

/// Tells that something has turned whenever it has, behind what is known.
pub(crate) fn told(
    turned: watch::Receiver<u64>,
    known: u64,
) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold((turned, known, false), |watching| async move {
        let (mut turned, known, told) = watching;
        if told {
            sleep(PAUSE).await;
        }
        let turn = *turned.wait_for(|turn| *turn != known).await.ok()?;
        Some((Ok(Event::default().event("changed").data(turn.to_string())), (turned, turn, true)))
    })
}
