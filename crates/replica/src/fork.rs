//! Forks: two changes of one actor with the same seq, after a device was copied or restored.
//!
//! The branch that the relay's log has stands. The other one, and what depends on it, is taken out
//! of the log and kept aside byte for byte; what this device wrote in it is written again, under a
//! new incarnation.

use std::collections::BTreeSet;

use fieldkeep_model::{
    ActorId, ChangeHash, Head, Pos, RecordEdit, RecordId, SegmentId, Seq, SignedHead,
};
use fieldkeep_store::{Aside, ChangeRow, Flags, Log as _, Outgoing, Records as _, StoreError};

use crate::log::Entry;
use crate::replica::{Replica, ReplicaError};
use crate::write::PutError;

/// Why a branch lies aside that lost.
pub(crate) const FORK: &str = "fork";
/// Why a branch lies aside that no relay has decided about.
pub(crate) const UNDECIDED: &str = "undecided";
/// Why a change lies aside that stands against nothing: the head that vouches for it is of a branch
/// that does. Its author vouches for it again, when that branch is lost to him, too.
pub(crate) const UNVOUCHED: &str = "unvouched";

/// A log without a branch.
struct Parted {
    kept: Vec<Entry>,
    /// The branch, and what builds on it.
    branch: Vec<Entry>,
    /// What of others nobody could hand on any more.
    unvouched: Vec<Entry>,
}

impl Replica {
    /// Takes an actor's changes from a seq on out of a segment, with all that depends on them, and
    /// writes this device's own content among them again. Returns how many changes were taken out.
    ///
    /// # Errors
    /// When the replica fails; the next commit must not follow then.
    pub fn set_branch_aside(
        &mut self,
        id: &SegmentId,
        actor: &ActorId,
        from: Seq,
        now: i64,
    ) -> Result<u64, PutError> {
        let incarnation = self.me.incarnation;
        let settled = self.undoable(id, |replica| {
            let Parted { kept, branch, unvouched } = replica.part(id, actor, from)?;
            let edits = replica.own_content(id, &branch)?;
            replica.keep_branch(id, &branch, FORK, now)?;
            replica.keep_branch(id, &unvouched, UNVOUCHED, now)?;
            let lost = branch.len() + unvouched.len();
            replica.rebuild(id, kept)?;
            replica.renew_incarnation()?;
            replica.write_again(id, &edits, now)?;
            tracing::warn!(segment = %id, %actor, from, changes = lost, "a fork was settled");
            Ok(lost as u64)
        });
        if settled.is_err() {
            self.me.incarnation = incarnation;
        }
        settled
    }

    /// Parts the log into what stays and what goes: the branch and what builds on it, and what of
    /// others nobody could carry to the relay any more, because the head that vouches for it goes.
    fn part(&self, id: &SegmentId, actor: &ActorId, from: Seq) -> Result<Parted, ReplicaError> {
        let row = self.row(id);
        let heads = self.store.heads(row.sid, 1, row.tip)?;
        let heads: BTreeSet<ChangeHash> = heads.iter().map(|(_, head)| head.head.hash).collect();
        let waiting = self.store.outgoing(row.sid)?;
        let waiting: BTreeSet<Pos> = waiting.iter().map(|change| change.pos).collect();
        let mut entries = Vec::new();
        self.each_entry(row.sid, 1, |entry| {
            entries.push(entry);
            Ok::<_, ReplicaError>(())
        })?;
        let mut branch: BTreeSet<ChangeHash> = BTreeSet::new();
        for Entry { header, .. } in &entries {
            let theirs = header.actor == *actor && header.seq >= from;
            if theirs || header.deps.iter().any(|dep| branch.contains(dep)) {
                branch.insert(header.hash);
            }
        }
        let mut gone = branch.clone();
        loop {
            for Entry { header, .. } in &entries {
                if header.deps.iter().any(|dep| gone.contains(dep)) {
                    gone.insert(header.hash);
                }
            }
            let mut vouched: BTreeSet<ActorId> = BTreeSet::new();
            let before = gone.len();
            for Entry { header, pos, .. } in entries.iter().rev() {
                if gone.contains(&header.hash) || vouched.contains(&header.actor) {
                    continue;
                }
                let own = self.me.signs_for(&header.actor);
                if own || !waiting.contains(pos) || heads.contains(&header.hash) {
                    vouched.insert(header.actor);
                } else {
                    gone.insert(header.hash);
                }
            }
            if gone.len() == before {
                break;
            }
        }
        let mut parted = Parted { kept: Vec::new(), branch: Vec::new(), unvouched: Vec::new() };
        for entry in entries {
            let part = match entry.header.hash {
                hash if branch.contains(&hash) => &mut parted.branch,
                hash if gone.contains(&hash) => &mut parted.unvouched,
                _ => &mut parted.kept,
            };
            part.push(entry);
        }
        Ok(parted)
    }

    /// What this device wrote in the lost branch, as edits.
    fn own_content(
        &mut self,
        id: &SegmentId,
        lost: &[Entry],
    ) -> Result<Vec<(RecordId, RecordEdit)>, ReplicaError> {
        let own = lost.iter().filter(|entry| self.me.is(&entry.header.actor));
        let chunks: Vec<&[u8]> = own.map(|entry| entry.bytes.as_slice()).collect();
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        self.materialise(id, usize::MAX)?;
        let document = self.document(id)?;
        Ok(document.rewritten(&chunks, &|actor, counter| document.locate(actor, counter)))
    }

    /// Keeps entries aside that are taken out of the log, each with the head that vouches for it.
    pub(crate) fn keep_branch(
        &mut self,
        id: &SegmentId,
        lost: &[Entry],
        reason: &str,
        now: i64,
    ) -> Result<(), ReplicaError> {
        let (sid, tip) = (self.row(id).sid, self.row(id).tip);
        let heads = match lost.first() {
            Some(first) => self.store.heads(sid, first.pos, tip)?,
            None => Vec::new(),
        };
        for Entry { header, bytes, pos, .. } in lost {
            let vouches =
                |(at, head): &&(Pos, SignedHead)| *at >= *pos && head.head.actor == header.actor;
            let head = heads.iter().find(vouches).map(|(_, head)| *head);
            let own = self.me.signs_for(&header.actor);
            let head = head.or_else(|| {
                let head = Head { actor: header.actor, seq: header.seq, hash: header.hash };
                own.then(|| SignedHead::new(&self.org(), id, head, &self.me.keys))
            });
            let head = head.map(|head| minicbor::to_vec(head).expect("encoding cannot fail"));
            self.store.put_aside(&Aside {
                sid,
                hash: header.hash,
                actor: header.actor,
                seq: header.seq,
                reason: reason.to_owned(),
                time: now,
                records: Vec::new(),
                head: head.unwrap_or_default(),
                bytes: bytes.clone(),
            })?;
        }
        Ok(())
    }

    /// Writes the log again with these entries only, and derives everything from it afresh. The
    /// cursor stays: the relay's log never held the others.
    pub(crate) fn rebuild(&mut self, id: &SegmentId, kept: Vec<Entry>) -> Result<(), ReplicaError> {
        let sid = self.row(id).sid;
        let waiting = self.store.outgoing(sid)?;
        let heads = self.store.heads(sid, 1, self.row(id).tip)?;
        let before = self.store.records_behind(sid, 0, usize::MAX >> 1)?;
        self.store.clear_log(sid)?;
        self.store.clear_records(sid)?;
        self.cache.evict(id);
        let row = self.row_mut(id);
        let blank = fieldkeep_store::SegmentRow { tip: 0, ..row.clone() };
        *row = fieldkeep_store::SegmentRow {
            chain: fieldkeep_model::Chain::START,
            sum: 0,
            packed: 0,
            done: 0,
            damaged: false,
            records: 0,
            live: 0,
            held: 0,
            waiting: 0,
            rows: 0,
            ..blank
        };
        for entry in &kept {
            let pos = self.relog(id, entry)?;
            if let Some(change) = waiting.iter().find(|change| change.pos == entry.pos) {
                self.store.put_outgoing(sid, &Outgoing { pos, ..change.clone() })?;
            }
        }
        let heads: Vec<_> = heads.into_iter().map(|(_, head)| head).collect();
        self.keep_heads(id, &heads)?;
        self.behind.insert(*id);
        self.materialise(id, usize::MAX)?;
        // Where what was saved of a record lies is known still. No proof may come that would tell it.
        // A place beyond the cursor and what is judged is one of a log that the relay may have lost.
        let known = 1..=self.row(id).cursor.pos.max(self.row(id).judged);
        for record in before.into_iter().filter(|record| known.contains(&record.pos)) {
            self.store.settle(sid, &[record.id], record.pos)?;
        }
        for change in self.store.outgoing(sid)? {
            self.store.unsettle(sid, &change.records)?;
        }
        let judged = self.row(id).judged;
        self.store.pass_judged(sid, judged)?;
        Ok(())
    }

    /// Appends an entry that was admitted before to a log that is written again.
    pub(crate) fn relog(&mut self, id: &SegmentId, entry: &Entry) -> Result<Pos, StoreError> {
        let Entry { header, tainted, bytes, .. } = entry;
        let row = self.row_mut(id);
        row.tip += 1;
        row.chain = row.chain.extend(&header.hash);
        row.sum = row.sum.wrapping_add(crate::admit::log_digest(&header.hash));
        let (sid, pos) = (row.sid, row.tip);
        let change = ChangeRow {
            pos,
            actor: header.actor,
            seq: header.seq,
            hash: header.hash,
            flags: Flags { tainted: *tainted },
            bytes: bytes.clone(),
        };
        self.store.append_change(sid, &change)?;
        Ok(pos)
    }
}
