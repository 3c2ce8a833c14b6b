//! Limits: how much a device, and all together, may bring and have stored, what they use of it, and who was
//! slowed down or refused. Nothing is changed here: limits are the configuration's.

use askama::Template;
use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Router};
use fieldkeep_relay::limits::{Limits, Report, Use};

use super::{Answer, Chrome, html};
use crate::operator::App;
use crate::operator::gate::Who;
use crate::shape::limits::{Line, Unit, bytes, sentences};
use crate::{Code, Failure, words};

#[derive(Template)]
#[template(path = "operator/limits.html")]
struct LimitsPage {
    chrome: Chrome,
    report: Report,
    rows: Vec<Row>,
    others: [Row; 4],
    /// Who was slowed down or refused, and how.
    told: Vec<(String, String)>,
}

/// A limit as it is shown.
#[derive(Debug)]
struct Row {
    name: String,
    key: &'static str,
    device: May,
    all: May,
    used: String,
}

/// What is allowed.
#[derive(Debug, Default)]
struct May {
    shown: String,
    /// What it would be if nobody had said otherwise, where that is something else.
    default: Option<String>,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/limits", get(limits))
}

async fn limits(State(app): State<App>, Extension(who): Extension<Who>) -> Answer {
    let stopped = || Failure::new(Code::Failure, "the relay stops", "");
    let report = app.office().limits().await.ok_or_else(stopped)?.map_err(Failure::from)?;
    let built = app.read(move |app, reading| {
        let chrome = Chrome::of(app, &who, &reading, "limits", "Limits", "/limits");
        let told = told(&report, &chrome);
        let (rows, others) = (rows(&report), others(&report.limits));
        Ok(LimitsPage { chrome, rows, others, told, report })
    });
    Ok(html(&built.await?))
}

/// What each device may, and all together.
fn rows(report: &Report) -> Vec<Row> {
    let defaults = Line::all(&Limits::default(), &Use::default());
    let lines = Line::all(&report.limits, &report.organisation).into_iter().zip(defaults);
    let row = |(line, default): (Line, Line)| {
        let shown = |number| match line.unit {
            Unit::Bytes => bytes(number),
            Unit::Count => words::count(&number),
        };
        let may = |limit: Option<u64>| limit.map_or_else(|| "no limit".to_owned(), shown);
        Row {
            name: words::label(line.name),
            key: line.key,
            device: May::of(may(line.device), may(default.device)),
            all: May::of(may(line.all), may(default.all)),
            used: shown(line.used),
        }
    };
    lines.map(row).collect()
}

/// What is no matter of one device.
fn others(limits: &Limits) -> [Row; 4] {
    let by_default = Limits::default();
    let row = |name: &str, key, shown: &dyn Fn(&Limits) -> String| Row {
        name: name.to_owned(),
        key,
        device: May::default(),
        all: May::of(shown(limits), shown(&by_default)),
        used: String::new(),
    };
    [
        row("Handshakes a second", "handshakes_a_second", &|limits| {
            words::count(&limits.handshakes_a_second)
        }),
        row("Strangers at once", "strangers", &|limits| words::count(&limits.strangers)),
        row("Slowed down before it is sent away", "grace", &|limits| {
            format!("{} s", words::count(&limits.grace_seconds))
        }),
        row("Memory of loaded documents", "memory_bytes", &|limits| bytes(limits.memory_bytes)),
    ]
}

/// Who was slowed down or refused, and how, in words.
fn told(report: &Report, chrome: &Chrome) -> Vec<(String, String)> {
    let devices = report.devices.iter().flat_map(|device| {
        let sentences = sentences(&device.used, |ms| chrome.at(&ms));
        sentences.into_iter().map(|sentence| (device.name.clone(), words::plain(&sentence)))
    });
    let displaced = report.strangers.displaced;
    let strangers = (displaced > 0).then(|| {
        let sentence = format!("{} had to make room for others", words::count(&displaced));
        ("Strangers".to_owned(), sentence)
    });
    devices.chain(strangers).collect()
}

impl May {
    fn of(shown: String, default: String) -> Self {
        Self { default: (default != shown).then_some(default), shown }
    }
}

impl LimitsPage {
    fn bytes(&self, size: &u64) -> String {
        bytes(*size)
    }
}
