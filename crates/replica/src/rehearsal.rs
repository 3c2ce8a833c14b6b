//! Rehearsal: what publishing a catalog would make of every record, found out beside the engine.
//!
//! Reads a store as it stood at one moment, judges each record that publishing would have judged
//! again by the same judge, and writes nothing. What it says is what publishing would do to what was
//! merged at that moment; changes that came later, or are not merged yet, are not in it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fieldkeep_catalog::{Catalog, Holder, Judges, Referent, Surroundings};
use fieldkeep_model::{
    Outcome, Reason, RecordId, RecordKey, SegmentAddress, SegmentId, TypeName, Verdict,
};
use fieldkeep_store::{
    Catalogs as _, Reader, RecordRow, Records as _, SegmentRow, Segments as _, Verdicts as _,
};

use crate::judging::{World, fields_of, judge, outcome_of, plain, unchanged};
use crate::publishing::restore_catalog;
use crate::renewal::Renewal;
use crate::replica::ReplicaError;
use crate::taint::is_taint;

/// What would become of a record of which something would be stated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The record.
    pub key: RecordKey,
    /// Its scope.
    pub scope: String,
    /// What it is.
    pub before: Outcome,
    /// What it would be.
    pub after: Outcome,
    /// Why it is that, unless valid.
    pub was: Vec<Reason>,
    /// Why it would be that, unless valid.
    pub reasons: Vec<Reason>,
}

/// A rehearsal under way.
#[derive(Debug)]
pub struct Rehearsal {
    reader: Reader,
    in_force: Option<Catalog>,
    number: u64,
    next: Catalog,
    judges: Judges,
    segments: BTreeMap<i64, SegmentRow>,
    /// Unique fields that are not indexed as the next catalog wants it.
    unindexed: BTreeSet<(TypeName, String)>,
    /// Segments whose records' unique values are to be noted first, and from where.
    noting: VecDeque<(i64, i64)>,
    /// Segments that are to be judged, and from where.
    judging: VecDeque<(i64, i64)>,
    /// Records of segments that the catalog in force has not judged to the end itself.
    renewing: u64,
    seen: u64,
}

impl Rehearsal {
    /// Begins one, on what a reader of a relay's store sees now, with the rules in Rust that the relay has.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn begin(reader: Reader, next: Catalog, judges: Judges) -> Result<Self, ReplicaError> {
        reader.stand_still()?;
        let published = reader.newest_catalog()?.map(restore_catalog).transpose()?;
        let number = published.as_ref().map_or(0, |published| published.number);
        let in_force = published.map(|published| published.catalog);
        let pending = Renewal::stored(&reader)?;
        let rows = reader.segments()?.into_iter().map(|row| (row.sid, row));
        let segments: BTreeMap<i64, SegmentRow> = rows.collect();
        let changed = match &in_force {
            Some(in_force) => in_force.changed_types(&next),
            None => next.types().keys().cloned().collect(),
        };
        // What the catalog in force has not yet had judged, the next one will.
        let judged = segments.values().filter(|row| {
            !row.damaged && (changed.contains(&row.address.ty) || pending.contains(&row.id))
        });
        let judging: VecDeque<_> = judged.map(|row| (row.sid, 0)).collect();
        let unindexed = unindexed(in_force.as_ref().filter(|_| pending.is_indexed()), &next);
        let types: BTreeSet<_> = judging.iter().map(|(sid, _)| &segments[sid].address.ty).collect();
        let noted = segments.values().filter(|row| {
            let ty = &row.address.ty;
            !row.damaged && types.contains(ty) && unindexed.iter().any(|(of, _)| of == ty)
        });
        let noting = noted.map(|row| (row.sid, 0)).collect();
        let renewing = segments.values().filter(|row| pending.contains(&row.id));
        let renewing = renewing.map(|row| row.records).sum();
        let seen = 0;
        Ok(Self {
            reader,
            in_force,
            number,
            next,
            judges,
            segments,
            unindexed,
            noting,
            judging,
            renewing,
            seen,
        })
    }

    /// The catalog in force, with its number; 0 if there is none.
    #[must_use]
    pub fn in_force(&self) -> (Option<&Catalog>, u64) {
        (self.in_force.as_ref(), self.number)
    }

    /// The catalog that is tried.
    #[must_use]
    pub fn next(&self) -> &Catalog {
        &self.next
    }

    /// What this reads.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// How many records were judged by now.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// How many records the catalog in force has not judged itself yet: what it would do to them counts as
    /// what the next one would.
    #[must_use]
    pub fn renewing(&self) -> u64 {
        self.renewing
    }

    /// How many changes are received and not merged: what becomes of them is not in it.
    #[must_use]
    pub fn unmerged(&self) -> u64 {
        self.segments.values().map(|row| row.tip - row.done).sum()
    }

    /// Judges so many records more, and returns the fates of those of which something would be
    /// stated. Nothing once all are judged.
    ///
    /// # Errors
    /// When the store cannot be read, or there is no room for what is noted aside.
    pub fn go_on(&mut self, limit: usize) -> Result<Option<Vec<Fate>>, ReplicaError> {
        if let Some((sid, after)) = self.noting.pop_front() {
            let rows = self.reader.records_behind(sid, after, limit)?;
            rows.iter().try_for_each(|row| self.note(row))?;
            rest(sid, &rows, limit).into_iter().for_each(|rest| self.noting.push_front(rest));
            return Ok(Some(Vec::new()));
        }
        let Some((sid, after)) = self.judging.pop_front() else { return Ok(None) };
        let rows = self.reader.records_behind(sid, after, limit)?;
        rest(sid, &rows, limit).into_iter().for_each(|rest| self.judging.push_front(rest));
        self.seen += rows.len() as u64;
        let fates = rows.into_iter().map(|row| self.fate(row));
        Ok(Some(fates.filter_map(Result::transpose).collect::<Result<_, _>>()?))
    }

    /// Notes what a record would claim as unique.
    fn note(&self, row: &RecordRow) -> Result<(), ReplicaError> {
        let ty = &self.segments[&row.sid].address.ty;
        let Some(object) = self.next.ty(ty).filter(|_| !row.deleted) else { return Ok(()) };
        for (field, value) in object.unique_values(&fields_of(&row.json)) {
            self.reader.claim(ty, (&field, &value), row.sid, &row.id)?;
        }
        Ok(())
    }

    /// What would become of a record, if anything would be stated of it.
    fn fate(&self, row: RecordRow) -> Result<Option<Fate>, ReplicaError> {
        let (before, deleted) = (outcome_of(Some(&row)), row.deleted);
        let segment = &self.segments[&row.sid];
        let SegmentAddress { ty, scope, .. } = &segment.address;
        let was = match before {
            Outcome::Valid => Vec::new(),
            Outcome::Held | Outcome::Waiting => self.stated(row.sid, &row.id)?,
        };
        let key = RecordKey::new(ty.clone(), row.id.clone());
        let subject = unchanged(segment.id, row);
        let of = |sid: i64| self.segments.get(&sid).map_or(SegmentId([0; 16]), |row| row.id);
        let judges = Some(&self.judges);
        let base = World { store: &self.reader, segment: &of, partial: &|_| false, judges };
        let world = Foreseen { rehearsal: self, base };
        let judgement = judge(&self.next, &segment.address, &subject, &world);
        let (mut after, mut reasons) = (judgement.outcome, judgement.reasons);
        // What was merged without permission does not depend on the catalog.
        let taint = was.first().map(|reason| reason.id.as_str()).filter(|id| is_taint(id));
        if let Some(taint) = taint.filter(|_| !deleted) {
            after = Outcome::Held;
            reasons.insert(0, plain(taint));
        }
        let same = before == after && said(&was).eq(said(&reasons));
        let scope = scope.clone();
        Ok((!same).then_some(Fate { key, scope, before, after, was, reasons }))
    }

    /// The reasons that were stated of a record.
    fn stated(&self, sid: i64, id: &RecordId) -> Result<Vec<Reason>, ReplicaError> {
        let stated = self.reader.verdict(sid, id)?;
        let verdict = stated.and_then(|(bytes, _)| minicbor::decode::<Verdict>(&bytes).ok());
        Ok(verdict.map(|verdict| verdict.reasons).unwrap_or_default())
    }
}

/// Where to go on in a segment, if there may be more.
fn rest(sid: i64, rows: &[RecordRow], limit: usize) -> Option<(i64, i64)> {
    rows.last().filter(|_| rows.len() == limit).map(|last| (sid, last.rid))
}

/// What reasons say, without the values in them.
fn said(reasons: &[Reason]) -> impl Iterator<Item = (&str, Option<&str>, &[String])> {
    reasons.iter().map(|reason| (&*reason.id, reason.rule.as_deref(), &*reason.fields))
}

/// The unique fields of a catalog that are not in the index yet, which follows the one in force.
fn unindexed(in_force: Option<&Catalog>, next: &Catalog) -> BTreeSet<(TypeName, String)> {
    let mut found = BTreeSet::new();
    for (name, object) in next.types() {
        let before = in_force.and_then(|catalog| catalog.ty(name));
        let indexed = |field: &String| {
            before.and_then(|before| before.fields.get(field)).is_some_and(|field| field.unique)
        };
        let unique = object.fields.iter().filter(|(_, field)| field.unique);
        let lacking = unique.map(|(field, _)| field).filter(|field| !indexed(field));
        found.extend(lacking.map(|field| (name.clone(), field.clone())));
    }
    found
}

/// The other records, as the judge of a catalog that is not in force sees them.
struct Foreseen<'a> {
    rehearsal: &'a Rehearsal,
    base: World<'a, Reader>,
}

impl Surroundings for Foreseen<'_> {
    fn referent(&self, ty: &TypeName, id: &RecordId) -> Referent {
        self.base.referent(ty, id)
    }

    fn presence(&self, ty: &TypeName, id: &RecordId) -> Referent {
        self.base.presence(ty, id)
    }

    fn holders(&self, ty: &TypeName, field: &str, value: &str) -> Vec<Holder> {
        let Rehearsal { unindexed, reader, .. } = self.rehearsal;
        if !unindexed.contains(&(ty.clone(), field.to_owned())) {
            return self.base.holders(ty, field, value);
        }
        let claimants = reader.would_claim(ty, field, value).unwrap_or_default().into_iter();
        claimants.map(|(sid, id)| Holder { id, segment: (self.base.segment)(sid) }).collect()
    }

    fn judges(&self) -> Option<&Judges> {
        self.base.judges()
    }
}
