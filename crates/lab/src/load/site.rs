//! The organisation of a load test: founded in a folder with all its devices, none of which has to join.
//!
//! Devices are in outlets of a few: who is in one reads and writes its visits, and nothing else. Whoever
//! misbehaves has an outlet of its own kind.

use std::path::Path;

use fieldkeep_link::KeyFile;
use fieldkeep_model::membership::{Act, MemberKeys, admission};
use fieldkeep_model::{
    DeviceNumber, Epoch, Grant, KeyPair, OrgId, PublicKey, Seed, SegmentAddress, TypeName,
};
use fieldkeep_relay::{Directory, admin_key, invite};
use serde::{Deserialize, Serialize};

/// The catalog: visits by outlet, with a rule.
const CATALOG: &str = r#"
catalog = 1
[type.visit]
scope = "outlet"
[type.visit.field]
outlet = {}
note = {}
facings = { schema = { type = "integer" } }
[[type.visit.rule]]
name = "facings"
cel = "!has(record.facings) || record.facings >= 0"
reason = "there are no facings below nothing"
"#;
/// The type of all records.
const TYPE: &str = "visit";

/// What a device knows of the relay and the organisation, whatever process it is in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) relay: [u8; 32],
    org: [u8; 16],
    epoch: (u64, [u8; 8]),
    pub(super) catalog: u64,
    pub(super) members: u64,
    pub(super) members_tip: [u8; 32],
    pub(super) members_sum: [u8; 16],
    /// The numbers of the devices, in order.
    numbers: Vec<DeviceNumber>,
    /// How many devices share an outlet.
    outlet: usize,
    /// How many of them are honest: those behind them share the last outlet.
    honest: usize,
}

impl Facts {
    pub(super) fn org(&self) -> OrgId {
        OrgId(self.org)
    }

    pub(super) fn relay(&self) -> PublicKey {
        PublicKey(self.relay)
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch { counter: self.epoch.0, salt: self.epoch.1 }
    }

    pub(super) fn number(&self, nth: usize) -> DeviceNumber {
        self.numbers[nth]
    }

    /// The outlet that a device is in.
    pub(super) fn outlet_of(&self, nth: usize) -> String {
        outlet(nth, self.honest, self.outlet)
    }

    /// How many honest devices hear of what a device writes.
    pub(super) fn hearers(&self, nth: usize) -> usize {
        let first = nth / self.outlet * self.outlet;
        (first + self.outlet).min(self.honest) - first - 1
    }

    /// The segment that a device writes in.
    pub(super) fn address(&self, nth: usize) -> SegmentAddress {
        SegmentAddress {
            ty: TypeName::new(TYPE).expect("a name"),
            scope: self.outlet_of(nth),
            buckets: 1,
            bucket: 0,
            generation: 0,
        }
    }
}

fn outlet(nth: usize, honest: usize, size: usize) -> String {
    if nth < honest { format!("outlet-{}", nth / size) } else { "backyard".to_owned() }
}

/// The seed of a device's keys.
pub(super) fn seed(nth: usize) -> Seed {
    Seed(*blake3::hash(format!("load device {nth}").as_bytes()).as_bytes())
}

/// Founds an organisation in a folder, with so many honest devices in outlets of that size, and others
/// behind them.
pub(super) fn found(directory: &Path, honest: usize, others: usize, size: usize) -> Facts {
    let founded = Directory::init(directory, "load", Some(CATALOG)).expect("it is founded");
    let (mut replica, _home, _) = founded.into_replica().expect("it opens");
    let admin = KeyFile::open(admin_key(directory)).expect("the admin's key").signing();
    let mut log = replica.members().clone();
    let base = log.len();
    for nth in 0..honest + others {
        let secret = blake3::hash(format!("load ticket {nth}").as_bytes());
        let one_time = KeyPair::from_secret(*secret.as_bytes());
        let scope = Some(outlet(nth, honest, size));
        let grants = vec![Grant { ty: Some(TypeName::new(TYPE).expect("a name")), scope }];
        let name = format!("device {nth}");
        let (entry, ticket) = invite(&log, &admin, one_time, &name, grants, i64::MAX);
        log.append(entry).expect("the admin signed it");
        let act = Act::Join { invite: ticket.invite, keys: MemberKeys::of(&seed(nth)) };
        let join = log.sign(act, &ticket.key);
        let me = replica.me();
        let admitted = admission(&join, me.number, &me.keys);
        log.merge(&[join, admitted]).expect("it was invited");
    }
    replica.append_members(log.since(base)).expect("they follow");
    replica.commit().expect("the disk takes it");
    let members = replica.members();
    let number = |nth| members.by_tls(&seed(nth).tls().public()).expect("it was admitted").number;
    let relay = members.members().values().find(|member| member.relay).expect("there is one");
    let epoch = replica.epoch();
    Facts {
        relay: relay.keys.tls.0,
        org: replica.org().0,
        epoch: (epoch.counter, epoch.salt),
        catalog: replica.published().expect("it was founded with one").number,
        members: members.len(),
        members_tip: members.tip(),
        members_sum: members.sum().to_be_bytes(),
        numbers: (0..honest + others).map(number).collect(),
        outlet: size,
        honest,
    }
}
