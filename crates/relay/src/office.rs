//! What a console of a relay that serves asks: a reader beside the engine, the engine itself, and how it
//! all stands.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fieldkeep_replica::{Reading, ReplicaError};
use fieldkeep_store::{Reader, home};

use crate::engine::Engine;
use crate::server::Handle;
use crate::vitals::Vitals;

/// A relay that serves, for whoever shows it to its operators.
#[derive(Clone, Debug)]
pub struct Office {
    directory: PathBuf,
    handle: Handle,
    vitals: Vitals,
    comparing: Arc<Mutex<()>>,
}

impl Office {
    pub(crate) fn new(directory: &Path, handle: Handle, vitals: Vitals) -> Self {
        Self { directory: directory.to_owned(), handle, vitals, comparing: Arc::default() }
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
