//! Files in bundles: which of them go in, and taking one in piece by piece.
//!
//! A member gets what it would get on a lane: files that records name which it may read, and that
//! somebody has shown to be his. Whoever brings the bytes themselves has shown that by it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use fieldkeep_model::blob::GroupCheck;
use fieldkeep_model::{BlobHash, BlobTree, PublicKey, RecordKey, SegmentId, TypeName};
use fieldkeep_protocol::blob::{Unfit, Upload};
use fieldkeep_protocol::bundle::{Enclosed, Enclosure, Has, ReadError, Reader, Writer};
use fieldkeep_store::{BlobFiles, Blobs, Incoming, OpenFile, StoreError};

use crate::taking::Brought;

/// Files that are looked at in one go.
const PAGE: u32 = 512;

/// The files of the records that a bundle's receiver may read, on their way into it.
#[derive(Clone, Debug, Default)]
pub struct Enclosures {
    /// The segments, by the number that they have here.
    places: BTreeMap<i64, (SegmentId, TypeName)>,
    /// The last that was named, and the last that was considered to go in.
    named: Option<(BlobHash, i64)>,
    considered: Option<(BlobHash, i64)>,
    page: Vec<OpenFile>,
}

impl Enclosures {
    /// Those of the records of these segments.
    #[must_use]
    pub fn of(places: BTreeMap<i64, (SegmentId, TypeName)>) -> Self {
        Self { places, ..Self::default() }
    }

    /// The segment with that number here, if the receiver may read it.
    #[must_use]
    pub fn place(&self, sid: i64) -> Option<&SegmentId> {
        self.places.get(&sid).map(|(segment, _)| segment)
    }

    /// Encoded frames that name the next files that are here, but for those that `leaves_out`; nothing
    /// once all are named. `has` says whether the receiver is known to have one.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn name_more(
        &mut self,
        store: &impl Blobs,
        leaves_out: impl Fn(&BlobHash) -> bool,
        has: impl Fn(&BlobHash) -> bool,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        if self.places.is_empty() {
            return Ok(None);
        }
        let page = store.files_open(self.named, PAGE)?;
        let Some(last) = page.last() else { return Ok(None) };
        self.named = Some((last.hash, last.sid));
        let mut named: BTreeMap<(SegmentId, bool), Vec<BlobHash>> = BTreeMap::new();
        for OpenFile { hash, sid, .. } in page.into_iter().filter(|one| !leaves_out(&one.hash)) {
            if let Some(segment) = self.place(sid) {
                named.entry((*segment, has(&hash))).or_default().push(hash);
            }
        }
        let frames = named
            .into_iter()
            .map(|((segment, both), files)| Enclosed::Has(Has { segment, files, both }).encode());
        Ok(Some(frames.collect::<Vec<_>>().concat()))
    }

    /// The next file that goes in: each once, with a record that names it. `has` says whether the
    /// receiver is known to have one.
    ///
    /// # Errors
    /// When the disk fails or the row is damaged.
    pub fn next_file(
        &mut self,
        store: &impl Blobs,
        has: impl Fn(&BlobHash) -> bool,
    ) -> Result<Option<Upload>, StoreError> {
        if self.places.is_empty() {
            return Ok(None);
        }
        loop {
            if self.page.is_empty() {
                self.page = store.files_open(self.considered, PAGE)?;
                self.page.reverse();
            }
            let Some(OpenFile { hash, sid, record }) = self.page.pop() else { return Ok(None) };
            self.considered = Some((hash, sid));
            let Some((_, ty)) = self.places.get(&sid) else { continue };
            let record = RecordKey::new(ty.clone(), record);
            // It is open to the readers of other segments too, and goes in once.
            self.considered = Some((hash, i64::MAX));
            while self.page.last().is_some_and(|next| next.hash == hash) {
                self.page.pop();
            }
            if !has(&hash)
                && let Some(upload) = upload(store, hash, record)?
            {
                return Ok(Some(upload));
            }
        }
    }
}

/// A whole file that is here, with a record that names it, as it is brought.
///
/// # Errors
/// When the disk fails or the row is damaged.
pub fn upload(
    store: &impl Blobs,
    hash: BlobHash,
    record: RecordKey,
) -> Result<Option<Upload>, StoreError> {
    let row = store.blob(&hash)?.filter(|row| row.whole);
    Ok(row.map(|row| Upload { hash, record, size: row.tree.size(), tree: row.tree.to_bytes() }))
}

/// Writes a file into a bundle. Returns whether all of it was to be had.
///
/// # Errors
/// When the bundle cannot be written.
pub fn enclose<W: Write>(
    writer: &mut Writer<W>,
    files: &BlobFiles,
    file: &Enclosure,
) -> io::Result<bool> {
    match files.open(&file.file.hash) {
        Ok(mut bytes) => writer.file(file, &mut bytes),
        Err(_) => Ok(false),
    }
}

/// A file whose bytes come out of a bundle.
#[derive(Debug)]
pub struct Arriving {
    size: u64,
    came: u64,
    way: Way,
}

/// What is done with the bytes.
#[derive(Debug)]
enum Way {
    /// They are here already, or not taken: why.
    Passed(Option<Unfit>),
    /// They are compared with those that are here: that shows that whoever brings them has them.
    Compared(BlobTree, Box<GroupCheck>),
    /// They are kept, and what was here of them before.
    Kept(Box<Incoming>, u64),
}

/// What became of a file that came in a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// It was here already.
    Known,
    /// All of its bytes came, and it is durable under its name.
    Shown(BlobTree),
    /// Nothing of it is kept.
    Unfit(Unfit),
}

/// Why a file in a bundle was not looked at to its end.
#[derive(Debug, thiserror::Error)]
pub enum ArriveError {
    /// The bundle cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The disk refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Arriving {
    /// Begins with a file of so many bytes that somebody brings, of which was said what becomes of it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin(
        brought: Brought,
        size: u64,
        files: &BlobFiles,
        bringer: &PublicKey,
    ) -> Result<Self, StoreError> {
        let way = match brought {
            Brought::Whole => Way::Passed(None),
            Brought::Unfit(unfit) => Way::Passed(Some(unfit)),
            Brought::Prove(tree) => {
                let check = Box::new(tree.check_from(0));
                Way::Compared(tree, check)
            }
            Brought::Take(tree) => match files.receive(tree, Some(bringer))? {
                Some(incoming) => {
                    let before = incoming.at();
                    Way::Kept(Box::new(incoming), before)
                }
                None => {
                    Way::Passed(Some(unfit("busy", "it comes in another way at the moment", true)))
                }
            },
        };
        Ok(Self { size, came: 0, way })
    }

    /// Takes the file's bytes out of a bundle that is read, all that are there.
    ///
    /// # Errors
    /// See [`ArriveError`]: nothing of it is kept.
    pub fn take_from(mut self, reader: &mut Reader<impl Read>) -> Result<Arrived, ArriveError> {
        loop {
            match reader.next_piece() {
                Ok(Some(piece)) => self.take(&piece)?,
                Ok(None) => return Ok(self.end()?),
                Err(error) => {
                    self.end()?;
                    return Err(error.into());
                }
            }
        }
    }

    /// Takes the next bytes in.
    fn take(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        let begins = self.came;
        self.came += piece.len() as u64;
        if self.came > self.size {
            return self.give_up(unfit("size", "more bytes came than the file has", false));
        }
        let wrong = match &mut self.way {
            Way::Passed(_) => None,
            Way::Compared(tree, check) => compare(tree, check, piece),
            Way::Kept(incoming, _) => {
                // What is here of it was verified, and is passed over.
                let known = usize::try_from(incoming.at() - begins).unwrap_or(usize::MAX);
                incoming.take(&piece[known.min(piece.len())..])?
            }
        };
        match wrong {
            Some(at) => {
                let text = format!("what came from byte {at} on is not the file's");
                self.give_up(unfit("wrong", &text, false))
            }
            None => Ok(()),
        }
    }

    /// Ends it: its bytes came, or no more do.
    fn end(mut self) -> Result<Arrived, StoreError> {
        if self.came < self.size && !matches!(self.way, Way::Passed(_)) {
            let text = format!("only {} of its {} bytes came", self.came, self.size);
            self.give_up(unfit("short", &text, true))?;
        }
        // An empty file has no byte that would have been looked at.
        let tree = match &self.way {
            Way::Passed(_) => None,
            Way::Compared(tree, _) => Some(tree),
            Way::Kept(incoming, _) => Some(incoming.tree()),
        };
        if self.size == 0 && tree.is_some_and(|tree| tree.check_from(0).take(tree, &[]).is_err()) {
            self.give_up(unfit("wrong", "an empty file has another name", false))?;
        }
        match self.way {
            Way::Passed(None) => Ok(Arrived::Known),
            Way::Passed(Some(unfit)) => Ok(Arrived::Unfit(unfit)),
            Way::Compared(tree, _) => Ok(Arrived::Shown(tree)),
            Way::Kept(incoming, _) => Ok(Arrived::Shown(incoming.finish()?)),
        }
    }

    /// Keeps nothing that this has begun.
    fn give_up(&mut self, unfit: Unfit) -> Result<(), StoreError> {
        match std::mem::replace(&mut self.way, Way::Passed(Some(unfit))) {
            Way::Kept(incoming, 0) => incoming.discard(),
            // What came on a lane is verified, and goes on there.
            Way::Kept(..) | Way::Passed(_) | Way::Compared(..) => Ok(()),
        }
    }
}

/// Compares bytes with a tree; where a group begins that is another one.
fn compare(tree: &BlobTree, check: &mut GroupCheck, mut piece: &[u8]) -> Option<u64> {
    while !piece.is_empty() {
        let room = usize::try_from(check.room(tree)).unwrap_or(usize::MAX);
        let (now, rest) = piece.split_at(room.min(piece.len()));
        if let Err(group) = check.take(tree, now) {
            return Some(group);
        }
        piece = rest;
    }
    None
}

fn unfit(code: &str, text: &str, again: bool) -> Unfit {
    Unfit { code: code.to_owned(), text: text.to_owned(), again }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldkeep_model::TreeBuilder;

    const BRINGER: PublicKey = PublicKey([1; 32]);

    fn content() -> Vec<u8> {
        (0..200_000u32).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    fn tree(content: &[u8]) -> BlobTree {
        let mut builder = TreeBuilder::new(content.len() as u64).expect("small");
        builder.take(content).expect("as long as said");
        builder.finish().expect("all of it")
    }

    /// What becomes of these pieces, and what is left in the folder.
    fn arrives(files: &BlobFiles, brought: Brought, pieces: &[&[u8]]) -> Arrived {
        let mut arriving = Arriving::begin(brought, 200_000, files, &BRINGER).expect("it begins");
        pieces.iter().for_each(|piece| arriving.take(piece).expect("it writes"));
        arriving.end().expect("it ends")
    }

    fn code(arrived: &Arrived) -> &str {
        match arrived {
            Arrived::Unfit(unfit) => &unfit.code,
            Arrived::Known | Arrived::Shown(_) => "none",
        }
    }

    #[test]
    fn what_is_wrong_short_or_too_long_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, content) = (BlobFiles::of(directory.path()), content());
        let tree = tree(&content);
        let mut wrong = content.clone();
        wrong[199_999] ^= 1;
        let left = || std::fs::read_dir(directory.path().join("blobs")).expect("it reads").count();
        for (pieces, expected) in [
            (vec![&wrong[..]], "wrong"),
            (vec![&content[..199_999]], "short"),
            (vec![], "short"),
            (vec![&content[..], &content[..1]], "size"),
        ] {
            let taken = arrives(&files, Brought::Take(tree.clone()), &pieces);
            assert_eq!((code(&taken), left()), (expected, 0));
            let compared = arrives(&files, Brought::Prove(tree.clone()), &pieces);
            assert_eq!(code(&compared), expected);
        }
        let taken = arrives(&files, Brought::Take(tree.clone()), &[&content]);
        assert_eq!((taken, left()), (Arrived::Shown(tree), 1));
    }

    #[test]
    fn what_came_on_a_lane_before_stays_and_is_gone_on_with() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, content) = (BlobFiles::of(directory.path()), content());
        let tree = tree(&content);
        let begun = || {
            files.receive(tree.clone(), Some(&BRINGER)).expect("it begins").expect("nobody else")
        };
        assert_eq!(begun().take(&content[..100_000]).expect("it writes"), None);
        let mut wrong = content.clone();
        wrong[150_000] ^= 1;
        let refused = arrives(&files, Brought::Take(tree.clone()), &[&wrong]);
        assert_eq!((code(&refused), begun().at()), ("wrong", 131_072));
        let taken = arrives(&files, Brought::Take(tree.clone()), &[&content[..9], &content[9..]]);
        assert_eq!(taken, Arrived::Shown(tree));
    }

    #[test]
    fn whoever_takes_it_in_at_the_moment_is_not_disturbed() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, content) = (BlobFiles::of(directory.path()), content());
        let other =
            files.receive(tree(&content), Some(&BRINGER)).expect("it begins").expect("nobody else");
        let taken = arrives(&files, Brought::Take(tree(&content)), &[&content]);
        assert_eq!((code(&taken), other.at()), ("busy", 0));
    }

    #[test]
    fn an_empty_file_has_its_own_name_and_no_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = BlobFiles::of(directory.path());
        let claim = BlobTree::new(BlobHash([7; 32]), 0, &[]).expect("it is no tree at all");
        for (tree, expected) in [(tree(&[]), "none"), (claim, "wrong")] {
            for brought in [Brought::Prove(tree.clone()), Brought::Take(tree)] {
                let arriving = Arriving::begin(brought, 0, &files, &BRINGER).expect("it begins");
                assert_eq!(code(&arriving.end().expect("it ends")), expected);
            }
        }
    }
}
