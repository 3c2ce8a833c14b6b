//! The library that an application embeds: records in, records out, durable before it returns.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use fieldkeep_catalog::Catalog;
use fieldkeep_link::{KeyFile, OpenKeyError};
use fieldkeep_model::{
    Epoch, MembershipLog, PublicKey, RecordEdit, RecordId, RecordKey, Seed, TypeName,
};
use fieldkeep_replica::{
    Me, PutError, RecordView, Replica, ReplicaError, Role, TypeCounts, Views, Wrote,
};
use fieldkeep_store::{
    Dismissal, Home, HomeError, Page, Reader, Records as _, Settings as _, Store, StoreError, home,
};
use tokio::sync::{broadcast, mpsc};

use crate::engine::{Engine, Input, Output, PeerId, PeerProgress};
use crate::sync::Way;

/// What an application is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Records changed: their content, their state, or whether they are unsaved.
    Changed(Vec<RecordKey>),
    /// Another device is connected and has said what it holds: its name.
    Met(String),
    /// It is gone: what was exchanged with it.
    Left(PeerProgress),
}

/// Why a device's directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The key cannot be read.
    #[error(transparent)]
    Key(#[from] OpenKeyError),
    /// The directory is a relay's.
    #[error("{} is a relay's directory, not a device's", .0.display())]
    NotADevice(PathBuf),
    /// The store failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

/// The relay, as the device knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The key that it proves.
    pub key: PublicKey,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
}

/// A device. Clones share it; the last one that goes closes it.
#[derive(Clone, Debug)]
pub struct Device(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    engine: Mutex<Engine>,
    reader: Mutex<Reader>,
    shared: RwLock<Shared>,
    pub(crate) seed: Seed,
    pub(crate) events: broadcast::Sender<Event>,
    /// The ways to the connections that there are.
    connections: Mutex<HashMap<Way, mpsc::UnboundedSender<Output>>>,
    /// How many connections to other devices there have been.
    met: AtomicU64,
    /// Where other devices are listened for.
    listening: Mutex<Option<SocketAddr>>,
    identified: Mutex<bool>,
    home: Home,
}

/// What reading needs besides the store, as of the last commit.
#[derive(Clone, Debug)]
struct Shared {
    catalog: Option<Catalog>,
    members: Arc<MembershipLog>,
    version: Version,
}

/// Epoch and number of the catalog, and the length of the membership log.
type Version = (Option<(Epoch, u64)>, u64);

/// Events that a slow watcher may fall behind before it misses some.
const EVENTS: usize = 1_024;

impl Device {
    /// Opens a directory that `join` made, and owns it. Reads no document.
    ///
    /// # Errors
    /// When it is none, another process owns it, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let home = Home::open(path)?;
        let store = home.store()?;
        if store.setting("role")?.as_deref() != Some(b"device") {
            return Err(OpenError::NotADevice(path.to_owned()));
        }
        let seed = KeyFile::open(home::key(home.directory()))?;
        let members = MembershipLog::open(store.members()?).map_err(ReplicaError::from)?;
        let me = device_member(&store, &seed, &members)?;
        let copy = home.is_copy(&store)?;
        let reader = Reader::open(&home::database(home.directory()))?;
        let mut replica = Replica::open(store, me, members, drawn()?)?;
        if copy {
            tracing::warn!("this directory is a copy: a new incarnation is taken");
            replica.renew_incarnation()?;
            home.renew_identity(replica.store_mut(), drawn()?)?;
            replica.commit()?;
        }
        let shared = shared(&replica);
        Ok(Self(Arc::new(Inner {
            engine: Mutex::new(Engine::new(replica)),
            reader: Mutex::new(reader),
            shared: RwLock::new(shared),
            seed,
            events: broadcast::channel(EVENTS).0,
            connections: Mutex::default(),
            met: AtomicU64::new(0),
            listening: Mutex::default(),
            identified: Mutex::new(false),
            home,
        })))
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.0.home.directory()
    }

    /// The name that this device's changes carry.
    #[must_use]
    pub fn name(&self) -> String {
        self.engine().replica().me().name.clone()
    }

    /// The catalog, once the relay has sent it.
    #[must_use]
    pub fn catalog(&self) -> Option<Catalog> {
        self.0.shared().catalog
    }

    /// The members of the organisation, as far as known here.
    #[must_use]
    pub fn members(&self) -> Arc<MembershipLog> {
        self.0.shared().members
    }

    /// Writes a record. When this returns it is durable on this device.
    ///
    /// # Errors
    /// See [`PutError`]; nothing was saved then.
    pub fn put(&self, key: &RecordKey, edit: &RecordEdit) -> Result<Wrote, PutError> {
        let mut wrote = self.put_all(std::slice::from_ref(&(key.clone(), edit.clone())))?;
        Ok(wrote.pop().expect("one write, one answer"))
    }

    /// Writes records, each as a change of its own, durable together.
    ///
    /// # Errors
    /// See [`PutError`]; nothing of the batch was saved then.
    pub fn put_all(&self, edits: &[(RecordKey, RecordEdit)]) -> Result<Vec<Wrote>, PutError> {
        let mut engine = self.engine();
        self.0.identify(&mut engine)?;
        let now = now();
        let mut wrote = Vec::with_capacity(edits.len());
        for (key, edit) in edits {
            match engine.replica_mut().put(key, edit, now) {
                Ok(one) => wrote.push(one),
                Err(error) => {
                    engine.replica_mut().forget()?;
                    self.0.identify_again(&mut engine)?;
                    return Err(error);
                }
            }
        }
        let outputs = engine.commit()?;
        self.0.deliver(&engine, outputs);
        let changed = wrote.iter().filter(|one| one.change.is_some()).map(|one| one.key.clone());
        let _ = self.0.events.send(Event::Changed(changed.collect()));
        Ok(wrote)
    }

    /// Deletes a record, softly.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn delete(&self, key: &RecordKey) -> Result<Wrote, PutError> {
        self.put(key, &RecordEdit::delete())
    }

    /// A record, from the projection.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn get(&self, key: &RecordKey) -> Result<Option<RecordView>, StoreError> {
        self.0.read(|views| views.record(key))
    }

    /// A page of a type's records, in order of id.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn list(&self, ty: &TypeName, page: &Page) -> Result<Vec<RecordView>, StoreError> {
        self.0.read(|views| views.list(ty, page))
    }

    /// The records that are held, wait, or are likely to be held.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn attention(&self) -> Result<Vec<RecordView>, StoreError> {
        self.0.read(|views| views.attention())
    }

    /// What is known of a type.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn counts(&self, ty: &TypeName) -> Result<TypeCounts, StoreError> {
        self.0.read(|views| views.counts(ty))
    }

    /// Puts a record aside, or takes it up again; the relay is told with the next sync.
    ///
    /// # Errors
    /// When the disk refuses, or there is no such record.
    pub fn dismiss(&self, key: &RecordKey, note: Option<&str>) -> Result<bool, ReplicaError> {
        let mut engine = self.engine();
        let rows = engine.replica().store().find(&key.ty, &key.id)?;
        let Some(row) = rows.into_iter().next() else { return Ok(false) };
        let who = engine.replica().me().name.clone();
        let dismissal =
            note.map(|note| Dismissal { hash: row.hash, who, note: note.to_owned(), time: now() });
        engine.replica_mut().store_mut().put_dismissal(key, dismissal.as_ref())?;
        engine.queue_dismissal(key, note)?;
        let outputs = engine.commit()?;
        self.0.deliver(&engine, outputs);
        Ok(true)
    }

    /// Asks the relay to judge a record again: now if there is a connection, with the next one
    /// otherwise.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn retry(&self, key: &RecordKey) -> Result<(), ReplicaError> {
        let mut engine = self.engine();
        engine.queue_rejudge(key)?;
        let outputs = engine.commit()?;
        self.0.deliver(&engine, outputs);
        Ok(())
    }

    /// Does something with the replica that needs a document; what it wrote is durable afterwards.
    ///
    /// # Errors
    /// What `act` says.
    pub fn with_replica<T, E: From<ReplicaError>>(
        &self,
        act: impl FnOnce(&mut Replica) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut engine = self.engine();
        let result = act(engine.replica_mut());
        if result.is_err() {
            engine.replica_mut().forget().map_err(ReplicaError::from)?;
        }
        let result = result?;
        let outputs = engine.commit()?;
        self.0.deliver(&engine, outputs);
        Ok(result)
    }

    /// Is told of changes from now on.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// The relay that this device syncs with.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn remote(&self) -> Result<Remote, StoreError> {
        let engine = self.engine();
        let members = engine.replica().members();
        let relay = members.members().values().find(|member| member.relay);
        let key = relay.map(|member| member.keys.tls);
        let key =
            key.ok_or_else(|| StoreError::Damaged("no relay in the membership log".into()))?;
        let addresses = engine.replica().store().setting("relays")?.unwrap_or_default();
        let addresses = String::from_utf8_lossy(&addresses);
        let addresses = addresses.lines().filter_map(|address| address.parse().ok()).collect();
        Ok(Remote { key, addresses })
    }

    /// Remembers where the relay listens, the likeliest first.
    pub(crate) fn set_relays(&self, addresses: &[SocketAddr]) -> Result<(), ReplicaError> {
        let mut engine = self.engine();
        let text: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        engine.replica_mut().store_mut().set("relays", text.join("\n").as_bytes())?;
        let outputs = engine.commit()?;
        self.0.deliver(&engine, outputs);
        Ok(())
    }

    /// Saves caches, so that the next start is faster. Nothing is lost without it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn close(&self) -> Result<(), ReplicaError> {
        self.engine().replica_mut().save_all()
    }

    pub(crate) fn engine(&self) -> MutexGuard<'_, Engine> {
        // A panic under the lock poisons nothing that a commit would keep: the store rolled back.
        self.0.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Before the first write the file gets a new identity, so that a copy of it can be told.
    fn identify(&self, engine: &mut Engine) -> Result<(), StoreError> {
        let mut identified = self.identified.lock().unwrap_or_else(PoisonError::into_inner);
        if !*identified {
            self.home.renew_identity(engine.replica_mut().store_mut(), drawn()?)?;
            *identified = true;
        }
        Ok(())
    }

    /// After a rollback the store may not know the token that was drawn with the first write: without
    /// this the next process would take the directory for a copy.
    fn identify_again(&self, engine: &mut Engine) -> Result<(), ReplicaError> {
        self.home.renew_identity(engine.replica_mut().store_mut(), drawn()?)?;
        let outputs = engine.commit()?;
        self.deliver(engine, outputs);
        Ok(())
    }

    /// Hands on what a commit let out, and shows readers what it changed.
    pub(crate) fn deliver(&self, engine: &Engine, outputs: Vec<Output>) {
        let version = version(engine.replica());
        if self.shared().version != version {
            let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
            *shared = self::shared(engine.replica());
        }
        let connections = self.connections();
        let send = |way: Way, output: Output| {
            let _ = connections.get(&way).map(|connection| connection.send(output));
        };
        for output in outputs {
            match output {
                Output::Changed(keys) => {
                    let _ = self.events.send(Event::Changed(keys));
                }
                Output::Met(name) => {
                    let _ = self.events.send(Event::Met(name));
                }
                Output::Peer(id, _) => send(Way::Peer(id), output),
                Output::Send { .. } | Output::Close(..) => send(Way::Relay, output),
            }
        }
    }

    /// Has the connection to the relay closed, if there is one.
    pub(crate) fn close_connection(&self, code: fieldkeep_protocol::Code, text: &str) -> bool {
        let close = Output::Close(code, text.to_owned());
        let connections = self.connections();
        connections.get(&Way::Relay).is_some_and(|connection| connection.send(close).is_ok())
    }

    /// Has the connections to all other devices closed.
    pub(crate) fn close_peers(&self, code: fieldkeep_protocol::Code, text: &str) {
        for (way, connection) in self.connections().iter().filter(|(way, _)| **way != Way::Relay) {
            tracing::debug!(?way, "this device ends the session");
            let _ = connection.send(Output::Close(code, text.to_owned()));
        }
    }

    /// Whether another device is connected.
    pub(crate) fn has_peers(&self) -> bool {
        self.connections().keys().any(|way| *way != Way::Relay)
    }

    /// Sets the way to a connection, or takes it away.
    pub(crate) fn connect(&self, way: Way, connection: Option<mpsc::UnboundedSender<Output>>) {
        let mut connections = self.connections();
        match connection {
            Some(connection) => connections.insert(way, connection),
            None => connections.remove(&way),
        };
    }

    /// Whether somebody still waits on the connection that an input comes from. A meeting that was
    /// given up leaves nothing in the engine, also where its first input was on its way already.
    pub(crate) fn awaits(&self, input: &Input) -> bool {
        let Input::Peer(id, _) = input else { return true };
        self.connections().contains_key(&Way::Peer(*id))
    }

    /// Where other devices are listened for.
    pub(crate) fn listening(&self) -> Option<SocketAddr> {
        *self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other devices are listened for there from now on.
    pub(crate) fn listens(&self, address: SocketAddr) {
        *self.listening.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// They are listened for there no more.
    pub(crate) fn listens_no_more(&self, address: SocketAddr) {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        listening.take_if(|other| *other == address);
    }

    /// A number for a connection to another device.
    pub(crate) fn next_peer(&self) -> PeerId {
        self.met.fetch_add(1, Ordering::Relaxed)
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<Way, mpsc::UnboundedSender<Output>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> Shared {
        self.shared.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&Views<'_, Reader>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let shared = self.shared();
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        read(&Views { store: &*reader, catalog: shared.catalog.as_ref(), members: &shared.members })
    }
}

fn version(replica: &Replica) -> Version {
    let catalog = replica.published().map(|published| (published.epoch, published.number));
    (catalog, replica.members().len())
}

fn shared(replica: &Replica) -> Shared {
    Shared {
        catalog: replica.published().map(|published| published.catalog.clone()),
        members: Arc::new(replica.members().clone()),
        version: version(replica),
    }
}

fn device_member(store: &Store, seed: &Seed, members: &MembershipLog) -> Result<Me, StoreError> {
    let damaged = || StoreError::Damaged("the device's member number".into());
    let number = store.setting("number")?.and_then(|bytes| bytes.try_into().ok());
    let number = u64::from_be_bytes(number.ok_or_else(damaged)?);
    let incarnation = store.setting("incarnation")?.and_then(|bytes| bytes.try_into().ok());
    let member = members.by_tls(&seed.tls().public()).ok_or_else(damaged)?;
    let name = member.name.clone();
    Ok(Me {
        role: Role::Device,
        number,
        keys: seed.signing(),
        incarnation: u32::from_be_bytes(incarnation.unwrap_or_default()),
        name,
    })
}

/// Milliseconds UTC: the only place where the device reads a clock.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Random bytes of the system.
pub(crate) fn drawn<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Disk(error.to_string()))?;
    Ok(bytes)
}

/// An id for a record that has none: a UUID whose order is that of creation.
#[must_use]
pub fn fresh_id() -> RecordId {
    RecordId::new(uuid::Uuid::now_v7().to_string()).expect("a UUID is a record id")
}
