//! Downloading again, and clearing.
//!
//! What the relay has is fetched into a copy beside what is here, which stays as it is and can be
//! written meanwhile. Once the copy is proven, one commit puts it in the place of what was here, with
//! what is unsaved on top. Whoever is stopped before that has the old state, and what was fetched goes
//! on from there the next time; whoever is stopped after it has the new one.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use fieldkeep_catalog::Catalog;
use fieldkeep_model::status::LeftOut;
use fieldkeep_model::{SegmentAddress, TypeName};
use fieldkeep_replica::{Replica, ReplicaError};
use fieldkeep_store::{
    Catalogs as _, Home, HomeError, Log as _, Pins as _, Records as _, Settings as _, StoreError,
    StoredCatalog, home,
};

use crate::control::ControlError;
use crate::device::{Device, Event, OpenError, now};
use crate::engine::Exchanged;
use crate::status::Strip;
use crate::sync::{SyncError, SyncReport, off};

/// What downloading again came to.
///
/// ```
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// let done = device.resync(None, Duration::from_secs(60)).await?;
/// assert_eq!((done.types.len(), done.records), (3, 2));
/// assert_eq!(done.exchanged.removed, 0);
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resynced {
    /// The types that were downloaded.
    pub types: BTreeSet<TypeName>,
    /// Records of them that are here now.
    pub records: u64,
    /// What else has changed.
    pub exchanged: Exchanged,
    /// The sync that sent what is unsaved, and proved all of it.
    pub report: SyncReport,
}

/// What clearing some types would do, as far as this device knows.
///
/// ```
/// # use fieldkeep_model::Edit;
/// # fieldkeep_lab::camp::example(async |device| {
/// device.edit(&"order/o1".parse()?, vec![Edit::Add("boxes".into(), 1)])?; // Not on the relay yet.
/// let plan = device.clear_plan(Some(&"order".parse()?))?;
/// assert_eq!((plan.replaced, plan.unsaved), (1, 1)); // It is fetched, and the box stays.
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClearPlan {
    /// The types.
    pub types: BTreeSet<TypeName>,
    /// Records of them here: their local copies go, once what the relay has of them is here.
    pub replaced: u64,
    /// Records among them with changes that have no receipt: those stay.
    pub unsaved: u64,
    /// Records among them that are in use: those stay.
    pub in_use: u64,
    /// Changes that lie aside: those stay.
    pub aside: u64,
    /// Records in scopes that this device may not read any more, or left out: those go, and do not come back.
    pub withdrawn: u64,
}

/// Why data could not be downloaded again. What was here is here, as it was.
///
/// ```
/// # use fieldkeep_device::ResyncError;
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// let order = "order".parse()?;
/// device.pause(Some(&order))?;
/// let refused = device.resync(Some(&order), Duration::from_secs(60)).await;
/// assert!(matches!(refused, Err(ResyncError::Paused(_))));
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum ResyncError {
    /// The types are not there.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A type is paused.
    #[error("syncing of {0} is paused: nothing was changed")]
    Paused(TypeName),
    /// It could not be fetched, or not be proven.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// There is no room for a copy beside what is here.
    #[error(transparent)]
    Copy(#[from] OpenError),
}

impl From<ReplicaError> for ResyncError {
    fn from(error: ReplicaError) -> Self {
        Self::Sync(error.into())
    }
}

impl From<StoreError> for ResyncError {
    fn from(error: StoreError) -> Self {
        Self::Sync(error.into())
    }
}

impl From<HomeError> for ResyncError {
    fn from(error: HomeError) -> Self {
        Self::Copy(error.into())
    }
}

impl ResyncError {
    /// The same, where syncing led to it.
    fn into_sync(self) -> SyncError {
        match self {
            Self::Sync(error) => error,
            Self::Control(error) => SyncError::Cut(error.to_string()),
            Self::Paused(_) => SyncError::Cut(self.to_string()),
            Self::Copy(error) => SyncError::Cut(error.to_string()),
        }
    }
}

/// What is left out is asked for, for as long as this lives.
struct Asked<'d> {
    device: &'d Device,
    before: LeftOut,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.device.change_pauses(self.before.clone()) {
            tracing::warn!(%error, "what is left out is asked for until the next start");
        }
    }
}

/// The catalog that waits for new generations, and the types that have them.
fn awaited(replica: &Replica) -> Result<(Option<StoredCatalog>, BTreeSet<TypeName>), StoreError> {
    let awaited = replica.catalog_ahead()?;
    let catalog = awaited.as_ref().and_then(|awaited| Catalog::parse(&awaited.source).ok());
    let types = catalog.map(|catalog| replica.outlived_by(&catalog)).unwrap_or_default();
    Ok((awaited, types))
}

/// Why nothing of a download was put in place.
fn started_afresh() -> SyncError {
    let why = "a type was started afresh meanwhile, and what is unsaved here goes first";
    SyncError::Cut(why.to_owned())
}

/// How often a new generation is tried to be put in place while somebody writes.
const MOVES: usize = 10;
/// The types that a copy is of.
const COPIES: &str = "copies";

impl Device {
    /// Downloads a type, or all that are not paused, once more, and unites that with what is here:
    /// nothing vanishes meanwhile, and what is damaged here is replaced. Ends with a proof.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let patience = Duration::from_secs(60);
    /// let done = device.resync(Some(&"order".parse()?), patience).await?;
    /// assert_eq!(done.records, 1);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`ResyncError`].
    pub async fn resync(
        &self,
        ty: Option<&TypeName>,
        timeout: Duration,
    ) -> Result<Resynced, ResyncError> {
        self.download(ty, false, timeout).await
    }

    /// The same, and removes what this device may not read any more. What is unsaved,
    /// what lies aside and what is in use survives, and can be read all along.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let patience = Duration::from_secs(60);
    /// let plan = device.clear_plan(None)?; // What goes, and what stays.
    /// assert_eq!((plan.replaced, plan.withdrawn), (2, 0));
    /// device.clear_and_resync(None, patience).await?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`ResyncError`].
    pub async fn clear_and_resync(
        &self,
        ty: Option<&TypeName>,
        timeout: Duration,
    ) -> Result<Resynced, ResyncError> {
        self.download(ty, true, timeout).await
    }

    /// What [`Device::clear_and_resync`] would do.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let open = device.pin(&"order/o1".parse()?, "till", "the present order")?;
    /// let plan = device.clear_plan(None)?;
    /// assert_eq!((plan.types.len(), plan.replaced, plan.in_use), (3, 2, 1));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`ResyncError`].
    pub fn clear_plan(&self, ty: Option<&TypeName>) -> Result<ClearPlan, ResyncError> {
        let types = self.downloadable(ty)?;
        let engine = self.engine();
        let replica = engine.replica();
        let mut plan = ClearPlan { types, ..ClearPlan::default() };
        let mut counts = replica.views().counts_by_type()?;
        for ty in &plan.types {
            let counts = counts.remove(ty).unwrap_or_default();
            plan.replaced += counts.local;
            plan.unsaved += counts.unsaved + counts.carried;
        }
        for row in replica.segments().values().filter(|row| plan.types.contains(&row.address.ty)) {
            plan.aside += replica.store().asides_in(row.sid)?.len() as u64;
            plan.withdrawn +=
                if !engine.is_given_up(row) || engine.is_in_use(&row.id)? { 0 } else { row.live };
        }
        let pins = replica.store().pins()?.into_iter().map(|pin| pin.key);
        let pinned: BTreeSet<_> = pins.filter(|key| plan.types.contains(&key.ty)).collect();
        for key in pinned {
            plan.in_use += u64::from(!replica.store().find(&key.ty, &key.id)?.is_empty());
        }
        Ok(plan)
    }

    /// A type that may be downloaded, or all of them.
    fn downloadable(&self, ty: Option<&TypeName>) -> Result<BTreeSet<TypeName>, ResyncError> {
        let mut types = self.known_type(ty)?;
        let paused = self.paused()?;
        match ty {
            Some(ty) if paused.pauses(ty) => Err(ResyncError::Paused(ty.clone())),
            Some(ty) => Ok(BTreeSet::from([ty.clone()])),
            None => {
                types.retain(|ty| !paused.pauses(ty));
                Ok(types)
            }
        }
    }

    async fn download(
        &self,
        ty: Option<&TypeName>,
        clears: bool,
        timeout: Duration,
    ) -> Result<Resynced, ResyncError> {
        let wanting = self.0.want_turn();
        let _turn = self.turn().await;
        drop(wanting);
        let types = self.downloadable(ty)?;
        self.show(Strip::Connecting);
        if self.is_to_move()? {
            self.move_on(timeout).await?;
        }
        if clears {
            self.prove_what_goes(&types, timeout).await?;
        }
        let copy = self.copy(&types, None)?;
        let fetching = self.0.fetch_into(&types, &copy);
        let filled = self.fill(&copy, &types, timeout).await;
        if let Err(ResyncError::Sync(error)) = &filled {
            self.failed(error, None);
        }
        filled?;
        drop(fetching);
        let (device, wanted) = (self.clone(), types.clone());
        let exchanged = off(move || device.put_in_place(&copy, &wanted, clears)).await?;
        let exchanged = exchanged.ok_or_else(started_afresh)?;
        // A copy that stays behind is found and used, or removed, the next time.
        let _ = home::remove(&self.copy_path());
        let synced = self.sync_once(timeout).await;
        if let Err(error) = &synced {
            self.failed(error, None);
        }
        let report = synced?;
        let counts = self.engine().replica().views().counts_by_type()?;
        let counts = counts.into_iter().filter(|(ty, _)| types.contains(ty));
        let records = counts.map(|(_, counts)| counts.local).sum();
        Ok(Resynced { types, records, exchanged, report })
    }

    /// Has the relay look once more at what is here and was left out, before that goes: it may have been
    /// put back from an old copy since, and nobody else may have it.
    async fn prove_what_goes(
        &self,
        types: &BTreeSet<TypeName>,
        timeout: Duration,
    ) -> Result<(), SyncError> {
        let asked = {
            let engine = self.engine();
            let before = engine.stored_pauses()?;
            let mut asked = before.clone();
            for row in engine.replica().segments().values().filter(|row| row.tip > 0) {
                let SegmentAddress { ty, scope, .. } = &row.address;
                if types.contains(ty) && before.unsubscribes(ty, scope) {
                    asked.scopes.entry(ty.clone()).or_default().insert(scope.clone());
                }
            }
            if asked == before {
                return Ok(());
            }
            drop(engine);
            self.change_pauses(asked)?;
            Asked { device: self, before }
        };
        let synced = self.sync_once(timeout).await;
        drop(asked);
        synced.map(drop)
    }

    /// Fetches into a copy, and shows meanwhile that something is under way. Whoever pauses a type of it
    /// ends that.
    async fn fill(
        &self,
        copy: &Self,
        types: &BTreeSet<TypeName>,
        timeout: Duration,
    ) -> Result<(), ResyncError> {
        let (mut events, mut own) = (copy.watch(), self.watch());
        let mut syncing = pin!(copy.synced_alone(timeout));
        loop {
            let paused = self.paused()?;
            if let Some(ty) = types.iter().find(|ty| paused.pauses(ty)) {
                return Err(ResyncError::Paused(ty.clone()));
            }
            tokio::select! {
                synced = &mut syncing => return Ok(synced.map(drop)?),
                _ = own.recv() => {}
                Ok(event) = events.recv() => match event {
                    Event::Strip(Strip::Online { .. }) => {
                        self.show(Strip::Online { syncing: true });
                    }
                    // How much has come is looked up by whoever shows it.
                    Event::Changed(_) => self.0.tell_status(),
                    Event::Strip(_) | Event::Status | Event::Met(_) | Event::Left(_) => {}
                }
            }
        }
    }

    /// Puts a copy in the place of what is here, in one commit; nothing if it is of a later generation,
    /// and something here is not in that.
    fn put_in_place(
        &self,
        copy: &Self,
        types: &BTreeSet<TypeName>,
        clears: bool,
    ) -> Result<Option<Exchanged>, ReplicaError> {
        let mut engine = self.engine();
        let fresh = copy.engine();
        if !engine.is_ready_for(fresh.replica(), types)? {
            return Ok(None);
        }
        let adopted = engine.adopt(fresh.replica(), types, clears, now());
        let adopted = match adopted {
            Ok(adopted) => adopted,
            Err(error) => {
                engine.give_up()?;
                return Err(error);
            }
        };
        let outputs = engine.commit()?;
        self.0.deliver(&engine, outputs);
        Ok(Some(adopted))
    }

    /// A replica of this device beside it that holds nothing but those types: the one that was begun
    /// the last time, if it is of the same.
    fn copy(
        &self,
        types: &BTreeSet<TypeName>,
        catalog: Option<StoredCatalog>,
    ) -> Result<Self, ResyncError> {
        let path = self.copy_path();
        let wanted = self.paused()?.scopes;
        let names = types.iter().map(|ty| format!("{ty} {:?}", wanted.get(ty)));
        let number =
            catalog.as_ref().map(|catalog| format!("{} {}", catalog.epoch, catalog.number));
        let names = names.chain(number).collect::<Vec<_>>().join("\n");
        if path.exists() {
            let begun = Home::open(&path).map_err(OpenError::from);
            let begun = begun.and_then(|home| Ok((home.store()?, home)));
            match begun {
                Ok((store, home))
                    if store.setting(COPIES)?.as_deref() == Some(names.as_bytes()) =>
                {
                    return Ok(Self::over(home, store, self.0.seed.clone())?);
                }
                Ok(_) | Err(_) => home::remove(&path)?,
            }
        }
        let home = Home::create(&path)?;
        let mut store = home.store()?;
        let engine = self.engine();
        let replica = engine.replica();
        for (number, entry) in (0..).zip(replica.members().since(0)) {
            store.append_member(number, entry)?;
        }
        for key in ["role", "number", "relays"] {
            store.set(key, &replica.store().setting(key)?.unwrap_or_default())?;
        }
        if let Some(catalog) =
            catalog.map_or_else(|| replica.store().newest_catalog(), |c| Ok(Some(c)))?
        {
            store.put_catalog(&catalog)?;
        }
        let others = replica.types().into_iter().filter(|ty| !types.contains(ty)).collect();
        drop(engine);
        home.renew_identity(&mut store, crate::device::drawn()?)?;
        store.commit()?;
        let copy = Self::over(home, store, self.0.seed.clone())?;
        // It never writes; were it the same actor, the relay would take this device for restored.
        copy.with_replica(|replica| Ok::<_, ReplicaError>(replica.renew_incarnation()?))?;
        copy.change_pauses(LeftOut { types: others, scopes: wanted, ..LeftOut::default() })?;
        copy.with_replica(|replica| {
            Ok::<_, ReplicaError>(replica.store_mut().set(COPIES, names.as_bytes())?)
        })?;
        Ok(copy)
    }

    /// Whether a type was started afresh, and this device can move on to its new generation: nothing of
    /// it is paused.
    pub(crate) fn is_to_move(&self) -> Result<bool, StoreError> {
        let engine = self.engine();
        if !engine.replica().is_outrun() {
            return Ok(false);
        }
        let paused = engine.stored_pauses()?;
        let (_, types) = awaited(engine.replica())?;
        Ok(!types.iter().any(|ty| paused.pauses(ty)))
    }

    /// Downloads the new generations of types that were started afresh beside what is here, and puts
    /// them in its place in one commit, with the catalog that declares them. What was written meanwhile
    /// goes to the relay first, which has it carried over. The caller has the turn.
    ///
    /// # Errors
    /// See [`SyncError`]: what was here is here, as it was.
    pub(crate) async fn move_on(&self, timeout: Duration) -> Result<(), SyncError> {
        let (catalog, types) = awaited(self.engine().replica())?;
        let Some(catalog) = catalog else { return Ok(()) };
        let copy = self.copy(&types, Some(catalog)).map_err(ResyncError::into_sync)?;
        let fetching = self.0.fetch_into(&types, &copy);
        self.fill(&copy, &types, timeout).await.map_err(ResyncError::into_sync)?;
        drop(fetching);
        for _ in 0..MOVES {
            // What was written meanwhile goes to the relay, and comes back in the new generation.
            self.sync_once(timeout).await?;
            self.fill(&copy, &types, timeout).await.map_err(ResyncError::into_sync)?;
            let (device, fresh, wanted) = (self.clone(), copy.clone(), types.clone());
            let moved = off(move || device.put_in_place(&fresh, &wanted, false)).await?;
            if moved.is_some() {
                // A copy that stays behind is found and used, or removed, the next time.
                let _ = home::remove(&self.copy_path());
                tracing::info!(types = ?types, "moved on to new generations");
                return Ok(());
            }
        }
        Err(SyncError::Cut("somebody keeps writing: the new generation waits".to_owned()))
    }

    fn copy_path(&self) -> PathBuf {
        self.directory().join("resync")
    }
}
