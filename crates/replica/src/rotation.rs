//! Other keys: what a replica wrote under the ones that it had stays its own, and goes on to be vouched for
//! when they are gone.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::{ActorId, Head, Pos, SegmentId, SignedHead};
use fieldkeep_store::Log as _;

use crate::log::Entry;
use crate::replica::{Replica, ReplicaError};

/// So many changes of one actor are vouched for together: whoever lacks them gets them in batches.
const TOGETHER: u64 = 32;

impl Replica {
    /// Signs for what this replica wrote, with the key that it is about to give up: each change that waits
    /// for a receipt, and others every so often. A commit must follow.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn vouch_for_the_past(&mut self) -> Result<(), ReplicaError> {
        let ids: Vec<SegmentId> = self.segments.keys().copied().collect();
        for id in ids {
            let sid = self.row(&id).sid;
            let waiting = self.store.outgoing(sid)?.into_iter();
            let waiting: BTreeSet<Pos> = waiting.map(|change| change.pos).collect();
            let mut due = Vec::new();
            let mut newest: BTreeMap<ActorId, Head> = BTreeMap::new();
            self.each_entry(sid, 1, |Entry { pos, header, .. }| {
                if self.me.signs_for(&header.actor) {
                    let head = Head { actor: header.actor, seq: header.seq, hash: header.hash };
                    newest.insert(header.actor, head);
                    if waiting.contains(&pos) || header.seq % TOGETHER == 0 {
                        due.push(head);
                    }
                }
                Ok::<_, ReplicaError>(())
            })?;
            due.extend(newest.into_values());
            let (org, keys) = (self.org(), &self.me.keys);
            let signed: Vec<SignedHead> =
                due.into_iter().map(|head| SignedHead::new(&org, &id, head, keys)).collect();
            self.keep_heads(&id, &signed)?;
        }
        Ok(())
    }
}
