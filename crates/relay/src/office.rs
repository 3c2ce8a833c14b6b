//! What a console of a relay that serves asks: a reader beside the engine, the engine itself, and how it
//! all stands.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fieldkeep_replica::{Reading, ReplicaError};
use fieldkeep_store::{Reader, StoreError, home};

use crate::backup::Backups;
use crate::engine::Engine;
use crate::limits::Report;
use crate::server::Handle;
use crate::vitals::Vitals;

/// A relay that serves, for whoever shows it to its operators.
#[derive(Clone, Debug)]
pub struct Office {
    directory: PathBuf,
    handle: Handle,
    vitals: Vitals,
    backups: Backups,
    comparing: Arc<Mutex<()>>,
}

impl Office {
    pub(crate) fn new(directory: &Path, handle: Handle, vitals: Vitals, backups: Backups) -> Self {
        let (directory, comparing) = (directory.to_owned(), Arc::default());
        Self { directory, handle, vitals, backups, comparing }
    }

    /// Reads what is committed; holds up nobody. Waits for the disk.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn reading(&self) -> Result<Reading, ReplicaError> {
        Reading::of(self.reader()?)
    }

    /// The reader alone.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub fn reader(&self) -> Result<Reader, ReplicaError> {
        Ok(Reader::open(&home::database(&self.directory))?)
    }

    /// Runs something on the engine's thread; what it changed is durable when this returns. Nothing if the
    /// relay has stopped.
    pub async fn call<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Option<T> {
        self.handle.call(act).await
    }

    /// Its limits, and what is used of them. Nothing if the relay has stopped.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn limits(&self) -> Option<Result<Report, StoreError>> {
        self.handle.limits().await
    }

    /// Its backups: to make one, to see how far it is, and when the last was made.
    #[must_use]
    pub fn backups(&self) -> &Backups {
        &self.backups
    }

    /// Whoever compares a catalog with all the data holds this: one at a time.
    #[must_use]
    pub fn comparing(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.comparing)
    }

    /// How it is doing.
    #[must_use]
    pub fn vitals(&self) -> &Vitals {
        &self.vitals
    }
}
