//! Peers: who is connected, who is near, what was exchanged, and how another device reaches this one.

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use fieldkeep_device::PeerProgress;
use qrcode::QrCode;
use qrcode::render::svg;

use super::{Chrome, page, words};
use crate::Failure;
use crate::refusal::Refusal;
use crate::server::App;
use crate::shape;

#[derive(Template)]
#[template(path = "peers.html")]
struct Peers {
    chrome: Chrome,
    listening: Option<String>,
    connected: Vec<PeerProgress>,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/peers", get(peers)).route("/peers/code.svg", get(code))
}

async fn peers(State(app): State<App>) -> Response {
    page(&app, |app| {
        let chrome = Chrome::of(app, "peers", "Peers", "/peers")?;
        let connected = app.device().meetings()?.into_iter().filter(|met| met.number.is_some());
        let (listening, connected) =
            (shape::Peers::of(app.device())?.listening, connected.collect());
        Ok::<_, Failure>(Peers { chrome, listening, connected })
    })
    .await
}

/// Where this device listens, with its key, as a code.
async fn code(State(app): State<App>) -> Response {
    let peers = shape::Peers::of(app.device()).ok();
    let code = peers.and_then(|peers| QrCode::new(peers.listening?).ok());
    let Some(code) = code else { return Refusal::nowhere().into_page() };
    let picture = code.render::<svg::Color<'_>>().min_dimensions(240, 240).build();
    ([(header::CONTENT_TYPE, "image/svg+xml")], picture).into_response()
}
