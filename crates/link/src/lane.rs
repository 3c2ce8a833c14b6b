//! Lanes: a stream each way for one thing that is long and can wait, beside what the carrier carries.
//!
//! Whoever opens a lane writes first, and the other side answers on it. Lanes go last: what the carrier
//! has to send is sent before. How much is under way on one is for its users to bound: all streams of a
//! connection share one send window.

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, WriteError};

use crate::carrier::Sender;
use crate::connection::ClosedReason;

/// The longest piece that is read at once, in bytes.
const PIECE: usize = 64 * 1024;

/// A lane.
#[derive(Debug)]
pub struct Lane {
    /// The way out.
    pub writer: LaneWriter,
    /// The way in.
    pub reader: LaneReader,
}

/// A lane's way out. Dropped unfinished, the other side sees it broken off.
#[derive(Debug)]
pub struct LaneWriter {
    stream: SendStream,
    finished: bool,
}

/// A lane's way in.
#[derive(Debug)]
pub struct LaneReader(RecvStream);

/// Why a lane is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// The other side gave it up.
    #[error("the other side gave it up")]
    BrokenOff,
    /// The connection is over.
    #[error("the connection ended: {0}")]
    Closed(ClosedReason),
}

impl Sender {
    /// Opens a lane.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn open_lane(&self, priority: i32) -> Result<Lane, LaneError> {
        self.control_met().await;
        let opened = self.quic().open_bi().await;
        let (stream, reader) =
            opened.map_err(|error| LaneError::Closed(ClosedReason::of(&error)))?;
        Ok(Lane::new(stream, reader, priority))
    }

    /// The next lane that the other side opens.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn accept_lane(&self, priority: i32) -> Result<Lane, LaneError> {
        self.control_met().await;
        let met = self.quic().accept_bi().await;
        let (stream, reader) = met.map_err(|error| LaneError::Closed(ClosedReason::of(&error)))?;
        Ok(Lane::new(stream, reader, priority))
    }
}

impl Lane {
    fn new(stream: SendStream, reader: RecvStream, priority: i32) -> Self {
        // Fails for a closed stream only, and then the first write says so.
        let _ = stream.set_priority(priority);
        Self { writer: LaneWriter { stream, finished: false }, reader: LaneReader(reader) }
    }
}

impl LaneWriter {
    /// Writes bytes; returns when the connection has taken them.
    ///
    /// # Errors
    /// See [`LaneError`].
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), LaneError> {
        self.stream.write_chunk(bytes).await.map_err(|error| match error {
            WriteError::ConnectionLost(error) => LaneError::Closed(ClosedReason::of(&error)),
            WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
                LaneError::BrokenOff
            }
        })
    }

    /// Ends the way out after what was written.
    pub fn finish(&mut self) {
        self.finished = true;
        // Fails where it was reset: then nobody waits for its end.
        let _ = self.stream.finish();
    }
}

impl Drop for LaneWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Else the other side would take what came for all.
            let _ = self.stream.reset(0u32.into());
        }
    }
}

impl LaneReader {
    /// The next bytes; `None` at the end. Safe to cancel.
    ///
    /// # Errors
    /// See [`LaneError`].
    pub async fn read(&mut self) -> Result<Option<Bytes>, LaneError> {
        match self.0.read_chunk(PIECE, true).await {
            Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
            Err(ReadError::ConnectionLost(error)) => {
                Err(LaneError::Closed(ClosedReason::of(&error)))
            }
            Err(
                ReadError::Reset(_)
                | ReadError::ClosedStream
                | ReadError::IllegalOrderedRead
                | ReadError::ZeroRttRejected,
            ) => Err(LaneError::BrokenOff),
        }
    }
}
