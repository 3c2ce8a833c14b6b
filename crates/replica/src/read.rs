//! Reading: what applications see of records, from the projection alone.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_catalog::Catalog;
use fieldkeep_model::status::State;
use fieldkeep_model::verdict::{ArgValue, Opening};
use fieldkeep_model::{
    ChangeHash, ChangeHeader, Culprit, DeviceNumber, MembershipLog, Outcome, Pos, Reason, RecordId,
    RecordKey, SegmentAddress, TypeName, Verdict,
};
use fieldkeep_store::{
    Catalogs as _, Dismissal, Found, Log, Page, Place, Quarantine, Reader, RecordRow, Records,
    Segments, Settings, StoreError, Verdicts, Wanted,
};
use serde_json::{Map, Value};

use crate::generations::stored_generations;
use crate::judging::fields_of;
use crate::replica::{Replica, ReplicaError};

/// A record as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordView {
    /// Its type and id.
    pub key: RecordKey,
    /// Its fields as merged.
    pub fields: Map<String, Value>,
    /// What is known of its validity.
    pub state: State,
    /// Whether it is softly deleted.
    pub deleted: bool,
    /// Whether a change of it has no receipt of the relay.
    pub unsaved: bool,
    /// The fields with concurrent values.
    pub conflicts: Vec<String>,
    /// Why it is held or waits, or is likely to be: sentences.
    pub reasons: Vec<String>,
    /// The rule of each of them by its name, or what kind of reason it is: `schema`, say.
    pub rules: Vec<String>,
    /// The fields that the reasons speak of.
    pub reason_fields: Vec<String>,
    /// Since when that is so: when the newest change that the rules object to was written, or, where only
    /// a forecast speaks, the newest that has no receipt; by its author's clock, milliseconds UTC. Nothing
    /// where no change is the reason: another catalog, say.
    pub since: Option<i64>,
    /// Who wrote what the rules object to.
    pub culprits: Vec<CulpritView>,
    /// The fields at the newest state that passed; the present ones if it passes.
    pub last_valid: Option<Map<String, Value>>,
    /// Whether somebody put it aside.
    pub dismissed: Option<Dismissal>,
}

/// A change that a verdict names, with words for its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CulpritView {
    /// The change.
    pub hash: ChangeHash,
    /// The device's number.
    pub device: DeviceNumber,
    /// The person, as the change says.
    pub person: String,
    /// The author's clock, milliseconds UTC.
    pub time: i64,
    /// What it wrote.
    pub fields: Vec<String>,
}

/// A record that needs attention.
pub type AttentionView = RecordView;

/// Records that are named of those that refer to one.
const REFERRERS: usize = 50;

/// Records that refer to one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Referrers {
    /// The first fifty.
    pub first: Vec<RecordKey>,
    /// How many more there are.
    pub more: u64,
}

/// A record in the quarantine.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldView {
    /// The record.
    pub view: RecordView,
    /// When the newest change that the rules object to was written, by its author's clock, milliseconds
    /// UTC; nothing where they object to none.
    pub since: Option<i64>,
    /// Who looks after it.
    pub person: Option<String>,
}

/// What is known of a type here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeCounts {
    /// Records here, deleted ones left out.
    pub local: u64,
    /// Held records here.
    pub held: u64,
    /// Records with changes of this device's own that have no receipt.
    pub unsaved: u64,
    /// Other records with changes without one: this device carries them.
    pub carried: u64,
    /// The relay's counts, as it last told them: in scope, all, held.
    pub server: Option<[u64; 3]>,
    /// Segments.
    pub segments: u64,
}

/// Reads records out of a store, with the words that the catalog and the membership log give.
#[derive(Debug)]
pub struct Views<'a, S> {
    /// The store.
    pub store: &'a S,
    /// The catalog, if there is one.
    pub catalog: Option<&'a Catalog>,
    /// The membership log.
    pub members: &'a MembershipLog,
}

/// A reader of a directory, with the words that it needs.
#[derive(Debug)]
pub struct Reading {
    /// The reader.
    pub store: Reader,
    /// The catalog in force, if there is one.
    pub catalog: Option<Catalog>,
    /// The membership log.
    pub members: MembershipLog,
}

impl Reading {
    /// What a reader sees now.
    ///
    /// # Errors
    /// When the disk fails, or what is stored is damaged.
    pub fn of(store: Reader) -> Result<Self, ReplicaError> {
        let catalog = store.newest_catalog()?.map(|stored| Catalog::parse(&stored.source));
        let catalog = catalog.transpose().map_err(ReplicaError::Catalog)?;
        let members = MembershipLog::open(store.members()?)?;
        Ok(Self { store, catalog, members })
    }

    /// The records.
    #[must_use]
    pub fn views(&self) -> Views<'_, Reader> {
        Views { store: &self.store, catalog: self.catalog.as_ref(), members: &self.members }
    }
}

impl<S: Records + Verdicts + Segments + Settings + Log> Views<'_, S> {
    /// A record, deleted or not.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn record(&self, key: &RecordKey) -> Result<Option<RecordView>, StoreError> {
        let row = self.store.find(&key.ty, &key.id)?.into_iter().next();
        let row = row.map(|row| (key.ty.clone(), row));
        Ok(self.views(row)?.pop())
    }

    /// A page of a type's records.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn list(&self, ty: &TypeName, page: &Page) -> Result<Vec<RecordView>, StoreError> {
        let rows = self.store.records(ty, page)?;
        self.views(rows.into_iter().map(|row| (ty.clone(), row)))
    }

    /// The records that are held, wait, or are likely to be held; deleted ones left out.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn attention(&self) -> Result<Vec<AttentionView>, StoreError> {
        let types: BTreeMap<i64, TypeName> =
            self.store.segments()?.into_iter().map(|row| (row.sid, row.address.ty)).collect();
        let rows = self.store.attention()?.into_iter().filter(|row| !row.deleted);
        self.views(rows.filter_map(|row| Some((types.get(&row.sid)?.clone(), row))))
    }

    /// A page of the quarantine, and from where to go on where there may be more.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn quarantine(
        &self,
        wanted: &Wanted,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<(Vec<HeldView>, Option<Place>), StoreError>
    where
        S: Quarantine,
    {
        let (found, next) = self.store.quarantine(wanted, after, limit)?;
        let views = found.into_iter().map(|Found { ty, row, since, person }| {
            let since = Some(since).filter(|since| *since > 0);
            Ok(HeldView { view: self.view(&ty, row)?, since, person })
        });
        Ok((views.collect::<Result<_, StoreError>>()?, next))
    }

    /// A record as the quarantine shows it, held or not, with records that refer to it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn in_quarantine(
        &self,
        key: &RecordKey,
    ) -> Result<Option<(HeldView, Referrers)>, StoreError>
    where
        S: Quarantine,
    {
        let Some(view) = self.record(key)? else { return Ok(None) };
        let since = view.culprits.iter().map(|culprit| culprit.time).max();
        let held = HeldView { view, since, person: self.store.assignee(key)? };
        let segments = self.store.segments()?;
        let named = |(sid, id)| {
            let segment = segments.iter().find(|row| row.sid == sid)?;
            Some(RecordKey::new(segment.address.ty.clone(), id))
        };
        let mut named = self.store.referrers(&key.ty, &key.id)?.into_iter().filter_map(named);
        let first: Vec<RecordKey> = named.by_ref().take(REFERRERS).collect();
        Ok(Some((held, Referrers { first, more: named.count() as u64 })))
    }

    /// What is known of a type. Reads no record.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn counts(&self, ty: &TypeName) -> Result<TypeCounts, StoreError> {
        Ok(self.counts_by_type()?.remove(ty).unwrap_or_default())
    }

    /// What is known of every type of which there is a segment, or of which the relay has told. Reads no
    /// record.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn counts_by_type(&self) -> Result<BTreeMap<TypeName, TypeCounts>, StoreError> {
        let mut types: BTreeMap<TypeName, TypeCounts> = BTreeMap::new();
        let (tallies, carried) = (self.store.tallies()?, self.store.carried_records()?);
        let generations = stored_generations(self.store)?;
        for row in self.store.segments()? {
            let SegmentAddress { ty, generation, .. } = row.address;
            let apart = generations.get(&ty).copied().unwrap_or_default() != generation;
            let counts = types.entry(ty).or_default();
            if apart {
                // It has no records to be counted, and what was not taken of it is here alone.
                counts.unsaved += self.left_in(row.sid)?;
                continue;
            }
            let tally = tallies.get(&row.sid).copied().unwrap_or_default();
            let carried = carried.get(&row.sid).copied().unwrap_or_default();
            counts.local += row.live;
            counts.held += tally.held;
            counts.unsaved += tally.unsaved.saturating_sub(carried);
            counts.carried += carried;
            counts.segments += 1;
        }
        for (ty, told) in self.store.server_counts()? {
            types.entry(ty).or_default().server = Some(told);
        }
        Ok(types)
    }

    /// Records of a segment with changes that have no receipt.
    fn left_in(&self, sid: i64) -> Result<u64, StoreError> {
        let mut records = BTreeSet::new();
        self.store.each_outgoing(sid, |change| {
            records.extend(change.records);
            true
        })?;
        Ok(records.len() as u64)
    }

    /// Records as they are shown. What a forecast speaks of is dated for all of them at once.
    fn views(
        &self,
        rows: impl IntoIterator<Item = (TypeName, RecordRow)>,
    ) -> Result<Vec<RecordView>, StoreError> {
        let (mut views, mut undated) = (Vec::new(), BTreeMap::<i64, BTreeSet<RecordId>>::new());
        let mut segments = Vec::new();
        for (ty, row) in rows {
            let (sid, unsaved) = (row.sid, row.unsaved > 0);
            let view = self.view(&ty, row)?;
            if unsaved && matches!(view.state, State::Forecast(_)) && !view.reasons.is_empty() {
                undated.entry(sid).or_default().insert(view.key.id.clone());
            }
            views.push(view);
            segments.push(sid);
        }
        for (sid, records) in undated {
            let newest = self.store.newest_outgoing(sid, &records)?;
            for (view, _) in views.iter_mut().zip(&segments).filter(|(_, of)| **of == sid) {
                if let Some(pos) = newest.get(&view.key.id) {
                    view.since = self.written_at(sid, *pos)?;
                }
            }
        }
        Ok(views)
    }

    /// When a change was written that waits for its receipt, by its author's clock.
    fn written_at(&self, sid: i64, pos: Pos) -> Result<Option<i64>, StoreError> {
        let row = self.store.changes(sid, pos, 1)?.into_iter().find(|row| row.pos == pos);
        // Where the bytes are damaged, the record is read all the same.
        Ok(row.and_then(|row| Some(ChangeHeader::parse(&row.bytes).ok()?.time)))
    }

    fn view(&self, ty: &TypeName, row: RecordRow) -> Result<RecordView, StoreError> {
        let key = RecordKey::new(ty.clone(), row.id.clone());
        let fields = fields_of(&row.json);
        let dismissed = self.store.dismissal(&key)?.filter(|d| d.hash == row.hash);
        let mut view = RecordView {
            key,
            state: row.state,
            deleted: row.deleted,
            unsaved: row.unsaved > 0,
            conflicts: row.conflicts,
            reasons: Vec::new(),
            rules: Vec::new(),
            reason_fields: Vec::new(),
            since: None,
            culprits: Vec::new(),
            last_valid: None,
            dismissed,
            fields,
        };
        if row.state == State::Judged(Outcome::Valid) {
            view.last_valid = Some(view.fields.clone());
            return Ok(view);
        }
        let stated = self.store.verdict(row.sid, &row.id)?;
        let stated: Option<(Verdict, Vec<Opening>)> = stated.and_then(|(verdict, openings)| {
            Some((minicbor::decode(&verdict).ok()?, minicbor::decode(&openings).ok()?))
        });
        let (mut reasons, mut openings) = (Vec::new(), Vec::new());
        if let Some((verdict, opened)) = stated {
            view.last_valid = verdict.last_valid.map(|valid| fields_of(&valid.json));
            view.culprits = verdict.culprits.into_iter().map(culprit).collect();
            (reasons, openings) = (verdict.reasons, opened);
        }
        if let State::Forecast(_) = row.state {
            let forecast = row.forecast.as_deref();
            reasons = forecast.and_then(|bytes| minicbor::decode(bytes).ok()).unwrap_or_default();
            view.culprits.clear();
            view.last_valid = view.last_valid.or_else(|| row.valid.as_deref().map(fields_of));
        }
        for reason in &mut reasons {
            unseal(reason, &openings);
            view.reason_fields.extend(reason.fields.iter().cloned());
            view.reasons.push(self.explain(ty, reason));
            view.rules.push(reason.rule.clone().unwrap_or_else(|| reason.id.clone()));
        }
        view.reason_fields.sort_unstable();
        view.reason_fields.dedup();
        view.since = view.culprits.iter().map(|culprit| culprit.time).max();
        Ok(view)
    }

    fn explain(&self, ty: &TypeName, reason: &Reason) -> String {
        match self.catalog {
            Some(catalog) => catalog.explain(ty, reason),
            None => format!("{} (the catalog is not here yet)", reason.id.replace('_', " ")),
        }
    }
}

fn culprit(culprit: Culprit) -> CulpritView {
    let Culprit { hash, actor, person, time, fields, .. } = culprit;
    CulpritView { hash, device: actor.device(), person, time, fields }
}

/// Puts the values in that this replica may read.
fn unseal(reason: &mut Reason, openings: &[Opening]) {
    for arg in &mut reason.args {
        let ArgValue::Sealed(seal) = &arg.value else { continue };
        if let Some(opening) = openings.iter().find(|opening| opening.seal() == *seal) {
            arg.value = ArgValue::Open(opening.value.clone());
        }
    }
}

impl Replica {
    /// The views of this replica's own store.
    #[must_use]
    pub fn views(&self) -> Views<'_, fieldkeep_store::Store> {
        Views {
            store: &self.store,
            catalog: self.published.as_ref().map(|published| &published.catalog),
            members: &self.members,
        }
    }

    /// When a change of a segment's log was written, by its author's clock.
    ///
    /// # Errors
    /// When the disk fails, or there is no such entry.
    pub fn time_of(&self, sid: i64, pos: Pos) -> Result<i64, ReplicaError> {
        let absent = || StoreError::Damaged("an entry of the log".into());
        Ok(self.entry(sid, pos)?.ok_or_else(absent)?.header.time)
    }

    /// A segment's document as any Automerge 3 opens it.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn export_segment(
        &mut self,
        id: &fieldkeep_model::SegmentId,
    ) -> Result<Vec<u8>, ReplicaError> {
        Ok(self.document(id)?.export())
    }
}
