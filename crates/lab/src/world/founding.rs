//! How the world begins: an organisation with its keys from the seed, a relay, and devices that have
//! joined.

use fieldkeep_catalog::Catalog;
use fieldkeep_model::membership::{self, Act, MemberKeys};
use fieldkeep_model::{Epoch, Grant, KeyPair, MembershipLog, Seed, Signed, TypeName};
use fieldkeep_replica::{Me, Replica, ReplicaError, Role};
use fieldkeep_store::{Settings as _, Store, StoreError};

use super::operator::Reach;
use super::plan::territories;
use super::workload::SCOPED;

/// The relay's number in the membership log: the founding comes first, then the relay.
const RELAY: u64 = 1;

/// Bytes that follow from a seed and a name.
pub(crate) fn drawn(seed: u64, name: &str, number: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("fieldkeep lab world");
    hasher.update(&seed.to_be_bytes()).update(&number.to_be_bytes()).update(name.as_bytes());
    *hasher.finalize().as_bytes()
}

/// An organisation that was just founded.
pub(crate) struct Founded {
    pub(crate) relay: Replica,
    /// A store for each device, as joining leaves it.
    pub(crate) devices: Vec<Joined>,
}

/// A device that has just joined.
pub(crate) struct Joined {
    pub(crate) seed: Seed,
    pub(crate) territory: String,
    pub(crate) store: Store,
}

/// The territory of a device; the office, which is the first, has none of its own.
pub(crate) fn territory(device: usize, devices: usize) -> String {
    format!("t{}", device.saturating_sub(1) % territories(devices))
}

/// The key that signs what the operator decides.
pub(crate) fn admin(seed: u64) -> KeyPair {
    KeyPair::from_secret(drawn(seed, "admin", 0))
}

/// What a device is granted when it joins.
pub(crate) fn grants(device: usize, devices: usize) -> Vec<Grant> {
    let mut grants = vec![Grant::ALL];
    if device > 0 {
        let scope = territory(device, devices);
        grants.extend(SCOPED.map(|ty| Grant {
            ty: Some(TypeName::new(ty).expect("a type of the catalog")),
            scope: Some(scope.clone()),
        }));
    }
    grants
}

/// What a device is granted later, which works in that territory.
pub(crate) fn reaching(reach: Reach, territory: &str) -> Vec<Grant> {
    // A scope that nothing lies in.
    const NOWHERE: &str = "nowhere";
    let mut grants = vec![Grant::ALL];
    if reach == Reach::Everywhere {
        return grants;
    }
    grants.extend(SCOPED.map(|ty| {
        let kept = reach == Reach::Fewer && ["payment", "stock"].contains(&ty);
        let scope = if kept { NOWHERE } else { territory };
        Grant {
            ty: Some(TypeName::new(ty).expect("a type of the catalog")),
            scope: Some(scope.to_owned()),
        }
    }));
    grants
}

/// Founds an organisation with a catalog, and has devices join.
pub(crate) fn found(seed: u64, names: &[String], catalog: &str) -> Result<Founded, ReplicaError> {
    let admin = admin(seed);
    let relay = Seed(drawn(seed, "relay", 0));
    let mut members = MembershipLog::found("acme", &admin, first(drawn(seed, "salt", 0)));
    let act = Act::Relay { keys: MemberKeys::of(&relay), name: "relay".into() };
    members.append(members.sign(act, &admin))?;
    let mut numbers = Vec::new();
    for (device, name) in names.iter().enumerate() {
        let one_time = KeyPair::from_secret(drawn(seed, "invitation", device as u64));
        let grants = grants(device, names.len());
        let expires_ms = i64::MAX;
        let invite = members.next_number();
        let act = Act::Invite { key: one_time.public(), name: name.clone(), grants, expires_ms };
        members.append(members.sign(act, &admin))?;
        let keys = MemberKeys::of(&Seed(drawn(seed, "device", device as u64)));
        let join = members.sign(Act::Join { invite, keys }, &one_time);
        let admitted = membership::admission(&join, RELAY, &relay.signing());
        members.append(join)?;
        members.append(admitted)?;
        numbers.push(members.by_tls(&keys.tls).expect("it has just joined").number);
    }
    let store = base(&members, "relay", RELAY)?;
    let relay = me(&store, &relay, &members, Role::Relay)?;
    let mut replica =
        Replica::open(store, relay, members.clone(), drawn(seed, "relay entropy", 0))?;
    replica.enter_epoch(Epoch { counter: 1, salt: first(drawn(seed, "epoch", 0)) })?;
    replica.publish(Catalog::parse(catalog).map_err(ReplicaError::Catalog)?)?;
    replica.commit()?;
    let published = replica.published().expect("just published");
    let template = base(&members, "device", 0)?;
    let mut devices = Vec::new();
    for (device, number) in numbers.into_iter().enumerate() {
        let mut store = template.copy()?;
        store.set("number", &u64::to_be_bytes(number))?;
        let keys = Seed(drawn(seed, "device", device as u64));
        let source = published.catalog.source().to_owned();
        let store = begin(store, &keys, members.clone(), published.notice.clone(), source)?;
        devices.push(Joined { seed: keys, territory: territory(device, names.len()), store });
    }
    Ok(Founded { relay: replica, devices })
}

/// The store of a device that has just joined, from what the relay told it.
pub(crate) fn settle(
    keys: &Seed,
    members: MembershipLog,
    notice: Signed,
    source: String,
) -> Result<Store, ReplicaError> {
    let number = members.by_tls(&keys.tls().public()).map(|member| member.number);
    let store = base(&members, "device", number.unwrap_or_default())?;
    begin(store, keys, members, notice, source)
}

fn begin(
    store: Store,
    keys: &Seed,
    members: MembershipLog,
    notice: Signed,
    source: String,
) -> Result<Store, ReplicaError> {
    let me = me(&store, keys, &members, Role::Device)?;
    let mut replica = Replica::open(store, me, members, [0; 32])?;
    replica.adopt_catalog(notice, source)?;
    replica.commit()?;
    Ok(replica.into_store())
}

fn base(members: &MembershipLog, role: &str, number: u64) -> Result<Store, StoreError> {
    let mut store = Store::in_memory()?;
    for (number, entry) in (0..).zip(members.since(0)) {
        store.append_member(number, entry)?;
    }
    store.set("role", role.as_bytes())?;
    store.set("number", &number.to_be_bytes())?;
    store.commit()?;
    Ok(store)
}

/// Who a store belongs to, as the product's shells read it.
pub(crate) fn me(
    store: &Store,
    seed: &Seed,
    members: &MembershipLog,
    role: Role,
) -> Result<Me, StoreError> {
    let damaged = || StoreError::Damaged("the member number".into());
    let number = store.setting("number")?.and_then(|bytes| bytes.try_into().ok());
    let number = u64::from_be_bytes(number.ok_or_else(damaged)?);
    let incarnation = store.setting("incarnation")?.and_then(|bytes| bytes.try_into().ok());
    let incarnation = u32::from_be_bytes(incarnation.unwrap_or_default());
    let name = members.member(number).ok_or_else(damaged)?.name.clone();
    Ok(Me { role, number, keys: seed.signing(), incarnation, name, former: Vec::new() })
}

/// The first bytes of many.
fn first<const N: usize>(bytes: [u8; 32]) -> [u8; N] {
    std::array::from_fn(|at| bytes[at])
}
