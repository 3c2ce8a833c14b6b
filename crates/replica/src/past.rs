//! A record's past: the changes that made it, page by page, and what it was at any moment.
//!
//! Which changes concern a record is told by the gate's index, and what they found and left by the
//! merged document, read as it was. So a page costs what is on it, not what the segment has been
//! through; only a moment that is a time has the whole log read, for clocks are in the changes alone.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_documents::document::{Conflict, FieldWrite};
use fieldkeep_documents::{Document, History, Record};
use fieldkeep_model::{
    ActorId, ChangeHash, DeviceNumber, Part, Pos, RecordKey, SegmentId, Writing,
};
use fieldkeep_store::{Records as _, StoreError};
use serde_json::{Map, Value};

use crate::log::Entry;
use crate::replica::{Replica, ReplicaError};

/// Changes in a record's history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryPage {
    /// The changes, newest first.
    pub entries: Vec<HistoryEntry>,
    /// How many changes there are in all.
    pub changes: u64,
    /// The last one of the page, before which there are more; none if there are not.
    pub next: Option<ChangeHash>,
}

/// A change in a record's history.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry {
    /// The change.
    pub hash: ChangeHash,
    /// The change of an earlier generation that a relay repeated by it.
    pub repeats: Option<ChangeHash>,
    /// Whether a relay began a generation with it: it holds what the record had come to.
    pub begins: bool,
    /// The device that wrote it.
    pub device: DeviceNumber,
    /// The person, as the change says.
    pub person: String,
    /// The author's clock, milliseconds UTC.
    pub time: i64,
    /// The fields that it wrote; none if it only made the record.
    pub writes: Vec<FieldChange>,
}

/// A field that a change wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    /// The field, as `customer` or `lines[7].quantity`; `~deleted` and `lines[7].~deleted` are soft
    /// deletions.
    pub field: String,
    /// What was written; none if it was cleared, or a deletion lifted.
    pub value: Option<Value>,
    /// Whether the value was added to what was there.
    pub added: bool,
    /// What the author had before him.
    pub before: Option<Value>,
    /// What it was right after the change, with all that its author knew of.
    pub after: Option<Value>,
}

/// A moment in a record's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Right after a change, with all that its author knew of: the hash, or its first digits.
    Change(String),
    /// With all that was written until then by the clocks of those who wrote it, milliseconds UTC.
    Time(i64),
}

/// What a device wrote of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterView {
    /// The device.
    pub device: DeviceNumber,
    /// How many changes.
    pub changes: u64,
    /// The newest of them.
    pub newest: ChangeHash,
    /// When that was written, by its author's clock, milliseconds UTC.
    pub time: i64,
}

/// Why a record's past was not read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// No change of the record begins with these digits.
    #[error("{key} has no change {digits}")]
    NoSuchChange {
        /// The record.
        key: RecordKey,
        /// The digits.
        digits: String,
    },
    /// Several changes begin with these digits: give more of them.
    #[error("several changes of {key} begin with {digits}")]
    SeveralChanges {
        /// The record.
        key: RecordKey,
        /// The digits.
        digits: String,
    },
    /// The replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl HistoryError {
    /// An answer with what was asked for amiss apart from a failure of the replica, after which it
    /// starts afresh.
    ///
    /// # Errors
    /// When the replica failed.
    pub fn apart<T>(answer: Result<T, Self>) -> Result<Result<T, Self>, ReplicaError> {
        match answer {
            Err(Self::Replica(error)) => Err(error),
            answer => Ok(answer),
        }
    }
}

impl From<StoreError> for HistoryError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

/// A change of a record.
struct Place {
    segment: SegmentId,
    pos: Pos,
    actor: ActorId,
    hash: ChangeHash,
}

impl Replica {
    /// At most so many of the changes that made a record, newest first in the order in which they came
    /// here; those before one, if its hash or the first digits of it are given.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub fn history(
        &mut self,
        key: &RecordKey,
        limit: usize,
        before: Option<&str>,
    ) -> Result<HistoryPage, HistoryError> {
        let places = self.places(key)?;
        let changes = places.len() as u64;
        let from = match before {
            Some(digits) => named(key, &places, digits)?.map_or_else(
                || {
                    let (key, digits) = (key.clone(), digits.to_owned());
                    Err(HistoryError::NoSuchChange { key, digits })
                },
                |at| Ok(at + 1),
            )?,
            None => 0,
        };
        let page = &places[from..places.len().min(from.saturating_add(limit))];
        let more = from + page.len() < places.len();
        let next = page.last().filter(|_| more).map(|place| place.hash);
        let mut entries: BTreeMap<ChangeHash, HistoryEntry> = BTreeMap::new();
        for segment in page.iter().map(|place| place.segment).collect::<BTreeSet<_>>() {
            let positions = page.iter().filter(|place| place.segment == segment);
            let positions = positions.map(|place| place.pos).collect();
            for entry in self.entries(self.row(&segment).sid, &positions)? {
                let told = self.told(&segment, key, entry)?;
                entries.insert(told.hash, told);
            }
        }
        let entries = page.iter().filter_map(|place| entries.remove(&place.hash)).collect();
        Ok(HistoryPage { entries, changes, next })
    }

    /// The devices that wrote a record, by number.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn writers(&mut self, key: &RecordKey) -> Result<Vec<WriterView>, ReplicaError> {
        let mut writers: BTreeMap<DeviceNumber, (u64, Place)> = BTreeMap::new();
        for place in self.places(key)? {
            let device = place.actor.device();
            writers.entry(device).or_insert((0, place)).0 += 1;
        }
        let view = |(device, (changes, Place { segment, pos, hash, .. }))| {
            let time = self.time_of(self.row(&segment).sid, pos)?;
            Ok(WriterView { device, changes, newest: hash, time })
        };
        writers.into_iter().map(view).collect()
    }

    /// The changes of a record that are merged, newest first.
    fn places(&mut self, key: &RecordKey) -> Result<Vec<Place>, ReplicaError> {
        let mut places = Vec::new();
        for segment in self.homes(key)? {
            let done = self.row(&segment).done;
            let history = &self.load(&segment)?.history;
            places.extend(history.changes_of(&key.id, 1..=done).filter_map(|pos| {
                let (actor, _, hash) = history.change_at(pos)?;
                Some(Place { segment, pos, actor, hash })
            }));
        }
        places.sort_by_key(|place| std::cmp::Reverse(place.pos));
        Ok(places)
    }

    /// The segments that hold a record: one, but for an id that occurs in several scopes.
    fn homes(&self, key: &RecordKey) -> Result<Vec<SegmentId>, ReplicaError> {
        let rows = self.store.find(&key.ty, &key.id)?;
        Ok(rows.iter().filter_map(|row| Some(self.segment_of(row.sid)?.id)).collect())
    }

    /// What a change did to a record.
    pub(crate) fn told(
        &mut self,
        segment: &SegmentId,
        key: &RecordKey,
        entry: Entry,
    ) -> Result<HistoryEntry, ReplicaError> {
        let loaded = self.load_document(segment)?;
        let (history, document) = (&loaded.history, loaded.document.as_ref());
        let document: &Document = document.expect("just loaded");
        let locate = |actor: ActorId, counter| {
            let path = history.path(&actor, counter)?;
            let field = path.field();
            Some((path.record, field))
        };
        let writes = Document::field_writes(&entry.bytes, &locate).into_iter();
        let writes: Vec<FieldWrite> = writes.filter(|write| write.record == key.id).collect();
        let fields: Vec<&str> = writes.iter().map(|write| write.field.as_str()).collect();
        let before = document.values_at(&key.id, &fields, &entry.header.deps);
        let after = document.values_at(&key.id, &fields, &[entry.header.hash]);
        let sides = before.into_iter().zip(after);
        let writes = writes.iter().zip(sides).map(|(write, (before, after))| FieldChange {
            field: write.field.clone(),
            value: write.value.clone(),
            added: write.added,
            before,
            after,
        });
        let writes = writes.collect();
        let Writing { person, part } = self.writing_of(&entry.header);
        let (actor, repeats) = match part {
            Part::Carried(actor, hash) => (actor, Some(hash)),
            Part::Beginning | Part::Ordinary => (entry.header.actor, None),
        };
        Ok(HistoryEntry {
            hash: entry.header.hash,
            repeats,
            begins: part == Part::Beginning,
            device: actor.device(),
            person: person.to_owned(),
            time: entry.header.time,
            writes,
        })
    }

    /// A record's fields as they were at a moment; `None` if it was not there, or was deleted.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub fn record_at(
        &mut self,
        key: &RecordKey,
        moment: &Moment,
    ) -> Result<Option<Map<String, Value>>, HistoryError> {
        let was = self.state_at(key, moment)?;
        Ok(was.filter(|record| !record.deleted).map(|record| record.fields))
    }

    /// A record as it was at a moment, deleted or not; `None` if it was not there.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub fn state_at(
        &mut self,
        key: &RecordKey,
        moment: &Moment,
    ) -> Result<Option<Record>, HistoryError> {
        let of_record = match moment {
            Moment::Change(digits) => {
                let places = self.places(key)?;
                named(key, &places, digits)?.map(|at| (places[at].segment, places[at].hash))
            }
            Moment::Time(_) => None,
        };
        if let Some((segment, hash)) = of_record {
            return Ok(self.document(&segment)?.record_at(&key.id, &[hash]));
        }
        for segment in self.homes(key)? {
            let done = self.row(&segment).done;
            let heads = match moment {
                // A change of another record, of which this one's author may have known.
                Moment::Change(digits) => {
                    let hash = any_change(&self.load(&segment)?.history, done, digits);
                    hash.into_iter().collect()
                }
                Moment::Time(until) => self.heads_at(&segment, *until)?,
            };
            if let Some(record) = self.document(&segment)?.record_at(&key.id, &heads) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// A record's fields with the children of its sets that are removed as well.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn with_removed(&mut self, key: &RecordKey) -> Result<Map<String, Value>, ReplicaError> {
        match self.homes(key)?.first() {
            Some(segment) => Ok(self.document(segment)?.with_removed(&key.id)),
            None => Ok(Map::new()),
        }
    }

    /// The heads of what was written in a segment until then, and of which nothing is missing.
    fn heads_at(&mut self, id: &SegmentId, until: i64) -> Result<Vec<ChangeHash>, ReplicaError> {
        let (sid, done) = (self.row(id).sid, self.row(id).done);
        let (mut included, mut heads) = (BTreeSet::new(), BTreeSet::new());
        self.each_entry(sid, 1, |entry| {
            let header = entry.header;
            let whole = header.deps.iter().all(|dep| included.contains(dep));
            if entry.pos <= done && header.time <= until && whole {
                included.insert(header.hash);
                heads.insert(header.hash);
                for dep in &header.deps {
                    heads.remove(dep);
                }
            }
            Ok::<_, ReplicaError>(())
        })?;
        Ok(heads.into_iter().collect())
    }

    /// The concurrent values of a record's fields.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn conflicts(&mut self, key: &RecordKey) -> Result<Vec<Conflict>, ReplicaError> {
        let mut conflicts = Vec::new();
        for segment in self.homes(key)? {
            conflicts.extend(self.document(&segment)?.conflicts(&key.id));
        }
        Ok(conflicts)
    }
}

/// Which of a record's changes begins with these digits.
fn named(key: &RecordKey, places: &[Place], digits: &str) -> Result<Option<usize>, HistoryError> {
    let is_meant = |place: &Place| place.hash.to_string().starts_with(digits);
    let mut meant = places.iter().enumerate().filter(|(_, place)| is_meant(place));
    match (meant.next(), meant.next()) {
        (Some(_), Some(_)) => {
            let (key, digits) = (key.clone(), digits.to_owned());
            Err(HistoryError::SeveralChanges { key, digits })
        }
        (found, _) => Ok(found.map(|(at, _)| at)),
    }
}

/// The first change of a segment that begins with these digits.
fn any_change(history: &History, done: Pos, digits: &str) -> Option<ChangeHash> {
    let mut hashes = (1..=done).filter_map(|pos| Some(history.change_at(pos)?.2));
    hashes.find(|hash| hash.to_string().starts_with(digits))
}
