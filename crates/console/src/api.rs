//! The HTTP API: what the command line does, as JSON, with the same shapes. `GET /api/v1/openapi.json`
//! describes it; every answer begins with its `schema`. What changes a record answers with the record, and
//! records are told as merged, with what last passed beside that.
//!
//! A program shows its session as `Authorization: Bearer …`; `fieldkeep console --json` opens one.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::map_response;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use fieldkeep_device::{Choice, PutError, declared, fresh_id};
use fieldkeep_model::{RecordEdit, RecordKey, TypeName};
use fieldkeep_store::Page;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use utoipa::{IntoParams, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::pages::{key, type_name};
use crate::refusal::Refusal;
use crate::server::App;
use crate::shape::{
    Advice, Attachment, CallRow, Called, CatalogState, Check, ClearPlan, Conflict, Explanation,
    Got, History, NotTaken, Past, Paused, Peers, Pin, Record, Resynced, Shared, Status, Synced,
    gone,
};
use crate::{Code, Failure};

/// Records that a page has at most, and unless it is asked for fewer.
const LIMIT: usize = 500;
/// Changes of a history that are told unless it is asked for more or fewer.
const CHANGES: usize = 50;
/// How long something is tried unless it is told otherwise.
const PATIENCE: u64 = 60;

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
        .routes(routes!(attachments))
        .routes(routes!(pins))
        .routes(routes!(search))
        .routes(routes!(list, create))
        .routes(routes!(record, edit, delete))
        .routes(routes!(undelete))
        .routes(routes!(what_if))
        .routes(routes!(history))
        .routes(routes!(conflicts))
        .routes(routes!(explain))
        .routes(routes!(at))
        .routes(routes!(resolve))
        .routes(routes!(revert))
        .routes(routes!(share))
        .routes(routes!(retry))
        .routes(routes!(dismiss))
        .routes(routes!(reopen))
        .routes(routes!(pin))
        .routes(routes!(unpin))
        .routes(routes!(sync))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(resync))
        .routes(routes!(clear_plan))
        .routes(routes!(call))
        .routes(routes!(calls))
        .routes(routes!(ask))
        .routes(routes!(events))
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

/// A list of records.
#[derive(Serialize, ToSchema)]
struct Records {
    records: Vec<Record>,
    /// The `after` of the next page; none if this is the last.
    next: Option<String>,
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

/// The files of a record; they are had at `/files/TYPE/ID/HASH`.
#[utoipa::path(get, path = "/records/{type}/{id}/attachments",
    params(("type" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = Attachments)))]
async fn attachments(State(app): State<App>, Path((ty, id)): Path<(String, String)>) -> Answer {
    let files = app.on_disk(move |app| {
        let key = key(&ty, &id)?;
        app.device().as_merged(&key)?.ok_or_else(|| Failure::absent(&key))?;
        Ok::<_, Failure>(app.device().files(Some(&key))?)
    });
    let records = files.await?.into_iter().map(Attachment::from).collect();
    Ok(told("attachments", &Attachments { records }))
}

#[derive(Serialize, ToSchema)]
struct Attachments {
    records: Vec<Attachment>,
}

/// The records that are in use.
#[utoipa::path(get, path = "/pins", responses((status = 200, body = Pins)))]
async fn pins(State(app): State<App>) -> Answer {
    let pins = app.on_disk(|app| app.device().pins().map_err(Failure::from)).await?;
    Ok(told("pins", &Pins { records: pins.into_iter().map(Pin::from).collect() }))
}

#[derive(Deserialize, IntoParams)]
struct Wanted {
    /// Words; the last may be a beginning.
    text: String,
    /// Only this type.
    r#type: Option<String>,
    limit: Option<usize>,
}

/// The records that have all words of a text.
#[utoipa::path(get, path = "/search", params(Wanted), responses((status = 200, body = Records)))]
async fn search(State(app): State<App>, Query(wanted): Query<Wanted>) -> Answer {
    let records = app.on_disk(move |app| {
        let ty = wanted.r#type.as_deref().map(type_name).transpose()?;
        ty.as_ref().map_or(Ok(()), |ty| known(app, ty))?;
        let members = app.device().members();
        let limit = wanted.limit.unwrap_or(50).min(LIMIT);
        let found = app.device().search(&wanted.text, ty.as_ref(), limit)?;
        Ok::<_, Failure>(found.into_iter().map(|view| Record::new(view, &members)).collect())
    });
    Ok(told("search", &Records { records: records.await?, next: None }))
}

#[derive(Deserialize, IntoParams)]
struct Paging {
    /// Ids after this one.
    after: Option<String>,
    /// At most so many: 500 at most.
    limit: Option<usize>,
}

/// A page of a type's records, by id.
#[utoipa::path(get, path = "/records/{type}", params(("type" = String, Path), Paging),
    responses((status = 200, body = Records)))]
async fn list(
    State(app): State<App>,
    Path(ty): Path<String>,
    Query(paging): Query<Paging>,
) -> Answer {
    let records = app.on_disk(move |app| {
        let ty = type_name(&ty)?;
        known(app, &ty)?;
        let members = app.device().members();
        let limit = paging.limit.unwrap_or(LIMIT).clamp(1, LIMIT);
        let page = Page { after: paging.after, limit: limit + 1, deleted: false };
        let mut views = app.device().list_as_merged(&ty, &page)?;
        let more = views.len() > limit;
        views.truncate(limit);
        let next = views.last().filter(|_| more).map(|view| view.key.id.to_string());
        let records = views.into_iter().map(|view| Record::new(view, &members)).collect();
        Ok::<_, Failure>(Records { records, next })
    });
    Ok(told("list", &records.await?))
}

/// Writes a record under a fresh id: a JSON object of its fields.
#[utoipa::path(post, path = "/records/{type}", params(("type" = String, Path)),
    request_body = Object, responses((status = 201, body = Record)))]
async fn create(
    State(app): State<App>,
    Path(ty): Path<String>,
    Json(fields): Json<Map<String, Value>>,
) -> Answer {
    let record =
        app.on_disk(move |app| put(app, RecordKey::new(type_name(&ty)?, fresh_id()), &fields));
    Ok((StatusCode::CREATED, told("get", &record.await?)).into_response())
}

/// A record: as merged, with what is known of its validity.
#[utoipa::path(get, path = "/records/{type}/{id}",
    params(("type" = String, Path), ("id" = String, Path)), responses((status = 200, body = Record)))]
async fn record(State(app): State<App>, Path((ty, id)): Path<(String, String)>) -> Answer {
    let record = app.on_disk(move |app| shown(app, &key(&ty, &id)?));
    Ok(told("get", &record.await?))
}

/// Writes a record: absent fields stay, null clears, a counter's number is added, of a set the children
/// given are written.
#[utoipa::path(patch, path = "/records/{type}/{id}",
    params(("type" = String, Path), ("id" = String, Path)),
    request_body = Object, responses((status = 200, body = Record)))]
async fn edit(
    State(app): State<App>,
    Path((ty, id)): Path<(String, String)>,
    Json(fields): Json<Map<String, Value>>,
) -> Answer {
    let record = app.on_disk(move |app| put(app, key(&ty, &id)?, &fields));
    Ok(told("get", &record.await?))
}

/// Deletes a record, softly.
#[utoipa::path(delete, path = "/records/{type}/{id}",
    params(("type" = String, Path), ("id" = String, Path)), responses((status = 200, body = Record)))]
async fn delete(State(app): State<App>, Path((ty, id)): Path<(String, String)>) -> Answer {
    acted(app, ty, id, |app, key| app.put(key, &RecordEdit::delete())).await
}

/// Brings a deleted record back.
#[utoipa::path(post, path = "/records/{type}/{id}/undelete",
    params(("type" = String, Path), ("id" = String, Path)), responses((status = 200, body = Record)))]
async fn undelete(State(app): State<App>, Path((ty, id)): Path<(String, String)>) -> Answer {
    acted(app, ty, id, |app, key| {
        let edit = RecordEdit { edits: Vec::new(), deleted: Some(false) };
        app.put(key, &edit)
    })
    .await
}

/// What a write would come to: the merged record and its forecast. Nothing is written.
#[utoipa::path(post, path = "/records/{type}/{id}/what-if",
    params(("type" = String, Path), ("id" = String, Path)),
    request_body = Object, responses((status = 200, body = Record)))]
async fn what_if(
    State(app): State<App>,
    Path((ty, id)): Path<(String, String)>,
    Json(fields): Json<Map<String, Value>>,
) -> Answer {
    let record = app.on_disk(move |app| {
        let key = key(&ty, &id)?;
        let view = app.device().what_if(&key, &read(app, &key.ty, &fields)?)?;
        Ok::<_, Failure>(Record::new(view, &app.device().members()))
    });
    Ok(told("what-if", &record.await?))
}

#[derive(Deserialize, IntoParams)]
struct Back {
    /// Changes before this one: its hash, or the first digits of it.
    before: Option<String>,
    /// At most so many: 500 at most.
    limit: Option<usize>,
}

/// The changes that made a record, newest first, each with what it found and left.
#[utoipa::path(get, path = "/records/{type}/{id}/history",
    params(("type" = String, Path), ("id" = String, Path), Back),
    responses((status = 200, body = Got)))]
async fn history(
    State(app): State<App>,
    Path((ty, id)): Path<(String, String)>,
    Query(back): Query<Back>,
) -> Answer {
    let got = app.on_disk(move |app| {
        let key = key(&ty, &id)?;
        let (record, members) = (shown(app, &key)?, app.device().members());
        let limit = back.limit.unwrap_or(CHANGES).clamp(1, LIMIT);
        let page = app.device().history(&key, limit, back.before.as_deref())?;
        let history = History::new(page, &members);
        let history = history.with_removed(|hash| app.device().removed(hash))?;
        Ok::<_, Failure>(Got::new(record, Some(history), None))
    });
    Ok(told("history", &got.await?))
}

/// The concurrent values of a record's fields.
#[utoipa::path(get, path = "/records/{type}/{id}/conflicts",
    params(("type" = String, Path), ("id" = String, Path)), responses((status = 200, body = Got)))]
async fn conflicts(State(app): State<App>, Path((ty, id)): Path<(String, String)>) -> Answer {
    let got = app.on_disk(move |app| {
        let key = key(&ty, &id)?;
        let (record, members) = (shown(app, &key)?, app.device().members());
        let conflicts = app.device().conflicts(&key)?.into_iter();
        let conflicts = Some(conflicts.map(|conflict| Conflict::new(conflict, &members)).collect());
        Ok::<_, Failure>(Got::new(record, None, conflicts))
    });
    Ok(told("conflicts", &got.await?))
}

/// Where a record is, and why it looks as it does.
#[utoipa::path(get, path = "/records/{type}/{id}/explanation",
    params(("type" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = Explanation)))]
async fn explain(State(app): State<App>, Path((ty, id)): Path<(String, String)>) -> Answer {
    let explained = app.on_disk(move |app| {
        let explained = app.device().explain(&key(&ty, &id)?)?;
        Ok::<_, Failure>(Explanation::new(explained, &app.device().members()))
    });
    Ok(told("explain", &explained.await?))
}

/// A record as it was: after a change, or at a time such as 2026-03-01T12:00:00Z.
#[utoipa::path(get, path = "/records/{type}/{id}/at/{moment}",
    params(("type" = String, Path), ("id" = String, Path), ("moment" = String, Path)),
    responses((status = 200, body = Past)))]
async fn at(
    State(app): State<App>,
    Path((ty, id, moment)): Path<(String, String, String)>,
) -> Answer {
    let past = app.on_disk(move |app| {
        let key = key(&ty, &id)?;
        let was = app.device().at(&key, &crate::time::moment(&moment))?;
        let fields = was.ok_or_else(|| Failure::absent(format!("{key} at {moment}")))?;
        let removed = gone(app.device(), &key.ty, &fields)?;
        Ok::<_, Failure>(Past { ty: key.ty, id: key.id, fields, removed })
    });
    Ok(told("at", &past.await?))
}

#[derive(Deserialize, ToSchema)]
struct Choosing {
    /// The field, as `customer` or `lines[7].quantity`.
    field: String,
    /// The number of the value among the conflicts from 1, the name of the device that wrote it, or
    /// `last_valid`.
    choice: String,
}

/// Writes one of a field's values as the one that counts.
#[utoipa::path(post, path = "/records/{type}/{id}/resolve",
    params(("type" = String, Path), ("id" = String, Path)),
    request_body = Choosing, responses((status = 200, body = Record)))]
async fn resolve(
    State(app): State<App>,
    Path((ty, id)): Path<(String, String)>,
    Json(Choosing { field, choice }): Json<Choosing>,
) -> Answer {
    acted(app, ty, id, move |app, key| {
        let Ok(choice) = choice.parse::<Choice>();
        let device = app.device();
        let seen = device.conflicts(key)?;
        app.put_made(key, || {
            if device.conflicts(key)? != seen {
                return Err(Failure::others_by_now(&field));
            }
            Ok(device.resolving(key, &field, &choice)?)
        })
    })
    .await
}

#[derive(Deserialize, ToSchema)]
struct Reverting {
    /// A change, or a time such as 2026-03-01T12:00:00Z.
    to: String,
    /// Only this field, as `customer` or `lines[7].quantity`.
    field: Option<String>,
}

/// Writes a record, or a field of it, as it was at a moment: an ordinary change.
#[utoipa::path(post, path = "/records/{type}/{id}/revert",
    params(("type" = String, Path), ("id" = String, Path)),
    request_body = Reverting, responses((status = 200, body = Record)))]
async fn revert(
    State(app): State<App>,
    Path((ty, id)): Path<(String, String)>,
    Json(Reverting { to, field }): Json<Reverting>,
) -> Answer {
    acted(app, ty, id, move |app, key| {
        let moment = crate::time::moment(&to);
        app.put_made(key, || Ok(app.device().reverting(key, field.as_deref(), &moment)?))
    })
    .await
}

/// A record as a text to be sent to somebody, by the catalog's template.
#[utoipa::path(get, path = "/records/{type}/{id}/share",
    params(("type" = String, Path), ("id" = String, Path)), responses((status = 200, body = Shared)))]
async fn share(State(app): State<App>, Path((ty, id)): Path<(String, String)>) -> Answer {
    let shared = app.on_disk(move |app| {
        let key = key(&ty, &id)?;
        let text = app.device().share(&key)?;
        Ok::<_, Failure>(Shared { ty: key.ty, id: key.id, text })
    });
    Ok(told("share", &shared.await?))
}

/// Asks the relay to judge a record again: now, or with the next sync.
#[utoipa::path(post, path = "/records/{type}/{id}/retry",
    params(("type" = String, Path), ("id" = String, Path)), responses((status = 200, body = Record)))]
async fn retry(State(app): State<App>, Path((ty, id)): Path<(String, String)>) -> Answer {
    acted(app, ty, id, |app, key| Ok(app.device().retry(key)?)).await
}

#[derive(Deserialize, ToSchema)]
struct Dismissing {
    /// Why.
    #[serde(default)]
    note: String,
}

/// Stops trying: kept, put aside, told to the relay.
#[utoipa::path(post, path = "/records/{type}/{id}/dismiss",
    params(("type" = String, Path), ("id" = String, Path)),
    request_body = Dismissing, responses((status = 200, body = Record)))]
async fn dismiss(
    State(app): State<App>,
    Path((ty, id)): Path<(String, String)>,
    Json(Dismissing { note }): Json<Dismissing>,
) -> Answer {
    acted(app, ty, id, move |app, key| Ok(app.device().dismiss(key, Some(&note))?)).await
}

/// Takes a dismissed record up again.
#[utoipa::path(post, path = "/records/{type}/{id}/reopen",
    params(("type" = String, Path), ("id" = String, Path)), responses((status = 200, body = Record)))]
async fn reopen(State(app): State<App>, Path((ty, id)): Path<(String, String)>) -> Answer {
    acted(app, ty, id, |app, key| Ok(app.device().dismiss(key, None)?)).await
}

#[derive(Deserialize, ToSchema)]
struct Pinning {
    /// Who has it in use.
    owner: String,
    /// What for.
    #[serde(default)]
    reason: String,
}

/// Marks a record as in use, so that clearing spares it.
#[utoipa::path(post, path = "/records/{type}/{id}/pin",
    params(("type" = String, Path), ("id" = String, Path)),
    request_body = Pinning, responses((status = 200, body = Record)))]
async fn pin(
    State(app): State<App>,
    Path((ty, id)): Path<(String, String)>,
    Json(Pinning { owner, reason }): Json<Pinning>,
) -> Answer {
    acted(app, ty, id, move |app, key| {
        app.device().pin(key, &owner, &reason)?.keep();
        Ok(())
    })
    .await
}

#[derive(Deserialize, ToSchema)]
struct Unpinning {
    /// Only this owner's mark.
    owner: Option<String>,
}

/// Releases a record.
#[utoipa::path(post, path = "/records/{type}/{id}/unpin",
    params(("type" = String, Path), ("id" = String, Path)),
    request_body = Unpinning, responses((status = 200, body = Record)))]
async fn unpin(
    State(app): State<App>,
    Path((ty, id)): Path<(String, String)>,
    Json(Unpinning { owner }): Json<Unpinning>,
) -> Answer {
    acted(app, ty, id, move |app, key| Ok(app.device().unpin(Some(key), owner.as_deref())?)).await
}

#[derive(Deserialize, IntoParams)]
struct Patience {
    /// How long it is tried, in seconds.
    timeout_s: Option<u64>,
}

impl Patience {
    fn duration(&self, most: u64) -> Duration {
        Duration::from_secs(self.timeout_s.unwrap_or(most).clamp(1, 3_600))
    }
}

/// Exchanges everything with the relay, and proves that both have the same.
#[utoipa::path(post, path = "/sync", params(Patience), responses((status = 200, body = Synced)))]
async fn sync(State(app): State<App>, Query(patience): Query<Patience>) -> Answer {
    let report = app.device().sync(patience.duration(PATIENCE)).await.map_err(Failure::from)?;
    let paused = app.device().paused().map_err(Failure::from)?;
    Ok(told("sync", &Synced::new(report, paused)))
}

#[derive(Deserialize, IntoParams)]
struct OfType {
    /// The type; all if absent.
    r#type: Option<String>,
}

impl OfType {
    fn ty(&self) -> Result<Option<TypeName>, Failure> {
        self.r#type.as_deref().map(type_name).transpose()
    }
}

/// Has the relay run an action of the catalog: a JSON object is its input.
#[utoipa::path(post, path = "/actions/{name}", params(("name" = String, Path), Patience),
    request_body = Object, responses((status = 200, body = Called)))]
async fn call(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(patience): Query<Patience>,
    Json(input): Json<Map<String, Value>>,
) -> Answer {
    let called = app.device().call(&name, &input, patience.duration(PATIENCE)).await;
    Ok(told("call", &Called::from(called.map_err(Failure::from)?)))
}

#[derive(Serialize, ToSchema)]
struct Calls {
    calls: Vec<CallRow>,
}

/// This device's calls of the last days, newest first, and what came of them.
#[utoipa::path(get, path = "/calls", responses((status = 200, body = Calls)))]
async fn calls(State(app): State<App>) -> Answer {
    let calls = app.on_disk(|app| app.device().calls().map_err(Failure::from)).await?;
    Ok(told("calls", &Calls { calls: calls.into_iter().map(CallRow::from).collect() }))
}

/// Asks the relay a query of the catalog: a JSON object has its parameters.
#[utoipa::path(post, path = "/queries/{name}", params(("name" = String, Path), Patience),
    request_body = Object, responses((status = 200, body = crate::shape::Answer)))]
async fn ask(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(patience): Query<Patience>,
    Json(params): Json<Map<String, Value>>,
) -> Answer {
    let answer = app.device().ask(&name, &params, patience.duration(PATIENCE)).await;
    Ok(told("ask", &crate::shape::Answer::from(answer.map_err(Failure::from)?)))
}

/// Exchanges nothing of a type, or of all, until it is resumed.
#[utoipa::path(post, path = "/pause", params(OfType), responses((status = 200, body = Paused)))]
async fn pause(State(app): State<App>, Query(of): Query<OfType>) -> Answer {
    paused(app, move |app| Ok(app.device().pause(of.ty()?.as_ref())?)).await
}

/// Exchanges a type again, or all.
#[utoipa::path(post, path = "/resume", params(OfType), responses((status = 200, body = Paused)))]
async fn resume(State(app): State<App>, Query(of): Query<OfType>) -> Answer {
    paused(app, move |app| Ok(app.device().resume(of.ty()?.as_ref())?)).await
}

#[derive(Deserialize, IntoParams)]
struct Again {
    /// The type; all that are not paused if absent.
    r#type: Option<String>,
    /// Whether what this device may not read any more is removed.
    #[serde(default)]
    clear: bool,
    /// How long it is tried, in seconds.
    timeout_s: Option<u64>,
}

/// Downloads a type again, or all. What is unsaved or in use stays.
#[utoipa::path(post, path = "/resync", params(Again), responses((status = 200, body = Resynced)))]
async fn resync(State(app): State<App>, Query(again): Query<Again>) -> Answer {
    let ty = again.r#type.as_deref().map(type_name).transpose()?;
    let patience = Patience { timeout_s: again.timeout_s }.duration(600);
    let done = match again.clear {
        true => app.device().clear_and_resync(ty.as_ref(), patience).await,
        false => app.device().resync(ty.as_ref(), patience).await,
    };
    Ok(told("resync", &Resynced::from(done.map_err(Failure::from)?)))
}

/// What clearing would remove, and what stays.
#[utoipa::path(get, path = "/clear-plan", params(OfType), responses((status = 200, body = ClearPlan)))]
async fn clear_plan(State(app): State<App>, Query(of): Query<OfType>) -> Answer {
    let plan =
        app.on_disk(move |app| app.device().clear_plan(of.ty()?.as_ref()).map_err(Failure::from));
    Ok(told("clear-plan", &ClearPlan::from(plan.await?)))
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

/// Acts on a record that is there, and shows it afterwards.
async fn acted<T>(
    app: App,
    ty: String,
    id: String,
    act: impl FnOnce(&App, &RecordKey) -> Result<T, Failure> + Send + 'static,
) -> Answer {
    let record = app.on_disk(move |app| {
        let key = key(&ty, &id)?;
        shown(app, &key)?;
        act(app, &key)?;
        shown(app, &key)
    });
    Ok(told("get", &record.await?))
}

async fn paused(
    app: App,
    act: impl FnOnce(&App) -> Result<(), Failure> + Send + 'static,
) -> Answer {
    let paused = app.on_disk(move |app| {
        act(app)?;
        app.device().paused().map_err(Failure::from)
    });
    Ok(told("paused", &Paused::from(paused.await?)))
}

fn shown(app: &App, key: &RecordKey) -> Result<Record, Failure> {
    known(app, &key.ty)?;
    let view = app.device().as_merged(key)?.ok_or_else(|| Failure::absent(key))?;
    Ok(Record::new(view, &app.device().members()))
}

fn put(app: &App, key: RecordKey, fields: &Map<String, Value>) -> Result<Record, Failure> {
    app.put(&key, &read(app, &key.ty, fields)?)?;
    shown(app, &key)
}

fn read(app: &App, ty: &TypeName, fields: &Map<String, Value>) -> Result<RecordEdit, Failure> {
    let catalog = app.device().catalog().ok_or(PutError::NoCatalog)?;
    Ok(declared(&catalog, ty)?.edit_from_json(fields)?)
}

/// Whether a type is one that there is, or was.
fn known(app: &App, ty: &TypeName) -> Result<(), Failure> {
    let there = app.device().counts(ty)? != Default::default();
    match app.device().catalog() {
        Some(catalog) if !there => Ok(declared(&catalog, ty).map(drop)?),
        Some(_) | None => Ok(()),
    }
}
