//! Attached files in bundles: for the relay those that wait to be sent, for a device those that it might
//! fetch here; and taking them in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fieldkeep_catalog::{AttachedFile, Attachments};
use fieldkeep_model::{BlobHash, BlobTree, Member, RecordKey, SegmentId};
use fieldkeep_protocol::blob::Upload as Brings;
use fieldkeep_protocol::bundle::{Content, Enclosing, Enclosure, Has, Subject, Survey};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Blobs as _, Records as _, SegmentRow, StoreError, Upload};
use fieldkeep_transfer::{Arrived, Brought, Enclosures, upload};

use super::{Packing, Unpacking};
use crate::engine::Engine;

/// Why a file is passed over of whose records nothing was taken either.
const LEFT_OUT: &str = "left-out";

/// The files of a bundle in the making.
#[derive(Debug)]
pub(super) struct Files {
    enclosing: Enclosing,
    enclosures: Enclosures,
    /// What waits to be sent to the relay, failed or not.
    waiting: BTreeMap<BlobHash, BTreeSet<RecordKey>>,
    /// Those that go to it by this bundle.
    sends: VecDeque<(BlobHash, RecordKey)>,
}

/// A file as a record here names it.
struct Named {
    row: SegmentRow,
    file: AttachedFile,
    attachments: Attachments,
    /// Whether it does as merged.
    merged: bool,
}

impl Engine {
    /// What is to be said of files in a bundle with these segments, and which of them go in.
    pub(super) fn files_to_pack(
        &self,
        member: &Member,
        since: Option<&Survey>,
        segments: &[SegmentId],
        enclosing: Enclosing,
    ) -> Result<Files, ReplicaError> {
        let rows = segments.iter().filter_map(|id| self.replica.segment(id));
        let places = rows.map(|row| (row.sid, (row.id, row.address.ty.clone())));
        let enclosures = Enclosures::of(places.collect());
        let mut waiting: BTreeMap<BlobHash, BTreeSet<RecordKey>> = BTreeMap::new();
        let mut sends = VecDeque::new();
        for Upload { hash, key, failed, .. } in self.replica.store().uploads()? {
            if member.relay
                && failed.is_none()
                && self.is_to_send(since, &enclosures, hash, &key)?
            {
                sends.push_back((hash, key.clone()));
            }
            waiting.entry(hash).or_default().insert(key);
        }
        Ok(Files { enclosing, enclosures, waiting, sends })
    }

    /// Whether a file goes to the relay: a record that is exchanged names it still, and the earlier
    /// bundle neither brought it for that record nor says that it is there.
    fn is_to_send(
        &self,
        since: Option<&Survey>,
        enclosures: &Enclosures,
        hash: BlobHash,
        key: &RecordKey,
    ) -> Result<bool, ReplicaError> {
        let named = self.named(key, &hash)?;
        let named = named.filter(|n| n.merged && enclosures.place(n.row.sid).is_some());
        let Some(named) = named else { return Ok(false) };
        let Some(since) = since else { return Ok(true) };
        let given = since.given.get(&hash).is_some_and(|records| records.contains(key));
        let relays = since.header.to == self.replica.me().keys.public();
        let has = since.has.get(&hash).is_some_and(|has| has.contains_key(&named.row.id));
        Ok(!(given || relays && has))
    }

    /// Names the next files that are here; to the relay none that wait for its receipt.
    pub(super) fn name_files(
        &self,
        packing: &mut Packing,
    ) -> Result<Option<Vec<u8>>, ReplicaError> {
        let Packing { files: Files { enclosures, waiting, .. }, since, to, relay, .. } = packing;
        let waits = |hash: &BlobHash| *relay && waiting.contains_key(hash);
        let has = |hash: &BlobHash| since.as_ref().is_some_and(|s| s.shows_file(to, hash));
        Ok(enclosures.name_more(self.replica.store(), waits, has)?)
    }

    /// The next file that goes in.
    pub(super) fn pack_file(&self, packing: &mut Packing) -> Result<Option<Content>, ReplicaError> {
        let Packing { files, since, to, relay, .. } = packing;
        if files.enclosing == Enclosing::NoFiles {
            return Ok(None);
        }
        let content = |file, waits| Content::File(Box::new(Enclosure { file, waits }));
        let store = self.replica.store();
        if *relay {
            while let Some((hash, key)) = files.sends.pop_front() {
                if let Some(file) = upload(store, hash, key)? {
                    return Ok(Some(content(file, false)));
                }
            }
            return Ok(None);
        }
        let has = |hash: &BlobHash| since.as_ref().is_some_and(|s| s.shows_file(to, hash));
        let file = files.enclosures.next_file(store, has)?;
        Ok(file.map(|file| {
            let waits = files.waiting.contains_key(&file.hash);
            content(file, waits)
        }))
    }

    /// What becomes of a file that a bundle brings, once all else of it was taken. Who brings it has to
    /// be one who may read the record that names it. A commit must follow.
    ///
    /// [`Device::import_bundle`](crate::Device::import_bundle) takes files in, and does this.
    ///
    /// # Errors
    /// When the store fails.
    pub fn unpack_file(
        &mut self,
        now: i64,
        unpacking: &Unpacking,
        file: &Enclosure,
    ) -> Result<Brought, ReplicaError> {
        self.now = now;
        let Brings { hash, record, size, tree } = &file.file;
        let named = self.named(record, hash)?.filter(|named| {
            let address = &named.row.address;
            let left_out = self.paused.covers(address);
            !left_out && self.may_read(address) && unpacking.from.may(&address.ty, &address.scope)
        });
        let Some(named) = named else {
            return Ok(if self.paused.pauses(&record.ty) || unpacking.leaves_out(&record.ty) {
                Brought::unfit(LEFT_OUT, "its record is left out here", true)
            } else {
                Brought::unfit("not-named", "no record here names the file", true)
            });
        };
        if named.file.size != *size {
            return Ok(Brought::unfit("size", "the record says another size of the file", false));
        }
        if let Err(error) = named.attachments.check(&named.file.media, *size) {
            return Ok(Brought::unfit("limit", &error.to_string(), false));
        }
        let store = self.replica.store();
        let known = store.has_blob(hash)?;
        if known && store.blob_opened(hash)?.contains(&named.row.sid) {
            return Ok(Brought::Whole);
        }
        Ok(match BlobTree::new(*hash, *size, tree) {
            Ok(tree) if known => Brought::Prove(tree),
            Ok(tree) => Brought::Take(tree),
            Err(error) => Brought::unfit("tree", &error.to_string(), false),
        })
    }

    /// Notes what became of that file: what waits for the relay's receipt is carried there from here
    /// too. A commit must follow.
    ///
    /// [`Device::import_bundle`](crate::Device::import_bundle) takes files in, and does this.
    ///
    /// # Errors
    /// When the store fails.
    pub fn file_unpacked(
        &mut self,
        now: i64,
        unpacking: &mut Unpacking,
        file: &Enclosure,
        arrived: Arrived,
    ) -> Result<(), ReplicaError> {
        self.now = now;
        let (hash, key) = (file.file.hash, &file.file.record);
        let (code, text) = match arrived {
            Arrived::Known => return Ok(()),
            Arrived::Unfit(unfit) if unfit.code == LEFT_OUT => return Ok(()),
            Arrived::Unfit(unfit) => (unfit.code, unfit.text),
            Arrived::Shown(tree) => match self.named(key, &hash)? {
                Some(named) => {
                    let store = self.replica.store_mut();
                    store.put_blob(&tree, true, now)?;
                    store.open_blob(&hash, named.row.sid, unpacking.from.number, now)?;
                    if file.waits && !unpacking.from.relay {
                        let key = key.clone();
                        store.put_upload(&Upload { hash, key, failed: None, time: now })?;
                    }
                    self.changed.insert(key.clone());
                    unpacking.unpacked.files += 1;
                    return Ok(());
                }
                None => ("not-named".to_owned(), "no record here names the file any more".into()),
            },
        };
        tracing::warn!(file = %hash, code, text, "refused, from a bundle");
        unpacking.unpacked.refuse(Subject::File(key.clone(), hash), &code, &text);
        Ok(())
    }

    /// The relay says that it has files: those of this device's that waited for that wait no longer.
    pub(super) fn files_saved(
        &mut self,
        unpacking: &mut Unpacking,
        has: &Has,
    ) -> Result<(), ReplicaError> {
        let Some(sid) = self.replica.segment(&has.segment).map(|row| row.sid) else {
            return Ok(());
        };
        for Upload { hash, key, .. } in self.replica.store().uploads()? {
            let rows = if has.files.contains(&hash) {
                self.replica.store().find(&key.ty, &key.id)?
            } else {
                Vec::new()
            };
            if rows.iter().any(|row| row.sid == sid) {
                self.replica.store_mut().take_upload(&hash, &key)?;
                unpacking.unpacked.saved_files += 1;
                self.changed.insert(key);
            }
        }
        Ok(())
    }

    /// Where a record here names a file, as merged or last valid, and as what.
    fn named(&self, key: &RecordKey, hash: &BlobHash) -> Result<Option<Named>, StoreError> {
        let object = self.replica.published().and_then(|published| published.catalog.ty(&key.ty));
        let (Some(object), Some(view)) = (object, self.replica.views().record(key)?) else {
            return Ok(None);
        };
        let find = |fields| object.files(fields).into_iter().find(|file| file.hash == *hash);
        let merged = find(&view.fields);
        let is_merged = merged.is_some();
        let found = merged.or_else(|| view.last_valid.as_ref().and_then(find));
        let row = self.replica.store().find(&key.ty, &key.id)?.into_iter().next();
        let row = row.and_then(|found| {
            self.replica.segments().values().find(|row| row.sid == found.sid).cloned()
        });
        Ok(found.zip(row).and_then(|(file, row)| {
            let attachments = object.fields.get(&file.field)?.attachments.clone()?;
            Some(Named { row, file, attachments, merged: is_merged })
        }))
    }
}
