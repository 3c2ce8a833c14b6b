//! Taint: what was merged without permission, because something permitted builds on it; and what was
//! written without a connection, upon a state of the record that asks for one.
//!
//! A record is held while a value stands in it that such a change wrote; the document tells those.
//! It does not tell who added to a counter, cleared a field, took characters out of a text or made
//! something empty: such a trace is kept here, until a permitted change that knows of it replaces
//! or clears what stands in the field. Both follow from the log alone, whatever order it has.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_documents::document::Deed;
use fieldkeep_documents::{Document, History};
use fieldkeep_model::{ActorId, ChangeHash, Head, Part, Pos, RecordId, SegmentId, Seq};
use fieldkeep_store::SegmentRow;

use crate::acceptance::NOT_PERMITTED;
use crate::log::Entry;
use crate::replica::{Replica, ReplicaError};

/// The reason for which a record is held that was written without a connection where that needs one.
const NEEDS_CONNECTION: &str = "needs_connection";

/// Whether a reason says that something stands in a record which should not be there.
pub(crate) fn is_taint(reason: &str) -> bool {
    [NOT_PERMITTED, NEEDS_CONNECTION].contains(&reason)
}

/// What a segment's log holds of changes without permission.
#[derive(Debug, Default)]
pub(crate) struct Taint {
    /// Those changes.
    changes: BTreeSet<(ActorId, Seq)>,
    /// What they did that no standing value shows.
    traces: BTreeMap<RecordId, Vec<Trace>>,
}

/// Something that a change without permission did to a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The change's position in the log.
    pub(crate) pos: Pos,
    /// The change.
    pub(crate) hash: ChangeHash,
    /// The field.
    pub(crate) field: String,
    /// The position of the permitted change that replaced the field's value.
    until: Option<Pos>,
}

impl Trace {
    /// Whether it stands when everything through a position is merged.
    fn stands(&self, done: Pos) -> bool {
        self.pos <= done && self.until.is_none_or(|until| until > done)
    }
}

impl Taint {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether a change was merged without permission.
    pub(crate) fn contains(&self, actor: ActorId, seq: Seq) -> bool {
        self.changes.contains(&(actor, seq))
    }

    /// The traces in a record that stand when everything through a position is merged.
    pub(crate) fn traces(&self, record: &RecordId, done: Pos) -> impl Iterator<Item = &Trace> {
        self.traces.get(record).into_iter().flatten().filter(move |trace| trace.stands(done))
    }

    /// Notes an entry of the log that was just appended; `history` holds it.
    pub(crate) fn note(&mut self, history: &History, entry: &Noted<'_>) {
        if entry.tainted {
            self.changes.insert((entry.actor, entry.seq));
        } else if self.traces.is_empty() {
            return;
        }
        let locate = |actor: ActorId, counter: u64| {
            let path = history.path(&actor, counter)?;
            let field = path.field();
            Some((path.record, field))
        };
        for deed in Document::deeds(entry.bytes, &locate) {
            if !entry.tainted {
                self.replace(history, entry, &deed);
            } else if !deed.visible {
                let (pos, hash) = (entry.pos, entry.hash);
                let trace = Trace { pos, hash, field: deed.field, until: None };
                self.traces.entry(deed.record).or_default().push(trace);
            }
        }
    }

    /// Ends the traces of which a permitted change knows, and whose field's value it replaces.
    fn replace(&mut self, history: &History, entry: &Noted<'_>, deed: &Deed) {
        let traces = self.traces.get_mut(&deed.record).into_iter().flatten();
        for trace in traces.filter(|trace| trace.until.is_none()) {
            let replaced = deed.replaces && deed.lies_in(&trace.field);
            if replaced && history.covers(&[entry.hash], &trace.hash) {
                trace.until = Some(entry.pos);
            }
        }
    }
}

/// A log entry, as far as taint is concerned.
pub(crate) struct Noted<'e> {
    pub(crate) pos: Pos,
    pub(crate) actor: ActorId,
    pub(crate) seq: Seq,
    pub(crate) hash: ChangeHash,
    pub(crate) tainted: bool,
    pub(crate) bytes: &'e [u8],
}

impl<'e> From<&'e Entry> for Noted<'e> {
    fn from(entry: &'e Entry) -> Self {
        let Entry { pos, header, tainted, bytes } = entry;
        let (actor, seq, hash) = (header.actor, header.seq, header.hash);
        Self { pos: *pos, actor, seq, hash, tainted: *tainted, bytes }
    }
}

impl Replica {
    /// Reads a segment's taint from its log, of which `history` holds everything.
    pub(crate) fn read_taint(&self, sid: i64, history: &History) -> Result<Taint, ReplicaError> {
        let mut taint = Taint::default();
        if let Some(first) = self.tainted_before(sid, history.len())?.first() {
            self.each_entry(sid, *first, |entry| {
                taint.note(history, &Noted::from(&entry));
                Ok::<_, ReplicaError>(())
            })?;
        }
        Ok(taint)
    }

    /// The fields of a record in which something stands that should not be there, as `lines` for whatever
    /// is in that set; empty for the record itself.
    pub(crate) fn tainted_fields(
        &mut self,
        id: &SegmentId,
        record: &RecordId,
    ) -> Result<BTreeSet<String>, ReplicaError> {
        let fields = self.tainted_by(id, record)?.into_values().flatten();
        let top = |field: String| field.split(['[', '.']).next().unwrap_or_default().to_owned();
        Ok(fields.map(top).collect())
    }

    /// The changes that did something to a record which stands and should not be there, and to which
    /// fields.
    pub(crate) fn tainted_by(
        &mut self,
        id: &SegmentId,
        record: &RecordId,
    ) -> Result<BTreeMap<ChangeHash, BTreeSet<String>>, ReplicaError> {
        let done = self.row(id).done;
        let mut by: BTreeMap<ChangeHash, BTreeSet<String>> = BTreeMap::new();
        if self.load(id)?.taint.is_empty() {
            return Ok(by);
        }
        let loaded = self.load_document(id)?;
        let document = loaded.document.as_ref().expect("just loaded");
        for (field, actor, counter) in document.writers(record, &[String::new()]) {
            let change = loaded.history.author_of_op(&actor, counter);
            let tainted = change.filter(|(_, seq)| loaded.taint.contains(actor, *seq));
            if let Some((hash, _)) = tainted {
                by.entry(hash).or_default().insert(field);
            }
        }
        for trace in loaded.taint.traces(record, done) {
            by.entry(trace.hash).or_default().insert(trace.field.clone());
        }
        Ok(by)
    }

    /// Marks what is in a segment's log from a position on: it repeats something that should not be
    /// there.
    pub(crate) fn taint_from(&mut self, id: &SegmentId, first: Pos) -> Result<(), ReplicaError> {
        let (sid, tip) = (self.row(id).sid, self.row(id).tip);
        for pos in first..=tip {
            self.store.taint(sid, pos)?;
        }
        self.load(id)?;
        let history = &self.cache.peek(id).expect("just loaded").history;
        let taint = self.read_taint(sid, history)?;
        self.load(id)?.taint = taint;
        Ok(())
    }

    /// Why something in the record that stands should not be there, as a reason's id: it was merged
    /// without permission, or written without a connection where that needs one.
    pub(crate) fn taint_of(
        &mut self,
        id: &SegmentId,
        record: &RecordId,
    ) -> Result<Option<&'static str>, ReplicaError> {
        let changes = self.tainted_by(id, record)?;
        let history = &self.load(id)?.history;
        let heads = changes.into_keys().filter_map(|hash| {
            let (actor, seq) = history.locate(&hash)?;
            Some(Head { actor, seq, hash })
        });
        let heads: Vec<Head> = heads.collect();
        if heads.is_empty() {
            return Ok(None);
        }
        for head in &heads {
            if !self.was_permitted(id, record, head)? {
                return Ok(Some(NOT_PERMITTED));
            }
        }
        Ok(Some(NEEDS_CONNECTION))
    }

    /// Whether a change of a record was permitted. Of one that a relay wrote in a new generation: whether
    /// what it repeats was, in an earlier one; nothing is known of that where that is archived.
    fn was_permitted(
        &mut self,
        id: &SegmentId,
        record: &RecordId,
        change: &Head,
    ) -> Result<bool, ReplicaError> {
        if !self.is_head_authorised(id, change) {
            return Ok(false);
        }
        let pos = self.load(id)?.history.position(&change.hash);
        let SegmentRow { sid, address, .. } = self.row(id).clone();
        let entry = self.entries(sid, &pos.into_iter().collect())?.pop();
        let part = entry.map_or(Part::Ordinary, |entry| self.writing_of(&entry.header).part);
        let earlier = self.segments.values().filter(|row| {
            row.address.ty == address.ty && row.address.generation < address.generation
        });
        for earlier in earlier.map(|row| row.id).collect::<Vec<_>>() {
            let permitted = match part {
                Part::Ordinary => true,
                Part::Beginning => self.taint_of(&earlier, record)? != Some(NOT_PERMITTED),
                Part::Carried(_, hash) => {
                    let original = self.load(&earlier)?.history.locate(&hash);
                    original.is_none_or(|(actor, seq)| {
                        self.is_head_authorised(&earlier, &Head { actor, seq, hash })
                    })
                }
            };
            if !permitted {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
