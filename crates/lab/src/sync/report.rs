//! report.html of the sync benchmark: tables and charts, alone in one file.

use std::fmt::Write as _;

use super::results::{Property, Results, Row, Subject};
use crate::chart::{self, Line, escape};
use crate::machine::told;

/// The page.
pub(super) fn html(results: &Results) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>Fieldkeep: sync benchmark</title><style>{}</style><body><h1>Sync benchmark</h1>",
        include_str!("../page.css")
    );
    if results.partial {
        page.push_str("<p class=\"warn\">These results are partial: rows are missing.</p>");
    }
    let _ = write!(
        page,
        "<p><code>{}</code></p><p class=\"dim\">{} · seed {} · {}</p><p class=\"dim\">Round trips \
         are the slope of time over added round trip time, less that of a bare handshake. Bytes are \
         those of streams, both ways.</p>",
        escape(&results.command),
        escape(&results.machine.to_string()),
        results.seed,
        told(&results.versions)
    );
    for property in Property::ALL {
        let rows: Vec<_> = results.rows.iter().filter(|row| row.property == property).collect();
        if !rows.is_empty() {
            section(&mut page, results, property, &rows);
        }
    }
    page.push_str("</body></html>\n");
    page
}

/// What a property is, in a line.
pub(super) fn about(property: Property) -> &'static str {
    match property {
        Property::Reconnect => "everything in sync, reconnect",
        Property::ReconnectForgotten => "the same, the state of the conversation lost",
        Property::OneChange => "one new change is pulled",
        Property::Live => "one new change comes while connected",
        Property::Diverged => "both sides have 100 new of 5,000 changes",
        Property::FirstContact => {
            "two that never met have 100 new changes each since they were in sync with a third"
        }
        Property::Cold => "a device that has nothing",
        Property::Cuts => "a cold start cut five times",
        Property::Restored => "a relay put back to an older copy; 100 changes are uploaded again",
    }
}

fn section(page: &mut String, results: &Results, property: Property, rows: &[&Row]) {
    let (name, about) = (property.name(), about(property));
    let _ = write!(page, "<h2>{name}</h2><p class=\"dim\">{about}");
    if !property.target().is_empty() {
        let _ = write!(page, " · promised: {}", escape(property.target()));
    }
    page.push_str("</p><div class=\"wide\"><table><tr><th class=\"text\">subject<th>round trips\
                   <th>bytes<th>of raw<th>raw<th>packed, zstd-19<th>relay CPU<th>again for each cut");
    for delay in &results.delays_ms {
        let _ = write!(page, "<th>at +{delay} ms");
    }
    page.push_str("<th class=\"text\">");
    for row in rows {
        line(page, results, row);
    }
    page.push_str("</table></div>");
    let lines: Vec<_> = rows.iter().map(|row| drawn(row)).collect();
    page.push_str("<div class=\"charts\">");
    page.push_str(&chart::lines("time against round trip time", "ms", &lines, chart::time));
    page.push_str("</div>");
}

fn line(page: &mut String, results: &Results, row: &Row) {
    let _ = write!(page, "<tr><td class=\"text\">{}", row.subject.name());
    let mut cell = |text: Option<String>| match text {
        Some(text) => {
            let _ = write!(page, "<td>{text}");
        }
        None => page.push_str("<td class=\"none\">–"),
    };
    cell(row.round_trips.map(|trips| format!("{trips:.2}")));
    cell(row.bytes.map(chart::size));
    cell(row.of_raw().map(|share| format!("{share:.2}")));
    cell(row.ideal_raw.map(chart::size));
    cell(row.ideal_packed.map(chart::size));
    cell(row.relay_ms.map(chart::time));
    cell(row.redundant_bytes.map(chart::size));
    for delay in &results.delays_ms {
        cell(row.times_ms.get(delay).map(|ms| chart::time(*ms)));
    }
    let class = if row.failed { "text warn" } else { "text" };
    let _ = write!(page, "<td class=\"{class}\">{}", escape(&row.note));
}

fn drawn(row: &Row) -> Line {
    let colour = Subject::ALL.iter().position(|subject| *subject == row.subject).unwrap_or(0);
    // A logarithmic scale has no nought: a round trip that is not delayed stands at one millisecond.
    let point = |(delay, ms): (&u64, &f64)| ((*delay).max(1) as f64, *ms);
    let points = row.times_ms.iter().map(point).collect();
    Line { name: row.subject.name().to_owned(), colour, points }
}
