//! What the parts of a device share: its engine, what readers see, its connections, and who waits for what.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use fieldkeep_catalog::Catalog;
use fieldkeep_model::{Epoch, MembershipLog, Seed, TypeName};
use fieldkeep_replica::{Replica, ReplicaError, Views};
use fieldkeep_store::{Home, Reader, StoreError};
use tokio::sync::{broadcast, mpsc, watch};

use crate::device::{Device, Event, drawn, now};
use crate::engine::{Engine, Input, Output, PeerId};
use crate::files::Transfers;
use crate::settings::Settings;
use crate::status::Strip;
use crate::sync::Way;

/// A device, as all its handles share it.
#[derive(Debug)]
pub(crate) struct Inner {
    engine: Mutex<Engine>,
    reader: Mutex<Reader>,
    shared: RwLock<Shared>,
    pub(crate) seed: Seed,
    pub(crate) events: broadcast::Sender<Event>,
    /// The ways to the connections that there are.
    connections: Mutex<HashMap<Way, Line>>,
    /// How many sessions there have been.
    sessions: AtomicU64,
    /// How many connections to other devices there have been.
    met: AtomicU64,
    /// Where other devices are listened for.
    listening: Mutex<Option<SocketAddr>>,
    strip: Mutex<Strip>,
    /// Since when that is so, milliseconds UTC.
    strip_since: AtomicI64,
    settings: Mutex<Settings>,
    /// The types that are downloaded again, and into what.
    fetching: Mutex<Option<(BTreeSet<TypeName>, Device)>>,
    /// Whoever has a session with the relay holds it.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// How many wait for that, whom a session that lasts gives way.
    wanting: watch::Sender<usize>,
    /// How many commits there have been: whoever waits for something looks again after each.
    commits: watch::Sender<u64>,
    /// How many keep this device in touch with its relay.
    pub(crate) kept: AtomicU64,
    /// Files that go to and from the relay and other devices.
    pub(crate) transfers: Transfers,
    identified: Mutex<bool>,
    pub(crate) home: Home,
}

/// The way to a connection, and the number of its session.
#[derive(Debug)]
struct Line {
    session: u64,
    outputs: mpsc::UnboundedSender<Output>,
}

/// What reading needs besides the store, as of the last commit.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) catalog: Option<Catalog>,
    pub(crate) members: Arc<MembershipLog>,
    version: Version,
}

/// Epoch and number of the catalog, and the length of the membership log.
type Version = (Option<(Epoch, u64)>, u64);

/// Events that a slow watcher may fall behind before it misses some.
const EVENTS: usize = 1_024;
/// A download into a copy, for as long as it lasts.
pub(crate) struct Fetching<'i>(&'i Inner);

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.0.fetching.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Somebody who waits for a session with the relay.
pub(crate) struct Wanting<'i>(&'i watch::Sender<usize>);

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|wanting| *wanting -= 1);
    }
}

impl Inner {
    /// All of it, with nobody connected.
    pub(crate) fn new(home: Home, reader: Reader, seed: Seed, replica: Replica) -> Self {
        Self {
            shared: RwLock::new(shared(&replica)),
            engine: Mutex::new(Engine::new(replica)),
            reader: Mutex::new(reader),
            seed,
            events: broadcast::channel(EVENTS).0,
            connections: Mutex::default(),
            sessions: AtomicU64::new(0),
            met: AtomicU64::new(0),
            listening: Mutex::default(),
            strip: Mutex::default(),
            strip_since: AtomicI64::new(now()),
            settings: Mutex::default(),
            fetching: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            wanting: watch::channel(0).0,
            commits: watch::channel(0).0,
            kept: AtomicU64::new(0),
            transfers: Transfers::default(),
            identified: Mutex::new(false),
            home,
        }
    }

    pub(crate) fn engine(&self) -> MutexGuard<'_, Engine> {
        // A panic under the lock poisons nothing that a commit would keep: the store rolled back.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before the first write the file gets a new identity, so that a copy of it can be told.
    pub(crate) fn identify(&self, engine: &mut Engine) -> Result<(), StoreError> {
        let mut identified = self.identified.lock().unwrap_or_else(PoisonError::into_inner);
        if !*identified {
            self.home.renew_identity(engine.replica_mut().store_mut(), drawn()?)?;
            *identified = true;
        }
        Ok(())
    }

    /// After a rollback the store may not know the token that was drawn with the first write: without
    /// this the next process would take the directory for a copy.
    pub(crate) fn identify_again(&self, engine: &mut Engine) -> Result<(), ReplicaError> {
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
        self.commits.send_modify(|commits| *commits += 1);
        let connections = self.connections();
        let send = |way: Way, output: Output| {
            let _ = connections.get(&way).map(|line| line.outputs.send(output));
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

    /// Tells whoever watches that what is shown of the device has changed.
    pub(crate) fn tell_status(&self) {
        // Nobody may watch.
        let _ = self.events.send(Event::Status);
    }

    /// Has the connection to the relay closed, if there is one.
    pub(crate) fn close_connection(&self, code: fieldkeep_protocol::Code, text: &str) -> bool {
        let close = Output::Close(code, text.to_owned());
        let connections = self.connections();
        connections.get(&Way::Relay).is_some_and(|line| line.outputs.send(close).is_ok())
    }

    /// Has the connections to all other devices closed.
    pub(crate) fn close_peers(&self, code: fieldkeep_protocol::Code, text: &str) {
        for (way, line) in self.connections().iter().filter(|(way, _)| **way != Way::Relay) {
            tracing::debug!(?way, "this device ends the session");
            let _ = line.outputs.send(Output::Close(code, text.to_owned()));
        }
    }

    /// Whether another device is connected.
    pub(crate) fn has_peers(&self) -> bool {
        self.connections().keys().any(|way| *way != Way::Relay)
    }

    /// Sets the way to a connection; returns the number of its session.
    pub(crate) fn connect(&self, way: Way, outputs: mpsc::UnboundedSender<Output>) -> u64 {
        let session = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        self.connections().insert(way, Line { session, outputs });
        session
    }

    /// Takes the way to a connection away.
    pub(crate) fn cut(&self, way: Way) {
        self.connections().remove(&way);
    }

    /// Whether somebody still waits on the session that an input comes from. One that was given up leaves
    /// nothing in the engine, also where its first input was on its way already and another session has
    /// begun meanwhile.
    pub(crate) fn awaits(&self, session: u64, input: &Input) -> bool {
        let way = match input {
            Input::Peer(id, _) => Way::Peer(*id),
            Input::Closed | Input::Connected | Input::Bytes(..) | Input::Finished(_) => Way::Relay,
        };
        match self.connections().get(&way) {
            Some(line) => line.session == session,
            None => matches!(input, Input::Closed),
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_settings(&self, settings: Settings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    pub(crate) fn strip(&self) -> Strip {
        self.strip.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows another strip, and returns the one before.
    pub(crate) fn replace_strip(&self, strip: Strip) -> Strip {
        let mut shown = self.strip.lock().unwrap_or_else(PoisonError::into_inner);
        if *shown != strip {
            self.strip_since.store(now(), Ordering::Relaxed);
        }
        std::mem::replace(&mut shown, strip)
    }

    /// Since when the present strip is shown, milliseconds UTC.
    pub(crate) fn strip_since(&self) -> i64 {
        self.strip_since.load(Ordering::Relaxed)
    }

    /// Shows those types as downloading, until what is returned is dropped.
    pub(crate) fn fetch_into(&self, types: &BTreeSet<TypeName>, copy: &Device) -> Fetching<'_> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        *fetching = Some((types.clone(), copy.clone()));
        Fetching(self)
    }

    /// What has come of the types that are downloaded again, by type.
    pub(crate) fn fetched(&self) -> Result<BTreeMap<TypeName, u64>, StoreError> {
        let fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((types, copy)) = fetching else { return Ok(BTreeMap::new()) };
        let mut counts = copy.engine().replica().views().counts_by_type()?;
        let come = |ty: &TypeName| counts.remove(ty).unwrap_or_default().local;
        let come: Vec<u64> = types.iter().map(come).collect();
        Ok(types.into_iter().zip(come).collect())
    }

    /// Has a session that lasts give way, until what is returned is dropped.
    pub(crate) fn want_turn(&self) -> Wanting<'_> {
        self.wanting.send_modify(|wanting| *wanting += 1);
        Wanting(&self.wanting)
    }

    /// Is told after every commit.
    pub(crate) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// Ends when somebody wants a session.
    pub(crate) async fn turn_wanted(&self) {
        let _ = self.wanting.subscribe().wait_for(|wanting| *wanting > 0).await;
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

    fn connections(&self) -> MutexGuard<'_, HashMap<Way, Line>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn shared(&self) -> Shared {
        self.shared.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn read<T>(
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
