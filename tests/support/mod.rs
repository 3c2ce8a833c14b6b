//! An organisation in a temporary directory, over real sockets and real files: a relay, devices,
//! and members whose every byte the test writes itself.
//!
//! Every wait is for something that happens, under a guard that ends a test which would hang.
//! Each test file uses a part of this.
#![allow(dead_code)]

pub(crate) mod attached;
pub(crate) mod carrying;
pub(crate) mod lab;
pub(crate) mod town;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fieldkeep_device::{Device, SyncReport, join};
use fieldkeep_model::membership::Act;
use fieldkeep_model::{
    ActorId, Chain, Grant, KeyPair, MembershipLog, Pos, RecordKey, Ticket, TypeName,
};
use fieldkeep_relay::{Directory, Engine, Judges, Relay, ServeError, admin_key, invite};
use fieldkeep_replica::{RecordView, Replica, ReplicaError};
use fieldkeep_store::Page;
use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Longer than anything here takes; what waits longer hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a test waits for.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: waited in vain"),
    }
}

/// An organisation with one relay.
pub(crate) struct Site {
    root: TempDir,
    address: SocketAddr,
    relay: Option<Relay>,
    /// The rules in Rust of its relay.
    pub(crate) judges: Judges,
}

impl Site {
    /// Founds it, with a catalog, and starts its relay.
    pub(crate) fn founded(catalog: &str) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("relay");
        drop(Directory::init(&path, "acme", Some(catalog)).expect("founded"));
        let address = "127.0.0.1:0".parse().expect("an address");
        let mut site = Self { root, address, relay: None, judges: Judges::default() };
        site.start();
        site
    }

    /// A path within the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("the relay runs")
    }

    /// Where the relay listens, and will again.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn start(&mut self) {
        self.try_start().expect("the relay serves");
    }

    fn try_start(&mut self) -> Result<(), ServeError> {
        let directory = Directory::open(&self.path("relay")).expect("the relay's directory opens");
        let directory = directory.with_judges(self.judges.clone());
        let relay = Relay::serve(directory, self.address)?;
        self.address = relay.address();
        self.relay = Some(relay);
        Ok(())
    }

    /// Starts the relay at the address that it had, once the system has given it back.
    pub(crate) async fn start_again(&mut self) {
        let started = async {
            loop {
                match self.try_start() {
                    Ok(()) => return,
                    Err(ServeError::Bind(_)) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        soon("the relay serves again", started).await;
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(relay) = self.relay.take() {
            soon("the relay stops", relay.stop()).await;
        }
    }

    /// Asks the relay's engine something.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> T {
        let handle = self.relay().handle();
        soon("the relay answers", handle.call(question)).await.expect("the relay lives")
    }

    /// The relay's log of every segment that has one.
    pub(crate) async fn log(&self) -> Logs {
        self.ask(|engine| logs_of(engine.replica())).await
    }

    /// The relay's view of a record.
    pub(crate) async fn record(&self, key: &str) -> Option<RecordView> {
        let key: RecordKey = key.parse().expect("a record's name");
        self.ask(move |engine| engine.replica().views().record(&key)).await.expect("it reads")
    }

    pub(crate) async fn members(&self) -> MembershipLog {
        self.ask(|engine| engine.replica().members().clone()).await
    }

    /// An invitation as the admin would make it.
    pub(crate) async fn invited(&self, name: &str, grants: Vec<Grant>, expires_ms: i64) -> Ticket {
        let admin = fieldkeep_link::KeyFile::open(admin_key(&self.path("relay")));
        let admin = admin.expect("the admin key").signing();
        let address = self.address;
        let name = name.to_owned();
        self.ask(move |engine| {
            let secret =
                blake3::hash(format!("{name} {}", engine.replica().members().len()).as_bytes());
            let one_time = KeyPair::from_secret(*secret.as_bytes());
            let members = engine.replica().members();
            let (entry, mut ticket) = invite(members, &admin, one_time, &name, grants, expires_ms);
            engine.replica_mut().append_members(&[entry]).expect("the admin signed it");
            ticket.addresses = vec![address];
            ticket
        })
        .await
    }

    /// The admin signs what becomes of a device, as `relay grant` and `relay revoke` do.
    pub(crate) async fn decide(&self, name: &str, grants: Option<Vec<Grant>>) {
        let admin = fieldkeep_link::KeyFile::open(admin_key(&self.path("relay")));
        let admin = admin.expect("the admin key").signing();
        let name = name.to_owned();
        self.ask(move |engine| {
            let mut members = engine.replica().members().members().values();
            let member = members.find(|member| member.name == name);
            let member = member.expect("it is a member").keys.signing;
            let held = engine.cut_offs(i64::MAX / 2, &member, grants.as_deref().unwrap_or(&[]));
            let cuts = held.expect("it reads").expect("it is a device");
            let act = match grants {
                Some(grants) => Act::Grant { member, grants, cuts },
                None => Act::Revoke { member, cuts },
            };
            let entry = engine.replica().members().sign(act, &admin);
            engine.append_members(&[entry]).expect("the admin signed it");
        })
        .await;
    }

    /// A relay that revoked a device, as `witness` has heard, and was put back from before that.
    pub(crate) async fn forgets_to_have_revoked(&mut self, name: &str, witness: &Device) {
        self.stop().await;
        self.copy("relay", "backup");
        self.start_again().await;
        self.revoke(name).await;
        sync(witness).await;
        self.stop().await;
        self.copy("backup", "relay");
        self.start_again().await;
    }

    pub(crate) async fn publish(&self, catalog: &str) -> Result<u64, ReplicaError> {
        let catalog = catalog.to_owned();
        self.ask(move |engine| engine.publish(&catalog)).await
    }

    /// Invitations that nobody takes up.
    pub(crate) async fn invite_many(&self, count: usize) {
        let admin = fieldkeep_link::KeyFile::open(admin_key(&self.path("relay")));
        let admin = admin.expect("the admin key").signing();
        let added = self.ask(move |engine| {
            let mut log = engine.replica().members().clone();
            let mut entries = Vec::new();
            for n in 0..count {
                let one_time = KeyPair::from_secret(*blake3::hash(&n.to_be_bytes()).as_bytes());
                let name = format!("nobody {n}");
                let (entry, _) = invite(&log, &admin, one_time, &name, vec![Grant::ALL], i64::MAX);
                log.append(entry.clone()).expect("the admin signed it");
                entries.push(entry);
            }
            engine.replica_mut().append_members(&entries).map(|_| ())
        });
        added.await.expect("the admin signed them");
    }

    pub(crate) async fn revoke(&self, name: &str) {
        self.decide(name, None).await;
    }

    pub(crate) async fn ticket(&self, name: &str) -> Ticket {
        self.invited(name, vec![Grant::ALL], i64::MAX).await
    }

    /// A device that may everything.
    pub(crate) async fn device(&self, name: &str) -> Device {
        let ticket = self.ticket(name).await;
        self.join(&ticket, name).await
    }

    pub(crate) async fn join(&self, ticket: &Ticket, name: &str) -> Device {
        let path = self.path(name);
        soon("joining", join(ticket, &path)).await.expect("the ticket is good");
        Device::open(&path).expect("it was just made")
    }

    /// Copies a directory that nobody uses, as a backup would.
    pub(crate) fn copy(&self, from: &str, to: &str) {
        let (from, to) = (self.path(from), self.path(to));
        if to.exists() {
            std::fs::remove_dir_all(&to).expect("the old one goes");
        }
        copy_all(&from, &to);
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("it reads") {
        let entry = entry.expect("it reads");
        let kind = entry.file_type().expect("it has a type");
        if kind.is_dir() {
            copy_all(&entry.path(), &to.join(entry.file_name()));
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("it copies");
        }
    }
}

/// The length and the chain of each log, by segment.
pub(crate) type Logs = BTreeMap<String, (Pos, Chain)>;

fn logs_of(replica: &Replica) -> Logs {
    let rows = replica.segments().values().filter(|row| row.tip > 0);
    rows.map(|row| (row.address.to_string(), (row.tip, row.chain))).collect()
}

/// A device's own log of each segment.
pub(crate) fn logs(device: &Device) -> Logs {
    let logs = device.with_replica(|replica| Ok::<_, ReplicaError>(logs_of(replica)));
    logs.expect("it reads")
}

/// How many changes a log has.
pub(crate) fn length(logs: &Logs, segment: &str) -> Pos {
    logs.get(segment).map_or(0, |(length, _)| *length)
}

pub(crate) fn put(device: &Device, key: &str, fields: Value) {
    try_put(device, key, &fields).expect("it is saved");
}

pub(crate) fn try_put(
    device: &Device,
    key: &str,
    fields: &Value,
) -> Result<fieldkeep_device::Written, fieldkeep_replica::PutError> {
    let key: RecordKey = key.parse().expect("a record's name");
    let catalog = device.catalog().expect("the relay sent one");
    let object = catalog.ty(&key.ty).expect("a type");
    let edit = object.edit_from_json(fields.as_object().expect("an object")).expect("fields");
    device.put(&key, &edit)
}

pub(crate) fn get(device: &Device, key: &str) -> Option<RecordView> {
    device.get(&key.parse().expect("a record's name")).expect("it reads")
}

pub(crate) fn fields(device: &Device, key: &str) -> Map<String, Value> {
    get(device, key).map(|record| record.fields).unwrap_or_default()
}

/// The word for a record's state.
pub(crate) fn state(device: &Device, key: &str) -> String {
    get(device, key).map_or("absent".into(), |record| record.state.word().to_owned())
}

pub(crate) async fn sync(device: &Device) -> SyncReport {
    device.sync(PATIENCE).await.expect("the relay is there")
}

/// A device that stays connected until the returned handle is dropped or stopped.
pub(crate) struct Connected(JoinHandle<()>);

impl Connected {
    pub(crate) fn new(device: &Device) -> Self {
        let device = device.clone();
        Self(tokio::spawn(async move {
            let _ = device.keep_synced().await;
        }))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits until a record has that state on a connected device.
pub(crate) async fn reaches(device: &Device, key: &str, wanted: &str) {
    let mut watch = device.watch();
    let reached = async {
        while state(device, key) != wanted {
            watch.recv().await.expect("the device lives");
        }
    };
    let guarded = tokio::time::timeout(PATIENCE, reached).await;
    assert!(guarded.is_ok(), "{key} is {}, not {wanted}", state(device, key));
}

/// Every record of a type, by id: its fields and the word for its state.
pub(crate) type Content = BTreeMap<String, (Map<String, Value>, String)>;

fn content_of(records: Vec<RecordView>) -> Content {
    let content = records
        .into_iter()
        .map(|record| (record.key.id.to_string(), (record.fields, record.state.word().to_owned())));
    content.collect()
}

fn everything() -> Page {
    Page { after: None, limit: 10_000, deleted: true }
}

/// The actor with which a device writes.
pub(crate) fn actor(device: &Device) -> ActorId {
    device.with_replica(|replica| Ok::<_, ReplicaError>(replica.me().actor())).expect("it reads")
}

pub(crate) fn content(device: &Device, ty: &str) -> Content {
    let ty = TypeName::new(ty).expect("a name");
    content_of(device.list(&ty, &everything()).expect("it reads"))
}

impl Site {
    /// What the relay has of a type.
    pub(crate) async fn content(&self, ty: &str) -> Content {
        let ty = TypeName::new(ty).expect("a name");
        let listed = self.ask(move |engine| engine.replica().views().list(&ty, &everything()));
        content_of(listed.await.expect("it reads"))
    }

    /// Syncs every device until all have had what the others sent, and checks that all replicas
    /// read the same and that nothing is unsaved.
    pub(crate) async fn converges(&self, devices: &[&Device], types: &[&str]) {
        for _ in 0..2 {
            for device in devices {
                sync(device).await;
            }
        }
        for ty in types {
            let at_relay = self.content(ty).await;
            for device in devices {
                assert_eq!(content(device, ty), at_relay, "{}'s {ty}", device.name());
                let ty = TypeName::new(*ty).expect("a name");
                let unsaved = device.counts(&ty).expect("it reads").unsaved;
                assert_eq!(unsaved, 0, "{}'s unsaved {ty}", device.name());
            }
        }
    }
}

/// Makes a copy pass for the file that was written last: what a disk image or a virtual machine
/// that is started twice does. Nothing on the device itself can tell then.
pub(crate) fn disguise(directory: &Path, original: &Path) {
    let state = |directory: &Path| {
        let name = blake3::hash(directory.as_os_str().as_encoded_bytes()).to_hex();
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
        state.or(home).map(|state| state.join("fieldkeep").join(name.as_str()))
    };
    let directory = directory.canonicalize().expect("it is there");
    let original = original.canonicalize().expect("it is there");
    let token = state(&original).and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
    if let Some(path) = state(&directory) {
        let _ = std::fs::create_dir_all(path.parent().expect("a folder"));
        let _ = std::fs::write(path, &token);
    }
    let database = fieldkeep_store::home::database(&directory);
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(&database).expect("it is there");
    let mut identity = [file.dev().to_be_bytes(), file.ino().to_be_bytes()].concat();
    identity.extend(token);
    let connection = rusqlite::Connection::open(&database).expect("it opens");
    let changed = connection
        .execute("UPDATE setting SET value = ? WHERE key = 'identity'", [identity])
        .expect("it writes");
    assert_eq!(changed, 1);
}
