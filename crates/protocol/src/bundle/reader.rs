//! Reading a bundle. Nothing that only claims a length takes memory.

use std::io::{self, Read};

use fieldkeep_model::{Signature, Signed};

use super::{
    CONTEXT, Digest, Enclosed, Enclosure, Entry, Header, MAGIC, PIECE, ReadError, TRAILER,
    TRAILER_SIZE, VERSION,
};
use crate::frame::{Frame, Members};

/// The longest header, in bytes.
const HEADER_MAX: u64 = 64 * 1024;
/// Bytes of a membership log that one bundle may bring: as in a session.
pub(super) const MEMBERS_MAX: usize = 16 * 1024 * 1024;

/// Reads a bundle, frame by frame: no more of it than one frame is in memory.
#[derive(Debug)]
pub struct Reader<R> {
    read: R,
    hasher: blake3::Hasher,
    header: Header,
    /// Entries that the next frame of their kind begins with, and their bytes.
    parts: Vec<Signed>,
    parts_size: usize,
    /// A file that was read ahead.
    file: Option<Enclosure>,
    digest: Option<Digest>,
}

impl<R: Read> Reader<R> {
    /// Reads a bundle's header.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(mut read: R) -> Result<Self, ReadError> {
        let mut begin = [0; MAGIC.len() + 1];
        match fill(&mut read, &mut begin) {
            Err(ReadError::CutShort) => return Err(ReadError::NotABundle),
            other => other?,
        }
        let (magic, version) = begin.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(ReadError::NotABundle);
        }
        if version != [VERSION] {
            return Err(ReadError::TooNew(version[0]));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&begin);
        let (length, bytes) = uleb(&mut read)?;
        if length > HEADER_MAX {
            return Err(ReadError::Altered);
        }
        hasher.update(&bytes);
        let body = take(&mut read, length)?;
        hasher.update(&body);
        let header = minicbor::decode(&body).map_err(|_| ReadError::Altered)?;
        Ok(Self {
            read,
            hasher,
            header,
            parts: Vec::new(),
            parts_size: 0,
            file: None,
            digest: None,
        })
    }

    /// Whose it is, and for whom.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What names it, once its signature was read.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What comes next; nothing once the signature was read, and found to be its writer's over all
    /// that came before it but the bytes of files. Entries of the membership log that were parted come
    /// together.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        loop {
            if self.digest.is_some() {
                return Ok(None);
            }
            let (number, head) = uleb(&mut self.read)?;
            let (length, rest) = uleb(&mut self.read)?;
            if number == TRAILER {
                self.finish(length)?;
                return Ok(None);
            }
            if length > u64::from(crate::FRAME_MAX) {
                return Err(ReadError::Altered);
            }
            let body = take(&mut self.read, length)?;
            self.hasher.update(&head).update(&rest);
            if number == PIECE {
                return Ok(Some(Entry::Piece(body)));
            }
            self.hasher.update(&body);
            match Entry::decode(number, &body).map_err(|_| ReadError::Altered)? {
                Some(Entry::Frame(Frame::Part(part))) => self.keep_part(part)?,
                Some(Entry::Frame(Frame::Members(last))) => {
                    self.parts_size = 0;
                    let mut entries = std::mem::take(&mut self.parts);
                    entries.extend(last.entries);
                    let members = Frame::Members(Members { base: last.base, entries });
                    return Ok(Some(Entry::Frame(members)));
                }
                Some(entry) => return Ok(Some(entry)),
                // What a later version adds and everybody may pass over.
                None => {}
            }
        }
    }

    /// What comes next before the files, at most so much of it; nothing once they begin.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn entries(&mut self, most: usize) -> Result<Vec<Entry>, ReadError> {
        let mut entries = Vec::new();
        while self.file.is_none() && entries.len() < most {
            match self.next_entry()? {
                Some(Entry::Enclosed(Enclosed::File(file))) => self.file = Some(file),
                Some(entry) => entries.push(entry),
                None => break,
            }
        }
        Ok(entries)
    }

    /// The next file; nothing at the end.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn next_file(&mut self) -> Result<Option<Enclosure>, ReadError> {
        while self.next_piece()?.is_some() {}
        Ok(self.file.take())
    }

    /// The next bytes of the file that came last; nothing at its end.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        if self.file.is_some() {
            return Ok(None);
        }
        match self.next_entry()? {
            Some(Entry::Piece(bytes)) => Ok(Some(bytes)),
            Some(Entry::Enclosed(Enclosed::File(file))) => {
                self.file = Some(file);
                Ok(None)
            }
            Some(Entry::Enclosed(_) | Entry::Frame(_)) | None => Ok(None),
        }
    }

    fn keep_part(&mut self, part: Members) -> Result<(), ReadError> {
        self.parts_size += part.size();
        if self.parts_size > MEMBERS_MAX {
            return Err(ReadError::Malformed("too many members"));
        }
        self.parts.extend(part.entries);
        Ok(())
    }

    /// Reads the trailer, and sees that it ends the file.
    fn finish(&mut self, length: u64) -> Result<(), ReadError> {
        if length != TRAILER_SIZE as u64 {
            return Err(ReadError::Altered);
        }
        let trailer = take(&mut self.read, length)?;
        let (digest, signature) = trailer.split_at(32);
        let signature = Signature(signature.try_into().expect("as long as was asked for"));
        let signed = self.hasher.finalize().as_bytes() == digest
            && self.header.from.verifies(CONTEXT, digest, &signature);
        let ended = self.read.read(&mut [0]).map_err(ReadError::Io)? == 0;
        if !signed || !ended {
            return Err(ReadError::Altered);
        }
        self.digest = Some(Digest(digest.try_into().expect("as long as was asked for")));
        Ok(())
    }
}

/// Reads bytes until a buffer is full.
fn fill(read: &mut impl Read, bytes: &mut [u8]) -> Result<(), ReadError> {
    read.read_exact(bytes).map_err(|error| {
        let ended = error.kind() == io::ErrorKind::UnexpectedEof;
        if ended { ReadError::CutShort } else { ReadError::Io(error) }
    })
}

/// Reads so many bytes, as they come: what is claimed and not there takes no memory.
fn take(read: &mut impl Read, length: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    read.take(length).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    if (bytes.len() as u64) < length { Err(ReadError::CutShort) } else { Ok(bytes) }
}

/// Reads a number below 2^35, and its bytes.
fn uleb(read: &mut impl Read) -> Result<(u64, Vec<u8>), ReadError> {
    let (mut value, mut bytes) = (0u64, Vec::new());
    for shift in (0..35).step_by(7) {
        let mut byte = [0];
        fill(read, &mut byte)?;
        bytes.push(byte[0]);
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok((value, bytes));
        }
    }
    Err(ReadError::Altered)
}
