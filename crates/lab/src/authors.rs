//! Authors: members whose changes are made here and handed to a relay's replica directly, for
//! measurements of the replica alone.
//!
//! Every change is made by the document room, vouched for by a signed head, and passes the relay's
//! gate like any other. Whatever fails panics.

use std::collections::BTreeMap;
use std::path::Path;

use fieldkeep_documents::document::Author;
use fieldkeep_documents::{Document, batch};
use fieldkeep_link::KeyFile;
use fieldkeep_model::membership::{Act, MemberKeys, admission};
use fieldkeep_model::{
    ActorId, Grant, Head, KeyPair, Seed, SegmentAddress, SegmentId, SignedHead, Ticket,
};
use fieldkeep_protocol::frame::{Frame, Push, SegmentRef};
use fieldkeep_protocol::{FRAME_MAX, FrameBuffer};
use fieldkeep_relay::{Directory, admin_key, invite};
use fieldkeep_replica::{Batch, Replica};
use fieldkeep_store::Home;

use crate::camp::key;
use crate::merge::bytes;

/// How many bytes of changes a batch may hold.
const BATCH: usize = 8 << 20;

/// A relay's replica without its sockets.
#[derive(Debug)]
pub struct Office {
    /// The replica.
    pub replica: Replica,
    _home: Home,
}

/// Members who write, each in the document that all of them share.
#[derive(Debug)]
pub struct Authors {
    members: Vec<Member>,
    documents: BTreeMap<SegmentId, Document>,
}

#[derive(Debug)]
struct Member {
    keys: KeyPair,
    actor: ActorId,
}

/// A write by one of the authors.
pub type By = (usize, fieldkeep_model::RecordId, fieldkeep_model::RecordEdit);

impl Office {
    /// Opens a relay's directory, founding it with a catalog and so many members if it is not there.
    #[must_use]
    pub fn open(directory: &Path, catalog: &str, members: usize) -> Self {
        if directory.exists() {
            let (replica, home, _) =
                Directory::open(directory).expect("a relay").into_replica().expect("it opens");
            return Self { replica, _home: home };
        }
        let founded = Directory::init(directory, "lab", Some(catalog)).expect("it is founded");
        let (replica, home, _) = founded.into_replica().expect("it opens");
        let mut office = Self { replica, _home: home };
        office.enrol(directory, members);
        office
    }

    fn enrol(&mut self, directory: &Path, count: usize) {
        let admin = KeyFile::open(admin_key(directory)).expect("the admin's key").signing();
        let mut log = self.replica.members().clone();
        let base = log.len();
        for nth in 0..count {
            let one_time = KeyPair::from_secret(*secret(nth, "ticket").as_bytes());
            let (entry, ticket) = invite(
                &log,
                &admin,
                one_time,
                &format!("person {nth}"),
                vec![Grant::ALL],
                i64::MAX,
            );
            log.append(entry).expect("the admin signed it");
            let act = Act::Join { invite: ticket.invite, keys: MemberKeys::of(&seed(nth)) };
            let join = log.sign(act, &ticket.key);
            let me = self.replica.me();
            let admission = admission(&join, me.number, &me.keys);
            log.merge(&[join, admission]).expect("it was invited");
        }
        self.replica.append_members(log.since(base)).expect("they follow");
        self.replica.commit().expect("the disk takes it");
    }

    /// Invites so many devices with all rights. The tickets lack the relay's address.
    pub fn tickets(&mut self, directory: &Path, count: usize) -> Vec<Ticket> {
        let admin = KeyFile::open(admin_key(directory)).expect("the admin's key").signing();
        let invited = (0..count).map(|nth| {
            let one_time = KeyPair::from_secret(*secret(nth, "device").as_bytes());
            let members = self.replica.members();
            let name = format!("device {nth}");
            let grants = vec![Grant::ALL];
            let (entry, ticket) = invite(members, &admin, one_time, &name, grants, i64::MAX);
            self.replica.append_members(&[entry]).expect("the admin signed it");
            ticket
        });
        let tickets = invited.collect();
        self.replica.commit().expect("the disk takes it");
        tickets
    }

    /// Packs everything as it is packed after some idle time, and saves what speeds loading.
    pub fn pack(&mut self) {
        let ids: Vec<_> = self.replica.segments().keys().copied().collect();
        for id in ids {
            self.replica.compact(&id, true).expect("packs reproduce their changes");
            while self.replica.recompress(&id).expect("packs reproduce their changes") {}
            self.replica.commit().expect("the disk takes it");
        }
        self.replica.save_all().expect("the disk takes it");
    }

    /// Takes a delivery that [`Authors::delivery`] made: admitted and durable, then merged, judged,
    /// projected and durable. Returns how many changes it had.
    pub fn receive(&mut self, delivery: &[u8]) -> usize {
        let mut changes = 0;
        let members = self.replica.members().members();
        let (from, _) = *members.keys().last().expect("there are members");
        for frame in bytes::items(delivery) {
            let mut frames = FrameBuffer::default();
            frames.push(frame);
            let Ok(Some(Frame::Push(push))) = frames.next(FRAME_MAX) else {
                unreachable!("a delivery holds pushes")
            };
            let chunks = batch::decode(&push.batch, BATCH).expect("a batch");
            changes += chunks.len();
            let segment = push.segment.address.expect("it was written with it");
            let batch = Batch { segment, chunks, heads: push.heads };
            self.replica.receive(from, &batch, 1_800_000_000_000).expect("honest changes pass");
        }
        self.replica.commit().expect("the disk takes it");
        self.settle();
        changes
    }

    fn settle(&mut self) {
        for id in self.replica.behind() {
            self.replica.materialise(&id, usize::MAX).expect("what passed the gate merges");
        }
        self.replica.commit().expect("the disk takes it");
    }
}

impl Authors {
    /// The first members of an office, who know nothing yet.
    #[must_use]
    pub fn of(office: &Office, count: usize) -> Self {
        let numbers: Vec<_> =
            office.replica.members().members().keys().map(|(number, _)| *number).collect();
        let numbers = &numbers[numbers.len() - count..];
        let member = |(nth, number): (usize, &u64)| {
            let keys = seed(nth).signing();
            let actor = ActorId::new(*number, 0, &keys.public());
            Member { keys, actor }
        };
        let members = numbers.iter().enumerate().map(member).collect();
        Self { members, documents: BTreeMap::new() }
    }

    /// Makes writes, one change each, and packs them as they would be pushed: a frame for each
    /// segment. The changes of several authors name each other as they come.
    pub fn delivery(&mut self, office: &Office, writes: &[By]) -> Vec<u8> {
        let org = office.replica.org();
        let published = office.replica.published().expect("it was founded with a catalog");
        let mut batches: BTreeMap<SegmentId, (SegmentAddress, Vec<&By>)> = BTreeMap::new();
        for write in writes {
            let key = key(&write.1);
            let object = published.catalog.ty(&key.ty).expect("a type");
            let address = object.address(&key.id, "");
            let batch = batches.entry(address.id(&org));
            batch.or_insert_with(|| (address, Vec::new())).1.push(write);
        }
        let mut delivery = Vec::new();
        for (id, (address, writes)) in batches {
            let (mut chunks, mut heads) = (Vec::new(), BTreeMap::new());
            for (by, record, edit) in writes {
                let actor = self.members[*by].actor;
                let person = format!("person {by}");
                let author = Author { actor, person, time: 1_700_000_000_000 };
                let document = self.documents.entry(id).or_default();
                let written = document.write(&author, record, edit).expect("an honest edit");
                let written = written.expect("every edit changes something");
                heads.insert(*by, Head { actor, seq: written.seq, hash: written.hash });
                chunks.push(written.chunk);
            }
            let sign = |(by, head): (usize, Head)| {
                SignedHead::new(&org, &id, head, &self.members[by].keys)
            };
            let chunks: Vec<_> = chunks.iter().map(Vec::as_slice).collect();
            let push = Push {
                segment: SegmentRef { id, address: Some(address) },
                batch: batch::encode(&chunks, 3),
                heads: heads.into_iter().map(sign).collect(),
            };
            bytes::put(&mut delivery, &Frame::Push(push).encode());
        }
        delivery
    }
}

fn secret(nth: usize, what: &str) -> blake3::Hash {
    blake3::hash(format!("{what} {nth}").as_bytes())
}

/// The seed of a member's keys.
fn seed(nth: usize) -> Seed {
    Seed(*secret(nth, "member").as_bytes())
}
