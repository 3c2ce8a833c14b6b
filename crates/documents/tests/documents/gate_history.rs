//! What the gate knows of a segment: touched fields, paths, causality, and its blob.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};

use automerge::transaction::Transactable;
use automerge::{AutoCommit, Change, ObjId, ObjType, ROOT, ScalarValue};
use fieldkeep_documents::gate::{DecodeError, History, Step};
use fieldkeep_lab::Dice;
use fieldkeep_lab::generate::{actor, commit, replica, session};
use fieldkeep_model::{ActorId, ChangeHash, ChangeHeader};

fn history(chunks: &[Vec<u8>]) -> History {
    let mut history = History::new();
    for chunk in chunks {
        history.replay(chunk).unwrap();
    }
    history
}

/// The fields of `order-1` that a transaction touches, after one that makes everything.
fn touched(write: impl FnOnce(&mut AutoCommit, &ObjId, &ObjId)) -> Vec<String> {
    let mut doc = replica(1);
    let record = doc.put_object(ROOT, "order-1", ObjType::Map).unwrap();
    let lines = doc.put_object(&record, "lines", ObjType::Map).unwrap();
    let line = doc.put_object(&lines, "l1", ObjType::Map).unwrap();
    doc.put(&record, "stock", ScalarValue::counter(1)).unwrap();
    let mut history = history(&[commit(&mut doc, 1).unwrap()]);
    write(&mut doc, &record, &line);
    let admitted = history.replay(&commit(&mut doc, 2).unwrap()).unwrap();
    assert!(admitted.touched.iter().all(|touch| touch.record.as_str() == "order-1"));
    admitted.touched.into_iter().map(|touch| touch.field).collect()
}

#[test]
fn a_change_touches_the_fields_that_it_writes() {
    assert_eq!(touched(|doc, record, _| doc.put(record, "note", 1).unwrap()), ["note"]);
    assert_eq!(touched(|doc, record, _| doc.increment(record, "stock", 1).unwrap()), ["stock"]);
    assert_eq!(touched(|doc, record, _| doc.delete(record, "stock").unwrap()), ["stock"]);
    assert_eq!(touched(|doc, _, line| doc.put(line, "quantity", 2).unwrap()), ["lines.quantity"]);
}

#[test]
fn creation_and_deletion_touch_the_whole() {
    assert_eq!(touched(|doc, record, _| doc.put(record, "~deleted", true).unwrap()), [""]);
    assert_eq!(touched(|doc, _, line| doc.put(line, "~deleted", true).unwrap()), ["lines"]);
    let mut doc = replica(1);
    let record = doc.put_object(ROOT, "order-1", ObjType::Map).unwrap();
    let lines = doc.put_object(&record, "lines", ObjType::Map).unwrap();
    for id in ["l1", "l2"] {
        let line = doc.put_object(&lines, id, ObjType::Map).unwrap();
        let parts = doc.put_object(&line, "parts", ObjType::Map).unwrap();
        let part = doc.put_object(&parts, "p1", ObjType::Map).unwrap();
        doc.put(&part, "weight", 1).unwrap();
    }
    let text = doc.put_object(&record, "story", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, "once").unwrap();
    let admitted = History::new().check(&commit(&mut doc, 1).unwrap()).unwrap();
    let fields: Vec<_> = admitted.touched.iter().map(|touch| touch.field.as_str()).collect();
    assert_eq!(fields, ["", "lines", "lines.parts", "story"]);
}

#[test]
fn an_object_has_a_path_down_from_its_record() {
    let mut doc = replica(1);
    let record = doc.put_object(ROOT, "order-1", ObjType::Map).unwrap();
    let lines = doc.put_object(&record, "lines", ObjType::Map).unwrap();
    doc.put_object(&lines, "l1", ObjType::Map).unwrap();
    let tags = doc.put_object(&record, "tags", ObjType::List).unwrap();
    doc.insert_object(&tags, 0, ObjType::Map).unwrap();
    let history = history(&[commit(&mut doc, 1).unwrap()]);
    let author = ActorId(actor(1));
    let steps = |counter| history.path(&author, counter).unwrap().steps;
    let key = |text: &str| Step::Key(text.to_owned());
    assert_eq!(history.path(&author, 1).unwrap().record.as_str(), "order-1");
    assert_eq!(steps(1), []);
    assert_eq!(steps(3), [key("lines"), key("l1")]);
    assert_eq!(steps(5), [key("tags"), Step::Element]);
    assert_eq!(history.path(&author, 6), None);
    assert_eq!(history.path(&ActorId(actor(2)), 1), None);
}

#[test]
fn the_header_says_what_automerge_says() {
    for seed in 0..20 {
        for chunk in session(seed, 4, 80) {
            let change = Change::try_from(&chunk[..]).unwrap();
            let header = ChangeHeader::parse(&chunk).unwrap();
            assert_eq!(header.hash.0, change.hash().0);
            assert_eq!(header.deps.iter().map(|dep| dep.0).collect::<Vec<_>>(), deps(&change));
            assert_eq!(header.actor.as_bytes(), change.actor_id().to_bytes());
            let others = header.other_actors.iter().map(ActorId::as_bytes);
            assert!(others.eq(change.other_actor_ids().iter().map(|actor| actor.to_bytes())));
            assert_eq!((header.seq, header.start_op), (change.seq(), change.start_op().get()));
            assert_eq!((header.ops, header.max_op()), (change.len() as u64, change.max_op()));
            assert_eq!(header.time, change.timestamp());
            assert_eq!(header.message, change.message().unwrap_or_default());
        }
    }
}

fn deps(change: &Change) -> Vec<[u8; 32]> {
    change.deps().iter().map(|dep| dep.0).collect()
}

#[test]
fn the_past_of_a_change_is_what_can_be_reached_from_it() {
    for seed in 0..12 {
        let chunks = session(seed, 2 + seed % 7, 150);
        let history = history(&chunks);
        let mut pasts: BTreeMap<ChangeHash, BTreeSet<ChangeHash>> = BTreeMap::new();
        for chunk in &chunks {
            let header = ChangeHeader::parse(chunk).unwrap();
            let mut past = BTreeSet::from([header.hash]);
            past.extend(header.deps.iter().flat_map(|dep| pasts[dep].iter().copied()));
            let vector = history.vector_at(&[header.hash]).unwrap();
            assert_eq!(vector.count(), past.len() as u64);
            let covered = pasts.keys().filter(|other| history.covers(&[header.hash], other));
            assert!(covered.eq(past.iter().filter(|other| **other != header.hash)));
            pasts.insert(header.hash, past);
        }
        assert_eq!(history.vector_at(&history.heads()).unwrap(), history.vector());
        assert_eq!(history.len(), chunks.len() as u64);
    }
}

#[test]
fn every_change_and_operation_is_found_again() {
    let chunks = session(3, 4, 150);
    let history = history(&chunks);
    for chunk in &chunks {
        let header = ChangeHeader::parse(chunk).unwrap();
        assert_eq!(history.locate(&header.hash), Some((header.actor, header.seq)));
        assert_eq!(history.hash_of(&header.actor, header.seq), Some(header.hash));
        assert!(history.seq(&header.actor) >= header.seq && history.max_op() >= header.max_op());
        for counter in header.start_op..=header.max_op() {
            let holder = history.author_of_op(&header.actor, counter);
            assert_eq!(holder, Some((header.hash, header.seq)));
        }
    }
    assert_eq!(history.hash_of(&ActorId(actor(1)), 0), None);
    assert_eq!(history.author_of_op(&ActorId(actor(1)), 0), None);
}

#[test]
fn a_history_decodes_to_what_it_was_and_goes_on() {
    for seed in 0..10 {
        let chunks = session(seed, 3, 120);
        let half = chunks.len() / 2;
        let whole = history(&chunks);
        let mut decoded = History::decode(&history(&chunks[..half]).encode()).unwrap();
        for chunk in &chunks[half..] {
            decoded.replay(chunk).unwrap();
        }
        assert_eq!(decoded.encode(), whole.encode());
        assert_eq!(decoded.heads(), whole.heads());
    }
    assert_eq!(History::decode(&History::new().encode()).unwrap().len(), 0);
}

#[test]
fn a_damaged_history_does_not_decode() {
    let blob = history(&session(1, 2, 40)).encode();
    for at in 0..blob.len() {
        let mut damaged = blob.clone();
        damaged[at] ^= 0x10;
        assert_eq!(History::decode(&damaged).unwrap_err(), DecodeError::Damaged);
    }
    for length in 0..blob.len() {
        assert!(History::decode(&blob[..length]).is_err());
    }
    let other = sealed(b"fkhist\0\x02".to_vec());
    assert_eq!(History::decode(&other).unwrap_err(), DecodeError::Version);
}

fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let digest = blake3::hash(&body);
    body.extend_from_slice(digest.as_bytes());
    body
}

#[test]
fn damage_that_is_sealed_again_does_not_panic() {
    let chunks = session(2, 3, 40);
    let blob = history(&chunks[..chunks.len() / 2]).encode();
    let mut dice = Dice::seeded(7);
    for _ in 0..4000 {
        let mut body = blob[..blob.len() - 32].to_vec();
        for _ in 0..=dice.below(3) {
            let at = 8 + dice.below(body.len() - 8);
            body[at] = dice.roll() as u8;
        }
        let Ok(mut odd) = History::decode(&sealed(body)) else { continue };
        for chunk in &chunks {
            drop(odd.replay(chunk));
        }
        drop((odd.encode(), odd.vector(), odd.vector_at(&odd.heads())));
        (0..200).for_each(|counter| drop(odd.path(&ActorId(actor(1)), counter)));
    }
}
