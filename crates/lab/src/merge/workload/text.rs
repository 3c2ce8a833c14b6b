//! Text as people typed it: the editing traces, key by key.
//!
//! A trace of one author is typed into one replica and merged by another one. In a trace of several
//! authors each has a replica of its own, which merges what its author had seen before each key.
//! The trace tells what was there in the end; how the keys of several authors mix within a line is
//! the engine's choice, so that the text of the concurrent traces is told, not compared.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use fieldkeep_model::{Edit, RecordEdit, RecordId};
use serde::Deserialize;
use serde_json::Value;

use super::super::cell::Cell;
use super::super::engine::{Engine, content_hash};
use super::super::measure::{Metrics, Times};
use super::growth::HUB;

const FIELD: &str = "text";

/// A trace as its file has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    #[serde(default)]
    start_content: String,
    end_content: String,
    #[serde(default)]
    num_agents: usize,
    txns: Vec<Keys>,
}

/// What one author did at once: characters deleted and inserted at positions, in order.
#[derive(Deserialize)]
struct Keys {
    #[serde(default)]
    parents: Vec<usize>,
    #[serde(default)]
    agent: usize,
    patches: Vec<(usize, usize, String)>,
}

/// The folder of the editing traces: under the data folder that the environment names, else beside
/// the checkout.
#[must_use]
pub(crate) fn folder() -> PathBuf {
    let data =
        std::env::var_os("FIELDKEEP_DATA").map_or_else(|| "../shared/data".into(), PathBuf::from);
    data.join("editing-traces")
}

/// The file of a trace.
pub(crate) fn file(trace: &str, folder: &Path) -> PathBuf {
    folder.join(format!("{trace}.json.gz"))
}

fn read(cell: &Cell) -> Trace {
    let name = cell.workload.trace().expect("a workload of text");
    let packed = File::open(file(name, &folder())).expect("the plan looked for the trace");
    serde_json::from_reader(std::io::BufReader::new(flate2::read::GzDecoder::new(packed)))
        .expect("a trace")
}

fn record() -> RecordId {
    RecordId::new("document").expect("a record id")
}

/// A state with the text as it was in the beginning.
fn beginning(cell: &Cell, text: &str) -> Vec<u8> {
    let mut creator = cell.engine.open(HUB, 1);
    let edit: RecordEdit = vec![Edit::Text(FIELD.to_owned(), text.to_owned())].into();
    creator.write(&record(), &edit);
    creator.save()
}

fn type_keys(replica: &mut dyn Engine, keys: &Keys) {
    for (at, deleted, inserted) in &keys.patches {
        replica.splice(&record(), FIELD, *at, *deleted, inserted);
    }
}

fn text(replica: &dyn Engine) -> String {
    let record = replica.read(&record()).unwrap_or_default();
    record.get(FIELD).and_then(Value::as_str).unwrap_or_default().to_owned()
}

pub(super) fn sequential(cell: &Cell) -> Metrics {
    let trace = read(cell);
    let start = beginning(cell, &trace.start_content);
    let mut metrics = Metrics::begin();
    let mut author = cell.engine.load(1, &start);
    let mut puts = Times::default();
    let mut messages = Vec::with_capacity(trace.txns.len());
    for keys in &trace.txns {
        puts.each(1, || {
            type_keys(author.as_mut(), keys);
            messages.push(author.encode());
        });
    }
    metrics.times("put", &puts);
    metrics.memory();
    assert_eq!(text(author.as_ref()), trace.end_content, "the text is what was typed");
    let mut reader = cell.engine.load(HUB + 1, &start);
    metrics.time("batch", || reader.apply(&messages));
    assert_eq!(content_hash(author.as_ref()), content_hash(reader.as_ref()));
    metrics.wire(author.as_ref(), &messages);
    let saved = metrics.save(author.as_mut());
    let loaded = metrics.time("load", || cell.engine.load(HUB + 2, &saved));
    metrics.content(content_hash(loaded.as_ref()));
    metrics
}

/// An author: a replica, and the keys that it has seen.
struct Author {
    replica: Box<dyn Engine>,
    seen: Vec<bool>,
}

impl Author {
    /// Merges what lies before keys and is not seen yet.
    fn catch_up(&mut self, trace: &Trace, parents: &[usize], messages: &[Vec<u8>]) -> usize {
        let mut missing = BTreeSet::new();
        let mut look = parents.to_vec();
        while let Some(keys) = look.pop() {
            if !self.seen[keys] && missing.insert(keys) {
                look.extend(&trace.txns[keys].parents);
            }
        }
        // Keys come after their parents in the file: ascending is a causal order.
        let batch: Vec<_> = missing.iter().map(|keys| messages[*keys].clone()).collect();
        missing.iter().for_each(|keys| self.seen[*keys] = true);
        if !batch.is_empty() {
            self.replica.apply(&batch);
        }
        batch.len()
    }
}

pub(super) fn concurrent(cell: &Cell) -> Metrics {
    let trace = read(cell);
    let start = beginning(cell, &trace.start_content);
    let mut metrics = Metrics::begin();
    let author = |nth: usize| Author {
        replica: cell.engine.load(nth as u64 + 1, &start),
        seen: vec![false; trace.txns.len()],
    };
    let mut authors: Vec<_> = (0..trace.num_agents).map(author).collect();
    let (mut puts, mut merges) = (Times::default(), Times::default());
    let mut messages: Vec<Vec<u8>> = Vec::with_capacity(trace.txns.len());
    for (nth, keys) in trace.txns.iter().enumerate() {
        let author = &mut authors[keys.agent];
        merges.counted(|| author.catch_up(&trace, &keys.parents, &messages));
        author.seen[nth] = true;
        puts.each(1, || {
            type_keys(author.replica.as_mut(), keys);
            messages.push(author.replica.encode());
        });
    }
    metrics.times("put", &puts);
    metrics.times("apply", &merges);
    let everything: Vec<_> = (0..trace.txns.len()).collect();
    for author in &mut authors {
        author.catch_up(&trace, &everything, &messages);
    }
    metrics.memory();
    let mut reader = cell.engine.load(HUB + 1, &start);
    metrics.time("batch", || reader.apply(&messages));
    let read = text(reader.as_ref());
    assert!(
        authors.iter().all(|author| text(author.replica.as_ref()) == read),
        "all read the same"
    );
    metrics.set("as_recorded", f64::from(u8::from(read == trace.end_content)));
    metrics.wire(reader.as_ref(), &messages);
    metrics.save(reader.as_mut());
    metrics.content(content_hash(reader.as_ref()));
    metrics
}
