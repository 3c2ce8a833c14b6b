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

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fieldkeep_catalog::{Afresh, Catalog, CatalogError, ObjectType};
use fieldkeep_documents::Document;
use fieldkeep_documents::document::{Author, merged_text};
use fieldkeep_model::status::Generations;
use fieldkeep_model::{
    ChangeHash, Edit, Part, Pos, RecordEdit, RecordHash, RecordId, RecordKey, SegmentAddress,
    SegmentId, TypeName, Verdict, Writing,
};
use fieldkeep_store::{
    Apart, Catalogs as _, Generations as _, Log, Records, SegmentRow, Segments, Settings,
    StoreError, Verdicts as _, digest,
};
use minicbor::{Decode, Encode};
use serde_json::{Map, Value};

use crate::judging::fields_of;
use crate::log::{Entry, each_entry};
use crate::publishing::{Note, frozen};
use crate::replica::{Replica, ReplicaError};
use crate::write::PutError;

/// The setting that holds the generations that are in force.
const GENERATIONS: &str = "generations";
/// The setting that holds the new generation that is being written.
const RESHAPE: &str = "reshape";
/// Records that become one change together: as many as an import writes together.
const TOGETHER: usize = 64;
/// Changes that are carried over in one go.
const CARRIED: u64 = 64;
/// Records that are read in one go.
const PAGE: usize = 1_000;

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

/// The records of a segment that are to be written, by the segments that they go to.
type Drafted = VecDeque<(SegmentAddress, Vec<RecordId>)>;

/// What is to be written of the segment that is being worked on.
#[derive(Debug, Default)]
pub(crate) struct Drafts(Option<(SegmentId, Drafted)>);

/// The generations in force, as they are kept.
///
/// # Errors
/// When the disk fails.
pub fn stored_generations(store: &impl Settings) -> Result<Generations, StoreError> {
    let Some(bytes) = store.setting(GENERATIONS)? else { return Ok(Generations::new()) };
    minicbor::decode(&bytes).map_err(|_| StoreError::Damaged("the generations".into()))
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
    /// The generations in force; 0 for a type that is not named.
    #[must_use]
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Whether a segment is of another generation than its type.
    #[must_use]
    pub fn is_apart(&self, address: &SegmentAddress) -> bool {
        self.generations.get(&address.ty).copied().unwrap_or_default() != address.generation
    }

    /// What stands of a segment that is of another generation than its type.
    pub(crate) fn apart(&self, id: &SegmentId) -> Apart {
        self.apart.get(id).copied().unwrap_or_default()
    }

    fn save_apart(&mut self, id: &SegmentId, apart: Apart) -> Result<(), StoreError> {
        self.store.put_apart(self.row(id).sid, &apart)?;
        self.apart.insert(*id, apart);
        Ok(())
    }

    /// Reads what is kept of generations.
    pub(crate) fn recall_generations(&mut self) -> Result<(), StoreError> {
        self.generations = match self.store.setting(GENERATIONS)? {
            Some(_) => stored_generations(&self.store)?,
            None => self.published.as_ref().map(|p| declared(&p.catalog)).unwrap_or_default(),
        };
        self.awaits = self.awaited()?.is_some();
        let written = stored_reshape(&self.store)?.and_then(|plan| {
            let catalog = Catalog::parse(&plan.source).ok()?;
            Some((plan.ty.clone(), catalog.ty(&plan.ty)?.generation))
        });
        self.writing = written;
        let apart = self.store.apart()?;
        let rows = self.segments.values().filter_map(|row| Some((row.id, *apart.get(&row.sid)?)));
        self.apart = rows.collect();
        self.drafts = Drafts::default();
        self.recall_archived()
    }

    /// Puts the generations in force that a catalog declares.
    pub(crate) fn take_generations(&mut self, catalog: &Catalog) -> Result<(), StoreError> {
        let mut generations = self.generations.clone();
        generations.retain(|name, _| catalog.ty(name).is_none());
        generations.extend(declared(catalog));
        if generations != self.generations {
            let bytes = minicbor::to_vec(&generations).expect("encoding into memory cannot fail");
            self.store.set(GENERATIONS, &bytes)?;
            self.generations = generations;
        }
        Ok(())
    }

    /// The types of which there is something here that is not of the generation that a catalog
    /// declares.
    #[must_use]
    pub fn outlived_by(&self, catalog: &Catalog) -> BTreeSet<TypeName> {
        let rows = self.segments.values().filter(|row| row.tip > 0 && !self.is_apart(&row.address));
        let rows = rows.filter(|row| {
            let declared = catalog.ty(&row.address.ty);
            declared.is_some_and(|ty| ty.generation != row.address.generation)
        });
        rows.map(|row| row.address.ty.clone()).collect()
    }

    /// The new generation that is being written.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn reshape(&self) -> Result<Option<Reshape>, StoreError> {
        stored_reshape(&self.store)
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
        if let Some(under_way) = self.reshape()? {
            return Err(ReshapeError::UnderWay(under_way.ty));
        }
        let damaged = self.in_force(ty).find(|row| row.damaged);
        if let Some(row) = damaged {
            return Err(ReshapeError::Damaged(row.address.clone()));
        }
        let (source, note_text) = (catalog.source().to_owned(), note.text.to_owned());
        let plan = Reshape { ty: ty.clone(), source, note: note_text, cut, began: note.time };
        self.writing = catalog.ty(ty).map(|declared| (ty.clone(), declared.generation));
        let bytes = minicbor::to_vec(plan).expect("encoding into memory cannot fail");
        self.store.set(RESHAPE, &bytes)?;
        Ok(())
    }

    /// Gives up a new generation that is not in force: what was written of it goes. A commit must
    /// follow.
    ///
    /// # Errors
    /// See [`ReshapeError`].
    pub fn give_up_reshape(&mut self) -> Result<TypeName, ReshapeError> {
        let plan = self.reshape()?.ok_or(ReshapeError::Nothing)?;
        let generation = Catalog::parse(&plan.source)
            .ok()
            .and_then(|catalog| catalog.ty(&plan.ty).map(|ty| ty.generation));
        let rows = self.segments.values().filter(|row| row.address.ty == plan.ty);
        let begun = rows.filter(|row| Some(row.address.generation) == generation);
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
        self.writing = None;
        self.drafts = Drafts::default();
        Ok(plan.ty)
    }

    /// The segments of a type that are in force and hold something.
    fn in_force<'r>(&'r self, ty: &'r TypeName) -> impl Iterator<Item = &'r SegmentRow> {
        let rows = self.segments.values();
        rows.filter(move |row| row.address.ty == *ty && row.tip > 0 && !self.is_apart(&row.address))
    }

    /// Whether a new generation is being written.
    #[must_use]
    pub fn is_reshaping(&self) -> bool {
        self.writing.is_some()
    }

    /// A segment of an earlier generation with something that is not carried over.
    fn late(&self) -> Option<SegmentId> {
        let late = self.segments.values().find(|row| {
            self.is_past(&row.address) && !row.damaged && self.apart(&row.id).done < row.done
        });
        late.map(|row| row.id)
    }

    /// Whether a segment is of a generation that another one has taken the place of.
    pub(crate) fn is_past(&self, address: &SegmentAddress) -> bool {
        let declared = self.published.as_ref().and_then(|p| p.catalog.ty(&address.ty));
        let past = declared.is_some_and(|ty| ty.generation != address.generation);
        let coming = self
            .writing
            .as_ref()
            .is_some_and(|(ty, generation)| *ty == address.ty && *generation == address.generation);
        past && !coming
    }

    /// How far a new generation has come.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn reshaping(&self) -> Result<Option<Reshaping>, ReplicaError> {
        let Some(plan) = self.reshape()? else { return Ok(None) };
        let mut far = Reshaping::default();
        let Some((ty, generation)) = &self.writing else { return Ok(Some(far)) };
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
            if row.address.ty == *ty && row.address.generation == *generation {
                let written = self.apart(&row.id).records;
                far.targets += 1;
                far.largest = far.largest.max(written);
            }
        }
        Ok(Some(far))
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
        let Some(plan) = self.reshape()? else { return Ok(None) };
        let next = Catalog::parse(&plan.source).map_err(ReplicaError::Catalog)?;
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
        let worked = self.together(true, |replica| replica.write_ahead(&id, &plan, new, now));
        match worked {
            Ok(((), moved)) => Ok(Some(Reshaped { moved, in_force: None })),
            Err(error) => {
                self.drafts = Drafts::default();
                self.recall_generations()?;
                Err(replica_error(&id, error))
            }
        }
    }

    /// Carries what arrived for a segment of another generation over into the one in force, as far as
    /// it is merged. Nothing of one that is in force, or that is being written; a commit must follow.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn carry_late(&mut self, id: &SegmentId, now: i64) -> Result<Reshaped, ReplicaError> {
        let row = self.row(id);
        let lags = self.apart(id).done < row.done && self.is_past(&row.address);
        let (Some(catalog), ty) = (self.catalog().filter(|_| lags), row.address.ty.clone()) else {
            return Ok(Reshaped::default());
        };
        let Some(new) = catalog.ty(&ty) else { return Ok(Reshaped::default()) };
        let carried = self.together(true, |replica| {
            while replica.apart(id).done < replica.row(id).done {
                replica.carry_some(id, new, now)?;
            }
            Ok::<_, PutError>(())
        });
        match carried {
            Ok(((), moved)) => Ok(Reshaped { moved, in_force: None }),
            Err(error) => {
                self.recall_generations()?;
                Err(replica_error(id, error))
            }
        }
    }

    /// Writes a slice of a segment in the new generation: what stood at the cut, then what came after.
    fn write_ahead(
        &mut self,
        id: &SegmentId,
        plan: &Reshape,
        new: &ObjectType,
        now: i64,
    ) -> Result<(), PutError> {
        self.catch_up(id)?;
        if !self.apart.contains_key(id) {
            let cut = cut_of(&self.store, self.row(id), plan.cut)?;
            self.save_apart(id, Apart { cut, ..Apart::default() })?;
        }
        let Apart { cut, done, .. } = self.apart(id);
        if done < cut { self.begin_some(id, cut, new, now) } else { self.carry_some(id, new, now) }
    }

    /// The scope field of a generation of a type; nothing if no catalog here declares that.
    fn scope_field(&self, from: &SegmentAddress) -> Result<Option<Option<String>>, StoreError> {
        let in_force = self.published.as_ref().and_then(|published| published.catalog.ty(&from.ty));
        if let Some(ty) = in_force.filter(|ty| ty.generation == from.generation) {
            return Ok(Some(ty.scope.clone()));
        }
        let mut found = None;
        self.store.each_catalog(|stored| {
            let catalog = Catalog::parse(&stored.source).ok();
            let ty = catalog.as_ref().and_then(|catalog| catalog.ty(&from.ty));
            found = ty
                .filter(|ty| ty.generation == from.generation)
                .map(|ty| ty.scope.clone())
                .or(found.take());
            Ok::<_, StoreError>(found.is_none())
        })?;
        Ok(found)
    }

    /// Writes some of the records as they stood at the cut.
    fn begin_some(
        &mut self,
        id: &SegmentId,
        cut: Pos,
        new: &ObjectType,
        now: i64,
    ) -> Result<(), PutError> {
        let heads = self.load(id)?.history.heads_through(cut);
        if self.drafts.0.as_ref().is_none_or(|(of, _)| of != id) {
            self.drafts = self.draft(id, &heads, new)?;
        }
        let (_, drafts) = self.drafts.0.as_mut().expect("just drafted");
        let Some((address, mut ids)) = drafts.pop_front() else {
            self.drafts = Drafts::default();
            let apart = self.apart(id);
            return Ok(self.save_apart(id, Apart { done: cut, ..apart })?);
        };
        let rest = ids.split_off(ids.len().min(TOGETHER));
        let whole = rest.is_empty();
        if !whole {
            drafts.push_front((address.clone(), rest));
        }
        let target = self.open_segment(&address)?;
        let mut writes = Vec::with_capacity(ids.len());
        for record in ids {
            let content = self.document(id)?.content_at(&record, &heads).unwrap_or_default();
            let edits = new.refit(content.edits, &Map::new());
            writes.push((record, RecordEdit { edits, deleted: content.deleted }));
        }
        let message = Writing { person: "", part: Part::Beginning }.message();
        let author = Author { actor: self.me.actor(), person: message, time: now };
        self.write_beginnings(&target, &writes, &author)?;
        let (sid, to) = (self.row(id).sid, self.row(&target).sid);
        for (record, _) in &writes {
            self.store.note_moved(sid, record, to)?;
        }
        self.vouch_for_own(&target)?;
        if whole {
            self.compact(&target, false)?;
        }
        Ok(())
    }

    /// The records of a segment as they were at some heads, by where they go; what went already is
    /// left out.
    fn draft(
        &mut self,
        id: &SegmentId,
        heads: &[ChangeHash],
        new: &ObjectType,
    ) -> Result<Drafts, ReplicaError> {
        let from = self.row(id).clone();
        let field = self.scope_field(&from.address)?;
        let mut drafts: BTreeMap<SegmentAddress, Vec<RecordId>> = BTreeMap::new();
        for record in self.document(id)?.ids_at(heads) {
            if self.store.moved_to(from.sid, &record)?.is_some() {
                continue;
            }
            let was = self.document(id)?.record_at(&record, heads).unwrap_or_default();
            let target = target_of(new, field.as_ref(), &from.address, &record, &was.fields);
            drafts.entry(target).or_default().push(record);
        }
        Ok(Drafts(Some((*id, drafts.into_iter().collect()))))
    }

    /// Writes records that are new in a segment as one change, or as several where one would be too
    /// large.
    fn write_beginnings(
        &mut self,
        target: &SegmentId,
        writes: &[(RecordId, RecordEdit)],
        author: &Author,
    ) -> Result<(), PutError> {
        self.catch_up(target)?;
        let mut edits = Vec::with_capacity(writes.len());
        for (record, edit) in writes {
            edits.push((record.clone(), RecordEdit::from(edit.edits.clone())));
            if edit.deleted == Some(true) {
                edits.push((record.clone(), RecordEdit { edits: Vec::new(), deleted: Some(true) }));
            }
        }
        let ids: Vec<&RecordId> = writes.iter().map(|(record, _)| record).collect();
        let before = self.read_apart(target, &ids)?;
        match self.document(target)?.write_many(author, &edits) {
            Ok(written) => {
                if let Some(written) = written {
                    self.keep_own(target, &written.made.chunk)?;
                }
                Ok(self.count_apart(target, &before)?)
            }
            Err(_) if writes.len() > 1 => {
                let (first, second) = writes.split_at(writes.len() / 2);
                self.write_beginnings(target, first, author)?;
                self.write_beginnings(target, second, author)
            }
            Err(error) => {
                let Some((record, edit)) = writes.first() else {
                    return Err(PutError::Write(error));
                };
                let key = RecordKey::new(self.row(target).address.ty.clone(), record.clone());
                self.write_in_parts(target, &key, edit, author)
            }
        }
    }

    /// Repeats some of the changes after the cut, each as one of this relay's own.
    fn carry_some(&mut self, id: &SegmentId, new: &ObjectType, now: i64) -> Result<(), PutError> {
        let (sid, apart) = (self.row(id).sid, self.apart(id));
        let last = self.row(id).done.min(apart.done + CARRIED);
        let wanted: BTreeSet<Pos> = (apart.done + 1..=last).collect();
        let mut targets = BTreeSet::new();
        for entry in self.entries(sid, &wanted)? {
            self.carry_over(id, &entry, new, now, &mut targets)?;
        }
        for target in targets {
            self.vouch_for_own(&target)?;
        }
        let apart = self.apart(id);
        Ok(self.save_apart(id, Apart { done: last, ..apart })?)
    }

    fn carry_over(
        &mut self,
        id: &SegmentId,
        entry: &Entry,
        new: &ObjectType,
        now: i64,
        targets: &mut BTreeSet<SegmentId>,
    ) -> Result<(), PutError> {
        let header = &entry.header;
        let Writing { person, part } = Writing::read(&header.message);
        let part = match part {
            // It is what an earlier one came to. Of a later one, of which this relay does not know any
            // more because it was put back, nobody may have anything else.
            Part::Beginning if self.row(id).address.generation < new.generation => return Ok(()),
            Part::Beginning => return self.begin_again(id, entry, new, targets),
            // The change itself is there: this relay was put back from before it was repeated.
            Part::Carried(_, hash) if self.lies_in(new, &hash)? => return Ok(()),
            Part::Carried(actor, hash) => Part::Carried(actor, hash),
            Part::Ordinary => Part::Carried(header.actor, header.hash),
        };
        let time = if header.time > 0 { header.time } else { now };
        let author =
            Author { actor: self.me.actor(), person: Writing { person, part }.message(), time };
        let document = self.document(id)?;
        let locate = |actor, counter| document.locate(actor, counter);
        let edits = document.rewritten(&[&entry.bytes], &locate);
        for (record, edit) in edits {
            let target = self.home_afresh(id, &record, new)?;
            targets.insert(target);
            let current = self.document(&target)?.with_removed(&record);
            let edit = self.as_it_was(id, entry.pos, &record, edit, &current)?;
            let edit = RecordEdit { edits: new.refit(edit.edits, &current), ..edit };
            let key = RecordKey::new(new.name.clone(), record.clone());
            match self.put_in(&target, &key, &edit, &author) {
                Err(PutError::Write(_)) => self.write_in_parts(&target, &key, &edit, &author)?,
                // Nothing of it is left to be done.
                Err(PutError::Absent(_)) => {}
                other => drop(other?),
            }
            self.keep_winners(id, &record, &edit, &current, (&target, &author, new))?;
        }
        Ok(())
    }

    /// Takes up what a later generation began with: records come to what they were then.
    fn begin_again(
        &mut self,
        id: &SegmentId,
        entry: &Entry,
        new: &ObjectType,
        targets: &mut BTreeSet<SegmentId>,
    ) -> Result<(), PutError> {
        let header = &entry.header;
        let part = Part::Carried(header.actor, header.hash);
        let person = Writing { person: "", part }.message();
        let author = Author { actor: self.me.actor(), person, time: header.time };
        let document = self.document(id)?;
        let locate = |actor, counter| document.locate(actor, counter);
        let records = document.rewritten(&[&entry.bytes], &locate);
        for (record, _) in records {
            let was = self.document(id)?.content_at(&record, &[header.hash]).unwrap_or_default();
            let target = self.home_afresh(id, &record, new)?;
            targets.insert(target);
            let here = self.document(&target)?;
            let (current, there) = (here.with_removed(&record), here.record(&record));
            let deleted = was.deleted.filter(|_| there.is_none_or(|there| !there.deleted));
            let edits = new.towards(new.refit(was.edits, &Map::new()), &current);
            let (key, edit) =
                (RecordKey::new(new.name.clone(), record), RecordEdit { edits, deleted });
            match self.put_in(&target, &key, &edit, &author) {
                Err(PutError::Write(_)) => self.write_in_parts(&target, &key, &edit, &author)?,
                Err(PutError::Absent(_)) => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// What a change did to texts, upon what they are now: a change of a text is told by the whole
    /// text that it came to, and others may have changed it as well.
    fn as_it_was(
        &mut self,
        id: &SegmentId,
        pos: Pos,
        record: &RecordId,
        edit: RecordEdit,
        current: &Map<String, Value>,
    ) -> Result<RecordEdit, ReplicaError> {
        let history = &self.load(id)?.history;
        let (before, after) = (history.heads_through(pos - 1), history.heads_through(pos));
        let document = self.document(id)?;
        let told = |field: &str, now: Option<&Value>| {
            let read = |heads: &[_]| {
                let value = document.values_at(record, &[field], heads).pop().flatten();
                value.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            merged_text(&read(&before), &read(&after), now.and_then(Value::as_str).unwrap_or(""))
        };
        let edits = edit.edits.into_iter().map(|edit| match edit {
            Edit::Text(field, _) => {
                let text = told(&field, current.get(&field));
                Edit::Text(field, text)
            }
            Edit::Child(set, child, inner) => {
                let here = child_of(current, &set, &child);
                let inner = inner.into_iter().map(|edit| match edit {
                    Edit::Text(field, _) => {
                        let place = format!("{set}[{child}].{field}");
                        let text = told(&place, here.and_then(|here| here.get(&field)));
                        Edit::Text(field, text)
                    }
                    Edit::Put(..)
                    | Edit::Json(..)
                    | Edit::Add(..)
                    | Edit::Clear(_)
                    | Edit::Child(..)
                    | Edit::RemoveChild(..) => edit,
                });
                let inner = inner.collect();
                Edit::Child(set, child, inner)
            }
            Edit::Put(..)
            | Edit::Json(..)
            | Edit::Add(..)
            | Edit::Clear(_)
            | Edit::RemoveChild(..) => edit,
        });
        Ok(RecordEdit { edits: edits.collect(), deleted: edit.deleted })
    }

    /// Where a change wrote a value that another one wins over in its own generation, that one wins
    /// here, too, unless somebody has written something else since: both are in the history.
    fn keep_winners(
        &mut self,
        id: &SegmentId,
        record: &RecordId,
        edit: &RecordEdit,
        before: &Map<String, Value>,
        (target, author, new): (&SegmentId, &Author, &ObjectType),
    ) -> Result<(), PutError> {
        let there = self.document(id)?.record(record).unwrap_or_default();
        let here = self.document(target)?.record(record).unwrap_or_default().fields;
        let lost = edit.edits.iter().filter(|edit| matches!(edit, Edit::Put(..) | Edit::Json(..)));
        let lost = lost.map(Edit::field).filter(|field| {
            let (was, is, wins) = (before.get(*field), here.get(*field), there.fields.get(*field));
            wins.is_some() && wins != is && was == wins
        });
        let fields: BTreeSet<&str> = lost.collect();
        if fields.is_empty() {
            return Ok(());
        }
        let heads = self.document(id)?.heads();
        let content = self.document(id)?.content_at(record, &heads).unwrap_or_default();
        let edits = content.edits.into_iter().filter(|edit| fields.contains(edit.field()));
        let edit = RecordEdit::from(new.refit(edits.collect(), &here));
        let key = RecordKey::new(new.name.clone(), record.clone());
        match self.put_in(target, &key, &edit, author) {
            Err(PutError::Write(_) | PutError::Absent(_)) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Whether that change lies in the log of a segment of a generation.
    fn lies_in(&mut self, ty: &ObjectType, hash: &ChangeHash) -> Result<bool, ReplicaError> {
        let of_it = |row: &&SegmentRow| {
            let SegmentAddress { ty: name, generation, .. } = &row.address;
            *name == ty.name && *generation == ty.generation && row.tip > 0
        };
        let rows = self.segments.values().filter(of_it).map(|row| row.id);
        for id in rows.collect::<Vec<_>>() {
            if self.load(&id)?.history.contains(hash) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The segment of the new generation that holds a record, or will.
    fn home_afresh(
        &mut self,
        id: &SegmentId,
        record: &RecordId,
        new: &ObjectType,
    ) -> Result<SegmentId, ReplicaError> {
        let from = self.row(id).clone();
        let in_force = !self.is_apart(&from.address);
        let known = if in_force {
            self.store.moved_to(from.sid, record)?
        } else {
            self.store.presence(&from.address.ty, record)?.map(|(sid, ..)| sid)
        };
        if let Some(target) = known.and_then(|sid| self.segment_of(sid)) {
            return Ok(target.id);
        }
        let fields = self.document(id)?.record(record).unwrap_or_default().fields;
        let field = self.scope_field(&from.address)?;
        let address = target_of(new, field.as_ref(), &from.address, record, &fields);
        let target = self.open_segment(&address)?;
        if in_force {
            self.store.note_moved(from.sid, record, self.row(&target).sid)?;
        }
        Ok(target)
    }

    /// What of the records of a segment adds to what its document comes to.
    pub(crate) fn read_apart(
        &mut self,
        id: &SegmentId,
        records: &[&RecordId],
    ) -> Result<BTreeMap<RecordId, Option<u128>>, ReplicaError> {
        let document = self.document(id)?;
        let read = |record: &&RecordId| ((*record).clone(), digest_in(document, record));
        Ok(records.iter().map(read).collect())
    }

    /// Counts what became of records of a segment since they were read.
    pub(crate) fn count_apart(
        &mut self,
        id: &SegmentId,
        before: &BTreeMap<RecordId, Option<u128>>,
    ) -> Result<(), ReplicaError> {
        let mut apart = self.apart(id);
        let document = self.document(id)?;
        for (record, was) in before {
            let is = digest_in(document, record);
            apart.rows = apart.rows.wrapping_sub(was.unwrap_or(0)).wrapping_add(is.unwrap_or(0));
            apart.records += u64::from(was.is_none() && is.is_some());
        }
        Ok(self.save_apart(id, apart)?)
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

/// The generations that a catalog declares, but for the first ones.
fn declared(catalog: &Catalog) -> Generations {
    let types = catalog.types().iter().filter(|(_, ty)| ty.generation > 0);
    types.map(|(name, ty)| (name.clone(), ty.generation)).collect()
}

/// What a record adds to the sum of its segment; nothing if it is not there.
fn digest_in(document: &Document, record: &RecordId) -> Option<u128> {
    let read = document.record(record)?;
    Some(digest(record, &RecordHash::of(&read.canonical())))
}

fn child_of<'c>(
    fields: &'c Map<String, Value>,
    set: &str,
    id: &str,
) -> Option<&'c Map<String, Value>> {
    let children = fields.get(set).and_then(Value::as_array)?;
    let named = |child: &&Value| child.get("id").and_then(Value::as_str) == Some(id);
    children.iter().find(named)?.as_object()
}

fn replica_error(id: &SegmentId, error: PutError) -> ReplicaError {
    if let PutError::Replica(error) = error {
        return error;
    }
    ReplicaError::Damaged(*id, error.to_string())
}

/// Where a record of a segment lies in another generation, when its own has that scope field. In
/// which scope it lies was decided when it was created.
fn target_of(
    new: &ObjectType,
    field: Option<&Option<String>>,
    from: &SegmentAddress,
    id: &RecordId,
    fields: &Map<String, Value>,
) -> SegmentAddress {
    let stays = field == Some(&new.scope);
    new.address(id, &if stays { from.scope.clone() } else { new.scope_of(fields) })
}

/// The position before the first change that was written at a time or after it; the log's end if no
/// time is said.
fn cut_of(store: &impl Log, row: &SegmentRow, time: Option<i64>) -> Result<Pos, ReplicaError> {
    let Some(time) = time else { return Ok(row.tip) };
    let mut cut = row.tip;
    let walked = each_entry(store, row.sid, 1, |entry| {
        if entry.header.time < time {
            return Ok(());
        }
        cut = entry.pos - 1;
        Err(Walk::Done)
    });
    match walked {
        Err(Walk::Failed(error)) => Err(error),
        Ok(()) | Err(Walk::Done) => Ok(cut),
    }
}

/// What starting a type afresh would come to, by what a store holds. Nothing is changed.
///
/// # Errors
/// When the store cannot be read.
pub fn rehearse_reshape<S>(
    store: &S,
    old: &ObjectType,
    new: &ObjectType,
    cut: Option<i64>,
) -> Result<Reshaping, ReplicaError>
where
    S: Log + Records + Segments + Settings,
{
    /// Records that are named.
    const EXAMPLES: usize = 5;
    let mut far = Reshaping::default();
    let mut targets: BTreeMap<SegmentAddress, u64> = BTreeMap::new();
    let rows = store.segments()?.into_iter();
    let in_force = rows.filter(|row| {
        row.address.ty == old.name && row.address.generation == old.generation && row.tip > 0
    });
    for row in in_force {
        let shed = cut_of(store, &row, cut)?;
        far.segments += 1;
        far.records += row.records;
        far.shed += shed;
        far.changes += row.tip - shed;
        let mut after = 0;
        loop {
            let records = store.records_behind(row.sid, after, PAGE)?;
            let Some(last) = records.last() else { break };
            after = last.rid;
            for record in records {
                let fields = fields_of(&record.json);
                let target = target_of(new, Some(&old.scope), &row.address, &record.id, &fields);
                *targets.entry(target).or_default() += 1;
                let unfit = new.unfit(old, &fields);
                far.unfit += unfit.len() as u64;
                if !unfit.is_empty() && far.examples.len() < EXAMPLES {
                    far.examples.push(record.id);
                }
            }
        }
    }
    far.targets = targets.len() as u64;
    far.largest = targets.into_values().max().unwrap_or_default();
    (far.records_left, far.changes_left) = (far.records, far.changes);
    Ok(far)
}

/// Ends a walk over entries early.
enum Walk {
    Done,
    Failed(ReplicaError),
}

impl From<ReplicaError> for Walk {
    fn from(error: ReplicaError) -> Self {
        Self::Failed(error)
    }
}
