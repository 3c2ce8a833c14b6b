//! Archives: a generation of a type that is over, in one file, which is read back before anything goes.
//!
//! `docs/format.md` says how it is laid out. Every change is in it as it was admitted, with what vouches
//! for it, and the catalog that declared the generation: whoever has the file can read every record as it
//! stood, and its history.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::Path;

use fieldkeep_documents::batch;
use fieldkeep_model::{Chain, ChangeHeader, OrgId, Pos, SegmentAddress, SegmentId, TypeName};
use fieldkeep_protocol::frame::Delta;
use minicbor::{Decode, Encode};

/// What a file begins with.
const MAGIC: &[u8; 8] = b"FKARCH1\n";
/// The longest part of a file, in bytes: a stretch of a log is shorter.
const PART: u32 = 16 * 1024 * 1024;
/// The longest chunks of one stretch together, inflated, in bytes.
const RAW: usize = 16 * 1024 * 1024;

/// What an archive is of.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ArchiveHeader {
    /// The organisation.
    #[n(0)]
    pub org: OrgId,
    /// The type.
    #[n(1)]
    pub ty: TypeName,
    /// The generation.
    #[n(2)]
    pub generation: u32,
    /// The catalog that declared it; empty if the relay does not have that.
    #[n(3)]
    pub catalog: String,
}

/// Why an archive is not written, or not to be relied on.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file cannot be written or read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no archive, or not all of one, or not what was written.
    #[error("the archive is damaged: {0}")]
    Damaged(&'static str),
}

/// A file that is being written: it has its name once all of it is on the disk.
#[derive(Debug)]
pub struct ArchiveWriter<'p> {
    path: &'p Path,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl<'p> ArchiveWriter<'p> {
    /// Begins one. No file of that name may be there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(path: &'p Path, header: &ArchiveHeader) -> Result<Self, ArchiveError> {
        let mut options = File::options();
        options.write(true).create_new(true);
        // Every record of the type is in it.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let unfinished = options.open(path)?;
        let mut writer =
            Self { path, file: BufWriter::new(unfinished), hasher: blake3::Hasher::new() };
        writer.bytes(MAGIC)?;
        let header = minicbor::to_vec(header).expect("encoding into memory cannot fail");
        writer.part(&header)?;
        Ok(writer)
    }

    /// Adds a stretch of a log.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, stretch: &Delta) -> Result<(), ArchiveError> {
        let bytes = minicbor::to_vec(stretch).expect("encoding into memory cannot fail");
        self.part(&bytes)
    }

    /// Ends it; it is on the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(mut self) -> Result<(), ArchiveError> {
        self.part(&[])?;
        let hash = *self.hasher.finalize().as_bytes();
        self.file.write_all(&hash)?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        if let Some(folder) = self.path.parent() {
            File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?
                .sync_all()?;
        }
        Ok(())
    }

    fn part(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.bytes(&(bytes.len() as u32).to_be_bytes())?;
        self.bytes(bytes)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.hasher.update(bytes);
        Ok(self.file.write_all(bytes)?)
    }
}

/// A segment in an archive: where its log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// The segment.
    pub address: SegmentAddress,
    /// How many changes it has.
    pub tip: Pos,
    /// The chain after the last.
    pub chain: Chain,
}

/// Reads an archive through, and verifies it: every hash, every log without a gap, and the whole. Calls
/// `visit` with the changes of each segment, in order.
///
/// # Errors
/// See [`ArchiveError`].
pub fn read_archive(
    path: &Path,
    visit: &mut dyn FnMut(&SegmentId, Vec<Vec<u8>>),
) -> Result<(ArchiveHeader, BTreeMap<SegmentId, Archived>), ArchiveError> {
    let mut reader =
        Parts { file: BufReader::new(File::open(path)?), hasher: blake3::Hasher::new() };
    if reader.bytes(MAGIC.len())? != MAGIC {
        return Err(ArchiveError::Damaged("it does not begin like one"));
    }
    let unreadable = |_| ArchiveError::Damaged("a part of it does not decode");
    let header: ArchiveHeader = minicbor::decode(&reader.part()?).map_err(unreadable)?;
    let mut segments: BTreeMap<SegmentId, Archived> = BTreeMap::new();
    loop {
        let part = reader.part()?;
        if part.is_empty() {
            break;
        }
        let stretch: Delta = minicbor::decode(&part).map_err(unreadable)?;
        let address = stretch.segment.address.clone();
        let address = address.ok_or(ArchiveError::Damaged("a segment has no name"))?;
        let id = stretch.segment.id;
        let of_it = address.ty == header.ty && address.generation == header.generation;
        if !of_it || address.id(&header.org) != id {
            return Err(ArchiveError::Damaged("a segment is not of it"));
        }
        let begun = Archived { address, tip: 0, chain: Chain::START };
        let segment = segments.entry(id).or_insert(begun);
        let chunks = batch::decode(&stretch.batch, RAW)
            .map_err(|_| ArchiveError::Damaged("changes do not decode"))?;
        if stretch.first != segment.tip + 1 {
            return Err(ArchiveError::Damaged("changes are missing"));
        }
        for chunk in &chunks {
            let header = ChangeHeader::parse(chunk);
            let header = header.map_err(|_| ArchiveError::Damaged("a change does not decode"))?;
            segment.chain = segment.chain.extend(&header.hash);
            segment.tip += 1;
        }
        if segment.chain != stretch.chain {
            return Err(ArchiveError::Damaged("changes are not those that were written"));
        }
        visit(&id, chunks);
    }
    let hash = *reader.hasher.finalize().as_bytes();
    let mut stated = [0; 32];
    reader.file.read_exact(&mut stated)?;
    if stated != hash {
        return Err(ArchiveError::Damaged("it is not what was written"));
    }
    Ok((header, segments))
}

struct Parts {
    file: BufReader<File>,
    hasher: blake3::Hasher,
}

impl Parts {
    fn part(&mut self) -> Result<Vec<u8>, ArchiveError> {
        let length = self.bytes(4)?.try_into().expect("four bytes");
        let length = u32::from_be_bytes(length);
        if length > PART {
            return Err(ArchiveError::Damaged("a part of it is longer than any is"));
        }
        self.bytes(length as usize)
    }

    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = Vec::new();
        let read = (&mut self.file).take(count as u64).read_to_end(&mut bytes)?;
        if read < count {
            return Err(ArchiveError::Damaged("it ends early"));
        }
        self.hasher.update(&bytes);
        Ok(bytes)
    }
}
