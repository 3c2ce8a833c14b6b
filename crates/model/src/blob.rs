//! Attached files: their chunk tree, so that each part of a file can be verified as it comes.
//!
//! A file's name is the blake3 of its bytes, and blake3 is a tree: the values of its subtrees over
//! groups of equal length hash to the root (specification of BLAKE3, section 2.1). Whoever has those
//! values, and has checked that they make the name, verifies any group alone, in any order, and a
//! wrong byte is found in its group. Contains no input or output.

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

use crate::BlobHash;

/// The shortest group, in bytes.
const GROUP_MIN: u64 = 64 * 1024;
/// The most groups of a file: a tree has at most 512 KiB.
const GROUPS_MAX: u64 = 16 * 1024;
/// The largest file, in bytes: 64 GiB, whose groups are of 4 MiB.
pub const BLOB_MAX: u64 = 64 << 30;

/// The bytes of a group in a file of that size: a power of two, the same for everybody.
#[must_use]
pub fn group_len(size: u64) -> u64 {
    size.div_ceil(GROUPS_MAX).next_power_of_two().max(GROUP_MIN)
}

/// The values of a file's groups, checked against its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobTree {
    hash: BlobHash,
    size: u64,
    /// Empty where one group is the whole file.
    groups: Vec<ChainingValue>,
}

/// Why bytes are no tree of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Another number of groups than a file of that size has.
    #[error("the tree does not have the length that the size asks for")]
    Length,
    /// Its values do not make the file's name.
    #[error("the tree is not that of this file")]
    Root,
    /// Larger than any file may be.
    #[error("a file has at most {} GiB", BLOB_MAX >> 30)]
    TooLarge,
}

impl BlobTree {
    /// Reads a tree, and checks that its values make the name.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn new(hash: BlobHash, size: u64, bytes: &[u8]) -> Result<Self, TreeError> {
        if size > BLOB_MAX {
            return Err(TreeError::TooLarge);
        }
        let count = size.div_ceil(group_len(size)).max(1);
        let expected = if count == 1 { 0 } else { count * 32 };
        let (values, rest) = bytes.as_chunks::<32>();
        if bytes.len() as u64 != expected || !rest.is_empty() {
            return Err(TreeError::Length);
        }
        let groups = values.to_vec();
        if count > 1 && root(&groups) != hash.0 {
            return Err(TreeError::Root);
        }
        Ok(Self { hash, size, groups })
    }

    /// The file's name.
    #[must_use]
    pub fn hash(&self) -> BlobHash {
        self.hash
    }

    /// The file's length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes of each group but the last.
    #[must_use]
    pub fn group_len(&self) -> u64 {
        group_len(self.size)
    }

    /// The tree as it is kept and sent: the groups' values, nothing where there is one group.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.groups.concat()
    }

    /// What verifies bytes from an offset on, which begins a group.
    #[must_use]
    pub fn check_from(&self, offset: u64) -> GroupCheck {
        let group = offset / self.group_len();
        GroupCheck { group, hasher: group_hasher(group, self.group_len()), taken: 0 }
    }

    fn group_size(&self, group: u64) -> u64 {
        let len = self.group_len();
        len.min(self.size.saturating_sub(group * len))
    }

    fn is_sound(&self, group: u64, hasher: &Hasher) -> bool {
        match usize::try_from(group).ok().and_then(|group| self.groups.get(group)) {
            Some(value) => hasher.finalize_non_root() == *value,
            None => self.groups.is_empty() && *hasher.finalize().as_bytes() == self.hash.0,
        }
    }
}

/// Verifies groups as their bytes come.
#[derive(Clone, Debug)]
pub struct GroupCheck {
    group: u64,
    hasher: Hasher,
    taken: u64,
}

impl GroupCheck {
    /// How many bytes may be taken at once: the rest of the group under way, none at the file's end.
    #[must_use]
    pub fn room(&self, tree: &BlobTree) -> u64 {
        tree.group_size(self.group) - self.taken
    }

    /// Takes bytes in, at most as many as there is room for. Tells whether they end a group.
    ///
    /// # Errors
    /// The offset at which a group begins whose bytes are not those of the file.
    ///
    /// # Panics
    /// When there is no room for so many: a fault of the caller's.
    pub fn take(&mut self, tree: &BlobTree, bytes: &[u8]) -> Result<bool, u64> {
        assert!(bytes.len() as u64 <= self.room(tree), "more than the group has room for");
        self.hasher.update(bytes);
        self.taken += bytes.len() as u64;
        if self.room(tree) > 0 {
            return Ok(false);
        }
        if !tree.is_sound(self.group, &self.hasher) {
            return Err(self.group * tree.group_len());
        }
        self.group += 1;
        self.taken = 0;
        if self.group * tree.group_len() < tree.size {
            self.hasher = group_hasher(self.group, tree.group_len());
        }
        Ok(true)
    }
}

/// Makes the tree of a file whose size is known, as its bytes are read.
#[derive(Clone, Debug)]
pub struct TreeBuilder {
    size: u64,
    taken: u64,
    groups: Vec<ChainingValue>,
    hasher: Hasher,
}

impl TreeBuilder {
    /// For a file of that many bytes.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`].
    pub fn new(size: u64) -> Result<Self, TreeError> {
        if size > BLOB_MAX {
            return Err(TreeError::TooLarge);
        }
        Ok(Self { size, taken: 0, groups: Vec::new(), hasher: Hasher::new() })
    }

    /// Takes the next bytes in.
    ///
    /// # Errors
    /// [`TreeError::Length`] when there are more than the size said: the file grew meanwhile.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), TreeError> {
        let len = group_len(self.size);
        if self.taken + bytes.len() as u64 > self.size {
            return Err(TreeError::Length);
        }
        while !bytes.is_empty() {
            let room = usize::try_from(len - self.taken % len).expect("a group fits in memory");
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.hasher.update(now);
            self.taken += now.len() as u64;
            bytes = rest;
            if self.taken.is_multiple_of(len) && self.size > len {
                self.end_group(len);
            }
        }
        Ok(())
    }

    fn end_group(&mut self, len: u64) {
        self.groups.push(self.hasher.finalize_non_root());
        if self.taken < self.size {
            self.hasher = group_hasher(self.groups.len() as u64, len);
        }
    }

    /// The tree.
    ///
    /// # Errors
    /// [`TreeError::Length`] when there were fewer bytes than the size said.
    pub fn finish(mut self) -> Result<BlobTree, TreeError> {
        if self.taken != self.size {
            return Err(TreeError::Length);
        }
        let len = group_len(self.size);
        if self.size <= len {
            let hash = BlobHash(*self.hasher.finalize().as_bytes());
            return Ok(BlobTree { hash, size: self.size, groups: Vec::new() });
        }
        if !self.taken.is_multiple_of(len) {
            self.end_group(len);
        }
        Ok(BlobTree { hash: BlobHash(root(&self.groups)), size: self.size, groups: self.groups })
    }
}

/// A hasher for a group of a file that has several.
fn group_hasher(group: u64, len: u64) -> Hasher {
    let mut hasher = Hasher::new();
    if group > 0 {
        hasher.set_input_offset(group * len);
    }
    hasher
}

/// The root over at least two groups: the left part of a tree holds the largest power of two of them
/// that leaves something for the right one.
fn root(groups: &[ChainingValue]) -> [u8; 32] {
    let (left, right) = halves(groups);
    *merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes()
}

fn subtree(groups: &[ChainingValue]) -> ChainingValue {
    match groups {
        [one] => *one,
        more => {
            let (left, right) = halves(more);
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

fn halves(groups: &[ChainingValue]) -> (&[ChainingValue], &[ChainingValue]) {
    groups.split_at(groups.len().next_power_of_two() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 + at / 977) as u8).collect()
    }

    fn tree_of(content: &[u8], pieces: usize) -> BlobTree {
        let mut builder = TreeBuilder::new(content.len() as u64).expect("small enough");
        content.chunks(pieces).for_each(|piece| builder.take(piece).expect("as long as said"));
        builder.finish().expect("all of it came")
    }

    #[test]
    fn the_name_of_a_file_is_its_plain_hash_whatever_its_length() {
        let group = GROUP_MIN as usize;
        let edges = [0, 1, 1_024, group - 1, group, group + 1, 2 * group, 5 * group + 17];
        for len in edges {
            let content = content(len);
            let tree = tree_of(&content, 10_000);
            assert_eq!(tree.hash().0, *blake3::hash(&content).as_bytes(), "{len} bytes");
            let read = BlobTree::new(tree.hash(), tree.size(), &tree.to_bytes());
            assert_eq!(read, Ok(tree), "{len} bytes");
        }
    }

    #[test]
    fn a_wrong_byte_is_found_in_its_group_and_nowhere_else() {
        let mut content = content(3 * GROUP_MIN as usize + 5);
        let tree = tree_of(&content, 77_777);
        content[GROUP_MIN as usize + 9] ^= 1;
        let mut found = Vec::new();
        for (offset, group) in (0u64..).zip(content.chunks(GROUP_MIN as usize)) {
            let mut check = tree.check_from(offset * GROUP_MIN);
            let (first, rest) = group.split_at(group.len() / 3);
            let sound = check.take(&tree, first).and_then(|_| check.take(&tree, rest));
            found.push(sound);
        }
        assert_eq!(found, [Ok(true), Err(GROUP_MIN), Ok(true), Ok(true)]);
    }

    #[test]
    fn a_tree_that_is_another_files_is_refused() {
        let tree = tree_of(&content(200_000), 4_096);
        let mut bytes = tree.to_bytes();
        bytes[40] ^= 1;
        assert_eq!(BlobTree::new(tree.hash(), tree.size(), &bytes), Err(TreeError::Root));
        bytes.pop();
        assert_eq!(BlobTree::new(tree.hash(), tree.size(), &bytes), Err(TreeError::Length));
        assert_eq!(BlobTree::new(tree.hash(), u64::MAX, &[]), Err(TreeError::TooLarge));
    }

    #[test]
    fn a_tree_is_never_longer_than_a_frame() {
        for size in [1, GROUP_MIN * GROUPS_MAX, GROUP_MIN * GROUPS_MAX + 1, 1 << 30, BLOB_MAX] {
            assert!(size.div_ceil(group_len(size)) <= GROUPS_MAX, "{size}");
            assert!(group_len(size).is_power_of_two());
        }
    }
}
