//! Records: a type's table, a page at a time, and what a search finds.

use std::collections::BTreeMap;

use askama::Template;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::get;
use fieldkeep_catalog::{Kind, ObjectType};
use fieldkeep_store::Page;
use serde::Deserialize;

use super::words::label;
use super::{Chrome, page, segment, type_name, words};
use crate::Failure;
use crate::server::App;
use crate::shape::Record;

/// Records on a page.
const ROWS: usize = 50;
/// Columns besides the record's name and its state.
const COLUMNS: usize = 4;

#[derive(Template)]
#[template(path = "records.html")]
struct Records {
    chrome: Chrome,
    /// The type; all of them if none.
    ty: Option<String>,
    query: String,
    columns: Vec<String>,
    rows: Vec<Record>,
    /// Where the next page is.
    next: Option<String>,
    /// Whether this is not the first.
    later: bool,
    /// How many there are of the type.
    total: u64,
}

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    q: String,
    after: Option<String>,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/records", get(all)).route("/records/{type}", get(of_one))
}

async fn all(State(app): State<App>, Query(wanted): Query<Wanted>) -> Response {
    page(&app, move |app| {
        let path = format!("/records?q={}", segment(&wanted.q));
        let chrome = Chrome::of(app, "records", "Records", &path)?;
        let rows = found(app, &wanted.q, None)?;
        let total = chrome.status.types.iter().map(|row| row.local).sum();
        let (ty, columns, next) = (None, Vec::new(), None);
        Ok(Records { chrome, ty, query: wanted.q, columns, rows, next, later: false, total })
    })
    .await
}

async fn of_one(
    State(app): State<App>,
    Path(ty): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Response {
    page(&app, move |app| {
        let name = type_name(&ty)?;
        let path = format!("/records/{}", segment(&ty));
        let after = wanted.after.as_deref().map(|after| format!("&after={}", segment(after)));
        let own = format!("{path}?q={}{}", segment(&wanted.q), after.unwrap_or_default());
        let chrome = Chrome::of(app, "records", &label(&ty), &own)?;
        let row = chrome.status.types.iter().find(|row| row.ty == name);
        let total = row.ok_or_else(|| Failure::absent(&name))?.local;
        let (rows, next) = if wanted.q.trim().is_empty() {
            let page = Page { after: wanted.after.clone(), limit: ROWS + 1, deleted: false };
            let mut views = app.device().list_as_merged(&name, &page)?;
            let more = views.len() > ROWS;
            views.truncate(ROWS);
            let last = views.last().filter(|_| more).map(|view| view.key.id.to_string());
            let members = app.device().members();
            let rows = views.into_iter().map(|view| Record::new(view, &members)).collect();
            (rows, last.map(|last| format!("{path}?after={}", segment(&last))))
        } else {
            (found(app, &wanted.q, Some(&name))?, None)
        };
        let catalog = app.device().catalog();
        let object = catalog.as_ref().and_then(|catalog| catalog.ty(&name));
        let columns = object.map(columns).unwrap_or_default();
        let later = wanted.after.is_some();
        Ok(Records { chrome, ty: Some(ty), query: wanted.q, columns, rows, next, later, total })
    })
    .await
}

fn found(
    app: &App,
    text: &str,
    ty: Option<&fieldkeep_model::TypeName>,
) -> Result<Vec<Record>, Failure> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let members = app.device().members();
    let found = app.device().search(text, ty, ROWS)?;
    Ok(found.into_iter().map(|view| Record::new(view, &members)).collect())
}

/// The fields that a table shows: required ones first, and none that is long or nested.
fn columns(object: &ObjectType) -> Vec<String> {
    let plain = object.fields.iter().filter(|(name, field)| {
        let titled = fieldkeep_catalog::TITLES.contains(&name.as_str());
        !titled && matches!(field.kind, Kind::Register | Kind::Counter)
    });
    let ranked: BTreeMap<_, _> =
        plain.map(|(name, field)| ((!field.required, name), name.clone())).collect();
    ranked.into_values().take(COLUMNS).collect()
}

impl Records {
    /// A cell of the table.
    fn cell(&self, record: &Record, column: &str) -> String {
        record.fields.get(column).map(words::value).unwrap_or_default()
    }

    /// Whether a column holds numbers.
    fn is_number(&self, record: &Record, column: &str) -> bool {
        record.fields.get(column).is_some_and(serde_json::Value::is_number)
    }
}
