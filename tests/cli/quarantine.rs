//! The quarantine as whoever runs a relay works with it: finds, sees why, decides; alone and while the
//! relay serves.

use std::time::{Duration, Instant};

use crate::process::{Place, Running};
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1
[type.order]
scope = "outlet"
[type.order.field.outlet]
[type.order.field.discount]
schema = { type = "integer" }
[type.order.field.note]
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"
[[type.order.rule]]
name = "noted"
cel = "!has(record.note) || record.note != ''"
reason = "a note has a text"
[type.visit.field.order]
ref = "order"
"#;

/// Ann's order was fine once and is not any more, and a visit refers to it; Ben's never was.
fn organisation() -> (Place, Running) {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.device("ben", &[]);
    place.run("ann", &["put", "order/o1", "outlet=41", "discount=10", "note=Harbour"]).ok();
    place.run("ann", &["put", "visit/v1", "order=o1"]).ok();
    place.run("ann", &["sync"]).ok();
    place.run("ann", &["put", "order/o1", "discount=45"]).ok();
    place.run("ben", &["put", "order/o2", "outlet=42", "discount=50"]).ok();
    place.run("ann", &["sync"]).ok();
    place.run("ben", &["sync"]).ok();
    (place, relay)
}

fn quarantine(place: &Place, words: &str) -> Value {
    let words = words.split(' ').filter(|word| !word.is_empty());
    let args: Vec<&str> = ["relay", "quarantine"].into_iter().chain(words).collect();
    place.run("relay", &[&args[..], &["--json"]].concat()).json()
}

/// The records that a search finds.
fn found(place: &Place, words: &str) -> Vec<String> {
    let list = quarantine(place, &format!("list {words}"));
    let records = list["records"].as_array().expect("a list").iter();
    records.map(|record| record["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn held_records_are_found_by_what_their_verdicts_and_they_themselves_say() {
    let (place, _relay) = organisation();
    assert_eq!(found(&place, ""), ["o2", "o1"], "the newest change first");
    for (words, ids) in [
        ("--type order", &["o2", "o1"][..]),
        ("--type visit", &[]),
        ("--scope 41", &["o1"]),
        ("--rule discount", &["o2", "o1"]),
        ("--rule noted", &[]),
        ("--device ben", &["o2"]),
        ("--text HARB", &["o1"]),
        ("--text Order/o2", &["o2"]),
        ("--older 1h", &[]),
        ("--device ann --scope 42", &[]),
        ("--limit 1", &["o2"]),
        ("--assigned eve", &[]),
    ] {
        assert_eq!(found(&place, words), ids, "{words}");
    }
    let none = place.run("relay", &["relay", "quarantine", "list", "--text", "nowhere"]);
    assert!(none.out.starts_with("nothing is held under these conditions"), "{}", none.out);
    let began = Instant::now();
    while found(&place, "--older 1s") != ["o2", "o1"] {
        assert!(began.elapsed() < Duration::from_secs(60), "they are a second old by now");
    }
    let unknown = place.run("relay", &["relay", "quarantine", "list", "--type", "ordre"]);
    assert_eq!(unknown.code, 2, "{}", unknown.err);
    let unknown = place.run("relay", &["relay", "quarantine", "list", "--device", "eve"]);
    assert_eq!(unknown.code, 3, "{}", unknown.err);
    let unknown = place.run("relay", &["relay", "quarantine", "list", "--rule", "discuont"]);
    assert_eq!(unknown.code, 3, "{}", unknown.err);
    assert!(unknown.err.contains("held are records for discount (2)"), "{}", unknown.err);
}

#[test]
fn a_record_is_shown_as_merged_beside_last_valid_with_what_differs_marked() {
    let (place, _relay) = organisation();
    let shown = place.run("relay", &["relay", "quarantine", "show", "order/o1"]).ok();
    assert!(shown.contains("held: the discount is above 30 percent"), "{shown}");
    assert!(shown.contains("written by ann on ann"), "{shown}");
    assert!(shown.contains("*  discount  45         10\n"), "{shown}");
    assert!(shown.contains("   outlet    41         41\n"), "{shown}");
    assert!(shown.contains("referred to by visit/v1\n"), "{shown}");
    let blame = "without this change it would not be held so:\n";
    let (_, blamed) = shown.split_once(blame).unwrap_or_else(|| panic!("{shown}"));
    assert!(blamed.lines().next().is_some_and(|line| line.contains("ann on ann")), "{shown}");
    assert_eq!(blamed.lines().nth(1), Some("  discount: 10 → 45"), "{shown}");
    let shown = quarantine(&place, "show order/o1");
    assert_eq!(shown["referrers"], json!(["visit/v1"]));
    assert_eq!(shown["blame"]["what"], json!("changes"));
    assert_eq!(shown["blame"]["changes"][0]["writes"][0]["field"], json!("discount"));
    assert_eq!(shown["verdict"]["last_valid"]["discount"], json!(10));
    assert!(shown["since"].as_str().is_some_and(|since| since.starts_with("20")), "{shown}");
    let absent = place.run("relay", &["relay", "quarantine", "show", "order/o9"]);
    assert_eq!(absent.code, 3, "{}", absent.err);
}

#[test]
fn what_is_decided_has_its_effect_and_stays_on_the_trail() {
    let (place, relay) = organisation();
    place.run("relay", &["relay", "quarantine", "dismiss", "order/o1", "--note", "a test"]).ok();
    place.run("relay", &["relay", "quarantine", "assign", "order/o2", "eve"]).ok();
    assert_eq!(found(&place, "--dismissed"), ["o1"]);
    assert_eq!(found(&place, "--open"), ["o2"]);
    assert_eq!(found(&place, "--assigned eve"), ["o2"]);
    // Also with nobody serving, and from a device.
    assert_eq!(relay.stop("TERM"), 0);
    place.run("relay", &["relay", "quarantine", "reopen", "order/o1"]).ok();
    place.run("relay", &["relay", "quarantine", "assign", "order/o2"]).ok();
    assert_eq!(found(&place, "--open"), ["o2", "o1"]);
    assert_eq!(quarantine(&place, "rejudge --scope 42")["records"], 1);
    let trail = quarantine(&place, "trail");
    let acts = trail["records"].as_array().expect("a list").iter();
    let acts: Vec<_> = acts.map(|of| [&of["act"], &of["record"], &of["note"]].map(text)).collect();
    assert_eq!(
        acts,
        [
            ["rejudge", "order/o2", ""],
            ["assign", "order/o2", "nobody"],
            ["reopen", "order/o1", ""],
            ["assign", "order/o2", "eve"],
            ["dismiss", "order/o1", "a test"],
        ]
    );
    let about = quarantine(&place, "trail order/o1");
    assert_eq!(about["records"].as_array().map(Vec::len), Some(2));
    for wrong in ["dismiss", "reopen", "assign"] {
        let ran = place.run("relay", &["relay", "quarantine", wrong, "order/o9"]);
        assert_eq!(ran.code, 3, "{wrong}: {}", ran.err);
    }
    let long = "x".repeat(1_001);
    for long in [&["dismiss", "order/o1", "--note", &long][..], &["assign", "order/o1", &long]] {
        let ran = place.run("relay", &[&["relay", "quarantine"], long].concat());
        assert_eq!(ran.code, 2, "{}", ran.err);
        assert!(ran.err.contains("has 1001 characters"), "{}", ran.err);
    }
    for idle in [&["dismiss", "visit/v1", "--note", "?"][..], &["assign", "visit/v1", "eve"]] {
        let ran = place.run("relay", &[&["relay", "quarantine"], idle].concat());
        assert_eq!(ran.code, 2, "{idle:?}: {}", ran.err);
        assert!(ran.err.contains("visit/v1 is valid"), "{}", ran.err);
    }
}

#[test]
fn a_member_who_stops_trying_is_on_the_trail() {
    let (place, _relay) = organisation();
    place.run("ann", &["attention", "dismiss", "order/o1", "--note", "sold"]).ok();
    place.run("ann", &["sync"]).ok();
    let trail = quarantine(&place, "trail");
    let newest = &trail["records"][0];
    assert_eq!(
        [&newest["who"], &newest["act"], &newest["note"]].map(text),
        ["ann", "dismiss", "sold"]
    );
}

#[test]
fn the_trail_cannot_be_altered() {
    let (place, relay) = organisation();
    place.run("relay", &["relay", "quarantine", "dismiss", "order/o1"]).ok();
    place.run("relay", &["relay", "quarantine", "rejudge"]).ok();
    let trail = |words: &str| {
        let trail = quarantine(&place, &format!("trail {words}"));
        trail["records"].as_array().map(Vec::len)
    };
    for (words, found) in [("--act dismiss", 1), ("--act rejudge", 2), ("--by nobody", 0)] {
        assert_eq!(trail(words), Some(found), "{words}");
    }
    assert_eq!(relay.stop("TERM"), 0);
    let store =
        rusqlite::Connection::open(place.path("relay").join("fieldkeep.db")).expect("it opens");
    for statement in ["DELETE FROM decision", "UPDATE decision SET who = 'nobody'"] {
        let refused = store.execute(statement, []).expect_err("a trigger refuses it");
        assert!(refused.to_string().contains("what was decided"), "{refused}");
    }
}

#[test]
fn what_is_sought_is_exported_as_lines_and_as_a_table() {
    let (place, _relay) = organisation();
    let args = ["relay", "quarantine", "export", "--scope", "41"];
    let lines = place.run("relay", &args).ok();
    let line: Value = serde_json::from_str(lines.trim_end()).expect("one line of JSON");
    assert_eq!((&line["id"], &line["fields"]["discount"]), (&json!("o1"), &json!(45)));
    assert_eq!(line["rules"], json!(["discount"]));
    let table = place.run("relay", &[&args[..], &["--format", "csv"]].concat()).ok();
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let rows: Vec<_> = reader.records().collect::<Result<_, _>>().expect("a table");
    assert_eq!(rows.len(), 1);
    assert_eq!(
        [1, 2, 3, 4, 6, 7].map(|column| &rows[0][column]),
        ["o1", "held", "the discount is above 30 percent", "discount", "ann", "discount"]
    );
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}
