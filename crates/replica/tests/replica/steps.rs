//! What a step promises: whole or not at all, whether it is alone in its transaction or not, and
//! whatever stops it midway.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use crate::support::{Organisation, Peer, address, key, put};
use fieldkeep_model::Grant;
use fieldkeep_replica::Batch;
use fieldkeep_store::{Settings as _, Store, StoreError};

const CATALOG: &str = "catalog = 1\n[type.note.field]\ntext = {}\n[type.other.field]\ntext = {}\n";

/// What a store holds after a step that wrote two things was ended so, and the commit after it.
fn after_step(beside: bool, keep: bool) -> [bool; 3] {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(&directory.path().join("store.db")).unwrap();
    if beside {
        store.set("before", b"1").unwrap();
    }
    store.begin_step().unwrap();
    store.set("first", b"1").unwrap();
    store.set("second", b"1").unwrap();
    store.end_step(keep).unwrap();
    store.commit().unwrap();
    drop(store);
    let store = Store::open(&directory.path().join("store.db")).unwrap();
    ["before", "first", "second"].map(|name| store.setting(name).unwrap().is_some())
}

#[test]
fn a_step_is_kept_or_undone_alone_and_beside_others() {
    assert_eq!(after_step(false, true), [false, true, true]);
    assert_eq!(after_step(false, false), [false, false, false]);
    assert_eq!(after_step(true, true), [true, true, true]);
    assert_eq!(after_step(true, false), [true, false, false]);
}

#[test]
fn a_step_within_a_step_is_undone_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(&directory.path().join("store.db")).unwrap();
    store.begin_step().unwrap();
    store.set("outer", b"1").unwrap();
    store.begin_step().unwrap();
    store.set("inner", b"1").unwrap();
    store.end_step(false).unwrap();
    store.end_step(true).unwrap();
    store.commit().unwrap();
    assert!(store.setting("outer").unwrap().is_some());
    assert!(store.setting("inner").unwrap().is_none());
}

#[test]
fn a_full_disk_in_the_middle_of_a_step_leaves_nothing_of_it() {
    for beside in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(&directory.path().join("store.db")).unwrap();
        store.bound_growth(Some(8)).unwrap();
        if beside {
            store.set("before", b"1").unwrap();
        }
        store.begin_step().unwrap();
        store.set("first", b"1").unwrap();
        let filled = store.set("second", &vec![7; 1 << 20]);
        assert_eq!(filled.map_err(|error| matches!(error, StoreError::Full)), Err(true));
        let ended = store.end_step(false);
        let given_up = ended.is_err();
        assert!(ended.is_ok() || matches!(ended, Err(StoreError::Full)));
        store.commit().unwrap();
        let held = |name| store.setting(name).unwrap().is_some();
        assert!(!held("first") && !held("second"));
        // Either the step alone is undone, or the caller was told that all of it is.
        assert!(held("before") == beside || given_up);
        store.bound_growth(None).unwrap();
        store.begin_step().unwrap();
        store.set("second", &vec![7; 1 << 20]).unwrap();
        store.end_step(true).unwrap();
        store.commit().unwrap();
        assert!(store.setting("second").unwrap().is_some());
    }
}

#[test]
fn a_batch_that_fails_midway_leaves_nothing_alone_or_beside_another() {
    for beside in [false, true] {
        let mut org = Organisation::found(CATALOG, &[vec![Grant::ALL], vec![Grant::ALL]]);
        let id = org.devices[0].put(&key("note", "0"), vec![put("text", "a")]).segment;
        org.devices[1].put(&key("note", "1"), vec![put("text", "b")]);
        let bens = org.devices[1].batch(&id, 0);
        org.devices[0].replica.receive(1, &bens, 0).unwrap();
        org.devices[0].put(&key("note", "2"), vec![put("text", "c")]);
        // Ann's first change is in order, and her second one builds on one that the relay lacks.
        let anns = org.devices[0].batch(&id, 0);
        let relay = &mut org.relay.replica;
        let stranger = unrelated(&mut org.devices[1]);
        if beside {
            relay.receive(1, &stranger, 0).unwrap();
        }
        let refused = relay.receive(1, &anns, 0).unwrap_err();
        assert!(refused.to_string().starts_with("stage 2: missing-deps"), "{refused}");
        relay.commit().unwrap();
        assert_eq!(relay.segment(&id).map(|row| row.tip), None);
        // What is in memory fits what is on the disk: the same is taken once it is in order.
        relay.receive(1, &bens, 0).unwrap();
        relay.receive(1, &anns, 0).unwrap();
        relay.commit().unwrap();
        org.relay.settle();
        org.relay = org.relay.reopen();
        let row = org.relay.replica.segment(&id).unwrap();
        assert_eq!((row.tip, row.records), (3, 3));
        let other = address("other").id(&org.relay.replica.org());
        assert_eq!(org.relay.replica.segment(&other).is_some(), beside);
    }
}

/// A batch of another segment.
fn unrelated(device: &mut Peer) -> Batch {
    let wrote = device.put(&key("other", "1"), vec![put("text", "d")]);
    device.batch(&wrote.segment, 0)
}
