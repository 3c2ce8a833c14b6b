//! Other keys for this device: it stays the member that it is, and what it wrote stays its own.
//!
//! The next key is made here and lies beside the present one until a relay has admitted it. Whatever is
//! cut short in between is gone on with by doing it again.

use std::time::Duration;

use fieldkeep_link::{CreateKeyError, KeyFile, OpenKeyError};
use fieldkeep_model::membership::{self, Act, Entry, MemberKeys};
use fieldkeep_model::{Seed, Signed};
use fieldkeep_protocol::Code;
use fieldkeep_protocol::frame::{Frame, Hello, Members};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{StoreError, home};

use crate::acquaint::{Unheard, hear};
use crate::device::Device;
use crate::sync::SyncError;

/// Why a device's keys are what they were.
///
/// ```
/// # use fieldkeep_device::{RotateError, SyncError};
/// let error = RotateError::from(SyncError::NoAddress); // A relay has to admit them.
/// assert!(error.to_string().contains("no address of the relay"));
/// ```
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The next key cannot be made.
    #[error(transparent)]
    Create(#[from] CreateKeyError),
    /// The next key cannot be read, or put in its place.
    #[error(transparent)]
    Open(#[from] OpenKeyError),
    /// The relay was not reached.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The relay did not admit the new keys: the old ones are in force.
    #[error("the relay did not admit the new keys ({0}): the old ones are in force")]
    Refused(String),
    /// It took too long.
    #[error("the relay has not answered within {0} s: do this again, it goes on where it was")]
    Timeout(u64),
    /// The store failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<StoreError> for RotateError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

/// How an attempt ended.
enum Attempt {
    Admitted,
    /// The present key may be nobody's any more: this attempt or an earlier one was admitted, and that was
    /// not heard.
    Unknown,
}

impl Device {
    /// Takes new keys, which a relay has to admit, so that it needs a connection. What was written under
    /// the old ones, sent or not, stays this device's. The device has to be opened again afterwards.
    ///
    /// ```
    /// # use fieldkeep_device::Device;
    /// # use std::time::Duration;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let before = device.member()?.keys;
    /// device.rotate_key(Duration::from_secs(60)).await?;
    /// assert_ne!(device.members().device(&before.signing).expect("it is the same").keys, before);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`RotateError`]; the old keys are in force then, unless it was cut short after the relay had
    /// admitted the new ones: doing it again tells.
    pub async fn rotate_key(&self, timeout: Duration) -> Result<(), RotateError> {
        let _turn = self.turn().await;
        let file = home::next_key(self.directory());
        let next = if file.exists() { KeyFile::open(&file)? } else { KeyFile::create(&file)? };
        if self.members().by_tls(&next.tls().public()).is_none() {
            let admitted = tokio::time::timeout(timeout, self.have_admitted(&next)).await;
            admitted.map_err(|_| RotateError::Timeout(timeout.as_secs()))??;
        }
        Ok(KeyFile::replace(home::key(self.directory()), &file)?)
    }

    async fn have_admitted(&self, next: &Seed) -> Result<(), RotateError> {
        {
            let mut engine = self.engine();
            engine.replica_mut().vouch_for_the_past()?;
            let outputs = engine.commit()?;
            self.0.deliver(&engine, outputs);
        }
        // Where one was admitted, the relay knows the next key alone.
        if let Attempt::Unknown = self.ask_for_keys(next).await? {
            self.hear_of_keys(next).await?;
        }
        Ok(())
    }

    /// Asks the relay, under the present key, to admit the next.
    async fn ask_for_keys(&self, next: &Seed) -> Result<Attempt, RotateError> {
        let keys = MemberKeys::of(next);
        let signing = self.0.seed.signing();
        let act = Act::RotateDevice { member: signing.public(), keys };
        let ask = |welcome: &Hello| {
            let entry = Entry { previous: welcome.members_tip, act: act.clone() };
            let entries = vec![Signed::new(membership::CONTEXT, &entry, &signing)];
            Ok(Some(Frame::Members(Members { base: welcome.members, entries })))
        };
        let (_endpoint, connection) = self.dial().await?;
        let hello = self.engine().introduction();
        match hear(connection, hello, ask, |entries| self.has_keys(entries, &keys)).await {
            Ok(()) => Ok(Attempt::Admitted),
            // The relay has done it, and its last words were lost with the connection.
            Err(Unheard::Refused(Some(Code::NotAMember | Code::GoingAway), _)) => {
                Ok(Attempt::Unknown)
            }
            Err(Unheard::Refused(_, text)) => Err(RotateError::Refused(text)),
            Err(Unheard::Nothing) => Err(RotateError::Refused("no answer".into())),
        }
    }

    /// Hears, under the next key, that it was admitted.
    async fn hear_of_keys(&self, next: &Seed) -> Result<(), RotateError> {
        let keys = MemberKeys::of(next);
        let (_endpoint, connection) = self.dial_under(&next.tls()).await?;
        let hello = self.engine().introduction();
        let heard = hear(connection, hello, |_| Ok(None), |entries| self.has_keys(entries, &keys));
        heard.await.map_err(|unheard| match unheard {
            Unheard::Refused(_, text) => RotateError::Refused(text),
            Unheard::Nothing => RotateError::Refused("no answer".into()),
        })
    }

    /// Takes entries of the membership log over; whether the keys are this device's by them.
    fn has_keys(&self, entries: &[Signed], keys: &MemberKeys) -> bool {
        // What does not extend the log is no answer.
        let _ = self.learn_members(entries);
        self.members().by_tls(&keys.tls).is_some()
    }
}
