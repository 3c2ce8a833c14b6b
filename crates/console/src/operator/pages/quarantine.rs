//! Quarantine: what is held or waits, found by what its verdict and it itself says; judged again, and
//! written into files.

use std::collections::BTreeSet;
use std::io;

use askama::Template;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use fieldkeep_replica::Reading;
use fieldkeep_store::Segments as _;
use futures_util::stream::unfold;
use tokio::sync::mpsc;

use super::sought::{AGES, Sought};
use super::{Answer, Chrome, page};
use crate::Failure;
use crate::operator::App;
use crate::operator::gate::{Posted, Who};
use crate::pages::{back, record_path};
use crate::shape::export;
use crate::shape::{Aside, Held, REASONS};
use crate::words::{self, several};

/// Records on a page, and changes that were kept aside.
const ROWS: usize = 50;
const ASIDES: usize = 20;
/// Records of an export that are read at a time.
const EXPORTED: usize = 500;

#[derive(Template)]
#[template(path = "operator/quarantine.html")]
struct Quarantine {
    chrome: Chrome,
    sought: Sought,
    types: Vec<String>,
    /// Rules, and reasons that no rule has a name for.
    rules: Vec<String>,
    /// Numbers and names of devices.
    devices: Vec<(String, String)>,
    rows: Vec<Row>,
    /// Where the next page is.
    next: Option<String>,
    asides: Vec<Aside>,
    more_asides: Option<String>,
    /// What has happened since the page was shown first.
    news: Option<String>,
}

/// A record of the list.
#[derive(Debug)]
struct Row {
    held: Held,
    title: String,
    path: String,
    /// The first reason, and how many more there are.
    reason: String,
    more: usize,
    writers: String,
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/quarantine", get(list))
        .route("/quarantine/rejudge", post(rejudge))
        .route("/quarantine/export.csv", get(csv))
        .route("/quarantine/export.jsonl", get(lines))
}

/// What an address says behind its question mark.
type Said = Query<Vec<(String, String)>>;

async fn list(State(app): State<App>, Extension(who): Extension<Who>, Query(said): Said) -> Answer {
    let sought = Sought::of(&said);
    page(&app, move |app, reading| {
        let chrome = Chrome::of(app, &who, reading, "quarantine", "Quarantine", "");
        let stands =
            format!("{}.{}.{}", chrome.sample.held, chrome.sample.waiting, chrome.sample.decided);
        let seen = if sought.seen.is_empty() { &stands } else { &sought.seen };
        let path = format!(
            "/quarantine?{}&after={}&seen={seen}",
            sought.query(),
            crate::pages::segment(&sought.after)
        );
        let news = news(seen, &chrome);
        let wanted = sought.wanted(reading, chrome.now)?;
        let place = sought.place()?;
        let (found, next) = reading.views().quarantine(&wanted, place.as_ref(), ROWS)?;
        let rows = found.into_iter().map(|held| Row::of(Held::new(held, &reading.members)));
        let next = next.map(|place| {
            format!(
                "/quarantine?{}&after={}",
                sought.query(),
                crate::pages::segment(&place.to_string())
            )
        });
        let mut asides = match place {
            None => Aside::sought(&reading.store, &reading.members, &wanted)?,
            Some(_) => Vec::new(),
        };
        let more = asides.len().saturating_sub(ASIDES);
        let more_asides = (more > 0)
            .then(|| format!("and {}: what is exported has them", several(more, "more change")));
        asides.truncate(ASIDES);
        let devices = reading.members.members().values().filter(|member| !member.relay);
        Ok(Quarantine {
            types: types(reading)?,
            rules: rules(reading)?,
            devices: devices.map(|m| (m.number.to_string(), m.name.clone())).collect(),
            rows: rows.collect(),
            next,
            asides,
            more_asides,
            news,
            chrome: Chrome { path, ..chrome },
            sought,
        })
    })
    .await
}

/// What is otherwise than when the page was shown, in words.
fn news(seen: &str, chrome: &Chrome) -> Option<String> {
    let mut numbers = seen.split('.').map(|number| number.parse::<u64>().ok());
    let mut number = || numbers.next().flatten();
    let (held, waiting, decided) = (number()?, number()?, number()?);
    let open = chrome.open();
    let before = held + waiting;
    if open > before {
        Some(format!("{} more came here meanwhile", several(open - before, "record")))
    } else if open < before {
        Some(format!("{} became valid meanwhile", several(before - open, "record")))
    } else if (held, waiting, decided)
        != (chrome.sample.held, chrome.sample.waiting, chrome.sample.decided)
    {
        Some("Something was decided meanwhile".to_owned())
    } else {
        None
    }
}

/// The types of the catalog, and those of which there is something though it has them no more.
pub(super) fn types(reading: &Reading) -> Result<Vec<String>, Failure> {
    let declared = reading.catalog.iter().flat_map(|catalog| catalog.types().keys().cloned());
    let stored = reading.store.segments()?.into_iter().map(|row| row.address.ty);
    let types: BTreeSet<String> = declared.chain(stored).map(|ty| ty.to_string()).collect();
    Ok(types.into_iter().collect())
}

/// The rules of the catalog, and whatever holds something at present.
fn rules(reading: &Reading) -> Result<Vec<String>, Failure> {
    let types = reading.catalog.iter().flat_map(|catalog| catalog.types().values());
    let mut rules: Vec<String> =
        types.flat_map(|ty| &ty.rules).map(|rule| rule.name.clone()).collect();
    rules.sort();
    rules.extend(REASONS.map(str::to_owned));
    rules.dedup();
    Ok(rules)
}

impl Row {
    fn of(held: Held) -> Self {
        let record = &held.record;
        let reasons = record.reasons();
        let culprits = record.verdict.iter().flat_map(|verdict| &verdict.culprits);
        let mut writers: Vec<&str> = culprits.map(|culprit| &*culprit.person).collect();
        writers.dedup();
        Self {
            title: words::title(record),
            path: format!(
                "/quarantine{}",
                record_path(&record.ty, &record.id).trim_start_matches("/records")
            ),
            reason: reasons.first().map(|reason| words::plain(reason)).unwrap_or_default(),
            more: reasons.len().saturating_sub(1),
            writers: writers.join(", "),
            held,
        }
    }
}

async fn rejudge(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Extension(posted): Extension<Posted>,
) -> Answer {
    let sought = Sought::of(posted.fields());
    let query = sought.query();
    let wanted = app.read(move |_, reading| sought.wanted(&reading, crate::time::now())).await?;
    app.begin_rejudging(&who.name, wanted)?;
    let what = if query.is_empty() { "everything" } else { &query };
    app.note(&who.name, "rejudge", what).await;
    Ok(back(&format!("/quarantine?{query}")))
}

/// What a file is written as.
#[derive(Clone, Copy, Debug)]
enum Form {
    Csv,
    Lines,
}

async fn csv(State(app): State<App>, Extension(who): Extension<Who>, Query(said): Said) -> Answer {
    exported(app, who, &said, Form::Csv).await
}

async fn lines(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Query(said): Said,
) -> Answer {
    exported(app, who, &said, Form::Lines).await
}

/// Sends what is sought page by page: no more of it is in memory than one page that is on its way.
async fn exported(app: App, who: Who, said: &[(String, String)], form: Form) -> Answer {
    let sought = Sought::of(said);
    let query = sought.query();
    let asked = sought.clone();
    // What cannot be understood is told before anything is sent.
    app.read(move |_, reading| asked.wanted(&reading, crate::time::now())).await?;
    let (name, kind) = match form {
        Form::Csv => ("quarantine.csv", "text/csv; charset=utf-8"),
        Form::Lines => ("quarantine.jsonl", "application/x-ndjson; charset=utf-8"),
    };
    app.note(&who.name, "export", format!("{name} {query}")).await;
    let (pages, taken) = mpsc::channel::<io::Result<Bytes>>(2);
    tokio::task::spawn_blocking(move || {
        if let Err(failure) = write(&app, &sought, form, &pages) {
            let _ = pages.blocking_send(Err(io::Error::other(failure)));
        }
    });
    let stream = unfold(taken, |mut taken| async move { Some((taken.recv().await?, taken)) });
    let file = format!("attachment; filename=\"{name}\"");
    let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, file)];
    Ok::<Response, _>((headers, Body::from_stream(stream)).into_response())
}

fn write(
    app: &App,
    sought: &Sought,
    form: Form,
    pages: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), Failure> {
    let reading = app.office().reading()?;
    let wanted = sought.wanted(&reading, crate::time::now())?;
    let broken =
        |error: io::Error| Failure::new(crate::Code::Failure, error.to_string(), "try again");
    let (mut after, mut first) = (None, true);
    loop {
        let (found, next) = reading.views().quarantine(&wanted, after.as_ref(), EXPORTED)?;
        let held: Vec<Held> =
            found.into_iter().map(|held| Held::new(held, &reading.members)).collect();
        let mut page = Vec::new();
        match form {
            Form::Csv => export::table(held, first, &mut page).map_err(broken)?,
            Form::Lines => export::lines(&held, &mut page).map_err(broken)?,
        }
        first = false;
        if next.is_none() {
            let asides = Aside::sought(&reading.store, &reading.members, &wanted)?;
            match form {
                Form::Csv => export::aside_table(&asides, &mut page).map_err(broken)?,
                Form::Lines => export::aside_lines(&asides, &mut page).map_err(broken)?,
            }
        }
        // Whoever fetches it may have enough.
        if pages.blocking_send(Ok(page.into())).is_err() || next.is_none() {
            return Ok(());
        }
        after = next;
    }
}

impl Quarantine {
    fn is_filtered(&self) -> bool {
        !self.sought.conditions().is_empty()
    }
}
