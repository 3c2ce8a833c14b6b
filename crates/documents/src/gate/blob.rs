//! The history as a blob: what a store keeps, so that a segment opens without replaying its log.
//!
//! Derived, and checked like everything that a disk returns: a blake3 trailer, and no index is
//! trusted. A blob that does not decode is thrown away and the log replayed.

use fieldkeep_model::header::write_uleb;
use fieldkeep_model::{ActorId, ChangeHash};

use super::History;
use super::causality::{Causality, Note};
use super::index::{Entry, Index, Kind, NONE, ROOT};

const MAGIC: &[u8; 8] = b"fkhist\0\x01";
const TRAILER: usize = 32;

/// Why a blob is not a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version: replay the log.
    #[error("the history has another version")]
    Version,
    /// The checksum does not match, or the parts do not fit: replay the log.
    #[error("the history is damaged")]
    Damaged,
}

impl History {
    /// The history as a blob. Numbers are LEB128: actors, changes (hash, actor, operations, deps as
    /// distances back), keys, operations; then blake3 over all of it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        self.encode_changes(&mut out);
        self.encode_index(&mut out);
        let digest = blake3::hash(&out);
        out.extend_from_slice(digest.as_bytes());
        out
    }

    fn encode_changes(&self, out: &mut Vec<u8>) {
        write_uleb(out, self.causality.authors.len() as u64);
        for author in &self.causality.authors {
            out.extend_from_slice(author.id.as_bytes());
        }
        write_uleb(out, self.causality.notes.len() as u64);
        for (at, note) in (0..).zip(&self.causality.notes) {
            out.extend_from_slice(note.hash.as_bytes());
            for number in [note.actor, note.start_op, note.ops, note.deps.len() as u32] {
                write_uleb(out, number.into());
            }
            for dep in &note.deps {
                write_uleb(out, u64::from(at - dep));
            }
        }
    }

    fn encode_index(&self, out: &mut Vec<u8>) {
        write_uleb(out, self.index.keys.len().into());
        for key in self.index.keys.iter() {
            write_uleb(out, key.len() as u64);
            out.extend_from_slice(key.as_bytes());
        }
        write_uleb(out, self.index.entries.len() as u64);
        let mut object = ROOT;
        for (at, entry) in (0..).zip(&self.index.entries) {
            let same = entry.object == object;
            let own =
                entry.slot == at && self.index.objects[entry.object as usize].kind != Kind::Map;
            out.push(entry.kind as u8 | u8::from(same) << 3 | u8::from(own) << 4);
            if !same {
                object = entry.object;
                write_uleb(out, object.into());
            }
            if !own {
                write_uleb(out, entry.slot.into());
            }
        }
    }

    /// Reads a history back.
    ///
    /// # Errors
    /// [`DecodeError`], never a panic, whatever the bytes are.
    pub fn decode(blob: &[u8]) -> Result<Self, DecodeError> {
        let (body, trailer) = blob
            .len()
            .checked_sub(TRAILER)
            .and_then(|at| blob.split_at_checked(at))
            .ok_or(DecodeError::Damaged)?;
        if blake3::hash(body).as_bytes() != trailer {
            return Err(DecodeError::Damaged);
        }
        let rest = body.strip_prefix(MAGIC).ok_or(DecodeError::Version)?;
        decode(&mut Reader { rest }).ok_or(DecodeError::Damaged)
    }
}

fn decode(reader: &mut Reader<'_>) -> Option<History> {
    let causality = changes(reader)?;
    let index = index(reader)?;
    let counted = causality.notes.last().map_or(0, |note| note.first_op + note.ops);
    let whole = reader.rest.is_empty() && counted as usize == index.entries.len();
    whole.then_some(History { causality, index })
}

fn changes(reader: &mut Reader<'_>) -> Option<Causality> {
    let mut causality = Causality::default();
    let actors = reader.number()?;
    for _ in 0..actors {
        causality.enrol(&ActorId::from_slice(reader.take(ActorId::LEN)?)?);
    }
    let mut first_op = 0u32;
    for at in 0..reader.number()? {
        let hash = ChangeHash::from_slice(reader.take(ChangeHash::LEN)?)?;
        let (actor, start_op, ops) = (reader.number()?, reader.number()?, reader.number()?);
        let deps = (0..reader.number()?)
            .map(|_| reader.number().and_then(|back| at.checked_sub(back)).filter(|dep| *dep < at));
        let deps = deps.collect::<Option<Box<[u32]>>>()?;
        let seq = causality.authors.get(actor as usize)?.changes.len() as u32 + 1;
        if start_op == 0 || causality.find(&hash).is_some() {
            return None;
        }
        causality.insert(Note::new(hash, deps, actor, seq).with_ops(first_op, start_op, ops));
        first_op = first_op.checked_add(ops)?;
    }
    Some(causality)
}

fn index(reader: &mut Reader<'_>) -> Option<Index> {
    let mut index = Index::default();
    for _ in 0..reader.number()? {
        let length = reader.number()?;
        let text = std::str::from_utf8(reader.take(length as usize)?).ok()?;
        index.keys.push(text).then_some(())?;
    }
    let mut object = ROOT;
    for at in 0..reader.number()? {
        let head = reader.take(1)?[0];
        if head & 8 == 0 {
            object = reader.number()?;
        }
        let within = *index.objects.get(object as usize)?;
        let slot = if head & 16 == 0 { reader.number()? } else { at };
        let kind = *Kind::ALL.get(usize::from(head & 7))?;
        let bound = if within.kind == Kind::Map { index.keys.len() } else { at + 1 };
        if slot >= bound {
            return None;
        }
        index.entries.push(Entry { object, slot, kind });
        if kind.is_object() {
            let key = if within.kind == Kind::Map { slot } else { NONE };
            index.objects.push(within.made(at, kind, key)?);
        }
    }
    Some(index)
}

/// Bytes that are read from the front.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).ok();
            }
        }
        None
    }
}
