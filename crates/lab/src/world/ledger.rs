//! The ledger: every write that was reported saved, kept outside the nodes, so that no fault of
//! theirs changes it.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::{ActorId, ChangeHash, RecordKey, SegmentId, Seq};

/// A write that was reported saved.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    pub(crate) device: usize,
    pub(crate) segment: SegmentId,
    pub(crate) record: RecordKey,
    /// Whether it deletes the record or brings it back, and says nothing more.
    pub(crate) bare: bool,
    pub(crate) actor: ActorId,
    pub(crate) seq: Seq,
    pub(crate) hash: ChangeHash,
    /// How often the relay had been put back when it was seen to hold what it gave a receipt for.
    pub(crate) receipt: Option<u64>,
    /// Every disk that had it was put back to an older state: nothing can bring it back.
    pub(crate) lost: bool,
}

/// All writes that were reported saved.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) entries: Vec<Saved>,
    names: BTreeMap<(SegmentId, ActorId, Seq), ChangeHash>,
    /// Names that two changes bear.
    forked: BTreeSet<(SegmentId, ActorId, Seq)>,
    /// Records that somebody deleted, at any time.
    pub(crate) deleted: BTreeSet<RecordKey>,
}

impl Ledger {
    /// Notes a write. Returns the change that bears the same name already, if there is another one.
    pub(crate) fn note(&mut self, saved: Saved) -> Option<ChangeHash> {
        let name = (saved.segment, saved.actor, saved.seq);
        let hash = saved.hash;
        self.entries.push(saved);
        let other = self.names.insert(name, hash).filter(|other| *other != hash);
        self.forked.extend(other.map(|_| name));
        other
    }

    /// Whether another change bears the same name.
    pub(crate) fn is_forked(&self, saved: &Saved) -> bool {
        self.forked.contains(&(saved.segment, saved.actor, saved.seq))
    }

    /// The writes that something can still bring back.
    pub(crate) fn standing(&self) -> impl Iterator<Item = &Saved> {
        self.entries.iter().filter(|saved| !saved.lost)
    }
}
