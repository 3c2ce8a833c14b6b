//! Starting a type afresh, in a new generation: with other buckets, another scope field or other
//! kinds, and with no more of its history than is wanted.
//!
//! A relay writes the new generation beside the one in force, as its own actor: first what stood at
//! the cut, each record whole, then every later change by itself, naming its author and the change
//! that it repeats. Meanwhile everything goes on. Where nothing is left to be carried over, one
//! commit puts the new generation in force: records keep their numbers and move to its segments, with
//! what stands of their verdicts. What arrives for the old generation afterwards is admitted to its
//! log, gets its receipts, and is carried over in the commit that has it merged: so whoever has heard
//! that it is judged finds it in the new one.
//!
//! How far that has come is on the disk with what it wrote: after a restart it goes on.

mod ahead;
mod carrying;

use std::collections::BTreeSet;

use fieldkeep_catalog::{Afresh, Catalog, CatalogError};
use fieldkeep_model::{RecordHash, RecordId, SegmentAddress, SegmentId, TypeName, Verdict};
use fieldkeep_store::{Apart, Records as _, SegmentRow, Settings, StoreError, Verdicts as _};
use minicbor::{Decode, Encode};

pub(crate) use ahead::Drafts;
pub use ahead::rehearse_reshape;

use crate::publishing::{Note, frozen};
use crate::replica::{Replica, ReplicaError};
use crate::write::PutError;

/// The setting that holds the new generation that is being written.
const RESHAPE: &str = "reshape";

/// A new generation that is being written.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reshape {
    /// The type.
    #[n(0)]
    pub ty: TypeName,
    /// The catalog that declares it.
    #[n(1)]
    pub source: String,
    /// Why.
    #[n(2)]
    pub note: String,
    /// Of what was written before that time, milliseconds UTC, no history is kept; of none at all if
    /// that is not said.
    #[n(3)]
    pub cut: Option<i64>,
    /// When it was begun, milliseconds UTC.
    #[n(4)]
    pub began: i64,
}

/// What a new generation would come to, or how far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reshaping {
    /// Records in all.
    pub records: u64,
    /// Of these so many are not in the new generation yet.
    pub records_left: u64,
    /// Changes that are repeated one by one.
    pub changes: u64,
    /// Of these so many are left.
    pub changes_left: u64,
    /// Changes of which only what they came to is carried over.
    pub shed: u64,
    /// Segments in force.
    pub segments: u64,
    /// Segments of the new generation, as far as it is written or was counted.
    pub targets: u64,
    /// The largest number of records in one of them.
    pub largest: u64,
    /// Values that their field's kind cannot hold in the new generation: those records would be held.
    pub unfit: u64,
    /// Some of these records.
    pub examples: Vec<RecordId>,
}

/// The same, with its catalog as it reads.
#[derive(Clone, Debug)]
pub(crate) struct Underway {
    pub(crate) plan: Reshape,
    pub(crate) next: Catalog,
}

impl Underway {
    pub(crate) fn of(plan: Reshape) -> Option<Self> {
        let next = Catalog::parse(&plan.source).ok()?;
        Some(Self { plan, next })
    }

    pub(crate) fn generation(&self) -> u32 {
        self.next.ty(&self.plan.ty).map_or(0, |ty| ty.generation)
    }
}

/// Why a type is not started afresh. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReshapeError {
    /// There is no catalog in force.
    #[error("no catalog is published yet")]
    NoCatalog,
    /// The catalog does not have the type.
    #[error("the catalog has no object type `{0}`")]
    UnknownType(TypeName),
    /// Another one is under way.
    #[error("`{0}` is being started afresh: one type at a time")]
    UnderWay(TypeName),
    /// None is under way.
    #[error("no type is being started afresh")]
    Nothing,
    /// A segment of the type cannot be merged.
    #[error("{0} is damaged")]
    Damaged(SegmentAddress),
    /// The catalog that would come of it is not to be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Catalog(Vec<CatalogError>),
    /// The replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<StoreError> for ReshapeError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

/// What a slice did.
#[derive(Clone, Debug, Default)]
pub struct Reshaped {
    /// Segments that are otherwise than before.
    pub moved: BTreeSet<SegmentId>,
    /// The type whose new generation is in force now.
    pub in_force: Option<TypeName>,
}

/// The new generation that is being written, as it is kept.
///
/// # Errors
/// When the disk fails.
pub fn stored_reshape(store: &impl Settings) -> Result<Option<Reshape>, StoreError> {
    let bytes = store.setting(RESHAPE)?.filter(|bytes| !bytes.is_empty());
    let damaged = |_| StoreError::Damaged("what is started afresh".into());
    bytes.map(|bytes| minicbor::decode(&bytes).map_err(damaged)).transpose()
}

impl Replica {
    /// The new generation that is being written, and its number.
    #[must_use]
    pub fn reshape(&self) -> Option<(&Reshape, u32)> {
        self.writing.as_ref().map(|writing| (&writing.plan, writing.generation()))
    }

    /// The catalog that would start a type afresh: a file, or the one in force, with what is to be
    /// declared otherwise, and a generation that was never there.
    ///
    /// # Errors
    /// See [`ReshapeError`].
    pub fn afresh(
        &self,
        ty: &TypeName,
        file: Option<&str>,
        changes: &Afresh,
    ) -> Result<Catalog, ReshapeError> {
        let in_force = &self.published().ok_or(ReshapeError::NoCatalog)?.catalog;
        let old = in_force.ty(ty).ok_or_else(|| ReshapeError::UnknownType(ty.clone()))?;
        let rows = self.segments.values().filter(|row| row.address.ty == *ty);
        let known = rows.map(|row| row.address.generation).max().unwrap_or_default();
        let generation = known.max(old.generation) + 1;
        let source = changes.applied(file.unwrap_or(in_force.source()), ty, generation);
        let next = source.and_then(|source| Catalog::parse(&source));
        let next = next.map_err(ReshapeError::Catalog)?;
        if next.ty(ty).is_none() {
            return Err(ReshapeError::UnknownType(ty.clone()));
        }
        let mut errors = frozen(&self.store, in_force, &next)?;
        errors.extend(
            in_force
                .check_generations(&next)
                .into_iter()
                .filter(|error| error.key != format!("type.{ty}.generation")),
        );
        if errors.is_empty() { Ok(next) } else { Err(ReshapeError::Catalog(errors)) }
    }

    /// Begins to write a new generation of a type; [`Replica::reshape_some`] does it. A commit must
    /// follow.
    ///
    /// # Errors
    /// See [`ReshapeError`].
    pub fn begin_reshape(
        &mut self,
        ty: &TypeName,
        catalog: &Catalog,
        note: Note<'_>,
        cut: Option<i64>,
    ) -> Result<(), ReshapeError> {
        if let Some((under_way, _)) = self.reshape() {
            return Err(ReshapeError::UnderWay(under_way.ty.clone()));
        }
        let damaged = self.in_force(ty).find(|row| row.damaged);
        if let Some(row) = damaged {
            return Err(ReshapeError::Damaged(row.address.clone()));
        }
        let (source, note_text) = (catalog.source().to_owned(), note.text.to_owned());
        let plan = Reshape { ty: ty.clone(), source, note: note_text, cut, began: note.time };
        let bytes = minicbor::to_vec(&plan).expect("encoding into memory cannot fail");
        self.store.set(RESHAPE, &bytes)?;
        self.writing = Some(Underway { plan, next: catalog.clone() });
        Ok(())
    }

    /// Gives up a new generation that is not in force: what was written of it goes. A commit must
    /// follow.
    ///
    /// # Errors
    /// See [`ReshapeError`].
    pub fn give_up_reshape(&mut self) -> Result<TypeName, ReshapeError> {
        let writing = self.writing.take().ok_or(ReshapeError::Nothing)?;
        let (generation, plan) = (writing.generation(), writing.plan);
        let rows = self.segments.values().filter(|row| row.address.ty == plan.ty);
        let begun = rows.filter(|row| row.address.generation == generation);
        for id in begun.map(|row| row.id).collect::<Vec<_>>() {
            self.apart.remove(&id);
            self.remove_segment(&id)?;
        }
        for id in self.in_force(&plan.ty).map(|row| row.id).collect::<Vec<_>>() {
            if self.apart.remove(&id).is_some() {
                self.store.remove_apart(self.row(&id).sid)?;
            }
        }
        self.store.settle_moved()?;
        self.store.set(RESHAPE, &[])?;
        self.drafts = Drafts::default();
        Ok(plan.ty)
    }

    /// The segments of a type that are in force and hold something.
    pub(crate) fn in_force<'r>(&'r self, ty: &'r TypeName) -> impl Iterator<Item = &'r SegmentRow> {
        let rows = self.segments.values();
        rows.filter(move |row| row.address.ty == *ty && row.tip > 0 && !self.is_apart(&row.address))
    }

    /// Whether a new generation is being written.
    #[must_use]
    pub fn is_reshaping(&self) -> bool {
        self.writing.is_some()
    }

    /// How far a new generation has come.
    #[must_use]
    pub fn reshaping(&self) -> Option<Reshaping> {
        let Underway { plan, .. } = self.writing.as_ref()?;
        let generation = self.writing.as_ref().map(Underway::generation)?;
        let mut far = Reshaping::default();
        for row in self.in_force(&plan.ty) {
            let apart = self.apart.get(&row.id);
            let Apart { cut, done, .. } = apart.copied().unwrap_or_default();
            far.segments += 1;
            far.records += row.records;
            far.shed += cut;
            far.changes += row.tip - cut.min(row.tip);
            far.changes_left += row.tip - done.max(cut).min(row.tip);
            if apart.is_none() || done < cut {
                far.records_left += row.records;
            }
        }
        for row in self.segments.values() {
            if row.address.ty == plan.ty && row.address.generation == generation {
                let written = self.apart(&row.id).records;
                far.targets += 1;
                far.largest = far.largest.max(written);
            }
        }
        Some(far)
    }

    /// Carries a slice over, and puts a new generation in force where nothing is left. Nothing if
    /// there is nothing to do; a commit must follow.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn reshape_some(&mut self, now: i64) -> Result<Option<Reshaped>, ReplicaError> {
        if let Some(id) = self.late() {
            return self.carry_late(&id, now).map(Some);
        }
        let Some(Underway { plan, next }) = self.writing.clone() else { return Ok(None) };
        let Some(new) = next.ty(&plan.ty) else { return Ok(None) };
        let left = self.in_force(&plan.ty).find(|row| {
            let apart = self.apart.get(&row.id);
            apart.is_none_or(|apart| apart.done < row.tip)
        });
        let Some(id) = left.map(|row| row.id) else {
            return self.put_in_force(&plan, next.clone()).map(Some);
        };
        if self.row(&id).damaged {
            return Ok(None);
        }
        let write = |replica: &mut Self| replica.write_ahead(&id, &plan, new, now);
        self.written_afresh(&id, write).map(Some)
    }

    /// Writes some of a segment in another generation, wholly or not at all.
    pub(crate) fn written_afresh(
        &mut self,
        id: &SegmentId,
        write: impl FnOnce(&mut Self) -> Result<(), PutError>,
    ) -> Result<Reshaped, ReplicaError> {
        let ((), moved) = self.sparing(id, |replica| {
            let wrote = replica.together(true, write);
            wrote.map_err(|error| replica_error(id, error))
        })?;
        Ok(Reshaped { moved, in_force: None })
    }

    /// Puts a new generation in force: everything of the old one is in it.
    fn put_in_force(&mut self, plan: &Reshape, next: Catalog) -> Result<Reshaped, ReplicaError> {
        let done = self.together(true, |replica| replica.replace_generation(plan, next));
        match done {
            Ok(((), moved)) => {
                tracing::info!(ty = %plan.ty, "a new generation is in force");
                Ok(Reshaped { moved, in_force: Some(plan.ty.clone()) })
            }
            Err(error) => {
                // Whatever it was, the disk says what stands.
                self.forget()?;
                Err(error)
            }
        }
    }

    fn replace_generation(&mut self, plan: &Reshape, next: Catalog) -> Result<(), ReplicaError> {
        let before = self.published.clone().expect("it was begun under one");
        let errors = frozen(&self.store, &before.catalog, &next)?;
        if !errors.is_empty() {
            return Err(ReplicaError::Frozen(errors));
        }
        let sources: Vec<SegmentId> = self.in_force(&plan.ty).map(|row| row.id).collect();
        let generation = next.ty(&plan.ty).map_or(0, |ty| ty.generation);
        for id in &sources {
            let (sid, apart) = (self.row(id).sid, self.apart(id));
            self.store.move_records(sid)?;
            let row = self.row_mut(id);
            let (records, rows) = (row.records, row.rows);
            (row.records, row.live, row.rows, row.held, row.waiting) = (0, 0, 0, 0, 0);
            self.save_apart(id, Apart { records, rows, ..apart })?;
        }
        self.store.settle_moved()?;
        self.store.set(RESHAPE, &[])?;
        self.writing = None;
        self.replace_catalog(&before, next)?;
        self.note_catalog(Note { text: &plan.note, time: plan.began })?;
        let rows = self.segments.values();
        let targets =
            rows.filter(|row| row.address.ty == plan.ty && row.address.generation == generation);
        let targets: Vec<SegmentId> = targets.map(|row| row.id).collect();
        let standing = self.store.count_standing()?;
        for id in targets {
            let (sid, tip) = (self.row(&id).sid, self.row(&id).tip);
            let Apart { records, rows, .. } = self.apart.remove(&id).unwrap_or_default();
            self.store.remove_apart(sid)?;
            self.store.pass_valid(sid, tip)?;
            let [live, held, waiting] = standing.get(&sid).copied().unwrap_or_default();
            let row = self.row_mut(&id);
            (row.records, row.live, row.rows) = (records, live, rows);
            (row.held, row.waiting) = (held, waiting);
            // Where kinds are others, or two wrote at once, records may read otherwise.
            if self.store.sum_kept(sid)? != (records, rows) {
                self.read_again(&id)?;
            }
            self.state_standing(&id)?;
        }
        Ok(())
    }

    /// Reads the records of a segment from its document, where they read otherwise there.
    fn read_again(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        let sid = self.row(id).sid;
        for record in self.document(id)?.ids() {
            let Some(mut row) = self.store.record(sid, &record)? else { continue };
            let Some(read) = self.document(id)?.record(&record) else { continue };
            let json = read.canonical();
            if json != row.json {
                (row.hash, row.json, row.deleted) = (RecordHash::of(&json), json, read.deleted);
                row.conflicts = read.conflicts;
                self.store.put_record(&mut row)?;
            }
        }
        Ok(())
    }

    /// States in a new segment what stands of its records' verdicts, and that all of it is judged.
    fn state_standing(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        let mut stated = Vec::new();
        for (bytes, openings) in self.store.standing_verdicts(self.row(id).sid)? {
            let damaged = |_| StoreError::Damaged("a verdict".into());
            let verdict: Verdict = minicbor::decode(&bytes).map_err(damaged)?;
            stated.push((verdict, minicbor::decode(&openings).map_err(damaged)?));
        }
        self.append_blocks(id, stated, 0)
    }
}

fn replica_error(id: &SegmentId, error: PutError) -> ReplicaError {
    if let PutError::Replica(error) = error {
        return error;
    }
    ReplicaError::Damaged(*id, error.to_string())
}
