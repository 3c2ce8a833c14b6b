//! The pages: rendered here, without a script; a script only brings up to date what is shown. What
//! changes something is a form, and is answered with the way back.

mod acting;
mod actions;
mod attention;
mod data;
mod files;
mod form;
mod near;
mod record;
mod records;
mod settings;
mod today;
pub(crate) mod words;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use fieldkeep_model::{RecordId, RecordKey, TypeName};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::desk::Book;
use crate::doors;
use crate::refusal::Refusal;
use crate::server::App;
use crate::shape::{Status, TypeRow};
use crate::{Code, Failure, assets};

use words::Strip;

/// What every page shows around its content.
#[derive(Debug)]
struct Chrome {
    title: String,
    /// The page's own address, from which it is brought up to date.
    path: String,
    /// The part of the console that it belongs to.
    here: &'static str,
    status: Status,
    strip: Strip,
    book: Book,
    now: i64,
    /// How much had happened when this was read.
    turn: u64,
}

/// What a page answers.
type Answer = Result<Response, Refusal>;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.into_page()
    }
}

impl Chrome {
    /// Read before what is on the page: what happens meanwhile is news to it.
    fn of(app: &App, here: &'static str, title: &str, path: &str) -> Result<Self, Failure> {
        let turn = *app.desk().turned().borrow();
        let status = Status::of(app.device())?;
        let now = crate::time::now();
        let book = app.desk().book();
        let strip = Strip::of(&status, &book, now);
        Ok(Self {
            title: title.to_owned(),
            path: path.to_owned(),
            here,
            status,
            strip,
            book,
            now,
            turn,
        })
    }

    fn asset(&self, name: &str) -> String {
        assets::url(name)
    }

    /// A time as it is shown.
    fn when(&self, time: &str) -> String {
        let parsed = time.parse::<jiff::Timestamp>();
        parsed.map_or_else(
            |_| time.to_owned(),
            |time| crate::time::local(time.as_millisecond(), self.now),
        )
    }

    /// The types that are paused.
    fn paused(&self) -> Vec<&TypeRow> {
        let types = self.status.types.iter();
        types.filter(|row| row.status.as_deref() == Some("paused")).collect()
    }

    fn at(&self, ms: &i64) -> String {
        crate::time::local(*ms, self.now)
    }
}

/// A page that says why something was not done.
#[derive(Template)]
#[template(path = "refused.html")]
pub(crate) struct Refused<'f> {
    pub(crate) failure: &'f Failure,
    pub(crate) status: StatusCode,
}

impl Refused<'_> {
    fn asset(&self, name: &str) -> String {
        assets::url(name)
    }
}

/// A page as it is sent.
pub(crate) fn html(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/enter/{key}", get(enter))
        .merge(today::routes())
        .merge(data::routes())
        .merge(records::routes())
        .merge(record::routes())
        .merge(files::routes())
        .merge(attention::routes())
        .merge(near::routes())
        .merge(settings::routes())
        .merge(actions::routes())
        .merge(acting::routes())
}

/// The one thing that a visit changes: the address is good once.
async fn enter(State(app): State<App>, Path(key): Path<String>) -> Response {
    match app.doors().enter(&key) {
        Ok(Some(session)) => doors::welcome(&session, app.address()),
        Ok(None) => {
            let text = "this address was used, or is older than ten minutes";
            let remedy = "`fieldkeep console` prints a fresh one";
            Refusal::new(StatusCode::UNAUTHORIZED, Code::Denied, text, remedy).into_page()
        }
        Err(failure) => Refusal::from(failure).into_page(),
    }
}

/// Renders a page of what the disk says.
async fn page<T: Template + Send + 'static>(
    app: &App,
    build: impl FnOnce(&App) -> Result<T, Failure> + Send + 'static,
) -> Response {
    match app.on_disk(build).await {
        Ok(built) => html(&built),
        Err(refusal) => refusal.into_page(),
    }
}

/// Where a record's page is.
pub(crate) fn record_path(ty: &TypeName, id: &RecordId) -> String {
    format!("/records/{}/{}", segment(ty.as_str()), segment(id.as_str()))
}

/// A part of a path.
pub(crate) fn segment(text: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, KEPT).to_string()
}

/// What to do about a name that is none.
const NAMED: &str = "nothing was changed: look at what is named";

pub(crate) fn type_name(text: &str) -> Result<TypeName, Failure> {
    TypeName::new(text).map_err(|error| Failure::new(Code::Usage, error.to_string(), NAMED))
}

pub(crate) fn key(ty: &str, id: &str) -> Result<RecordKey, Failure> {
    let id =
        RecordId::new(id).map_err(|error| Failure::new(Code::Usage, error.to_string(), NAMED))?;
    Ok(RecordKey::new(type_name(ty)?, id))
}

/// The way back after something was done.
pub(crate) fn back(to: &str) -> Response {
    // Only to a page of this console.
    let plain = to.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let own = plain && to.starts_with('/') && !to.starts_with("//");
    Redirect::to(if own { to } else { "/" }).into_response()
}
