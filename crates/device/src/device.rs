//! The library that an application embeds: records in, records out, durable before it returns.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use fieldkeep_catalog::Catalog;
use fieldkeep_link::{KeyFile, OpenKeyError};
use fieldkeep_model::{
    Edit, Member, MembershipLog, PublicKey, RecordEdit, RecordId, RecordKey, Seed, TypeName,
};
use fieldkeep_replica::{
    Me, NotTaken, PutError, RecordView, Replica, ReplicaError, Role, TypeCounts, Wrote,
};
use fieldkeep_store::{
    Calls as _, Dismissal, Home, HomeError, Page, Reader, Records as _, Settings as _, Store,
    StoreError, home,
};
use tokio::sync::broadcast;

use crate::engine::{Engine, PeerProgress, put_with_files};
use crate::inner::Inner;
use crate::settings::{Settings, SettingsError};
use crate::status::Strip;
use crate::tier::Written;

/// What an application is told.
///
/// ```
/// # use fieldkeep_device::{Event, Strip};
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// let mut events = device.watch();
/// device.sync(Duration::from_secs(60)).await?;
/// assert_eq!(events.recv().await?, Event::Strip(Strip::Connecting));
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Records changed: their content, their state, or whether they are unsaved.
    Changed(Vec<RecordKey>),
    /// Another device is connected and has said what it holds: its name.
    Met(String),
    /// It is gone: what was exchanged with it.
    Left(PeerProgress),
    /// This device stands to its relay like that from now on.
    Strip(Strip),
    /// Something else of what is shown of the device has changed: what is paused, which records are in
    /// use, or how much of a download has come.
    Status,
}

/// Why a device's directory could not be opened.
///
/// ```
/// # use fieldkeep_device::{Device, OpenError};
/// # fieldkeep_lab::camp::example(async |device| {
/// let again = Device::open(device.directory()); // It is open: one handle owns a directory.
/// assert!(matches!(again, Err(OpenError::Home(_))));
/// # Ok(()) });
/// ```
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
    /// The settings are not to be understood.
    #[error(transparent)]
    Settings(#[from] SettingsError),
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
///
/// ```
/// # fieldkeep_lab::camp::example(async |device| {
/// let relay = device.remote()?;
/// assert_eq!(relay.addresses.len(), 1);
/// assert!(device.members().by_tls(&relay.key).is_some_and(|member| member.relay));
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The key that it proves.
    pub key: PublicKey,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
}

/// A device. Clones share it; the last one that goes closes it.
///
/// ```
/// # use serde_json::json;
/// # fieldkeep_lab::camp::example(async |device| {
/// let key = "customer/c2".parse()?;
/// let same = device.clone(); // For another thread, say.
/// same.save(&key, &json!({"name": "Pier"}))?;
/// assert_eq!(device.get(&key)?.expect("it is here").fields["name"], "Pier");
/// # Ok(()) });
/// ```
#[derive(Clone, Debug)]
pub struct Device(pub(crate) Arc<Inner>);

impl Device {
    /// Opens a directory that `join` made, and owns it. Reads no document.
    ///
    /// ```
    /// # use fieldkeep_device::Device;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let path = device.directory().to_owned();
    /// drop(device); // One process, and one handle, owns a directory.
    /// let device = Device::open(&path)?;
    /// assert_eq!(device.name(), "ann");
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When it is none, another process owns it, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let home = Home::open(path)?;
        let store = home.store()?;
        if store.setting("role")?.as_deref() != Some(b"device") {
            return Err(OpenError::NotADevice(path.to_owned()));
        }
        let seed = in_force(home.directory(), &store)?;
        let settings = Settings::read(home.directory())?;
        let device = Self::over(home, store, seed)?;
        device.apply_settings(settings)?;
        device.withdraw_calls()?;
        Ok(device)
    }

    /// The device over an owned directory.
    pub(crate) fn over(home: Home, store: Store, seed: Seed) -> Result<Self, OpenError> {
        let members = MembershipLog::open(store.members()?).map_err(ReplicaError::from)?;
        let me = device_member(&store, &seed, &members)?;
        let copy = home.is_copy(&store)?;
        let reader = Reader::open(&home::database(home.directory()))?;
        let mut store = store;
        store.make_searchable()?;
        store.commit()?;
        let mut replica = Replica::open(store, me, members, drawn()?)?;
        if copy {
            tracing::warn!("this directory is a copy: a new incarnation is taken");
            replica.renew_incarnation()?;
            home.renew_identity(replica.store_mut(), drawn()?)?;
            replica.commit()?;
        }
        Ok(Self(Arc::new(Inner::new(home, reader, seed, replica))))
    }

    /// Whoever waited for a call that is under way ended with his process.
    fn withdraw_calls(&self) -> Result<(), ReplicaError> {
        let mut engine = self.engine();
        if !engine.replica().store().open_calls()?.is_empty() {
            engine.withdraw_calls(None)?;
            engine.commit()?;
        }
        Ok(())
    }

    /// The directory.
    ///
    /// ```
    /// # use fieldkeep_device::Settings;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// assert_eq!(Settings::read(device.directory())?, device.settings());
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.0.home.directory()
    }

    /// The name that this device's changes carry.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// assert_eq!(device.name(), "ann"); // As whoever invited it said.
    /// let history = device.history(&"order/o1".parse()?, 1, None)?;
    /// assert_eq!(history.entries[0].person, device.name());
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn name(&self) -> String {
        self.engine().replica().me().name.clone()
    }

    /// The catalog, once the relay has sent it.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let catalog = device.catalog().expect("the relay has sent it");
    /// let order = catalog.ty(&"order".parse()?).expect("it has orders");
    /// assert_eq!(order.rules[0].name, "discount");
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn catalog(&self) -> Option<Catalog> {
        self.0.shared().catalog
    }

    /// The members of the organisation, as far as known here.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let members = device.members();
    /// assert_eq!(members.name(), "lab"); // The organisation.
    /// let names = members.members().values().map(|member| member.name.as_str());
    /// assert_eq!(names.collect::<Vec<_>>(), ["relay", "ann"]);
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn members(&self) -> Arc<MembershipLog> {
        self.0.shared().members
    }

    /// This device, as the membership log has it.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let me = device.member()?;
    /// assert_eq!(me.name, "ann");
    /// assert!(!me.revoked && me.may(&"visit".parse()?, "42"));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the log does not have it: the directory is damaged.
    pub fn member(&self) -> Result<Member, StoreError> {
        let members = self.members();
        let member = members.by_tls(&self.0.seed.tls().public()).cloned();
        member
            .ok_or_else(|| StoreError::Damaged("this device's entry of the membership log".into()))
    }

    /// Writes a record. When this returns it is durable on this device.
    ///
    /// ```
    /// # use fieldkeep_model::{Edit, RecordKey, Scalar};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let key: RecordKey = "order/o2".parse()?;
    /// let edit = vec![Edit::Put("customer".into(), Scalar::Str("c1".into()))];
    /// device.put(&key, &edit.into())?; // Durable here, with or without a signal.
    /// assert!(device.get(&key)?.is_some_and(|order| order.unsaved));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`PutError`]; nothing was saved then.
    pub fn put(&self, key: &RecordKey, edit: &RecordEdit) -> Result<Written, PutError> {
        let mut wrote = self.put_all(std::slice::from_ref(&(key.clone(), edit.clone())))?;
        Ok(Written::new(self, wrote.pop().expect("one write, one answer")))
    }

    /// Writes records, each as a change of its own, durable together.
    ///
    /// ```
    /// # use fieldkeep_model::{Edit, RecordKey, Scalar};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let customers: Vec<_> = ["Pier", "Market"]
    ///     .map(|name| {
    ///         let key = RecordKey::new("customer".parse().expect("a name"), fieldkeep_device::fresh_id());
    ///         (key, vec![Edit::Put("name".into(), Scalar::Str(name.into()))].into())
    ///     })
    ///     .into();
    /// device.put_all(&customers)?;
    /// assert_eq!(device.counts(&"customer".parse()?)?.local, 3);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`PutError`]; nothing of the batch was saved then.
    pub fn put_all(&self, edits: &[(RecordKey, RecordEdit)]) -> Result<Vec<Wrote>, PutError> {
        let now = now();
        self.write_all(|replica| {
            edits.iter().map(|(key, edit)| put_with_files(replica, key, edit, None, now)).collect()
        })
    }

    /// Writes records, and whatever else is written with them, durable together.
    pub(crate) fn write_all<E: From<PutError> + From<StoreError>>(
        &self,
        write: impl FnOnce(&mut Replica) -> Result<Vec<Wrote>, E>,
    ) -> Result<Vec<Wrote>, E> {
        let mut engine = self.engine();
        self.0.identify(&mut engine)?;
        let wrote = match write(engine.replica_mut()) {
            Ok(wrote) => wrote,
            Err(error) => {
                engine.replica_mut().forget()?;
                self.0.identify_again(&mut engine).map_err(PutError::from)?;
                return Err(error);
            }
        };
        let outputs = engine.commit().map_err(PutError::from)?;
        self.0.deliver(&engine, outputs);
        let changed = wrote.iter().filter(|one| one.change.is_some()).map(|one| one.key.clone());
        let _ = self.0.events.send(Event::Changed(changed.collect()));
        drop(engine);
        self.0.transfers.look();
        Ok(wrote)
    }

    /// Changes fields of a record that is there.
    ///
    /// ```
    /// # use fieldkeep_device::PutError;
    /// # use fieldkeep_model::Edit;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// device.edit(&"order/o1".parse()?, vec![Edit::Add("boxes".into(), -1)])?;
    /// assert_eq!(device.get(&"order/o1".parse()?)?.expect("it is here").fields["boxes"], 1);
    /// let absent = device.edit(&"order/o9".parse()?, vec![Edit::Add("boxes".into(), 1)]);
    /// assert!(matches!(absent, Err(PutError::Absent(_))));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`PutError::Absent`] where there is none, and see [`PutError`]; nothing was saved then.
    pub fn edit(&self, key: &RecordKey, edits: Vec<Edit>) -> Result<Written, PutError> {
        if self.as_merged(key)?.is_none() {
            return Err(PutError::Absent(key.clone()));
        }
        self.put(key, &edits.into())
    }

    /// Deletes a record, softly.
    ///
    /// ```
    /// # use fieldkeep_model::RecordKey;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let key: RecordKey = "customer/c1".parse()?;
    /// device.delete(&key)?;
    /// assert!(device.get(&key)?.is_some_and(|customer| customer.deleted));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn delete(&self, key: &RecordKey) -> Result<Written, PutError> {
        self.put(key, &RecordEdit::delete())
    }

    /// A record, from the projection: as merged, or as it last passed where the type's settings say so,
    /// and then nothing if it never did.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let order = device.get(&"order/o1".parse()?)?.expect("it is here");
    /// assert_eq!(order.fields["discount"], 45);
    /// assert_eq!(order.reasons, ["the discount is above 30 percent"]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn get(&self, key: &RecordKey) -> Result<Option<RecordView>, StoreError> {
        let read = self.settings().reads(&key.ty);
        Ok(self.as_merged(key)?.and_then(|view| read.of(view)))
    }

    /// A record as merged, whatever the settings say.
    ///
    /// ```
    /// # use fieldkeep_device::Device;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// # let path = device.directory().to_owned();
    /// # drop(device);
    /// std::fs::write(path.join("device.toml"), "[type.order]\nread = \"last_valid\"\n")?;
    /// let device = Device::open(&path)?;
    /// let held = "order/o1".parse()?;
    /// assert!(device.get(&held)?.is_none()); // It never passed.
    /// assert_eq!(device.as_merged(&held)?.expect("it is here").fields["discount"], 45);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn as_merged(&self, key: &RecordKey) -> Result<Option<RecordView>, StoreError> {
        self.0.read(|views| views.record(key))
    }

    /// A page of a type's records, in order of id, each as [`Device::get`] returns it.
    ///
    /// ```
    /// # use fieldkeep_store::Page;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let customers = device.list(&"customer".parse()?, &Page { limit: 10, ..Page::default() })?;
    /// assert_eq!(customers[0].fields["name"], "Harbour Kiosk");
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn list(&self, ty: &TypeName, page: &Page) -> Result<Vec<RecordView>, StoreError> {
        let read = self.settings().reads(ty);
        let records = self.list_as_merged(ty, page)?.into_iter();
        Ok(records.filter_map(|view| read.of(view)).collect())
    }

    /// A page of a type's records as merged, whatever the settings say.
    ///
    /// ```
    /// # use fieldkeep_device::Device;
    /// # use fieldkeep_store::Page;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// # let path = device.directory().to_owned();
    /// # drop(device);
    /// std::fs::write(path.join("device.toml"), "[type.order]\nread = \"last_valid\"\n")?;
    /// let device = Device::open(&path)?;
    /// let order = "order".parse()?;
    /// assert_eq!(device.list(&order, &Page::default())?.len(), 0); // The only one never passed.
    /// assert_eq!(device.list_as_merged(&order, &Page::default())?.len(), 1);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn list_as_merged(
        &self,
        ty: &TypeName,
        page: &Page,
    ) -> Result<Vec<RecordView>, StoreError> {
        self.0.read(|views| views.list(ty, page))
    }

    /// The records that are held, wait, or are likely to be held.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let held = device.attention()?;
    /// assert_eq!(held[0].key.to_string(), "order/o1");
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn attention(&self) -> Result<Vec<RecordView>, StoreError> {
        self.0.read(|views| views.attention())
    }

    /// The records with a change that the relay has not taken. It stays on this device; once the relay takes
    /// it, the next sync brings it. One of a generation of its type that is over is no longer among the
    /// records.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// assert!(device.not_taken()?.is_empty()); // Everything was.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails, or a segment cannot be merged.
    pub fn not_taken(&self) -> Result<Vec<NotTaken>, ReplicaError> {
        self.with_replica(Replica::not_taken)
    }

    /// What is known of a type.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let orders = device.counts(&"order".parse()?)?;
    /// assert_eq!((orders.local, orders.held, orders.unsaved), (1, 1, 0));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn counts(&self, ty: &TypeName) -> Result<TypeCounts, StoreError> {
        self.0.read(|views| views.counts(ty))
    }

    /// Puts a record aside, or takes it up again; the relay is told with the next sync. Returns whether
    /// there is such a record.
    ///
    /// ```
    /// # use fieldkeep_model::RecordKey;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let key: RecordKey = "order/o1".parse()?;
    /// let mut events = device.watch();
    /// device.dismiss(&key, Some("agreed by phone"))?;
    /// assert_eq!(events.recv().await?, fieldkeep_device::Event::Changed(vec![key.clone()]));
    /// assert_eq!(device.get(&key)?.and_then(|order| order.dismissed).expect("aside").who, "ann");
    /// device.dismiss(&key, None)?; // Taken up again.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk refuses.
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
        let _ = self.0.events.send(Event::Changed(vec![key.clone()]));
        Ok(true)
    }

    /// Asks the relay to judge a record again: now if there is a connection, with the next one
    /// otherwise.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// device.retry(&"order/o1".parse()?)?; // Now, or with the next sync.
    /// # Ok(()) });
    /// ```
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
    /// ```
    /// # use serde_json::json;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let written = device.save(&"customer/c2".parse()?, &json!({"name": "Pier"}))?;
    /// let segment = written.segment;
    /// let document = device.with_replica(|replica| replica.export_segment(&segment))?;
    /// assert!(document.starts_with(&[0x85, 0x6f, 0x4a, 0x83])); // As any Automerge opens it.
    /// # Ok(()) });
    /// ```
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
    ///
    /// ```
    /// # use fieldkeep_device::Event;
    /// # use fieldkeep_model::{Edit, RecordKey, Scalar};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let mut events = device.watch();
    /// let key: RecordKey = "customer/c2".parse()?;
    /// device.put(&key, &vec![Edit::Put("name".into(), Scalar::Str("Pier".into()))].into())?;
    /// while events.recv().await? != Event::Changed(vec![key.clone()]) {}
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// The relay that this device syncs with.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let address = device.remote()?.addresses[0];
    /// assert!(address.ip().is_loopback()); // The relay of the example.
    /// # Ok(()) });
    /// ```
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
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// device.close()?;
    /// assert!(device.get(&"order/o1".parse()?)?.is_some()); // It goes on until it is dropped.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn close(&self) -> Result<(), ReplicaError> {
        self.engine().replica_mut().save_all()
    }

    pub(crate) fn engine(&self) -> MutexGuard<'_, Engine> {
        self.0.engine()
    }
}

/// The keys of a device: those that it asked for, once the membership log says that it has them.
fn in_force(directory: &Path, store: &Store) -> Result<Seed, OpenError> {
    let next = home::next_key(directory);
    if next.exists() {
        let seed = KeyFile::open(&next)?;
        let members = MembershipLog::open(store.members()?).map_err(ReplicaError::from)?;
        if members.by_tls(&seed.tls().public()).is_some() {
            KeyFile::replace(home::key(directory), &next)?;
            return Ok(seed);
        }
    }
    Ok(KeyFile::open(home::key(directory))?)
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
        former: Vec::new(),
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
///
/// ```
/// # use fieldkeep_device::fresh_id;
/// let (first, second) = (fresh_id(), fresh_id());
/// assert!(first < second);
/// ```
#[must_use]
pub fn fresh_id() -> RecordId {
    RecordId::new(uuid::Uuid::now_v7().to_string()).expect("a UUID is a record id")
}
