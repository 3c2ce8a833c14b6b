//! Overview: is the relay well, how much goes through it, how long that takes, and what is held.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Extension, Router};
use fieldkeep_store::{Quarantine as _, Segments as _, SoughtDecisions};
use serde::Deserialize;

use super::held::deed;
use super::{Answer, Chrome, page};
use crate::operator::App;
use crate::operator::chart::{Chart, Series, number};
use crate::operator::gate::Who;
use crate::operator::ring::{Moment, Span};
use crate::shape::Decision;
use crate::words;

/// Rules that have a line of their own.
const RULES: usize = 5;
/// Decisions that are shown.
const DECISIONS: usize = 5;
/// Moments over which changes and commits are taken together, so that the lines are calm.
const WINDOW: usize = 8;

#[derive(Template)]
#[template(path = "operator/overview.html")]
struct Overview {
    chrome: Chrome,
    span: Span,
    tiles: [Tile; 6],
    charts: Vec<Chart>,
    types: Vec<TypeRow>,
    decisions: Vec<Decision>,
}

/// A number at a glance.
#[derive(Debug)]
struct Tile {
    id: &'static str,
    label: &'static str,
    value: String,
    hint: String,
    tone: &'static str,
    path: &'static str,
}

/// How many records there are of a type, and how they stand.
#[derive(Debug, Default)]
struct TypeRow {
    ty: String,
    live: u64,
    held: u64,
    waiting: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    span: String,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/", get(overview))
}

async fn overview(
    State(app): State<App>,
    Extension(who): Extension<Who>,
    Query(Wanted { span }): Query<Wanted>,
) -> Answer {
    page(&app, move |app, reading| {
        let span = if span == Span::Day.word() { Span::Day } else { Span::Minutes };
        let path = format!("/?span={}", span.word());
        // The page is brought up to date by samples.
        let turn = *app.desk().sampled().borrow();
        let chrome =
            Chrome { turn, ..Chrome::of(app, &who, reading, "overview", "Overview", &path) };
        let mut types: BTreeMap<String, TypeRow> = BTreeMap::new();
        for row in reading.store.segments()? {
            let ty = row.address.ty.to_string();
            let of =
                types.entry(ty.clone()).or_insert_with(|| TypeRow { ty, ..TypeRow::default() });
            (of.live, of.held) = (of.live + row.live, of.held + row.held);
            of.waiting += row.waiting;
        }
        let members = reading.members.members().values().filter(|m| !m.relay && !m.revoked).count();
        let decisions = reading.store.decisions(&SoughtDecisions::default(), DECISIONS)?;
        let moments = app.ring().moments(span);
        Ok(Overview {
            span,
            tiles: tiles(&chrome, &app.ring().moments(Span::Minutes), members),
            charts: charts(&moments, (chrome.now, span.lengths_ms().0)),
            types: types.into_values().collect(),
            decisions: decisions.into_iter().map(Decision::from).collect(),
            chrome,
        })
    })
    .await
}

fn tiles(chrome: &Chrome, moments: &[Moment], members: usize) -> [Tile; 6] {
    let sample = &chrome.sample;
    let tile = |id, label, value, hint, tone, path| Tile { id, label, value, hint, tone, path };
    let newest = |points: Vec<Point>| points.last().and_then(|(_, value)| *value);
    let rate = newest(rates(moments, |moment| moment.sample.admitted));
    let slowest = newest(commits(moments, 0.99));
    let slowest = slowest.map_or_else(
        || "no commit lately".to_owned(),
        |ms| format!("durable within {} ms", number(Some(ms))),
    );
    let held = if sample.held > 0 { "bad" } else { "good" };
    let lag = if sample.renewing > 0 {
        format!("and {} anew", words::several(sample.renewing, "segment"))
    } else if sample.lag == 0 {
        "everything is judged".to_owned()
    } else {
        "receipts do not wait for it".to_owned()
    };
    [
        tile(
            "devices",
            "Devices",
            words::count(&sample.devices),
            format!("of {}, connected", words::count(&(members as u64))),
            "",
            "/devices",
        ),
        tile("rate", "Changes / s", number(rate.or(Some(0.0))), slowest, "", ""),
        tile("lag", "To be judged", words::count(&sample.lag), lag, "", ""),
        tile(
            "held",
            "Held",
            words::count(&sample.held),
            "records that break a rule".to_owned(),
            held,
            "/quarantine?state=open",
        ),
        tile(
            "waiting",
            "Waiting",
            words::count(&sample.waiting),
            "for a record they refer to".to_owned(),
            "",
            "/quarantine",
        ),
        tile(
            "stored",
            "Stored",
            bytes(sample.stored),
            format!("{} in all", words::records(&sample.records)),
            "",
            "",
        ),
    ]
}

/// A time, and a number where there is one.
type Point = (i64, Option<f64>);

/// How many a second, taken over a few moments.
fn rates(moments: &[Moment], count: impl Fn(&Moment) -> u64) -> Vec<Point> {
    let pairs = windows(moments).map(|(before, after)| {
        let seconds = (after.sample.time - before.sample.time) as f64 / 1e3;
        let more = count(after).saturating_sub(count(before)) as f64;
        (after.sample.time, (seconds > 0.0).then(|| more / seconds))
    });
    pairs.collect()
}

/// Within which time such a share of the commits was done, in milliseconds.
fn commits(moments: &[Moment], share: f64) -> Vec<Point> {
    let pairs = windows(moments).map(|(before, after)| {
        let between = after.sample.commits.since(&before.sample.commits);
        (after.sample.time, between.within_ms(share))
    });
    pairs.collect()
}

/// Each moment but the first, with one a little before it.
fn windows(moments: &[Moment]) -> impl Iterator<Item = (&Moment, &Moment)> {
    (1..moments.len()).map(|at| (&moments[at.saturating_sub(WINDOW)], &moments[at]))
}

fn charts(moments: &[Moment], frame: (i64, i64)) -> Vec<Chart> {
    let one = |name: &str, points| Series { name: name.to_owned(), points };
    let levels = |level: &dyn Fn(&Moment) -> u64| -> Vec<Point> {
        moments.iter().map(|moment| (moment.sample.time, Some(level(moment) as f64))).collect()
    };
    let rate = [one("durable", rates(moments, |moment| moment.sample.admitted))];
    let times =
        [one("half of them", commits(moments, 0.5)), one("99 of 100", commits(moments, 0.99))];
    let lag = [one("waiting", levels(&|moment| moment.sample.lag))];
    let rules: Vec<_> = busiest(moments)
        .into_iter()
        .map(|rule| {
            one(
                &rule.replace('_', " "),
                levels(&|moment| moment.rules.get(&rule).copied().unwrap_or(0)),
            )
        })
        .collect();
    vec![
        Chart::of(("throughput", "Throughput", "changes a second"), &rate, frame),
        Chart::of(("latency", "Time to durable", "milliseconds a commit"), &times, frame),
        Chart::of(("judging", "Lag of judging", "changes that wait for it"), &lag, frame),
        Chart::of(("by-rule", "Held by rule", "records held or waiting"), &rules, frame),
    ]
}

/// The rules that hold most, by name.
fn busiest(moments: &[Moment]) -> BTreeSet<String> {
    let mut most: BTreeMap<&str, u64> = BTreeMap::new();
    for moment in moments {
        for (rule, count) in &*moment.rules {
            let of = most.entry(rule).or_default();
            *of = (*of).max(*count);
        }
    }
    let mut ranked: Vec<_> = most.into_iter().collect();
    ranked.sort_by_key(|(rule, count)| (std::cmp::Reverse(*count), *rule));
    ranked.into_iter().take(RULES).map(|(rule, _)| rule.to_owned()).collect()
}

fn bytes(size: u64) -> String {
    match size {
        0..1_000_000 => format!("{:.0} kB", size as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", size as f64 / 1e6),
        _ => format!("{:.1} GB", size as f64 / 1e9),
    }
}

impl Overview {
    /// What was decided, in words.
    fn deed(&self, decision: &Decision) -> &'static str {
        deed(&decision.act)
    }

    /// Since when the charts reach back.
    fn since(&self) -> String {
        self.chrome.at(&(self.chrome.now - self.span.lengths_ms().0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::ring::tests::calm;

    fn admitted(time: i64, admitted: u64) -> Moment {
        let mut moment = calm(time);
        moment.sample.admitted = admitted;
        moment
    }

    #[test]
    fn a_rate_is_what_came_between_two_moments() {
        let moments = [admitted(0, 100), admitted(2_000, 300), admitted(4_000, 300)];
        let rates = rates(&moments, |moment| moment.sample.admitted);
        assert_eq!(rates, [(2_000, Some(100.0)), (4_000, Some(50.0))]);
        assert_eq!(commits(&moments, 0.5), [(2_000, None), (4_000, None)]);
    }

    #[test]
    fn the_rules_that_hold_most_have_a_line() {
        let rules = (0..9).map(|nth| (format!("rule{nth}"), nth)).collect();
        let moments = [Moment { rules: std::sync::Arc::new(rules), ..calm(0) }, calm(2_000)];
        let shown: Vec<_> = busiest(&moments).into_iter().collect();
        assert_eq!(shown, ["rule4", "rule5", "rule6", "rule7", "rule8"]);
    }
}
