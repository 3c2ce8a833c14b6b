//! Catalog: which one is in force and how far it is judged by; trying another against all the data, and
//! publishing exactly what was tried.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use axum::{Extension, Router};
use fieldkeep_model::RecordKey;
use fieldkeep_relay::Tried;
use fieldkeep_replica::{Note, ReplicaError, RollBackError, kept_catalogs};

use super::{Answer, Chrome, html};
use crate::operator::App;
use crate::operator::desk::Compared;
use crate::operator::gate::{Posted, Who};
use crate::pages::{back, record_path};
use crate::shape::catalog::{Cause, Change, Counts, Kept, Standing};
use crate::shape::reshape::Afresh;
use crate::words::{self, several};
use crate::{Code, Failure, time};

/// Causes, devices and kept catalogs that are shown.
const CAUSES: usize = 12;
const DEVICES: usize = 12;
const KEPT: usize = 30;

#[derive(Template)]
#[template(path = "operator/catalog.html")]
struct CatalogPage {
    chrome: Chrome,
    standing: Standing,
    kept: Vec<Kept>,
    tried: Option<Arc<Compared>>,
    /// What was typed, and why it was not tried.
    typed: String,
    problem: Option<Failure>,
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/catalog", get(shown))
        .route("/catalog/try", post(try_it))
        .route("/catalog/forget", post(forget))
        .route("/catalog/publish", post(publish))
}

async fn shown(State(app): State<App>, Extension(who): Extension<Who>) -> Answer {
    Ok(html(&built(&app, who, String::new(), None).await?))
}

async fn built(
    app: &App,
    who: Who,
    typed: String,
    problem: Option<Failure>,
) -> Result<CatalogPage, Failure> {
    // What is left is asked first: where that is nothing, all of it is counted.
    let asked = app.with_engine(|engine| {
        let replica = engine.replica();
        Ok((replica.renewal_progress()?, engine.present(), Afresh::under_way(replica)))
    });
    let (left, present, afresh) = asked.await?;
    app.read(move |app, reading| {
        let chrome = Chrome::of(app, &who, &reading, "catalog", "Catalog", "/catalog");
        let kept = kept_catalogs(&reading.store)?;
        let tried = chrome.book.tried.clone();
        let standing = Standing::new(kept.clone(), left, &present, true, afresh);
        let mut kept = Kept::all(kept);
        kept.truncate(KEPT);
        Ok(CatalogPage { chrome, standing, kept, tried, typed, problem })
    })
    .await
}

/// Begins to compare a catalog that was typed or sent, or one that is kept.
async fn try_it(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Extension(posted): Extension<Posted>,
) -> Answer {
    let [file, source] = ["file", "source"].map(|field| posted.whole(field));
    let source = if file.trim().is_empty() { source } else { file };
    let tried = match posted.text("number").parse() {
        Ok(number) => Tried::Number(number),
        // A browser sends the lines of a text with carriage returns.
        Err(_) => Tried::Source(source.replace("\r\n", "\n")),
    };
    let begun = if matches!(&tried, Tried::Source(source) if source.trim().is_empty()) {
        let remedy = "choose a file, or paste what it says";
        Err(Failure::new(Code::Usage, "there is nothing to try", remedy))
    } else {
        app.begin_comparing(&who.name, tried).await
    };
    match begun {
        Ok(()) => Ok(back("/catalog")),
        Err(failure) => {
            let page = built(&app, who, source.to_owned(), Some(failure)).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, html(&page)).into_response())
        }
    }
}

async fn forget(State(app): State<App>) -> Answer {
    app.clear_trial();
    Ok(back("/catalog"))
}

/// Publishes what was tried, and nothing else: the form says which that was.
async fn publish(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Extension(posted): Extension<Posted>,
) -> Answer {
    let tried = app.desk().book().tried.filter(|tried| tried.mark() == posted.text("tried"));
    let no = |text: &str| Failure::new(Code::Held, text, "nothing was published: look at it again");
    let tried =
        tried.ok_or_else(|| no("another catalog was tried meanwhile, or this one is published"))?;
    if posted.text("confirmed").is_empty() {
        return Err(no("it was not confirmed that this is to hold from now on").into());
    }
    let (note, now) = (posted.text("note").to_owned(), time::now());
    let (sent, by) = (Arc::clone(&tried), who.name.clone());
    let published = app.with_engine(move |engine| {
        let in_force = engine.replica().published().map(|published| published.number);
        if in_force.unwrap_or(0) != sent.diff.number {
            return Ok(Err(None));
        }
        let number = match &sent.tried {
            Tried::Source(source) => {
                match engine.publish_noted(source, Note { text: &note, time: now }) {
                    Ok(number) => number,
                    Err(error @ (ReplicaError::Catalog(_) | ReplicaError::Frozen(_))) => {
                        return Ok(Err(Some(Failure::from(error))));
                    }
                    Err(error) => return Err(error),
                }
            }
            Tried::Number(earlier) => {
                let text =
                    if note.is_empty() { format!("back to catalog {earlier}") } else { note };
                match engine.roll_back(Some(*earlier), Note { text: &text, time: now }) {
                    Ok(number) => number,
                    Err(RollBackError::Replica(error)) => return Err(error),
                    Err(error @ (RollBackError::Unknown(_) | RollBackError::Nothing)) => {
                        return Ok(Err(Some(error.into())));
                    }
                }
            }
        };
        let (act, what) = match &sent.tried {
            Tried::Source(_) => ("publish", format!("catalog {number}")),
            Tried::Number(earlier) => {
                ("roll_back", format!("catalog {earlier}, as number {number}"))
            }
        };
        engine.note_deed(now, &by, act, &what)?;
        Ok(Ok(number))
    });
    let number = published.await?.map_err(|failure| {
        failure
            .unwrap_or_else(|| no("another catalog is in force than the one it was compared with"))
    })?;
    app.clear_trial();
    let text = format!("Catalog {number} is in force: connected devices have it");
    app.desk().tell(&who.name, true, text, "What it changes is judged again in the background.");
    Ok(back("/catalog"))
}

impl Compared {
    /// Names this very comparison: a form that was made for it publishes no other catalog.
    fn mark(&self) -> String {
        format!("{}-{}", &self.diff.hash[..16.min(self.diff.hash.len())], self.time)
    }

    /// The number of the earlier catalog that it is, if it is one.
    fn earlier(&self) -> Option<u64> {
        match self.tried {
            Tried::Number(number) => Some(number),
            Tried::Source(_) => None,
        }
    }

    fn is_fit(&self) -> bool {
        self.diff.problems.is_empty() && !self.diff.same
    }

    fn causes(&self) -> &[Cause] {
        &self.diff.causes[..CAUSES.min(self.diff.causes.len())]
    }

    fn more_causes(&self) -> Option<String> {
        let more = self.diff.causes.len().saturating_sub(CAUSES);
        (more > 0).then(|| format!("and {}", several(more, "more cause")))
    }

    fn devices(&self) -> &[crate::shape::catalog::Sight] {
        &self.diff.devices[..DEVICES.min(self.diff.devices.len())]
    }
}

impl CatalogPage {
    /// How far it is judged by, of a hundred.
    fn percent(&self) -> u64 {
        let Standing { left, of, .. } = self.standing;
        (of.saturating_sub(left) * 100).checked_div(of).unwrap_or(100)
    }

    /// What a declaration is.
    fn named(&self, change: &Change) -> String {
        match (&change.rule, &change.field) {
            (Some(rule), _) => format!("rule {rule} of {}", change.ty),
            (_, Some(field)) => format!("field {field} of {}", change.ty),
            (None, None) => format!("type {}", change.ty),
        }
    }

    /// Where an example is shown.
    fn path(&self, record: &str) -> String {
        let key = record.parse::<RecordKey>().ok();
        key.map_or_else(|| "/records".to_owned(), |key| record_path(&key.ty, &key.id))
    }

    /// What causes something.
    fn cause(&self, cause: &Cause) -> String {
        let reason = cause.reason.replace('_', " ");
        match (&cause.rule, &cause.field) {
            (Some(rule), _) => format!("rule {rule} of {}", cause.ty),
            (_, Some(field)) => format!("{field} of {} ({reason})", cause.ty),
            (None, None) => format!("{} ({reason})", cause.ty),
        }
    }

    /// How many records would be otherwise, as words and tones.
    fn weights(&self, counts: &Counts) -> Vec<(String, &'static str)> {
        let Counts { held, waiting, released, otherwise } = *counts;
        let parts = [
            (held, "would be held", "bad"),
            (waiting, "would wait", "warn"),
            (released, "would be released", "good"),
            (otherwise, "would stay, for other reasons", "calm"),
        ];
        let parts = parts.into_iter().filter(|(count, ..)| *count > 0);
        parts
            .map(|(count, words, tone)| (format!("{} {words}", words::count(&count)), tone))
            .collect()
    }

    /// A share of the steps that a rule may take, of a hundred.
    fn share(&self, steps: &u64, budget: &u64) -> String {
        format!("{:.1}", *steps as f64 * 100.0 / *budget as f64)
    }
}
