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
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.relay(&mut ann)?;
    /// ann.queue_rejudge(&"order/o1".parse()?)?;
    /// assert_eq!(ann.commit()?.len(), 1); // The wish, since there is a connection.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn queue_rejudge(&mut self, key: &RecordKey) -> Result<(), ReplicaError> {
        self.queue(Wish::Rejudge(key.clone()))
    }

    /// Tells the relay that a record was put aside, with the reason, or taken up again, now or with
    /// the next connection.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// wire.relay(&mut ann)?;
    /// ann.queue_dismissal(&"order/o1".parse()?, Some("agreed by phone"))?;
    /// assert_eq!(ann.commit()?.len(), 1); // It is told, since there is a connection.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn queue_dismissal(
        &mut self,
        key: &RecordKey,
        note: Option<&str>,
    ) -> Result<(), ReplicaError> {
        let note_text = note.unwrap_or_default().to_owned();
        self.queue(Wish::Dismiss(key.clone(), note.is_some(), note_text))
    }

    fn queue(&mut self, wish: Wish) -> Result<(), ReplicaError> {
        let mut wishes = self.wishes()?;
        if let Some(at) = wishes.iter().position(|other| *other == wish) {
            wishes.remove(at);
            self.told -= usize::from(at < self.told);
        }
        if self.is_online() {
            self.tell(&wish);
        }
        wishes.push(wish);
        self.keep(&wishes)
    }

    /// Tells the relay everything that it may not have heard. It stays kept until the relay answers
    /// the offer that follows: a wish that is heard twice does no harm, one that is lost does.
    pub(super) fn tell_wishes(&mut self) -> Result<(), ReplicaError> {
        let wishes = self.wishes()?;
        self.told = wishes.len();
        wishes.iter().for_each(|wish| self.tell(wish));
        Ok(())
    }

    /// Forgets what the relay has heard and made durable.
    pub(super) fn forget_told_wishes(&mut self) -> Result<(), ReplicaError> {
        if self.told == 0 {
            return Ok(());
        }
        let wishes = self.wishes()?;
        let told = std::mem::take(&mut self.told).min(wishes.len());
        self.keep(&wishes[told..])
    }

    fn tell(&mut self, wish: &Wish) {
        let frame = match wish.clone() {
            Wish::Rejudge(key) => Frame::Rejudge(key),
            Wish::Dismiss(record, dismissed, note) => {
                Frame::Dismiss(Dismiss { record, dismissed, note })
            }
        };
        self.control(&frame);
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
