//! The sync benchmark as researchers run it, through the command line: every property is measured,
//! by every subject of this build.

use crate::process::{Place, Ran};
use serde_json::Value;

fn lab(place: &Place, args: &[&str]) -> Ran {
    let out = place.path("out");
    let out = out.to_str().expect("a plain path");
    place.run("none", &[&["lab", "sync", "--out", out], args].concat())
}

fn row<'r>(rows: &'r [Value], property: &str, subject: &str) -> &'r Value {
    let found = rows.iter().find(|r| r["property"] == property && r["subject"] == subject);
    found.unwrap_or_else(|| panic!("no row of {property} by {subject}"))
}

#[test]
fn every_property_is_measured_by_every_subject() {
    let place = Place::new();
    lab(&place, &["--records", "200", "--segments", "4", "--delays", "0,10"]).ok();
    let text = std::fs::read_to_string(place.path("out").join("results.json")).expect("results");
    let results: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(results["schema"], "fieldkeep/lab-sync/1");
    assert_eq!(results["partial"], false);
    let rows = results["rows"].as_array().expect("the rows");
    for each in rows {
        assert_eq!(each["failed"], false, "{each}");
    }
    for property in ["reconnect", "one-change", "diverged", "cold", "restored"] {
        let row = row(rows, property, "fieldkeep");
        assert!(row["bytes"].as_f64().is_some_and(|bytes| bytes > 0.0), "{row}");
        assert!(row["round_trips"].as_f64().is_some(), "{row}");
    }
    assert!(row(rows, "cuts", "fieldkeep")["redundant_bytes"].as_f64().is_some());
    for property in ["reconnect", "reconnect-forgotten", "one-change", "live", "diverged", "cold"] {
        row(rows, property, "automerge");
    }
    assert_eq!(rows.iter().any(|row| row["subject"] == "samod"), cfg!(feature = "engines"));
    let page = std::fs::read_to_string(place.path("out").join("report.html")).expect("a page");
    assert!(!page.contains("http://") && !page.contains("https://"));
}

#[test]
fn a_plan_that_cannot_be_run_says_what_to_do_and_does_nothing() {
    let place = Place::new();
    let refused = |args: &[&str], words: &str| {
        let ran = lab(&place, args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.err);
        assert!(ran.err.contains(words), "{args:?}: {}", ran.err);
        assert!(!place.path("out").join("results.json").exists());
    };
    refused(&["--properties", "warm"], "no property `warm`; there are reconnect,");
    refused(&["--subjects", "couch"], "no subject `couch`");
    refused(&["--records", "1"], "1 records are not possible");
    refused(&["--segments", "5000"], "5000 segments are not possible");
    refused(&["--delays", "50"], "two different round trip times");
    if !cfg!(feature = "engines") {
        refused(&["--subjects", "samod"], "cargo build --release --features engines");
    }
}
