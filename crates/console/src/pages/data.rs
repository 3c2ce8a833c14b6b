//! Data: the object types, each with what is here of it; one of them; and what clearing would do.

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;

use super::words::label;
use super::{Chrome, page, record_path, segment, type_name, words};
use crate::Failure;
use crate::server::App;
use crate::shape::{Advice, Attachment, ClearPlan, TypeRow};

#[derive(Template)]
#[template(path = "data.html")]
struct Data {
    chrome: Chrome,
    all_paused: bool,
    any_paused: bool,
    /// The files that wait to be sent, and those that failed, with where the record of each is.
    files: Vec<(String, Attachment)>,
    files_paused: bool,
}

#[derive(Template)]
#[template(path = "object.html")]
struct Object {
    chrome: Chrome,
    row: TypeRow,
    advice: Vec<Advice>,
    /// Whether it is one of several parts that this device holds.
    scoped: bool,
    /// The scopes that are exchanged, where those are not all that were granted.
    scopes: Option<String>,
}

#[derive(Template)]
#[template(path = "clear.html")]
struct Clear {
    chrome: Chrome,
    ty: Option<String>,
    plan: ClearPlan,
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/data", get(data))
        .route("/data/{type}", get(object))
        .route("/clear", get(clear_all))
        .route("/clear/{type}", get(clear))
}

async fn data(State(app): State<App>) -> Response {
    page(&app, |app| {
        let chrome = Chrome::of(app, "data", "Data", "/data")?;
        let paused = app.device().paused()?;
        let files = app.device().files(None)?.into_iter();
        let files = files.map(|view| (record_path(&view.key.ty, &view.key.id), view.into()));
        let files = files.collect();
        let files_paused = app.device().files_paused()?;
        let (all_paused, any_paused) = (paused.all, paused.all || !paused.types.is_empty());
        Ok::<_, Failure>(Data { chrome, all_paused, any_paused, files, files_paused })
    })
    .await
}

async fn object(State(app): State<App>, Path(ty): Path<String>) -> Response {
    page(&app, move |app| {
        let ty = type_name(&ty)?;
        let path = format!("/data/{}", segment(ty.as_str()));
        let chrome = Chrome::of(app, "data", &label(ty.as_str()), &path)?;
        let row = chrome.status.types.iter().find(|row| row.ty == ty).cloned();
        let row = row.ok_or_else(|| Failure::absent(&ty))?;
        let advice =
            app.device().advice()?.into_iter().filter(|advice| advice.ty.as_ref() == Some(&ty));
        let scoped = app
            .device()
            .catalog()
            .is_some_and(|catalog| catalog.ty(&ty).is_some_and(|object| object.scope.is_some()));
        let advice = advice.map(Advice::from).collect();
        let scopes = app.device().paused()?.scopes.remove(&ty);
        let scopes = scopes.map(|scopes| scopes.into_iter().collect::<Vec<_>>().join(", "));
        Ok(Object { chrome, row, advice, scoped, scopes })
    })
    .await
}

async fn clear_all(State(app): State<App>) -> Response {
    clear_page(&app, None).await
}

async fn clear(State(app): State<App>, Path(ty): Path<String>) -> Response {
    clear_page(&app, Some(ty)).await
}

async fn clear_page(app: &App, ty: Option<String>) -> Response {
    page(app, move |app| {
        let name = ty.as_deref().map(type_name).transpose()?;
        let plan = ClearPlan::from(app.device().clear_plan(name.as_ref())?);
        let path =
            ty.as_ref().map_or_else(|| "/clear".to_owned(), |ty| format!("/clear/{}", segment(ty)));
        let chrome = Chrome::of(app, "data", "Clear and download again", &path)?;
        Ok::<_, Failure>(Clear { chrome, ty, plan })
    })
    .await
}
