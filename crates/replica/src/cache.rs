//! What is loaded: the gate's index and the document of the segments in use, bounded in number and
//! in memory.
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
struct Bounds {
    /// Segments whose index is kept.
    histories: usize,
    /// Bytes of those.
    history_bytes: usize,
    /// Segments whose document is kept.
    documents: usize,
    /// Bytes of those, by estimate: documents of about the size that is meant take less.
    document_bytes: usize,
}

impl Bounds {
    /// A relay merges what many write; a device what its user has at hand, beside an application.
    fn of(role: Role) -> Self {
        const MB: usize = 1024 * 1024;
        match role {
            Role::Relay => Self {
                histories: 256,
                history_bytes: 256 * MB,
                documents: 64,
                document_bytes: 512 * MB,
            },
            Role::Device => Self {
                histories: 128,
                history_bytes: 48 * MB,
                documents: 24,
                document_bytes: 96 * MB,
            },
        }
    }
}

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
    used: u64,
}

/// The loaded segments.
#[derive(Debug)]
pub(crate) struct Cache {
    loaded: BTreeMap<SegmentId, Loaded>,
    clock: u64,
    bounds: Bounds,
}

impl Cache {
    pub(crate) fn of(role: Role) -> Self {
        Self { loaded: BTreeMap::new(), clock: 0, bounds: Bounds::of(role) }
    }

    pub(crate) fn clear(&mut self) {
        self.loaded.clear();
    }

    pub(crate) fn evict(&mut self, id: &SegmentId) {
        self.loaded.remove(id);
    }

    pub(crate) fn peek(&self, id: &SegmentId) -> Option<&Loaded> {
        self.loaded.get(id)
    }

    pub(crate) fn get(&mut self, id: &SegmentId) -> Option<&mut Loaded> {
        self.clock += 1;
        let loaded = self.loaded.get_mut(id)?;
        loaded.used = self.clock;
        Some(loaded)
    }

    /// The least recently used segment with a document, if there is no room for one more.
    fn excess_document(&self) -> Option<SegmentId> {
        let (mut count, mut bytes, mut oldest) = (0, 0, None);
        for (id, loaded) in &self.loaded {
            let Some(document) = &loaded.document else { continue };
            count += 1;
            bytes += document.weight();
            oldest = oldest.min(Some((loaded.used, *id))).or(Some((loaded.used, *id)));
        }
        let full = count >= self.bounds.documents || bytes >= self.bounds.document_bytes;
        oldest.filter(|_| full).map(|(_, id)| id)
    }

    fn make_room(&mut self) {
        let weight = |loaded: &Loaded| loaded.history.weight();
        let mut bytes: usize = self.loaded.values().map(weight).sum();
        let Bounds { histories, history_bytes, .. } = self.bounds;
        while self.loaded.len() >= histories || bytes >= history_bytes {
            let idle = self.loaded.iter().filter(|(_, loaded)| loaded.pending.is_empty());
            let oldest = idle.min_by_key(|(_, loaded)| loaded.used).map(|(id, _)| *id);
            let Some(gone) = oldest.and_then(|id| self.loaded.remove(&id)) else { return };
            bytes -= weight(&gone);
        }
    }
}

impl Replica {
    /// How many documents stay in memory; the oldest is saved and dropped beyond that.
    pub fn limit_documents(&mut self, documents: usize) {
        self.cache.bounds.documents = documents.max(1);
    }

    /// How much memory the documents that stay may take by estimate, in bytes.
    pub fn limit_document_bytes(&mut self, bytes: usize) {
        self.cache.bounds.document_bytes = bytes;
    }

    /// How many documents are in memory.
    #[must_use]
    pub fn loaded_documents(&self) -> usize {
        self.cache.loaded.values().filter(|loaded| loaded.document.is_some()).count()
    }

    /// The gate's index of a segment, loaded if need be.
    pub(crate) fn load(&mut self, id: &SegmentId) -> Result<&mut Loaded, ReplicaError> {
        if self.cache.get(id).is_none() {
            self.cache.make_room();
            let loaded = self.read_history(id)?;
            self.cache.loaded.insert(*id, loaded);
        }
        Ok(self.cache.get(id).expect("just loaded"))
    }

    /// The segment with its document, merged through what is materialised.
    pub(crate) fn load_document(&mut self, id: &SegmentId) -> Result<&mut Loaded, ReplicaError> {
        if self.load(id)?.document.is_none() {
            while let Some(excess) = self.cache.excess_document() {
                self.unload(&excess)?;
            }
            let (document, saved) = self.read_document(id)?;
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
        Ok(Loaded { history, document: None, pending, taint, saved: 0, used: 0 })
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
