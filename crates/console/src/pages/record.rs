//! A record: as merged beside last valid, why it is held, its concurrent values, its history; as it
//! was; and the form that edits it.

use askama::Template;
use axum::Form;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use fieldkeep_device::{Moment, PutError, declared, fresh_id};
use fieldkeep_model::RecordKey;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::files;
use super::form::{self, Input, Shape};
use super::words::{Badge, label, of_state};
use super::{Answer, Chrome, back, html, key, page, record_path, segment, type_name, words};
use crate::Failure;
use crate::refusal::Refusal;
use crate::server::App;
use crate::shape::{
    Change, Conflict, Explanation, FieldWrite, History, NotTaken, Pin, Record, gone,
};
use crate::sides::{Row, rows};

/// Changes that a record's page shows, and those of a page of its history.
const NEWEST: usize = 10;
const CHANGES: usize = 50;

#[derive(Template)]
#[template(path = "record.html")]
struct Shown {
    chrome: Chrome,
    record: Record,
    badge: Badge,
    rows: Vec<Row>,
    conflicts: Vec<Conflict>,
    files: Vec<files::Field>,
    history: History,
    /// Whether the first change is the newest of all.
    newest: bool,
    /// What is sent to somebody, or why that is not to be had.
    shared: Result<String, Failure>,
    explanation: Explanation,
    pins: Vec<Pin>,
    /// Where it is edited, and acted upon.
    edit: String,
    own: String,
    /// Whether it once passed otherwise than it is.
    differs: bool,
}

#[derive(Template)]
#[template(path = "history.html")]
struct Timeline {
    chrome: Chrome,
    own: String,
    history: History,
    newest: bool,
}

/// Where a page of a history begins.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Back {
    before: Option<String>,
}

#[derive(Template)]
#[template(path = "was.html")]
struct Was {
    chrome: Chrome,
    own: String,
    moment: String,
    /// The fields as they are, beside what they were then.
    rows: Vec<Row>,
    differs: bool,
}

#[derive(Template)]
#[template(path = "edit.html")]
struct Edit {
    chrome: Chrome,
    ty: String,
    id: Option<String>,
    inputs: Vec<Input>,
    /// The id that was typed for a record that is to be made.
    typed_id: String,
    /// Why it was not saved.
    problem: Option<Failure>,
    action: String,
    cancel: String,
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/records/{type}/{id}", get(record))
        .route("/records/{type}/{id}/history", get(timeline))
        .route("/records/{type}/{id}/at/{change}", get(was))
        .route("/new/{type}", get(new).post(create))
        .route("/edit/{type}/{id}", get(edit).post(save))
}

async fn record(State(app): State<App>, Path((ty, id)): Path<(String, String)>) -> Response {
    page(&app, move |app| {
        let key = key(&ty, &id)?;
        let own = record_path(&key.ty, &key.id);
        let mut chrome = Chrome::of(app, "records", "", &own)?;
        let (device, members) = (app.device(), app.device().members());
        let view = device.as_merged(&key)?.ok_or_else(|| Failure::absent(&key))?;
        let blamed = view.reason_fields.clone();
        let record = Record::new(view, &members);
        chrome.title = words::title(&record);
        let files = files::fields(device, &key)?;
        let rows = rows(
            &without(&record.fields, &files),
            record.last_valid().map(|valid| without(valid, &files)).as_ref(),
            &blamed,
        );
        let history = History::new(device.history(&key, NEWEST, None)?, &members);
        let history = history.with_removed(|hash| device.removed(hash))?;
        let conflicts = device.conflicts(&key)?.into_iter();
        let conflicts = conflicts.map(|conflict| Conflict::new(conflict, &members)).collect();
        let pins = device.pins()?.into_iter().filter(|pin| pin.key == key).map(Pin::from);
        Ok::<_, Failure>(Shown {
            badge: of_state(&record.state),
            differs: rows.iter().any(|row| row.differs) && record.last_valid().is_some(),
            rows,
            conflicts,
            files,
            history,
            newest: true,
            shared: device.share(&key).map_err(Failure::from),
            explanation: Explanation::new(device.explain(&key)?, &members),
            pins: pins.collect(),
            edit: own.replacen("/records/", "/edit/", 1),
            chrome,
            own,
            record,
        })
    })
    .await
}

async fn timeline(
    State(app): State<App>,
    Path((ty, id)): Path<(String, String)>,
    Query(Back { before }): Query<Back>,
) -> Response {
    page(&app, move |app| {
        let key = key(&ty, &id)?;
        let own = record_path(&key.ty, &key.id);
        let mut chrome = Chrome::of(app, "records", "", &format!("{own}/history"))?;
        let (device, members) = (app.device(), app.device().members());
        let view = device.as_merged(&key)?.ok_or_else(|| Failure::absent(&key))?;
        chrome.title = format!("History of {}", words::title(&Record::new(view, &members)));
        let page = device.history(&key, CHANGES, before.as_deref())?;
        let history = History::new(page, &members);
        let history = history.with_removed(|hash| device.removed(hash))?;
        Ok::<_, Failure>(Timeline { chrome, own, history, newest: before.is_none() })
    })
    .await
}

async fn was(
    State(app): State<App>,
    Path((ty, id, change)): Path<(String, String, String)>,
) -> Response {
    page(&app, move |app| {
        let key = key(&ty, &id)?;
        let own = record_path(&key.ty, &key.id);
        let was = app.device().at(&key, &Moment::Change(change.clone()))?;
        let was = was.ok_or_else(|| Failure::absent(format!("{key} at {change}")))?;
        let now = app.device().as_merged(&key)?.ok_or_else(|| Failure::absent(&key))?;
        let mut rows = rows(&now.fields, Some(&was), &[]);
        let differs = rows.iter().any(|row| row.differs);
        for gone in gone(app.device(), &key.ty, &was)? {
            let (field, told) = (format!("{}: {}", label(&gone.field), gone.name), gone.sentence());
            let row = Row::new(&gone.field, field, None, Some(&told.into()), false, false);
            rows.push(Row { inner: true, ..row });
        }
        let chrome = Chrome::of(app, "records", &format!("{id}, as it was"), &own)?;
        Ok::<_, Failure>(Was { chrome, own, moment: change, rows, differs })
    })
    .await
}

async fn new(State(app): State<App>, Path(ty): Path<String>) -> Response {
    page(&app, move |app| form_of(app, &ty, None, &form::Answers::default(), None)).await
}

async fn edit(State(app): State<App>, Path((ty, id)): Path<(String, String)>) -> Response {
    page(&app, move |app| form_of(app, &ty, Some(id), &form::Answers::default(), None)).await
}

async fn create(
    State(app): State<App>,
    Path(ty): Path<String>,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Answer {
    written(app, ty, None, pairs).await
}

async fn save(
    State(app): State<App>,
    Path((ty, id)): Path<(String, String)>,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Answer {
    written(app, ty, Some(id), pairs).await
}

/// Writes what a form says; shows it once more, with the reason, where that cannot be.
async fn written(app: App, ty: String, id: Option<String>, pairs: Vec<(String, String)>) -> Answer {
    app.on_disk(move |app| {
        let answers = form::Answers::new(pairs);
        match write(app, &ty, id.as_deref(), &answers) {
            Ok(key) => Ok::<_, Refusal>(back(&record_path(&key.ty, &key.id))),
            Err(failure) => {
                let page = form_of(app, &ty, id, &answers, Some(failure))?;
                Ok((StatusCode::UNPROCESSABLE_ENTITY, html(&page)).into_response())
            }
        }
    })
    .await
}

fn write(
    app: &App,
    ty: &str,
    id: Option<&str>,
    answers: &form::Answers,
) -> Result<RecordKey, Failure> {
    let device = app.device();
    let name = type_name(ty)?;
    let catalog = device.catalog().ok_or(PutError::NoCatalog)?;
    let object = declared(&catalog, &name)?;
    let wanted = id.map(str::to_owned).or_else(|| answers.id());
    let key = match wanted {
        Some(id) => key(ty, &id)?,
        None => RecordKey::new(name.clone(), fresh_id()),
    };
    if id.is_none() && device.as_merged(&key)?.is_some() {
        let remedy = "nothing was saved: take another id, or edit that record";
        return Err(Failure::new(crate::Code::Held, format!("{key} is there already"), remedy));
    }
    if let Some(set) = answers.lonely() {
        let text = format!("the entry that is added to {set} needs more than its id");
        return Err(Failure::new(crate::Code::Held, text, "nothing was saved"));
    }
    let edit = object.edit_from_words(&answers.words())?;
    if id.is_some() && edit.edits.is_empty() {
        return Ok(key);
    }
    if app.put(&key, &edit)? {
        app.desk().tell(true, "Written by way of the relay", "");
        return Ok(key);
    }
    let view = device.as_merged(&key)?;
    let likely = view.filter(|view| view.state.word() == "likely_held");
    match likely {
        Some(view) => app.desk().tell(
            false,
            format!("Saved on this device, but likely to be held: {}", view.reasons.join("; ")),
            "It is sent all the same; put it right here whenever you like.",
        ),
        None => app.desk().tell(true, "Saved on this device", ""),
    }
    Ok(key)
}

/// The form of a record, or of one that is to be made.
fn form_of(
    app: &App,
    ty: &str,
    id: Option<String>,
    answers: &form::Answers,
    problem: Option<Failure>,
) -> Result<Edit, Failure> {
    let device = app.device();
    let name = type_name(ty)?;
    let catalog = device.catalog().ok_or(PutError::NoCatalog)?;
    let object = declared(&catalog, &name)?;
    let (fields, title, path, cancel) = match &id {
        Some(id) => {
            let key = key(ty, id)?;
            let view = device.as_merged(&key)?.ok_or_else(|| Failure::absent(&key))?;
            let own = record_path(&key.ty, &key.id);
            let title = words::title(&Record::new(view.clone(), &device.members()));
            (view.fields, format!("Edit {title}"), own.replacen("/records/", "/edit/", 1), own)
        }
        None => {
            let own = format!("/records/{}", segment(ty));
            (
                Map::new(),
                format!("New {}", label(ty).to_lowercase()),
                format!("/new/{}", segment(ty)),
                own,
            )
        }
    };
    let inputs = form::inputs(object, &fields, answers, id.is_some());
    let chrome = Chrome::of(app, "records", &title, &path)?;
    let typed_id = answers.id().unwrap_or_default();
    Ok(Edit { typed_id, chrome, ty: ty.to_owned(), id, inputs, problem, action: path, cancel })
}

/// Fields without those of files, which are shown as such.
fn without(fields: &Map<String, Value>, files: &[files::Field]) -> Map<String, Value> {
    let mut fields = fields.clone();
    files.iter().for_each(|field| drop(fields.remove(&field.name)));
    fields
}

/// What a change wrote, in words.
fn wrote(write: &FieldWrite) -> String {
    write.sentence(words::value)
}

/// The first digits of a change, for what is named after it on a page.
fn short(change: &Change) -> &str {
    &change.change[..12.min(change.change.len())]
}

impl Record {
    /// Where its page is.
    pub(crate) fn path(&self) -> String {
        record_path(&self.ty, &self.id)
    }
}

impl NotTaken {
    /// Where the page of its record is.
    pub(crate) fn path(&self) -> String {
        record_path(&self.ty, &self.id)
    }
}

impl Edit {
    fn wants_id(&self) -> bool {
        self.id.is_none()
    }
}
