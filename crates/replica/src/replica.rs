//! The replica itself: what it holds in memory, how it opens, and how it commits.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_catalog::{CatalogError, Judges, ObjectType};
use fieldkeep_model::membership::{Act, Entry};
use fieldkeep_model::status::{Generations, Subscriptions};
use fieldkeep_model::{
    DeviceNumber, Epoch, MembershipError, MembershipLog, OrgId, SegmentAddress, SegmentId, Signed,
};
use fieldkeep_store::{
    Apart, Catalogs as _, Publication, SegmentRow, Segments as _, Settings as _, Store, StoreError,
};

use crate::cache::Cache;
use crate::identity::{Me, Role};
use crate::publishing::{Published, restore_catalog};
use crate::quota::OverQuota;
use crate::renewal::Renewal;
use crate::reshape::{Drafts, Underway};

/// Why a replica could not do what it was asked: all of it lies in the store or in the catalog.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The membership log does not verify.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The catalog does not parse.
    #[error("the catalog cannot be used:\n{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Catalog(Vec<CatalogError>),
    /// The catalog changes what is frozen once a type is published.
    #[error("the catalog cannot replace the published one:\n{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Frozen(Vec<CatalogError>),
    /// The catalog is not signed by a relay of the organisation.
    #[error("the catalog is not signed by a relay of this organisation")]
    CatalogUnsigned,
    /// A segment's own changes do not merge: a fault of ours, or a damaged disk.
    #[error("segment {0} cannot be merged ({1}); everything else goes on")]
    Damaged(SegmentId, String),
}

impl ReplicaError {
    /// Whether something stored is not what was written: it concerns one segment, and everything
    /// else goes on.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(..) | Self::Store(StoreError::Damaged(_)))
    }

    /// The segment that is damaged, as far as that is known.
    pub(crate) fn damaged(&self) -> Option<SegmentId> {
        if let Self::Damaged(id, _) = self { Some(*id) } else { None }
    }

    /// The same, where it came of reading that segment.
    pub(crate) fn in_segment(self, id: &SegmentId) -> Self {
        if let Self::Store(StoreError::Damaged(what)) = self {
            return Self::Damaged(*id, what);
        }
        self
    }
}

/// A device's or a relay's engine over its store.
#[derive(Debug)]
pub struct Replica {
    pub(crate) store: Store,
    pub(crate) me: Me,
    pub(crate) members: MembershipLog,
    pub(crate) published: Option<Published>,
    pub(crate) segments: BTreeMap<SegmentId, SegmentRow>,
    /// The ids of segments by their numbers in the store. May hold more than there are: one that
    /// was undone is passed over.
    numbers: BTreeMap<i64, SegmentId>,
    pub(crate) dirty: BTreeSet<SegmentId>,
    /// Segments with log entries that are not materialised.
    pub(crate) behind: BTreeSet<SegmentId>,
    pub(crate) cache: Cache,
    pub(crate) epoch: Epoch,
    pub(crate) renewal: Renewal,
    /// The generations of types that are in force.
    pub(crate) generations: Generations,
    /// What stands of segments of other generations.
    pub(crate) apart: BTreeMap<SegmentId, Apart>,
    /// The new generation that is being written.
    pub(crate) writing: Option<Underway>,
    pub(crate) drafts: Drafts,
    /// Segments that were taken out: a file has them.
    pub(crate) archived: BTreeSet<SegmentId>,
    /// Whether a catalog waits until this device has a new generation.
    pub(crate) outrun: bool,
    /// Of these types only those scopes are kept here.
    pub(crate) subscriptions: Subscriptions,
    /// The rules in Rust that a relay judges by.
    pub(crate) judges: Judges,
    /// Whose further changes a relay keeps aside.
    pub(crate) over_quota: OverQuota,
    /// Bytes of changes that members brought into the log, and of verdicts that came of them, since they
    /// were asked for, by author.
    pub(crate) appended: BTreeMap<DeviceNumber, u64>,
    entropy: blake3::OutputReader,
}

impl Replica {
    /// Keeps nothing new of those types but those scopes: nothing else of them is written here, and what
    /// a forecast would have to look at may be elsewhere.
    pub fn set_subscriptions(&mut self, subscriptions: Subscriptions) {
        self.subscriptions = subscriptions;
    }

    /// Judges by those rules in Rust, where a catalog names them; a device leaves that to its relay.
    pub fn set_judges(&mut self, judges: Judges) {
        self.judges = judges;
    }

    /// The rules in Rust that it judges by.
    #[must_use]
    pub fn judges(&self) -> &Judges {
        &self.judges
    }

    /// Opens a replica over its store. `entropy` is 32 bytes drawn by the shell: seals of verdicts
    /// and incarnations come from them.
    ///
    /// # Errors
    /// When the store, the membership log or the catalog cannot be read.
    pub fn open(
        store: Store,
        me: Me,
        members: MembershipLog,
        entropy: [u8; 32],
    ) -> Result<Self, ReplicaError> {
        let rows = store.segments()?;
        let published = store.newest_catalog()?.map(restore_catalog).transpose()?;
        let epoch = stored_epoch(&store)?;
        let cache = Cache::of(me.role);
        let key = me.keys.public();
        let known = members.by_signing(&key).into_iter();
        let former = known.flat_map(|member| member.signing_keys()).filter(|had| *had != key);
        let me = Me { former: former.collect(), ..me };
        let behind = rows.iter().filter(|row| row.done < row.tip).map(|row| row.id).collect();
        let mut replica = Self {
            store,
            me,
            members,
            published,
            numbers: rows.iter().map(|row| (row.sid, row.id)).collect(),
            segments: rows.into_iter().map(|row| (row.id, row)).collect(),
            dirty: BTreeSet::new(),
            behind,
            cache,
            epoch,
            renewal: Renewal::default(),
            generations: Generations::new(),
            apart: BTreeMap::new(),
            writing: None,
            drafts: Drafts::default(),
            archived: BTreeSet::new(),
            outrun: false,
            subscriptions: Subscriptions::default(),
            judges: Judges::default(),
            over_quota: OverQuota::default(),
            appended: BTreeMap::new(),
            entropy: blake3::Hasher::new_keyed(&entropy).finalize_xof(),
        };
        replica.recall_generations()?;
        replica.take_up_renewal()?;
        Ok(replica)
    }

    /// Makes everything written since the last commit durable.
    ///
    /// # Errors
    /// When the disk refuses. Nothing since the last commit was saved then, and the replica goes on
    /// from what was.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        let result = self.save_dirty().and_then(|()| self.store.commit());
        if result.is_err() {
            self.forget()?;
        }
        result
    }

    fn save_dirty(&mut self) -> Result<(), StoreError> {
        for id in std::mem::take(&mut self.dirty) {
            self.store.save_segment(&self.segments[&id])?;
        }
        Ok(())
    }

    /// Drops what is in memory and not on disk, after a failure.
    ///
    /// # Errors
    /// When the store cannot be read either.
    pub fn forget(&mut self) -> Result<(), StoreError> {
        self.store.rollback();
        self.appended.clear();
        self.dirty.clear();
        self.cache.clear();
        self.segments = self.store.segments()?.into_iter().map(|row| (row.id, row)).collect();
        let open = self.segments.values().filter(|row| row.done < row.tip);
        self.behind = open.map(|row| row.id).collect();
        let damaged = |what: &str| StoreError::Damaged(what.to_owned());
        // Both only grow: where nothing of them was undone, they need not be verified and read again.
        let entries = self.store.members()?;
        if entries.len() as u64 != self.members.len() {
            self.members =
                MembershipLog::open(entries).map_err(|error| damaged(&error.to_string()))?;
        }
        let stored = self.store.newest_catalog()?;
        let held = self.published.as_ref().map(|published| (published.epoch, published.number));
        if stored.as_ref().map(|stored| (stored.epoch, stored.number)) != held {
            let catalog = stored.map(restore_catalog).transpose();
            self.published = catalog.map_err(|error| damaged(&error.to_string()))?;
        }
        self.epoch = stored_epoch(&self.store)?;
        self.recall_generations()?;
        self.take_up_renewal()?;
        let incarnation =
            self.store.setting("incarnation")?.and_then(|bytes| bytes.try_into().ok());
        self.me.incarnation = u32::from_be_bytes(incarnation.unwrap_or_default());
        Ok(())
    }

    /// Who this replica is.
    #[must_use]
    pub fn me(&self) -> &Me {
        &self.me
    }

    /// The organisation.
    #[must_use]
    pub fn org(&self) -> OrgId {
        self.members.org()
    }

    /// The membership log.
    #[must_use]
    pub fn members(&self) -> &MembershipLog {
        &self.members
    }

    /// The store, for reading.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The store, for what the shells keep in it besides.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// The store alone, as it was committed last: what a process that ends leaves behind.
    #[must_use]
    pub fn into_store(mut self) -> Store {
        self.store.rollback();
        self.store
    }

    /// The epoch of the relay's log: its own on a relay, as far as known on a device.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Enters an epoch.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn enter_epoch(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        let bytes = minicbor::to_vec(epoch).expect("encoding into memory cannot fail");
        self.store.set("epoch", &bytes)?;
        // They speak of a log that is no more.
        self.store.clear_receipts()?;
        self.epoch = epoch;
        Ok(())
    }

    /// Opens the epoch above one that was met: this relay's log is not the one that devices knew.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn open_epoch_above(&mut self, met: Epoch) -> Result<(), StoreError> {
        let counter = met.counter.max(self.epoch.counter) + 1;
        let epoch = Epoch { counter, salt: self.draw() };
        self.enter_epoch(epoch)?;
        if let Some(Published { epoch: before, number, catalog, .. }) = self.published.clone() {
            let published = self.store.publication(before, number)?;
            // Devices may know a later one of the epoch before: this one stands.
            self.state_catalog(catalog, number + 1)?;
            if let Some(Publication { time, note, .. }) = published {
                self.store.note_publication(epoch, number + 1, time, &note)?;
            }
        }
        self.renew_incarnation()
    }

    /// Takes a new incarnation, before anything else is written: after a restore, a copy, a fork.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn renew_incarnation(&mut self) -> Result<(), StoreError> {
        let drawn = u16::from_be_bytes(self.draw());
        self.me.incarnation = self.me.next_incarnation(drawn);
        self.store.set("incarnation", &self.me.incarnation.to_be_bytes())
    }

    /// Bytes that follow from the entropy that the shell drew, and never come again.
    pub fn draw<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes);
        bytes
    }

    /// Takes over entries of the membership log, all or none; those that are known already are
    /// passed over. Returns how many are new.
    ///
    /// # Errors
    /// When an entry does not follow a known one, or somebody joins whom no relay admitted.
    pub fn append_members(&mut self, entries: &[Signed]) -> Result<u64, ReplicaError> {
        let known = self.members.len();
        let new = self.members.merge(entries)?;
        for (number, entry) in (known..).zip(&new) {
            self.store.append_member(number, entry)?;
        }
        let acts = new.iter().filter_map(Signed::read::<Entry>).map(|entry| entry.act);
        if acts.into_iter().any(|act| matches!(act, Act::Rename { .. }))
            && let Some(own) = self.members.by_signing(&self.me.keys.public())
        {
            self.me.name.clone_from(&own.name);
        }
        Ok(new.len() as u64)
    }

    /// The segments, by id.
    #[must_use]
    pub fn segments(&self) -> &BTreeMap<SegmentId, SegmentRow> {
        &self.segments
    }

    /// A segment's row.
    #[must_use]
    pub fn segment(&self, id: &SegmentId) -> Option<&SegmentRow> {
        self.segments.get(id)
    }

    /// The segment whose id begins with those bytes.
    #[must_use]
    pub fn segment_beginning(&self, short: &[u8; 8]) -> Option<&SegmentRow> {
        let mut first = [0; 16];
        first[..8].copy_from_slice(short);
        let (id, row) = self.segments.range(SegmentId(first)..).next()?;
        id.0.starts_with(short).then_some(row)
    }

    /// The segment of an address, created if need be.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn open_segment(&mut self, address: &SegmentAddress) -> Result<SegmentId, StoreError> {
        let id = address.id(&self.org());
        if !self.segments.contains_key(&id) {
            let row = self.store.create_segment(id, address.clone())?;
            self.numbers.insert(row.sid, id);
            self.segments.insert(id, row);
        }
        Ok(id)
    }

    /// Whether a segment is there, or would be one that the catalog declares. A relay takes other
    /// generations of a declared type as well, and carries them over: a device may not have heard of
    /// the one in force, or this relay may have been put back since it told of a later one.
    #[must_use]
    pub fn is_declared(&self, address: &SegmentAddress) -> bool {
        let id = address.id(&self.org());
        if self.archived.contains(&id) {
            return false;
        }
        let declared = self.published.as_ref().and_then(|p| p.catalog.ty(&address.ty));
        let fits = |object: &ObjectType| match object.generation == address.generation {
            true => object.buckets == address.buckets,
            false => {
                let SegmentAddress { buckets, bucket, .. } = *address;
                self.me.role == Role::Relay && buckets.is_power_of_two() && bucket < buckets
            }
        };
        self.segments.contains_key(&id) || declared.is_some_and(fits)
    }

    pub(crate) fn row(&self, id: &SegmentId) -> &SegmentRow {
        self.segments.get(id).expect("segments are never forgotten")
    }

    pub(crate) fn row_mut(&mut self, id: &SegmentId) -> &mut SegmentRow {
        self.dirty.insert(*id);
        self.segments.get_mut(id).expect("segments are never forgotten")
    }

    pub(crate) fn segment_of(&self, sid: i64) -> Option<&SegmentRow> {
        self.segments.get(self.numbers.get(&sid)?).filter(|row| row.sid == sid)
    }
}

fn stored_epoch(store: &Store) -> Result<Epoch, StoreError> {
    match store.setting("epoch")? {
        Some(bytes) => {
            minicbor::decode(&bytes).map_err(|_| StoreError::Damaged("the epoch".into()))
        }
        None => Ok(Epoch::default()),
    }
}
