//! The hostile table: each thing that Automerge takes on trust is stopped, at its stage and for its
//! reason; and each stage stops something that does harm.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeSet;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, Change, ROOT, ReadDoc};
use fieldkeep_documents::gate::{Code, History};
use fieldkeep_lab::anatomy::Anatomy;
use fieldkeep_lab::generate::replica;
use fieldkeep_lab::hostile::Stage;
use fieldkeep_lab::quiet::quietly;

fn history(chunks: &[Vec<u8>]) -> History {
    let mut history = History::new();
    for chunk in chunks {
        history.replay(chunk).unwrap();
    }
    history
}

#[test]
fn each_hostile_change_is_stopped_at_its_stage_and_for_its_reason() {
    let stage = Stage::set();
    let history = history(&stage.beginning);
    let mut wrong = Vec::new();
    for row in stage.hostile() {
        match history.check(&row.chunk) {
            Err(refusal) if (refusal.stage, refusal.code.as_str()) == (row.stage, row.code) => {}
            other => wrong.push(format!("{}: {other:?}, not {} {}", row.name, row.stage, row.code)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What a change does to a document that has no gate in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    Nothing,
    Panics,
    Unloadable,
    WritesPanic,
    ClaimsTooMuch,
}

fn harm(doc: &AutoCommit, chunk: &[u8]) -> Harm {
    let mut doc = doc.clone();
    let done = quietly(|| {
        let Ok(change) = Change::try_from(chunk) else { return Harm::Nothing };
        if change.len() > 100_000 {
            return Harm::ClaimsTooMuch;
        }
        let before = doc.get_heads();
        if doc.apply_changes([change]).is_err() || doc.get_heads() == before {
            return Harm::Nothing;
        }
        if AutoCommit::load(&doc.save()).is_err() {
            return Harm::Unloadable;
        }
        let write = quietly(|| {
            doc.put(ROOT, "x", 1).unwrap();
            doc.commit()
        });
        if write.is_some() { Harm::Nothing } else { Harm::WritesPanic }
    });
    done.unwrap_or(Harm::Panics)
}

#[test]
fn each_stage_stops_changes_that_harm_a_document_without_a_gate() {
    let stage = Stage::set();
    let mut harmful = BTreeSet::new();
    for row in stage.hostile() {
        let harm = harm(&stage.doc, &row.chunk);
        println!("{} {:17} {:40} {harm:?}", row.stage, row.code, row.name);
        if harm != Harm::Nothing {
            harmful.insert(row.stage);
        }
    }
    assert_eq!(harmful, BTreeSet::from([0, 2, 3, 4]));
}

#[test]
fn without_a_stage_what_it_stops_gets_through() {
    let stage = Stage::set();
    let history = history(&stage.beginning);
    for left_out in [2, 3, 4] {
        let rows = stage.hostile();
        let through: Vec<_> = rows
            .iter()
            .filter(|row| row.stage == left_out)
            .filter(|row| history.check_without(left_out, &row.chunk).is_ok())
            .filter(|row| harm(&stage.doc, &row.chunk) != Harm::Nothing)
            .collect();
        assert!(!through.is_empty(), "stage {left_out} could be left out");
    }
}

#[test]
fn the_honest_twin_of_a_hostile_change_passes() {
    let stage = Stage::set();
    history(&stage.beginning).check(&stage.anatomy().chunk()).unwrap();
}

#[test]
fn a_change_waits_for_what_it_builds_upon() {
    let stage = Stage::set();
    let [first, second] = &stage.beginning[..] else { panic!("two changes") };
    let mut history = History::new();
    let refusal = history.check(second).unwrap_err();
    let waits_for = fieldkeep_model::ChangeHeader::parse(first).unwrap().hash;
    assert_eq!(refusal.waits(), Some(&[waits_for][..]));
    assert!(!refusal.is_final());
    history.replay(first).unwrap();
    history.replay(second).unwrap();
}

#[test]
fn a_predecessor_must_be_named_directly() {
    // Device 2 builds upon device 1's second change; device 1 then names only device 2's.
    let stage = Stage::set();
    let mut two = replica(2);
    two.merge(&mut stage.doc.clone()).unwrap();
    two.put_object(ROOT, "order-9", automerge::ObjType::Map).unwrap();
    let two = fieldkeep_lab::generate::commit(&mut two, 3).unwrap();
    let mut history = history(&stage.beginning);
    history.replay(&two).unwrap();
    let mut next = stage.anatomy();
    next.start_op += 1;
    next.deps = vec![history.heads()[0].0];
    let refusal = history.check(&next.chunk()).unwrap_err();
    assert_eq!(refusal.code, Code::Predecessor);
    next.deps.push(Anatomy::of(&stage.anatomy().chunk()).unwrap().deps[0]);
    next.deps.sort_unstable();
    history.check(&next.chunk()).unwrap();
}

#[test]
fn a_record_that_two_devices_create_is_admitted_twice() {
    let mut history = History::new();
    for device in [1, 2] {
        let mut doc = replica(device);
        doc.put_object(ROOT, "order-1", automerge::ObjType::Map).unwrap();
        let chunk = fieldkeep_lab::generate::commit(&mut doc, 1).unwrap();
        history.replay(&chunk).unwrap();
    }
    assert_eq!(history.heads().len(), 2);
}

#[test]
fn an_increment_of_a_counter_beside_another_value_passes_and_loads() {
    let mut doc = Stage::set().doc;
    let mut docs = [doc.fork().with_actor(replica(2).get_actor().clone()), doc];
    docs.reverse();
    let (_, record) = docs[0].get(ROOT, "order-1").unwrap().unwrap();
    docs[1].put(&record, "stock", "a text").unwrap();
    docs[0].put(&record, "stock", automerge::ScalarValue::counter(3)).unwrap();
    let [one, two] = &mut docs;
    one.merge(two).unwrap();
    one.increment(&record, "stock", 4).unwrap();
    one.commit();
    let mut history = History::new();
    let mut plain = AutoCommit::new();
    for change in one.get_changes(&[]) {
        history.replay(change.raw_bytes()).unwrap();
        plain.apply_changes([change]).unwrap();
    }
    assert_eq!(AutoCommit::load(&plain.save()).unwrap().get_heads(), one.get_heads());
}
