//! What is loaded: the gate's index and the document of the segments in use, bounded in memory, on a device in
//! number as well.
//!
//! A loaded index reaches to the log's end, a loaded document to what is materialised. Both can be
//! dropped at any time: the log has everything.

use std::collections::{BTreeMap, VecDeque};

use fieldkeep_documents::gate::Touch;
use fieldkeep_documents::{Document, History};
use fieldkeep_model::{Pos, SegmentId};
use fieldkeep_store::{Log as _, Snapshot};

use crate::identity::Role;
use crate::replica::{Replica, ReplicaError};
use crate::taint::Taint;

/// What may stay in memory.
#[derive(Clone, Copy, Debug)]
struct Bound {
    /// Segments of which it stays.
    count: usize,
    /// Bytes of those, by estimate: what they really take is between half of that and as much.
    bytes: usize,
}

const MB: usize = 1024 * 1024;

/// Bytes of indexes and documents that a replica keeps loaded unless it is told otherwise: a relay those of
/// all segments that many write at present, a device what its user has at hand, beside an application.
fn bounds(role: Role) -> (Bound, Bound) {
    match role {
        Role::Relay => {
            let half = Bound { count: usize::MAX, bytes: RELAY_MEMORY / 2 };
            (half, half)
        }
        Role::Device => (Bound { count: 128, bytes: 48 * MB }, Bound { count: 24, bytes: 64 * MB }),
    }
}

/// What loaded documents and indexes of a relay take together, by estimate, unless it is told otherwise: they
/// cost one to two kilobytes for each record of a few changes, so that 200,000 stay loaded.
pub const RELAY_MEMORY: usize = 512 * MB;

/// A document is saved again after so many changes.
const SNAPSHOT_EVERY: u64 = 1_000;

/// A log entry that is not materialised.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Its position in the relay's log, or one that is no lower; 0 where that is not known.
    pub(crate) log_pos: Pos,
    /// 1 if it waits for a receipt.
    pub(crate) unsaved: u64,
    /// What it touches.
    pub(crate) touched: Vec<Touch>,
}

/// A loaded segment.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The gate's index, through the log's end.
    pub(crate) history: History,
    /// The document, through what is materialised.
    pub(crate) document: Option<Document>,
    /// What the entries that are not materialised touch.
    pub(crate) pending: VecDeque<Pending>,
    /// What was merged without permission.
    pub(crate) taint: Taint,
    saved: Pos,
    index_place: Option<Place>,
    document_place: Option<Place>,
}

/// Where something stands on its shelf.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// When it was used last.
    used: u64,
    /// What it took then.
    bytes: usize,
}

/// Indexes, or documents, by when they were used last.
#[derive(Debug)]
struct Shelf {
    by_use: BTreeMap<u64, SegmentId>,
    bytes: usize,
    bound: Bound,
}

impl Shelf {
    fn of(bound: Bound) -> Self {
        Self { by_use: BTreeMap::new(), bytes: 0, bound }
    }

    /// Whether something has to go: what is here has grown too large, or so many more are to come.
    fn is_over(&self, more: usize) -> bool {
        self.by_use.len() + more > self.bound.count || self.bytes >= self.bound.bytes
    }

    /// The one that was used longest ago first.
    fn oldest(&self) -> impl Iterator<Item = SegmentId> {
        self.by_use.values().copied()
    }

    /// Puts something where it belongs now, or takes it away.
    fn put(&mut self, id: &SegmentId, place: &mut Option<Place>, new: Option<Place>) {
        if let Some(old) = std::mem::replace(place, new) {
            self.bytes -= old.bytes;
            if new.is_none_or(|new| new.used != old.used) {
                self.by_use.remove(&old.used);
            }
        }
        if let Some(new) = new {
            self.bytes += new.bytes;
            self.by_use.insert(new.used, *id);
        }
    }

    fn clear(&mut self) {
        self.by_use.clear();
        self.bytes = 0;
    }
}

/// The loaded segments.
#[derive(Debug)]
pub(crate) struct Cache {
    loaded: BTreeMap<SegmentId, Loaded>,
    indexes: Shelf,
    documents: Shelf,
    clock: u64,
}

impl Cache {
    pub(crate) fn of(role: Role) -> Self {
        let (indexes, documents) = bounds(role);
        let (indexes, documents) = (Shelf::of(indexes), Shelf::of(documents));
        Self { loaded: BTreeMap::new(), indexes, documents, clock: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.loaded.clear();
        self.indexes.clear();
        self.documents.clear();
    }

    pub(crate) fn evict(&mut self, id: &SegmentId) {
        if let Some(mut gone) = self.loaded.remove(id) {
            self.indexes.put(id, &mut gone.index_place, None);
            self.documents.put(id, &mut gone.document_place, None);
        }
    }

    pub(crate) fn peek(&self, id: &SegmentId) -> Option<&Loaded> {
        self.loaded.get(id)
    }

    pub(crate) fn get(&mut self, id: &SegmentId) -> Option<&mut Loaded> {
        let loaded = self.loaded.get_mut(id)?;
        if loaded.index_place.is_none_or(|place| place.used != self.clock) {
            self.clock += 1;
        }
        let place = |bytes| Place { used: self.clock, bytes };
        let document = loaded.document.as_ref().map(Document::weight);
        self.indexes.put(id, &mut loaded.index_place, Some(place(loaded.history.weight())));
        self.documents.put(id, &mut loaded.document_place, document.map(place));
        Some(loaded)
    }

    /// The least recently used segment with a document, if that has to go for the one of `id`.
    fn excess_document(&self, id: &SegmentId) -> Option<SegmentId> {
        let held = self.loaded.get(id).is_some_and(|loaded| loaded.document.is_some());
        let mut others = self.documents.oldest().filter(|other| other != id);
        self.documents.is_over(usize::from(!held)).then(|| others.next()).flatten()
    }

    /// The least recently used segment that has to go for `id`. What is loaded grows, so that there may be
    /// one also when `id` has been loaded all along.
    fn excess(&self, id: &SegmentId) -> Option<SegmentId> {
        let more = usize::from(!self.loaded.contains_key(id));
        let may_go =
            |other: &SegmentId| other != id && self.loaded.get(other).is_some_and(Loaded::is_idle);
        self.indexes.is_over(more).then(|| self.indexes.oldest().find(may_go)).flatten()
    }
}

impl Loaded {
    /// Whether nothing waits for it to be materialised.
    fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }
}

impl Replica {
    /// How many documents stay in memory; the oldest is saved and dropped beyond that.
    pub fn limit_documents(&mut self, documents: usize) {
        self.cache.documents.bound.count = documents.max(1);
    }

    /// How much memory what stays may take by estimate, in bytes: half of it the documents, half the indexes.
    pub fn limit_memory(&mut self, bytes: usize) {
        self.cache.documents.bound.bytes = bytes / 2;
        self.cache.indexes.bound.bytes = bytes / 2;
    }

    /// How many documents are in memory.
    #[must_use]
    pub fn loaded_documents(&self) -> usize {
        self.cache.documents.by_use.len()
    }

    /// The gate's index of a segment, loaded if need be.
    pub(crate) fn load(&mut self, id: &SegmentId) -> Result<&mut Loaded, ReplicaError> {
        while let Some(excess) = self.cache.excess(id) {
            self.save_if_due(&excess, SNAPSHOT_EVERY / 10)?;
            self.cache.evict(&excess);
        }
        if self.cache.get(id).is_none() {
            let loaded = self.read_history(id).map_err(|error| error.in_segment(id))?;
            self.cache.loaded.insert(*id, loaded);
        }
        Ok(self.cache.get(id).expect("just loaded"))
    }

    /// The segment with its document, merged through what is materialised.
    pub(crate) fn load_document(&mut self, id: &SegmentId) -> Result<&mut Loaded, ReplicaError> {
        self.load(id)?;
        while let Some(excess) = self.cache.excess_document(id) {
            self.unload(&excess)?;
        }
        if self.load(id)?.document.is_none() {
            let read = self.read_document(id).map_err(|error| error.in_segment(id));
            let (document, saved) = read?;
            let loaded = self.load(id)?;
            (loaded.document, loaded.saved) = (Some(document), saved);
        }
        self.load(id)
    }

    /// Rebuilds the index: from its saved form and the entries after it, or from all entries.
    fn read_history(&self, id: &SegmentId) -> Result<Loaded, ReplicaError> {
        let row = self.row(id);
        let saved = self.store.history(row.sid)?;
        let saved = saved.and_then(|(pos, bytes)| Some((pos, History::decode(&bytes).ok()?)));
        let saved = saved.filter(|(pos, history)| history.len() == *pos && *pos <= row.done);
        let (from, mut history) = saved.unwrap_or_else(|| (0, History::new()));
        let mut pending = VecDeque::new();
        self.each_entry(row.sid, from + 1, |entry| {
            let admitted = history
                .replay(&entry.bytes)
                .map_err(|refusal| ReplicaError::Damaged(*id, refusal.to_string()))?;
            if entry.pos > row.done {
                let log_pos = if self.me.role == Role::Relay { entry.pos } else { row.cursor.pos };
                pending.push_back(Pending { log_pos, unsaved: 0, touched: admitted.touched });
            }
            Ok::<_, ReplicaError>(())
        })?;
        let taint = self.read_taint(row.sid, &history)?;
        Ok(Loaded {
            history,
            document: None,
            pending,
            taint,
            saved: 0,
            index_place: None,
            document_place: None,
        })
    }

    /// Loads the newest snapshot that verifies and merges what came after it.
    fn read_document(&self, id: &SegmentId) -> Result<(Document, Pos), ReplicaError> {
        let row = self.row(id);
        for Snapshot { pos, document } in self.store.snapshots(row.sid)? {
            let Ok(loaded) = Document::load(&document) else { continue };
            if pos <= row.done
                && let Ok(merged) = self.merge_after(id, loaded, pos)
            {
                return Ok((merged, pos));
            }
        }
        self.merge_after(id, Document::new(), 0).map(|document| (document, 0))
    }

    fn merge_after(
        &self,
        id: &SegmentId,
        mut document: Document,
        pos: Pos,
    ) -> Result<Document, ReplicaError> {
        let row = self.row(id);
        let mut chunks = Vec::new();
        self.each_entry(row.sid, pos + 1, |entry| {
            if entry.pos <= row.done {
                chunks.push(entry.bytes);
            }
            Ok::<_, ReplicaError>(())
        })?;
        document
            .apply(chunks.iter().map(Vec::as_slice))
            .map_err(|error| ReplicaError::Damaged(*id, error.to_string()))?;
        let complete = self.heads_through(id, row.done)?;
        if complete.is_none_or(|heads| heads == document.heads()) {
            Ok(document)
        } else {
            Err(ReplicaError::Damaged(*id, "the document's heads are not the log's".into()))
        }
    }

    /// Saves the document and the index if enough has changed since the last time.
    pub(crate) fn save_if_due(&mut self, id: &SegmentId, every: u64) -> Result<(), ReplicaError> {
        let (sid, done, tip) = {
            let row = self.row(id);
            (row.sid, row.done, row.tip)
        };
        let Some(loaded) = self.cache.loaded.get_mut(id) else { return Ok(()) };
        let Some(document) = &loaded.document else { return Ok(()) };
        if done < loaded.saved + every {
            return Ok(());
        }
        let snapshot = Snapshot { pos: done, document: document.save() };
        loaded.saved = done;
        self.store.put_snapshot(sid, &snapshot)?;
        if done == tip {
            let bytes = loaded.history.encode();
            self.store.put_history(sid, done, &bytes)?;
        }
        Ok(())
    }

    pub(crate) fn save_snapshot_if_due(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        self.save_if_due(id, SNAPSHOT_EVERY)
    }

    fn unload(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        self.save_if_due(id, SNAPSHOT_EVERY / 10)?;
        if let Some(loaded) = self.cache.loaded.get_mut(id) {
            loaded.document = None;
            self.cache.documents.put(id, &mut loaded.document_place, None);
        }
        Ok(())
    }

    /// Saves every loaded document that has changed enough and packs logs that have grown, before
    /// the replica is closed.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn save_all(&mut self) -> Result<(), ReplicaError> {
        let ids: Vec<_> = self.cache.loaded.keys().copied().collect();
        for id in ids {
            self.save_if_due(&id, SNAPSHOT_EVERY / 10)?;
            self.compact(&id, false)?;
        }
        Ok(self.commit()?)
    }
}
