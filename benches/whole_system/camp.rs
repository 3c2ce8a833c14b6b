//! Where a measurement takes place: directories on a real disk, a relay, devices that joined it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fieldkeep_device::{Device, join};
pub(crate) use fieldkeep_lab::orders::catalog;
use fieldkeep_lab::orders::orders;
use fieldkeep_model::{Grant, KeyPair, RecordEdit, RecordId, RecordKey, Ticket, TypeName};
use fieldkeep_relay::{Directory, Relay, admin_key, invite};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How much is measured.
pub(crate) struct Sizes {
    /// Records of the type, smaller and larger.
    pub(crate) records: [usize; 2],
    /// Runs of which the median is taken.
    pub(crate) runs: usize,
    /// Operations in a run, for those that are over soon.
    pub(crate) operations: usize,
    /// Records where there are to be many.
    pub(crate) many: usize,
    /// Idle connections.
    pub(crate) connections: usize,
    /// Segments of a reconnect.
    pub(crate) segments: usize,
    /// Seconds of idleness.
    pub(crate) idle: u64,
}

impl Sizes {
    /// The full sizes, or small ones if the environment asks for them.
    pub(crate) fn of_environment() -> Self {
        if std::env::var("FIELDKEEP_BENCH").is_ok_and(|value| value == "quick") {
            return Self {
                records: [200, 1_000],
                runs: 3,
                operations: 30,
                many: 4_000,
                connections: 50,
                segments: 50,
                idle: 3,
            };
        }
        Self {
            records: [1_000, 10_000],
            runs: 5,
            operations: 200,
            many: 100_000,
            connections: 1_000,
            segments: 200,
            idle: 60,
        }
    }
}

/// Segments hold about a thousand records.
pub(crate) fn buckets(records: usize) -> u32 {
    (records as u32 / 1_000).max(1).next_power_of_two()
}

/// What orders refer to.
pub(crate) fn referents() -> Vec<(RecordKey, Map<String, Value>)> {
    let named = |ty: &str, id: &str| {
        let fields = json!({ "name": id });
        (RecordKey::new(type_named(ty), record_id(id)), fields.as_object().expect("it is").clone())
    };
    let customers = fieldkeep_lab::orders::CUSTOMERS.iter().map(|id| named("customer", id));
    let products = (0..77).map(|nth| named("product", &format!("product-{nth:05}")));
    customers.chain(products).collect()
}

pub(crate) fn type_named(name: &str) -> TypeName {
    TypeName::new(name).expect("a type's name")
}

pub(crate) fn record_id(id: &str) -> RecordId {
    RecordId::new(id).expect("a record id")
}

/// An order's key.
pub(crate) fn order_key(id: &str) -> RecordKey {
    RecordKey::new(type_named("order"), record_id(id))
}

/// So many orders with unlike ids; the outlet is set if one is given.
pub(crate) fn some_orders(
    seed: u64,
    count: usize,
    outlet: Option<&str>,
) -> Vec<(String, Map<String, Value>)> {
    let orders = orders(seed, count).into_iter();
    let numbered = orders.enumerate().map(|(nth, (id, order))| {
        let mut fields = order.as_object().expect("an order is an object").clone();
        if let Some(outlet) = outlet {
            fields.insert("outlet".into(), outlet.into());
        }
        (format!("{id}-{seed}-{nth}"), fields)
    });
    numbered.collect()
}

/// The directory under which everything is made.
pub(crate) fn base() -> PathBuf {
    std::env::var_os("FIELDKEEP_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// A directory that goes when it is no longer needed.
pub(crate) fn directory() -> TempDir {
    tempfile::Builder::new().prefix("fieldkeep-bench").tempdir_in(base()).expect("a directory")
}

/// The threads of the sockets.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads")
}

/// A relay that serves, and where.
pub(crate) struct Camp {
    pub(crate) root: TempDir,
    pub(crate) relay: Option<Relay>,
    pub(crate) runtime: Runtime,
}

/// As fast as it comes: else it is the limit that is measured.
const LIMITS: &str = "[limits.device]\nbytes_a_minute = \"none\"\n\
    [limits.organisation]\nbytes_a_minute = \"none\"\n";

impl Camp {
    /// Founds an organisation.
    pub(crate) fn found(catalog: &str) -> Self {
        let root = directory();
        let relay = root.path().join("relay");
        drop(Directory::init(&relay, "bench", Some(catalog)).expect("founded"));
        std::fs::write(relay.join("relay.toml"), LIMITS).expect("the disk takes it");
        Self::serve(root)
    }

    /// Serves the relay's directory under a root.
    pub(crate) fn serve(root: TempDir) -> Self {
        let runtime = runtime();
        let directory = Directory::open(&root.path().join("relay")).expect("the relay's directory");
        let listen = "127.0.0.1:0".parse().expect("an address");
        let relay = runtime.block_on(async { Relay::serve(directory, listen) });
        Self { root, relay: Some(relay.expect("the relay serves")), runtime }
    }

    pub(crate) fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("it serves until it is stopped")
    }

    /// A device that has joined.
    pub(crate) fn device(&self, name: &str, grants: Vec<Grant>) -> Device {
        let path = self.join(name, grants);
        Device::open(&path).expect("it was just made")
    }

    /// The directory of a device that has joined.
    pub(crate) fn join(&self, name: &str, grants: Vec<Grant>) -> PathBuf {
        let ticket = self.ticket(name, grants);
        let path = self.root.path().join(name);
        self.runtime.block_on(join(&ticket, &path)).expect("the ticket is good");
        path
    }

    fn ticket(&self, name: &str, grants: Vec<Grant>) -> Ticket {
        let admin = admin_key(&self.root.path().join("relay"));
        let admin = fieldkeep_link::KeyFile::open(admin).expect("the admin key").signing();
        let (relay, name) = (self.relay(), name.to_owned());
        let (address, handle) = (relay.address(), relay.handle());
        let invited = handle.call(move |engine| {
            let one_time = KeyPair::from_secret(*blake3::hash(name.as_bytes()).as_bytes());
            let members = engine.replica().members();
            let (entry, mut ticket) = invite(members, &admin, one_time, &name, grants, i64::MAX);
            engine.replica_mut().append_members(&[entry]).expect("it is signed");
            ticket.addresses = vec![address];
            ticket
        });
        self.runtime.block_on(invited).expect("the relay answers")
    }

    /// Stops the relay, and gives the directories.
    pub(crate) fn stop(mut self) -> TempDir {
        let relay = self.relay.take().expect("it serves until it is stopped");
        self.runtime.block_on(relay.stop());
        let Self { root, .. } = self;
        root
    }
}

/// The edit that sets fields.
pub(crate) fn edit(device: &Device, ty: &TypeName, fields: &Map<String, Value>) -> RecordEdit {
    let catalog = device.catalog().expect("it came when the device joined");
    catalog.ty(ty).expect("a type").edit_from_json(fields).expect("fields of the type")
}

/// Writes records in batches, without waiting for the disk after each. Those of one segment go
/// together, so that no more documents are loaded than need be.
pub(crate) fn fill(device: &Device, records: &[(RecordKey, Map<String, Value>)]) {
    let catalog = device.catalog().expect("it came when the device joined");
    let mut records: Vec<_> = records.iter().collect();
    records.sort_by_cached_key(|(key, fields)| {
        let object = catalog.ty(&key.ty).expect("a type");
        (key.ty.clone(), object.scope_of(fields), object.address(&key.id, "").bucket)
    });
    for batch in records.chunks(1_000) {
        let edits = batch.iter().map(|(key, fields)| (key.clone(), edit(device, &key.ty, fields)));
        device.put_all(&edits.collect::<Vec<_>>()).expect("they are saved");
    }
}

/// Orders as records to be written.
pub(crate) fn as_records(
    orders: &[(String, Map<String, Value>)],
) -> Vec<(RecordKey, Map<String, Value>)> {
    orders.iter().map(|(id, fields)| (order_key(id), fields.clone())).collect()
}

/// An edit of one field of an order, unlike any before.
pub(crate) fn state_edit(nth: usize) -> RecordEdit {
    use fieldkeep_model::{Edit, Scalar};
    vec![Edit::Put("state".into(), Scalar::Str(format!("state {nth}")))].into()
}

/// Starts this program again as another part of the measurement.
pub(crate) fn start_part(name: &str, arguments: &[&str]) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--part", name])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program starts")
}

/// Copies the files of a directory, and of those in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("it can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it can be read").is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_name() != "owner.sock" {
            std::fs::copy(entry.path(), target).expect("there is space");
        }
    }
}
