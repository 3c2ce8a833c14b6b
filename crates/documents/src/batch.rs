//! The batch codec: many changes as few bytes.
//!
//! Single changes do not compress. A batch leaves out what it implies itself (dependencies within it
//! become references back, actors and persons an index, counters and times differences) and lays
//! like beside like, column by column, before the whole is compressed. Every change comes back byte
//! for byte, its hash computed anew, so the codec can damage nothing unseen: a batch that is not
//! what was sent gives other hashes, and what it cannot leave out and bring back it carries whole.
//!
//! Bytes: version, packing (0 plain, 1 a zstd frame), payload; the payload is the streams of
//! `stream_of` and fills the rest. No trust is needed to decode: memory is bounded by the caller's
//! limit, counts by the bytes present, and nothing panics. What comes out still has to pass the gate.

mod stream;
mod tail;

use std::collections::HashMap;

use fieldkeep_model::header::{frame, limit, write_sleb, write_uleb};
use fieldkeep_model::{ActorId, ChangeHash, ChangeHeader, Seq};
use sha2::{Digest, Sha256};

use crate::packing::{self, InflateError};
use stream::{Cursor, Reader, Writer};

const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// Where the chunk's type begins: the hash covers all from there.
const HASHED: usize = 8;

/// Why bytes are not a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BatchError {
    /// Made by another version of the codec.
    #[error("the batch has version {0}, not 1")]
    Version(u8),
    /// Cut short, followed by something, or not what the codec makes.
    #[error("the batch is malformed")]
    Malformed,
    /// The changes in it, or what it inflates to, pass the caller's limit.
    #[error("the batch is too large")]
    TooLarge,
}

/// What each stream holds. Numbers are LEB128 unless said otherwise.
mod stream_of {
    /// A byte for each chunk: see [`super::flag`].
    pub(super) const FLAGS: usize = 0;
    /// Chunks that are carried whole: their lengths.
    pub(super) const WHOLE_LENGTHS: usize = 1;
    /// Chunks that are carried whole: their bytes.
    pub(super) const WHOLE: usize = 2;
    /// Actors by order of appearance, 20 bytes each.
    pub(super) const ACTORS: usize = 3;
    /// The author, where it is not the one before's: its index.
    pub(super) const ACTOR: usize = 4;
    /// The author's counter, where it is not one more than its last.
    pub(super) const SEQ: usize = 5;
    /// The first operation's counter: the signed difference from what the dependencies say.
    pub(super) const START: usize = 6;
    /// The time: the signed difference from the change before.
    pub(super) const TIME: usize = 7;
    /// Messages by order of appearance: length and text.
    pub(super) const MESSAGES: usize = 8;
    /// The message, where it is not the one before's: its index.
    pub(super) const MESSAGE: usize = 9;
    /// Further dependencies: how many, then for each twice the distance back, or twice its index
    /// among the outer ones plus one.
    pub(super) const DEPS: usize = 10;
    /// Dependencies outside the batch by order of appearance, 32 bytes each.
    pub(super) const OUTER: usize = 11;
    /// The other actors that a change refers to: how many, then their indices.
    pub(super) const OTHERS: usize = 12;
    /// Which columns a change has: a bit for each.
    pub(super) const SHAPE: usize = 13;
    /// The columns' lengths, a stream for each column.
    pub(super) const LENGTHS: usize = 14;
    /// The columns' bytes, a stream for each column.
    pub(super) const COLUMNS: usize = 28;
}

/// What a chunk's flags say.
mod flag {
    /// Taken apart; else it is carried whole, and has no other flag.
    pub(super) const STRIPPED: u8 = 1;
    /// The author's previous change is in the batch, and a dependency.
    pub(super) const OWN: u8 = 2;
    /// The chunk just before is a dependency (and not the author's own previous).
    pub(super) const PREVIOUS: u8 = 4;
    /// There are further dependencies.
    pub(super) const DEPS: u8 = 8;
    /// The counter is given.
    pub(super) const SEQ: u8 = 16;
    /// The first operation's counter is given.
    pub(super) const START: u8 = 32;
    /// The author is given.
    pub(super) const ACTOR: u8 = 64;
    /// The message is given.
    pub(super) const MESSAGE: u8 = 128;
}

/// The batch of these chunks, in this order, compressed at a zstd level (3 for the wire, 19 for
/// packs). A chunk may be anything; only well-formed raw changes get small.
#[must_use]
pub fn encode(chunks: &[&[u8]], level: i32) -> Vec<u8> {
    let mut encoder = Encoder::default();
    for chunk in chunks {
        encoder.chunk(chunk);
    }
    let payload = encoder.finish();
    let packed = packing::deflate(&payload, level).unwrap_or_default();
    let smaller = !packed.is_empty() && packed.len() < payload.len();
    let (packing, rest) = if smaller { (ZSTD, packed) } else { (PLAIN, payload) };
    let mut out = Vec::with_capacity(2 + rest.len());
    out.extend_from_slice(&[VERSION, packing]);
    out.extend_from_slice(&rest);
    out
}

/// The chunks of a batch, which must not come to more than `max_raw` bytes in all.
///
/// # Errors
/// When the bytes are no batch of this version, or come to more than the limit.
pub fn decode(bytes: &[u8], max_raw: usize) -> Result<Vec<Vec<u8>>, BatchError> {
    let mut cursor = Cursor(bytes);
    let version = cursor.byte()?;
    if version != VERSION {
        return Err(BatchError::Version(version));
    }
    match cursor.byte()? {
        PLAIN => Decoder::new(cursor.0, max_raw)?.chunks(),
        ZSTD => Decoder::new(&inflate(cursor.0, max_raw)?, max_raw)?.chunks(),
        _ => Err(BatchError::Malformed),
    }
}

/// A payload is hardly ever longer than the chunks; for tiny ones it may be.
fn inflate(packed: &[u8], max_raw: usize) -> Result<Vec<u8>, BatchError> {
    const SLACK: usize = 64 * 1024;
    let most = max_raw.saturating_mul(2).saturating_add(SLACK);
    packing::inflate(packed, most).map_err(|error| match error {
        InflateError::Malformed => BatchError::Malformed,
        InflateError::TooLarge => BatchError::TooLarge,
    })
}

/// Values that are named by the order in which they appeared.
struct Table<T>(HashMap<T, u64>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: std::hash::Hash + Eq> Table<T> {
    fn index(&mut self, value: T) -> u64 {
        let next = self.0.len() as u64;
        *self.0.entry(value).or_insert(next)
    }

    /// The values in their order.
    fn into_values(self) -> Vec<T> {
        let mut values: Vec<_> = self.0.into_iter().collect();
        values.sort_unstable_by_key(|(_, index)| *index);
        values.into_iter().map(|(value, _)| value).collect()
    }
}

type Actors = Table<ActorId>;

/// What both sides know of the chunks so far, and predict the next one from.
#[derive(Default)]
struct Known {
    actor: Option<ActorId>,
    message: String,
    time: i64,
    /// The next operation's counter, should a change know nothing of the batch.
    next_op: u64,
    /// The last counter of each actor, and where that change is.
    last: HashMap<ActorId, (Seq, usize)>,
}

impl Known {
    fn note(&mut self, nth: usize, header: &Header<'_>, ops: u64) {
        self.actor = Some(header.actor);
        if self.message != header.message {
            header.message.clone_into(&mut self.message);
        }
        self.time = header.time;
        self.next_op = header.start_op.saturating_add(ops);
        self.last.insert(header.actor, (header.seq, nth));
    }

    fn seq(&self, actor: &ActorId) -> Seq {
        self.last.get(actor).map_or(1, |(seq, _)| seq.saturating_add(1))
    }
}

/// A change's header as it is written.
struct Header<'a> {
    deps: &'a [ChangeHash],
    actor: ActorId,
    seq: Seq,
    start_op: u64,
    time: i64,
    message: &'a str,
}

impl Header<'_> {
    fn write(&self, body: &mut Vec<u8>) {
        write_uleb(body, self.deps.len() as u64);
        for dep in self.deps {
            body.extend_from_slice(&dep.0);
        }
        write_uleb(body, ActorId::LEN as u64);
        body.extend_from_slice(&self.actor.0);
        write_uleb(body, self.seq);
        write_uleb(body, self.start_op);
        write_sleb(body, self.time);
        write_uleb(body, self.message.len() as u64);
        body.extend_from_slice(self.message.as_bytes());
    }
}

/// One past the last operation of each chunk; 0 for chunks that are carried whole.
type Ends = Vec<u64>;

#[derive(Default)]
struct Encoder {
    out: Writer,
    known: Known,
    ends: Ends,
    places: HashMap<ChangeHash, usize>,
    actors: Actors,
    messages: Table<String>,
    outer: Table<ChangeHash>,
    scratch: Vec<u8>,
}

impl Encoder {
    fn chunk(&mut self, chunk: &[u8]) {
        match self.strippable(chunk) {
            Some(header) => self.stripped(chunk, &header),
            None => {
                self.out.bytes(stream_of::FLAGS, &[0]);
                self.out.uleb(stream_of::WHOLE_LENGTHS, chunk.len() as u64);
                self.out.bytes(stream_of::WHOLE, chunk);
                self.ends.push(0);
            }
        }
    }

    /// The header of a raw change whose header is written as we would write it.
    fn strippable(&mut self, chunk: &[u8]) -> Option<ChangeHeader> {
        let header = ChangeHeader::parse(chunk).ok()?;
        let written = chunk.get(header.layout.body.start..header.layout.tail.start)?;
        self.scratch.clear();
        as_written(&header).write(&mut self.scratch);
        (header.layout.tail.end == chunk.len() && self.scratch == written).then_some(header)
    }

    fn stripped(&mut self, chunk: &[u8], header: &ChangeHeader) {
        let nth = self.ends.len();
        let mut flags = flag::STRIPPED;
        if self.known.actor != Some(header.actor) {
            flags |= flag::ACTOR;
            let index = self.actors.index(header.actor);
            self.out.uleb(stream_of::ACTOR, index);
        }
        if self.known.message != header.message {
            flags |= flag::MESSAGE;
            self.out.uleb(stream_of::MESSAGE, self.messages.index(header.message.clone()));
        }
        if self.known.seq(&header.actor) != header.seq {
            flags |= flag::SEQ;
            self.out.uleb(stream_of::SEQ, header.seq);
        }
        self.out.sleb(stream_of::TIME, header.time.wrapping_sub(self.known.time));
        let (more, predicted) = self.deps(nth, header);
        flags |= more;
        if predicted != header.start_op {
            flags |= flag::START;
            self.out.sleb(stream_of::START, header.start_op.wrapping_sub(predicted) as i64);
        }
        let tail = &chunk[header.layout.tail.clone()];
        let ops = tail::strip(tail, &mut self.actors, &mut self.out);
        let ops = ops.expect("the header was parsed from it");
        self.out.bytes(stream_of::FLAGS, &[flags]);
        self.places.insert(header.hash, nth);
        self.ends.push(header.start_op.saturating_add(ops));
        self.known.note(nth, &as_written(header), ops);
    }

    /// Writes what the flags cannot say of the dependencies, and predicts the first operation.
    fn deps(&mut self, nth: usize, header: &ChangeHeader) -> (u8, u64) {
        let own = self.known.last.get(&header.actor).map(|(_, place)| *place);
        let (mut flags, mut rest, mut end) = (0, Vec::new(), 0);
        for dep in &header.deps {
            let place = self.places.get(dep).copied();
            end = end.max(place.map_or(0, |place| self.ends[place]));
            match place {
                Some(place) if own == Some(place) => flags |= flag::OWN,
                Some(place) if place + 1 == nth => flags |= flag::PREVIOUS,
                Some(place) => rest.push(2 * (nth - place) as u64),
                None => rest.push(2 * self.outer.index(*dep) + 1),
            }
        }
        if !rest.is_empty() {
            flags |= flag::DEPS;
            self.out.uleb(stream_of::DEPS, rest.len() as u64);
            for dep in rest {
                self.out.uleb(stream_of::DEPS, dep);
            }
        }
        (flags, if end == 0 { self.known.next_op } else { end })
    }

    fn finish(self) -> Vec<u8> {
        let mut out = self.out;
        for actor in self.actors.into_values() {
            out.bytes(stream_of::ACTORS, &actor.0);
        }
        for message in self.messages.into_values() {
            out.uleb(stream_of::MESSAGES, message.len() as u64);
            out.bytes(stream_of::MESSAGES, message.as_bytes());
        }
        for outer in self.outer.into_values() {
            out.bytes(stream_of::OUTER, &outer.0);
        }
        out.finish()
    }
}

fn as_written(header: &ChangeHeader) -> Header<'_> {
    Header {
        deps: &header.deps,
        actor: header.actor,
        seq: header.seq,
        start_op: header.start_op,
        time: header.time,
        message: &header.message,
    }
}

struct Decoder<'a> {
    from: Reader<'a>,
    left: usize,
    known: Known,
    ends: Ends,
    hashes: Vec<ChangeHash>,
    actors: Vec<ActorId>,
    messages: Vec<&'a str>,
    outer: Vec<ChangeHash>,
    body: Vec<u8>,
}

impl<'a> Decoder<'a> {
    fn new(payload: &'a [u8], max_raw: usize) -> Result<Self, BatchError> {
        let mut from = Reader::new(payload)?;
        let actors = fixed(from.of(stream_of::ACTORS), ActorId::from_slice)?;
        let outer = fixed(from.of(stream_of::OUTER), ChangeHash::from_slice)?;
        let mut messages = Vec::new();
        let texts = from.of(stream_of::MESSAGES);
        while !texts.0.is_empty() {
            let length = texts.length()?;
            let text = texts.take(length)?;
            messages.push(std::str::from_utf8(text).map_err(|_| BatchError::Malformed)?);
        }
        Ok(Self {
            from,
            left: max_raw,
            known: Known::default(),
            ends: Vec::new(),
            hashes: Vec::new(),
            actors,
            messages,
            outer,
            body: Vec::new(),
        })
    }

    fn chunks(mut self) -> Result<Vec<Vec<u8>>, BatchError> {
        let count = self.from.of(stream_of::FLAGS).0.len();
        let mut chunks = Vec::with_capacity(count);
        for nth in 0..count {
            let chunk = match self.from.of(stream_of::FLAGS).byte()? {
                0 => self.whole()?,
                flags if flags & flag::STRIPPED != 0 => self.stripped(nth, flags)?,
                _ => return Err(BatchError::Malformed),
            };
            self.left = self.left.checked_sub(chunk.len()).ok_or(BatchError::TooLarge)?;
            chunks.push(chunk);
        }
        if self.from.is_finished() { Ok(chunks) } else { Err(BatchError::Malformed) }
    }

    fn whole(&mut self) -> Result<Vec<u8>, BatchError> {
        let length = self.from.of(stream_of::WHOLE_LENGTHS).length()?;
        self.ends.push(0);
        self.hashes.push(ChangeHash([0; 32]));
        Ok(self.from.of(stream_of::WHOLE).take(length)?.to_vec())
    }

    fn stripped(&mut self, nth: usize, flags: u8) -> Result<Vec<u8>, BatchError> {
        let has = |flag: u8| flags & flag != 0;
        let actor = if has(flag::ACTOR) {
            let index = self.from.of(stream_of::ACTOR).length()?;
            *self.actors.get(index).ok_or(BatchError::Malformed)?
        } else {
            self.known.actor.ok_or(BatchError::Malformed)?
        };
        let message = if has(flag::MESSAGE) {
            let index = self.from.of(stream_of::MESSAGE).length()?;
            (*self.messages.get(index).ok_or(BatchError::Malformed)?).to_owned()
        } else {
            self.known.message.clone()
        };
        let seq = match has(flag::SEQ) {
            true => self.from.of(stream_of::SEQ).uleb()?,
            false => self.known.seq(&actor),
        };
        let time = self.known.time.wrapping_add(self.from.of(stream_of::TIME).sleb()?);
        let (deps, predicted) = self.deps(nth, flags, &actor)?;
        let start_op = match has(flag::START) {
            true => predicted.wrapping_add(self.from.of(stream_of::START).sleb()? as u64),
            false => predicted,
        };
        let header = Header { deps: &deps, actor, seq, start_op, time, message: &message };
        self.body.clear();
        header.write(&mut self.body);
        let ops = tail::join(&mut self.body, &self.actors, &mut self.from)?;
        if self.body.len() > self.left {
            return Err(BatchError::TooLarge);
        }
        self.known.note(nth, &header, ops);
        self.ends.push(start_op.saturating_add(ops));
        let chunk = frame(&self.body);
        self.hashes.push(ChangeHash(Sha256::digest(&chunk[HASHED..]).into()));
        Ok(chunk)
    }

    /// The dependencies, ascending as changes have them, and the first operation they predict.
    fn deps(
        &mut self,
        nth: usize,
        flags: u8,
        actor: &ActorId,
    ) -> Result<(Vec<ChangeHash>, u64), BatchError> {
        let mut places = Vec::with_capacity(2);
        if flags & flag::OWN != 0 {
            places.push(self.known.last.get(actor).ok_or(BatchError::Malformed)?.1);
        }
        if flags & flag::PREVIOUS != 0 {
            places.push(nth.checked_sub(1).ok_or(BatchError::Malformed)?);
        }
        let mut deps = Vec::with_capacity(2);
        let more =
            if flags & flag::DEPS != 0 { self.from.of(stream_of::DEPS).length()? } else { 0 };
        if more > limit::DEPS {
            return Err(BatchError::Malformed);
        }
        for _ in 0..more {
            let dep = self.from.of(stream_of::DEPS).length()?;
            if dep % 2 == 1 {
                deps.push(*self.outer.get(dep / 2).ok_or(BatchError::Malformed)?);
            } else {
                places.push(nth.checked_sub(dep / 2).ok_or(BatchError::Malformed)?);
            }
        }
        let mut end = 0;
        for place in places {
            deps.push(*self.hashes.get(place).ok_or(BatchError::Malformed)?);
            end = end.max(self.ends[place]);
        }
        deps.sort_unstable();
        Ok((deps, if end == 0 { self.known.next_op } else { end }))
    }
}

fn fixed<T>(
    stream: &mut Cursor<'_>,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, BatchError> {
    let size = size_of::<T>();
    let bytes = stream.take(stream.0.len())?;
    if bytes.len() % size != 0 {
        return Err(BatchError::Malformed);
    }
    Ok(bytes.chunks_exact(size).filter_map(read).collect())
}
