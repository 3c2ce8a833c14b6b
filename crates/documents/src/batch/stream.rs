//! The streams that a batch is taken apart into, and how they lie one after the other.
//!
//! Like stands beside like: that is what makes a batch compress. Reading is bounded by the bytes
//! present and never panics.

use fieldkeep_model::header::{write_sleb, write_uleb};

use super::BatchError;

/// How many streams there are.
pub(super) const COUNT: usize = 44;

/// Streams being written.
pub(super) struct Writer([Vec<u8>; COUNT]);

impl Default for Writer {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Vec::new()))
    }
}

impl Writer {
    pub(super) fn bytes(&mut self, stream: usize, bytes: &[u8]) {
        self.0[stream].extend_from_slice(bytes);
    }

    pub(super) fn uleb(&mut self, stream: usize, value: u64) {
        write_uleb(&mut self.0[stream], value);
    }

    pub(super) fn sleb(&mut self, stream: usize, value: i64) {
        write_sleb(&mut self.0[stream], value);
    }

    /// Which streams are there, their lengths, then their bytes.
    pub(super) fn finish(self) -> Vec<u8> {
        let present = |(nth, stream): (usize, &Vec<u8>)| u64::from(!stream.is_empty()) << nth;
        let mask = self.0.iter().enumerate().map(present).fold(0, |mask, bit| mask | bit);
        let total: usize = self.0.iter().map(Vec::len).sum();
        let mut out = Vec::with_capacity(total + 3 * COUNT);
        write_uleb(&mut out, mask);
        for stream in self.0.iter().filter(|stream| !stream.is_empty()) {
            write_uleb(&mut out, stream.len() as u64);
        }
        for stream in &self.0 {
            out.extend_from_slice(stream);
        }
        out
    }
}

/// Streams being read.
pub(super) struct Reader<'a>([Cursor<'a>; COUNT]);

impl<'a> Reader<'a> {
    /// Finds the streams in a payload, which they must fill.
    pub(super) fn new(payload: &'a [u8]) -> Result<Self, BatchError> {
        let mut cursor = Cursor(payload);
        let mask = cursor.uleb()?;
        if mask >> COUNT != 0 {
            return Err(BatchError::Malformed);
        }
        let mut lengths = [0; COUNT];
        for (nth, length) in lengths.iter_mut().enumerate() {
            if mask >> nth & 1 == 1 {
                *length = cursor.length()?;
            }
        }
        let mut streams = [const { Cursor(&[]) }; COUNT];
        for (stream, length) in streams.iter_mut().zip(lengths) {
            *stream = Cursor(cursor.take(length)?);
        }
        if cursor.0.is_empty() { Ok(Self(streams)) } else { Err(BatchError::Malformed) }
    }

    pub(super) fn of(&mut self, stream: usize) -> &mut Cursor<'a> {
        &mut self.0[stream]
    }

    /// Whether every stream was read to its end.
    pub(super) fn is_finished(&self) -> bool {
        self.0.iter().all(|stream| stream.0.is_empty())
    }
}

/// Bytes not yet read.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], BatchError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(BatchError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, BatchError> {
        let (byte, rest) = self.0.split_first().ok_or(BatchError::Malformed)?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(super) fn length(&mut self) -> Result<usize, BatchError> {
        usize::try_from(self.uleb()?).map_err(|_| BatchError::Malformed)
    }

    pub(super) fn uleb(&mut self) -> Result<u64, BatchError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(BatchError::Malformed)
    }

    pub(super) fn sleb(&mut self) -> Result<i64, BatchError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let negative = shift + 7 < 64 && byte & 0x40 != 0;
                return Ok(if negative { value | -1 << (shift + 7) } else { value });
            }
        }
        Err(BatchError::Malformed)
    }
}
