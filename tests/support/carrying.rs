//! Carrying by hand: bundles of devices and of a relay, as the command line writes and takes them.

use std::io::Cursor;

use fieldkeep_device::{BundleError, Device, Enclosing, Unfit, Unpacked};
use fieldkeep_model::{PublicKey, Seed};
use fieldkeep_protocol::Frame;
use fieldkeep_protocol::bundle::{Content, Enclosure, Entry, Reader, Survey, Writer};
use fieldkeep_relay::{Arriving, Engine, enclose};
use fieldkeep_store::BlobFiles;

use super::Site;

pub(crate) const NOW: i64 = 1_800_000_000_000;

pub(crate) fn key(device: &Device) -> PublicKey {
    device.member().expect("it is a member").keys.signing
}

pub(crate) fn pack(device: &Device, to: &PublicKey, since: Option<&[u8]>) -> Vec<u8> {
    let (mut file, mut since) = (Vec::new(), since);
    let since = since.as_mut().map(|since| since as &mut dyn std::io::Read);
    device.export_bundle(&mut file, to, since, Enclosing::Files).expect("it is written");
    file
}

pub(crate) fn for_relay(device: &Device, since: Option<&[u8]>) -> Vec<u8> {
    pack(device, &device.relay_key().expect("there is one"), since)
}

pub(crate) fn take(device: &Device, file: &[u8]) -> Result<Unpacked, BundleError> {
    device.import_bundle(&mut Cursor::new(file))
}

pub(crate) fn taken(device: &Device, file: &[u8]) -> Unpacked {
    let unpacked = take(device, file).expect("it is taken");
    assert_eq!((&unpacked.not_taken[..], unpacked.unequal.len()), (&[][..], 0));
    unpacked
}

/// What the relay writes for a device.
pub(crate) async fn from_relay(site: &Site, device: &Device, since: Option<&[u8]>) -> Vec<u8> {
    let (to, files) = (key(device), BlobFiles::of(&site.path("relay")));
    let since = since.map(|since| Survey::of(since).expect("a bundle"));
    let packed = site.ask(move |engine| {
        judge(engine);
        let (header, mut packing) = engine.pack(NOW, &to, since, Enclosing::Files)?;
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, &header).expect("memory");
        while let Some(content) = engine.pack_more(&mut packing).expect("it reads") {
            match content {
                Content::Frames(frames) => writer.frames(&frames).expect("memory"),
                Content::File(file) => {
                    assert!(enclose(&mut writer, &files, &file).expect("memory"), "all of it");
                    packing.note_file(&file, true);
                }
            }
        }
        writer.finish(&engine.replica().me().keys.clone()).expect("memory");
        Ok::<_, Unfit>(file)
    });
    packed.await.expect("a member gets one")
}

/// The relay takes a bundle in.
pub(crate) async fn into_relay(site: &Site, file: &[u8]) -> Result<Unpacked, Unfit> {
    let (file, files) = (file.to_vec(), BlobFiles::of(&site.path("relay")));
    site.ask(move |engine| {
        let survey = Survey::of(&file[..]).expect("a bundle");
        let mut unpacking = engine.unpack(NOW, &survey).expect("it is kept")?;
        let mut reader = Reader::open(&file[..]).expect("a bundle");
        for entry in reader.entries(usize::MAX).expect("it reads") {
            engine.unpack_entry(NOW, &mut unpacking, entry).expect("it is kept");
        }
        judge(engine);
        engine.unpack_wishes(NOW, &mut unpacking).expect("it is kept");
        while let Some(file) = reader.next_file().expect("it reads") {
            let brought = engine.unpack_file(NOW, &unpacking, &file).expect("it looks");
            let bringer = reader.header().from;
            let arriving = Arriving::begin(brought, file.file.size, &files, &bringer);
            let arriving = arriving.expect("it begins");
            let arrived = arriving.take_from(&mut reader).expect("it reads");
            engine.file_unpacked(NOW, &mut unpacking, &file, arrived).expect("it is kept");
        }
        Ok(unpacking.unpacked().clone())
    })
    .await
}

fn judge(engine: &mut Engine) {
    while engine.work(NOW).expect("it judges") {
        engine.replica_mut().commit().expect("it is saved");
    }
}

/// What a bundle consists of, but for the bytes of its files.
pub(crate) fn entries(file: &[u8]) -> Vec<Entry> {
    let mut reader = Reader::open(file).expect("a bundle");
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().expect("an entry") {
        entries.extend((!matches!(entry, Entry::Piece(_))).then_some(entry));
    }
    entries
}

/// Its frames.
pub(crate) fn frames(file: &[u8]) -> Vec<Frame> {
    let entries = entries(file).into_iter();
    let frames = entries.filter_map(|entry| match entry {
        Entry::Frame(frame) => Some(frame),
        Entry::Enclosed(_) | Entry::Piece(_) => None,
    });
    frames.collect()
}

/// The frames of a bundle, changed, and its files, under another's signature.
pub(crate) fn rewritten(
    file: &[u8],
    seed: &Seed,
    mut change: impl FnMut(Frame) -> Frame,
    mut change_file: impl FnMut(&mut Enclosure, &mut Vec<u8>),
) -> Vec<u8> {
    let mut reader = Reader::open(file).expect("a bundle");
    let mut header = reader.header().clone();
    header.from = seed.signing().public();
    let mut forged = Vec::new();
    let mut writer = Writer::new(&mut forged, &header).expect("memory");
    for entry in reader.entries(usize::MAX).expect("it reads") {
        let bytes = match entry {
            Entry::Frame(frame) => change(frame).encode(),
            Entry::Enclosed(enclosed) => enclosed.encode(),
            Entry::Piece(_) => unreachable!("files come last"),
        };
        writer.frames(&bytes).expect("memory");
    }
    while let Some(mut file) = reader.next_file().expect("it reads") {
        let mut bytes = Vec::new();
        while let Some(piece) = reader.next_piece().expect("it reads") {
            bytes.extend(piece);
        }
        change_file(&mut file, &mut bytes);
        writer.file(&file, &mut &bytes[..]).expect("memory");
    }
    writer.finish(&seed.signing()).expect("memory");
    forged
}

/// The secret seed of a device that nobody uses at the moment.
pub(crate) fn seed_of(site: &Site, name: &str) -> Seed {
    let path = fieldkeep_store::home::key(&site.path(name));
    fieldkeep_link::KeyFile::open(path).expect("its key")
}
