//! Files that people attach, and the lanes on which they go over, beside the session.
//!
//! The engines decide what goes when and to whom; their shells, which are async in the product, are done with
//! events here: frames of files on streams of their own, bytes verified group by group, parts that go on where
//! they end. What is left out: the window and the priority of a lane, and files from device to device.

use std::collections::BTreeMap;

use fieldkeep_catalog::AttachedFile;
use fieldkeep_model::{BlobHash, BlobTree, ChangeHash, RecordEdit, RecordKey, SegmentId};
use fieldkeep_protocol::blob::{BLOB_FRAME_MAX, Download, Possession, Ready, Tree, Unfit, Whole};
use fieldkeep_protocol::{FileFrame, FrameBuffer};
use fieldkeep_replica::Replica;
use fieldkeep_store::{Blobs as _, Records as _, StoreError, Upload};

use super::cabinet::{Coming, possession, tree_of};
use super::network::{Arrival, LineId, Side};
use super::oracle::{Checked, Oracle};
use super::plant::Plant;
use super::time::{MILLISECOND, Micros};
use super::workload::Worker;
use super::{Event, World};
use crate::Dice;

/// The first stream that is a lane.
pub(crate) const LANES: u64 = 1 << 40;
/// The pause before something is tried again that may be otherwise in a moment.
const MOMENT: Micros = 200 * MILLISECOND;
/// How often it is tried again on one connection.
const TRIES: u32 = 25;
/// Bytes that are sent at once.
const PIECE: usize = 64 * 1024;
/// Files that are looked at for what is lacking.
const LOOKED_AT: u32 = 64;

/// What a device does on a lane.
#[derive(Debug)]
enum Doing {
    Sends(Upload),
    Asks(RecordKey, BlobHash),
    Fetches(RecordKey, Coming),
}

/// A lane that a device has opened.
#[derive(Debug)]
pub(crate) struct Lane {
    buffer: FrameBuffer,
    doing: Doing,
    /// How often the relay had been put back.
    restores: u64,
}

impl Lane {
    fn hash(&self) -> BlobHash {
        match &self.doing {
            Doing::Sends(upload) => upload.hash,
            Doing::Asks(_, hash) => *hash,
            Doing::Fetches(_, coming) => coming.tree.hash(),
        }
    }
}

/// What a device's shell keeps of files.
#[derive(Debug, Default)]
pub(crate) struct Filing {
    lanes: BTreeMap<u64, Lane>,
    /// How many lanes it has opened.
    opened: u64,
    /// How often each file was not taken on this connection.
    tries: BTreeMap<BlobHash, u32>,
    /// Files that somebody waits for.
    wanted: BTreeMap<BlobHash, RecordKey>,
}

impl Filing {
    /// The connection is over.
    pub(crate) fn ends(&mut self) {
        self.lanes.clear();
        self.tries.clear();
    }

    fn rests(&self, hash: &BlobHash) -> bool {
        self.tries.get(hash).is_some_and(|tries| *tries >= TRIES)
    }
}

/// A file that somebody attached who has it.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    key: RecordKey,
    file: AttachedFile,
    segment: SegmentId,
    change: Option<ChangeHash>,
}

impl World {
    /// Somebody attaches a file to a visit: it is on the disk under its name before the record is.
    pub(crate) fn attaches(&mut self, at: usize, mut dice: Dice) -> Checked {
        let Some(key) = self.visit_of(at, &dice) else { return Ok(()) };
        let size = if dice.one_in(8) { 70_000 + dice.below(70_000) } else { 1 + dice.below(6_000) };
        let mut bytes = vec![0; size];
        blake3::Hasher::new().update(&dice.roll().to_be_bytes()).finalize_xof().fill(&mut bytes);
        let tree = tree_of(&bytes);
        let (field, name) = ("photos".to_owned(), format!("{:x}.png", dice.roll() as u16));
        let (hash, media, size) = (tree.hash(), "image/png".to_owned(), size as u64);
        let file = AttachedFile { field, hash, name, media, size };
        self.devices[at].files.whole.insert(hash, bytes);
        let edit: RecordEdit = vec![file.edit()].into();
        let attach =
            |engine: &mut fieldkeep_device::Engine, now| engine.attach(&key, &file, &tree, now);
        if let Some(wrote) = self.writes(at, &key, &edit, attach)? {
            self.figures.files[0] += 1;
            let (segment, change) = (wrote.segment, wrote.change.map(|(_, hash)| hash));
            self.attached.push(Attached { key, file, segment, change });
        }
        self.attends_files(at)
    }

    /// Somebody names a file of another territory in a record of his own, and asks for it.
    pub(crate) fn claims(&mut self, at: usize, mut dice: Dice) -> Checked {
        let Some(key) = self.visit_of(at, &dice) else { return Ok(()) };
        let home = self.devices[at].replica().and_then(|replica| {
            Some(replica.views().record(&key).ok()??.fields.get("territory")?.clone())
        });
        let strange = |attached: &&Attached| {
            let lies = self.relay.replica().and_then(|relay| relay.segment(&attached.segment));
            let away =
                lies.is_some_and(|row| home.as_ref().is_some_and(|h| *h != row.address.scope));
            away && !self.devices[at].files.whole.contains_key(&attached.file.hash)
        };
        let strange: Vec<AttachedFile> =
            self.attached.iter().filter(strange).map(|attached| attached.file.clone()).collect();
        if strange.is_empty() {
            return Ok(());
        }
        let file = dice.pick(&strange).clone();
        if self.puts(at, &key, &vec![file.edit()].into())? {
            self.devices[at].filing.wanted.insert(file.hash, key);
        }
        Ok(())
    }

    fn visit_of(&self, at: usize, dice: &Dice) -> Option<RecordKey> {
        let replica = self.devices[at].replica()?;
        let territory = self.workplace(at, dice);
        let (now_ms, dice) = (self.device_clock(at), dice.clone());
        Some(Worker { territory: &territory, replica, now_ms, dice }.any("visit")?.key)
    }

    /// Opens the lanes that there is something to do on: one file is sent and one fetched at a time.
    pub(crate) fn attends_files(&mut self, at: usize) -> Checked {
        let device = &self.devices[at];
        let Some(engine) = device.engine.as_ref().filter(|engine| engine.is_online()) else {
            return Ok(());
        };
        let Some(line) = device.line.filter(|_| !self.attached.is_empty()) else { return Ok(()) };
        let sends = |lane: &Lane| matches!(lane.doing, Doing::Sends(_));
        let sending = device.filing.lanes.values().any(sends);
        let fetching = device.filing.lanes.values().any(|lane| !sends(lane));
        let upload = if sending { Ok(None) } else { self.next_upload(at) };
        let download = if fetching { Ok(None) } else { self.next_download(at) };
        let upload = upload.map_err(|e| self.violation(Oracle::Contained, e.to_string()))?;
        let download = download.map_err(|e| self.violation(Oracle::Contained, e.to_string()))?;
        if let Some(upload) = upload {
            let brought = engine.upload(&upload);
            match brought.map_err(|e| self.violation(Oracle::Contained, e.to_string()))? {
                Some(brought) => {
                    self.goes_after_its_record(at, &upload)?;
                    self.opens_lane(at, line, Doing::Sends(upload), &FileFrame::Upload(brought));
                }
                None => self.wishes(at, |engine, _| Ok(engine.uploaded(&upload)?))?,
            }
        }
        if let Some((hash, record)) = download {
            let asked = FileFrame::Download(Download { hash, record: record.clone() });
            self.opens_lane(at, line, Doing::Asks(record, hash), &asked);
        }
        Ok(())
    }

    fn next_upload(&self, at: usize) -> Result<Option<Upload>, StoreError> {
        let device = &self.devices[at];
        let Some(engine) = device.engine.as_ref() else { return Ok(None) };
        let rested = device.filing.tries.keys().filter(|hash| device.filing.rests(hash)).copied();
        if self.planted(Plant::EarlyFile) {
            let mut uploads = engine.replica().store().uploads()?.into_iter();
            return Ok(uploads.find(|upload| !device.filing.rests(&upload.hash)));
        }
        engine.next_upload(&rested.collect())
    }

    /// What somebody waits for; every second device has whatever there is.
    fn next_download(&self, at: usize) -> Result<Option<(BlobHash, RecordKey)>, StoreError> {
        let device = &self.devices[at];
        let Some(engine) = device.engine.as_ref() else { return Ok(None) };
        let mut lacking: Vec<_> =
            device.filing.wanted.iter().map(|(hash, key)| (*hash, key.clone())).collect();
        if at.is_multiple_of(2) {
            let found = engine.replica().store().blobs_lacking(None, LOOKED_AT)?;
            lacking.extend(found.into_iter().map(|file| (file.hash, file.key)));
        }
        Ok(lacking.into_iter().find(|(hash, _)| !device.filing.rests(hash)))
    }

    /// Whether files wait that can go over the present connection.
    pub(crate) fn has_files_to_exchange(&self, at: usize) -> bool {
        !self.attached.is_empty()
            && (!self.devices[at].filing.lanes.is_empty()
                || self.next_upload(at).is_ok_and(|next| next.is_some())
                || self.next_download(at).is_ok_and(|next| next.is_some()))
    }

    fn opens_lane(&mut self, at: usize, line: LineId, doing: Doing, frame: &FileFrame) {
        let (restores, filing) = (self.relay.restores, &mut self.devices[at].filing);
        filing.opened += 1;
        let stream = LANES + filing.opened;
        filing.lanes.insert(stream, Lane { buffer: FrameBuffer::default(), doing, restores });
        self.says(line, Side::Device, stream, frame);
    }

    pub(crate) fn says(&mut self, line: LineId, from: Side, stream: u64, frame: &FileFrame) {
        self.send(line, from, Arrival::Bytes(stream, frame.encode()));
    }

    /// Sends a file's bytes from one on.
    pub(crate) fn gives(&mut self, line: LineId, from: Side, stream: u64, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE) {
            self.send(line, from, Arrival::Bytes(stream, piece.to_vec()));
        }
    }

    /// A device hears something on a lane.
    pub(crate) fn lane_hears(&mut self, line: LineId, stream: u64, bytes: &[u8]) -> Checked {
        let Some(at) = self.holder(line) else { return Ok(()) };
        let Some(mut lane) = self.devices[at].filing.lanes.remove(&stream) else { return Ok(()) };
        lane.buffer.push(bytes);
        let goes_on = self.goes_on_with_lane(at, (line, stream), &mut lane)?;
        if goes_on {
            self.devices[at].filing.lanes.insert(stream, lane);
            return Ok(());
        }
        self.after_step(at)
    }

    /// What a lane has brought; whether there is more to come.
    fn goes_on_with_lane(
        &mut self,
        at: usize,
        (line, stream): (LineId, u64),
        lane: &mut Lane,
    ) -> Checked<bool> {
        loop {
            if let Doing::Fetches(key, coming) = &mut lane.doing {
                let rest = lane.buffer.rest();
                return match self.devices[at].files.take(coming, &rest) {
                    Ok(false) => Ok(true),
                    Ok(true) => {
                        let hash = coming.tree.hash();
                        if self.has_fetched(at, key, &coming.tree.clone())? {
                            self.says(
                                line,
                                Side::Device,
                                stream,
                                &FileFrame::Whole(Whole { hash }),
                            );
                        }
                        Ok(false)
                    }
                    Err(_) => Ok(self.fails(at, coming.tree.hash())),
                };
            }
            let Ok(Some(frame)) = lane.buffer.next::<FileFrame>(BLOB_FRAME_MAX) else {
                return Ok(true);
            };
            match (&lane.doing, frame) {
                (_, FileFrame::Unfit(unfit)) => {
                    return Ok(self.is_unfit(at, lane, &unfit));
                }
                (Doing::Sends(upload), FileFrame::Prove(prove)) => {
                    let bytes = self.devices[at].files.whole.get(&upload.hash);
                    let digest = possession(bytes, &prove.salt);
                    let shown = FileFrame::Possession(Possession { digest });
                    self.says(line, Side::Device, stream, &shown);
                }
                (Doing::Sends(upload), FileFrame::Ready(ready)) => {
                    let bytes = self.devices[at].files.whole.get(&upload.hash).cloned();
                    let bytes = bytes.unwrap_or_default();
                    let from = (ready.from as usize).min(bytes.len());
                    self.gives(line, Side::Device, stream, &bytes[from..]);
                    if self.planted(Plant::ForgottenFile) {
                        return self.was_sent(at, lane);
                    }
                }
                (Doing::Sends(_), FileFrame::Whole(_)) => return self.was_sent(at, lane),
                (Doing::Asks(key, hash), FileFrame::Tree(tree)) => {
                    let (key, hash) = (key.clone(), *hash);
                    let Some(tree) = self.is_named(at, &key, hash, &tree) else {
                        return Ok(self.fails(at, hash));
                    };
                    let coming = self.devices[at].files.receive(tree);
                    let ready = FileFrame::Ready(Ready { from: coming.at });
                    lane.doing = Doing::Fetches(key, coming);
                    self.says(line, Side::Device, stream, &ready);
                    return Ok(true);
                }
                (Doing::Sends(_), FileFrame::Got(_)) => {}
                (_, frame) => {
                    let text = format!("device {at} is told {frame:?} of a file");
                    return Err(self.violation(Oracle::Contained, text));
                }
            }
        }
    }

    /// The tree of a file that was asked for, if the record names it with that size.
    fn is_named(
        &self,
        at: usize,
        key: &RecordKey,
        hash: BlobHash,
        tree: &Tree,
    ) -> Option<BlobTree> {
        let named = self.devices[at].engine.as_ref()?.files_named(key).ok()?;
        named.iter().find(|file| file.hash == hash && file.size == tree.size)?;
        BlobTree::new(hash, tree.size, &tree.tree).ok()
    }

    /// A file was not taken, or not given. It is tried again in a moment, some times.
    fn fails(&mut self, at: usize, hash: BlobHash) -> bool {
        *self.devices[at].filing.tries.entry(hash).or_default() += 1;
        self.events.plan(self.now + MOMENT, Event::Files(at, self.devices[at].life));
        false
    }

    fn is_unfit(&mut self, at: usize, lane: &Lane, unfit: &Unfit) -> bool {
        if !unfit.again {
            self.devices[at].filing.tries.insert(lane.hash(), TRIES);
        }
        let goes_on = self.fails(at, lane.hash());
        // Nobody gave it: who waited for it goes.
        let filing = &mut self.devices[at].filing;
        if filing.rests(&lane.hash()) {
            filing.wanted.remove(&lane.hash());
        }
        goes_on
    }

    /// It is looked once more whether there is something to do.
    pub(crate) fn looks_at_files(&mut self, at: usize, life: u64) -> Checked {
        let running = self.devices[at].life == life && self.devices[at].line.is_some();
        if running { self.after_step(at) } else { Ok(()) }
    }

    /// The relay has said that it has a file: it does, whole and durable.
    fn was_sent(&mut self, at: usize, lane: &Lane) -> Checked<bool> {
        let Doing::Sends(upload) = &lane.doing else { return Ok(false) };
        let there = self.relay_has_file(&upload.hash);
        if !there && lane.restores == self.relay.restores {
            let Upload { hash, key, .. } = upload;
            let text = format!("device {at} was told that {hash} of {key} is on the relay");
            return Err(self.violation(Oracle::Filed, format!("{text}, and it is not there whole")));
        }
        self.figures.files[1] += 1;
        self.wishes(at, |engine, _| Ok(engine.uploaded(upload)?))?;
        Ok(false)
    }

    fn relay_has_file(&self, hash: &BlobHash) -> bool {
        let store = self.relay.replica().map(Replica::store);
        let known = store
            .or(self.relay.store.as_ref())
            .is_some_and(|store| store.has_blob(hash).unwrap_or(false));
        known && self.relay.files.has(hash)
    }

    /// A file is here whole. Whether that is on the disk.
    fn has_fetched(&mut self, at: usize, key: &RecordKey, tree: &BlobTree) -> Checked<bool> {
        self.may_have(at, key, &tree.hash())?;
        self.figures.files[2] += 1;
        self.devices[at].filing.wanted.remove(&tree.hash());
        self.wishes(at, |engine, now| engine.fetched(key, tree, now))?;
        let disk = self.devices[at].disk();
        Ok(disk.is_some_and(|store| store.has_blob(&tree.hash()).unwrap_or(false)))
    }

    /// Whoever got a file may read a record for which somebody attached it who had it.
    fn may_have(&self, at: usize, key: &RecordKey, hash: &BlobHash) -> Checked {
        let Some(relay) = self.relay.replica() else { return Ok(()) };
        let row =
            relay.store().find(&key.ty, &key.id).ok().and_then(|rows| rows.into_iter().next());
        let segment = row.and_then(|row| relay.segments().values().find(|s| s.sid == row.sid));
        let member = relay.members().by_tls(&self.devices[at].tls);
        let right = segment.zip(member).is_some_and(|(segment, member)| {
            let shown =
                |attached: &Attached| (attached.segment, attached.file.hash) == (segment.id, *hash);
            member.may(&segment.address.ty, &segment.address.scope)
                && self.attached.iter().any(shown)
        });
        if right || self.relay.restores > 0 && segment.is_none() {
            return Ok(());
        }
        let text = format!("device {at} got {hash}, which nobody has attached for it to {key}");
        Err(self.violation(Oracle::Opened, text))
    }

    /// A file that leaves is named by a record that is on the relay.
    fn goes_after_its_record(&mut self, at: usize, upload: &Upload) -> Checked {
        let of = |attached: &&Attached| {
            (&attached.key, attached.file.hash) == (&upload.key, upload.hash)
        };
        let written: Vec<_> = self.attached.iter().filter(of).cloned().collect();
        let durable = written.iter().any(|attached| {
            attached.change.is_none_or(|hash| self.relay_holds(&attached.segment, &hash))
        });
        let elsewhere = written.is_empty() || self.relay.restores > 0 || self.may_be_forked();
        if durable || elsewhere {
            return Ok(());
        }
        let Upload { hash, key, .. } = upload;
        let text = format!("device {at} sends {hash} before {key} is on the relay");
        Err(self.violation(Oracle::Filed, text))
    }

    /// Whether a device that speaks with the relay has a file that it is to bring.
    pub(crate) fn owes_file(&self, at: usize) -> Option<Upload> {
        let (device, relay) = (&self.devices[at], self.relay.replica()?);
        let replica = device.replica().filter(|_| self.hears_the_relay(at))?;
        let member = relay.members().by_tls(&device.tls)?;
        replica.store().uploads().ok()?.into_iter().find(|upload| {
            let Upload { hash, key, .. } = upload;
            let unsaved = replica.views().record(key).ok().flatten().is_none_or(|v| v.unsaved);
            let named = relay.store().blob_named(hash).unwrap_or_default();
            let rows = relay.store().find(&key.ty, &key.id).unwrap_or_default();
            let mut lie = relay.segments().values().filter(|segment| {
                named.contains(&segment.sid) && rows.iter().any(|row| row.sid == segment.sid)
            });
            !unsaved && lie.any(|segment| member.may(&segment.address.ty, &segment.address.scope))
        })
    }

    /// Whether a file is on its way, or still to be sent.
    pub(crate) fn files_are_under_way(&self) -> bool {
        !self.attached.is_empty()
            && (0..self.devices.len())
                .any(|at| !self.devices[at].filing.lanes.is_empty() || self.owes_file(at).is_some())
    }

    /// Every file that somebody has who may bring it is on the relay, whole.
    pub(crate) fn files_were_kept(&mut self) -> Checked {
        for at in 0..self.devices.len() {
            if let Some(Upload { hash, key, failed, .. }) = self.owes_file(at) {
                let text = format!("device {at} has not brought {hash} of {key}: {failed:?}");
                return Err(self.violation(Oracle::Filed, text));
            }
        }
        for Attached { key, file, segment, .. } in &self.attached {
            let Some(relay) = self.relay.replica() else { return Ok(()) };
            let Some(row) = relay.segment(segment) else { continue };
            let named = relay.views().record(key).ok().flatten().is_some_and(|view| {
                let photos = view.fields.get("photos").map(ToString::to_string);
                !view.deleted && photos.is_some_and(|all| all.contains(&file.hash.to_string()))
            });
            let mut bringing = (0..self.devices.len()).filter(|at| self.hears_the_relay(*at));
            let brings = bringing.any(|at| {
                let member = relay.members().by_tls(&self.devices[at].tls);
                let replica = self.devices[at].replica();
                let opened = replica.and_then(|replica| {
                    let sid = replica.segment(segment)?.sid;
                    Some(replica.store().blob_opened(&file.hash).ok()?.contains(&sid))
                });
                opened == Some(true)
                    && self.devices[at].files.has(&file.hash)
                    && member.is_some_and(|m| m.may(&row.address.ty, &row.address.scope))
            });
            if named && brings && !self.relay_has_file(&file.hash) {
                let text = format!("the relay does not have {} of {key}", file.hash);
                return Err(self.violation(Oracle::Filed, text));
            }
        }
        Ok(())
    }
}
