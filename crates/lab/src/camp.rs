//! An organisation for measurements: a relay that serves on loopback and devices that joined it, all
//! in this process, with real files and real sockets.
//!
//! Whatever fails here panics: a measurement without its place is none.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use fieldkeep_device::{Device, join};
use fieldkeep_link::KeyFile;
use fieldkeep_model::{Grant, KeyPair, RecordKey, TypeName};
use fieldkeep_relay::{Directory, Relay, admin_key, invite};
use tokio::runtime::Runtime;

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

    /// A device that joins with all rights, and dials an address instead of the relay's own, if one
    /// is given.
    #[must_use]
    pub fn device(&self, name: &str, through: Option<SocketAddr>) -> Device {
        let admin = KeyFile::open(admin_key(&self.path("relay"))).expect("the admin's key");
        let (admin, name_of, address) = (admin.signing(), name.to_owned(), self.relay().address());
        let handle = self.relay().handle();
        let invited = handle.call(move |engine| {
            let secret = blake3::hash(name_of.as_bytes());
            let one_time = KeyPair::from_secret(*secret.as_bytes());
            let members = engine.replica().members();
            let grants = vec![Grant::ALL];
            let (entry, mut ticket) = invite(members, &admin, one_time, &name_of, grants, i64::MAX);
            engine.replica_mut().append_members(&[entry]).expect("the admin signed it");
            ticket.addresses = vec![address];
            ticket
        });
        let ticket = self.runtime.block_on(invited).expect("the relay answers");
        let path = self.path(name);
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

/// Has a device dial another address from now on.
pub fn dial(device: &Device, address: SocketAddr) {
    let set = device.with_replica(|replica| {
        let address = address.to_string();
        let set = replica.store_mut().set("relays", address.as_bytes());
        set.map_err(fieldkeep_replica::ReplicaError::from)
    });
    set.expect("the disk takes it");
}
