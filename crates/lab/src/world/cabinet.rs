//! Cabinets: the files of a node in memory, whole ones and parts, as they lie beside a store. They are copied
//! and put back with it.

use std::collections::BTreeMap;

use fieldkeep_model::blob::{GroupCheck, TreeBuilder};
use fieldkeep_model::{BlobHash, BlobTree};

/// The files of a node, as they lie on its disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cabinet {
    pub(crate) whole: BTreeMap<BlobHash, Vec<u8>>,
    parts: BTreeMap<BlobHash, Vec<u8>>,
}

/// A file that comes in.
#[derive(Debug)]
pub(crate) struct Coming {
    pub(crate) tree: BlobTree,
    check: Box<GroupCheck>,
    /// The next byte.
    pub(crate) at: u64,
}

impl Cabinet {
    /// Whether a file is here, and is what its name says.
    pub(crate) fn has(&self, hash: &BlobHash) -> bool {
        self.whole.get(hash).is_some_and(|bytes| blake3::hash(bytes).as_bytes() == &hash.0)
    }

    /// Goes on with a file where its part ends.
    pub(crate) fn receive(&mut self, tree: BlobTree) -> Coming {
        let part = self.parts.remove(&tree.hash()).unwrap_or_default();
        let mut coming = Coming { check: Box::new(tree.check_from(0)), tree, at: 0 };
        // What was wrong was cut off when it came.
        let _ = self.take(&mut coming, &part);
        coming
    }

    /// Takes bytes in. Returns whether the file is whole; or that a group was not the file's, which is
    /// forgotten.
    pub(crate) fn take(&mut self, coming: &mut Coming, mut bytes: &[u8]) -> Result<bool, u64> {
        let Coming { tree, check, at } = coming;
        let part = self.parts.entry(tree.hash()).or_default();
        while !bytes.is_empty() && *at < tree.size() {
            let room = usize::try_from(check.room(tree)).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            part.extend_from_slice(now);
            *at += now.len() as u64;
            if let Err(group) = check.take(tree, now) {
                (*at, **check) = (group, tree.check_from(group));
                part.truncate(group as usize);
                return Err(group);
            }
            bytes = rest;
        }
        if *at < tree.size() {
            return Ok(false);
        }
        let whole = self.parts.remove(&tree.hash()).unwrap_or_default();
        self.whole.insert(tree.hash(), whole);
        Ok(true)
    }
}

/// What verifies a file.
pub(crate) fn tree_of(bytes: &[u8]) -> BlobTree {
    let mut builder = TreeBuilder::new(bytes.len() as u64).expect("a small file");
    builder.take(bytes).expect("as long as said");
    builder.finish().expect("all of it")
}

/// What shows that one has a file: nothing that helps where it is not here.
pub(crate) fn possession(bytes: Option<&Vec<u8>>, salt: &[u8; 32]) -> [u8; 32] {
    bytes.map_or([0; 32], |bytes| *blake3::keyed_hash(salt, bytes).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_on_where_its_part_ends_and_what_is_wrong_is_forgotten() {
        let bytes: Vec<u8> = (0..100_000u32).map(|at| (at * 7 + at / 251) as u8).collect();
        let (tree, mut cabinet) = (tree_of(&bytes), Cabinet::default());
        let mut wrong = bytes.clone();
        wrong[80_000] ^= 1;
        let mut coming = cabinet.receive(tree.clone());
        assert_eq!(cabinet.take(&mut coming, &wrong), Err(65_536));
        let mut coming = cabinet.receive(tree.clone());
        assert_eq!(coming.at, 65_536);
        assert_eq!(cabinet.take(&mut coming, &bytes[65_536..70_000]), Ok(false));
        assert!(!cabinet.has(&tree.hash()));
        let mut coming = cabinet.receive(tree.clone());
        assert_eq!(cabinet.take(&mut coming, &bytes[70_000..]), Ok(true));
        assert!(cabinet.has(&tree.hash()));
    }
}
