//! One record of the quarantine: as merged beside last valid, who wrote what the rules object to, what
//! refers to it, what was decided; and deciding.

use askama::Template;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Extension, Router};
use fieldkeep_model::RecordKey;
use fieldkeep_relay::{NOTE, PERSON, Standing};
use fieldkeep_replica::Referrers;
use fieldkeep_store::{Quarantine as _, SoughtDecisions};

use super::{Answer, Chrome, page, short, wrote};
use crate::operator::App;
use crate::operator::gate::{Posted, Who};
use crate::pages::{back, key, record_path};
use crate::refusal::Refusal;
use crate::shape::{Blamed, Decision, Record};
use crate::sides::{Row, rows};
use crate::words::{self, Badge, of_state};
use crate::{Failure, time};

/// Decisions that are shown.
const DECISIONS: usize = 50;

#[derive(Template)]
#[template(path = "operator/held.html")]
struct Shown {
    chrome: Chrome,
    record: Record,
    badge: Badge,
    rows: Vec<Row>,
    /// Whether it once passed otherwise than it is.
    differs: bool,
    /// The smallest set of changes that makes it invalid.
    blame: Option<Blamed>,
    since: Option<String>,
    assigned: Option<String>,
    /// Names and addresses of what refers to it.
    referrers: Referring,
    decisions: Vec<Decision>,
    /// Where it is acted upon, and where it is explained.
    own: String,
    explained: String,
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/quarantine/{type}/{id}", get(shown))
        .route("/quarantine/{type}/{id}/{act}", post(act))
}

/// Records that refer to one, with their pages.
pub(super) struct Referring {
    pub(super) first: Vec<(String, String)>,
    pub(super) more: u64,
}

impl Referring {
    pub(super) fn new(Referrers { first, more }: &Referrers) -> Self {
        let named = first.iter().map(|of| (of.to_string(), record_path(&of.ty, &of.id)));
        Self { first: named.collect(), more: *more }
    }
}

/// Where a record of the quarantine is.
pub(super) fn held_path(key: &RecordKey) -> String {
    let path = record_path(&key.ty, &key.id);
    path.replacen("/records/", "/quarantine/", 1)
}

async fn shown(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Path((ty, id)): Path<(String, String)>,
) -> Answer {
    let key = key(&ty, &id)?;
    let asked = key.clone();
    // Its changes lie in its document, which the engine has.
    let blame = app.with_engine(move |engine| engine.replica_mut().blame(&asked)).await?;
    page(&app, move |app, reading| {
        let own = held_path(&key);
        let mut chrome = Chrome::of(app, &who, reading, "quarantine", "", &own);
        let found = reading.views().in_quarantine(&key)?;
        let (held, referrers) = found.ok_or_else(|| Failure::unheld(&key))?;
        let blamed = held.view.reason_fields.clone();
        let crate::shape::Held { record, since, assigned } =
            crate::shape::Held::new(held, &reading.members);
        chrome.title = words::title(&record);
        let rows = rows(&record.fields, record.last_valid(), &blamed);
        let about = SoughtDecisions { about: Some(key.clone()), ..SoughtDecisions::default() };
        let decisions = reading.store.decisions(&about, DECISIONS)?;
        Ok(Shown {
            badge: of_state(&record.state),
            differs: rows.iter().any(|row| row.differs) && record.last_valid().is_some(),
            rows,
            blame: blame.map(|blame| Blamed::new(blame, &reading.members)),
            since,
            assigned,
            referrers: Referring::new(&referrers),
            decisions: decisions.into_iter().map(Decision::from).collect(),
            explained: record_path(&key.ty, &key.id),
            chrome,
            own,
            record,
        })
    })
    .await
}

async fn act(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Path((ty, id, act)): Path<(String, String, String)>,
    Extension(posted): Extension<Posted>,
) -> Answer {
    let key = key(&ty, &id)?;
    let (asked, by, now) = (key.clone(), who.name.clone(), time::now());
    let note = posted.text("note").to_owned();
    let person = Some(posted.text("person").to_owned()).filter(|person| !person.is_empty());
    Failure::unless_short("the note", &note, NOTE)?;
    Failure::unless_short("the name", posted.text("person"), PERSON)?;
    let (standing, text) = match act.as_str() {
        "rejudge" => {
            let done =
                app.with_engine(move |engine| engine.rejudge_for(now, &by, &[asked])).await?;
            let text = if done.1 == 0 {
                "Judged again: it is valid"
            } else {
                "Judged again: it is not valid"
            };
            let standing = if done.0 > 0 { Standing::Decided } else { Standing::Absent };
            (standing, text.to_owned())
        }
        "dismiss" => {
            let done =
                app.with_engine(move |engine| engine.put_aside(now, &by, &asked, Some(&note)));
            (done.await?, "Put aside, and kept: it can be taken up again".to_owned())
        }
        "reopen" => {
            let done = app.with_engine(move |engine| engine.put_aside(now, &by, &asked, None));
            (done.await?, "Taken up again".to_owned())
        }
        "assign" => {
            let to = person.clone();
            let done =
                app.with_engine(move |engine| engine.assign(now, &by, &asked, to.as_deref()));
            let person = person.unwrap_or_else(|| "Nobody".to_owned());
            (done.await?, format!("{person} looks after it"))
        }
        _ => return Err(Refusal::nowhere()),
    };
    Failure::unless_decided(&key, standing)?;
    app.desk().tell(&who.name, true, format!("{text} ({key})"), "");
    Ok(back(&held_path(&key)))
}

impl Shown {
    /// What was decided, in words.
    fn deed(&self, decision: &Decision) -> &'static str {
        deed(&decision.act)
    }
}

/// What is decided, and how that is told.
pub(super) const DEEDS: [(&str, &str); 5] = [
    ("dismiss", "put aside"),
    ("reopen", "took up again"),
    ("assign", "assigned"),
    ("rejudge", "had judged again"),
    ("accept", "accepted"),
];

/// A decision in words.
pub(super) fn deed(act: &str) -> &'static str {
    DEEDS.into_iter().find(|(name, _)| *name == act).map_or("decided", |(_, words)| words)
}
