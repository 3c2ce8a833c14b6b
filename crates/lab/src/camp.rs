//! An organisation for measurements: a relay that serves on loopback and devices that joined it, all
//! in this process, with real files and real sockets. And what the documentation's examples run on:
//! that, or engines in memory with nothing between them.
//!
//! Whatever fails here panics: a measurement without its place is none.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fieldkeep_catalog::Catalog;
use fieldkeep_device::{Device, Engine, Input, Output, PeerInput, PeerOutput, join};
use fieldkeep_link::KeyFile;
use fieldkeep_model::membership::{self, Act, MemberKeys};
use fieldkeep_model::{
    DeviceNumber, Edit, Epoch, Grant, KeyPair, MembershipLog, PublicKey, RecordKey, Seed, Ticket,
    TypeName,
};
use fieldkeep_relay::{Directory, Relay, admin_key, invite};
use fieldkeep_replica::{Me, Replica, Role};
use fieldkeep_store::Store;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// The type of all records.
pub const TYPE: &str = "order";

/// A catalog for orders as [`crate::orders`] makes them, in segments of about 1,000; with a rule
/// that two fields break together, or with none.
#[must_use]
pub fn catalog(records: usize, rule: bool) -> String {
    catalog_in((records / 1_000).max(1).next_power_of_two(), rule)
}

/// The same in so many segments, a power of two.
#[must_use]
pub fn catalog_in(buckets: usize, rule: bool) -> String {
    let rule = if rule {
        "[[type.order.rule]]\nname = \"discount\"\n\
         cel = \"!(record.paid && record.discount > 30)\"\n\
         reason = \"what is paid has no discount above 30 percent\"\n"
    } else {
        ""
    };
    format!(
        "catalog = 1\n[type.order]\nbuckets = {buckets}\n[type.order.field]\n\
         customer = {{}}\noutlet = {{}}\nstate = {{}}\nfreight = {{}}\nnote = {{}}\n\
         ordered_at = {{ schema = {{ type = \"integer\" }} }}\n\
         discount = {{ schema = {{ type = \"integer\" }} }}\n\
         paid = {{ schema = {{ type = \"boolean\" }} }}\n\
         weight = {{ schema = {{ type = \"number\" }} }}\n\
         [type.order.field.lines]\nkind = \"set\"\n[type.order.field.lines.field]\n\
         product = {{}}\nunit_price = {{}}\n\
         quantity = {{ schema = {{ type = \"integer\" }} }}\n{rule}"
    )
}

/// An order's key.
#[must_use]
pub fn key(id: &fieldkeep_model::RecordId) -> RecordKey {
    RecordKey::new(TypeName::new(TYPE).expect("a name"), id.clone())
}

/// A relay that serves, and the folder in which it and its devices live.
#[derive(Debug)]
pub struct Camp {
    root: PathBuf,
    relay: Option<Relay>,
    runtime: Runtime,
}

impl Camp {
    /// Founds an organisation in a folder, and serves it.
    #[must_use]
    pub fn found(root: &Path, catalog: &str) -> Self {
        let relay = root.join("relay");
        drop(Directory::init(&relay, "lab", Some(catalog)).expect("it is founded"));
        Self::serve(root)
    }

    /// Serves the relay in a folder.
    #[must_use]
    pub fn serve(root: &Path) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().expect("threads");
        let directory = Directory::open(&root.join("relay")).expect("a relay's directory");
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let relay = runtime.block_on(async { Relay::serve(directory, listen) });
        Self { root: root.to_owned(), relay: Some(relay.expect("it serves")), runtime }
    }

    /// The threads of the sockets.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The relay.
    #[must_use]
    pub fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("it serves until it is stopped")
    }

    /// A path in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// An invitation with all rights.
    #[must_use]
    pub fn ticket(&self, name: &str) -> Ticket {
        let admin = KeyFile::open(admin_key(&self.path("relay"))).expect("the admin's key");
        let (admin, name, address) = (admin.signing(), name.to_owned(), self.relay().address());
        let handle = self.relay().handle();
        let invited = handle.call(move |engine| {
            let one_time = one_time(&name);
            let members = engine.replica().members();
            let grants = vec![Grant::ALL];
            let (entry, mut ticket) = invite(members, &admin, one_time, &name, grants, i64::MAX);
            engine.replica_mut().append_members(&[entry]).expect("the admin signed it");
            ticket.addresses = vec![address];
            ticket
        });
        self.runtime.block_on(invited).expect("the relay answers")
    }

    /// A device that joins with all rights, and dials an address instead of the relay's own, if one
    /// is given.
    #[must_use]
    pub fn device(&self, name: &str, through: Option<SocketAddr>) -> Device {
        let (ticket, path) = (self.ticket(name), self.path(name));
        self.runtime.block_on(join(&ticket, &path)).expect("the ticket is good");
        let device = Device::open(&path).expect("it has just joined");
        if let Some(through) = through {
            dial(&device, through);
        }
        device
    }

    /// Stops the relay.
    pub fn stop(mut self) {
        if let Some(relay) = self.relay.take() {
            self.runtime.block_on(relay.stop());
        }
    }
}

/// The key that an invitation is taken up with.
fn one_time(name: &str) -> KeyPair {
    KeyPair::from_secret(*blake3::hash(name.as_bytes()).as_bytes())
}

/// Has a device dial another address from now on.
pub fn dial(device: &Device, address: SocketAddr) {
    let set = device.with_replica(|replica| {
        let address = address.to_string();
        let set = replica.store_mut().set("relays", address.as_bytes());
        set.map_err(fieldkeep_replica::ReplicaError::from)
    });
    set.expect("the disk takes it");
}

/// The catalog of the examples: customers, and orders that refer to them, with a rule; visits are kept
/// by outlet.
pub const EXAMPLE: &str = r#"
catalog = 1
[type.customer.field]
name = {}
photos = { kind = "attachment" }
[type.order]
online_only = "before.status == 'confirmed'"
[type.order.field]
customer = { ref = "customer" }
discount = { schema = { type = "integer" } }
boxes = { kind = "counter" }
status = {}
[[type.order.rule]]
name = "discount"
cel = "!has(record.discount) || record.discount <= 30"
reason = "the discount is above 30 percent"
[type.visit]
scope = "outlet"
[type.visit.field]
outlet = {}
[action.confirm]
who = "everyone"
input.order = { required = true, ref = "order" }
record.order = "order/{input.order}"
[[action.confirm.effect]]
type = "order"
id = "input.order"
fields = { status = "'confirmed'" }
[query.orders]
who = "everyone"
sql = 'SELECT count(*) AS orders, sum(held) AS held FROM "order"'
"#;

/// What an example of the documentation may fail with.
pub type Failed = Box<dyn std::error::Error>;

/// How long an example may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs an example of the documentation on a device, beside a relay that serves: with a customer, and
/// with an order that is held.
///
/// # Panics
/// When the example fails.
pub fn example(act: impl AsyncFnOnce(Device) -> Result<(), Failed>) {
    staged(ann, act);
}

/// The same on that device and on `ben`, which joined before it and holds nothing.
///
/// # Panics
/// When the example fails.
pub fn meeting(act: impl AsyncFnOnce(Device, Device) -> Result<(), Failed>) {
    let stage = |camp: &Camp| {
        let ben = camp.device("ben", None);
        (ann(camp), ben)
    };
    staged(stage, async |(ann, ben)| act(ann, ben).await);
}

/// The same with an invitation, and the directory of the device that is to take it up.
///
/// # Panics
/// When the example fails.
pub fn invitation(act: impl AsyncFnOnce(Ticket, PathBuf) -> Result<(), Failed>) {
    let stage = |camp: &Camp| (camp.ticket("ann"), camp.path("ann"));
    staged(stage, async |(ticket, path)| act(ticket, path).await);
}

/// Runs an example beside a relay that serves.
fn staged<S>(stage: impl FnOnce(&Camp) -> S, act: impl AsyncFnOnce(S) -> Result<(), Failed>) {
    let root = tempfile::tempdir().expect("a folder");
    let camp = Camp::found(root.path(), EXAMPLE);
    let staged = stage(&camp);
    let ended = camp.runtime.block_on(async { timeout(PATIENCE, act(staged)).await });
    ended.expect("it ends in time").expect("the example runs");
    camp.stop();
}

/// A device that has written a customer and an order, and synced.
fn ann(camp: &Camp) -> Device {
    let device = camp.device("ann", None);
    for (key, fields) in [
        ("customer/c1", r#"{"name": "Harbour Kiosk"}"#),
        ("order/o1", r#"{"customer": "c1", "discount": 45, "boxes": 2}"#),
    ] {
        let key: RecordKey = key.parse().expect("a key");
        let catalog = device.catalog().expect("the relay sent one");
        let fields = serde_json::from_str(fields).expect("an object");
        let edit =
            catalog.ty(&key.ty).expect("a type").edit_from_json(&fields).expect("its fields");
        device.put(&key, &edit).expect("it is saved");
    }
    camp.runtime.block_on(device.sync(PATIENCE)).expect("the relay is there");
    device
}

/// Runs an example of the documentation on the engines of two devices, with no socket, no disk and no
/// clock: `ann` has written an order of five boxes that nobody else has, `ben` nothing.
///
/// # Panics
/// When the example fails.
pub fn engines(act: impl FnOnce(Engine, Engine, Wire) -> Result<(), Failed>) {
    let admin = KeyPair::from_secret([1; 32]);
    let [relay, ann, ben] = [[2; 32], ANN, [4; 32]].map(Seed);
    let mut members = MembershipLog::found("lab", &admin, [0; 16]);
    let serves = Act::Relay { keys: MemberKeys::of(&relay), name: "relay".into() };
    members.append(members.sign(serves, &admin)).expect("the admin signed it");
    for (name, seed) in [("ann", &ann), ("ben", &ben)] {
        let grants = vec![Grant::ALL];
        let (entry, ticket) = invite(&members, &admin, one_time(name), name, grants, i64::MAX);
        members.append(entry).expect("the admin signed it");
        let takes_up = Act::Join { invite: ticket.invite, keys: MemberKeys::of(seed) };
        let joined = members.sign(takes_up, &ticket.key);
        let admitted = membership::admission(&joined, RELAY, &relay.signing());
        members.append(joined).expect("the invitation is open");
        members.append(admitted).expect("the relay signed it");
    }
    let mut relay = in_memory(&members, &relay, Role::Relay, 0);
    relay.enter_epoch(Epoch { counter: 1, salt: [0; 8] }).expect("memory takes it");
    relay.publish(Catalog::parse(EXAMPLE).expect("a catalog")).expect("memory takes it");
    relay.commit().expect("memory takes it");
    let wire = Wire { relay: fieldkeep_relay::Engine::new(relay), members };
    let (mut ann, ben) = (wire.device(&ann, 0), wire.device(&ben, 0));
    let order = "order/o1".parse().expect("a key");
    let edit = vec![Edit::Add("boxes".into(), 5)].into();
    ann.replica_mut().put(&order, &edit, NOW).expect("the catalog has it");
    ann.commit().expect("memory takes it");
    act(ann, ben, wire).expect("the example runs");
}

/// The relay's number in the membership log.
const RELAY: DeviceNumber = 1;
/// What the keys of `ann` are derived from.
const ANN: [u8; 32] = [3; 32];
/// When everything of [`engines`] happens, milliseconds UTC.
const NOW: i64 = 1_767_225_600_000;

/// A member's replica in memory, without any record.
fn in_memory(members: &MembershipLog, seed: &Seed, role: Role, incarnation: u32) -> Replica {
    let member = members.by_tls(&seed.tls().public()).expect("it has joined");
    let mut store = Store::in_memory().expect("memory takes it");
    for (number, entry) in (0..).zip(members.since(0)) {
        store.append_member(number, entry).expect("memory takes it");
    }
    let (number, name) = (member.number, member.name.clone());
    let me = Me { role, number, keys: seed.signing(), incarnation, name, former: Vec::new() };
    Replica::open(store, me, members.clone(), [0; 32]).expect("an empty store")
}

/// What carries the bytes of [`engines`], with the relay's engine at its end.
#[derive(Debug)]
pub struct Wire {
    relay: fieldkeep_relay::Engine,
    members: MembershipLog,
}

impl Wire {
    /// The key that a device proves.
    #[must_use]
    pub fn key(&self, device: &Engine) -> PublicKey {
        let number = device.replica().me().number;
        self.members.member(number).expect("it has joined").keys.tls
    }

    /// What `ann` would download again into: a store of hers without any record.
    #[must_use]
    pub fn copy(&self) -> Engine {
        self.device(&Seed(ANN), 1)
    }

    fn device(&self, seed: &Seed, incarnation: u32) -> Engine {
        let mut replica = in_memory(&self.members, seed, Role::Device, incarnation);
        let published = self.relay.replica().published().expect("it has a catalog");
        let source = published.catalog.source().to_owned();
        replica.adopt_catalog(published.notice.clone(), source).expect("the relay signed it");
        replica.commit().expect("memory takes it");
        Engine::new(replica)
    }

    /// Connects a device to the relay, and carries what they say until both are silent. The connection
    /// stays open.
    ///
    /// # Errors
    /// When an engine fails.
    pub fn relay(&mut self, device: &mut Engine) -> Result<(), Failed> {
        use fieldkeep_relay::{Input as ToRelay, Output as OfRelay};
        let (id, key) = (device.replica().me().number, self.key(device));
        self.relay.handle(NOW, ToRelay::Connected(id, key))?;
        device.handle(NOW, Input::Connected)?;
        loop {
            let mut silent = true;
            for output in device.commit()? {
                if let Output::Send { stream, bytes, .. } = output {
                    silent = false;
                    self.relay.handle(NOW, ToRelay::Bytes(id, stream, bytes))?;
                }
            }
            for output in self.relay.commit()? {
                match output {
                    OfRelay::Send { stream, bytes, .. } => {
                        silent = false;
                        device.handle(NOW, Input::Bytes(stream, bytes))?;
                    }
                    OfRelay::Finish(_, stream) => device.handle(NOW, Input::Finished(stream))?,
                    OfRelay::Close(_, code, text) => device.ended(Some(code), &text),
                    // No example of theirs calls a host or asks a question.
                    OfRelay::Fetch(_) | OfRelay::Ask { .. } => {}
                }
            }
            if !device.work(NOW)? && !self.relay.work(NOW)? && silent {
                return Ok(());
            }
        }
    }

    /// Connects two devices, each as the other's peer 1, and carries what they say until both are
    /// silent. The connection stays open.
    ///
    /// # Errors
    /// When an engine fails.
    pub fn meet(&self, one: &mut Engine, other: &mut Engine) -> Result<(), Failed> {
        let (calls, answers) = (self.key(one), self.key(other));
        let connected = |key, introduces| PeerInput::Connected { key, introduces };
        one.handle(NOW, Input::Peer(1, connected(answers, true)))?;
        other.handle(NOW, Input::Peer(1, connected(calls, false)))?;
        while carry(one, other)? || carry(other, one)? {}
        Ok(())
    }
}

/// Carries what one device says to the other. Returns whether it said or did anything.
fn carry(from: &mut Engine, to: &mut Engine) -> Result<bool, Failed> {
    let mut acted = from.work(NOW)?;
    for output in from.commit()? {
        if let Output::Peer(_, PeerOutput::Send(bytes)) = output {
            acted = true;
            to.handle(NOW, Input::Peer(1, PeerInput::Bytes(0, bytes)))?;
        }
    }
    Ok(acted)
}
