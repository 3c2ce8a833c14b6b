//! Snapshots: how a document is kept, and how it is brought back.
//!
//! A version byte, a zstd frame of Automerge's uncompressed save, and blake3 of both. A snapshot
//! only speeds loading: one that does not verify is refused, and the document is built from its
//! changes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, LoadOptions, ObjType, ROOT, ReadDoc, ValueRef};

use super::write::ENCODING;
use crate::packing;

const VERSION: u8 = 1;
const TRAILER: usize = 32;

/// The largest save that is inflated, in bytes: far above what a segment is meant for.
const INFLATED_MAX: usize = 1 << 30;

/// How many records lie between two cuts.
const CUT_EVERY: usize = 16;

/// The key, and the value, that is written and rolled back.
const CUT_KEY: &str = "~cut";

/// Why a snapshot is not loaded. The remedy is the same for all: build the document from its
/// changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Too short, or its hash is not the trailer's.
    #[error("the snapshot is damaged")]
    Damaged,
    /// Written by another version of the format.
    #[error("the snapshot has version {0}, not 1")]
    Version(u8),
    /// Does not inflate, or beyond 1 GiB.
    #[error("the snapshot does not inflate")]
    Inflate,
    /// Automerge refuses what is in it.
    #[error("the snapshot holds no document")]
    Document,
}

/// The snapshot of a document.
pub(super) fn pack(doc: &Automerge) -> Vec<u8> {
    let saved = doc.save_nocompress();
    let mut out = vec![VERSION];
    let packed = packing::deflate(&saved, packing::LEVEL);
    out.extend(packed.expect("compressing in memory does not fail"));
    let digest = blake3::hash(&out);
    out.extend_from_slice(digest.as_bytes());
    out
}

/// The document of a snapshot, ready for many edits, and the length of its uncompressed save.
pub(super) fn unpack(snapshot: &[u8]) -> Result<(Automerge, usize), LoadError> {
    let split = snapshot.len().checked_sub(TRAILER).ok_or(LoadError::Damaged)?;
    let (kept, trailer) = snapshot.split_at(split);
    if blake3::hash(kept).as_bytes() != trailer {
        return Err(LoadError::Damaged);
    }
    let (version, packed) = kept.split_first().ok_or(LoadError::Damaged)?;
    if *version != VERSION {
        return Err(LoadError::Version(*version));
    }
    let saved = packing::inflate(packed, INFLATED_MAX).map_err(|_| LoadError::Inflate)?;
    let load = || {
        let options = LoadOptions::new().text_encoding(ENCODING);
        let mut doc = Automerge::load_with_options(&saved, options).ok()?;
        cut(&mut doc);
        Some(doc)
    };
    let loaded = catch_unwind(AssertUnwindSafe(load)).ok().flatten();
    loaded.map(|doc| (doc, saved.len())).ok_or(LoadError::Document)
}

/// Breaks up the single slab that loading leaves in each of Automerge's columns, which every splice
/// in ascending order would copy for ever, keeping the old capacity. One transaction writes into
/// every sixteenth record, the middle one first, then the quarters, the eighths, and so on, each of
/// which halves a slab; then it is rolled back.
///
/// What is written must have bytes: the column that grows is the one of the values, and `true` or
/// null has none there.
fn cut(doc: &mut Automerge) {
    let records = doc.map_range(ROOT, ..);
    let maps = records.filter(|item| item.value == ValueRef::Object(ObjType::Map));
    let mut objects: Vec<_> = maps.map(|item| item.id()).collect();
    objects.sort_unstable();
    let spots: Vec<_> = objects.iter().step_by(CUT_EVERY).collect();
    if spots.len() < 2 {
        return;
    }
    // An actor that sorts last is added and removed without renumbering the others.
    doc.set_actor(ActorId::from([0xff; 20]));
    let mut tx = doc.transaction();
    let bits = spots.len().next_power_of_two().trailing_zeros();
    for index in 0..1usize << bits {
        let reversed = index.reverse_bits() >> (usize::BITS - bits);
        if let Some(object) = spots.get(reversed) {
            // A refused write leaves one slab a little longer, nothing else.
            let _ = tx.put(object, CUT_KEY, CUT_KEY);
        }
    }
    tx.rollback();
}
