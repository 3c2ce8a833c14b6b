//! Collection: what nothing refers to any more goes after a grace time, where that is turned on.
//!
//! A record refers to a file as merged, held or not, deleted or not, and as it was last valid; so does
//! a call that is under way, and a change that was kept aside: to what it names, and to whatever it
//! might bring back in its segment. What cannot be told counts as if it referred to everything: while
//! changes wait to be merged, or a segment is damaged, nothing goes.
//! A removal is durable before the file is taken off the disk, by the shell: see [`Engine::lying`].

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fieldkeep_model::{BlobHash, PublicKey, header};
use fieldkeep_protocol::blob::{Removal, Removed};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{
    Blobs as _, Log as _, LooseBlob, Removals as _, RemovedBlob, StoreError, Unmerged,
};

use super::Engine;
use crate::metrics::gauge;

/// Files that are looked at in one go.
const LOOKED_AT: u32 = 1_024;
/// Files that are removed in one go.
const REMOVED: u32 = 16;
/// How long after a look at all files the next one begins at the earliest, in milliseconds.
const REST_MS: i64 = 30 * 60 * 1_000;
/// Bytes of changes that were kept aside, inflated, that are looked through.
const ASIDE: usize = 64 << 20;
/// Removals that go into one frame.
const TOLD: u32 = 1_024;
/// The digits of a file's name.
const DIGITS: usize = 64;

/// Why it cannot be told at present whether something refers to a file: nothing goes meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Changes wait to be merged and judged.
    Behind,
    /// A segment is damaged.
    Damaged,
    /// More was kept aside than is looked through.
    Aside,
}

/// What the engine knows of collecting.
#[derive(Debug, Default)]
pub(super) struct Collection {
    /// The grace time in milliseconds; nothing goes without one.
    grace: Option<i64>,
    /// The file that was looked at last; at the beginning if none.
    after: Option<BlobHash>,
    /// When the next look begins.
    rests_until: i64,
    /// Whether a removed file may lie on the disk still.
    lies: bool,
}

impl Engine {
    /// Turns collection on, with a grace time, or off.
    pub fn collect_after(&mut self, grace: Option<Duration>) {
        let grace = grace.map(|grace| i64::try_from(grace.as_millis()));
        self.collection.grace = grace.map(|grace| grace.unwrap_or(i64::MAX));
    }

    /// The grace time in milliseconds, where collection is turned on.
    #[must_use]
    pub fn grace_ms(&self) -> Option<i64> {
        self.collection.grace
    }

    /// Why it cannot be told at present whether something refers to a file.
    ///
    /// # Errors
    /// When the store fails.
    pub fn doubt(&self) -> Result<Option<Doubt>, ReplicaError> {
        if let Some(doubt) = self.unsettled() {
            return Ok(Some(doubt));
        }
        Ok(self.unmerged(&BTreeSet::new())?.is_none().then_some(Doubt::Aside))
    }

    /// The same, but for what was kept aside.
    fn unsettled(&self) -> Option<Doubt> {
        let damaged = self.replica.segments().values().any(|row| row.damaged);
        damaged.then_some(Doubt::Damaged).or((!self.is_idle()).then_some(Doubt::Behind))
    }

    /// Looks at the next files, and notes of which it is seen that nothing refers to them. Returns
    /// behind which one to go on, nothing at the end. A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn look_for_loose(
        &mut self,
        now: i64,
        after: Option<BlobHash>,
    ) -> Result<Option<BlobHash>, ReplicaError> {
        let seen = self.replica.store().blobs_after(after.as_ref(), LOOKED_AT)?;
        let next = seen.last().filter(|_| seen.len() == LOOKED_AT as usize).map(|blob| blob.hash);
        let (named, others): (Vec<_>, Vec<_>) = seen.into_iter().partition(|blob| blob.named);
        let hashes = others.iter().map(|blob| blob.hash).collect();
        let referred = match self.unsettled() {
            Some(_) => None,
            None if others.is_empty() => Some(BTreeSet::new()),
            None => self.unmerged(&hashes)?,
        };
        let store = self.replica.store_mut();
        for blob in named.iter().filter(|blob| blob.loose) {
            store.clear_loose(&blob.hash)?;
        }
        let Some(referred) = referred else { return Ok(next) };
        for blob in &others {
            match (referred.contains(&blob.hash), blob.loose) {
                (true, true) => store.clear_loose(&blob.hash)?,
                (false, false) => store.mark_loose(&blob.hash, now)?,
                (true, false) | (false, true) => {}
            }
        }
        Ok(next)
    }

    /// The files that nothing refers to, as the last look saw it, the longest first.
    ///
    /// # Errors
    /// When the store fails.
    pub fn loose(&self) -> Result<Vec<LooseBlob>, ReplicaError> {
        Ok(self.replica.store().loose_blobs(i64::MAX, u32::MAX)?)
    }

    /// Removes some of the files whose grace time is over; returns them, nothing when there are no more.
    /// A commit must follow, and then they are to be taken off the disk: see [`Engine::lying`].
    ///
    /// # Errors
    /// When the store fails.
    pub fn remove_loose(&mut self, now: i64) -> Result<Vec<LooseBlob>, ReplicaError> {
        let Some(grace) = self.collection.grace.filter(|_| self.unsettled().is_none()) else {
            return Ok(Vec::new());
        };
        loop {
            let due = self.replica.store().loose_blobs(now.saturating_sub(grace), REMOVED)?;
            if due.is_empty() {
                return Ok(Vec::new());
            }
            // Something may have been kept aside since the look.
            let hashes = due.iter().map(|blob| blob.hash).collect();
            let Some(referred) = self.unmerged(&hashes)? else { return Ok(Vec::new()) };
            let store = self.replica.store_mut();
            referred.iter().try_for_each(|hash| store.clear_loose(hash))?;
            let gone = due.into_iter().filter(|blob| !referred.contains(&blob.hash));
            let gone: Vec<_> = gone.collect();
            for LooseBlob { hash, size, since } in &gone {
                store.remove_blob(hash, now)?;
                tracing::info!(%hash, size, since, "nothing referred to a file: it is removed");
            }
            if !gone.is_empty() {
                self.collection.lies = true;
                return Ok(gone);
            }
        }
    }

    /// Collects a bit in the background, where that is turned on. Returns whether there was anything to
    /// do; a commit must follow.
    pub(super) fn collect(&mut self) -> Result<bool, ReplicaError> {
        let now = self.now;
        if self.collection.grace.is_none() || now < self.collection.rests_until {
            return Ok(false);
        }
        match self.collect_some(now) {
            Err(ReplicaError::Store(error @ StoreError::Full)) => {
                tracing::error!(%error, "files that nothing refers to stay for now");
                self.collection.rests_until = now.saturating_add(REST_MS);
                Ok(false)
            }
            collected => collected.map(|()| true),
        }
    }

    fn collect_some(&mut self, now: i64) -> Result<(), ReplicaError> {
        if self.remove_loose(now)?.is_empty() {
            self.collection.after = self.look_for_loose(now, self.collection.after)?;
            if self.collection.after.is_none() {
                self.collection.rests_until = now.saturating_add(REST_MS);
            }
        }
        Ok(())
    }

    /// The removed files that may lie on the disk still. Their removal is durable if nothing awaits a
    /// commit; whoever takes them off says so: see [`Engine::note_gone`].
    ///
    /// # Errors
    /// When the store fails.
    pub fn lying(&mut self) -> Result<Vec<BlobHash>, ReplicaError> {
        if !std::mem::take(&mut self.collection.lies) {
            return Ok(Vec::new());
        }
        Ok(self.replica.store().lying_blobs()?)
    }

    /// Has [`Engine::lying`] look, after the end of whoever was to take removed files off the disk.
    pub fn resume_removals(&mut self) {
        self.collection.lies = true;
    }

    /// Notes that removed files are off the disk. A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn note_gone(&mut self, gone: &[BlobHash]) -> Result<(), ReplicaError> {
        let store = self.replica.store_mut();
        gone.iter().try_for_each(|hash| store.note_gone(hash))?;
        let left = self.replica.store().blob_bytes()?;
        self.metrics().files_bytes.set(gauge(left));
        self.files_went();
        Ok(())
    }

    /// What a member may know of the files that were removed, or have come back, behind a number.
    ///
    /// # Errors
    /// When the store fails.
    pub fn removals(&self, key: &PublicKey, since: u64) -> Result<Removed, ReplicaError> {
        let store = self.replica.store();
        let found = store.removals_after(since, TOLD)?;
        let number = found.last().map_or(since, |removed| removed.number);
        let Some(member) = self.present_member(key) else {
            return Ok(Removed { number, files: Vec::new() });
        };
        let mut files = Vec::new();
        for RemovedBlob { hash, time, .. } in found {
            if self.may_know(&member, &hash)? {
                files.push(Removal { hash, time });
            }
        }
        Ok(Removed { number, files })
    }

    /// To which of these files something refers, or may refer, that is in no record yet; nothing where
    /// that cannot be told.
    fn unmerged(
        &self,
        files: &BTreeSet<BlobHash>,
    ) -> Result<Option<BTreeSet<BlobHash>>, StoreError> {
        let (mut found, mut bytes, mut told) = (BTreeSet::new(), 0, true);
        self.replica.store().each_unmerged(|one| {
            let inflated = match one {
                Unmerged::Change(chunk) => header::inflated(chunk).ok(),
                Unmerged::Intent(intent) => Some(intent.into()),
            };
            let Some(inflated) = inflated else {
                told = false;
                return false;
            };
            bytes += inflated.len();
            told = bytes <= ASIDE;
            if !files.is_empty() {
                names_in(&inflated, files, &mut found);
            }
            told
        })?;
        // Such a change may bring back what was removed from a record of its segment, and not name it.
        let mut asides = BTreeMap::new();
        for hash in files {
            for sid in self.replica.store().blob_opened(hash)? {
                let lies = match asides.entry(sid) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(place) => {
                        *place.insert(!self.replica.store().newest_asides(sid)?.is_empty())
                    }
                };
                found.extend(lies.then_some(*hash));
            }
        }
        Ok(told.then_some(found))
    }
}

/// Finds the names of files in bytes: hexadecimal digits, behind something that is none, as a length or
/// a quote.
fn names_in(bytes: &[u8], files: &BTreeSet<BlobHash>, found: &mut BTreeSet<BlobHash>) {
    for run in bytes.split(|byte| !byte.is_ascii_hexdigit()) {
        let name = run.get(..DIGITS).and_then(|name| std::str::from_utf8(name).ok());
        let name = name.and_then(|name| name.parse().ok());
        found.extend(name.filter(|hash| files.contains(hash)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_wherever_it_stands() {
        let (one, other) = (BlobHash([0xab; 32]), BlobHash([0x12; 32]));
        let found = |bytes: &[u8]| {
            let mut found = BTreeSet::new();
            names_in(bytes, &[one, other].into(), &mut found);
            found
        };
        // As Automerge writes keys: one behind the other, each behind its length.
        let keys = format!("\u{7f}\x40{one}\x40{other}\x04name");
        assert_eq!(found(keys.as_bytes()), [one, other].into());
        let loud = one.to_string().to_uppercase();
        assert_eq!(found(format!("photos[{loud}]").as_bytes()), [one].into());
        assert_eq!(found(format!("\"{one}9f").as_bytes()), [one].into());
        assert_eq!(found(&one.to_string().as_bytes()[1..]), BTreeSet::new());
        assert_eq!(found(BlobHash([7; 32]).to_string().as_bytes()), BTreeSet::new());
    }
}
