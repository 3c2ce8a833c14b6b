//! What a relay's store notes of the newest good backup: so that its age can be watched.

use fieldkeep_store::{Settings, Store, StoreError};
use minicbor::{Decode, Encode};

use super::Taken;

/// The key of the setting.
const KEY: &str = "backup";

/// The newest backup that was made and read back.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LastBackup {
    /// The moment as which the store stands in it, milliseconds UTC.
    #[n(0)]
    pub taken: i64,
    /// The folder of backups that it lies in.
    #[n(1)]
    pub folder: String,
    /// Its number there.
    #[n(2)]
    pub number: u64,
}

impl LastBackup {
    /// What is noted of one.
    #[must_use]
    pub fn of(taken: &Taken) -> Self {
        let folder = taken.folder.display().to_string();
        Self { taken: taken.manifest.taken, folder, number: taken.manifest.number }
    }

    /// What was noted.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn read(store: &impl Settings) -> Result<Option<Self>, StoreError> {
        Ok(store.setting(KEY)?.and_then(|bytes| minicbor::decode(&bytes).ok()))
    }

    /// Notes it; a commit must follow.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note(&self, store: &mut Store) -> Result<(), StoreError> {
        store.set(KEY, &minicbor::to_vec(self).expect("encoding into memory cannot fail"))
    }

    /// When it was taken, in whole seconds since 1970.
    pub(crate) fn seconds(&self) -> i64 {
        self.taken.div_euclid(1_000)
    }
}
