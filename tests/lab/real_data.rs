//! Real data, end to end with the real binary: imported on one device, through the relay to
//! another, and every cell compared with the file as the csv crate reads it. The expectations are
//! worked out here from the files alone, not by the code under test.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;

use crate::process::{self, Place, data};
use serde_json::{Value, json};

/// A file as rows of column and cell.
fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).expect("the file is here");
    let rows = reader.deserialize();
    rows.map(|row| row.expect("a sound row")).collect()
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// How a column's cells are expected in a record.
#[derive(Clone, Copy)]
enum As {
    Text,
    Int,
    Double,
    Boolean,
}

fn expected(cell: &str, kind: As) -> Value {
    match kind {
        As::Text => json!(cell),
        As::Int => json!(cell.parse::<i64>().expect("a whole number")),
        As::Double => json!(cell.parse::<f64>().expect("a number")),
        As::Boolean => json!(cell.eq_ignore_ascii_case("true")),
    }
}

fn same(shown: &Value, cell: &str, kind: As) -> bool {
    match kind {
        As::Double => shown.as_f64() == expected(cell, kind).as_f64(),
        As::Text | As::Int | As::Boolean => *shown == expected(cell, kind),
    }
}

/// A column's field, spelled out by hand where a rule of thumb would not do.
fn field(column: &str) -> String {
    let mut name = String::new();
    let mut before = ' ';
    for c in column.chars() {
        if c == ' ' {
            name.push('_');
        } else {
            if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
                name.push('_');
            }
            name.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    name
}

fn export(place: &Place, dir: &str, ty: &str) -> BTreeMap<String, Value> {
    let lines = place.run(dir, &["export", ty]).ok();
    let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object"));
    records.map(|record| (record["id"].as_str().expect("an id").to_owned(), record)).collect()
}

/// Compares a row with a record; returns how many cells were compared.
fn compare(
    row: &BTreeMap<String, String>,
    record: &Value,
    left_out: &[&str],
    kind: impl Fn(&str) -> As,
) -> usize {
    let mut fields = BTreeSet::new();
    for (column, cell) in row.iter().filter(|(column, _)| !left_out.contains(&column.as_str())) {
        let name = field(column);
        match record.get(&name) {
            None => assert_eq!(cell, "", "{column} of {record}"),
            Some(shown) => {
                assert!(same(shown, cell, kind(&name)), "{column}: {shown} for {cell:?}");
                fields.insert(name);
            }
        }
    }
    let more = record
        .as_object()
        .expect("an object")
        .keys()
        .filter(|key| !fields.contains(*key) && *key != "id" && *key != "lines");
    assert_eq!(more.collect::<Vec<_>>(), Vec::<&String>::new(), "nothing else is in {record}");
    row.len() - left_out.len()
}

fn organisation(catalog: &str) -> (Place, process::Running) {
    let place = Place::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(catalog);
    let relay = place.relay(&std::fs::read_to_string(path).expect("the example is here"));
    place.device("ann", &[]);
    place.device("ben", &[]);
    (place, relay)
}

#[test]
fn northwind_arrives_cell_by_cell() {
    let Some(data) = data() else { return };
    let data = data.join("northwind");
    let (place, relay) = organisation("northwind.toml");
    let path = |name: &str| data.join(name).to_str().expect("a plain path").to_owned();
    let tables = [
        ("customer", "customers.csv", "CustomerID"),
        ("employee", "employees.csv", "EmployeeID"),
        ("product", "products.csv", "ProductID"),
        ("order", "orders.csv", "OrderID"),
    ];
    for (ty, file, id) in tables {
        place.run("ann", &["import", ty, &path(file), "--id", id]).ok();
    }
    let details = path("order_details.csv");
    place
        .run(
            "ann",
            &["import", "order.lines", &details, "--parent", "OrderID", "--id", "ProductID"],
        )
        .ok();
    place.run("ann", &["sync"]).ok();
    place.run("ben", &["sync"]).ok();

    let mut cells = 0;
    for dir in ["ben", "ann", "relay"] {
        let mut here = 0;
        for (ty, file, id) in tables {
            let records = export(&place, dir, ty);
            let rows = rows(&data.join(file));
            assert_eq!(records.len(), rows.len(), "{ty} on {dir}");
            for row in rows {
                let record = &records[&row[id]];
                here += 1 + compare(&row, record, &[id], |name| match name {
                    "units_in_stock" | "units_on_order" | "reorder_level" | "discontinued" => {
                        As::Int
                    }
                    _ => As::Text,
                });
            }
        }
        here +=
            compare_lines(&export(&place, dir, "order"), &rows(&data.join("order_details.csv")));
        say(&format!("northwind on {dir}: {here} cells compared"));
        cells += here;
    }
    // 93 x 11, 9 x 16, 77 x 10, 830 x 14 and 2,155 x 5 cells, on three replicas.
    assert_eq!(cells, 3 * 24_332);
    let status = place.run("ben", &["status", "--json"]).json();
    for row in status["types"].as_array().expect("a list") {
        assert_eq!(row["status"], "fully_synced", "{row}");
        assert_eq!(row["local"], row["server"], "{row}");
    }
    let counts = place
        .run("ann", &["import", "product", &path("products.csv"), "--id", "ProductID", "--json"]);
    assert_eq!(counts.json()["unchanged"], json!(77), "a second import changes nothing");
    assert_eq!(relay.stop("INT"), 0);
}

fn compare_lines(orders: &BTreeMap<String, Value>, rows: &[BTreeMap<String, String>]) -> usize {
    let lines: usize =
        orders.values().filter_map(|order| order["lines"].as_array()).map(Vec::len).sum();
    assert_eq!(lines, rows.len());
    let mut cells = 0;
    for row in rows {
        let lines = orders[&row["OrderID"]]["lines"].as_array().expect("a list");
        let line = lines.iter().find(|line| line["id"] == row["ProductID"].as_str());
        let left_out = ["OrderID", "ProductID"];
        cells += 2 + compare(row, line.expect("the line"), &left_out, |name| match name {
            "quantity" => As::Int,
            _ => As::Text,
        });
    }
    cells
}

#[test]
fn the_squirrels_with_one_id_are_held_and_all_others_are_valid() {
    let Some(data) = data() else { return };
    let file = data.join("squirrels/squirrel-census-2018.csv");
    let (place, relay) = organisation("squirrels.toml");
    let rows = rows(&file);
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    rows.iter().for_each(|row| *times.entry(&row["Unique Squirrel ID"]).or_default() += 1);
    let twice: BTreeSet<&str> = times.iter().filter(|(_, n)| **n == 2).map(|(id, _)| *id).collect();
    assert_eq!((twice.len(), times.len()), (5, rows.len() - 5));

    place.run("ann", &["import", "sighting", file.to_str().expect("a plain path")]).ok();
    let synced = place.run("ann", &["sync"]).ok();
    assert!(synced.contains("held 10"), "{synced}");
    assert!(synced.contains("10 records need attention: fieldkeep attention list"), "{synced}");
    place.run("ben", &["sync"]).ok();
    for dir in ["relay", "ann", "ben"] {
        let listed = place.run(dir, &["list", "sighting", "--json"]).json();
        let records = listed["records"].as_array().expect("a list");
        assert_eq!(records.len(), rows.len(), "{dir}");
        let (held, others): (Vec<_>, Vec<_>) =
            records.iter().partition(|record| record["state"] == "held");
        assert!(others.iter().all(|record| record["state"] == "valid"), "{dir}");
        assert_eq!(held.len(), 10, "{dir}");
        for record in &held {
            names_the_other(record, &held, &twice);
        }
        say(&format!("squirrels on {dir}: {} cells compared", compare_sightings(records, &rows)));
    }
    assert_eq!(relay.stop("INT"), 0);
}

fn names_the_other(record: &Value, held: &[&Value], twice: &BTreeSet<&str>) {
    let squirrel = record["fields"]["unique_squirrel_id"].as_str().expect("a text");
    assert!(twice.contains(squirrel), "{squirrel}");
    let other = held.iter().find(|other| {
        other["id"] != record["id"] && other["fields"]["unique_squirrel_id"] == squirrel
    });
    let other = other.expect("both are held")["id"].as_str().expect("an id");
    let reason = record["verdict"]["reasons"][0].as_str().expect("a reason");
    assert!(reason.contains(squirrel) && reason.contains(other), "{reason}");
}

/// Sightings have fresh ids: each row is looked for by its content, and found once.
fn compare_sightings(records: &[Value], rows: &[BTreeMap<String, String>]) -> usize {
    let mut by_squirrel: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for record in records {
        let squirrel = record["fields"]["unique_squirrel_id"].as_str().expect("a text");
        by_squirrel.entry(squirrel).or_default().push(&record["fields"]);
    }
    let mut cells = 0;
    for row in rows {
        let candidates = by_squirrel.get_mut(&*row["Unique Squirrel ID"]).expect("it is there");
        let at = candidates.iter().position(|fields| {
            let x = row["X"].parse::<f64>().ok();
            let date = &row["Date"];
            fields["x"].as_f64() == x && fields["date"] == date.as_str()
        });
        let fields = candidates.remove(at.expect("a record for each row"));
        cells += compare(row, fields, &[], sighting_kind);
    }
    cells
}

fn sighting_kind(name: &str) -> As {
    match name {
        "x" | "y" => As::Double,
        "hectare_squirrel_number" => As::Int,
        "running" | "chasing" | "climbing" | "eating" | "foraging" | "kuks" | "quaas" | "moans"
        | "tail_flags" | "tail_twitches" | "approaches" | "indifferent" | "runs_from" => {
            As::Boolean
        }
        _ => As::Text,
    }
}
