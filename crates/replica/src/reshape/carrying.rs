//! Carrying over what came after the cut, or arrives late: each change by itself, once.

use std::collections::BTreeSet;

use fieldkeep_catalog::{ObjectType, child_of};
use fieldkeep_documents::document::{Author, merged_text};
use fieldkeep_model::{Edit, Part, Pos, RecordEdit, RecordId, RecordKey, SegmentId, Writing};
use fieldkeep_store::{Apart, Generations as _, Records as _};
use serde_json::{Map, Value};

use super::Reshaped;
use super::ahead::target_of;
use crate::log::Entry;
use crate::replica::{Replica, ReplicaError};
use crate::write::PutError;

/// Changes that are carried over in one go: whoever syncs meanwhile waits for no more.
const CARRIED: u64 = 8;

impl Replica {
    /// A segment of an earlier generation with something that is not carried over.
    pub(crate) fn late(&self) -> Option<SegmentId> {
        if self.apart.is_empty() {
            return None;
        }
        let late = self.segments.values().find(|row| {
            self.is_past(&row.address) && !row.damaged && self.apart(&row.id).done < row.done
        });
        late.map(|row| row.id)
    }

    /// Carries what arrived for a segment of another generation over into the one in force, as far as
    /// it is merged. Nothing of one that is in force, or that is being written; a commit must follow.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn carry_late(&mut self, id: &SegmentId, now: i64) -> Result<Reshaped, ReplicaError> {
        let row = self.row(id);
        if !self.is_past(&row.address) || self.apart(id).done >= row.done {
            return Ok(Reshaped::default());
        }
        self.written_afresh(id, |replica| replica.carry_merged(id, now))
    }

    /// The same within something that is done wholly or not at all.
    pub(crate) fn carry_merged(&mut self, id: &SegmentId, now: i64) -> Result<(), PutError> {
        let address = self.row(id).address.clone();
        let Some(catalog) = self.catalog().filter(|_| self.is_past(&address)) else {
            return Ok(());
        };
        let Some(new) = catalog.ty(&address.ty) else { return Ok(()) };
        while self.apart(id).done < self.row(id).done {
            self.carry_some(id, new, now)?;
        }
        Ok(())
    }

    /// Repeats some of the changes after the cut, each as one of this relay's own.
    pub(crate) fn carry_some(
        &mut self,
        id: &SegmentId,
        new: &ObjectType,
        now: i64,
    ) -> Result<(), PutError> {
        let (sid, apart) = (self.row(id).sid, self.apart(id));
        let last = self.row(id).done.min(apart.done + CARRIED);
        let wanted: BTreeSet<Pos> = (apart.done + 1..=last).collect();
        let mut targets = BTreeSet::new();
        for entry in self.entries(sid, &wanted).map_err(|error| error.in_segment(id))? {
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
        let Writing { person, part } = self.writing_of(header);
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
            let first = self.row(&target).tip + 1;
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
            self.keep_winners(id, entry, (&record, &edit), &current, (&target, &author, new))?;
            if entry.tainted {
                self.taint_from(&target, first)?;
                self.rejudge(&[key])?;
            }
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
        if !edit.edits.iter().any(tells_text) {
            return Ok(edit);
        }
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

    /// Where a change wrote a value that a concurrent one before it in the log wins over, that one wins
    /// here, too, unless somebody has written something else since: both are in the history.
    fn keep_winners(
        &mut self,
        id: &SegmentId,
        entry: &Entry,
        (record, edit): (&RecordId, &RecordEdit),
        before: &Map<String, Value>,
        (target, author, new): (&SegmentId, &Author, &ObjectType),
    ) -> Result<(), PutError> {
        let history = &self.load(id)?.history;
        if entry.header.deps == history.heads_through(entry.pos - 1) {
            return Ok(()); // It knew everything before it.
        }
        let heads = history.heads_through(entry.pos);
        let there = self.document(id)?.record_at(record, &heads).unwrap_or_default();
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
        let content = self.document(id)?.content_at(record, &heads).unwrap_or_default();
        let edits = content.edits.into_iter().filter(|edit| fields.contains(edit.field()));
        let edit = RecordEdit::from(new.refit(edits.collect(), &here));
        let key = RecordKey::new(new.name.clone(), record.clone());
        match self.put_in(target, &key, &edit, author) {
            Err(PutError::Write(_) | PutError::Absent(_)) => Ok(()),
            other => other.map(drop),
        }
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
}

/// Whether an edit says what a text comes to.
fn tells_text(edit: &Edit) -> bool {
    match edit {
        Edit::Text(..) => true,
        Edit::Child(_, _, inner) => inner.iter().any(tells_text),
        Edit::Put(..) | Edit::Json(..) | Edit::Add(..) | Edit::Clear(_) | Edit::RemoveChild(..) => {
            false
        }
    }
}
