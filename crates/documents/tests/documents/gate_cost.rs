//! What the gate costs, printed under `cargo test --release -- --nocapture`. The bounds are loose:
//! they catch a change of shape, not of machine.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT, ReadDoc};
use fieldkeep_documents::gate::History;
use fieldkeep_lab::generate::{commit, create, replica};
use fieldkeep_lab::orders::orders;

/// 1,000 orders by one device, then an edit of each by another.
fn segment() -> (AutoCommit, Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut doc = replica(1);
    let orders = orders(1, 1000);
    let mut records = Vec::new();
    for (id, order) in &orders {
        create(&mut doc, id, order);
        records.push(commit(&mut doc, 1).unwrap());
    }
    let mut doc = doc.fork().with_actor(replica(2).get_actor().clone());
    let mut edits = Vec::new();
    for (id, _) in &orders {
        let (_, record) = doc.get(ROOT, id).unwrap().unwrap();
        doc.put(&record, "state", "paid").unwrap();
        edits.push(commit(&mut doc, 2).unwrap());
    }
    (doc, records, edits)
}

/// 100 devices write on top of one state without meeting; their changes arrive in turn.
fn crowd(doc: &mut AutoCommit) -> Vec<Vec<u8>> {
    let mut chains: Vec<Vec<Vec<u8>>> = Vec::new();
    for device in 10..110 {
        let mut doc = doc.fork().with_actor(replica(device).get_actor().clone());
        chains.push(
            (0..10)
                .map(|at| {
                    create(&mut doc, &format!("{device}-{at}"), &serde_json::json!({"note": "x"}));
                    commit(&mut doc, 3).unwrap()
                })
                .collect(),
        );
    }
    (0..10).flat_map(|at| chains.iter().map(move |chain| chain[at].clone())).collect()
}

/// 1,000 devices write a first change each; two more merge them all, unseen by each other.
fn merges() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut merged = replica(5000);
    let mut heads = Vec::new();
    for device in 0..1000 {
        let mut doc = replica(device);
        create(&mut doc, &format!("order-{device}"), &serde_json::json!({"note": "x"}));
        heads.push(commit(&mut doc, 3).unwrap());
        merged.merge(&mut doc).unwrap();
    }
    let merge = |device| {
        let mut doc = merged.clone().with_actor(replica(device).get_actor().clone());
        doc.empty_change(automerge::transaction::CommitOptions::default().with_time(4));
        doc.get_last_local_change().unwrap().raw_bytes().to_vec()
    };
    let merges = vec![merge(5001), merge(5002)];
    (heads, merges)
}

fn micros(history: &mut History, chunks: &[Vec<u8>]) -> f64 {
    let start = Instant::now();
    for chunk in chunks {
        history.replay(chunk).unwrap();
    }
    start.elapsed().as_secs_f64() * 1e6 / chunks.len() as f64
}

#[test]
fn a_merge_of_a_thousand_heads_costs_no_more_than_its_bytes() {
    let (heads, merges) = merges();
    let mut history = History::new();
    let head = micros(&mut history, &heads);
    let merge = micros(&mut history, &merges);
    println!("{head:.1} us a first change, {merge:.1} us a merge of 1,000 heads");
    if !cfg!(debug_assertions) {
        assert!(merge < 10_000.0);
    }
}

#[test]
fn the_gate_costs_microseconds() {
    let (mut doc, records, edits) = segment();
    let mut history = History::new();
    let record = micros(&mut history, &records);
    let edit = micros(&mut history, &edits);
    let ops = history.max_op();
    let crossed = micros(&mut history, &crowd(&mut doc));
    let start = Instant::now();
    let blob = history.encode();
    let encode = start.elapsed().as_secs_f64() * 1e3;
    let start = Instant::now();
    assert_eq!(History::decode(&blob).unwrap().vector(), history.vector());
    let decode = start.elapsed().as_secs_f64() * 1e3;
    println!(
        "{record:.1} us a record ({} ops, {} bytes), {edit:.1} us an edit ({} bytes)",
        (ops - 1000) / 1000,
        records.iter().map(Vec::len).sum::<usize>() / 1000,
        edits.iter().map(Vec::len).sum::<usize>() / 1000,
    );
    println!("{crossed:.1} us a change of 2 operations, 100 devices in turn upon old heads");
    println!("blob: {} bytes, encode {encode:.2} ms, decode {decode:.2} ms", blob.len());
    if !cfg!(debug_assertions) {
        assert!(record < 80.0 && edit < 30.0 && crossed < 60.0);
    }
}
