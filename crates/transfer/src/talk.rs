//! Frames on a lane, and the bytes behind them.

use bytes::Bytes;
use fieldkeep_link::{Lane, LaneError, LaneReader, LaneWriter};
use fieldkeep_protocol::blob::{BLOB_FRAME_MAX, Unfit};
use fieldkeep_protocol::{DecodeError, FileFrame, FrameBuffer};
use fieldkeep_store::StoreError;

/// Why a file did not go over. What came of it stays, and it goes on there.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The lane or its connection ended.
    #[error("{0}")]
    Lane(#[from] LaneError),
    /// The other side said something that is no frame, or may not come now.
    #[error("the other side said something else than what may come now")]
    Nonsense,
    /// The other side does not take the file, or does not give it.
    #[error("{}", .0.text)]
    Unfit(Unfit),
    /// A group of it was not that of the file: it was forgotten, and comes again.
    #[error("what came from byte {0} on is not the file's")]
    Wrong(u64),
    /// The disk refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<DecodeError> for TransferError {
    fn from(_: DecodeError) -> Self {
        Self::Nonsense
    }
}

/// A lane on which frames are said.
#[derive(Debug)]
pub struct Talk {
    pub(crate) writer: LaneWriter,
    pub(crate) heard: Heard,
}

/// A lane's way in.
#[derive(Debug)]
pub(crate) struct Heard {
    reader: LaneReader,
    buffer: FrameBuffer,
}

impl Talk {
    /// Over a lane.
    #[must_use]
    pub fn over(lane: Lane) -> Self {
        let heard = Heard { reader: lane.reader, buffer: FrameBuffer::default() };
        Self { writer: lane.writer, heard }
    }

    /// Says a frame.
    ///
    /// # Errors
    /// When the lane is over.
    pub async fn say(&mut self, frame: &FileFrame) -> Result<(), TransferError> {
        Ok(self.writer.write(Bytes::from(frame.encode())).await?)
    }

    /// Says a frame, and nothing after it.
    ///
    /// # Errors
    /// When the lane is over.
    pub async fn conclude(&mut self, frame: &FileFrame) -> Result<(), TransferError> {
        self.say(frame).await?;
        self.writer.finish();
        // What was said arrives before the lane goes: whoever opened it ends it.
        while matches!(self.heard.reader.read().await, Ok(Some(_))) {}
        Ok(())
    }

    /// The next frame; that something is unfit is an error.
    ///
    /// # Errors
    /// When the lane is over, or the other side says nonsense, or that it is unfit.
    pub async fn hear(&mut self) -> Result<FileFrame, TransferError> {
        self.heard.frame().await
    }
}

impl Heard {
    pub(crate) async fn frame(&mut self) -> Result<FileFrame, TransferError> {
        loop {
            match self.buffer.next(BLOB_FRAME_MAX)? {
                Some(FileFrame::Unfit(unfit)) => return Err(TransferError::Unfit(unfit)),
                Some(frame) => return Ok(frame),
                None => {}
            }
            let Some(bytes) = self.reader.read().await? else {
                return Err(LaneError::BrokenOff.into());
            };
            self.buffer.push(&bytes);
        }
    }

    /// The next bytes behind the frames. Safe to cancel.
    pub(crate) async fn bytes(&mut self) -> Result<Bytes, TransferError> {
        let rest = self.buffer.rest();
        if !rest.is_empty() {
            return Ok(Bytes::from(rest));
        }
        self.reader.read().await?.ok_or_else(|| LaneError::BrokenOff.into())
    }
}
