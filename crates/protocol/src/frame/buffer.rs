//! From bytes as they come to frames.

use super::Code;

/// Frames of one kind of stream.
pub trait Framed: Sized {
    /// A frame of that number with that body; nothing for one that everybody passes over.
    ///
    /// # Errors
    /// See [`DecodeError`].
    fn decode(number: u64, body: &[u8]) -> Result<Option<Self>, DecodeError>;
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A type or length that is no number.
    #[error("a frame's type or length is malformed")]
    Number,
    /// Longer than allowed.
    #[error("a frame of {0} bytes is longer than allowed")]
    TooLong(u64),
    /// A type that must be understood.
    #[error("frame type {0} is unknown")]
    Unknown(u64),
    /// A body that is not what the type says.
    #[error("a frame of type {0} does not decode")]
    Malformed(u64),
}

impl DecodeError {
    /// The code under which the session is closed.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::Number | Self::Malformed(_) => Code::Malformed,
            Self::TooLong(_) => Code::TooLong,
            Self::Unknown(_) => Code::UnknownFrame,
        }
    }
}

/// The frames of one stream, put together from bytes as they come. Holds at most one frame and
/// what arrived with it.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl FrameBuffer {
    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// When what arrived cannot be the beginning of a frame; the stream is of no use after that.
    pub fn next<F: Framed>(&mut self, max: u32) -> Result<Option<F>, DecodeError> {
        loop {
            let rest = &self.bytes[self.start..];
            let Some((number, at)) = read_uleb(rest, 0)? else { return Ok(None) };
            let Some((length, at)) = read_uleb(rest, at)? else { return Ok(None) };
            if length > u64::from(max) {
                return Err(DecodeError::TooLong(length));
            }
            let end = at + length as usize;
            let Some(body) = rest.get(at..end) else { return Ok(None) };
            let frame = F::decode(number, body)?;
            self.start += end;
            if self.start == self.bytes.len() {
                (self.bytes, self.start) = (Vec::new(), 0);
            }
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }

    /// What came after the frames that were taken: bytes that are none.
    #[must_use]
    pub fn rest(&mut self) -> Vec<u8> {
        let rest = self.bytes.split_off(self.start);
        (self.bytes, self.start) = (Vec::new(), 0);
        rest
    }

    /// Whether a frame has begun and not ended.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.start < self.bytes.len()
    }
}

fn read_uleb(bytes: &[u8], mut at: usize) -> Result<Option<(u64, usize)>, DecodeError> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let Some(byte) = bytes.get(at) else { return Ok(None) };
        value |= u64::from(byte & 0x7f) << shift;
        at += 1;
        if byte & 0x80 == 0 {
            return Ok(Some((value, at)));
        }
    }
    Err(DecodeError::Number)
}
