//! What a sync came to, and why one did not end well.

use std::net::SocketAddr;

use fieldkeep_link::BindError;
use fieldkeep_protocol::Code;
use fieldkeep_replica::{Integrity, ReplicaError};
use fieldkeep_store::StoreError;

use crate::files::FilesSynced;

/// What a sync came to.
///
/// ```
/// # use fieldkeep_model::Edit;
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// device.edit(&"order/o1".parse()?, vec![Edit::Add("boxes".into(), 1)])?;
/// let report = device.sync(Duration::from_secs(60)).await?;
/// assert_eq!((report.sent, report.received, report.refused), (1, 0, 0));
/// assert_eq!((report.proven, report.held), (2, 1)); // Customers and orders; one is held.
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Changes that the relay gave a receipt for.
    pub sent: u64,
    /// Changes that came from the relay and were applied; its receipts of own ones left out.
    pub received: u64,
    /// Changes that the relay did not take; they stay here.
    pub refused: u64,
    /// Segments that were proven equal.
    pub proven: u64,
    /// Held records here.
    pub held: u64,
    /// What became of attached files.
    pub files: FilesSynced,
    /// Bytes of frames that were sent.
    pub bytes_sent: u64,
    /// Bytes of frames that came.
    pub bytes_received: u64,
}

/// Why a sync did not end well. What was captured is safe on the device in every case.
///
/// ```
/// # use fieldkeep_device::SyncError;
/// # use serde_json::json;
/// # use std::time::Duration;
/// # fieldkeep_lab::camp::example(async |device| {
/// device.save(&"customer/c2".parse()?, &json!({"name": "Pier"}))?;
/// let synced = device.sync(Duration::ZERO).await; // There is no time to reach anybody.
/// assert!(matches!(synced, Err(SyncError::Offline(_) | SyncError::Timeout(..))));
/// assert!(device.get(&"customer/c2".parse()?)?.is_some_and(|customer| customer.unsaved));
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The relay was not reached.
    #[error(
        "the relay was not reached ({0}); everything is safe on this device: try again when there is a signal"
    )]
    Offline(String),
    /// Somebody else than the relay answers at the address.
    #[error(
        "somebody else than the relay answers at {0}: nothing was exchanged; everything is safe on this device"
    )]
    Another(SocketAddr),
    /// The relay's address is not known.
    #[error("no address of the relay is known here: join again with a ticket that has one")]
    NoAddress,
    /// The relay refused the device.
    #[error("the relay refused this device ({0}); everything is safe on this device")]
    Denied(String),
    /// The device was revoked.
    #[error("{0}; everything that was captured here is still on this device")]
    Revoked(String),
    /// The connection ended before everything was exchanged.
    #[error(
        "the connection ended ({0}); what has a receipt is safe on the relay, the rest on this device"
    )]
    Cut(String),
    /// It took too long.
    #[error("not everything was exchanged within {0} s ({1}); nothing is lost")]
    Timeout(u64, String),
    /// A proof was not equal.
    #[error("{0}; they were derived again from the changes, which the next sync proves")]
    Integrity(Integrity),
    /// This end cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The store failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl SyncError {
    /// Whether trying again is of no use before somebody has done something about it.
    ///
    /// ```
    /// # use fieldkeep_device::SyncError;
    /// assert!(!SyncError::Offline("no route".into()).is_permanent());
    /// assert!(SyncError::Revoked("this device was revoked".into()).is_permanent());
    /// ```
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NoAddress | Self::Denied(_) | Self::Revoked(_) => true,
            Self::Offline(_)
            | Self::Another(_)
            | Self::Cut(_)
            | Self::Timeout(..)
            | Self::Integrity(_)
            | Self::Bind(_)
            | Self::Replica(_) => false,
        }
    }
}

impl From<StoreError> for SyncError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

pub(crate) fn refusal(code: Code, text: String) -> SyncError {
    match code {
        Code::Revoked => SyncError::Revoked(text),
        Code::NotAMember | Code::Denied | Code::ForeignOrganisation => SyncError::Denied(text),
        Code::Done
        | Code::Malformed
        | Code::TooLong
        | Code::UnknownFrame
        | Code::OutOfOrder
        | Code::Version
        | Code::InvitationUnknown
        | Code::InvitationExpired
        | Code::Membership
        | Code::Busy
        | Code::Storage
        | Code::GoingAway
        | Code::Unchained
        | Code::Unvouched
        | Code::Refused => SyncError::Cut(text),
    }
}
