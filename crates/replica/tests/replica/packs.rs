//! What a peer that begins is sent of packs: what is stored, as it would be gathered entry by entry.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use crate::support::{Organisation, Peer, address, key, put};
use fieldkeep_documents::batch;
use fieldkeep_model::Grant;
use fieldkeep_replica::Stretch;

const CATALOG: &str = "catalog = 1\n[type.note.field]\ntext = {}\n";
const RAW: usize = 8 << 20;

/// The log of a segment, whose packs are handed on as they are stored, or gathered.
fn log(relay: &Peer, stored: bool) -> Vec<Stretch> {
    let id = address("note").id(&relay.replica.org());
    let mut log: Vec<Stretch> = Vec::new();
    loop {
        let first = log.last().map_or(1, |stretch| stretch.last + 1);
        let pack = if stored { relay.replica.pack_from(&id, first).unwrap() } else { None };
        let gather = || relay.replica.stretch(&id, first, 1 << 20, |_, _| false).unwrap();
        match pack.or_else(gather) {
            Some(stretch) => log.push(stretch),
            None => return log,
        }
    }
}

#[test]
fn a_pack_is_handed_on_as_it_is_stored_and_says_what_gathering_it_would() {
    let mut org = Organisation::found(CATALOG, &[vec![Grant::ALL], vec![Grant::ALL]]);
    let id = address("note").id(&org.relay.replica.org());
    let mut after = [0, 0];
    for round in 0..4 {
        for nth in [0, 1] {
            for record in 0..300 {
                let name = key("note", &format!("{round}-{nth}-{record}"));
                org.devices[nth].put(&name, vec![put("text", &"a line ".repeat(70))]);
            }
            org.push(nth, after[nth], &id);
            after[nth] += 300;
        }
    }
    org.relay.settle();
    org.relay.replica.compact(&id, true).unwrap();
    org.relay.replica.commit().unwrap();
    // With the index in memory, and without.
    check(&org.relay);
    check(&org.relay.reopen());
}

fn check(relay: &Peer) {
    let (stored, gathered) = (log(relay, true), log(relay, false));
    assert!(stored.len() > 1 && stored.iter().all(|stretch| stretch.pack.is_some()));
    for (stored, gathered) in stored.iter().zip(&gathered) {
        let chunks = batch::decode(stored.pack.as_ref().unwrap(), RAW).unwrap();
        assert_eq!(chunks, gathered.chunks);
        assert_eq!(&Stretch { chunks, ..stored.clone() }, gathered);
    }
    assert_eq!(stored.len(), gathered.len());
    // In the midst of a pack nothing begins.
    let id = address("note").id(&relay.replica.org());
    assert_eq!(relay.replica.pack_from(&id, 2).unwrap(), None);
}
