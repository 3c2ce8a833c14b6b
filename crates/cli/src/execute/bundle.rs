//! Bundles: the files, and the loop around the engines that fill and read them. A file is written
//! whole or not at all.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek as _, Write};
use std::path::Path;

use fieldkeep_model::{Member, MembershipLog, PublicKey};
use fieldkeep_relay::{
    Accepting, Arriving, Content, Enclosing, Entry, Frame, NotTaken, Packed, ReadError, Reader,
    Subject, Survey, Unpacked, Unpacking, Writer, enclose,
};
use fieldkeep_store::BlobFiles;

use crate::access::{Owner, RelayOwner};
use crate::member::{self, only};
use crate::request::{Accept, Captured};
use crate::response::{Accepted, Bundled, Response, Unbundled, Untaken};
use crate::time::now_ms;
use fieldkeep_console::shape::Record;
use fieldkeep_console::{Code, Failure};

use super::read::Reading;

/// Entries that are taken into one commit of a relay.
const SLICE: usize = 64;
/// Bytes of changes of a revoked device's bundle that are accepted at once: all of them or none.
const ACCEPTED: usize = 64 * 1024 * 1024;

pub(super) fn export(
    owner: &Owner,
    path: &Path,
    who: &str,
    since: Option<&Path>,
    enclosing: Enclosing,
) -> Result<Response, Failure> {
    let mut since = since.map(open).transpose()?;
    let failed = |error: std::io::Error| Failure::file(path, &error);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    // Without the name under which it is written: that is another one each time.
    let made = tempfile::NamedTempFile::new_in(parent.unwrap_or(Path::new(".")));
    let file = made.map_err(|error| failed(error.kind().into()))?;
    let mut writer = BufWriter::new(file);
    let bundled = match owner {
        Owner::Device(owner) => {
            let device = &owner.device;
            let relay = (who == "relay").then(|| device.relay_key()).transpose()?;
            let (to, key) = match relay {
                Some(key) => (who.to_owned(), key),
                None => named(&device.members(), who)?,
            };
            let since = since.as_mut().map(|file| file as &mut dyn Read);
            let written = device.export_bundle(&mut writer, &key, since, enclosing)?;
            bundled(to, written.packed, written.bytes)
        }
        Owner::Relay(relay) => export_from_relay(relay, &mut writer, who, since, enclosing)?,
    };
    let file = writer.into_inner().map_err(|error| failed(error.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(Response::Bundled(bundled))
}

fn named(members: &MembershipLog, who: &str) -> Result<(String, PublicKey), Failure> {
    let member = member::find(members, who)?;
    Ok((member.name.clone(), member.keys.signing))
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| Failure::file(path, &error))
}

fn export_from_relay(
    relay: &RelayOwner,
    writer: &mut impl Write,
    who: &str,
    since: Option<File>,
    enclosing: Enclosing,
) -> Result<Bundled, Failure> {
    let since = since.map(|file| Survey::of(BufReader::new(file))).transpose()?;
    relay.settle()?;
    let members = relay.with_engine(|engine| Ok(engine.replica().members().clone()))?;
    let (to, key) = named(&members, who)?;
    let (header, mut packing, keys) = relay.with_engine(move |engine| {
        let (header, packing) = engine.pack(now_ms(), &key, since, enclosing)?;
        Ok((header, packing, engine.replica().me().keys.clone()))
    })?;
    let failed = |error: std::io::Error| {
        Failure::new(Code::Failure, format!("the bundle cannot be written: {error}"), "")
    };
    let files = BlobFiles::of(relay.directory());
    let mut writer = Writer::new(writer, &header).map_err(failed)?;
    loop {
        let (back, content) = relay.with_engine(move |engine| {
            let content = engine.pack_more(&mut packing)?;
            Ok((packing, content))
        })?;
        packing = back;
        match content {
            Some(Content::Frames(frames)) => writer.frames(&frames),
            Some(Content::File(file)) => {
                enclose(&mut writer, &files, &file).map(|whole| packing.note_file(&file, whole))
            }
            None => break,
        }
        .map_err(failed)?;
    }
    let (_, bytes) = writer.finish(&keys).map_err(failed)?;
    Ok(bundled(to, packing.packed(), bytes))
}

fn bundled(to: String, packed: Packed, bytes: u64) -> Bundled {
    let Packed { changes, receipts, files, file_bytes, unread_files, .. } = packed;
    Bundled { to, changes, receipts, files, file_bytes, unread_files, bytes, encrypted: false }
}

pub(super) fn import(owner: &Owner, path: &Path) -> Result<Response, Failure> {
    let mut file = open(path)?;
    let unpacked = match owner {
        Owner::Device(owner) => owner.device.import_bundle(&mut file)?,
        Owner::Relay(relay) => import_into_relay(relay, &mut file)?,
    };
    Ok(Response::Unbundled(unbundled(unpacked)))
}

fn import_into_relay(relay: &RelayOwner, file: &mut File) -> Result<Unpacked, Failure> {
    let survey = Survey::of(BufReader::new(&mut *file))?;
    file.rewind().map_err(|error| Failure::from(ReadError::Io(error)))?;
    let mut reader = Reader::open(BufReader::new(file))?;
    let mut unpacking = relay.with_engine(move |engine| Ok(engine.unpack(now_ms(), &survey)??))?;
    loop {
        let entries = reader.entries(SLICE)?;
        if entries.is_empty() {
            break;
        }
        unpacking = relay.with_engine(move |engine| {
            for entry in entries {
                engine.unpack_entry(now_ms(), &mut unpacking, entry)?;
            }
            Ok(unpacking)
        })?;
    }
    // What came is judged before this says so: the next bundle brings back what became of it. Wishes
    // and files are about what is judged.
    relay.settle()?;
    unpacking = relay.with_engine(move |engine| {
        engine.unpack_wishes(now_ms(), &mut unpacking)?;
        Ok(unpacking)
    })?;
    Ok(take_files(relay, reader, unpacking)?.unpacked().clone())
}

/// Takes the files in that a bundle brings, once everything else of it is judged.
fn take_files(
    relay: &RelayOwner,
    mut reader: Reader<BufReader<&mut File>>,
    mut unpacking: Unpacking,
) -> Result<Unpacking, Failure> {
    let (files, bringer) = (BlobFiles::of(relay.directory()), reader.header().from);
    while let Some(file) = reader.next_file()? {
        let asked = file.clone();
        let (back, brought) = relay.with_engine(move |engine| {
            let brought = engine.unpack_file(now_ms(), &unpacking, &asked)?;
            Ok((unpacking, brought))
        })?;
        unpacking = back;
        let arriving = Arriving::begin(brought, file.file.size, &files, &bringer)?;
        let arrived = arriving.take_from(&mut reader)?;
        unpacking = relay.with_engine(move |engine| {
            engine.file_unpacked(now_ms(), &mut unpacking, &file, arrived)?;
            Ok(unpacking)
        })?;
    }
    relay.settle()?;
    Ok(unpacking)
}

/// Takes what a revoked device captured, as far as an operator goes.
pub(super) fn accept(
    owner: &Owner,
    captured: Captured,
    who: String,
    how: Accept,
) -> Result<Response, Failure> {
    let relay = super::relay::relay(owner)?;
    let accepting = match how {
        Accept::Try => Accepting::Trying,
        Accept::KeepAside => Accepting::KeepingAside,
        Accept::Write => Accepting::Writing,
    };
    match captured {
        Captured::Bundle(path) => accept_bundle(relay, &path, who, accepting),
        Captured::Aside(device) => {
            let number = only(&Reading::open(owner)?.members, &device)?;
            relay.settle()?;
            let (accepted, members) = relay.with_engine(move |engine| {
                let accepted = engine.accept_aside((now_ms(), &*who), number, accepting)??;
                Ok((accepted, engine.replica().members().clone()))
            })?;
            relay.settle()?;
            Ok(told_of(accepted, Unpacked::default(), &members))
        }
    }
}

fn accept_bundle(
    relay: &RelayOwner,
    path: &Path,
    who: String,
    accepting: Accepting,
) -> Result<Response, Failure> {
    let mut file = open(path)?;
    let survey = Survey::of(BufReader::new(&mut file))?;
    file.rewind().map_err(|error| Failure::from(ReadError::Io(error)))?;
    let mut reader = Reader::open(BufReader::new(&mut file))?;
    let (mut pushes, mut bytes) = (Vec::new(), 0);
    loop {
        let entries = reader.entries(SLICE)?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            if let Entry::Frame(Frame::Push(push)) = entry {
                bytes += push.batch.len();
                pushes.push(push);
            }
        }
        if bytes > ACCEPTED {
            let message = format!("the bundle has more than {ACCEPTED} bytes of changes");
            let remedy = "nothing was changed: so much is not accepted at once";
            return Err(Failure::new(Code::Failure, message, remedy));
        }
    }
    relay.settle()?;
    let (accepted, members) = relay.with_engine(move |engine| {
        let accepted = engine.accept((now_ms(), &*who), &survey, pushes, accepting)??;
        Ok((accepted, engine.replica().members().clone()))
    })?;
    relay.settle()?;
    let mut taken = Unpacked::default();
    if accepting == Accepting::Writing
        && let Some(unpacking) = relay.with_engine(|engine| Ok(engine.accept_files()))?
    {
        taken = take_files(relay, reader, unpacking)?.unpacked().clone();
    }
    Ok(told_of(accepted, taken, &members))
}

fn told_of(
    (author, accepted): (Member, fieldkeep_replica::Accepted),
    taken: Unpacked,
    members: &MembershipLog,
) -> Response {
    let refused = accepted.refused.into_iter().map(|(segment, refused)| Untaken {
        segment: Some(segment.to_string()),
        record: None,
        file: None,
        code: refused.code.to_owned(),
        text: refused.text,
    });
    let undeclared = accepted.undeclared.into_iter().map(|segment| Untaken {
        segment: Some(segment.to_string()),
        record: None,
        file: None,
        code: "undeclared".to_owned(),
        text: "the relay's catalog has no such type, or divides it otherwise".to_owned(),
    });
    let files = taken.not_taken.into_iter().map(untaken);
    let records = accepted.records.into_iter().map(|view| Record::new(view, members));
    Response::Accepted(Box::new(Accepted {
        from: author.name,
        number: author.number,
        known: accepted.known,
        aside: accepted.aside,
        written: accepted.written,
        carried: accepted.carried,
        files: taken.files,
        records: records.collect(),
        absent: accepted.absent.iter().map(ToString::to_string).collect(),
        not_taken: refused.chain(undeclared).chain(files).collect(),
    }))
}

fn unbundled(unpacked: Unpacked) -> Unbundled {
    Unbundled {
        from: unpacked.from,
        changes: unpacked.changes,
        files: unpacked.files,
        saved: unpacked.saved,
        saved_files: unpacked.saved_files,
        aside: unpacked.aside,
        proven: unpacked.proven,
        left_out: unpacked.left_out,
        refused: unpacked.refused,
        not_taken: unpacked.not_taken.into_iter().map(untaken).collect(),
        unequal: unpacked.unequal.iter().map(ToString::to_string).collect(),
    }
}

fn untaken(NotTaken { subject, code, text }: NotTaken) -> Untaken {
    let (segment, record, file) = match subject {
        Subject::Segment(..) => (Some(subject.to_string()), None, None),
        Subject::File(record, hash) => (None, Some(record.to_string()), Some(hash.to_string())),
    };
    Untaken { segment, record, file, code, text }
}
