//! Catalogs: published by a relay, taken over by devices, kept for ever, and brought back.

use fieldkeep_catalog::{Catalog, CatalogError};
use fieldkeep_model::{CatalogHash, Epoch, OrgId, Signed};
use fieldkeep_store::{Catalogs, Publication, Settings, StoreError, StoredCatalog, Turned};
use minicbor::{Decode, Encode};

use crate::identity::Role;
use crate::replica::{Replica, ReplicaError};
use crate::reshape::{Reshape, stored_reshape};

/// The context of a catalog notice.
pub(crate) const CATALOG_CONTEXT: &str = "fieldkeep 1 catalog";
/// The setting that holds a catalog that waits for a new generation.
const AHEAD: &str = "awaited_catalog";
/// The longest note, in characters.
const NOTE: usize = 1_000;

/// The catalog in force.
#[derive(Clone, Debug)]
pub struct Published {
    /// The epoch in which it was published.
    pub epoch: Epoch,
    /// Its number.
    pub number: u64,
    /// The relay's statement of it.
    pub notice: Signed,
    /// The catalog.
    pub catalog: Catalog,
}

/// What an operator says of a catalog that he publishes.
#[derive(Clone, Copy, Debug)]
pub struct Note<'n> {
    /// Why.
    pub text: &'n str,
    /// When, milliseconds UTC.
    pub time: i64,
}

/// Why an earlier catalog was not brought back.
#[derive(Debug, thiserror::Error)]
pub enum RollBackError {
    /// None of that number is kept here.
    #[error("no catalog {0} is kept here")]
    Unknown(u64),
    /// There is no other one than that in force.
    #[error("there is no earlier catalog than the one in force")]
    Nothing,
    /// The replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<StoreError> for RollBackError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

/// What a relay signs of a catalog.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct CatalogNotice {
    #[n(0)]
    pub(crate) org: OrgId,
    #[n(1)]
    pub(crate) epoch: Epoch,
    #[n(2)]
    pub(crate) number: u64,
    #[n(3)]
    hash: CatalogHash,
    #[n(4)]
    relay: u64,
}

impl Replica {
    /// The catalog in force.
    #[must_use]
    pub fn published(&self) -> Option<&Published> {
        self.published.as_ref()
    }

    pub(crate) fn catalog(&self) -> Option<Catalog> {
        self.published.as_ref().map(|published| published.catalog.clone())
    }

    /// Publishes a catalog, as the relay; devices take it over with [`Replica::adopt_catalog`]. What
    /// it changes for records is worked off with [`Replica::renew`]. Returns its number: that of the
    /// one in force if it is the same.
    ///
    /// # Errors
    /// [`ReplicaError::Frozen`] when it changes what is frozen, in the catalog in force or in an
    /// earlier one; when the disk refuses.
    pub fn publish(&mut self, catalog: Catalog) -> Result<u64, ReplicaError> {
        let Some(before) = self.published.clone() else {
            self.take_generations(&catalog)?;
            self.state_catalog(catalog, 1)?;
            return Ok(1);
        };
        if before.catalog.hash() == catalog.hash() {
            return Ok(before.number);
        }
        let errors = unpublishable(&self.store, &before.catalog, &catalog)?;
        if !errors.is_empty() {
            return Err(ReplicaError::Frozen(errors));
        }
        self.replace_catalog(&before, catalog)
    }

    /// Publishes the source of an earlier catalog again, under a new number: that of a number, or the
    /// newest that is another than the one in force. What it does not declare and the one in force
    /// does is held as of an unknown schema, and nothing of it is lost.
    ///
    /// # Errors
    /// When there is no such catalog; [`ReplicaError::Frozen`] where a type was started afresh since;
    /// when the disk refuses.
    pub fn roll_back(&mut self, to: Option<u64>) -> Result<u64, RollBackError> {
        let before = self.published.clone().ok_or(RollBackError::Nothing)?;
        let earlier = earlier_catalog(&self.store, &before.catalog, to)?;
        let catalog = Catalog::parse(&earlier.source).map_err(ReplicaError::Catalog)?;
        if catalog.hash() == before.catalog.hash() {
            return Ok(before.number);
        }
        let mut errors = before.catalog.check_frozen(&catalog);
        errors.extend(under_way(&self.store)?);
        if !errors.is_empty() {
            return Err(ReplicaError::Frozen(errors).into());
        }
        Ok(self.replace_catalog(&before, catalog)?)
    }

    pub(crate) fn replace_catalog(
        &mut self,
        before: &Published,
        catalog: Catalog,
    ) -> Result<u64, ReplicaError> {
        let changed = before.catalog.changed_types(&catalog);
        self.state_catalog(catalog, before.number + 1)?;
        let in_force = self.catalog().expect("just published");
        self.take_generations(&in_force)?;
        self.renew_types(&changed)?;
        Ok(before.number + 1)
    }

    /// Notes when and why the catalog in force was published.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note_catalog(&mut self, note: Note<'_>) -> Result<(), StoreError> {
        let Some(published) = &self.published else { return Ok(()) };
        let text: String = note.text.chars().take(NOTE).collect();
        self.store.note_publication(published.epoch, published.number, Some(note.time), &text)
    }

    /// Counts what became of records under the catalog in force.
    pub(crate) fn count_turned(&mut self, turned: Turned) -> Result<(), StoreError> {
        let Some(published) = self.published.as_ref().filter(|_| turned != Turned::default())
        else {
            return Ok(());
        };
        self.store.count_turned(published.epoch, published.number, turned)
    }

    /// Signs a catalog as the one in force.
    pub(crate) fn state_catalog(
        &mut self,
        catalog: Catalog,
        number: u64,
    ) -> Result<(), StoreError> {
        let notice = CatalogNotice {
            org: self.org(),
            epoch: self.epoch,
            number,
            hash: catalog.hash(),
            relay: self.me.number,
        };
        let notice = Signed::new(CATALOG_CONTEXT, &notice, &self.me.keys);
        let source = catalog.source().to_owned();
        self.store.put_catalog(&StoredCatalog {
            epoch: self.epoch,
            number,
            notice: notice.clone(),
            source,
        })?;
        self.store.note_publication(self.epoch, number, None, "")?;
        self.published = Some(Published { epoch: self.epoch, number, notice, catalog });
        Ok(())
    }

    /// Takes over a catalog that a relay states, if it is newer than the one in force. One that starts
    /// a type afresh of which this device has records waits until it has the new generation:
    /// [`Replica::catalog_ahead`]. Returns whether it was news, or waits.
    ///
    /// # Errors
    /// When no relay of the organisation signed it, or it does not parse.
    pub fn adopt_catalog(&mut self, notice: Signed, source: String) -> Result<bool, ReplicaError> {
        self.take_catalog(notice, source, true)
    }

    /// The same, where what is here of earlier generations has been taken out: nothing waits.
    ///
    /// # Errors
    /// See [`Replica::adopt_catalog`].
    pub fn move_to_catalog(
        &mut self,
        notice: Signed,
        source: String,
    ) -> Result<bool, ReplicaError> {
        self.take_catalog(notice, source, false)
    }

    fn take_catalog(
        &mut self,
        notice: Signed,
        source: String,
        waits: bool,
    ) -> Result<bool, ReplicaError> {
        let stated: CatalogNotice = notice.read().ok_or(ReplicaError::CatalogUnsigned)?;
        let signed: Option<CatalogNotice> =
            self.members.stated_by(stated.relay, CATALOG_CONTEXT, &notice);
        let signed =
            signed.is_some() && stated.org == self.org() && stated.hash == CatalogHash::of(&source);
        if !signed {
            return Err(ReplicaError::CatalogUnsigned);
        }
        let (epoch, number) = (stated.epoch, stated.number);
        if self.published.as_ref().is_some_and(|p| (p.epoch, p.number) >= (epoch, number)) {
            return Ok(false);
        }
        let stored = StoredCatalog { epoch, number, notice, source };
        let next = restore_catalog(stored.clone())?;
        let is_device = self.me.role == Role::Device;
        if is_device && waits && !self.outlived_by(&next.catalog).is_empty() {
            self.keep_ahead(&stored)?;
            return Ok(true);
        }
        self.store.put_catalog(&stored)?;
        let awaited = self.catalog_ahead()?.map(|awaited| (awaited.epoch, awaited.number));
        if awaited.is_some_and(|awaited| awaited <= (epoch, number)) {
            self.store.set(AHEAD, &[])?;
            self.outrun = false;
        }
        self.take_generations(&next.catalog)?;
        if let Some(before) = self.published.replace(next.clone()) {
            self.renew_types(&before.catalog.changed_types(&next.catalog))?;
        }
        // What the catalog before did not have may be taken under this one.
        self.store.forget_refusals("undeclared")?;
        Ok(true)
    }
}

/// A catalog that waits, as it is kept.
#[derive(Encode, Decode)]
struct Ahead(#[n(0)] Epoch, #[n(1)] u64, #[n(2)] Signed, #[n(3)] String);

impl Replica {
    /// The catalog that waits until this device has a new generation, if one does.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn catalog_ahead(&self) -> Result<Option<StoredCatalog>, StoreError> {
        let Some(bytes) = self.store.setting(AHEAD)?.filter(|bytes| !bytes.is_empty()) else {
            return Ok(None);
        };
        let damaged = |_| StoreError::Damaged("the catalog that waits".into());
        let Ahead(epoch, number, notice, source) = minicbor::decode(&bytes).map_err(damaged)?;
        Ok(Some(StoredCatalog { epoch, number, notice, source }))
    }

    /// Whether one does: see [`Replica::catalog_ahead`].
    #[must_use]
    pub fn is_outrun(&self) -> bool {
        self.outrun
    }

    fn keep_ahead(&mut self, next: &StoredCatalog) -> Result<(), StoreError> {
        let StoredCatalog { epoch, number, notice, source } = next.clone();
        if self.catalog_ahead()?.is_some_and(|known| (known.epoch, known.number) >= (epoch, number))
        {
            return Ok(());
        }
        let bytes = minicbor::to_vec(Ahead(epoch, number, notice, source));
        self.outrun = true;
        self.store.set(AHEAD, &bytes.expect("encoding into memory cannot fail"))
    }
}

/// What keeps a catalog from being published after the one in force: what is frozen; that it starts a
/// type afresh, which takes more than publishing; and that one is being started afresh, under the
/// catalog in force.
///
/// # Errors
/// When the disk fails.
pub fn unpublishable<S: Catalogs + Settings>(
    store: &S,
    in_force: &Catalog,
    next: &Catalog,
) -> Result<Vec<CatalogError>, StoreError> {
    let mut errors = frozen(store, in_force, next)?;
    errors.extend(in_force.check_generations(next));
    errors.extend(under_way(store)?);
    Ok(errors)
}

/// That a type is being started afresh, as an error of whatever is to be published meanwhile.
fn under_way(store: &impl Settings) -> Result<Option<CatalogError>, StoreError> {
    let Some(Reshape { ty, .. }) = stored_reshape(store)? else { return Ok(None) };
    Ok(Some(CatalogError {
        line: 1,
        column: 1,
        key: format!("type.{ty}"),
        problem: "a new generation of it is being written under the catalog in force".to_owned(),
        remedy: format!(
            "wait until that is done, or give it up: `fieldkeep relay reshape {ty} --give-up`"
        ),
    }))
}

/// What keeps a catalog from being in force after the one that is and all before it.
///
/// # Errors
/// When the disk fails.
pub(crate) fn frozen(
    store: &impl Catalogs,
    in_force: &Catalog,
    next: &Catalog,
) -> Result<Vec<CatalogError>, StoreError> {
    let mut errors = in_force.check_successor(next);
    if !errors.is_empty() {
        return Ok(errors);
    }
    // What was declared once and is not in force any more has its records still.
    store.each_catalog(|stored| {
        let earlier = Some(stored).filter(|stored| stored.source != in_force.source());
        let earlier = earlier.and_then(|stored| Catalog::parse(&stored.source).ok());
        errors = earlier.map(|earlier| earlier.check_frozen(next)).unwrap_or_default();
        Ok::<_, StoreError>(errors.is_empty())
    })?;
    Ok(errors)
}

/// The catalog to go back to: that of a number, or the newest that is another than the one in force.
///
/// # Errors
/// When there is none; when the disk fails.
pub fn earlier_catalog(
    store: &impl Catalogs,
    in_force: &Catalog,
    to: Option<u64>,
) -> Result<StoredCatalog, RollBackError> {
    if let Some(number) = to {
        return store.catalog(number)?.ok_or(RollBackError::Unknown(number));
    }
    let mut newest = None;
    store.each_catalog(|stored| {
        newest = Some(stored).filter(|s| s.source != in_force.source()).or(newest.take());
        Ok::<_, StoreError>(true)
    })?;
    newest.ok_or(RollBackError::Nothing)
}

/// A catalog that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCatalog {
    /// The epoch in which it was published.
    pub epoch: Epoch,
    /// Its number.
    pub number: u64,
    /// blake3 of the file.
    pub hash: CatalogHash,
    /// When and why, and what became of records by it.
    pub publication: Publication,
}

/// Every catalog that is kept, the newest first.
///
/// # Errors
/// When the disk fails.
pub fn kept_catalogs(store: &impl Catalogs) -> Result<Vec<KeptCatalog>, StoreError> {
    let mut kept = Vec::new();
    store.each_catalog(|StoredCatalog { epoch, number, source, .. }| {
        let publication = store.publication(epoch, number)?.unwrap_or_default();
        kept.push(KeptCatalog { epoch, number, hash: CatalogHash::of(&source), publication });
        Ok::<_, StoreError>(true)
    })?;
    kept.reverse();
    Ok(kept)
}

pub(crate) fn restore_catalog(stored: StoredCatalog) -> Result<Published, ReplicaError> {
    let catalog = Catalog::parse(&stored.source).map_err(ReplicaError::Catalog)?;
    Ok(Published { epoch: stored.epoch, number: stored.number, notice: stored.notice, catalog })
}
