//! An organisation in temporary directories: a relay's replica and those of devices, without
//! sockets; what one wrote is handed to the other by hand.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]
#![allow(dead_code, reason = "each test uses a part")]

use fieldkeep_catalog::Catalog;
use fieldkeep_model::membership::{Act, MemberKeys, admission};
use fieldkeep_model::status::State;
use fieldkeep_model::{
    DeviceNumber, Edit, Grant, KeyPair, MembershipLog, RecordEdit, RecordId, RecordKey, Scalar,
    Seed, SegmentAddress, SegmentId, TypeName,
};
use fieldkeep_replica::{Batch, Me, Received, Replica, Role, Views, Wrote};
use fieldkeep_store::Store;
use tempfile::TempDir;

/// A replica in a directory of its own.
pub(crate) struct Peer {
    pub(crate) replica: Replica,
    pub(crate) number: DeviceNumber,
    path: TempDir,
}

/// An organisation: the relay first, then its devices.
pub(crate) struct Organisation {
    pub(crate) relay: Peer,
    pub(crate) devices: Vec<Peer>,
}

impl Organisation {
    /// Founds one with a catalog, and a device for each list of grants.
    pub(crate) fn found(catalog: &str, grants: &[Vec<Grant>]) -> Self {
        let admin = seed(0).signing();
        let mut members = MembershipLog::found("organisation", &admin, [7; 16]);
        let act = Act::Relay { keys: MemberKeys::of(&seed(1)), name: "relay".into() };
        members.append(members.sign(act, &admin)).unwrap();
        let numbers: Vec<_> = (2..)
            .zip(grants)
            .map(|(nth, grants)| join(&mut members, &admin, nth, grants))
            .collect();
        let mut relay = Peer::open(1, Role::Relay, seed(1).signing(), &members);
        relay.replica.publish(Catalog::parse(catalog).unwrap()).unwrap();
        relay.replica.commit().unwrap();
        let published = relay.replica.published().unwrap().clone();
        let devices = (2..).zip(numbers).map(|(nth, number)| {
            let mut device = Peer::open(number, Role::Device, seed(nth).signing(), &members);
            let source = published.catalog.source().to_owned();
            device.replica.adopt_catalog(published.notice.clone(), source).unwrap();
            device.replica.commit().unwrap();
            device
        });
        Self { relay, devices: devices.collect() }
    }

    /// Hands what a device wrote after a position of a segment to the relay.
    pub(crate) fn push(&mut self, device: usize, after: u64, id: &SegmentId) -> Received {
        let from = &self.devices[device];
        let batch = from.batch(id, after);
        let received = self.relay.replica.receive(from.number, &batch, 0).unwrap();
        self.relay.replica.commit().unwrap();
        received
    }
}

impl Peer {
    fn open(number: u64, role: Role, keys: KeyPair, members: &MembershipLog) -> Self {
        let path = tempfile::tempdir().unwrap();
        let store = Store::open(&path.path().join("store.db")).unwrap();
        let me = Me {
            role,
            number,
            keys,
            incarnation: 0,
            name: format!("member {number}"),
            former: vec![],
        };
        let replica = Replica::open(store, me, members.clone(), [number as u8; 32]).unwrap();
        Self { replica, number, path }
    }

    /// Opens the same store again: nothing is in memory.
    pub(crate) fn reopen(self) -> Self {
        let Self { replica, number, path } = self;
        let (me, members) = (replica.me().clone(), replica.members().clone());
        drop(replica);
        let store = Store::open(&path.path().join("store.db")).unwrap();
        let replica = Replica::open(store, me, members, [9; 32]).unwrap();
        Self { replica, number, path }
    }

    /// Writes and commits.
    pub(crate) fn put(&mut self, record: &RecordKey, edit: impl Into<RecordEdit>) -> Wrote {
        let wrote = self.replica.put(record, &edit.into(), 0).unwrap();
        self.replica.commit().unwrap();
        wrote
    }

    /// What it wrote of a segment after a position and has no receipt for.
    pub(crate) fn batch(&self, id: &SegmentId, after: u64) -> Batch {
        let segment = self.replica.segment(id).unwrap().address.clone();
        let batch = self.replica.outgoing_batch(id, after, usize::MAX).unwrap().unwrap();
        Batch { segment, chunks: batch.chunks, heads: batch.heads }
    }

    /// Merges and judges all that waits.
    pub(crate) fn settle(&mut self) {
        for id in self.replica.behind() {
            self.replica.materialise(&id, usize::MAX).unwrap();
            if self.replica.me().role == Role::Relay {
                self.replica.tidy(&id, 0).unwrap();
            }
        }
        self.replica.commit().unwrap();
    }

    /// What is known of a record, and the reasons that are given.
    pub(crate) fn state(&self, record: &RecordKey) -> (State, Vec<String>) {
        let views: Views<'_, Store> = self.replica.views();
        let view = views.record(record).unwrap().unwrap();
        (view.state, view.reasons)
    }
}

fn join(members: &mut MembershipLog, admin: &KeyPair, nth: u8, grants: &[Grant]) -> DeviceNumber {
    let one_time = KeyPair::from_secret([100 + nth; 32]);
    let (name, grants) = (format!("device {nth}"), grants.to_vec());
    let act = Act::Invite { key: one_time.public(), name, grants, expires_ms: i64::MAX };
    let invite = members.len();
    members.append(members.sign(act, admin)).unwrap();
    let act = Act::Join { invite, keys: MemberKeys::of(&seed(nth)) };
    let number = members.len();
    let join = members.sign(act, &one_time);
    let admission = admission(&join, 1, &seed(1).signing());
    members.merge(&[join, admission]).unwrap();
    number
}

fn seed(nth: u8) -> Seed {
    Seed([nth + 1; 32])
}

/// A record's key.
pub(crate) fn key(ty: &str, id: &str) -> RecordKey {
    RecordKey::new(TypeName::new(ty).unwrap(), RecordId::new(id).unwrap())
}

/// The address of a segment of an unscoped type with one bucket.
pub(crate) fn address(ty: &str) -> SegmentAddress {
    SegmentAddress {
        ty: TypeName::new(ty).unwrap(),
        scope: String::new(),
        buckets: 1,
        bucket: 0,
        generation: 0,
    }
}

/// A register's value.
pub(crate) fn put(field: &str, value: &str) -> Edit {
    Edit::Put(field.into(), Scalar::Str(value.into()))
}
