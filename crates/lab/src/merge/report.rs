//! report.html: the results as a page that stands alone, with charts and tables, light and dark.
//! Loads nothing and runs nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Comparison;
use super::engine::EngineName;
use super::results::{Outcome, Results, Run};
use super::workload::WorkloadName;
use crate::chart::{self, Line, escape};
use crate::machine::told;

/// A figure of a table: its title, the names of figures of which the first that there is counts,
/// and how it is written.
type Column = (&'static str, &'static [&'static str], fn(f64) -> String);

const TIME: &[&str] = &["receive_total_ms", "apply_total_ms", "batch_ms", "read_all_ms"];
const BYTES: &[&str] = &["wire_packed_bytes", "saved_packed_bytes", "saved_bytes", "disk_bytes"];
const MEMORY: &[&str] = &["heap_peak_bytes", "rss_peak_bytes"];

const COLUMNS: [Column; 17] = [
    ("put", &["put_us_median"], micros),
    ("put p99", &["put_us_p99"], micros),
    ("message", &["apply_us_median"], micros),
    ("message p99", &["apply_us_p99"], micros),
    ("all messages", &["apply_total_ms"], chart::time),
    ("at once", &["batch_ms"], chart::time),
    ("delivery", &["receive_us_median"], micros),
    ("delivery p99", &["receive_us_p99"], micros),
    ("all deliveries", &["receive_total_ms"], chart::time),
    ("load", &["load_ms", "open_ms"], chart::time),
    ("read all", &["read_all_ms"], chart::time),
    ("sent", &["wire_bytes"], chart::size),
    ("sent packed", &["wire_packed_bytes"], chart::size),
    ("saved", &["saved_bytes", "disk_bytes"], chart::size),
    ("heap", &["heap_live_bytes"], chart::size),
    ("peak heap", &["heap_peak_bytes"], chart::size),
    ("peak RSS", &["rss_peak_bytes"], chart::size),
];

fn micros(us: f64) -> String {
    chart::time(us / 1e3)
}

/// The page.
pub(crate) fn html(results: &Results) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>Fieldkeep: merge benchmark</title><style>{}</style><body>\
         <h1>Merge benchmark</h1>",
        include_str!("../page.css")
    );
    head(&mut page, results);
    for comparison in [Comparison::Memory, Comparison::Durable] {
        section(&mut page, results, comparison);
    }
    gate(&mut page, results);
    apart(&mut page, results);
    verdicts(&mut page, results);
    page.push_str("<h2>What the figures mean</h2><table>");
    for (name, meaning) in &results.metrics {
        let _ = write!(page, "<tr><td><code>{name}</code><td class=\"text\">{}", escape(meaning));
    }
    page.push_str("</table></body></html>\n");
    page
}

fn head(page: &mut String, results: &Results) {
    if results.partial {
        page.push_str("<p class=\"warn\">These results are partial: runs are missing.</p>");
    }
    let class = if results.all_agree() { "dim" } else { "warn" };
    let _ = write!(page, "<p class=\"{class}\">{}</p>", escape(&results.agreement_line()));
    let _ = write!(page, "<p><code>{}</code></p>", escape(&results.command));
    let _ = write!(
        page,
        "<p class=\"dim\">{} · seed {}, {} actors · {}</p>",
        escape(&results.machine.to_string()),
        results.seed,
        results.devices,
        told(&results.versions)
    );
    page.push_str("<ul class=\"legend\">");
    for engine in engines(results) {
        let (colour, name) = (colour(engine), engine.name());
        let about = escape(engine.about());
        let _ = write!(page, "<li><i class=\"line{colour}\"></i><b>{name}</b> {about}</li>");
    }
    page.push_str("</ul>");
}

fn engines(results: &Results) -> BTreeSet<EngineName> {
    results.runs.iter().map(|run| run.engine).collect()
}

fn colour(engine: EngineName) -> usize {
    EngineName::ALL.iter().position(|other| *other == engine).unwrap_or(0)
}

/// The runs of a workload.
fn of(results: &Results, comparison: Comparison, workload: WorkloadName) -> Vec<&Run> {
    let runs = results.runs.iter();
    runs.filter(|run| run.comparison == comparison && run.workload == workload).collect()
}

fn section(page: &mut String, results: &Results, comparison: Comparison) {
    let compared = WorkloadName::ALL.into_iter().filter(|workload| workload.is_compared());
    let compared: Vec<_> =
        compared.filter(|workload| !of(results, comparison, *workload).is_empty()).collect();
    if compared.is_empty() {
        return;
    }
    let (title, about) = match comparison {
        Comparison::Memory => ("Merging in memory", "One replica in memory; nothing is written."),
        Comparison::Durable => (
            "Durable, with a projection",
            "Merged into files: durable, with a readable row for each record, before a delivery is \
             done. Fieldkeep's includes its gate, its log, judging and two commits; the others are \
             told which records a message touches.",
        ),
    };
    let _ = write!(page, "<h2>{title}</h2><p class=\"dim\">{about}</p>");
    ratios(page, results, comparison, &compared);
    for workload in compared {
        let runs = of(results, comparison, workload);
        let _ =
            write!(page, "<h3>{}</h3><p class=\"dim\">{}</p>", workload.name(), workload.about());
        charts(page, &runs);
        table(page, &runs);
    }
}

/// How many times Fieldkeep's figure the others' are, at the largest size that it was measured at.
fn ratios(
    page: &mut String,
    results: &Results,
    comparison: Comparison,
    workloads: &[WorkloadName],
) {
    let engines = engines(results);
    page.push_str(
        "<h3>Ratios to Fieldkeep</h3><p class=\"dim\">Above 1: more than Fieldkeep. Memory is \
                   the peak of the heap; that of SQLite is C memory, which only RSS has.</p>\
                   <div class=\"wide\"><table><tr><th>workload<th>records<th class=\"text\">figure",
    );
    for engine in &engines {
        let _ = write!(page, "<th>{}", engine.name());
    }
    for workload in workloads {
        let runs = of(results, comparison, *workload);
        let ours = runs.iter().filter(|run| run.engine == EngineName::Fieldkeep && run.counts);
        let Some(ours) = ours.max_by_key(|run| run.records) else { continue };
        for (what, names) in [("time", TIME), ("bytes", BYTES), ("memory", MEMORY)] {
            let Some(base) = figure(ours, names) else { continue };
            let _ = write!(
                page,
                "<tr><td>{}<td>{}<td class=\"text\">{what}",
                workload.name(),
                chart::count(ours.records as f64)
            );
            for engine in &engines {
                let run = runs.iter().find(|r| r.engine == *engine && r.records == ours.records);
                let known = *engine != EngineName::Rows || what != "memory";
                ratio(page, run.copied().filter(|_| known), names, base);
            }
        }
    }
    page.push_str("</table></div>");
}

fn ratio(page: &mut String, run: Option<&Run>, names: &[&str], base: f64) {
    match run.map(|run| (run, figure(run, names))) {
        Some((run, Some(figure))) if run.counts => {
            let ratio = figure / base;
            let class = if ratio < 0.995 { "best" } else { "" };
            let places = match ratio {
                ratio if ratio < 0.1 => 3,
                ratio if ratio < 10.0 => 2,
                _ => 0,
            };
            let _ = write!(page, "<td class=\"{class}\">{ratio:.places$}");
        }
        Some((run, _)) if !run.counts => {
            let _ = write!(page, "<td class=\"none\">{}", run.outcome.word());
        }
        Some(_) | None => page.push_str("<td class=\"none\">–"),
    }
}

fn figure(run: &Run, names: &[&str]) -> Option<f64> {
    names.iter().find_map(|name| run.metrics.get(*name).copied())
}

fn charts(page: &mut String, runs: &[&Run]) {
    let sizes: BTreeSet<_> = runs.iter().map(|run| run.records).collect();
    if sizes.len() < 2 {
        return;
    }
    page.push_str("<div class=\"charts\">");
    type Label = fn(f64) -> String;
    let charts: [(&str, &[&str], Label); 3] = [
        ("time against N", TIME, chart::time),
        ("bytes against N", BYTES, chart::size),
        ("memory against N", MEMORY, chart::size),
    ];
    for (title, names, label) in charts {
        let engines: BTreeSet<_> = runs.iter().map(|run| run.engine).collect();
        let line = |engine: &EngineName| {
            let own = runs.iter().filter(|run| run.engine == *engine && run.counts);
            let point = |run: &&Run| Some((run.records as f64, figure(run, names)?));
            let points = own.filter_map(point).collect();
            Line { name: engine.name().to_owned(), colour: colour(*engine), points }
        };
        let lines: Vec<_> = engines.iter().map(line).collect();
        page.push_str(&chart::lines(title, "records", &lines, label));
    }
    page.push_str("</div>");
}

fn table(page: &mut String, runs: &[&Run]) {
    let shown = |column: &&Column| runs.iter().any(|run| figure(run, column.1).is_some());
    let columns: Vec<_> = COLUMNS.iter().filter(shown).collect();
    page.push_str("<div class=\"wide\"><table><tr><th>records<th class=\"text\">engine");
    for (title, ..) in &columns {
        let _ = write!(page, "<th>{title}");
    }
    let mut runs = runs.to_vec();
    runs.sort_by_key(|run| (run.records, run.engine));
    for run in runs {
        let records =
            if run.records == 0 { String::new() } else { chart::count(run.records as f64) };
        let _ = write!(page, "<tr><td>{records}<td class=\"text\">{}", run.engine.name());
        if run.outcome != Outcome::Measured {
            let said = format!("{} {}", run.outcome.word(), run.note);
            let _ = write!(
                page,
                "<td class=\"text warn\" colspan=\"{}\">{}",
                columns.len(),
                escape(said.trim())
            );
            continue;
        }
        for (_, names, label) in &columns {
            match figure(run, names) {
                Some(figure) => {
                    let _ = write!(page, "<td>{}", label(figure));
                }
                None => page.push_str("<td class=\"none\">–"),
            }
        }
    }
    page.push_str("</table></div>");
}

/// What the gate costs: the same work with and without it.
fn gate(page: &mut String, results: &Results) {
    let mut rows = String::new();
    for run in results.runs.iter().filter(|r| r.engine == EngineName::FieldkeepGate && r.counts) {
        let bare = results.runs.iter().find(|other| {
            other.engine == EngineName::Fieldkeep
                && other.counts
                && (other.workload, other.comparison, other.records)
                    == (run.workload, run.comparison, run.records)
        });
        let names: &[&str] = &["apply_total_ms", "batch_ms"];
        let (Some(with), Some(without)) =
            (figure(run, names), bare.and_then(|bare| figure(bare, names)))
        else {
            continue;
        };
        let _ = write!(
            rows,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{:.2}",
            run.workload.name(),
            chart::count(run.records as f64),
            chart::time(without),
            chart::time(with),
            with / without
        );
    }
    if !rows.is_empty() {
        let _ = write!(
            page,
            "<h2>What the gate costs</h2><div class=\"wide\"><table><tr><th>workload<th>records\
             <th>without<th>with<th>ratio{rows}</table></div>"
        );
    }
}

/// Contention and text: engines may differ, so that their contents are not compared.
fn apart(page: &mut String, results: &Results) {
    let apart = |w: &WorkloadName| !w.is_compared() && *w != WorkloadName::Verdict;
    let mut heading = "<h2>Contention and text</h2><p class=\"dim\">Here engines may arrive at \
                       different contents: who wins a field that several write, and how the keys of \
                       several authors mix, is theirs. The replicas of one engine always agree.</p>";
    for workload in WorkloadName::ALL.into_iter().filter(apart) {
        let runs = of(results, Comparison::Memory, workload);
        if runs.is_empty() {
            continue;
        }
        page.push_str(std::mem::take(&mut heading));
        let _ =
            write!(page, "<h3>{}</h3><p class=\"dim\">{}</p>", workload.name(), workload.about());
        table(page, &runs);
        let other = runs.iter().filter(|run| run.metrics.get("as_recorded") == Some(&0.0));
        let other: Vec<_> = other.map(|run| run.engine.name()).collect();
        if !other.is_empty() {
            let _ = write!(
                page,
                "<p class=\"dim\">Another text than recorded: {}.</p>",
                other.join(", ")
            );
        }
    }
}

fn verdicts(page: &mut String, results: &Results) {
    let runs = of(results, Comparison::Durable, WorkloadName::Verdict);
    if runs.is_empty() {
        return;
    }
    page.push_str(
        "<h2>Time to verdict</h2><p class=\"dim\">From the commit on one device, through \
                   the relay on loopback, to the relay's verdict on another device; one merge in \
                   five breaks a rule that neither edit breaks alone, and is then repaired.</p>\
                   <div class=\"wide\"><table><tr><th>records<th>valid<th>p99<th>held<th>p99\
                   <th>released<th>p99",
    );
    for run in runs {
        let _ = write!(page, "<tr><td>{}", chart::count(run.records as f64));
        for name in ["verdict", "held", "release"] {
            for part in ["median", "p99"] {
                let figure = run.metrics.get(&format!("{name}_ms_{part}"));
                let text = figure.map_or(run.outcome.word().to_owned(), |ms| chart::time(*ms));
                let _ = write!(page, "<td>{text}");
            }
        }
    }
    page.push_str("</table></div>");
}
