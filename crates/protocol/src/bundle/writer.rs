//! Writing a bundle: what is in it is signed as it goes.

use std::io::{self, Read, Write};

use fieldkeep_model::KeyPair;
use fieldkeep_model::header::write_uleb;

use super::{
    CONTEXT, Digest, Enclosed, Enclosure, Header, MAGIC, PIECE, PIECE_SIZE, TRAILER, TRAILER_SIZE,
    VERSION,
};

/// Writes a bundle, frame by frame.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    hasher: blake3::Hasher,
    size: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a bundle.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(out: W, header: &Header) -> io::Result<Self> {
        let body = minicbor::to_vec(header).expect("encoding into memory cannot fail");
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        write_uleb(&mut bytes, body.len() as u64);
        bytes.extend(body);
        let mut writer = Self { out, hasher: blake3::Hasher::new(), size: 0 };
        writer.frames(&bytes)?;
        Ok(writer)
    }

    /// Adds encoded frames.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn frames(&mut self, frames: &[u8]) -> io::Result<()> {
        self.hasher.update(frames);
        self.size += frames.len() as u64;
        self.out.write_all(frames)
    }

    /// Adds an attached file. Returns whether all of its bytes were to be had: of one that was not the
    /// receiver keeps nothing.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn file(&mut self, file: &Enclosure, bytes: &mut impl Read) -> io::Result<bool> {
        self.frames(&Enclosed::File(file.clone()).encode())?;
        let (mut left, mut piece) = (file.file.size, Vec::new());
        while left > 0 {
            piece.clear();
            let read = bytes.by_ref().take(left.min(PIECE_SIZE)).read_to_end(&mut piece);
            self.piece(&piece)?;
            if read.is_err() || piece.is_empty() {
                return Ok(false);
            }
            left -= piece.len() as u64;
        }
        Ok(true)
    }

    /// Adds bytes of a file: only their number is signed.
    fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut head = Vec::new();
        write_uleb(&mut head, PIECE);
        write_uleb(&mut head, bytes.len() as u64);
        self.frames(&head)?;
        self.size += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Signs the bundle, and so ends it. Returns what names it, and its size in bytes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self, keys: &KeyPair) -> io::Result<(Digest, u64)> {
        let digest = *self.hasher.finalize().as_bytes();
        let mut trailer = Vec::new();
        write_uleb(&mut trailer, TRAILER);
        write_uleb(&mut trailer, TRAILER_SIZE as u64);
        trailer.extend(digest);
        trailer.extend(keys.sign(CONTEXT, &digest).0);
        self.out.write_all(&trailer)?;
        self.out.flush()?;
        Ok((Digest(digest), self.size + trailer.len() as u64))
    }
}
