//! Authors: members whose changes are made here and handed to a relay's replica directly.
//!
//! For rows in which only the relay is measured. Every change is made by the document room, vouched
//! for by a signed head, and passes the relay's gate like any other.

use std::collections::BTreeMap;
use std::path::Path;

use fieldkeep_documents::Document;
use fieldkeep_documents::document::Author;
use fieldkeep_link::KeyFile;
use fieldkeep_model::membership::{Act, MemberKeys};
use fieldkeep_model::{
    ActorId, Grant, Head, KeyPair, MembershipLog, RecordEdit, RecordId, RecordKey, Seed,
    SegmentAddress, SegmentId, SignedHead, membership,
};
use fieldkeep_relay::{Directory, admin_key};
use fieldkeep_replica::{Batch, Replica};
use serde_json::{Map, Value};

use crate::camp::{buckets, catalog, order_key, referents, some_orders, state_edit};

/// A relay's replica without its sockets, and members who write to it.
pub(crate) struct Writers {
    pub(crate) replica: Replica,
    _home: fieldkeep_store::Home,
    members: Vec<(u64, KeyPair, ActorId)>,
    documents: BTreeMap<SegmentId, (SegmentAddress, Document)>,
    time: i64,
}

/// The seed of a member that a measurement makes.
pub(crate) fn seed(nth: usize) -> Seed {
    Seed(*blake3::hash(&nth.to_be_bytes()).as_bytes())
}

/// Appends members: an invitation each, taken up at once.
pub(crate) fn enrol(replica: &mut Replica, directory: &Path, count: usize) -> Vec<u64> {
    let admin = KeyFile::open(admin_key(directory)).expect("the admin key").signing();
    let mut log: MembershipLog = replica.members().clone();
    let base = log.len();
    let numbers = (0..count).map(|nth| {
        let one_time =
            KeyPair::from_secret(*blake3::hash(&[nth.to_be_bytes(), [9; 8]].concat()).as_bytes());
        let invite = log.len();
        let act = Act::Invite {
            key: one_time.public(),
            name: format!("person {nth}"),
            grants: vec![Grant::ALL],
            expires_ms: i64::MAX,
        };
        log.append(log.sign(act, &admin)).expect("the admin signed it");
        let act = Act::Join { invite, keys: MemberKeys::of(&seed(nth)) };
        let number = log.len();
        let join = log.sign(act, &one_time);
        let me = replica.me();
        let admission = membership::admission(&join, me.number, &me.keys);
        log.merge(&[join, admission]).expect("it was invited");
        number
    });
    let numbers = numbers.collect();
    replica.append_members(log.since(base)).expect("they follow");
    replica.commit().expect("the disk takes it");
    numbers
}

impl Writers {
    /// Founds an organisation with so many writers.
    pub(crate) fn found(directory: &Path, catalog: &str, count: usize) -> Self {
        let relay = Directory::init(directory, "bench", Some(catalog)).expect("founded");
        let (mut replica, home, _) = relay.into_replica().expect("it opens");
        let numbers = enrol(&mut replica, directory, count).into_iter().enumerate();
        let members = numbers.map(|(nth, number)| {
            let keys = seed(nth).signing();
            let actor = ActorId::new(number, 0, &keys.public());
            (number, keys, actor)
        });
        let members = members.collect();
        let mut writers = Self {
            replica,
            _home: home,
            members,
            documents: BTreeMap::new(),
            time: 1_700_000_000_000,
        };
        let records =
            referents().into_iter().map(|(key, fields)| writers.creation(0, key, &fields));
        let records: Vec<_> = records.collect();
        writers.hand_over(records);
        writers.materialise(usize::MAX);
        writers
    }

    /// A record to be created by a writer.
    pub(crate) fn creation(&self, by: usize, key: RecordKey, fields: &Map<String, Value>) -> Write {
        let catalog = &self.replica.published().expect("there is one").catalog;
        let object = catalog.ty(&key.ty).expect("a type");
        let edit = object.edit_from_json(fields).expect("fields of the type");
        let address = object.address(&key.id, &object.scope_of(fields));
        Write { by: by % self.members.len(), address, id: key.id, edit }
    }

    /// An edit of an order whose outlet is known.
    pub(crate) fn edit(&self, by: usize, id: &str, outlet: &str, nth: usize) -> Write {
        let catalog = &self.replica.published().expect("there is one").catalog;
        let key = order_key(id);
        let object = catalog.ty(&key.ty).expect("a type");
        let scope = if object.scope.is_some() { outlet } else { "" };
        let address = object.address(&key.id, scope);
        Write { by: by % self.members.len(), address, id: key.id, edit: state_edit(nth) }
    }

    /// Makes the changes and hands them to the relay in batches, each as durable as a push.
    /// Returns the bytes of the changes.
    pub(crate) fn hand_over(&mut self, writes: Vec<Write>) -> u64 {
        let mut batches: BTreeMap<SegmentId, Vec<Write>> = BTreeMap::new();
        let org = self.replica.org();
        for write in writes {
            batches.entry(write.address.id(&org)).or_default().push(write);
        }
        let mut bytes = 0;
        for (id, writes) in batches {
            for writes in writes.chunks(500) {
                let batch = self.batch(id, writes);
                bytes += batch.chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
                let received = self.replica.receive(self.members[0].0, &batch, self.time);
                received.expect("honest changes pass");
            }
            self.replica.commit().expect("the disk takes it");
        }
        bytes
    }

    fn batch(&mut self, id: SegmentId, writes: &[Write]) -> Batch {
        let org = self.replica.org();
        let address = &writes[0].address;
        let entry = self.documents.entry(id);
        let (_, document) = entry.or_insert_with(|| (address.clone(), Document::new()));
        let mut heads: BTreeMap<usize, Head> = BTreeMap::new();
        let chunks = writes.iter().map(|write| {
            self.time += 977;
            let (_, _, actor) = &self.members[write.by];
            let person = format!("person {}", write.by);
            let author = Author { actor: *actor, person, time: self.time };
            let written = document.write(&author, &write.id, &write.edit).expect("it is written");
            let written = written.expect("every write changes something");
            let head = Head { actor: *actor, seq: written.seq, hash: written.hash };
            heads.insert(write.by, head);
            written.chunk
        });
        let chunks = chunks.collect();
        let heads = heads.into_iter();
        let heads = heads.map(|(by, head)| SignedHead::new(&org, &id, head, &self.members[by].1));
        Batch { segment: address.clone(), chunks, heads: heads.collect() }
    }

    /// Merges and judges everything that waits, a slice and a commit at a time.
    pub(crate) fn materialise(&mut self, slice: usize) {
        while let Some(id) = self.replica.behind().first().copied() {
            while self.replica.segments()[&id].done < self.replica.segments()[&id].tip {
                self.replica.materialise(&id, slice).expect("what passed the gate merges");
                self.replica.commit().expect("the disk takes it");
            }
        }
    }

    /// Packs everything: as packs are while there is work, or as they are after some idle time.
    pub(crate) fn pack(&mut self, idle: bool) {
        let ids: Vec<_> = self.replica.segments().keys().copied().collect();
        for id in ids {
            self.replica.compact(&id, true).expect("packs reproduce their changes");
            while idle && self.replica.recompress(&id).expect("packs reproduce their changes") {}
            self.replica.commit().expect("the disk takes it");
        }
    }
}

/// A write that is to be made.
pub(crate) struct Write {
    by: usize,
    address: SegmentAddress,
    id: RecordId,
    edit: RecordEdit,
}

/// An organisation in which so many orders were created, and each edited once, by ten people, all
/// judged. Returns the bytes of its changes.
pub(crate) fn settled_orders(directory: &Path, count: usize, scopes: usize) -> (Writers, u64) {
    let text = if scopes > 0 { catalog(1, true) } else { catalog(buckets(count), false) };
    let mut writers = Writers::found(directory, &text, 10);
    let mut orders = some_orders(1, count, None);
    for (nth, (_, fields)) in orders.iter_mut().enumerate().filter(|_| scopes > 0) {
        fields.insert("outlet".into(), format!("outlet {}", nth % scopes).into());
    }
    let mut bytes = 0;
    let creations = orders.iter().enumerate();
    let creations =
        creations.map(|(nth, (id, fields))| writers.creation(nth, order_key(id), fields));
    let creations = creations.collect();
    bytes += writers.hand_over(creations);
    let edits = orders.iter().enumerate().map(|(nth, (id, fields))| {
        let outlet = fields["outlet"].as_str().unwrap_or_default();
        writers.edit(nth + 3, id, outlet, nth)
    });
    let edits = edits.collect();
    bytes += writers.hand_over(edits);
    writers.materialise(usize::MAX);
    (writers, bytes)
}
