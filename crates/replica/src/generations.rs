//! The generations that types are in, and the segments that are of another one: those have a log and
//! no records, and what their documents come to is counted, because that is what proves them.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_catalog::{Catalog, ObjectType};
use fieldkeep_documents::Document;
use fieldkeep_model::status::Generations;
use fieldkeep_model::{
    ChangeHash, ChangeHeader, Part, RecordHash, RecordId, SegmentAddress, SegmentId, TypeName,
    Writing,
};
use fieldkeep_store::{Apart, Generations as _, SegmentRow, Settings, StoreError, digest};

use crate::replica::{Replica, ReplicaError};
use crate::reshape::{Drafts, Underway, stored_reshape};

/// The setting that holds the generations that are in force.
const GENERATIONS: &str = "generations";

/// The generations in force, as they are kept.
///
/// # Errors
/// When the disk fails.
pub fn stored_generations(store: &impl Settings) -> Result<Generations, StoreError> {
    let Some(bytes) = store.setting(GENERATIONS)? else { return Ok(Generations::new()) };
    minicbor::decode(&bytes).map_err(|_| StoreError::Damaged("the generations".into()))
}

impl Replica {
    /// The generations in force; 0 for a type that is not named.
    #[must_use]
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Who wrote a change, and what it is in its generation: a relay alone says more than who.
    pub(crate) fn writing_of<'h>(&self, header: &'h ChangeHeader) -> Writing<'h> {
        let author = self.members.author(&header.actor);
        if author.is_some_and(|author| author.relay) {
            return Writing::read(&header.message);
        }
        Writing { person: &header.message, part: Part::Ordinary }
    }

    /// Whether a segment is of another generation than its type.
    #[must_use]
    pub fn is_apart(&self, address: &SegmentAddress) -> bool {
        self.generations.get(&address.ty).copied().unwrap_or_default() != address.generation
    }

    /// Whether a segment is of a generation that another one has taken the place of.
    pub(crate) fn is_past(&self, address: &SegmentAddress) -> bool {
        let declared = self.published.as_ref().and_then(|p| p.catalog.ty(&address.ty));
        let past = declared.is_some_and(|ty| ty.generation != address.generation);
        let coming = self.writing.as_ref().is_some_and(|writing| {
            writing.plan.ty == address.ty && writing.generation() == address.generation
        });
        past && !coming
    }

    /// What stands of a segment that is of another generation than its type.
    pub(crate) fn apart(&self, id: &SegmentId) -> Apart {
        self.apart.get(id).copied().unwrap_or_default()
    }

    pub(crate) fn save_apart(&mut self, id: &SegmentId, apart: Apart) -> Result<(), StoreError> {
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
        self.outrun = self.catalog_ahead()?.is_some();
        self.writing = stored_reshape(&self.store)?.and_then(Underway::of);
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

    /// Whether that change lies in the log of a segment of a generation.
    pub(crate) fn lies_in(
        &mut self,
        ty: &ObjectType,
        hash: &ChangeHash,
    ) -> Result<bool, ReplicaError> {
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
}

/// The generations that a catalog declares, but for the first ones.
fn declared(catalog: &Catalog) -> Generations {
    let types = catalog.types().iter().filter(|(_, ty)| ty.generation > 0);
    types.map(|(name, ty)| (name.clone(), ty.generation)).collect()
}

/// How many records a document has, and what they add up to.
pub(crate) fn comes_to(document: &Document) -> (u64, u128) {
    let ids = document.ids();
    let digests = ids.iter().filter_map(|id| digest_in(document, id));
    (ids.len() as u64, digests.fold(0, u128::wrapping_add))
}

/// What a record adds to the sum of its segment; nothing if it is not there.
pub(crate) fn digest_in(document: &Document, record: &RecordId) -> Option<u128> {
    let read = document.record(record)?;
    Some(digest(record, &RecordHash::of(&read.canonical())))
}
