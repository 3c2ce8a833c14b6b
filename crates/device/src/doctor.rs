//! The doctor: what a device stores is checked against what it should be. What is derived can be
//! derived again; changes, keys and the membership log are never touched. What is said of a check is the
//! same on a relay: see [`fieldkeep_replica::doctor`].

use std::collections::BTreeMap;

use fieldkeep_model::{BlobHash, SegmentId};
use fieldkeep_replica::{Check, Finding, Integrity, ReplicaError, doctor};
use fieldkeep_store::{BlobFiles, Blobs as _, Log as _, Store, StoreError};

use crate::device::{Device, now};

/// What is wrong with each segment.
type Verified = BTreeMap<SegmentId, Option<Integrity>>;

const REPAIR: &str = "doctor --repair";

impl Device {
    /// Looks at everything: the file, the keys and the membership, the clock, the catalog, the sizes of
    /// segments, the changes, what was derived from them, and the counts. Reads all of it. A segment that is
    /// not what it should be counts as proven no more, and a connection that is open begins anew.
    ///
    /// ```
    /// # use fieldkeep_device::Finding;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let checks = device.doctor()?;
    /// assert!(checks.iter().all(|check| check.finding == Finding::Fine));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails so that nothing can be said.
    pub fn doctor(&self) -> Result<Vec<Check>, ReplicaError> {
        let verified = self.verified()?;
        if let Err(error) = self.distrust(&verified) {
            tracing::warn!(%error, "what was found wrong is not kept, and found again by the next look");
        }
        Ok(vec![
            self.check_file(),
            self.check_membership()?,
            self.check_clock(),
            self.check_catalog(),
            self.check_sizes(),
            self.check_changes(&verified)?,
            self.check_records(&verified),
            self.check_counts()?,
            self.check_attachments()?,
        ])
    }

    /// Derives everything again that can be: documents, records, verdicts' marks on them, counts, the
    /// index of words. Changes are never touched. Returns how many segments were derived again. A
    /// connection that is open begins anew: that proves what came of it.
    ///
    /// ```
    /// # fieldkeep_lab::camp::example(async |device| {
    /// assert_eq!(device.repair()?, 2); // A segment of customers, and one of orders.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk refuses; nothing of it is kept then.
    pub fn repair(&self) -> Result<u64, ReplicaError> {
        let mut engine = self.engine();
        let ids: Vec<SegmentId> = engine.replica().segments().keys().copied().collect();
        let derived = ids.iter().try_fold(0, |derived, id| {
            // Where the changes themselves are damaged, what there is stays: a resync brings them.
            match engine.replica().verify(id)? {
                Some(Integrity::Changes(_)) => Ok(derived),
                Some(Integrity::Records(_)) | None => {
                    engine.replica_mut().doubt(id);
                    engine.replica_mut().derive_again(id)?;
                    Ok(derived + 1)
                }
            }
        });
        let rebuilt = derived.and_then(|derived| {
            let store = engine.replica_mut().store_mut();
            store.rebuild_tallies()?;
            store.rebuild_words()?;
            self.forget_damaged(store)?;
            Ok(derived)
        });
        let derived = match rebuilt {
            Ok(derived) => derived,
            Err(error) => {
                engine.give_up()?;
                return Err(error);
            }
        };
        let whole = derived == ids.len() as u64;
        let outputs = engine.commit()?;
        self.0.deliver(&engine, outputs);
        drop(engine);
        if whole {
            self.is_mended()?;
        }
        self.hang_up();
        Ok(derived)
    }

    /// What was found wrong is not known to be what the relay has, and is told until it is mended.
    fn distrust(&self, verified: &Verified) -> Result<(), ReplicaError> {
        let wrong = verified.iter().filter_map(|(id, found)| Some((id, found.as_ref()?)));
        let wrong: Vec<_> = wrong.collect();
        let Some((_, first)) = wrong.first() else { return Ok(()) };
        self.with_replica(|replica| {
            wrong.iter().for_each(|(id, _)| replica.doubt(id));
            Ok::<_, ReplicaError>(())
        })?;
        self.is_damaged(first);
        self.hang_up();
        Ok(())
    }

    /// Files that are not what their names say.
    fn damaged(&self, store: &Store) -> Result<(u64, Vec<BlobHash>), StoreError> {
        let (files, here) = (BlobFiles::of(self.directory()), store.blobs_here()?);
        let damaged = here.iter().filter(|(hash, size)| !files.is_sound(hash, *size));
        Ok((here.len() as u64, damaged.map(|(hash, _)| *hash).collect()))
    }

    fn check_attachments(&self) -> Result<Check, ReplicaError> {
        let engine = self.engine();
        let store = engine.replica().store();
        let (count, damaged) = self.damaged(store)?;
        let alone: Vec<_> = store.uploads()?.into_iter().map(|upload| upload.hash).collect();
        let alone = damaged.iter().filter(|hash| alone.contains(hash)).count();
        Ok(doctor::check_attached(count, &damaged, alone, REPAIR))
    }

    /// Has files that are damaged or gone fetched again by whoever asks for them; what no relay has
    /// stays as it is.
    fn forget_damaged(&self, store: &mut Store) -> Result<(), ReplicaError> {
        let alone: Vec<_> = store.uploads()?.into_iter().map(|upload| upload.hash).collect();
        for hash in self.damaged(store)?.1.into_iter().filter(|hash| !alone.contains(hash)) {
            store.take_blob(&hash)?;
            BlobFiles::of(self.directory()).remove(&hash)?;
        }
        Ok(())
    }

    fn check_file(&self) -> Check {
        let remedy =
            "put a backup of the directory back, or join again: what the relay has comes back";
        doctor::check_file(self.engine().replica().store(), remedy)
    }

    fn check_membership(&self) -> Result<Check, ReplicaError> {
        let refused = self.failure()?.filter(|failure| failure.permanent);
        let engine = self.engine();
        let replica = engine.replica();
        let ask = "ask for a fresh ticket: `fieldkeep relay invite`";
        let member = replica.members().by_tls(&self.0.seed.tls().public());
        Ok(match member {
            None => {
                let text = "the key of this device is no member's";
                Check::found("membership", Finding::Wrong, text, ask)
            }
            Some(member) if member.revoked => {
                let text =
                    "this device was revoked: nothing on it is lost, and nothing is exchanged";
                Check::found("membership", Finding::Wrong, text, ask)
            }
            // A relay that refuses tells no more of the membership log.
            Some(member) => {
                if let Some(refused) = refused {
                    return Ok(Check::found("membership", Finding::Wrong, refused.reason, ask));
                }
                let text = format!(
                    "{} is member {} of {}",
                    member.name,
                    member.number,
                    replica.members().name()
                );
                Check::fine("membership", text)
            }
        })
    }

    fn check_clock(&self) -> Check {
        let engine = self.engine();
        let replica = engine.replica();
        doctor::check_clock(replica.store(), replica.segments().values(), now())
    }

    fn check_catalog(&self) -> Check {
        let engine = self.engine();
        let replica = engine.replica();
        let published = replica.published().map(|in_force| (in_force.number, &in_force.catalog));
        doctor::check_catalog(published, replica.types(), "sync")
    }

    fn check_sizes(&self) -> Check {
        doctor::check_sizes(self.engine().replica().segments().values(), |ty| {
            format!("tell whoever runs the relay: `fieldkeep relay reshape {ty}` divides it")
        })
    }

    /// What is wrong with each segment, if anything: its changes and rows against their sums, and every
    /// row against the document.
    fn verified(&self) -> Result<Verified, ReplicaError> {
        let mut engine = self.engine();
        let replica = engine.replica_mut();
        let segments: Vec<_> =
            replica.segments().iter().map(|(id, row)| (*id, row.clone())).collect();
        let verified = segments.into_iter().map(|(id, row)| {
            let found = match replica.verify(&id)? {
                None if row.damaged || !replica.is_projected(&id)? => {
                    Some(Integrity::Records(row.address.to_string()))
                }
                found => found,
            };
            Ok((id, found))
        });
        verified.collect()
    }

    fn check_changes(&self, verified: &Verified) -> Result<Check, ReplicaError> {
        let engine = self.engine();
        let replica = engine.replica();
        let (mut changes, mut waiting) = (0, 0);
        for (id, row) in replica.segments() {
            if let Some(Some(Integrity::Changes(address))) = verified.get(id) {
                let text = format!("changes of {address} are not what was written");
                let command = format!("resync {}", row.address.ty);
                return Ok(Check::found("changes", Finding::Wrong, text, command));
            }
            changes += row.tip;
            waiting += replica.store().outgoing_in(row.sid)?.0;
        }
        Ok(Check::fine("changes", format!("{changes}, {waiting} of them without a receipt")))
    }

    fn check_records(&self, verified: &Verified) -> Check {
        let engine = self.engine();
        let mut records = 0;
        for (id, found) in verified {
            match found {
                // Said already.
                Some(Integrity::Changes(_)) => {}
                Some(Integrity::Records(_)) => {
                    let row = &engine.replica().segments()[id];
                    return doctor::check_records(Some(row), records, REPAIR);
                }
                None => records += engine.replica().segments()[id].records,
            }
        }
        doctor::check_records(None, records, REPAIR)
    }

    fn check_counts(&self) -> Result<Check, StoreError> {
        doctor::check_counts(self.engine().replica().store(), REPAIR)
    }
}
