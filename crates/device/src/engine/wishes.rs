//! Wishes: what the user asks of the relay about held records. Kept until it was told, in a session or
//! by a bundle and one that comes back.

use fieldkeep_model::{RecordHash, RecordKey};
use fieldkeep_protocol::bundle::{Enclosed, Told};
use fieldkeep_protocol::frame::{Dismiss, Frame};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Records as _, Settings as _, StoreError};
use minicbor::{Decode, Encode};

use super::Engine;

/// The settings that hold those that were not told, and the number of the newest.
const WISHES: &str = "wishes";
const NEWEST: &str = "newest_wish";

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Wish {
    /// It rises from one to the next, and with each life of the device.
    #[n(0)]
    number: u64,
    #[n(1)]
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
enum What {
    #[n(0)]
    Rejudge(#[n(0)] RecordKey),
    /// The record, whether it is put aside, why, and the content that this speaks of.
    #[n(1)]
    Dismiss(#[n(0)] RecordKey, #[n(1)] bool, #[n(2)] String, #[n(3)] RecordHash),
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
        self.queue(What::Rejudge(key.clone()))
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
        let rows = self.replica.store().find(&key.ty, &key.id)?;
        let Some(row) = rows.into_iter().next() else { return Ok(()) };
        let note_text = note.unwrap_or_default().to_owned();
        self.queue(What::Dismiss(key.clone(), note.is_some(), note_text, row.hash))
    }

    fn queue(&mut self, what: What) -> Result<(), ReplicaError> {
        let mut wishes = self.wishes()?;
        if let Some(at) = wishes.iter().position(|other| other.what == what) {
            wishes.remove(at);
            self.told -= usize::from(at < self.told);
        }
        let newest = self.replica.store().setting(NEWEST)?;
        let newest = newest.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
        // A device that was put back goes on above all that it has asked before.
        let number = newest.max(u64::from(self.replica.me().incarnation) << 32) + 1;
        self.replica.store_mut().set(NEWEST, &number.to_be_bytes())?;
        let wish = Wish { number, what };
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

    /// Encoded frames for a bundle that tell the relay everything that it may not have heard.
    pub(super) fn pack_wishes(&self) -> Result<Option<Vec<u8>>, ReplicaError> {
        let wishes = self.wishes()?;
        let Some(last) = wishes.last() else { return Ok(None) };
        let told = Enclosed::Told(Told { number: last.number }).encode();
        let frames = wishes.iter().map(|wish| wish.frame().encode());
        Ok(Some(frames.chain([told]).collect::<Vec<_>>().concat()))
    }

    /// Forgets what the relay says to have heard.
    pub(super) fn forget_wishes_through(&mut self, number: u64) -> Result<(), ReplicaError> {
        let wishes = self.wishes()?;
        let heard = wishes.iter().take_while(|wish| wish.number <= number).count();
        if heard == 0 {
            return Ok(());
        }
        self.told = self.told.saturating_sub(heard);
        self.keep(&wishes[heard..])
    }

    fn tell(&mut self, wish: &Wish) {
        self.control(&wish.frame());
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

impl Wish {
    fn frame(&self) -> Frame {
        match self.what.clone() {
            What::Rejudge(key) => Frame::Rejudge(key),
            What::Dismiss(record, dismissed, note, content) => {
                let number = self.number;
                Frame::Dismiss(Dismiss { record, dismissed, note, number, content })
            }
        }
    }
}
