//! A change chunk taken apart, to be put together wrongly.
//!
//! Takes apart only what is well-formed; puts together anything, and repairs lengths and checksum,
//! so that what was broken inside is reached.

use fieldkeep_model::header::{frame, write_sleb, write_uleb};

/// The parts of a raw change chunk, as numbers and bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Anatomy {
    /// Hashes of the changes that it builds upon.
    pub deps: Vec<[u8; 32]>,
    /// The author.
    pub actor: Vec<u8>,
    /// The author's counter.
    pub seq: u64,
    /// The counter of the first operation.
    pub start_op: u64,
    /// The author's clock.
    pub time: i64,
    /// The message.
    pub message: Vec<u8>,
    /// The other actors.
    pub others: Vec<Vec<u8>>,
    /// The columns, by number.
    pub columns: Vec<(u64, Vec<u8>)>,
    /// What lies behind the columns.
    pub extra: Vec<u8>,
}

impl Anatomy {
    /// Takes a raw, well-formed chunk apart.
    #[must_use]
    pub fn of(chunk: &[u8]) -> Option<Self> {
        let mut knife = Knife(chunk.get(9..)?);
        knife.uleb()?;
        let deps = (0..knife.uleb()?).map(|_| knife.take(32)?.try_into().ok());
        let deps = deps.collect::<Option<_>>()?;
        let actor = knife.sized()?;
        let (seq, start_op, time) = (knife.uleb()?, knife.uleb()?, knife.sleb()?);
        let message = knife.sized()?;
        let others = (0..knife.uleb()?).map(|_| knife.sized()).collect::<Option<_>>()?;
        let table = (0..knife.uleb()?).map(|_| Some((knife.uleb()?, knife.uleb()?)));
        let table = table.collect::<Option<Vec<_>>>()?;
        let columns =
            table.into_iter().map(|(spec, length)| Some((spec, knife.take(length)?.to_vec())));
        let columns = columns.collect::<Option<_>>()?;
        let extra = knife.0.to_vec();
        Some(Self { deps, actor, seq, start_op, time, message, others, columns, extra })
    }

    /// The chunk, with lengths and checksum that fit.
    #[must_use]
    pub fn chunk(&self) -> Vec<u8> {
        frame(&self.body())
    }

    /// The chunk's body.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_uleb(&mut out, self.deps.len() as u64);
        self.deps.iter().for_each(|dep| out.extend_from_slice(dep));
        sized(&mut out, &self.actor);
        write_uleb(&mut out, self.seq);
        write_uleb(&mut out, self.start_op);
        write_sleb(&mut out, self.time);
        sized(&mut out, &self.message);
        write_uleb(&mut out, self.others.len() as u64);
        self.others.iter().for_each(|actor| sized(&mut out, actor));
        write_uleb(&mut out, self.columns.len() as u64);
        for (spec, bytes) in &self.columns {
            write_uleb(&mut out, *spec);
            write_uleb(&mut out, bytes.len() as u64);
        }
        self.columns.iter().for_each(|(_, bytes)| out.extend_from_slice(bytes));
        out.extend_from_slice(&self.extra);
        out
    }

    /// A column's bytes, added in its place if it is absent.
    pub fn column(&mut self, spec: u64) -> &mut Vec<u8> {
        let at = self.columns.partition_point(|(other, _)| *other < spec);
        if self.columns.get(at).is_none_or(|(other, _)| *other != spec) {
            self.columns.insert(at, (spec, Vec::new()));
        }
        &mut self.columns[at].1
    }
}

/// The hash of a chunk, as its own header would have it.
#[must_use]
pub fn hash(chunk: &[u8]) -> Option<[u8; 32]> {
    fieldkeep_model::ChangeHeader::parse(chunk).ok().map(|header| header.hash.0)
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    write_uleb(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

struct Knife<'a>(&'a [u8]);

impl<'a> Knife<'a> {
    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn sized(&mut self) -> Option<Vec<u8>> {
        let length = self.uleb()?;
        self.take(length).map(<[u8]>::to_vec)
    }

    fn uleb(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn sleb(&mut self) -> Option<i64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let negative = byte & 0x40 != 0 && shift < 57;
                return Some(if negative { value | (-1 << (shift + 7)) } else { value });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::session;

    #[test]
    fn what_is_taken_apart_goes_together_again() {
        for chunk in session(3, 3, 60) {
            assert_eq!(Anatomy::of(&chunk).unwrap().chunk(), chunk);
        }
    }
}
