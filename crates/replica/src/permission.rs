//! Permissions that change over time: what counts as authorised, how far a member's changes stay so
//! when it loses a permission, and what becomes of the others.
//!
//! A relay's log decides. What it held when a permission went stays as it is; what comes later is
//! kept aside, unmerged, until something permitted builds on it. A replica that had merged it before
//! it heard of that takes it out again, so that all replicas come to the same.

use std::collections::BTreeSet;

use fieldkeep_model::membership::CutOff;
use fieldkeep_model::{ChangeHash, ChangeHeader, Grant, Head, Member, Pos, PublicKey, SegmentId};
use fieldkeep_store::{Log as _, Permissions as _, StoreError};

use crate::acceptance::NOT_PERMITTED;
use crate::log::Entry;
use crate::replica::{Replica, ReplicaError};

impl Replica {
    /// Whether a change is authorised in a segment, by the membership log that is known here.
    pub(crate) fn is_authorised(&self, id: &SegmentId, header: &ChangeHeader) -> bool {
        let change = Head { actor: header.actor, seq: header.seq, hash: header.hash };
        self.is_head_authorised(id, &change)
    }

    pub(crate) fn is_head_authorised(&self, id: &SegmentId, change: &Head) -> bool {
        let author = self.members.author(&change.actor);
        author.is_some_and(|member| member.may_have_written(&self.row(id).address, *id, change))
    }

    /// What a relay's log holds of a member where it may not write once it has those grants: all of
    /// it, where there are none.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn cut_offs(&self, member: &Member, grants: &[Grant]) -> Result<Vec<CutOff>, StoreError> {
        let then = member.with_grants(grants);
        let newest = self.store.newest_of(member.number)?;
        let cuts = newest.into_iter().filter_map(|((sid, actor), head)| {
            let row = self.segment_of(sid)?;
            let lost = !then.may(&row.address.ty, &row.address.scope);
            let own = member.is(&actor);
            let Head { seq, hash, .. } = head;
            (lost && own).then_some(CutOff { segment: row.id, actor, seq, hash })
        });
        Ok(cuts.collect())
    }

    /// After a member's permissions changed, on a relay: what lay aside and is authorised now is
    /// admitted, and what the log holds beyond a cut-off counts as merged without permission, because
    /// this relay had not heard of it. Returns the segments that have grown, and those that are to
    /// be judged again.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn apply_permissions(
        &mut self,
        key: &PublicKey,
    ) -> Result<(BTreeSet<SegmentId>, BTreeSet<SegmentId>), ReplicaError> {
        let Some(member) = self.members.device(key).cloned() else { return Ok(Default::default()) };
        let grown =
            self.readmit(|_, aside| member.is(&aside.actor) && aside.reason == NOT_PERMITTED)?;
        let mut tainted = BTreeSet::new();
        for ((sid, actor), newest) in self.store.newest_of(member.number)? {
            let Some(row) = self.segment_of(sid) else { continue };
            let (id, address) = (row.id, row.address.clone());
            if !member.is(&actor) || member.may_have_written(&address, id, &newest) {
                continue;
            }
            let mut beyond: Vec<Pos> = Vec::new();
            self.each_entry(sid, 1, |Entry { pos, header, tainted, .. }| {
                let theirs = header.actor == actor && !tainted;
                beyond.extend((theirs && !self.is_authorised(&id, &header)).then_some(pos));
                Ok::<_, ReplicaError>(())
            })?;
            for pos in &beyond {
                self.store.taint(sid, *pos)?;
            }
            if !beyond.is_empty() {
                self.cache.evict(&id);
                tainted.insert(id);
            }
        }
        Ok((grown, tainted))
    }

    /// Takes out of a device's segment what is not authorised, is not in the relay's log as far as
    /// that is known here, and carries nothing that is: it is kept aside byte for byte. What this
    /// device wrote itself stays, and so does what is still to be sent. Returns how many changes
    /// went.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn set_unauthorised_aside(
        &mut self,
        id: &SegmentId,
        now: i64,
    ) -> Result<u64, ReplicaError> {
        let row = self.row(id);
        if row.tip == row.cursor.pos || row.damaged {
            return Ok(0);
        }
        let (sid, heads) = (row.sid, row.cursor.heads.clone());
        let waiting = self.store.unsent(sid, 0)?;
        self.load(id)?;
        let history = &self.cache.peek(id).expect("just loaded").history;
        let mut entries: Vec<(Entry, bool)> = Vec::new();
        self.each_entry(sid, 1, |entry| {
            let elsewhere = !self.me.is(&entry.header.actor);
            let beyond = elsewhere
                && !waiting.contains(&entry.pos)
                && !self.is_authorised(id, &entry.header)
                && !history.covers(&heads, &entry.header.hash);
            entries.push((entry, beyond));
            Ok::<_, ReplicaError>(())
        })?;
        let mut needed: BTreeSet<ChangeHash> = BTreeSet::new();
        for (entry, beyond) in entries.iter_mut().rev() {
            *beyond &= !needed.contains(&entry.header.hash);
            if !*beyond {
                needed.extend(&entry.header.deps);
            }
        }
        let (lost, kept): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(_, beyond)| *beyond);
        let entries = |part: Vec<(Entry, bool)>| part.into_iter().map(|(entry, _)| entry);
        let (lost, kept): (Vec<_>, Vec<_>) = (entries(lost).collect(), entries(kept).collect());
        if lost.is_empty() {
            return Ok(0);
        }
        tracing::warn!(segment = %id, changes = lost.len(), "what is not authorised is kept aside");
        self.undoable(id, |replica| {
            replica.keep_branch(id, &lost, NOT_PERMITTED, now)?;
            replica.rebuild(id, kept)
        })?;
        Ok(lost.len() as u64)
    }
}
