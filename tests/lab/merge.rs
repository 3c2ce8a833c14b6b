//! The merge benchmark as researchers run it: through the command line, with every engine that this
//! build has. With the feature `engines`, that is all of them.

use std::collections::BTreeSet;
use std::path::Path;

use crate::process::{self, Place};
use serde_json::Value;

/// Workloads in which all engines have to arrive at one content; a thousand edits one by one only
/// where all engines are.
const COMPARED: &str = if cfg!(feature = "engines") {
    "build,fresh,load,edits-1,edits-100-ordered,edits-100-random,edits-1000-ordered,diverged,\
     actors,history"
} else {
    "build,fresh,load,edits-100-random,diverged,actors,history"
};

fn results(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("results.json")).expect("the results");
    serde_json::from_str(&text).expect("JSON")
}

fn runs(results: &Value) -> &Vec<Value> {
    results["runs"].as_array().expect("the runs")
}

fn lab(place: &Place, out: &str, args: &[&str]) -> process::Ran {
    let out = place.path(out);
    let out = out.to_str().expect("a plain path");
    let args = [&["lab", "merge", "--out", out, "--seed", "7"], args].concat();
    place.run("none", &args)
}

#[test]
fn every_engine_of_the_build_arrives_at_one_content() {
    let place = Place::new();
    let ran = lab(&place, "all", &["--records", "200", "--workloads", COMPARED]);
    let said = ran.ok();
    assert!(said.contains("All engines arrived at one content"), "{said}");
    let results = results(&place.path("all"));
    assert_eq!(results["schema"], "fieldkeep/lab-merge/1");
    assert_eq!(results["partial"], false);
    let engines: BTreeSet<_> =
        runs(&results).iter().map(|run| run["engine"].as_str().expect("a name")).collect();
    for engine in ["fieldkeep", "fieldkeep-gate", "automerge", "automerge-each", "rows"] {
        assert!(engines.contains(engine), "{engine} was not run");
    }
    for engine in ["loro", "yrs"] {
        assert_eq!(engines.contains(engine), cfg!(feature = "engines"), "{engine}");
    }
    for run in runs(&results) {
        assert_eq!(run["counts"], true, "{run}");
        let heap = run["metrics"]["heap_peak_bytes"].as_f64();
        assert_eq!(heap.is_some_and(|bytes| bytes > 0.0), cfg!(feature = "engines"), "{run}");
        assert!(run["metrics"]["rss_peak_bytes"].as_f64().is_some_and(|bytes| bytes > 0.0));
    }
    for agreement in results["agreements"].as_array().expect("the agreements") {
        assert_eq!(agreement["differed"].as_array().map(Vec::len), Some(0), "{agreement}");
    }
    let csv = std::fs::read_to_string(place.path("all").join("results.csv")).expect("the CSV");
    assert!(csv.starts_with("comparison,workload,records,engine,outcome,counts,metric,value\n"));
    assert!(!place.path("all").join("scratch").exists(), "what the runs left is removed");
}

#[test]
fn the_report_stands_alone_and_follows_the_theme() {
    let place = Place::new();
    let args = ["--records", "100,200", "--workloads", "build,load", "--engines", "fieldkeep,rows"];
    lab(&place, "report", &args).ok();
    let page = std::fs::read_to_string(place.path("report").join("report.html")).expect("a page");
    for foreign in ["http://", "https://", "<script", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "the page contains {foreign}");
    }
    assert!(page.contains("prefers-color-scheme: dark"));
    assert!(page.contains("time against N") && page.contains("<polyline"));
    assert!(page.contains("Ratios to Fieldkeep") && page.contains("--seed 7"));
}

#[test]
fn what_exceeds_its_limits_says_so_and_the_rest_goes_on() {
    let place = Place::new();
    let args =
        ["--records", "2000", "--workloads", "build", "--engines", "rows", "--memory-limit", "1"];
    let said = lab(&place, "memory", &args).ok();
    assert!(said.contains("over memory"), "{said}");
    assert_eq!(runs(&results(&place.path("memory")))[0]["counts"], false);
    let args =
        ["--records", "2000", "--workloads", "build", "--engines", "rows", "--time-limit", "0"];
    let said = lab(&place, "time", &args).ok();
    assert!(said.contains("over time"), "{said}");
}

#[test]
fn a_plan_that_cannot_be_run_says_what_to_do_and_does_nothing() {
    let place = Place::new();
    let refused = |args: &[&str], words: &[&str]| {
        let ran = lab(&place, "refused", args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.err);
        for word in words {
            assert!(ran.err.contains(word), "{args:?}: {}", ran.err);
        }
        assert!(!place.path("refused").join("results.json").exists());
    };
    refused(&["--engines", "automerg"], &["no engine `automerg`", "did you mean `automerge`?"]);
    refused(&["--workloads", "biuld"], &["no workload `biuld`", "did you mean `build`?"]);
    refused(&["--records", "5"], &["5 records are not possible"]);
    refused(&["--records", "200", "--devices", "0"], &["0 devices are not possible"]);
    refused(&["--engines", "rows", "--workloads", "text-paper"], &["nothing is to be measured"]);
    if !cfg!(feature = "engines") {
        let command = "cargo build --release --features engines";
        refused(&["--engines", "loro"], &["this build has no engine `loro`", command]);
    }
    let file = place.file("occupied", "");
    let ran = place.run("none", &["lab", "merge", "--out", file.to_str().expect("plain")]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("--out"), "{}", ran.err);
}

#[test]
fn an_interrupted_benchmark_keeps_what_it_has_and_says_so() {
    let place = Place::new();
    let out = place.path("cut");
    let out = out.to_str().expect("a plain path");
    // The second size takes far longer than the test waits.
    let args = [
        "lab",
        "merge",
        "--out",
        out,
        "--engines",
        "rows",
        "--workloads",
        "build",
        "--records",
        "100,1000000",
    ];
    let running = place.start("none", &args);
    assert!(running.line_beginning("memory").contains("measured"));
    assert_eq!(running.stop("INT"), 130);
    let results = results(&place.path("cut"));
    assert_eq!(results["partial"], true);
    assert_eq!(runs(&results)[0]["outcome"], "measured");
    let page = std::fs::read_to_string(place.path("cut").join("report.html")).expect("a page");
    assert!(page.contains("These results are partial"));
}
