//! Taking a file in: its bytes go to a thread that verifies and writes them, and how far that is goes
//! back.

use std::time::Duration;

use bytes::Bytes;
use fieldkeep_model::BlobTree;
use fieldkeep_protocol::FileFrame;
use fieldkeep_protocol::blob::{Got, Unfit};
use fieldkeep_store::{Incoming, StoreError};
use tokio::sync::mpsc;

use crate::talk::{Talk, TransferError};

/// Pieces that wait to be written, each as long as a datagram at least.
const WAITING: usize = 64;
/// Bytes that are verified and written at once, if so many wait: else each datagram's are by themselves.
const TOGETHER: usize = 64 * 1024;
/// Bytes after which it is said how far it is.
const SAID: u64 = 64 * 1024;

/// What becomes of a file that is brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brought {
    /// It is here already, and open to the record's readers.
    Whole,
    /// It is here already: who brings it shows that he has it.
    Prove(BlobTree),
    /// Its bytes are to come.
    Take(BlobTree),
    /// It is not taken.
    Unfit(Unfit),
}

impl Brought {
    /// It is not taken: a code, why in words, and whether it may be otherwise in a moment.
    #[must_use]
    pub fn unfit(code: &str, text: &str, again: bool) -> Self {
        Self::Unfit(Unfit { code: code.to_owned(), text: text.to_owned(), again })
    }
}

/// Takes the rest of a file in. When this returns it is verified and durable under its name; that it is
/// whole is for the caller to say, once his own books say so as well. `progress` hears how far it is, and
/// says how long the next bytes are to wait: what is under way is bounded, so that holds the other side back.
///
/// # Errors
/// See [`TransferError`]; what came stays, but for a group that was wrong.
pub async fn take(
    talk: &mut Talk,
    incoming: Incoming,
    progress: impl Fn(u64) -> Duration,
) -> Result<BlobTree, TransferError> {
    let (mut at, size) = (incoming.at(), incoming.tree().size());
    let mut expected = size - at;
    let (pieces, waiting) = mpsc::channel(WAITING);
    let (written, mut came) = mpsc::unbounded_channel();
    let writing = tokio::task::spawn_blocking(move || write_pieces(incoming, waiting, &written));
    let mut pieces = (expected > 0).then_some(pieces);
    let carried = loop {
        tokio::select! {
            biased;
            far = came.recv() => match far {
                Some(far) => {
                    at = far;
                    let wait = progress(at);
                    if !wait.is_zero() {
                        tokio::time::sleep(wait).await;
                    }
                    if let Err(error) = talk.say(&FileFrame::Got(Got { at })).await {
                        break Err(error);
                    }
                }
                // It is written, or failed.
                None => break Ok(()),
            },
            bytes = talk.heard.bytes(), if pieces.is_some() => {
                let bytes = match bytes {
                    Ok(bytes) => bytes,
                    Err(error) => break Err(error),
                };
                if bytes.len() as u64 > expected {
                    break Err(TransferError::Nonsense);
                }
                expected -= bytes.len() as u64;
                if let Some(waiting) = &pieces
                    && waiting.send(bytes).await.is_err()
                {
                    pieces = None;
                }
                if expected == 0 {
                    pieces = None;
                }
            }
        }
    };
    drop(pieces);
    let wrote = writing
        .await
        .unwrap_or_else(|_| Err(Stop::Store(StoreError::Disk("writing ended".into()))));
    match (carried, wrote) {
        (_, Err(Stop::Wrong(group))) => Err(TransferError::Wrong(group)),
        (_, Err(Stop::Store(error))) => Err(error.into()),
        (Err(error), Ok(_)) => Err(error),
        (Ok(()), Ok(Some(tree))) => Ok(tree),
        (Ok(()), Ok(None)) => Err(TransferError::Nonsense),
    }
}

/// Why writing ended early.
enum Stop {
    Wrong(u64),
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Writes what comes; the file's tree once it is whole and durable.
fn write_pieces(
    mut incoming: Incoming,
    mut pieces: mpsc::Receiver<Bytes>,
    written: &mpsc::UnboundedSender<u64>,
) -> Result<Option<BlobTree>, Stop> {
    let mut said = incoming.at();
    let mut together = Vec::new();
    while let Some(piece) = pieces.blocking_recv() {
        together.clear();
        together.extend_from_slice(&piece);
        while together.len() < TOGETHER
            && let Ok(piece) = pieces.try_recv()
        {
            together.extend_from_slice(&piece);
        }
        if let Some(group) = incoming.take(&together)? {
            return Err(Stop::Wrong(group));
        }
        if incoming.at() - said >= SAID && !incoming.is_whole() {
            said = incoming.at();
            // Nobody may listen any more: what came is kept all the same.
            let _ = written.send(said);
        }
    }
    if !incoming.is_whole() {
        return Ok(None);
    }
    Ok(Some(incoming.finish()?))
}
