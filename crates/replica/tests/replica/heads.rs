//! What a segment with very many heads promises: it stays writable, and a relay merges it to one.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use crate::support::{Organisation, Peer, address, key, put};
use fieldkeep_documents::Document;
use fieldkeep_documents::document::Author;
use fieldkeep_model::status::{Forecast, State};
use fieldkeep_model::{ActorId, Edit, Grant, Head, Outcome, RecordId, Scalar, SignedHead};
use fieldkeep_replica::{Batch, Replica};

const CATALOG: &str = "catalog = 1\n[type.note.field]\ntext = {}\n";

/// Changes of as many incarnations of a device, none of which saw another: so many heads.
fn unaware(replica: &Replica, device: &Peer, count: u32) -> Batch {
    let me = device.replica.me();
    let segment = address("note");
    let (mut chunks, mut heads) = (Vec::new(), Vec::new());
    for incarnation in 1..=count {
        let actor = ActorId::new(me.number, incarnation, &me.keys.public());
        let author = Author { actor, person: me.name.clone(), time: 0 };
        let record = RecordId::new(format!("{incarnation}")).unwrap();
        let edits = vec![Edit::Put("text".into(), Scalar::Int(incarnation.into()))].into();
        let written = Document::new().write(&author, &record, &edits).unwrap().unwrap();
        let head = Head { actor, seq: written.seq, hash: written.hash };
        let id = segment.id(&replica.org());
        heads.push(SignedHead::new(&replica.org(), &id, head, &me.keys));
        chunks.push(written.chunk);
    }
    Batch { segment, chunks, heads }
}

#[test]
fn a_device_writes_to_a_segment_with_more_heads_than_a_change_may_name() {
    let mut org = Organisation::found(CATALOG, &[vec![Grant::ALL], vec![Grant::ALL]]);
    let batch = unaware(&org.relay.replica, &org.devices[1], 1_100);
    let ann = &mut org.devices[0];
    ann.replica.receive(1, &batch, 0).unwrap();
    ann.replica.commit().unwrap();
    let wrote = ann.put(&key("note", "own"), vec![put("text", "here")]);
    assert!(wrote.change.is_some());
    assert_eq!(wrote.row.state, State::Forecast(Forecast::LikelyValid));
    assert_eq!(wrote.row.unsaved, 1);
    let merges = wrote.change.unwrap().0 - 1;
    assert_eq!(merges, 3);

    // The relay takes the merges and the write, and so has one head.
    let id = wrote.segment;
    org.relay.replica.receive(1, &batch, 0).unwrap();
    let received = org.push(0, 1_100, &id);
    assert_eq!(received.newest.len(), 1);
    org.relay.settle();
    let (relay, ann) = (&org.relay.replica, &org.devices[0].replica);
    assert_eq!(relay.segment(&id).unwrap().tip, 1_104);
    assert_eq!(org.relay.state(&key("note", "own")).0, State::Judged(Outcome::Valid));
    assert_eq!(relay.segment(&id).unwrap().rows, ann.segment(&id).unwrap().rows);
}

#[test]
fn a_relay_merges_any_number_of_heads() {
    let mut org = Organisation::found(CATALOG, &[vec![Grant::ALL]]);
    let batch = unaware(&org.relay.replica, &org.devices[0], 1_100);
    org.relay.replica.receive(1, &batch, 0).unwrap();
    org.relay.settle();
    let id = address("note").id(&org.relay.replica.org());
    assert_eq!(org.relay.replica.segment(&id).unwrap().tip, 1_103);
    assert_eq!(org.relay.replica.segment(&id).unwrap().records, 1_100);
    // Nothing more to merge.
    org.relay.replica.tidy(&id, 0).unwrap();
    assert_eq!(org.relay.replica.segment(&id).unwrap().tip, 1_103);
}
