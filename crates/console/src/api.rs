//! The HTTP API: what the command line does, as JSON, with the same shapes. `GET /api/v1/openapi.json`
//! describes it; every answer begins with its `schema`. What changes a record answers with the record, and
//! records are told as merged, with what last passed beside that.
//!
//! A program shows its session as `Authorization: Bearer …`; `fieldkeep console --json` opens one.

mod exchange;
mod records;

use std::convert::Infallible;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::map_response;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::refusal::Refusal;
use crate::server::App;
use crate::shape::{Advice, CatalogState, Check, NotTaken, Peers, Pin, Record, Status};
use crate::{Code, Failure};

/// The document's head.
#[derive(OpenApi)]
#[openapi(info(
    title = "Fieldkeep",
    description = "A device's records, its status, and control over what is exchanged.",
    license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
))]
struct Description;

/// A refusal as JSON.
struct Told(Refusal);

impl<E: Into<Refusal>> From<E> for Told {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        self.0.into_json()
    }
}

type Answer = Result<Response, Told>;

/// An answer as one JSON object that begins with its schema.
fn told(schema: &str, value: &impl Serialize) -> Response {
    let mut object = Map::new();
    object.insert("schema".into(), Value::from(format!("fieldkeep/{schema}/1")));
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => object.extend(fields),
        Ok(other) => drop(object.insert("value".into(), other)),
        Err(error) => {
            let failure = Failure::new(
                Code::Failure,
                format!("it cannot be said as JSON: {error}"),
                "try again",
            );
            return Refusal::from(failure).into_json();
        }
    }
    Json(object).into_response()
}

pub(crate) fn routes() -> Router<App> {
    let (router, document) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(status))
        .routes(routes!(advice))
        .routes(routes!(doctor))
        .routes(routes!(catalog))
        .routes(routes!(attention))
        .routes(routes!(peers))
        .routes(routes!(pins))
        .routes(routes!(events))
        .merge(records::routes())
        .merge(exchange::routes())
        .split_for_parts();
    let document = Json(document);
    Router::new()
        .route("/api/v1/openapi.json", get(async move || document))
        .nest("/api/v1", router)
        .route("/api/{*rest}", any(nowhere))
        .layer(map_response(spoken))
}

/// What the framework refuses by itself, such as a body that is no JSON, in the shape of all refusals.
async fn spoken(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_ours = kind.is_some_and(|kind| kind == "application/json");
    if !status.is_client_error() || is_ours {
        return response;
    }
    let body = to_bytes(response.into_body(), 4_096).await.unwrap_or_default();
    let mut text = String::from_utf8_lossy(&body).into_owned();
    if text.is_empty() {
        text = status.canonical_reason().unwrap_or("this cannot be done").to_lowercase();
    }
    let remedy = "`/api/v1/openapi.json` describes what there is; nothing was changed";
    Refusal::new(status, Code::Usage, &text, remedy).into_json()
}

async fn nowhere(_: Request) -> Response {
    Refusal::nowhere().into_json()
}

/// How the device stands to its relay, and what is here of each type.
#[utoipa::path(get, path = "/status", responses((status = 200, body = Status)))]
async fn status(State(app): State<App>) -> Answer {
    let status = app.on_disk(|app| Status::of(app.device()).map_err(Failure::from)).await?;
    Ok(told("status", &status))
}

#[derive(Serialize, ToSchema)]
struct AllAdvice {
    advice: Vec<Advice>,
}

/// What is wrong, since when, and the command that mends it.
#[utoipa::path(get, path = "/advice", responses((status = 200, body = AllAdvice)))]
async fn advice(State(app): State<App>) -> Answer {
    let advice = app.on_disk(|app| app.device().advice().map_err(Failure::from)).await?;
    Ok(told("advice", &AllAdvice { advice: advice.into_iter().map(Advice::from).collect() }))
}

#[derive(Serialize, ToSchema)]
struct Checks {
    checks: Vec<Check>,
}

/// A check of everything that is stored.
#[utoipa::path(get, path = "/doctor", responses((status = 200, body = Checks)))]
async fn doctor(State(app): State<App>) -> Answer {
    let checks = app.on_disk(|app| app.device().doctor().map_err(Failure::from)).await?;
    Ok(told("doctor", &Checks { checks: checks.into_iter().map(Check::from).collect() }))
}

#[derive(Serialize, ToSchema)]
struct CatalogText {
    /// What is known of it; nothing before the first has come.
    state: Option<CatalogState>,
    /// Its source.
    source: Option<String>,
}

/// The catalog by which records are checked here.
#[utoipa::path(get, path = "/catalog", responses((status = 200, body = CatalogText)))]
async fn catalog(State(app): State<App>) -> Answer {
    let text = app.on_disk(|app| {
        let source = app.device().catalog().map(|catalog| catalog.source().to_owned());
        Ok::<_, Failure>(CatalogText { state: CatalogState::of(app.device())?, source })
    });
    Ok(told("catalog", &text.await?))
}

#[derive(Serialize, ToSchema)]
struct Attention {
    records: Vec<Record>,
    /// What the relay has not taken.
    not_taken: Vec<NotTaken>,
}

/// The records that are held, wait, or are likely to be held.
#[utoipa::path(get, path = "/attention", responses((status = 200, body = Attention)))]
async fn attention(State(app): State<App>) -> Answer {
    let attention = app.on_disk(|app| {
        let members = app.device().members();
        let views = app.device().attention().map_err(Failure::from)?;
        let records = views.into_iter().map(|view| Record::new(view, &members)).collect();
        let not_taken = app.device().not_taken()?.into_iter().map(NotTaken::from).collect();
        Ok::<_, Failure>(Attention { records, not_taken })
    });
    Ok(told("attention", &attention.await?))
}

/// The devices that are connected to this one.
#[utoipa::path(get, path = "/peers", responses((status = 200, body = Peers)))]
async fn peers(State(app): State<App>) -> Answer {
    let peers = app.on_disk(|app| Peers::of(app.device()).map_err(Failure::from));
    Ok(told("peers", &peers.await?))
}

#[derive(Serialize, ToSchema)]
struct Pins {
    records: Vec<Pin>,
}

/// The records that are in use.
#[utoipa::path(get, path = "/pins", responses((status = 200, body = Pins)))]
async fn pins(State(app): State<App>) -> Answer {
    let pins = app.on_disk(|app| app.device().pins().map_err(Failure::from)).await?;
    Ok(told("pins", &Pins { records: pins.into_iter().map(Pin::from).collect() }))
}

/// Server-sent events: `changed` with the names of records, `strip` with the connection, `status` where
/// something else of the status has changed, `met` and `left` with the name of a device, `missed` where it
/// was too much to be told one by one.
#[utoipa::path(get, path = "/events",
    responses((status = 200, content_type = "text/event-stream", body = String)))]
async fn events(State(app): State<App>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    use fieldkeep_device::Event as Happened;
    let stream = unfold((app.device().watch(), app), |(mut events, app)| async move {
        let (name, data) = match events.recv().await {
            Ok(Happened::Changed(keys)) => {
                let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
                ("changed", json!({ "records": keys }))
            }
            Ok(Happened::Strip(strip)) => {
                ("strip", json!({ "connection": crate::shape::strip_word(&strip) }))
            }
            Ok(Happened::Status) => ("status", json!({})),
            Ok(Happened::Met(name)) => ("met", json!({ "name": name })),
            Ok(Happened::Left(progress)) => ("left", json!({ "name": progress.name })),
            Err(RecvError::Lagged(_)) => ("missed", json!({})),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(Event::default().event(name).data(data.to_string())), (events, app)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}
