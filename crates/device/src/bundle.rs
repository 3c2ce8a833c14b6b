//! Carrying by hand: bundles, for places where there is no network at all.
//!
//! What was written here goes into a file for one member, and what that member has comes back in
//! another. A bundle is read through before anything of it is taken; it is then taken in slices, each
//! durable, and its files one after the other; taking it again changes nothing. Opens no bundle: the
//! application does.

use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

use fieldkeep_model::PublicKey;
use fieldkeep_protocol::bundle::{
    Content, Enclosing, Packed, ReadError, Reader, Survey, Unfit, Unpacked, Writer,
};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{BlobFiles, StoreError};
use fieldkeep_transfer::{ArriveError, Arriving, enclose};

use crate::device::{Device, now};
use crate::engine::{Engine, Unpacking};

/// Entries that are taken into one commit: others write between two of them.
const SLICE: usize = 16;

/// Why no bundle was written, or one was not taken.
///
/// ```
/// # use fieldkeep_device::{BundleError, Enclosing};
/// # fieldkeep_lab::camp::example(async |device| {
/// let stranger = fieldkeep_model::KeyPair::from_secret([7; 32]).public();
/// let refused = device.export_bundle(&mut Vec::new(), &stranger, None, Enclosing::Files);
/// assert!(refused.is_err()); // Nobody in the organisation has that key.
/// let refused = device.import_bundle(&mut std::io::Cursor::new(b"no bundle"));
/// assert!(matches!(refused, Err(BundleError::Read(_))));
/// # Ok(()) });
/// ```
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It cannot be read: nothing of it was taken.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not for this device, not from a member, or does not go on where this device stands.
    #[error("{}", .0)]
    Unfit(Unfit),
    /// There is no such member.
    #[error("nobody in the organisation has that key")]
    Unknown,
    /// It cannot be written.
    #[error("the bundle cannot be written: {0}")]
    Write(io::Error),
    /// The store failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<StoreError> for BundleError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

impl From<ArriveError> for BundleError {
    fn from(error: ArriveError) -> Self {
        match error {
            ArriveError::Read(error) => error.into(),
            ArriveError::Store(error) => error.into(),
        }
    }
}

impl From<Unfit> for BundleError {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

/// A bundle that was written.
///
/// ```
/// # use fieldkeep_device::Enclosing;
/// # fieldkeep_lab::camp::example(async |device| {
/// let relay = device.relay_key()?;
/// let bundled = device.export_bundle(&mut std::io::sink(), &relay, None, Enclosing::Files)?;
/// assert_eq!((bundled.packed.changes, bundled.packed.files), (0, 0)); // The relay has all of it.
/// assert!(bundled.bytes > 0); // It asks for what the relay has to tell.
/// # Ok(()) });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bundled {
    /// What is in it.
    pub packed: Packed,
    /// Its size, in bytes.
    pub bytes: u64,
}

impl Device {
    /// The signing key of the relay, for whom a bundle may be.
    ///
    /// ```
    /// # use fieldkeep_device::Enclosing::Files;
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let bundled = device.export_bundle(&mut Vec::new(), &device.relay_key()?, None, Files)?;
    /// assert_eq!(bundled.packed.changes, 0); // It has given a receipt for all of them.
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`BundleError::Unknown`] where the membership log has none: the directory is damaged.
    pub fn relay_key(&self) -> Result<PublicKey, BundleError> {
        let members = self.members();
        let relay = members.members().values().find(|member| member.relay);
        relay.map(|relay| relay.keys.signing).ok_or(BundleError::Unknown)
    }

    /// Writes a bundle for the member of that signing key: for the relay what has no receipt, for
    /// another device all that both may read, attached files with it unless none are to be enclosed. It
    /// is not encrypted. With `since`, an earlier bundle between the two, whoever wrote it: only what
    /// that does not show the other to have.
    ///
    /// ```
    /// # use fieldkeep_device::Enclosing;
    /// # use fieldkeep_model::{Edit, Scalar};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let name = vec![Edit::Put("name".into(), Scalar::Str("Pier".into()))];
    /// device.put(&"customer/c2".parse()?, &name.into())?;
    /// let mut file = Vec::new();
    /// let relay = device.relay_key()?;
    /// let bundled = device.export_bundle(&mut file, &relay, None, Enclosing::Files)?;
    /// assert_eq!((bundled.packed.changes, bundled.bytes), (1, file.len() as u64));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`BundleError`]; what was written by then is no bundle.
    pub fn export_bundle(
        &self,
        out: &mut impl Write,
        to: &PublicKey,
        since: Option<&mut dyn Read>,
        enclosing: Enclosing,
    ) -> Result<Bundled, BundleError> {
        let since = since.map(|since| Survey::of(BufReader::new(since))).transpose()?;
        let mut engine = self.engine();
        self.settle(&mut engine)?;
        let packing = engine.pack(now(), to, since, enclosing);
        let (header, mut packing) = self.kept(&mut engine, packing)??;
        let keys = engine.replica().me().keys.clone();
        drop(engine);
        let files = BlobFiles::of(self.directory());
        let mut writer = Writer::new(out, &header).map_err(BundleError::Write)?;
        loop {
            let mut engine = self.engine();
            // Nothing leaves that is not on the disk.
            self.settle(&mut engine)?;
            let more = engine.pack_more(&mut packing);
            let more = self.kept(&mut engine, more)?;
            drop(engine);
            match more {
                Some(Content::Frames(frames)) => writer.frames(&frames),
                Some(Content::File(file)) => {
                    enclose(&mut writer, &files, &file).map(|whole| packing.note_file(&file, whole))
                }
                None => break,
            }
            .map_err(BundleError::Write)?;
        }
        let (_, bytes) = writer.finish(&keys).map_err(BundleError::Write)?;
        Ok(Bundled { packed: packing.packed(), bytes })
    }

    /// Takes a bundle in that somebody wrote for this device. It is read twice: once to see that it is
    /// what its writer signed, and once to take it.
    ///
    /// ```
    /// # use std::io::Cursor;
    /// # use fieldkeep_device::{BundleError, Enclosing};
    /// # fieldkeep_lab::camp::example(async |device| {
    /// let mut file = Vec::new();
    /// device.export_bundle(&mut file, &device.relay_key()?, None, Enclosing::NoFiles)?;
    /// // It is for the relay, and nobody else takes it.
    /// let refused = device.import_bundle(&mut Cursor::new(file));
    /// assert!(matches!(refused, Err(BundleError::Unfit(_))));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`BundleError`]. Unless the store fails, nothing was changed then; what is refused of a
    /// bundle that is sound is told in [`Unpacked::not_taken`], and the rest of it was taken.
    pub fn import_bundle(&self, file: &mut (impl Read + Seek)) -> Result<Unpacked, BundleError> {
        let begin = file.stream_position().map_err(ReadError::Io)?;
        let survey = Survey::of(BufReader::new(&mut *file))?;
        file.seek(SeekFrom::Start(begin)).map_err(ReadError::Io)?;
        let mut reader = Reader::open(BufReader::new(file))?;
        let mut engine = self.engine();
        self.0.identify(&mut engine)?;
        let unpacking = engine.unpack(now(), survey);
        let mut unpacking = self.kept(&mut engine, unpacking)??;
        self.settle(&mut engine)?;
        drop(engine);
        loop {
            let entries = reader.entries(SLICE)?;
            if entries.is_empty() {
                break;
            }
            let mut engine = self.engine();
            for entry in entries {
                let taken = engine.unpack_entry(now(), &mut unpacking, entry);
                let taken = self.kept(&mut engine, taken)?;
                if let Err(unfit) = taken {
                    self.undo(&mut engine)?;
                    return Err(unfit.into());
                }
            }
            self.settle(&mut engine)?;
        }
        let mut engine = self.engine();
        let ended = engine.unpack_end(&mut unpacking);
        self.kept(&mut engine, ended)?;
        self.settle(&mut engine)?;
        while engine.work(now())? {
            self.settle(&mut engine)?;
            drop(engine);
            engine = self.engine();
        }
        drop(engine);
        self.take_files(&mut reader, &mut unpacking)?;
        Ok(unpacking.unpacked().clone())
    }

    /// Takes the files in that come behind all else.
    fn take_files(
        &self,
        reader: &mut Reader<impl Read>,
        unpacking: &mut Unpacking,
    ) -> Result<(), BundleError> {
        let files = BlobFiles::of(self.directory());
        while let Some(file) = reader.next_file()? {
            let mut engine = self.engine();
            let brought = engine.unpack_file(now(), unpacking, &file);
            let brought = self.kept(&mut engine, brought)?;
            drop(engine);
            let arriving = Arriving::begin(brought, file.file.size, &files)?;
            let arrived = arriving.take_from(reader)?;
            let mut engine = self.engine();
            let noted = engine.file_unpacked(now(), unpacking, &file, arrived);
            self.kept(&mut engine, noted)?;
            self.settle(&mut engine)?;
            drop(engine);
            self.0.transfers.has_come(&file.file.hash);
        }
        Ok(())
    }

    /// What was done with the engine; nothing of it is kept where it failed.
    fn kept<T>(
        &self,
        engine: &mut Engine,
        done: Result<T, ReplicaError>,
    ) -> Result<T, BundleError> {
        if done.is_err() {
            self.undo(engine)?;
        }
        Ok(done?)
    }

    /// Drops what was done since the last commit.
    fn undo(&self, engine: &mut Engine) -> Result<(), ReplicaError> {
        engine.replica_mut().forget()?;
        self.0.identify_again(engine)
    }

    /// Makes durable what was done, and lets out what that lets out.
    fn settle(&self, engine: &mut Engine) -> Result<(), ReplicaError> {
        let outputs = engine.commit()?;
        self.0.deliver(engine, outputs);
        Ok(())
    }
}
