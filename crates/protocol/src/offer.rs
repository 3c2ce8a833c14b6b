//! Offers: where a device stands in the relay's log of each segment, about 20 bytes a segment.
//!
//! An entry names its segment by the first 8 bytes of the id and its chain by the first 8 bytes of
//! the chain. Both are compared within one organisation and one device's grants; a collision costs
//! a second look (the chain is checked whole with the next batch), never data.

use fieldkeep_model::{Chain, Epoch, Pos, SegmentId, Seq};
use minicbor::{Decode, Encode};

/// A device's cursors.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Offer {
    /// The epoch that all cursors are of.
    #[n(0)]
    pub epoch: Epoch,
    /// The entries, packed: see [`OfferEntry`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub entries: Vec<u8>,
    /// Counts a device's offers within one session.
    #[n(2)]
    pub round: u64,
    /// The digest over the cursors at this moment.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub root: [u8; 16],
}

/// Where a device stands in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferEntry {
    /// The first 8 bytes of the segment's id.
    pub segment: [u8; 8],
    /// The first 8 bytes of the chain at the position.
    pub chain: [u8; 8],
    /// The position that the device has applied.
    pub pos: Pos,
    /// The newest seq of its own actor.
    pub own_seq: Seq,
    /// The number of the newest verdict block that it holds.
    pub verdict: u64,
    /// The position that that block has judged.
    pub judged: Pos,
}

impl Offer {
    /// Packs entries.
    #[must_use]
    pub fn new(epoch: Epoch, round: u64, root: [u8; 16], entries: &[OfferEntry]) -> Self {
        let mut bytes = Vec::with_capacity(entries.len() * 22);
        for entry in entries {
            bytes.extend_from_slice(&entry.segment);
            bytes.extend_from_slice(&entry.chain);
            for number in
                [entry.pos, entry.own_seq, entry.verdict, entry.pos.abs_diff(entry.judged)]
            {
                fieldkeep_model::header::write_uleb(&mut bytes, number);
            }
        }
        Self { epoch, entries: bytes, round, root }
    }

    /// The entries, or nothing if they are malformed.
    #[must_use]
    pub fn entries(&self) -> Option<Vec<OfferEntry>> {
        let mut rest = &self.entries[..];
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let segment = *rest.split_first_chunk()?.0;
            rest = &rest[8..];
            let chain = *rest.split_first_chunk()?.0;
            rest = &rest[8..];
            let pos = number(&mut rest)?;
            let own_seq = number(&mut rest)?;
            let verdict = number(&mut rest)?;
            let judged = pos.checked_sub(number(&mut rest)?)?;
            entries.push(OfferEntry { segment, chain, pos, own_seq, verdict, judged });
        }
        Some(entries)
    }
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The first 8 bytes of an id or a chain.
#[must_use]
pub fn short(bytes: &[u8]) -> [u8; 8] {
    bytes[..8].try_into().expect("ids and chains are longer than 8 bytes")
}

/// The digest over all cursors: for each segment in order of id its position, chain, verdict
/// number and judged position; then epoch and catalog number. Equal roots are the proof for all
/// segments at once. Segments without entries do not count.
#[must_use]
pub fn root(
    epoch: Epoch,
    catalog: u64,
    cursors: impl IntoIterator<Item = (SegmentId, Pos, Chain, u64, Pos)>,
) -> [u8; 16] {
    let mut cursors: Vec<_> = cursors.into_iter().filter(|cursor| cursor.1 > 0).collect();
    cursors.sort_unstable_by_key(|cursor| cursor.0);
    let mut hasher = blake3::Hasher::new_derive_key("fieldkeep 1 root of cursors");
    hasher.update(&epoch.counter.to_be_bytes()).update(&epoch.salt).update(&catalog.to_be_bytes());
    for (segment, pos, chain, verdict, judged) in cursors {
        hasher.update(&segment.0).update(&pos.to_be_bytes()).update(&chain.0);
        hasher.update(&verdict.to_be_bytes()).update(&judged.to_be_bytes());
    }
    hasher.finalize().as_bytes()[..16].try_into().expect("sixteen bytes")
}
