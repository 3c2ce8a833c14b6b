//! Reading: what applications see of records, from the projection alone; and, where a document is
//! needed, a record's history and concurrent values.

use std::collections::BTreeMap;

use fieldkeep_catalog::Catalog;
use fieldkeep_documents::Document;
use fieldkeep_documents::document::{Conflict, FieldWrite};
use fieldkeep_model::status::State;
use fieldkeep_model::verdict::{ArgValue, Opening};
use fieldkeep_model::{
    ChangeHash, Culprit, DeviceNumber, MembershipLog, Outcome, Pos, Reason, RecordKey, TypeName,
    Verdict,
};
use fieldkeep_store::{
    Dismissal, Page, RecordRow, Records, Segments, Settings, StoreError, Verdicts,
};
use serde_json::{Map, Value};

use crate::judging::fields_of;
use crate::log::Entry;
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
    /// The fields that the reasons speak of.
    pub reason_fields: Vec<String>,
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

/// A change in a record's history.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry {
    /// The change.
    pub hash: ChangeHash,
    /// The device that wrote it.
    pub device: DeviceNumber,
    /// The person, as the change says.
    pub person: String,
    /// The author's clock, milliseconds UTC.
    pub time: i64,
    /// The fields that it wrote, with what it wrote.
    pub writes: Vec<FieldWrite>,
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

impl<S: Records + Verdicts + Segments + Settings> Views<'_, S> {
    /// A record, deleted or not.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn record(&self, key: &RecordKey) -> Result<Option<RecordView>, StoreError> {
        let row = self.store.find(&key.ty, &key.id)?.into_iter().next();
        row.map(|row| self.view(&key.ty, row)).transpose()
    }

    /// A page of a type's records.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn list(&self, ty: &TypeName, page: &Page) -> Result<Vec<RecordView>, StoreError> {
        let rows = self.store.records(ty, page)?;
        rows.into_iter().map(|row| self.view(ty, row)).collect()
    }

    /// The records that are held, wait, or are likely to be held; deleted ones left out.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn attention(&self) -> Result<Vec<AttentionView>, StoreError> {
        let types: BTreeMap<i64, TypeName> =
            self.store.segments()?.into_iter().map(|row| (row.sid, row.address.ty)).collect();
        let rows = self.store.attention()?.into_iter().filter(|row| !row.deleted);
        rows.filter_map(|row| Some((types.get(&row.sid)?, row)))
            .map(|(ty, row)| self.view(ty, row))
            .collect()
    }

    /// What is known of a type.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn counts(&self, ty: &TypeName) -> Result<TypeCounts, StoreError> {
        let number = self.store.setting("number")?.and_then(|bytes| bytes.try_into().ok());
        let number = u64::from_be_bytes(number.unwrap_or_default());
        let (unsaved, carried) = self.store.unsaved_records(ty, number)?;
        let mut counts = TypeCounts {
            held: self.store.held_records(ty)?,
            unsaved,
            carried,
            server: self.store.server_count(ty)?,
            ..TypeCounts::default()
        };
        for row in self.store.segments()?.into_iter().filter(|row| row.address.ty == *ty) {
            counts.local += row.live;
            counts.segments += 1;
        }
        Ok(counts)
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
            reason_fields: Vec::new(),
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
        }
        view.reason_fields.dedup();
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

    /// The changes that touched a record, oldest first, with what they wrote.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn history(&mut self, key: &RecordKey) -> Result<Vec<HistoryEntry>, ReplicaError> {
        let mut entries: Vec<(Pos, HistoryEntry)> = Vec::new();
        for row in self.store.find(&key.ty, &key.id)? {
            let Some(segment) = self.segment_of(row.sid).map(|row| row.id) else { continue };
            let document: &Document = &*self.document(&segment)?;
            let document = document.clone();
            let locate = |actor, counter| document.locate(actor, counter);
            self.each_entry(row.sid, 1, |entry| {
                let writes = Document::field_writes(&entry.bytes, &locate);
                let writes: Vec<_> = writes.into_iter().filter(|w| w.record == key.id).collect();
                if !writes.is_empty() {
                    entries.push((entry.pos, history_entry(entry, writes)));
                }
                Ok::<_, ReplicaError>(())
            })?;
        }
        entries.sort_by_key(|(pos, _)| *pos);
        Ok(entries.into_iter().map(|(_, entry)| entry).collect())
    }

    /// The concurrent values of a record's fields.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn conflicts(&mut self, key: &RecordKey) -> Result<Vec<Conflict>, ReplicaError> {
        let mut conflicts = Vec::new();
        for row in self.store.find(&key.ty, &key.id)? {
            let Some(segment) = self.segment_of(row.sid).map(|row| row.id) else { continue };
            conflicts.extend(self.document(&segment)?.conflicts(&key.id));
        }
        Ok(conflicts)
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

fn history_entry(entry: Entry, writes: Vec<FieldWrite>) -> HistoryEntry {
    HistoryEntry {
        hash: entry.header.hash,
        device: entry.header.actor.device(),
        person: entry.header.message,
        time: entry.header.time,
        writes,
    }
}
