//! Change headers: what can be read of an Automerge change chunk without decoding its operations.
//!
//! This is stage 0 of the gate, the only parser that sees bytes nobody has vouched for. It
//! allocates nothing but what the input pays for, expands no run, and inflates through a capped
//! reader. It knows the layout of a change chunk, not what the operations mean.

use std::borrow::Cow;
use std::io::Read;
use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::id::{ActorId, ChangeHash, Seq};

/// The gate's limits. They belong to gate version 1, are the same in the whole organisation, and
/// are never negotiated.
pub mod limit {
    /// A chunk as it is handed over and stored, in bytes.
    pub const CHUNK: usize = 64 * 1024;
    /// A deflated chunk's body once inflated, in bytes.
    pub const INFLATED: usize = 1024 * 1024;
    /// Dependencies that a change names.
    pub const DEPS: usize = 1024;
    /// Operations in a change, and values in any of its columns.
    pub const OPS: u64 = 16_384;
    /// A change's message, in bytes.
    pub const MESSAGE: usize = 200;
    /// A key of a map, in bytes.
    pub const KEY: usize = 256;
    /// How deep objects nest below the root.
    pub const DEPTH: u8 = 8;
    /// The highest operation counter, exclusive.
    pub const MAX_OP: u64 = 1 << 31;
    /// The author's clock, in milliseconds either side of 1970. A document stores times as
    /// differences, which must not overflow.
    pub const TIME: i64 = 1 << 53;
}

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHANGE: u8 = 1;
const DEFLATED: u8 = 2;

/// Why stage 0 refuses a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum HeaderError {
    /// Longer than 64 KiB.
    #[error("the chunk is longer than 64 KiB")]
    TooLong,
    /// Does not begin as a chunk does.
    #[error("not a chunk")]
    NotAChunk,
    /// A document, a bundle, or a type nobody knows.
    #[error("not a change chunk")]
    NotAChange,
    /// Ends before what it announces, or goes on after it.
    #[error("the chunk is cut short or has trailing bytes")]
    Length,
    /// Inflates beyond 1 MiB.
    #[error("inflates beyond 1 MiB")]
    Bomb,
    /// The deflated body is not a deflate stream, or is deflated without need.
    #[error("the deflated body is malformed")]
    Deflate,
    /// The checksum is not the hash's.
    #[error("the checksum does not match")]
    Checksum,
    /// A number is malformed or out of range.
    #[error("a number is malformed")]
    Number,
    /// More than 1,024 dependencies.
    #[error("too many dependencies")]
    TooManyDeps,
    /// Dependencies are not in ascending order without repetition.
    #[error("dependencies are not sorted")]
    DepsUnsorted,
    /// An actor id does not have 20 bytes, or one is named twice.
    #[error("an actor id is malformed")]
    Actor,
    /// The message is longer than 200 bytes or not UTF-8.
    #[error("the message is too long or not text")]
    Message,
    /// A column that changes do not have, a deflated or empty one, or columns out of order.
    #[error("an unknown column")]
    Column,
    /// More than 16,384 operations, or a column that claims more values than that.
    #[error("too many operations")]
    TooManyOps,
    /// The highest operation counter would reach 2^31.
    #[error("the operation counter is too high")]
    CounterTooHigh,
    /// Bytes behind the columns.
    #[error("bytes behind the columns")]
    ExtraBytes,
}

/// What a change says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeHeader {
    /// SHA-256 over the chunk's type, length and body.
    pub hash: ChangeHash,
    /// The changes that it builds upon, ascending.
    pub deps: Vec<ChangeHash>,
    /// Its author.
    pub actor: ActorId,
    /// The author's counter.
    pub seq: Seq,
    /// The counter of its first operation.
    pub start_op: u64,
    /// The author's clock, milliseconds UTC; shown, never relied on.
    pub time: i64,
    /// The person who made it.
    pub message: String,
    /// Actors whose operations it refers to.
    pub other_actors: Vec<ActorId>,
    /// How many operations it has.
    pub ops: u64,
    /// Where the parts lie in the raw chunk, for the codec that strips them.
    pub layout: Layout,
}

/// Where the parts of a raw (inflated) chunk lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The body: all after the chunk's own header.
    pub body: Range<usize>,
    /// From the number of other actors to the end: what the codec keeps verbatim.
    pub tail: Range<usize>,
}

impl ChangeHeader {
    /// The counter of its last operation.
    #[must_use]
    pub fn max_op(&self) -> u64 {
        self.start_op + self.ops - 1
    }

    /// Reads a chunk's header as stage 0 of the gate.
    ///
    /// # Errors
    /// Every limit and malformation has its own [`HeaderError`].
    pub fn parse(chunk: &[u8]) -> Result<Self, HeaderError> {
        Self::parse_with_raw(chunk).map(|(header, _)| header)
    }

    /// As [`ChangeHeader::parse`], and the raw form that the layout refers to: inflating and
    /// hashing a large chunk once is enough.
    ///
    /// # Errors
    /// As [`ChangeHeader::parse`].
    pub fn parse_with_raw(chunk: &[u8]) -> Result<(Self, Cow<'_, [u8]>), HeaderError> {
        if chunk.len() > limit::CHUNK {
            return Err(HeaderError::TooLong);
        }
        let raw = match chunk.get(8) {
            Some(&CHANGE) => Cow::Borrowed(chunk),
            Some(&DEFLATED) => Cow::Owned(inflate(chunk)?),
            Some(_) if chunk.starts_with(&MAGIC) => return Err(HeaderError::NotAChange),
            _ => return Err(HeaderError::NotAChunk),
        };
        Ok((parse_raw(&raw)?, raw))
    }
}

/// The raw form of a chunk: itself, or what a deflated one inflates to.
///
/// # Errors
/// As [`ChangeHeader::parse`], for the deflated form.
pub fn inflated(chunk: &[u8]) -> Result<Cow<'_, [u8]>, HeaderError> {
    match chunk.get(8) {
        Some(&DEFLATED) => inflate(chunk).map(Into::into),
        _ => Ok(chunk.into()),
    }
}

/// Frames a change's body as a raw chunk, as Automerge does.
#[must_use]
pub fn frame(body: &[u8]) -> Vec<u8> {
    let mut typed = vec![CHANGE];
    write_uleb(&mut typed, body.len() as u64);
    let hash: [u8; 32] = Sha256::new().chain_update(&typed).chain_update(body).finalize().into();
    let mut chunk = Vec::with_capacity(8 + typed.len() + body.len());
    chunk.extend_from_slice(&MAGIC);
    chunk.extend_from_slice(&hash[..4]);
    chunk.extend_from_slice(&typed);
    chunk.extend_from_slice(body);
    chunk
}

/// Appends an unsigned LEB128 number.
pub fn write_uleb(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed LEB128 number.
pub fn write_sleb(out: &mut Vec<u8>, mut value: i64) {
    loop {
        let byte = value as u8 & 0x7f;
        value >>= 7;
        let done = (value == 0 && byte & 0x40 == 0) || (value == -1 && byte & 0x40 != 0);
        out.push(if done { byte } else { byte | 0x80 });
        if done {
            return;
        }
    }
}

fn inflate(chunk: &[u8]) -> Result<Vec<u8>, HeaderError> {
    let mut cursor = Cursor::new(chunk);
    cursor.expect_magic()?;
    let checksum = cursor.take(4)?;
    cursor.take(1)?;
    let length = cursor.length()?;
    let deflated = cursor.take(length)?;
    cursor.end()?;
    let mut body = Vec::new();
    let mut reader =
        flate2::bufread::DeflateDecoder::new(deflated).take(limit::INFLATED as u64 + 1);
    reader.read_to_end(&mut body).map_err(|_| HeaderError::Deflate)?;
    if body.len() > limit::INFLATED {
        return Err(HeaderError::Bomb);
    }
    // Bytes behind the stream would be carried, and stored, without a hash that covers them.
    if reader.get_ref().total_in() != deflated.len() as u64 {
        return Err(HeaderError::Deflate);
    }
    let raw = frame(&body);
    if raw[4..8] != *checksum {
        return Err(HeaderError::Checksum);
    }
    // One change has one stored form: deflated only where the raw chunk would be too long.
    if raw.len() <= limit::CHUNK {
        return Err(HeaderError::Deflate);
    }
    Ok(raw)
}

fn parse_raw(chunk: &[u8]) -> Result<ChangeHeader, HeaderError> {
    let mut cursor = Cursor::new(chunk);
    cursor.expect_magic()?;
    let checksum = cursor.take(4)?;
    let typed = cursor.at;
    if cursor.take(1)? != [CHANGE] {
        return Err(HeaderError::NotAChange);
    }
    let length = cursor.length()?;
    let body = cursor.at..chunk.len();
    if body.len() != length {
        return Err(HeaderError::Length);
    }
    let hash = ChangeHash(Sha256::digest(&chunk[typed..]).into());
    if hash.0[..4] != *checksum {
        return Err(HeaderError::Checksum);
    }
    let deps = cursor.deps()?;
    let actor = cursor.actor()?;
    let seq = cursor.uleb()?;
    let start_op = cursor.uleb()?;
    let time = cursor.sleb()?;
    if !(-limit::TIME..=limit::TIME).contains(&time) {
        return Err(HeaderError::Number);
    }
    let message = cursor.message()?;
    let tail = cursor.at..chunk.len();
    let other_actors = cursor.other_actors(&actor)?;
    let ops = cursor.columns()?;
    if start_op == 0 || start_op.saturating_add(ops) >= limit::MAX_OP {
        return Err(HeaderError::CounterTooHigh);
    }
    Ok(ChangeHeader {
        hash,
        deps,
        actor,
        seq,
        start_op,
        time,
        message,
        other_actors,
        ops,
        layout: Layout { body, tail },
    })
}

/// A reader that never runs past its end.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], HeaderError> {
        let end = self.at.checked_add(len).ok_or(HeaderError::Length)?;
        let taken = self.bytes.get(self.at..end).ok_or(HeaderError::Length)?;
        self.at = end;
        Ok(taken)
    }

    fn end(&self) -> Result<(), HeaderError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(HeaderError::Length) }
    }

    fn expect_magic(&mut self) -> Result<(), HeaderError> {
        if self.bytes.starts_with(&MAGIC) {
            self.at = MAGIC.len();
            Ok(())
        } else {
            Err(HeaderError::NotAChunk)
        }
    }

    fn uleb(&mut self) -> Result<u64, HeaderError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1).map_err(|_| HeaderError::Number)?[0];
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(HeaderError::Number);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                let overlong = byte == 0 && shift > 0;
                return if overlong { Err(HeaderError::Number) } else { Ok(value) };
            }
        }
        Err(HeaderError::Number)
    }

    /// A signed number in its shortest form. An overlong one would change the hash and not the
    /// meaning: Automerge refuses it in a header, and rewrites it in a document.
    fn sleb(&mut self) -> Result<i64, HeaderError> {
        let (mut value, mut last) = (0i64, 0u8);
        for shift in (0..64).step_by(7) {
            let byte = self.take(1).map_err(|_| HeaderError::Number)?[0];
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 != 0 {
                last = byte;
                continue;
            }
            let repeats_sign = byte == if last & 0x40 == 0 { 0 } else { 0x7f };
            let too_large = shift == 63 && byte != 0 && byte != 0x7f;
            if too_large || (shift > 0 && repeats_sign) {
                return Err(HeaderError::Number);
            }
            let used = shift + 7;
            return Ok(if used < 64 && byte & 0x40 != 0 { value | (-1 << used) } else { value });
        }
        Err(HeaderError::Number)
    }

    fn length(&mut self) -> Result<usize, HeaderError> {
        usize::try_from(self.uleb()?).map_err(|_| HeaderError::Number)
    }

    fn deps(&mut self) -> Result<Vec<ChangeHash>, HeaderError> {
        let count = self.length()?;
        if count > limit::DEPS {
            return Err(HeaderError::TooManyDeps);
        }
        let bytes = self.take(count * ChangeHash::LEN)?;
        let deps: Vec<_> =
            bytes.chunks_exact(ChangeHash::LEN).filter_map(ChangeHash::from_slice).collect();
        if deps.is_sorted_by(|a, b| a < b) { Ok(deps) } else { Err(HeaderError::DepsUnsorted) }
    }

    fn actor(&mut self) -> Result<ActorId, HeaderError> {
        if self.length()? != ActorId::LEN {
            return Err(HeaderError::Actor);
        }
        ActorId::from_slice(self.take(ActorId::LEN)?).ok_or(HeaderError::Actor)
    }

    fn message(&mut self) -> Result<String, HeaderError> {
        let length = self.length()?;
        if length > limit::MESSAGE {
            return Err(HeaderError::Message);
        }
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| HeaderError::Message)
    }

    fn other_actors(&mut self, own: &ActorId) -> Result<Vec<ActorId>, HeaderError> {
        let count = self.length()?;
        if count > (self.bytes.len() - self.at) / ActorId::LEN {
            return Err(HeaderError::Length);
        }
        let actors = (0..count).map(|_| self.actor()).collect::<Result<Vec<_>, _>>()?;
        let distinct = actors.is_sorted_by(|a, b| a < b) && !actors.contains(own);
        if distinct { Ok(actors) } else { Err(HeaderError::Actor) }
    }

    /// Walks the column table and the columns, and counts the operations.
    fn columns(&mut self) -> Result<u64, HeaderError> {
        let count = self.length()?;
        if count > column::KNOWN.len() {
            return Err(HeaderError::Column);
        }
        let mut table = Vec::with_capacity(count);
        for _ in 0..count {
            let spec = u32::try_from(self.uleb()?).map_err(|_| HeaderError::Column)?;
            if !column::KNOWN.contains(&spec) || table.last().is_some_and(|(last, _)| *last >= spec)
            {
                return Err(HeaderError::Column);
            }
            let length = self.length()?;
            // A column of nulls only is left out.
            if length == 0 {
                return Err(HeaderError::Column);
            }
            table.push((spec, length));
        }
        let mut ops = 0;
        for (spec, length) in table {
            let values = column::values(spec, self.take(length)?)?;
            if values > limit::OPS {
                return Err(HeaderError::TooManyOps);
            }
            if spec == column::ACTION {
                ops = values;
            }
        }
        if self.at != self.bytes.len() {
            return Err(HeaderError::ExtraBytes);
        }
        Ok(ops)
    }
}

/// The columns of a change chunk: `id << 4 | type`, and how many values their runs stand for.
mod column {
    use super::{Cursor, HeaderError};

    /// What each operation does.
    pub(super) const ACTION: u32 = 4 << 4 | INTEGER;
    const INTEGER: u32 = 2;
    const VALUE: u32 = 5 << 4 | 7;
    const PRED_GROUP: u32 = 7 << 4;

    /// Object (actor, counter); key (actor, delta, string); insert; action; value (metadata, raw);
    /// predecessors (count, actor, delta); expand; mark name.
    pub(super) const KNOWN: [u32; 14] =
        [1, 2, 17, 19, 21, 52, ACTION, 86, VALUE, PRED_GROUP, 113, 115, 148, 165];

    /// How many values a column's runs stand for, without expanding one. For the predecessors'
    /// count column it is the sum of the counts: how many predecessors the change names.
    pub(super) fn values(spec: u32, bytes: &[u8]) -> Result<u64, HeaderError> {
        let cursor = Cursor::new(bytes);
        match spec & 7 {
            7 => Ok(0),
            4 => boolean_runs(cursor),
            kind => rle_runs(cursor, kind == 5, spec == PRED_GROUP),
        }
    }

    fn boolean_runs(mut cursor: Cursor<'_>) -> Result<u64, HeaderError> {
        let mut total = 0u64;
        while cursor.at < cursor.bytes.len() {
            total = total.saturating_add(cursor.uleb()?);
        }
        Ok(total)
    }

    /// Run-length encoding: a positive count repeats one value, a negative one precedes that many
    /// literals, zero precedes a count of nulls. Strings carry their length.
    fn rle_runs(mut cursor: Cursor<'_>, text: bool, group: bool) -> Result<u64, HeaderError> {
        let (mut total, mut grouped) = (0u64, 0u64);
        while cursor.at < cursor.bytes.len() {
            let (count, literals) = match cursor.sleb()? {
                0 => (cursor.uleb()?, 0),
                repeat @ 1.. => (repeat.unsigned_abs(), 1),
                run => (run.unsigned_abs(), run.unsigned_abs()),
            };
            total = total.saturating_add(count);
            if total > super::limit::OPS {
                return Err(HeaderError::TooManyOps);
            }
            for _ in 0..literals {
                let value = if text {
                    let length = cursor.length()?;
                    cursor.take(length)?;
                    0
                } else {
                    // Signed and unsigned numbers end at the same byte.
                    cursor.number()?
                };
                let repeats = if literals == 1 { count } else { 1 };
                grouped = grouped.saturating_add(value.saturating_mul(repeats));
            }
        }
        Ok(if group { total.max(grouped) } else { total })
    }

    impl Cursor<'_> {
        /// A LEB128 number's bits, whether it was meant signed or not.
        fn number(&mut self) -> Result<u64, HeaderError> {
            let mut value = 0u64;
            for shift in (0..70).step_by(7) {
                let byte = self.take(1).map_err(|_| HeaderError::Number)?[0];
                value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
                if byte & 0x80 == 0 {
                    return Ok(value);
                }
            }
            Err(HeaderError::Number)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of one operation, whose time and column table are given.
    fn chunk(time: &[u8], columns: &[u8]) -> Vec<u8> {
        let mut body = vec![0, 20];
        body.extend_from_slice(&[7; 20]);
        body.extend_from_slice(&[1, 1]);
        body.extend_from_slice(time);
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(columns);
        frame(&body)
    }

    const ONE_PUT: [u8; 5] = [1, 66, 2, 0x7f, 1];

    fn time(bytes: &[u8]) -> Result<i64, HeaderError> {
        ChangeHeader::parse(&chunk(bytes, &ONE_PUT)).map(|header| header.time)
    }

    #[test]
    fn a_time_has_one_encoding() {
        for value in [0, 1, -1, 63, 64, -64, -65, 1 << 53, -(1 << 53)] {
            let mut bytes = Vec::new();
            write_sleb(&mut bytes, value);
            assert_eq!(time(&bytes), Ok(value));
            let last = bytes.pop().expect("not empty");
            bytes.extend([last | 0x80, if value < 0 { 0x7f } else { 0 }]);
            assert_eq!(time(&bytes), Err(HeaderError::Number), "{value}");
        }
    }

    #[test]
    fn a_time_beyond_2_to_53_is_refused() {
        for value in [(1 << 53) + 1, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            write_sleb(&mut bytes, value);
            assert_eq!(time(&bytes), Err(HeaderError::Number));
        }
        let too_long = [&[0x80; 9][..], &[0x02]].concat();
        assert_eq!(time(&too_long), Err(HeaderError::Number));
    }

    #[test]
    fn an_empty_column_is_refused() {
        let empty = [2, 66, 2, 112, 0, 0x7f, 1];
        assert_eq!(ChangeHeader::parse(&chunk(&[0], &empty)), Err(HeaderError::Column));
    }

    #[test]
    fn a_run_is_counted_and_not_expanded() {
        let bomb = [1, 66, 6, 0xff, 0xff, 0xff, 0xff, 0x07, 1];
        assert_eq!(ChangeHeader::parse(&chunk(&[0], &bomb)), Err(HeaderError::TooManyOps));
        let run = [1, 66, 4, 0x80, 0x80, 0x01, 1];
        assert_eq!(ChangeHeader::parse(&chunk(&[0], &run)).map(|header| header.ops), Ok(16_384));
    }

    #[test]
    fn a_deflated_chunk_is_no_more_than_its_stream() {
        use std::io::Write;
        let long = [&[2, 66, 2, 87, 0xf0, 0xa2, 0x04, 0x7f, 1][..], &[0; 70_000]].concat();
        let raw = chunk(&[0], &long);
        let body = &raw[12..];
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body).expect("writing to memory cannot fail");
        let stream = encoder.finish().expect("writing to memory cannot fail");
        let deflated = |stream: &[u8]| {
            let mut chunk = [&raw[..8], &[DEFLATED]].concat();
            write_uleb(&mut chunk, stream.len() as u64);
            chunk.extend_from_slice(stream);
            ChangeHeader::parse(&chunk).map(|header| header.ops)
        };
        assert_eq!(deflated(&stream), Ok(1));
        let ballast = [&stream[..], b"ballast"].concat();
        assert_eq!(deflated(&ballast), Err(HeaderError::Deflate));
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_is_a_change() {
        let whole = chunk(&[0], &ONE_PUT);
        assert!(ChangeHeader::parse(&whole).is_ok());
        for at in 0..whole.len() {
            assert!(ChangeHeader::parse(&whole[..at]).is_err());
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(ChangeHeader::parse(&damaged).is_err());
        }
    }
}
