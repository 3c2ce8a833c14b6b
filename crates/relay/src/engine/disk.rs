//! When the disk refuses: nothing leaves, everybody is told to come again, and whoever watches the relay
//! hears of it until something was saved again.

use fieldkeep_protocol::Code;
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::StoreError;

use super::Engine;
use super::influx::Influx;

/// Bytes for which there has to be room before the disk counts as taking what is saved.
const ROOM: usize = 64 * 1024;

impl Engine {
    /// Nothing since the last commit was saved: nothing of it leaves, and every peer is told to come
    /// again.
    pub(super) fn give_up(&mut self, error: &StoreError) {
        self.unsaved += 1;
        self.outputs.clear();
        let text = error.to_string();
        self.tally.failed(text.clone());
        self.influx = Influx::default();
        self.forget_returned();
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.close(id, Code::Storage, &text);
        }
        self.moved.clear();
        if let Err(error) = self.read_stored() {
            tracing::error!(%error, "what is stored of whom is counted as it was");
        }
        // What waits to be judged is taken up when somebody comes again: there may be room then.
        self.queue.clear();
        self.traces.forget();
        tracing::error!(%error, "nothing was saved");
    }

    /// Whether the disk refused the last that was to be saved.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.metrics().ready.get() == 0
    }

    /// Tries whether the disk has room again, where it refused. A commit must follow.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn probe(&mut self) -> Result<(), ReplicaError> {
        match self.try_disk() {
            Ok(()) => self.recovered(),
            Err(error) => {
                tracing::debug!(%error, "the disk still refuses");
                self.replica.forget()?;
            }
        }
        Ok(())
    }

    fn try_disk(&mut self) -> Result<(), StoreError> {
        for length in [ROOM, 0] {
            self.replica.store_mut().set("room", &vec![0; length])?;
            self.replica.commit()?;
        }
        Ok(())
    }

    /// What is taken in is saved again: what waited to be judged goes on.
    pub(super) fn recovered(&mut self) {
        tracing::info!("the disk takes what is saved again");
        self.metrics().set_trouble(None);
        if self.queue.is_empty() {
            self.queue = self.replica.behind().into();
        }
    }
}
