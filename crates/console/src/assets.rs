//! Styles, scripts and pictures: in the binary, each under a name that changes with its content.

use axum::Router;
use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::refusal::Refusal;

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Name, kind and content.
const ASSETS: [(&str, &str, &str); 6] = [
    ("console.css", CSS, include_str!("../assets/console.css")),
    ("console.js", JS, include_str!("../assets/console.js")),
    ("icon.svg", "image/svg+xml", include_str!("../assets/icon.svg")),
    ("htmx.js", JS, include_str!("../assets/vendor/htmx.min.js")),
    ("sse.js", JS, include_str!("../assets/vendor/htmx-sse.min.js")),
    ("morph.js", JS, include_str!("../assets/vendor/idiomorph-ext.min.js")),
];

pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/assets/{version}/{name}", get(asset))
}

async fn asset(Path((_, name)): Path<(String, String)>) -> Response {
    let Some((_, kind, content)) = ASSETS.iter().find(|(other, ..)| *other == name) else {
        return Refusal::nowhere().into_page();
    };
    let forever = "public, max-age=31536000, immutable";
    ([(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, forever)], *content).into_response()
}

/// Where an asset is: a browser that has it keeps it until this build's is another one.
pub(crate) fn url(name: &str) -> String {
    static VERSION: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        ASSETS.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    });
    format!("/assets/{}/{name}", *VERSION)
}
