//! Import and export through the command line: types both ways, rows that cannot be taken, and imports
//! that are killed.

use std::collections::BTreeSet;
use std::path::Path;

use crate::process::{Place, Running, data};
use fieldkeep_store::{Reader, Segments as _, home};
use serde_json::{Value, json};

const CATALOG: &str = r#"
catalog = 1

[type.thing.field.word]
[type.thing.field.whole]
schema = { type = "integer" }
[type.thing.field.real]
schema = { type = "number" }
[type.thing.field.flag]
schema = { type = "boolean" }
[type.thing.field.count]
kind = "counter"
[type.thing.field.text]
kind = "text"
[type.thing.field.shape]
kind = "json"
[type.thing.field.lines]
kind = "set"
[type.thing.field.lines.field.quantity]
schema = { type = "integer" }
[type.thing.field.lines.field.code]

[type.visit]
scope = "outlet"
[type.visit.field.outlet]
[type.visit.field.n]
schema = { type = "integer" }
"#;

fn organisation() -> (Place, Running) {
    let place = Place::new();
    let relay = place.relay(CATALOG);
    place.device("ann", &[]);
    place.device("ben", &[]);
    place.run("ann", &["sync"]).ok();
    place.run("ben", &["sync"]).ok();
    (place, relay)
}

fn path(place: &Place, name: &str) -> String {
    place.path(name).to_str().expect("a plain path").to_owned()
}

fn records(place: &Place, dir: &str, ty: &str) -> Vec<Value> {
    let lines = place.run(dir, &["export", ty]).ok();
    lines.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

#[test]
fn what_was_exported_is_imported_with_the_types_that_it_had() {
    let (place, _relay) = organisation();
    let lines = [
        r#"{"id":"a","word":"007","whole":9007199254740993,"real":0.1,"flag":true,"count":-3,"text":"as\nagreed","shape":"bare","lines":[{"id":"1","quantity":2,"code":"01"},{"id":"2"}]}"#,
        r#"{"id":"b","word":"true","whole":-1,"real":5.0,"flag":false,"shape":{"b":[1,null,"x,\"y\""]}}"#,
        r#"{"id":"c, \"d\"","word":"1.50","shape":null,"text":"null"}"#,
    ];
    let file = place.file("things.jsonl", &lines.join("\n"));
    place.run("ann", &["import", "thing", file.to_str().expect("a plain path")]).ok();
    let before = records(&place, "ann", "thing");
    assert_eq!(before[0]["lines"][0], json!({"id": "1", "code": "01", "quantity": 2}));
    for format in ["jsonl", "csv"] {
        let out = path(&place, &format!("out.{format}"));
        place.run("ann", &["export", "thing", "--format", format, "--out", &out]).ok();
        let other = if format == "csv" { "ben" } else { "ann" };
        let counts = place.run(other, &["import", "thing", &out, "--json"]).json();
        assert_eq!(counts["records"], json!(3), "{format}");
        let unchanged = if other == "ann" { 3 } else { 0 };
        assert_eq!(counts["unchanged"], json!(unchanged), "{format}");
        assert_eq!(records(&place, other, "thing"), before, "{format}");
    }
}

/// Exports a type, imports it on a device that has none of it, and compares.
fn round_trip(place: &Place, ty: &str) {
    let before = records(place, "ann", ty);
    for (format, to) in [("jsonl", "ben"), ("csv", "cat")] {
        let out = path(place, &format!("{ty}.{format}"));
        place.run("ann", &["export", ty, "--format", format, "--out", &out]).ok();
        let dry = place.run(to, &["import", ty, &out, "--dry-run", "--json"]).json();
        assert_eq!(dry["bad"], json!([]), "{ty} {format}");
        place.run(to, &["import", ty, &out]).ok();
        assert_eq!(records(place, to, ty), before, "{ty} {format}");
        let again = place.run("ann", &["import", ty, &out, "--json"]).json();
        assert_eq!(again["written"], json!(0), "{ty} {format}: it is there already");
    }
}

fn example(catalog: &str) -> (Place, Running) {
    let place = Place::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(catalog);
    let relay = place.relay(&std::fs::read_to_string(path).expect("the example is here"));
    for name in ["ann", "ben", "cat"] {
        place.device(name, &[]);
        place.run(name, &["sync"]).ok();
    }
    (place, relay)
}

#[test]
fn northwind_survives_export_and_import_in_both_formats() {
    let Some(data) = data() else { return };
    let (place, _relay) = example("northwind.toml");
    let file = |name: &str| data.join("northwind").join(name).to_str().expect("a path").to_owned();
    let tables = [
        ("customer", "customers.csv", "CustomerID"),
        ("employee", "employees.csv", "EmployeeID"),
        ("product", "products.csv", "ProductID"),
        ("order", "orders.csv", "OrderID"),
    ];
    for (ty, name, id) in tables {
        place.run("ann", &["import", ty, &file(name), "--id", id]).ok();
    }
    let lines = file("order_details.csv");
    let children = ["import", "order.lines", &lines, "--parent", "OrderID", "--id", "ProductID"];
    place.run("ann", &children).ok();
    tables.iter().for_each(|(ty, ..)| round_trip(&place, ty));
}

#[test]
fn the_squirrels_survive_export_and_import_in_both_formats() {
    let Some(data) = data() else { return };
    let (place, _relay) = example("squirrels.toml");
    let file = data.join("squirrels/squirrel-census-2018.csv");
    place.run("ann", &["import", "sighting", file.to_str().expect("a plain path")]).ok();
    round_trip(&place, "sighting");
}

#[test]
fn a_dry_run_tells_every_row_that_cannot_be_taken_and_writes_nothing() {
    let (place, _relay) = organisation();
    place.run("ann", &["put", "visit/gone", "outlet=41"]).ok();
    place.run("ann", &["put", "visit/there", "outlet=41"]).ok();
    place.run("ann", &["delete", "visit/gone"]).ok();
    let rows =
        "id,outlet,n\n1,41,1\n2,41,x\n3,41\na/b,41,4\n1,41,5\ngone,41,6\nthere,42,7\n8,41,8\n";
    let csv = path(&place, "rows.csv");
    std::fs::write(&csv, [rows.as_bytes(), b"9,\xff,9\n"].concat()).expect("it is written");
    for via in ["alone", "serve"] {
        let serving = (via == "serve").then(|| {
            let serving = place.start("ann", &["serve", "--console", "127.0.0.1:0", "--no-nearby"]);
            serving.line_beginning("console");
            serving
        });
        let before = records(&place, "ann", "visit");
        let told = place.run("ann", &["import", "visit", &csv, "--dry-run", "--json"]);
        assert_eq!(told.code, 4, "{}", told.err);
        let told: Value = serde_json::from_str(&told.out).expect("an object");
        let lines: Vec<_> = told["bad"].as_array().expect("a list").iter().collect();
        let at = |line: &Value| line["line"].as_u64().expect("a number");
        assert_eq!(lines.iter().map(|bad| at(bad)).collect::<Vec<_>>(), [3, 4, 5, 6, 7, 8, 10]);
        let reasons = ["`n`", "2 cells", "`/`", "line 2", "was deleted", "cannot change", "UTF-8"];
        for (bad, word) in lines.iter().zip(reasons) {
            assert!(bad["reason"].as_str().expect("a text").contains(word), "{word}: {bad}");
        }
        assert_eq!((&told["rows"], &told["good"]), (&json!(9), &json!(2)));
        let words = place.run("ann", &["import", "visit", &csv, "--dry-run"]);
        assert!(words.out.contains("7 of 9 rows of visit cannot be imported"), "{}", words.out);
        let refused = place.run("ann", &["import", "visit", &csv]);
        assert_eq!(refused.code, 4);
        assert!(
            refused.err.contains("line 3") && refused.err.contains("5 rows"),
            "{}",
            refused.err
        );
        assert_eq!(records(&place, "ann", "visit"), before, "nothing was written");
        drop(serving);
    }
    let many: String =
        (0..60).map(|n| format!("{{\"id\":\"{n}\",\"n\":\"x\",\"o\":1}}\n{n}\n")).collect();
    let many = place.file("many.jsonl", &many);
    let many = many.to_str().expect("a plain path");
    let told = place.run("ann", &["import", "visit", many, "--dry-run"]);
    assert_eq!(told.out.lines().count(), 52, "{}", told.out);
    assert!(told.out.contains("and 70 more"), "{}", told.out);
    let told = place.run("ann", &["import", "visit", many, "--dry-run", "--json"]);
    let told: Value = serde_json::from_str(&told.out).expect("an object");
    assert_eq!(told["bad"].as_array().map(Vec::len), Some(120));
}

#[test]
fn json_lines_and_entries_of_records_go_on_where_they_were_killed() {
    const ROWS: u64 = 10_000;
    const THINGS: u64 = 2_000;
    let (place, _relay) = organisation();
    let things: String = (0..THINGS).map(|n| format!("{n},word\n")).collect();
    let things = place.file("things.csv", &format!("id,word\n{things}"));
    place.run("ann", &["import", "thing", things.to_str().expect("a plain path")]).ok();
    let lines: String = (0..ROWS).map(|n| format!("{{\"outlet\":\"41\",\"n\":{n}}}\n")).collect();
    let lines = place.file("visits.jsonl", &lines);
    let entries: String = (0..ROWS).map(|n| format!("{},{n},{n}\n", n / 5)).collect();
    let entries = place.file("lines.csv", &format!("thing,line,quantity\n{entries}"));
    let database = home::database(&place.path("ann"));
    let changes = || {
        let rows = Reader::open(&database).and_then(|reader| reader.segments());
        rows.map_or(0, |rows| rows.iter().map(|row| row.tip).sum::<u64>())
    };
    let [lines, entries] = [&lines, &entries].map(|path| path.to_str().expect("a plain path"));
    for (args, written) in [
        (&["import", "visit", lines][..], ROWS),
        (&["import", "thing.lines", entries, "--parent", "thing", "--id", "line"], THINGS),
    ] {
        let begun = changes();
        let running = place.start("ann", args);
        while changes() == begun {
            assert_eq!(running.has_said(), None, "it goes on until it is killed");
            std::thread::yield_now();
        }
        assert_ne!(running.stop("KILL"), 0, "it was killed in the middle");
        let done = place.run("ann", &[args, &["--continue", "--json"]].concat()).json();
        let number = |name: &str| done[name].as_u64().expect("a number");
        assert!(number("saved_before") > 0, "{done}");
        assert_eq!(number("written") + number("saved_before"), written, "{done}");
    }
    let visits = records(&place, "ann", "visit");
    let numbers: BTreeSet<u64> = visits.iter().filter_map(|visit| visit["n"].as_u64()).collect();
    assert_eq!((visits.len() as u64, numbers.len() as u64), (ROWS, ROWS));
    let things = records(&place, "ann", "thing");
    let lines = things.iter().filter_map(|thing| thing["lines"].as_array()).flatten();
    let quantities: Vec<u64> = lines.filter_map(|line| line["quantity"].as_u64()).collect();
    let distinct: BTreeSet<u64> = quantities.iter().copied().collect();
    assert_eq!((quantities.len() as u64, distinct.len() as u64), (ROWS, ROWS));
    place.run("ann", &["doctor"]).ok();
}

#[test]
fn an_import_that_is_killed_goes_on_and_writes_nothing_twice_and_misses_nothing() {
    const ROWS: u64 = 10_000;
    let (place, _relay) = organisation();
    let rows: String = (0..ROWS).map(|n| format!("{},{n}\n", n % 3)).collect();
    let file = place.file("visits.csv", &format!("outlet,n\n{rows}"));
    let file = file.to_str().expect("a plain path");
    let database = home::database(&place.path("ann"));
    let saved = || {
        let rows = Reader::open(&database).and_then(|reader| reader.segments());
        rows.map_or(0, |rows| rows.iter().map(|row| row.records).sum::<u64>())
    };
    let mut args = vec!["import", "visit", file];
    for most in [1, 2_500, 5_000] {
        let running = place.start("ann", &args);
        while saved() < most {
            assert_eq!(running.has_said(), None, "it goes on until it is killed");
            std::thread::yield_now();
        }
        assert_ne!(running.stop("KILL"), 0, "it was killed in the middle");
        assert!(saved() < ROWS);
        let refused = place.run("ann", &["import", "visit", file]);
        assert_eq!(refused.code, 4, "its records have fresh ids: {}", refused.out);
        assert!(refused.err.contains("--continue"), "{}", refused.err);
        args = vec!["import", "visit", file, "--continue"];
    }
    let done = place.run("ann", &[&args[..], &["--json"]].concat()).json();
    let number = |name: &str| done[name].as_u64().expect("a number");
    assert_eq!(number("written") + number("saved_before"), ROWS);
    assert!(number("saved_before") >= 5_000);
    let again = place.run("ann", &[&args[..], &["--json"]].concat()).json();
    assert_eq!((&again["written"], &again["saved_before"]), (&json!(0), &json!(ROWS)));

    let records = records(&place, "ann", "visit");
    let numbers: BTreeSet<u64> = records.iter().filter_map(|record| record["n"].as_u64()).collect();
    assert_eq!((records.len() as u64, numbers.len() as u64), (ROWS, ROWS));
    place.run("ann", &["sync"]).ok();
    place.run("ben", &["sync"]).ok();
    for dir in ["ann", "ben"] {
        let listed = place.run(dir, &["status", "--json"]).json();
        let visit = &listed["types"].as_array().expect("a list")[1];
        assert_eq!((&visit["local"], &visit["status"]), (&json!(ROWS), &json!("fully_synced")));
        place.run(dir, &["doctor"]).ok();
    }
}
