//! What the engine notes of backups, and of devices that come after it was put back from one.

use std::collections::BTreeSet;

use fieldkeep_model::PublicKey;
use fieldkeep_replica::Replica;
use fieldkeep_store::StoreError;

use super::Engine;
use crate::backup::LastBackup;
use crate::recovery::{Mark, note_seen, seen};

/// The devices that have been here since the relay was put back.
#[derive(Debug, Default)]
pub(super) struct Returning(Option<BTreeSet<PublicKey>>);

impl Returning {
    /// As a replica stands when it is opened.
    pub(super) fn of(replica: &Replica) -> Self {
        let store = replica.store();
        let known = || -> Result<_, StoreError> {
            let restored = Mark::read(store)?.is_some();
            Ok(if restored { Some(seen(store)?.into_keys().collect()) } else { None })
        };
        Self(known().unwrap_or_else(|error| {
            tracing::warn!(%error, "who comes back after a restore is not noted");
            None
        }))
    }
}

impl Engine {
    /// Notes that a backup was made, for whoever watches its age. A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn note_backup(&mut self, backup: &LastBackup) -> Result<(), StoreError> {
        backup.note(self.replica.store_mut())?;
        self.metrics().backup_timestamp_seconds.set(backup.seconds());
        Ok(())
    }

    /// Shows the age of the newest backup that is known.
    pub(super) fn show_backup(&self) {
        match LastBackup::read(self.replica.store()) {
            Ok(last) => {
                let seconds = last.map_or(0, |last| last.seconds());
                self.metrics().backup_timestamp_seconds.set(seconds);
            }
            Err(error) => tracing::warn!(%error, "the newest backup is not known"),
        }
    }

    /// From now on it is noted what comes back, and who.
    pub(super) fn note_restored(&mut self) -> Result<(), StoreError> {
        Mark::now(self.replica.store(), self.now, None)?.note(self.replica.store_mut())?;
        self.returning = Returning(Some(BTreeSet::new()));
        Ok(())
    }

    /// A device is here: the first time since the relay was put back, that is noted.
    pub(super) fn note_returned(&mut self, key: PublicKey) -> Result<(), StoreError> {
        let first = self.returning.0.as_mut().is_some_and(|returned| returned.insert(key));
        if first { note_seen(self.replica.store_mut(), &key, self.now) } else { Ok(()) }
    }

    /// What was noted and not saved is to be noted again.
    pub(super) fn forget_returned(&mut self) {
        self.returning = Returning::of(&self.replica);
    }
}
