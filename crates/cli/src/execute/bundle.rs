//! Bundles: the files, and the loop around the engines that fill and read them. A file is written
//! whole or not at all.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek as _, Write};
use std::path::Path;

use fieldkeep_model::{MembershipLog, PublicKey};
use fieldkeep_relay::{Reader, Survey, Writer};

use crate::access::{Owner, RelayOwner};
use crate::member;
use crate::request::{Bundled, Response, Unbundled, Untaken};
use crate::time::now_ms;
use fieldkeep_console::{Code, Failure};

/// Frames that are taken into one commit of a relay.
const SLICE: usize = 64;

pub(super) fn export(
    owner: &Owner,
    path: &Path,
    who: &str,
    since: Option<&Path>,
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
            let bundled = device.export_bundle(&mut writer, &key, since)?;
            let (changes, bytes) = (bundled.packed.changes, bundled.bytes);
            Bundled { to, changes, receipts: 0, bytes, encrypted: false }
        }
        Owner::Relay(relay) => export_from_relay(relay, &mut writer, who, since)?,
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
) -> Result<Bundled, Failure> {
    let since = since.map(|file| Survey::of(BufReader::new(file))).transpose()?;
    relay.settle()?;
    let members = relay.with_engine(|engine| Ok(engine.replica().members().clone()))?;
    let (to, key) = named(&members, who)?;
    let (header, mut packing, keys) = relay.with_engine(move |engine| {
        let (header, packing) = engine.pack(now_ms(), &key, since)?;
        Ok((header, packing, engine.replica().me().keys.clone()))
    })?;
    let failed = |error: std::io::Error| {
        Failure::new(Code::Failure, format!("the bundle cannot be written: {error}"), "")
    };
    let mut writer = Writer::new(writer, &header).map_err(failed)?;
    loop {
        let (back, frames) = relay.with_engine(move |engine| {
            let frames = engine.pack_more(&mut packing)?;
            Ok((packing, frames))
        })?;
        packing = back;
        let Some(frames) = frames else { break };
        writer.frames(&frames).map_err(failed)?;
    }
    let (_, bytes) = writer.finish(&keys).map_err(failed)?;
    let packed = packing.packed();
    let (changes, receipts) = (packed.changes, packed.receipts);
    Ok(Bundled { to, changes, receipts, bytes, encrypted: false })
}

pub(super) fn import(owner: &Owner, path: &Path) -> Result<Response, Failure> {
    let mut file = open(path)?;
    let unbundled = match owner {
        Owner::Device(owner) => {
            let unpacked = owner.device.import_bundle(&mut file)?;
            Unbundled {
                from: unpacked.from,
                changes: unpacked.changes,
                saved: unpacked.saved,
                aside: 0,
                proven: unpacked.proven,
                left_out: unpacked.left_out,
                refused: unpacked.refused,
                not_taken: unpacked
                    .not_taken
                    .into_iter()
                    .map(|one| Untaken {
                        segment: one.segment.to_string(),
                        code: one.code,
                        text: one.text,
                    })
                    .collect(),
                unequal: unpacked.unequal.iter().map(ToString::to_string).collect(),
            }
        }
        Owner::Relay(relay) => import_into_relay(relay, &mut file)?,
    };
    Ok(Response::Unbundled(unbundled))
}

fn import_into_relay(relay: &RelayOwner, file: &mut File) -> Result<Unbundled, Failure> {
    let survey = Survey::of(BufReader::new(&mut *file))?;
    file.rewind().map_err(|error| Failure::from(fieldkeep_relay::ReadError::Io(error)))?;
    let mut reader = Reader::open(BufReader::new(file))?;
    let mut unpacking = relay.with_engine(move |engine| Ok(engine.unpack(now_ms(), survey)??))?;
    let mut more = true;
    while more {
        let mut slice = Vec::new();
        while more && slice.len() < SLICE {
            let frame = reader.next_frame()?;
            more = frame.is_some();
            slice.extend(frame);
        }
        unpacking = relay.with_engine(move |engine| {
            for frame in slice {
                engine.unpack_frame(now_ms(), &mut unpacking, frame)?;
            }
            Ok(unpacking)
        })?;
    }
    // What came is judged before this says so: the next bundle brings back what became of it.
    relay.settle()?;
    let unpacked = unpacking.unpacked().clone();
    let untaken = unpacked.not_taken.into_iter().map(|one| Untaken {
        segment: one.segment.map(|segment| segment.to_string()).unwrap_or_default(),
        code: one.code,
        text: one.text,
    });
    Ok(Unbundled {
        from: unpacked.from,
        changes: unpacked.changes,
        aside: unpacked.aside,
        refused: unpacked.refused,
        not_taken: untaken.collect(),
        ..Unbundled::default()
    })
}
