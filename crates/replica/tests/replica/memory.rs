//! What stays in memory: documents in bounded number and of bounded size, whatever their segments
//! hold.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::ops::Range;

use crate::support::{Organisation, Peer, address, key, put};
use fieldkeep_model::{Grant, SegmentAddress};
use fieldkeep_replica::Batch;
use fieldkeep_store::Log as _;

const CATALOG: &str = r#"
catalog = 1
[type.note]
scope = "place"
[type.note.field]
place = {}
text = {}
"#;

/// How many documents are in memory after as many segments were written to, with those limits.
fn loaded(segments: usize, documents: usize, bytes: usize) -> usize {
    let mut org = Organisation::found(CATALOG, &[vec![Grant::ALL]]);
    let ann = &mut org.devices[0];
    ann.replica.limit_documents(documents);
    ann.replica.limit_memory(bytes);
    for round in ["a", "b"] {
        for nth in 0..segments {
            let edits = vec![put("place", &nth.to_string()), put("text", &round.repeat(1_000))];
            ann.put(&key("note", &nth.to_string()), edits);
        }
    }
    ann.replica.loaded_documents()
}

#[test]
fn documents_are_bounded_in_number_and_in_bytes() {
    assert_eq!(loaded(6, 64, usize::MAX), 6);
    assert_eq!(loaded(6, 4, usize::MAX), 4);
    // Each takes some seventeen thousand bytes by estimate: more is dropped before one more is loaded.
    assert!((2..6).contains(&loaded(6, 64, 2 * 60_000)));
    assert_eq!(loaded(6, 64, 1), 1, "the one in use stays, whatever it takes");
}

#[test]
fn what_has_grown_makes_room_though_nothing_more_is_loaded() {
    let mut org = Organisation::found(CATALOG, &[vec![Grant::ALL]]);
    let ann = &mut org.devices[0];
    ann.replica.limit_memory(2 * 400_000);
    let mut write = |text: &str| {
        for nth in 0..6 {
            let edits = vec![put("place", &nth.to_string()), put("text", text)];
            ann.put(&key("note", &nth.to_string()), edits);
        }
        ann.replica.loaded_documents()
    };
    assert_eq!(write("short"), 6);
    let held = (0..20).map(|nth| write(&nth.to_string().repeat(2_000))).last();
    assert!(held < Some(6), "{held:?}");
}

#[test]
fn what_is_loaded_stays_when_a_batch_is_refused_unless_a_part_of_it_was_taken_before() {
    let catalog = "catalog = 1\n[type.note.field]\ntext = {}\n";
    let mut org = Organisation::found(catalog, &[vec![Grant::ALL], vec![Grant::ALL]]);
    let id = address("note").id(&org.relay.replica.org());
    org.devices[0].put(&key("note", "a"), vec![put("text", "a")]);
    org.push(0, 0, &id);
    org.relay.settle();
    for (device, record) in [(0, "b"), (1, "x"), (1, "y")] {
        org.devices[device].put(&key("note", record), vec![put("text", record)]);
    }
    let (next, orphan) = (org.devices[0].batch(&id, 1), org.devices[1].batch(&id, 1));
    let both = Batch {
        segment: next.segment.clone(),
        chunks: [next.chunks.clone(), orphan.chunks.clone()].concat(),
        heads: [next.heads.clone(), orphan.heads.clone()].concat(),
    };

    let relay = &mut org.relay.replica;
    assert_eq!(relay.loaded_documents(), 1);
    relay.receive(3, &orphan, 0).unwrap_err();
    assert_eq!(relay.loaded_documents(), 1, "nothing of it was taken");
    relay.receive(3, &both, 0).unwrap_err();
    assert_eq!((relay.loaded_documents(), relay.segment(&id).unwrap().tip), (0, 1));
    relay.receive(2, &next, 0).unwrap();
    relay.commit().unwrap();
    assert_eq!(relay.segment(&id).unwrap().tip, 2);
    org.relay.settle();
    assert_eq!(org.relay.state(&key("note", "b")).0, org.relay.state(&key("note", "a")).0);
}

#[test]
fn what_goes_is_saved_first_so_that_it_comes_back_without_its_changes() {
    let mut org = Organisation::found(CATALOG, &[vec![Grant::ALL]]);
    let note = key("note", "a");
    let (device, id) =
        (&mut org.devices[0], SegmentAddress { scope: "p".into(), ..address("note") });
    let write = |device: &mut Peer, texts: Range<usize>| {
        for nth in texts {
            device.put(&note, vec![put("place", "p"), put("text", &format!("{}", nth % 2))]);
        }
    };
    write(device, 0..1_000);
    device.replica.save_all().unwrap();
    let mut device = org.devices.pop().unwrap().reopen();
    let id = id.id(&device.replica.org());
    // A loaded document of short changes takes less than their index, which is what has to go here.
    write(&mut device, 1_000..1_150);
    device.replica.limit_memory(2 * 290_000);
    device.put(&key("note", "b"), vec![put("place", "elsewhere")]);
    let row = device.replica.segment(&id).unwrap();
    let saved = device.replica.store().snapshots(row.sid).unwrap();
    assert_eq!((saved[0].pos, device.replica.loaded_documents()), (row.tip, 1));
}
