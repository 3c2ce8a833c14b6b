//! Taking over a fresh copy of a segment: what the relay has of it, downloaded beside what is here.
//!
//! What is here and not there goes on top, and waits for a receipt: nothing that was written is lost.
//! What is damaged here and whole there is replaced. It becomes durable with whatever else the caller
//! does before the commit.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_model::{ActorId, ChangeHash, Pos, SegmentId, Seq};
use fieldkeep_store::{Log as _, Outgoing, StoreError};

use crate::log::{Entry, unpack};
use crate::replica::{Replica, ReplicaError};
use crate::verdicts::VerdictPage;
use crate::witness::StatementError;

/// Bytes of verdicts that are taken over in one go.
const PAGE: usize = 256 * 1024;

/// What came of a fresh copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It stands here now.
    Replaced {
        /// Changes that it brought.
        changes: u64,
        /// Changes that were here and not in it; they are on top of it.
        kept: u64,
    },
    /// It holds another branch of somebody's changes than is here: an ordinary sync settles that.
    Forked,
}

impl Replica {
    /// Replaces what is here of a segment by what another replica of this device has followed of the
    /// relay's log, at that time in milliseconds UTC.
    ///
    /// # Errors
    /// When a store fails, or a change that only this replica has is damaged.
    pub fn adopt(
        &mut self,
        id: &SegmentId,
        fresh: &Self,
        now: i64,
    ) -> Result<Adopted, ReplicaError> {
        let there = fresh.row(id).clone();
        let mut entries = Vec::new();
        fresh.each_entry(there.sid, 1, |entry| {
            entries.push(entry);
            Ok::<_, ReplicaError>(())
        })?;
        self.open_segment(&there.address)?;
        let sid = self.row(id).sid;
        let Some(kept) = self.beyond(id, &entries)? else { return Ok(Adopted::Forked) };
        let ahead = self.newest_own(&entries) > self.newest_own_here(sid)?;
        let mut waiting: BTreeMap<Pos, Outgoing> =
            self.store.outgoing(sid)?.into_iter().map(|change| (change.pos, change)).collect();
        let vouching = self.store.heads(sid, 1, self.row(id).tip)?;
        self.follow_verdicts_of(id, fresh)?;
        let row = self.row_mut(id);
        (row.cursor, row.told, row.packed) = (there.cursor.clone(), there.told, 0);
        // Rows may be damaged: nothing of them is looked at.
        self.store.clear_log(sid)?;
        self.store.clear_records(sid)?;
        let changes = entries.len() as u64;
        self.rebuild(id, entries)?;
        let heads = fresh.store.heads(there.sid, 1, there.tip)?;
        self.keep_heads(id, &heads.into_iter().map(|(_, head)| head).collect::<Vec<_>>())?;
        if fresh.is_proven(id) {
            self.note_proven(id, there.cursor.pos, now)?;
        }
        for entry in &kept {
            let pos = self.relog(id, entry)?;
            if let Some(change) = waiting.remove(&entry.pos) {
                self.store.put_outgoing(sid, &Outgoing { pos, ..change })?;
            }
        }
        if !kept.is_empty() {
            self.cache.evict(id);
            self.behind.insert(*id);
            self.keep_heads(id, &vouching.into_iter().map(|(_, head)| head).collect::<Vec<_>>())?;
            self.materialise(id, usize::MAX)?;
            for change in self.store.outgoing(sid)? {
                self.store.unsettle(sid, &change.records)?;
            }
            self.require_beyond_cursor(id)?;
        }
        if ahead {
            tracing::warn!(segment = %id, "the relay knows later changes of this device: it was restored");
            self.renew_incarnation()?;
        }
        Ok(Adopted::Replaced { changes, kept: kept.len() as u64 })
    }

    /// What the log here has and those entries are not; `None` where both have another branch of an
    /// author. Of an entry that is in both only the name here is read, so that it may be damaged.
    fn beyond(
        &self,
        id: &SegmentId,
        entries: &[Entry],
    ) -> Result<Option<Vec<Entry>>, ReplicaError> {
        let sid = self.row(id).sid;
        let hashes: BTreeSet<ChangeHash> = entries.iter().map(|entry| entry.header.hash).collect();
        let places: BTreeSet<(ActorId, Seq)> =
            entries.iter().map(|entry| (entry.header.actor, entry.header.seq)).collect();
        let mut kept = Vec::new();
        for (pos, actor, seq, hash) in self.names(sid)? {
            if hashes.contains(&hash) {
                continue;
            }
            if places.contains(&(actor, seq)) {
                return Ok(None);
            }
            let lost = || StoreError::Damaged(format!("a change of {}", self.row(id).address));
            kept.push(self.entry(sid, pos)?.ok_or_else(lost)?);
        }
        Ok(Some(kept))
    }

    /// Position, author, counter and hash of every entry of a log. A pack that is damaged is passed over:
    /// everything in a device's packs had its receipt, and comes from the relay.
    fn names(&self, sid: i64) -> Result<Vec<(Pos, ActorId, Seq, ChangeHash)>, StoreError> {
        let mut names = Vec::new();
        for first in self.store.packs(sid)? {
            let pack = self.store.pack(sid, first).map_err(ReplicaError::from);
            match pack.and_then(|pack| pack.as_ref().map(unpack).transpose()) {
                Ok(entries) => names.extend(entries.into_iter().flatten().map(|entry| {
                    let header = &entry.header;
                    (entry.pos, header.actor, header.seq, header.hash)
                })),
                Err(error) => tracing::warn!(%error, "what was in it is fetched"),
            }
        }
        names.extend(self.store.change_names(sid)?);
        Ok(names)
    }

    fn newest_own(&self, entries: &[Entry]) -> Seq {
        let me = self.me.actor();
        let own = entries.iter().filter(|entry| entry.header.actor == me);
        own.map(|entry| entry.header.seq).max().unwrap_or(0)
    }

    fn newest_own_here(&self, sid: i64) -> Result<Seq, StoreError> {
        let me = self.me.actor();
        let names = self.names(sid)?.into_iter();
        Ok(names.filter(|(_, actor, ..)| *actor == me).map(|(_, _, seq, _)| seq).max().unwrap_or(0))
    }

    /// Takes over the verdicts that another replica has, unless these here are newer.
    fn follow_verdicts_of(&mut self, id: &SegmentId, fresh: &Self) -> Result<(), ReplicaError> {
        let newest = fresh.judged(id)?;
        // What is kept here may be damaged, and is not needed then.
        if self.judged(id).unwrap_or_default() > newest {
            return Ok(());
        }
        self.store.forget_verdicts(self.row(id).sid)?;
        let row = self.row_mut(id);
        (row.verdict, row.judged, row.judged_catalog) = (0, 0, 0);
        let Some(newest) = newest else { return Ok(()) };
        let mut after = 0;
        loop {
            let page = fresh.verdict_page(id, (newest.epoch, after), PAGE, |_| true)?;
            let VerdictPage { blocks, openings, whole } = page;
            for block in blocks {
                let Some(relay) = self.issuer(&block) else { continue };
                match self.take_verdicts(id, relay, &block, &openings) {
                    Ok(_) => {}
                    Err(StatementError::Replica(error)) => return Err(error),
                    Err(StatementError::Unsigned) => {
                        return Err(StoreError::Damaged("a fresh verdict block".into()).into());
                    }
                }
            }
            if whole || self.row(id).verdict <= after {
                return Ok(());
            }
            after = self.row(id).verdict;
        }
    }

    /// Takes a segment out, with everything that is known of it. Whoever wrote in it writes as another
    /// incarnation from then on: what it wrote may come back.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove_segment(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        let Some(row) = self.segments.get(id) else { return Ok(()) };
        let sid = row.sid;
        let wrote = self.newest_own_here(sid)? > 0;
        self.store.remove_segment(sid)?;
        self.cache.evict(id);
        self.segments.remove(id);
        self.dirty.remove(id);
        self.behind.remove(id);
        if wrote { Ok(self.renew_incarnation()?) } else { Ok(()) }
    }
}
