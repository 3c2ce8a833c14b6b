//! What goes into the engine and what comes out of it, and how far a session is.

use fieldkeep_model::RecordKey;
use fieldkeep_protocol::Code;
use fieldkeep_replica::Integrity;

use super::peer::{PeerId, PeerInput, PeerOutput};

/// What happens to the engine.
///
/// ```
/// # use fieldkeep_device::Input;
/// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
/// ann.handle(0, Input::Connected)?; // The shell has dialled.
/// assert!(!ann.commit()?.is_empty()); // What is said first.
/// ann.handle(0, Input::Closed)?; // The signal is lost; the order is not.
/// assert_eq!(ann.progress()?.waiting, 1);
/// # Ok(()) });
/// ```
#[derive(Clone, Debug)]
pub enum Input {
    /// The connection to the relay is made.
    Connected,
    /// Bytes of one of its streams.
    Bytes(u64, Vec<u8>),
    /// One of its streams ended.
    Finished(u64),
    /// It is gone.
    Closed,
    /// Something happens on a connection to another device.
    Peer(PeerId, PeerInput),
}

/// What the shell is to do.
///
/// ```
/// # use fieldkeep_device::{Input, Output};
/// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
/// ann.handle(0, Input::Connected)?;
/// let outputs = ann.commit()?;
/// assert!(matches!(outputs[0], Output::Send { stream: 0, .. })); // On the control stream.
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send bytes on a stream.
    Send {
        /// The stream; 0 is the control stream.
        stream: u64,
        /// Its priority.
        priority: i32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Close the connection.
    Close(Code, String),
    /// Tell watchers that records changed.
    Changed(Vec<RecordKey>),
    /// Do something on a connection to another device.
    Peer(PeerId, PeerOutput),
    /// Tell watchers that a device of that name is met.
    Met(String),
}

/// How far the present connection has brought things.
///
/// ```
/// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
/// wire.relay(&mut ann)?;
/// let progress = ann.progress()?;
/// assert_eq!((progress.sent, progress.waiting, progress.proven), (1, 0, 1));
/// wire.relay(&mut ben)?;
/// assert_eq!(ben.progress()?.received, 1);
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether the relay has answered the offer.
    pub offered: bool,
    /// Changes that the relay has given a receipt for.
    pub sent: u64,
    /// Changes that came from the relay and were applied; its receipts of own ones left out.
    pub received: u64,
    /// Changes that have no receipt and are still on their way; those of paused types left out.
    pub waiting: u64,
    /// Changes that the relay did not take.
    pub refused: u64,
    /// Segments that are not proven equal, or not merged into what is read.
    pub open: u64,
    /// Segments that were proven equal on this connection.
    pub proven: u64,
    /// Bytes of frames that were sent.
    pub bytes_sent: u64,
    /// Bytes of frames that came.
    pub bytes_received: u64,
    /// What a proof or a check found wrong.
    pub integrity: Option<Integrity>,
    /// Why the session ended, if it did.
    pub ended: Option<(Code, String)>,
    /// The newest number under which the relay tells of attached files that it removed, 0 if it has
    /// removed none; nothing before it has introduced itself.
    pub removals: Option<u64>,
    /// When the relay asks this device to come back, in milliseconds from then, where it goes away.
    pub back_ms: Option<u64>,
}

impl Progress {
    /// Whether everything is sent, applied, judged and proven.
    ///
    /// ```
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// assert!(!ann.progress()?.complete()); // An order is to be sent.
    /// wire.relay(&mut ann)?;
    /// assert!(ann.progress()?.complete());
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn complete(&self) -> bool {
        self.offered && self.waiting == 0 && self.open == 0 && self.integrity.is_none()
    }
}
