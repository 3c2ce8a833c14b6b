//! Records: what they are and were, and what is done to one of them.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use fieldkeep_device::{Choice, PutError, declared, fresh_id};
use fieldkeep_model::{RecordEdit, RecordKey, TypeName};
use fieldkeep_store::Page;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, told};
use crate::Failure;
use crate::pages::{key, type_name};
use crate::server::App;
use crate::shape::{Attachment, Conflict, Explanation, Got, History, Past, Record, Shared, gone};

/// Records that a page has at most, and unless it is asked for fewer.
const LIMIT: usize = 500;
/// Changes of a history that are told unless it is asked for more or fewer.
const CHANGES: usize = 50;
/// What is done here.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
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
        .routes(routes!(attachments))
        .routes(routes!(retry))
        .routes(routes!(dismiss))
        .routes(routes!(reopen))
        .routes(routes!(pin))
        .routes(routes!(unpin))
}

/// A list of records.
#[derive(Serialize, ToSchema)]
struct Records {
    records: Vec<Record>,
    /// The `after` of the next page; none if this is the last.
    next: Option<String>,
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
