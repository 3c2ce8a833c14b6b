//! Attached files: what is to be sent, who may have what is here, and what the books say once a file has
//! gone over. No byte of a file passes here, and nothing waits for one.

use std::collections::BTreeSet;

use fieldkeep_catalog::{AttachedFile, Kind};
use fieldkeep_model::{
    BlobHash, BlobTree, CallOutcome, Edit, Intent, PublicKey, RecordEdit, RecordKey,
    SegmentAddress, Wish,
};
use fieldkeep_protocol::blob;
use fieldkeep_replica::{PutError, RecordView, Replica, ReplicaError, Wrote};
use fieldkeep_store::{Blobs as _, CallRow, Calls as _, Records as _, StoreError, Upload};

use super::Engine;

/// Calls of this device that are looked at for one that may have written a record.
const CALLS: usize = 64;

impl Engine {
    /// Names a file in a record, whose bytes are on the disk and make that tree; it is sent after the
    /// record. A commit must follow.
    ///
    /// ```
    /// # use fieldkeep_device::AttachedFile;
    /// # use fieldkeep_model::blob::TreeBuilder;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let shelf = b"the shelf";
    /// let mut builder = TreeBuilder::new(9)?;
    /// builder.take(shelf)?;
    /// let tree = builder.finish()?;
    /// let (field, name, media) = ("photos".into(), "shelf.txt".into(), "text/plain".into());
    /// let file = AttachedFile { field, hash: tree.hash(), name, media, size: 9 };
    /// ann.attach(&"customer/c1".parse()?, &file, &tree, 0)?;
    /// ann.commit()?;
    /// assert!(ann.next_upload(&Default::default())?.is_none()); // The record goes first.
    /// wire.relay(&mut ann)?;
    /// let upload = ann.next_upload(&Default::default())?.expect("its record is on the relay");
    /// assert_eq!(ann.upload(&upload)?.expect("it is named").size, 9);
    /// ann.uploaded(&upload)?;
    /// assert!(ann.next_upload(&Default::default())?.is_none());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`PutError`]; nothing was saved then.
    pub fn attach(
        &mut self,
        key: &RecordKey,
        file: &AttachedFile,
        tree: &BlobTree,
        now: i64,
    ) -> Result<Wrote, PutError> {
        let edit = vec![file.edit()].into();
        put_with_files(&mut self.replica, key, &edit, Some(tree), now)
    }

    /// The oldest file that is to be sent and whose record is on the relay, but for those that rest;
    /// [`Engine::attach`] has the example.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn next_upload(&self, rested: &BTreeSet<BlobHash>) -> Result<Option<Upload>, StoreError> {
        let paused = self.stored_pauses()?;
        for upload in self.replica.store().uploads()? {
            let rests = upload.failed.is_some() || rested.contains(&upload.hash);
            if rests || paused.pauses(&upload.key.ty) {
                continue;
            }
            // One that was withdrawn nobody would take.
            let view = self.replica.views().record(&upload.key)?;
            let Some(view) = view.filter(|view| !view.unsaved) else { continue };
            // The relay may be about to name it.
            let named = self.files_of(&view).any(|file| file.hash == upload.hash);
            if named || !self.may_be_written(&upload.key)? {
                return Ok(Some(upload));
            }
        }
        Ok(None)
    }

    /// Whether the relay was asked to write a record, and may have: it has not said so, or what it wrote is
    /// not here yet.
    fn may_be_written(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let asks = |call: &CallRow| {
            let intent = call.intent.read::<Intent>();
            intent.is_some_and(
                |intent| matches!(&intent.wish, Wish::Edit { record, .. } if record == key),
            )
        };
        let (store, me) = (self.replica.store(), self.replica.me().number);
        let calls = store.calls_of(me, CALLS)?.into_iter().filter(asks);
        let outcomes = calls.map(|call| call.outcome);
        Ok(outcomes.into_iter().any(|outcome| {
            match outcome.map(|bytes| minicbor::decode(&bytes)) {
                None => true,
                Some(Ok(CallOutcome::Done { effects, .. })) => effects.iter().any(|effect| {
                    let row = self.replica.segment(&effect.segment);
                    row.is_none_or(|row| row.cursor.pos < effect.pos || row.done < row.tip)
                }),
                Some(Ok(
                    CallOutcome::Refused { .. } | CallOutcome::Stale(_) | CallOutcome::Lost,
                ))
                | Some(Err(_)) => false,
            }
        }))
    }

    /// What is said of a file that is to be sent; nothing where its record no longer names it.
    ///
    /// [`Engine::attach`] has the example.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn upload(&self, upload: &Upload) -> Result<Option<blob::Upload>, StoreError> {
        let hash = upload.hash;
        let row = self.replica.store().blob(&hash)?;
        let view = self.replica.views().record(&upload.key)?;
        let named = view.is_some_and(|view| self.files_of(&view).any(|file| file.hash == hash));
        Ok(row.filter(|_| named).map(|row| {
            let (record, size, tree) = (upload.key.clone(), row.tree.size(), row.tree.to_bytes());
            blob::Upload { hash, record, size, tree }
        }))
    }

    /// The relay has a file, or it is not to be sent any more. A commit must follow.
    ///
    /// [`Engine::attach`] has the example.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn uploaded(&mut self, upload: &Upload) -> Result<(), StoreError> {
        self.replica.store_mut().take_upload(&upload.hash, &upload.key)
    }

    /// A file for another device: only for a record that it may read, for which this one got or attached
    /// the file, and that is exchanged at the moment. Whether it waits for the relay is said with it.
    ///
    /// ```
    /// # use fieldkeep_model::BlobHash;
    /// # use fieldkeep_protocol::blob::Download;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let ben = ben.replica().members().device(&ben.replica().me().keys.public());
    /// let key = ben.expect("he has joined").keys.tls;
    /// let asked = Download { hash: BlobHash([7; 32]), record: "customer/c1".parse()? };
    /// assert!(ann.file_for(&key, &asked)?.is_none());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn file_for(
        &self,
        key: &PublicKey,
        asked: &blob::Download,
    ) -> Result<Option<(BlobTree, bool)>, StoreError> {
        let (replica, store) = (&self.replica, self.replica.store());
        let Some(member) = replica.members().by_tls(key) else { return Ok(None) };
        let opened = store.blob_opened(&asked.hash)?;
        let rows = store.find(&asked.record.ty, &asked.record.id)?;
        let rows: Vec<i64> =
            rows.iter().map(|row| row.sid).filter(|sid| opened.contains(sid)).collect();
        let left_out = self.stored_pauses()?;
        let mut segments = replica.segments().values().filter(|row| rows.contains(&row.sid));
        let may = |at: &SegmentAddress| member.may(&at.ty, &at.scope) && !left_out.covers(at);
        if !segments.any(|row| may(&row.address)) {
            return Ok(None);
        }
        let waits = store.uploads()?.iter().any(|upload| upload.hash == asked.hash);
        let row = store.blob(&asked.hash)?;
        Ok(row.filter(|row| row.whole).map(|row| (row.tree, waits)))
    }

    /// Whether nothing of a record is exchanged for the time being: its type is paused, or its scope is
    /// left out.
    ///
    /// ```
    /// # use fieldkeep_model::status::LeftOut;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let order = "order/o1".parse()?;
    /// assert!(!ann.is_left_out(&order)?);
    /// ann.pause(LeftOut { all: true, ..LeftOut::default() }, 0)?;
    /// assert!(ann.is_left_out(&order)?);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk fails.
    pub fn is_left_out(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let out = self.segments_left_out()?;
        if out.is_empty() {
            return Ok(false);
        }
        let rows = self.replica.store().find(&key.ty, &key.id)?;
        Ok(!rows.is_empty() && rows.iter().all(|row| out.contains(&row.sid)))
    }

    /// The segments of which nothing is exchanged for the time being, by the store's numbers.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn segments_left_out(&self) -> Result<BTreeSet<i64>, StoreError> {
        let left_out = self.stored_pauses()?;
        let segments = self.replica.segments().values();
        Ok(segments.filter(|row| left_out.covers(&row.address)).map(|row| row.sid).collect())
    }

    /// The files that a record names as merged, and as it last passed.
    ///
    /// [`Engine::fetched`] has the example.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn files_named(&self, key: &RecordKey) -> Result<Vec<AttachedFile>, StoreError> {
        let Some(mut view) = self.replica.views().record(key)? else { return Ok(Vec::new()) };
        let mut named: Vec<_> = self.files_of(&view).collect();
        if let Some(passed) = view.last_valid.take() {
            named.extend(self.files_of(&RecordView { fields: passed, ..view }));
        }
        Ok(named)
    }

    /// A file is here whole that was given for a record. A commit must follow.
    ///
    /// ```
    /// # use fieldkeep_device::AttachedFile;
    /// # use fieldkeep_model::blob::TreeBuilder;
    /// # fieldkeep_lab::camp::engines(|mut ann, mut ben, mut wire| {
    /// let customer = "customer/c1".parse()?;
    /// let mut builder = TreeBuilder::new(9)?;
    /// builder.take(b"the shelf")?;
    /// let tree = builder.finish()?;
    /// let (field, name, media) = ("photos".into(), "shelf.txt".into(), "text/plain".into());
    /// let file = AttachedFile { field, hash: tree.hash(), name, media, size: 9 };
    /// ann.replica_mut().put(&customer, &vec![file.edit()].into(), 0)?;
    /// assert_eq!(ann.files_named(&customer)?, [file]); // Somebody has named it in a record.
    /// ann.fetched(&customer, &tree, 0)?; // All of it is on the disk.
    /// ann.commit()?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn fetched(
        &mut self,
        key: &RecordKey,
        tree: &BlobTree,
        now: i64,
    ) -> Result<(), ReplicaError> {
        note_fetched(&mut self.replica, key, tree, false, now)
    }

    fn files_of(&self, view: &RecordView) -> impl Iterator<Item = AttachedFile> + use<> {
        let catalog = self.replica.published().map(|published| &published.catalog);
        let object = catalog.and_then(|catalog| catalog.ty(&view.key.ty));
        object.map(|object| object.files(&view.fields)).unwrap_or_default().into_iter()
    }
}

/// Writes a record, and with it what is known of a file that it names. Those of its files that are here
/// are to be sent.
pub(crate) fn put_with_files(
    replica: &mut Replica,
    key: &RecordKey,
    edit: &RecordEdit,
    file: Option<&BlobTree>,
    time: i64,
) -> Result<Wrote, PutError> {
    let wrote = replica.put(key, edit, time)?;
    let children = edit.edits.iter().filter_map(|edit| match edit {
        Edit::Child(field, id, _) => Some((field, id)),
        Edit::Put(..)
        | Edit::Json(..)
        | Edit::Text(..)
        | Edit::Add(..)
        | Edit::Clear(_)
        | Edit::RemoveChild(..) => None,
    });
    let object = replica.published().and_then(|published| published.catalog.ty(&key.ty));
    let Some(object) = object.filter(|object| object.has_attachments()) else { return Ok(wrote) };
    let holds =
        |name: &String| object.fields.get(name).is_some_and(|field| field.kind == Kind::Attachment);
    let named = children.filter(|(field, _)| holds(field));
    let named: Vec<BlobHash> = named.filter_map(|(_, id)| id.parse().ok()).collect();
    let (me, sid) = (replica.me().number, wrote.row.sid);
    let store = replica.store_mut();
    if let Some(tree) = file {
        store.put_blob(tree, true, time)?;
    }
    for hash in named {
        if store.has_blob(&hash)? {
            store.put_upload(&Upload { hash, key: key.clone(), failed: None, time })?;
            store.open_blob(&hash, sid, me, time)?;
        }
    }
    Ok(wrote)
}

/// Notes that a file is here whole. Whoever gave it for a record said that its readers may have it; where
/// he waits for the relay to have it, it is brought there from here too.
pub(crate) fn note_fetched(
    replica: &mut Replica,
    key: &RecordKey,
    tree: &BlobTree,
    waits: bool,
    now: i64,
) -> Result<(), ReplicaError> {
    let me = replica.me().number;
    let rows = replica.store().find(&key.ty, &key.id)?;
    let store = replica.store_mut();
    store.put_blob(tree, true, now)?;
    if waits {
        let (hash, key) = (tree.hash(), key.clone());
        store.put_upload(&Upload { hash, key, failed: None, time: now })?;
    }
    Ok(rows.iter().try_for_each(|row| store.open_blob(&tree.hash(), row.sid, me, now))?)
}
