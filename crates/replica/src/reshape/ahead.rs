//! Writing a generation beside the one in force: first each record as it stood at the cut, whole; and
//! where records go.

use std::collections::{BTreeMap, VecDeque};

use fieldkeep_catalog::{Catalog, ObjectType};
use fieldkeep_documents::Record;
use fieldkeep_documents::document::Author;
use fieldkeep_model::{
    ChangeHash, Part, Pos, RecordEdit, RecordId, RecordKey, SegmentAddress, SegmentId, Writing,
};
use fieldkeep_store::{
    Apart, Catalogs as _, Generations as _, Log, Records, SegmentRow, Segments, StoreError,
};
use serde_json::{Map, Value};

use super::{Reshape, Reshaping};
use crate::judging::fields_of;
use crate::log::{Walk, each_entry};
use crate::replica::{Replica, ReplicaError};
use crate::write::PutError;

/// Records that become one change together, in one slice: fewer than an import writes together, so that
/// whoever syncs meanwhile waits for a few milliseconds.
const TOGETHER: usize = 16;
/// Records that are read in one go.
const PAGE: usize = 1_000;

/// The records of a segment that are to be written, by the segments that they go to.
type Drafted = VecDeque<(SegmentAddress, Vec<RecordId>)>;

/// What is to be written of the segment that is being worked on.
#[derive(Debug, Default)]
pub(crate) struct Drafts(Option<(SegmentId, Drafted)>);

impl Replica {
    /// Writes a slice of a segment in the new generation: what stood at the cut, then what came after.
    pub(crate) fn write_ahead(
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
        let (mut writes, mut doubtful) = (Vec::with_capacity(ids.len()), Vec::new());
        for record in ids {
            let content = self.document(id)?.content_at(&record, &heads).unwrap_or_default();
            let mut edits = new.refit(content.edits, &Map::new());
            let mut deleted = content.deleted;
            let tainted = self.tainted_fields(id, &record)?;
            if !tainted.is_empty() {
                // What should not be there is written by itself, and goes on to be held.
                let (bad, good) =
                    edits.into_iter().partition(|edit| tainted.contains(edit.field()));
                edits = good;
                let gone = tainted.contains("~deleted") || edits.is_empty();
                let bad = RecordEdit { edits: bad, deleted: deleted.filter(|_| gone) };
                deleted = deleted.filter(|_| !gone);
                doubtful.push((record.clone(), bad));
            }
            writes.push((record, RecordEdit { edits, deleted }));
        }
        let message = Writing { person: "", part: Part::Beginning }.message();
        let author = Author { actor: self.me.actor(), person: message, time: now };
        self.write_beginnings(&target, &writes, &author)?;
        for one in doubtful {
            let first = self.row(&target).tip + 1;
            self.write_beginnings(&target, &[one], &author)?;
            self.taint_from(&target, first)?;
        }
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
            let was = match &field {
                // Nothing of it says where it goes.
                Some(field) if *field == new.scope => Record::default(),
                Some(_) | None => self.document(id)?.record_at(&record, heads).unwrap_or_default(),
            };
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

    /// The scope field of a generation of a type; nothing if no catalog here declares that.
    pub(crate) fn scope_field(
        &self,
        from: &SegmentAddress,
    ) -> Result<Option<Option<String>>, StoreError> {
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
}

/// Where a record of a segment lies in another generation, when its own has that scope field. In
/// which scope it lies was decided when it was created.
pub(super) fn target_of(
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
pub fn rehearse_reshape(
    store: &(impl Log + Records + Segments),
    old: &ObjectType,
    new: &ObjectType,
    cut: Option<i64>,
) -> Result<Reshaping, ReplicaError> {
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
