//! What is shown of a device: the sync strip, and where every object type stands.
//!
//! A type is called synced only where every segment of it is proven equal to all that the relay is
//! known to have, and nothing of it is unsaved. The proofs are kept with the segments, so that says
//! the same after a restart. Reads no record.

use fieldkeep_model::status::{LeftOut, TypeStatus};
use fieldkeep_model::{DeviceNumber, TypeName};
use fieldkeep_replica::{Integrity, Replica, ReplicaError, TypeCounts};
use fieldkeep_store::{Blobs as _, SegmentRow, Settings as _, StoreError};
use minicbor::{Decode, Encode};

use crate::device::{Device, Event, now};
use crate::engine::{Engine, OFFERED};
use crate::sync::SyncError;

/// How this device stands to its relay.
///
/// ```
/// # use fieldkeep_device::{Event, Strip};
/// # fieldkeep_lab::camp::example(async |device| {
/// let mut events = device.watch();
/// let keeping = tokio::spawn({
///     let device = device.clone();
///     async move { device.keep_synced().await }
/// });
/// while events.recv().await? != Event::Strip(Strip::Online { syncing: false }) {}
/// keeping.abort();
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Strip {
    /// Nobody tries to connect.
    #[default]
    Offline,
    /// It is being tried.
    Connecting,
    /// The relay said that it stops for a while, and when to come back.
    Away {
        /// When it is tried again, milliseconds UTC.
        retry_at: i64,
    },
    /// A session is open.
    Online {
        /// Whether something is still under way, or not proven.
        syncing: bool,
    },
    /// The last contact did not end well; nothing is lost.
    Error {
        /// Why, in plain words.
        reason: String,
        /// When it is tried again, milliseconds UTC; `None` if nobody does by himself.
        retry_at: Option<i64>,
        /// Whether trying again is of no use before somebody has done something about it.
        permanent: bool,
    },
}

/// Everything that is shown of a device.
///
/// ```
/// # use fieldkeep_device::Strip;
/// # fieldkeep_lab::camp::example(async |device| {
/// let status = device.status()?;
/// assert_eq!((&status.strip, status.types.len()), (&Strip::Offline, 3));
/// assert!(status.last_sync.is_some() && !status.all_paused);
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// How it stands to its relay.
    pub strip: Strip,
    /// When everything was last exchanged and proven, milliseconds UTC.
    pub last_sync: Option<i64>,
    /// The object types, those of the catalog and those of which there are records.
    pub types: Vec<TypeView>,
    /// Whether all types are paused, those that a later catalog declares among them.
    pub all_paused: bool,
    /// Devices of which two branches are known, and no relay has decided.
    pub forked: Vec<DeviceNumber>,
    /// Files that this device attached and the relay does not have yet.
    pub files: u64,
    /// How many of them it did not take.
    pub refused_files: u64,
}

/// Where an object type stands.
///
/// ```
/// # use fieldkeep_model::status::TypeStatus;
/// # fieldkeep_lab::camp::example(async |device| {
/// let orders = device.status()?.types.into_iter().find(|view| view.ty.as_str() == "order");
/// let orders = orders.expect("the catalog has them");
/// assert_eq!((orders.status, orders.counts.local), (TypeStatus::FullySynced, 1));
/// assert!(orders.proven_at.is_some());
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeView {
    /// The type.
    pub ty: TypeName,
    /// Its status.
    pub status: TypeStatus,
    /// What is here and there of it.
    pub counts: TypeCounts,
    /// When the whole of it was last known to be equal to the relay's, milliseconds UTC.
    pub proven_at: Option<i64>,
    /// How many records have come while it is downloaded again, beside those that are here.
    pub fetched: Option<u64>,
}

impl Status {
    /// Records with changes of this device's own that have no receipt.
    ///
    /// ```
    /// # use fieldkeep_model::Edit;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// device.edit(&"order/o1".parse()?, vec![Edit::Add("boxes".into(), 1)])?;
    /// assert_eq!(device.status()?.unsaved(), 1);
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn unsaved(&self) -> u64 {
        self.types.iter().map(|ty| ty.counts.unsaved).sum()
    }

    /// Other records with changes without one, which this device carries for their authors.
    ///
    /// ```
    /// # use serde_json::json;
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::meeting(async |ann, ben| {
    /// # let listener = ben.listen("127.0.0.1:0".parse()?)?;
    /// # let address = listener.address();
    /// # tokio::spawn(async move { listener.serve().await });
    /// ben.save(&"customer/c2".parse()?, &json!({"name": "Pier"}))?; // He has no signal.
    /// ann.sync_with(address, Duration::from_secs(60)).await?;
    /// assert_eq!((ann.status()?.unsaved(), ann.status()?.carried()), (0, 1));
    /// ann.sync(Duration::from_secs(60)).await?;
    /// assert_eq!(ann.status()?.carried(), 0);
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.types.iter().map(|ty| ty.counts.carried).sum()
    }

    /// Held records.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// assert_eq!(device.status()?.held(), 1);
    /// assert_eq!(device.attention()?.len(), 1); // Which one, and why.
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn held(&self) -> u64 {
        self.types.iter().map(|ty| ty.counts.held).sum()
    }

    /// Whether everything here is proven equal to all that the relay is known to have, and nothing is
    /// unsaved, no file either; never while a type is paused.
    ///
    /// ```
    /// # use fieldkeep_model::Edit;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// assert!(device.status()?.is_synced());
    /// device.edit(&"order/o1".parse()?, vec![Edit::Add("boxes".into(), 1)])?;
    /// assert!(!device.status()?.is_synced());
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn is_synced(&self) -> bool {
        !self.types.is_empty() && self.files == 0 && self.types.iter().all(TypeView::is_synced)
    }
}

/// When everything was last exchanged and proven, milliseconds UTC.
const SYNCED: &str = "synced";
/// Why the last contact did not end well.
const FAILURE: &str = "sync_failure";

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Failure {
    #[n(0)]
    pub(crate) reason: String,
    #[n(1)]
    pub(crate) permanent: bool,
    /// Whether what is stored here was not what was written.
    #[n(2)]
    pub(crate) damaged: bool,
    /// Since when it is so, milliseconds UTC.
    #[n(3)]
    pub(crate) time: i64,
}

impl Device {
    /// What is shown of this device.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let status = device.status()?;
    /// assert!(status.is_synced());
    /// assert_eq!((status.unsaved(), status.held()), (0, 1));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn status(&self) -> Result<Status, ReplicaError> {
        let (strip, fetched) = (self.strip()?, self.0.fetched()?);
        let mut engine = self.engine();
        let mut types = engine.types()?;
        for view in &mut types {
            view.fetched = fetched.get(&view.ty).copied();
            if view.fetched.is_some() {
                view.status = TypeStatus::Syncing;
            }
        }
        let all_paused = engine.stored_pauses()?.all;
        let mut forked: Vec<_> = engine
            .replica_mut()
            .undecided_forks()?
            .iter()
            .map(|fork| fork.actor.device())
            .collect();
        forked.sort_unstable();
        forked.dedup();
        let last_sync = moment(engine.replica(), SYNCED)?;
        let [files, refused_files] = engine.replica().store().upload_counts()?;
        Ok(Status { strip, last_sync, types, all_paused, forked, files, refused_files })
    }

    /// The number of the catalog here, and when that was last known to be the relay's, milliseconds UTC;
    /// nothing before the first has come.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let (number, seen) = device.catalog_number()?.expect("the relay has sent one");
    /// assert_eq!(number, 1);
    /// assert!(seen.is_some());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn catalog_number(&self) -> Result<Option<(u64, Option<i64>)>, StoreError> {
        let engine = self.engine();
        let seen = offer(engine.replica())?.map(|(time, _)| time);
        Ok(engine.replica().published().map(|published| (published.number, seen)))
    }

    /// How this device stands to its relay; why the last contact failed where nobody tries by now.
    ///
    /// ```
    /// # use fieldkeep_device::Strip;
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// assert_eq!(device.strip()?, Strip::Offline); // The last sync went well, and is over.
    /// let failed = device.sync(Duration::ZERO).await.expect_err("there was no time");
    /// let Strip::Error { reason, .. } = device.strip()? else { panic!("it failed") };
    /// assert_eq!(reason, failed.to_string());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn strip(&self) -> Result<Strip, StoreError> {
        let strip = self.0.strip();
        if strip != Strip::Offline {
            return Ok(strip);
        }
        Ok(self.failure()?.map_or(strip, |Failure { reason, permanent, .. }| Strip::Error {
            reason,
            retry_at: None,
            permanent,
        }))
    }

    /// Why the last contact did not end well, if it did not.
    pub(crate) fn failure(&self) -> Result<Option<Failure>, StoreError> {
        let kept = self.engine().replica().store().setting(FAILURE)?;
        Ok(kept.and_then(|kept| minicbor::decode(&kept).ok()))
    }

    /// Shows how this device stands to its relay from now on.
    pub(crate) fn show(&self, strip: Strip) {
        if self.0.replace_strip(strip.clone()) != strip {
            let _ = self.0.events.send(Event::Strip(strip));
        }
    }

    /// Looks at how far the session with the relay has come; where everything is exchanged, that is
    /// kept for the status that is shown later.
    pub(crate) fn look(&self) -> Result<(), ReplicaError> {
        let mut engine = self.engine();
        if !engine.is_online() {
            return Ok(());
        }
        let syncing = !(engine.may_be_complete() && engine.progress()?.complete());
        if !syncing && self.0.strip() != (Strip::Online { syncing }) {
            let store = engine.replica_mut().store_mut();
            store.set(SYNCED, now().to_string().as_bytes())?;
            store.set(FAILURE, b"")?;
            let outputs = engine.commit()?;
            self.0.deliver(&engine, outputs);
        }
        drop(engine);
        self.show(Strip::Online { syncing });
        Ok(())
    }

    /// Keeps why a contact did not end well, and shows it with the time of the next try.
    pub(crate) fn failed(&self, error: &SyncError, retry_at: Option<i64>) {
        let (reason, permanent) = (error.to_string(), error.is_permanent());
        let damaged = matches!(error, SyncError::Integrity(_));
        self.keep_failure(&reason, permanent, damaged);
        self.show(Strip::Error { reason, retry_at, permanent });
    }

    /// Keeps that what is stored is not what was written, and shows it.
    pub(crate) fn is_damaged(&self, wrong: &Integrity) {
        let reason = format!("{wrong}: nothing is proven before that is mended");
        self.keep_failure(&reason, false, true);
        self.show(Strip::Error { reason, retry_at: None, permanent: false });
    }

    /// Forgets that something was damaged: it was derived again.
    pub(crate) fn is_mended(&self) -> Result<(), ReplicaError> {
        if !self.failure()?.is_some_and(|failure| failure.damaged) {
            return Ok(());
        }
        self.with_replica(|replica| Ok::<_, ReplicaError>(replica.store_mut().set(FAILURE, b"")?))?;
        if matches!(self.0.strip(), Strip::Error { .. }) {
            self.show(Strip::Offline);
        }
        Ok(())
    }

    fn keep_failure(&self, reason: &str, permanent: bool, damaged: bool) {
        // The first of several tries tells since when.
        let before = self.failure().ok().flatten();
        let time = before.map_or_else(now, |failure| failure.time);
        let failure = Failure { reason: reason.to_owned(), permanent, damaged, time };
        let failure = minicbor::to_vec(&failure).expect("encoding into memory cannot fail");
        let kept = self.with_replica(|replica| {
            Ok::<_, ReplicaError>(replica.store_mut().set(FAILURE, &failure)?)
        });
        if let Err(error) = kept {
            tracing::debug!(%error, "why a sync failed is not kept over a restart");
        }
    }
}

impl TypeView {
    /// Whether the type is proven equal to all that the relay is known to have of it, as far as this
    /// device may read it, and nothing of it is unsaved.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// device.pause(Some(&"visit".parse()?))?;
    /// let status = device.status()?;
    /// let synced = status.types.iter().filter(|view| view.is_synced());
    /// let synced: Vec<_> = synced.map(|view| view.ty.as_str()).collect();
    /// assert_eq!(synced, ["customer", "order"]); // What is paused is never called synced.
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn is_synced(&self) -> bool {
        matches!(self.status, TypeStatus::FullySynced | TypeStatus::SubsetSynced)
    }
}

impl Engine {
    /// Where every object type stands: those of the catalog, and those of which there are records.
    ///
    /// ```
    /// # use fieldkeep_device::TypeView;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let synced = |types: Vec<TypeView>| types.iter().all(TypeView::is_synced);
    /// assert!(!synced(ann.types()?)); // An order is on this device alone.
    /// wire.relay(&mut ann)?;
    /// assert!(synced(ann.types()?));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn types(&self) -> Result<Vec<TypeView>, StoreError> {
        let replica = self.replica();
        let paused = self.stored_pauses()?;
        // What is proven stays so until the relay, which has just been reached, says otherwise.
        let asking = self.is_online() && !self.is_answered();
        let mut counts = replica.views().counts_by_type()?;
        let mut types = Vec::new();
        for ty in replica.types() {
            let (proven, proven_at) = proof(replica, &ty, &paused)?;
            let counts = counts.remove(&ty).unwrap_or_default();
            let status = if paused.pauses(&ty) {
                TypeStatus::Paused
            } else if self.is_fetching(&ty) || (asking && !proven) {
                TypeStatus::Syncing
            } else if !proven || counts.unsaved + counts.carried > 0 {
                TypeStatus::Incomplete
            } else if replica.holds_in_part(&ty) {
                TypeStatus::SubsetSynced
            } else {
                TypeStatus::FullySynced
            };
            types.push(TypeView { ty, status, counts, proven_at, fetched: None });
        }
        Ok(types)
    }

    /// Whether the relay has said that something of a type is missing here or there, and it is not
    /// exchanged yet.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let order = "order".parse()?;
    /// assert!(!ben.is_fetching(&order)); // There is no connection.
    /// wire.relay(&mut ben)?;
    /// assert!(!ben.is_fetching(&order)); // All that the relay has is here.
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn is_fetching(&self, ty: &TypeName) -> bool {
        let of_type = |row: &&SegmentRow| row.address.ty == *ty;
        let mut rows = self.replica().segments().values().filter(of_type);
        self.is_online() && rows.any(|row| self.is_open(&row.id))
    }
}

/// Whether all that may be read here of a type is proven equal, and since when at least.
fn proof(
    replica: &Replica,
    ty: &TypeName,
    now: &LeftOut,
) -> Result<(bool, Option<i64>), StoreError> {
    // Before the relay has answered an offer nobody knows what there is.
    let Some((offered, left_out)) = offer(replica)? else { return Ok((false, None)) };
    let me = replica.members().author(&replica.me().actor());
    let mine = |row: &&SegmentRow| {
        let SegmentRow { address, .. } = row;
        let wanted = address.ty == *ty && !now.unsubscribes(ty, &address.scope);
        // Of a generation that is over, another one has the records; what is left in it is unsaved.
        let stands = !replica.is_apart(address);
        wanted && stands && me.is_some_and(|me| me.may(&address.ty, &address.scope))
    };
    // What was left out then and is wanted by now nobody has asked for.
    let asked = match (left_out.scopes.get(ty), now.scopes.get(ty)) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(then), Some(now)) => now.is_subset(then),
    };
    let (mut proven, mut since) = (asked && !left_out.pauses(ty), None);
    for row in replica.segments().values().filter(mine).filter(|row| row.told > 0 || row.tip > 0) {
        proven &= replica.is_proven(&row.id);
        let at = (row.proven > 0).then(|| row.proven_time.max(offered));
        since = match (since, at) {
            (None, at) => Some(at),
            (Some(since), at) => Some(at.min(since)),
        };
    }
    Ok((proven, since.unwrap_or(Some(offered))))
}

/// When the relay last told how this device stands, and which types were left out of that.
fn offer(replica: &Replica) -> Result<Option<(i64, LeftOut)>, StoreError> {
    let kept = replica.store().setting(OFFERED)?;
    Ok(kept.and_then(|kept| minicbor::decode(&kept).ok()))
}

/// A moment that is kept as a setting, milliseconds UTC.
pub(crate) fn moment(replica: &Replica, key: &str) -> Result<Option<i64>, StoreError> {
    let value = replica.store().setting(key)?;
    Ok(value.and_then(|value| String::from_utf8(value).ok()?.parse().ok()))
}
