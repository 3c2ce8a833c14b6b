//! Wishes: what the user asks of the relay about held records. Kept until it was told.

use fieldkeep_model::RecordKey;
use fieldkeep_protocol::frame::{Dismiss, Frame};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Settings as _, StoreError};
use minicbor::{Decode, Encode};

use super::Engine;

const WISHES: &str = "wishes";

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
enum Wish {
    #[n(0)]
    Rejudge(#[n(0)] RecordKey),
    #[n(1)]
    Dismiss(#[n(0)] RecordKey, #[n(1)] bool, #[n(2)] String),
}

impl Engine {
    /// Asks the relay to judge a record again, now or with the next connection.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn queue_rejudge(&mut self, key: &RecordKey) -> Result<(), ReplicaError> {
        self.queue(Wish::Rejudge(key.clone()))
    }

    /// Tells the relay that a record was put aside, with the reason, or taken up again, now or with
    /// the next connection.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn queue_dismissal(&mut self, key: &RecordKey, note: Option<&str>) -> Result<(), ReplicaError> {
        let note_text = note.unwrap_or_default().to_owned();
        self.queue(Wish::Dismiss(key.clone(), note.is_some(), note_text))
    }

    fn queue(&mut self, wish: Wish) -> Result<(), ReplicaError> {
        let mut wishes = self.wishes()?;
        wishes.retain(|other| *other != wish);
        wishes.push(wish);
        self.keep(&wishes)?;
        if self.is_online() { self.tell_wishes() } else { Ok(()) }
    }

    /// Tells the relay everything that waits to be told.
    pub(super) fn tell_wishes(&mut self) -> Result<(), ReplicaError> {
        let wishes = self.wishes()?;
        if wishes.is_empty() {
            return Ok(());
        }
        for wish in wishes {
            let frame = match wish {
                Wish::Rejudge(key) => Frame::Rejudge(key),
                Wish::Dismiss(record, dismissed, note) => {
                    Frame::Dismiss(Dismiss { record, dismissed, note })
                }
            };
            self.control(&frame);
        }
        self.keep(&[])
    }

    fn wishes(&self) -> Result<Vec<Wish>, ReplicaError> {
        let Some(bytes) = self.replica.store().setting(WISHES)? else { return Ok(Vec::new()) };
        let damaged = |_| StoreError::Damaged("what waits to be told to the relay".into());
        Ok(minicbor::decode(&bytes).map_err(damaged)?)
    }

    fn keep(&mut self, wishes: &[Wish]) -> Result<(), ReplicaError> {
        let bytes = minicbor::to_vec(wishes).expect("encoding into memory cannot fail");
        Ok(self.replica.store_mut().set(WISHES, &bytes)?)
    }
}
