//! Records: found by type and id, and explained: where one is, by which catalog it was judged, who wrote it
//! and who may read it, its verdict and its history.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Redirect};
use axum::routing::get;
use axum::{Extension, Router};
use fieldkeep_model::RecordKey;
use fieldkeep_relay::Whereabouts;
use fieldkeep_replica::HistoryError;
use fieldkeep_store::{Page, Removals as _};
use serde::Deserialize;

use super::held::{Referring, held_path};
use super::{Answer, Chrome, digits, html, page, short, wrote};
use crate::operator::App;
use crate::operator::gate::Who;
use crate::pages::{key, record_path, segment, type_name};
use crate::shape::{Held, History, Record, Writer, device_name};
use crate::sides::{Row, rows};
use crate::time::rfc3339;
use crate::words::{self, Badge, label, of_state};
use crate::{Code, Failure};

/// Records on a page, and changes on a page of a history and on a record's own.
const ROWS: usize = 50;
const CHANGES: usize = 50;
const NEWEST: usize = 5;

#[derive(Template)]
#[template(path = "operator/records.html")]
struct Records {
    chrome: Chrome,
    /// Types, how many records there are of each, and how many of those are held.
    types: Vec<(String, u64, u64)>,
    /// Why the record that was asked for is not shown.
    problem: Option<String>,
    asked: String,
}

#[derive(Template)]
#[template(path = "operator/list.html")]
struct List {
    chrome: Chrome,
    ty: String,
    rows: Vec<Record>,
    next: Option<String>,
    later: bool,
    total: u64,
}

#[derive(Template)]
#[template(path = "operator/record.html")]
struct Shown {
    chrome: Chrome,
    key: RecordKey,
    whereabouts: Whereabouts,
    sentences: Vec<String>,
    record: Option<Record>,
    badge: Badge,
    rows: Vec<Row>,
    differs: bool,
    writers: Vec<Writer>,
    /// The newest change of each, in the same order.
    heads: Vec<String>,
    readers: Vec<String>,
    referrers: Referring,
    history: History,
    own: String,
    held: String,
}

#[derive(Template)]
#[template(path = "operator/history.html")]
struct Timeline {
    chrome: Chrome,
    own: String,
    history: History,
    later: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    record: String,
    after: Option<String>,
    before: Option<String>,
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/records", get(all))
        .route("/records/{type}", get(list))
        .route("/records/{type}/{id}", get(shown))
        .route("/records/{type}/{id}/history", get(timeline))
}

async fn all(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let asked = wanted.record.trim().to_owned();
    let mut problem = None;
    if !asked.is_empty() {
        match asked.parse::<RecordKey>() {
            Ok(key) => return Ok(Redirect::to(&record_path(&key.ty, &key.id)).into_response()),
            Err(_) => {
                problem =
                    Some(format!("“{asked}” names no record: write type/id, such as order/o1"))
            }
        }
    }
    page(&app, move |app, reading| {
        let chrome = Chrome::of(app, &who, reading, "records", "Records", "/records");
        let counts = reading.views().counts_by_type()?;
        let types = super::quarantine::types(reading)?.into_iter();
        let mut types: BTreeMap<String, (u64, u64)> = types.map(|ty| (ty, (0, 0))).collect();
        for (ty, counts) in counts {
            types.insert(ty.to_string(), (counts.local, counts.held));
        }
        let types = types.into_iter().map(|(ty, (live, held))| (ty, live, held)).collect();
        Ok(Records { chrome, types, problem, asked })
    })
    .await
}

async fn list(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Path(ty): Path<String>,
    Query(Wanted { after, .. }): Query<Wanted>,
) -> Answer {
    page(&app, move |app, reading| {
        let name = type_name(&ty)?;
        let own = format!("/records/{}", segment(&ty));
        let known = reading.catalog.as_ref().is_some_and(|catalog| catalog.ty(&name).is_some());
        let counts = reading.views().counts(&name)?;
        if !known && counts.segments == 0 {
            let text = format!("there is no object type {ty}");
            return Err(Failure::new(Code::NotFound, text, "the page of records lists them"));
        }
        let behind = after.as_deref().map(|after| format!("?after={}", segment(after)));
        let path = format!("{own}{}", behind.unwrap_or_default());
        let chrome = Chrome::of(app, &who, reading, "records", &label(&ty), &path);
        let wanted = Page { after: after.clone(), limit: ROWS + 1, deleted: false };
        let mut views = reading.views().list(&name, &wanted)?;
        let more = views.len() > ROWS;
        views.truncate(ROWS);
        let last = views.last().filter(|_| more).map(|view| view.key.id.to_string());
        let rows = views.into_iter().map(|view| Record::new(view, &reading.members)).collect();
        let next = last.map(|last| format!("{own}?after={}", segment(&last)));
        Ok(List { chrome, ty, rows, next, later: after.is_some(), total: counts.local })
    })
    .await
}

async fn shown(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Path((ty, id)): Path<(String, String)>,
) -> Answer {
    let key = key(&ty, &id)?;
    let asked = key.clone();
    // Who wrote it lies in its document, which the engine has.
    let written = app.with_engine(move |engine| {
        let replica = engine.replica_mut();
        let history = HistoryError::apart(replica.history(&asked, NEWEST, None))?;
        Ok((replica.writers(&asked)?, history))
    });
    let (writers, history) = written.await?;
    let history = history?;
    let built = app.read(move |app, reading| {
        let own = record_path(&key.ty, &key.id);
        let mut chrome = Chrome::of(app, &who, &reading, "records", &key.to_string(), &own);
        let mut whereabouts = Whereabouts::of(&reading, &key)?;
        let sentences = whereabouts.sentences();
        let held = whereabouts.held.take();
        let blamed = held.as_ref().map(|held| held.view.reason_fields.clone()).unwrap_or_default();
        let record = held.map(|held| Held::new(held, &reading.members).record);
        let rows = record
            .as_ref()
            .map_or_else(Vec::new, |record| rows(&record.fields, record.last_valid(), &blamed));
        if let Some(record) = &record {
            chrome.title = words::title(record);
        }
        let name = |number| device_name(&reading.members, number);
        let history = History::new(history, &reading.members);
        Ok(Shown {
            badge: record.as_ref().map_or_else(|| of_state(""), |record| of_state(&record.state)),
            differs: rows.iter().any(|row| row.differs)
                && record.as_ref().is_some_and(|record| record.last_valid().is_some()),
            rows,
            heads: writers.iter().map(|writer| writer.newest.to_string()).collect(),
            writers: writers
                .into_iter()
                .map(|writer| Writer {
                    device: name(writer.device),
                    changes: writer.changes,
                    last: rfc3339(writer.time),
                })
                .collect(),
            readers: whereabouts.readers.iter().map(|number| name(*number)).collect(),
            referrers: Referring::new(&whereabouts.referrers),
            history: history.with_removed(|hash| reading.store.removal(hash))?,
            held: held_path(&key),
            sentences,
            whereabouts,
            record,
            chrome,
            own,
            key,
        })
    });
    Ok(html(&built.await?))
}

async fn timeline(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Path((ty, id)): Path<(String, String)>,
    Query(Wanted { before, .. }): Query<Wanted>,
) -> Answer {
    let key = key(&ty, &id)?;
    let (asked, from) = (key.clone(), before.clone());
    let history = app.with_engine(move |engine| {
        HistoryError::apart(engine.replica_mut().history(&asked, CHANGES, from.as_deref()))
    });
    let history = history.await??;
    let built = app.read(move |app, reading| {
        let own = record_path(&key.ty, &key.id);
        let view = reading.views().record(&key)?.ok_or_else(|| Failure::absent(&key))?;
        let title = format!("History of {}", words::title(&Record::new(view, &reading.members)));
        let chrome = Chrome::of(app, &who, &reading, "records", &title, &format!("{own}/history"));
        let history = History::new(history, &reading.members);
        let history = history.with_removed(|hash| reading.store.removal(hash))?;
        Ok(Timeline { chrome, own, history, later: before.is_some() })
    });
    Ok(html(&built.await?))
}

impl Shown {
    /// The writers, each with his newest change.
    fn written(&self) -> impl Iterator<Item = (&Writer, &str)> {
        self.writers.iter().zip(self.heads.iter().map(|head| digits(head)))
    }
}
