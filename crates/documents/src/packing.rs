//! zstd frames in memory. Each thread keeps its contexts: a fresh one is megabytes that the system
//! has to clear, a seventh of the page faults of a device that sends many batches.

use std::cell::RefCell;
use std::io::Read as _;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

/// The level of what is on its way, or saved often.
pub(crate) const LEVEL: i32 = 3;

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Why a frame does not inflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InflateError {
    /// It is no frame, or not just one.
    Malformed,
    /// It comes to more than the limit.
    TooLarge,
}

/// One frame of these bytes; nothing where memory is short.
pub(crate) fn deflate(bytes: &[u8], level: i32) -> Option<Vec<u8>> {
    if level != LEVEL {
        // Higher levels take contexts of a hundred megabytes: those are not kept.
        return zstd::bulk::compress(bytes, level).ok();
    }
    COMPRESSOR.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = Compressor::new(LEVEL).ok();
        }
        kept.as_mut()?.compress(bytes).ok()
    })
}

/// The bytes of exactly one frame, which must not come to more than `most`.
pub(crate) fn inflate(frame: &[u8], most: usize) -> Result<Vec<u8>, InflateError> {
    if zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err(InflateError::Malformed);
    }
    match zstd_safe::get_frame_content_size(frame) {
        Ok(Some(size)) if size > most as u64 => Err(InflateError::TooLarge),
        Ok(Some(size)) => DECOMPRESSOR.with_borrow_mut(|kept| {
            if kept.is_none() {
                *kept = Decompressor::new().ok();
            }
            let inflated =
                kept.as_mut().and_then(|kept| kept.decompress(frame, size as usize).ok());
            inflated.ok_or(InflateError::Malformed)
        }),
        Ok(None) => inflate_unsized(frame, most),
        Err(_) => Err(InflateError::Malformed),
    }
}

/// A frame that does not say how much it holds, as others may write it.
fn inflate_unsized(frame: &[u8], most: usize) -> Result<Vec<u8>, InflateError> {
    let reader = zstd::Decoder::with_buffer(frame).map_err(|_| InflateError::Malformed)?;
    let mut bytes = Vec::new();
    let read = reader.single_frame().take(most as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|_| InflateError::Malformed)?;
    if bytes.len() > most { Err(InflateError::TooLarge) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsized_frame(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL).expect("memory");
        std::io::Write::write_all(&mut encoder, bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn a_frame_is_read_back_whether_or_not_it_says_its_size() {
        let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        for frame in [deflate(&bytes, LEVEL), deflate(&bytes, 9), Some(unsized_frame(&bytes))] {
            let frame = frame.expect("memory");
            assert_eq!(inflate(&frame, bytes.len()).as_deref(), Ok(bytes.as_slice()));
            let short = inflate(&frame, bytes.len() - 1);
            assert_eq!(short, Err(InflateError::TooLarge));
        }
    }

    #[test]
    fn what_is_not_exactly_one_frame_is_refused_and_harms_no_later_one() {
        let frame = deflate(b"signal", LEVEL).expect("memory");
        let twice = [frame.clone(), frame.clone()].concat();
        let mut flipped = frame.clone();
        *flipped.last_mut().expect("it has bytes") ^= 0xff;
        let trailing = [frame.as_slice(), &[0]].concat();
        for bad in [&twice[..], &trailing, &frame[..frame.len() - 1], b"", b"signal"] {
            assert_eq!(inflate(bad, 1 << 20), Err(InflateError::Malformed), "{bad:?}");
            assert_eq!(inflate(&frame, 1 << 20).as_deref(), Ok(&b"signal"[..]));
        }
        let _ = inflate(&flipped, 1 << 20);
        assert_eq!(inflate(&frame, 1 << 20).as_deref(), Ok(&b"signal"[..]));
    }
}
