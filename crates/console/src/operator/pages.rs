//! The pages of a relay's console. What changes something is a form, and is answered with the way back.

mod access;
mod backup;
mod catalog;
mod devices;
mod held;
mod limits;
mod overview;
mod quarantine;
mod records;
mod sign_in;
mod sought;
mod trail;

use std::convert::Infallible;
use std::time::Instant;

use askama::Template;
use axum::Extension;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post};
use fieldkeep_relay::{OperatorRole, Sample};
use fieldkeep_replica::Reading;
use futures_util::{Stream, StreamExt as _};
use serde::Deserialize;

use super::App;
use super::desk::Book;
use super::gate::{Posted, Who};
use super::sessions::form_token;
use crate::desk::Notice;
use crate::pages::{back, html};
use crate::refusal::Refusal;
use crate::shape::{Change, FieldWrite};
use crate::{Failure, assets, live, words};

/// What a page answers.
type Answer = Result<Response, Refusal>;

/// What every page shows around its content.
#[derive(Debug)]
struct Chrome {
    title: String,
    /// The page's own address, from which it is brought up to date.
    path: String,
    /// The part of the console that it belongs to.
    here: &'static str,
    organisation: String,
    name: String,
    role: OperatorRole,
    /// What every form carries.
    token: String,
    book: Book,
    sample: Sample,
    trouble: Option<String>,
    now: i64,
    /// How much had happened when this was read.
    turn: u64,
}

impl Chrome {
    /// Read before what is on the page: what happens meanwhile is news to it.
    fn of(
        app: &App,
        who: &Who,
        reading: &Reading,
        here: &'static str,
        title: &str,
        path: &str,
    ) -> Self {
        Self {
            title: title.to_owned(),
            path: path.to_owned(),
            here,
            organisation: reading.members.name().to_owned(),
            name: who.name.clone(),
            role: who.role,
            token: form_token(&who.secret),
            turn: *app.desk().turned().borrow(),
            book: app.desk().book(),
            sample: app.office().vitals().sample(),
            trouble: app.office().vitals().trouble(),
            now: crate::time::now(),
        }
    }

    fn asset(&self, name: &str) -> String {
        assets::url(name)
    }

    /// A time as it is shown.
    fn when(&self, time: &str) -> String {
        let parsed = time.parse::<jiff::Timestamp>();
        parsed.map_or_else(|_| time.to_owned(), |time| self.at(&time.as_millisecond()))
    }

    fn at(&self, ms: &i64) -> String {
        crate::time::local(*ms, self.now)
    }

    fn notice(&self) -> Option<&Notice> {
        self.book.notice(&self.name)
    }

    fn judges(&self) -> bool {
        self.role >= OperatorRole::Judge
    }

    fn administers(&self) -> bool {
        self.role >= OperatorRole::Administer
    }

    /// Records that are held or wait.
    fn open(&self) -> u64 {
        self.sample.held + self.sample.waiting
    }
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/events", get(events))
        .route("/events/samples", get(samples))
        .route("/seen", post(seen))
        .merge(sign_in::routes())
        .merge(overview::routes())
        .merge(quarantine::routes())
        .merge(held::routes())
        .merge(trail::routes())
        .merge(records::routes())
        .merge(devices::routes())
        .merge(catalog::routes())
        .merge(limits::routes())
        .merge(backup::routes())
        .merge(access::routes())
}

/// Renders a page of what is committed.
async fn page<T: Template + Send + 'static>(
    app: &App,
    build: impl FnOnce(&App, &Reading) -> Result<T, Failure> + Send + 'static,
) -> Answer {
    let built = app.read(move |app, reading| build(app, &reading)).await?;
    Ok(html(&built))
}

/// The operator has seen what he was told.
async fn seen(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Extension(posted): Extension<Posted>,
) -> Response {
    app.desk().seen(&who.name);
    back(posted.text("back"))
}

/// What a page knows: whatever turned after that is news to it.
#[derive(Debug, Deserialize)]
struct Known {
    #[serde(default)]
    since: u64,
}

async fn events(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Query(known): Query<Known>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let turned = app.desk().turned();
    as_long_as_signed_in(app, who, live::told(turned, known.since))
}

async fn samples(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Query(known): Query<Known>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let sampled = app.desk().sampled();
    as_long_as_signed_in(app, who, live::told(sampled, known.since))
}

fn as_long_as_signed_in(
    app: App,
    who: Who,
    told: impl Stream<Item = Result<Event, Infallible>> + Send + 'static,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let told = told.take_while(move |_| {
        let signed_in = app.sessions().of(&who.secret, false, Instant::now()).is_some();
        std::future::ready(signed_in)
    });
    Sse::new(told).keep_alive(KeepAlive::default())
}

/// What a change wrote, in words.
fn wrote(write: &FieldWrite) -> String {
    write.sentence(words::value)
}

/// The first digits of a change.
fn short(change: &Change) -> &str {
    digits(&change.change)
}

fn digits(hash: &str) -> &str {
    &hash[..12.min(hash.len())]
}

/// A page of a trail: what is behind a number.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Before {
    before: Option<u64>,
}
