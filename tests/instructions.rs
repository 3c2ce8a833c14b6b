//! How many instructions the hot paths take, counted by callgrind: unlike times, the counts repeat
//! on a noisy machine.
//!
//! `tests/instructions.txt` holds what was recorded; a path that takes over a tenth more fails.
//! `FIELDKEEP_RECORD=1 cargo test --test instructions` records anew, to be committed with the change
//! that needs it. Without valgrind this is a loud skip, and under `.ci/run` a failure.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread::available_parallelism;

use fieldkeep_catalog::{Catalog, Holder, Referent, Subject, Surroundings};
use fieldkeep_documents::{Document, History, batch};
use fieldkeep_lab::generate::segment;
use fieldkeep_lab::orders::{catalog, orders};
use fieldkeep_model::{RecordId, SegmentId, TypeName};
use serde_json::{Map, Value};

const RECORDS: usize = 100;
/// Growth that is let pass: the compiler's and the allocator's whims stay well below it.
const TOLERATED: f64 = 1.10;
/// Names the path that a run under callgrind is to take.
const CHOICE: &str = "FIELDKEEP_HOT_PATH";

/// What is prepared outside the count, and returns what is counted.
type Prepare = fn() -> Box<dyn FnOnce()>;

const PATHS: [(&str, Prepare); 8] = [
    ("gate: new orders", || {
        let (created, _) = segment(RECORDS);
        Box::new(move || drop(replayed(History::new(), &created)))
    }),
    ("gate: edits", || {
        let (created, edited) = segment(RECORDS);
        let history = replayed(History::new(), &created);
        Box::new(move || drop(replayed(history, &edited)))
    }),
    ("batch: encode", || {
        let (created, _) = segment(RECORDS);
        Box::new(move || {
            let chunks: Vec<&[u8]> = created.iter().map(Vec::as_slice).collect();
            black_box(batch::encode(&chunks, 3));
        })
    }),
    ("batch: decode", || {
        let (created, _) = segment(RECORDS);
        let chunks: Vec<&[u8]> = created.iter().map(Vec::as_slice).collect();
        let encoded = batch::encode(&chunks, 3);
        Box::new(move || {
            black_box(batch::decode(&encoded, 8 << 20).expect("it was just encoded"));
        })
    }),
    ("document: merge edits", || {
        let (created, edited) = segment(RECORDS);
        let mut document = document(&[&created]);
        Box::new(move || {
            document.apply(edited.iter().map(Vec::as_slice)).expect("they passed the gate");
        })
    }),
    ("document: load", || {
        let (created, edited) = segment(RECORDS);
        let saved = document(&[&created, &edited]).save();
        Box::new(move || drop(black_box(Document::load(&saved))))
    }),
    ("document: read records", || {
        let (created, edited) = segment(RECORDS);
        let document = document(&[&created, &edited]);
        Box::new(move || {
            for id in document.ids() {
                black_box(document.record(&id).map(|record| record.canonical()));
            }
        })
    }),
    ("catalog: judge orders", || {
        let catalog = Catalog::parse(&catalog(1, false)).expect("it is sound");
        let orders = orders(1, RECORDS);
        Box::new(move || orders.iter().for_each(|(id, order)| judge(&catalog, id, order)))
    }),
];

fn replayed(mut history: History, chunks: &[Vec<u8>]) -> History {
    for chunk in chunks {
        history.replay(chunk).expect("honest changes pass");
    }
    history
}

fn document(parts: &[&[Vec<u8>]]) -> Document {
    let mut document = Document::new();
    for chunks in parts {
        document.apply(chunks.iter().map(Vec::as_slice)).expect("they passed the gate");
    }
    document
}

fn judge(catalog: &Catalog, id: &str, order: &Value) {
    let ty = TypeName::new("order").expect("a name");
    let id = RecordId::new(id).expect("an id");
    let fields = order.as_object().expect("it is");
    let subject = Subject { ty: &ty, id: &id, fields, deleted: false, previous: None, scope: "" };
    assert!(catalog.judge(&subject, &Plenty).reasons.is_empty(), "the order is valid");
}

/// A world in which everything is there.
struct Plenty;

impl Surroundings for Plenty {
    fn referent(&self, _: &TypeName, _: &RecordId) -> Referent {
        Referent::Present { fields: Map::new(), held: false, segment: SegmentId([0; 16]) }
    }

    fn holders(&self, _: &TypeName, _: &str, _: &str) -> Vec<Holder> {
        Vec::new()
    }
}

/// Callgrind counts while this function runs, and at no other time.
#[inline(never)]
fn counted_by_callgrind(path: Box<dyn FnOnce()>) {
    path();
    // Keeps the call above from being the function's last, and so from replacing it.
    black_box(());
}

#[test]
fn every_hot_path_runs() {
    let choice = std::env::var(CHOICE).ok();
    for (name, prepare) in PATHS {
        if choice.as_deref().is_none_or(|choice| choice == name) {
            counted_by_callgrind(prepare());
        }
    }
}

#[test]
fn no_hot_path_takes_a_tenth_more_instructions_than_recorded() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "valgrind is not installed");
        let text = "SKIPPED: valgrind is not installed, so no instruction was counted";
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{text}\n"));
        return;
    }
    let counts = counts();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instructions.txt");
    if std::env::var_os("FIELDKEEP_RECORD").is_some() {
        let mut text = String::new();
        for (name, count) in &counts {
            writeln!(text, "{name} = {count}").expect("a string takes everything");
        }
        std::fs::write(&path, text).expect("the record can be written");
        return;
    }
    let recorded = recorded(&path);
    let mut grown = Vec::new();
    for (name, count) in &counts {
        let recorded = recorded.get(*name).copied().unwrap_or_default();
        let ratio = *count as f64 / recorded as f64;
        println!("{name}: {count} instructions, {ratio:.3} of what was recorded");
        if ratio > TOLERATED {
            grown.push(format!("{name}: {recorded} were recorded, {count} are taken"));
        }
    }
    let remedy = "mend it, or record anew: FIELDKEEP_RECORD=1 cargo test --test instructions";
    assert!(grown.is_empty(), "{}\n{remedy}", grown.join("\n"));
}

fn recorded(path: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(path).expect("tests/instructions.txt is there");
    let lines = text.lines().map(|line| line.split_once(" = ").expect("name = count"));
    lines.map(|(name, count)| (name.to_owned(), count.parse().expect("a count"))).collect()
}

/// Instructions of every path, on all processors: counts do not mind what runs beside them.
fn counts() -> BTreeMap<&'static str, u64> {
    let left = Mutex::new(PATHS.iter());
    let next = || left.lock().expect("nobody panicked").next();
    let worker =
        || -> Vec<_> { std::iter::from_fn(next).map(|(name, _)| (*name, count(name))).collect() };
    std::thread::scope(|scope| {
        let many = available_parallelism().map_or(1, NonZero::get);
        let workers: Vec<_> = (0..many).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("it counted")).collect()
    })
}

/// Instructions of one path, by a run of this test under callgrind.
fn count(name: &str) -> u64 {
    let file = format!("callgrind.{}.out", name.replace([':', ' '], "-"));
    let out: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg("--toggle-collect=*counted_by_callgrind*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().expect("this test is a file"))
        .args(["--exact", "every_hot_path_runs", "--test-threads=1"])
        .env(CHOICE, name)
        .output()
        .expect("valgrind runs");
    let told = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{name}: {told}");
    let text = std::fs::read_to_string(&out).expect("callgrind wrote its counts");
    let total = text.lines().find_map(|line| line.strip_prefix("summary: "));
    let total = total.and_then(|total| total.trim().parse().ok()).expect("a summary");
    assert!(total > 0, "{name}: nothing was counted");
    total
}
