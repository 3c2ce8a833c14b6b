//! Attached files: who may bring one, who may have it, and what has to be shown for that.
//!
//! A file belongs to the records that name it. It is taken only for a record that is here and names it,
//! and given only to those who may read such a record. Who knows its name alone gets nothing: a record
//! opens a file only once somebody who may write there has shown that he has it, or could read it
//! already elsewhere.

use fieldkeep_catalog::{AttachedFile, Attachments};
use fieldkeep_model::{BlobHash, BlobTree, Member, PublicKey, RecordKey};
use fieldkeep_protocol::blob::{Download, Upload};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Blobs as _, Records as _, Removals as _, SegmentRow, StoreError};
use fieldkeep_transfer::Brought;
use serde_json::{Map, Value};

use super::Engine;
use crate::metrics::gauge;

/// What is found of a file that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is here.
    Here(BlobTree),
    /// It was removed, because nothing referred to it: when, milliseconds UTC.
    Removed(i64),
    /// There is none for whoever asks.
    Absent,
}

impl Engine {
    /// Somebody brings a file for a record that names it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn file_brought(
        &mut self,
        key: &PublicKey,
        upload: &Upload,
    ) -> Result<Brought, ReplicaError> {
        let Some(member) = self.present_member(key) else {
            return Ok(Brought::unfit("denied", "only members bring files", false));
        };
        let Some(named) = self.named_by(&member, &upload.record, &upload.hash)? else {
            let text = "no record that this device may write names the file yet";
            return Ok(Brought::unfit("not-named", text, true));
        };
        if named.file.size != upload.size {
            return Ok(Brought::unfit("size", "the record says another size of the file", false));
        }
        if let Err(error) = named.attachments.check(&named.file.media, upload.size) {
            return Ok(Brought::unfit("limit", &error.to_string(), false));
        }
        let store = self.replica.store();
        let known = store.has_blob(&upload.hash)?;
        if known {
            let opened = store.blob_opened(&upload.hash)?;
            if opened.contains(&named.sid) {
                return Ok(Brought::Whole);
            }
            if !self.places_of(&member, &upload.hash)?.is_empty() {
                let now = self.now;
                self.count_file(member.number, &upload.hash, upload.size)?;
                let store = self.replica.store_mut();
                store.open_blob(&upload.hash, named.sid, member.number, now)?;
                return Ok(Brought::Whole);
            }
        }
        let tree = match BlobTree::new(upload.hash, upload.size, &upload.tree) {
            Ok(tree) => tree,
            Err(error) => return Ok(Brought::unfit("tree", &error.to_string(), false)),
        };
        if let Some(why) = self.no_room(member.number, &upload.hash, upload.size)? {
            return Ok(Brought::unfit("quota", &why, false));
        }
        if known {
            return Ok(Brought::Prove(tree));
        }
        self.file_begins(member.number, &upload.hash, upload.size)?;
        Ok(Brought::Take(tree))
    }

    /// Who brought a file for a record has shown that he has it: all of it came, or he knew its bytes.
    /// Returns whether he still may. A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn file_shown(
        &mut self,
        key: &PublicKey,
        record: &RecordKey,
        tree: &BlobTree,
    ) -> Result<bool, ReplicaError> {
        let now = self.now;
        if !self.replica.store().has_blob(&tree.hash())? {
            self.metrics().files_bytes.inc_by(gauge(tree.size()));
        }
        self.file_is_whole(&tree.hash())?;
        if let Some(number) = self.replica.members().by_tls(key).map(|member| member.number) {
            self.count_file(number, &tree.hash(), tree.size())?;
        }
        let store = self.replica.store_mut();
        store.put_blob(tree, true, now)?;
        store.return_blob(&tree.hash())?;
        let Some(member) = self.present_member(key) else { return Ok(false) };
        let named = self.named_by(&member, record, &tree.hash())?;
        let Some(named) = named.filter(|named| named.file.size == tree.size()) else {
            return Ok(false);
        };
        let store = self.replica.store_mut();
        store.open_blob(&tree.hash(), named.sid, member.number, now)?;
        Ok(true)
    }

    /// A file for somebody who asks for it with a record that names it: only to those who may read that,
    /// where somebody has shown that the file is his, and not a word about whether it is here to anybody
    /// else. That it was removed is told for older states of a record as well.
    ///
    /// # Errors
    /// When the store fails.
    pub fn file_wanted(&self, key: &PublicKey, asked: &Download) -> Result<Found, ReplicaError> {
        let Some(member) = self.present_member(key) else { return Ok(Found::Absent) };
        let store = self.replica.store();
        if let Some(time) = store.removal(&asked.hash)?
            && self.may_know(&member, &asked.hash)?
        {
            return Ok(Found::Removed(time));
        }
        let rows = store.find(&asked.record.ty, &asked.record.id)?;
        let mut rows = rows.iter().map(|row| row.sid);
        let places = self.places_of(&member, &asked.hash)?;
        if !rows.any(|sid| places.contains(&sid)) {
            return Ok(Found::Absent);
        }
        let row = store.blob(&asked.hash)?.filter(|row| row.whole);
        Ok(row.map_or(Found::Absent, |row| Found::Here(row.tree)))
    }

    /// Whether somebody has shown that a file is his for a segment that a member may read.
    pub(super) fn may_know(&self, member: &Member, hash: &BlobHash) -> Result<bool, StoreError> {
        let opened = self.replica.store().blob_opened(hash)?;
        let mut rows = self.replica.segments().values();
        Ok(rows.any(|row| opened.contains(&row.sid) && may(member, row)))
    }

    pub(super) fn present_member(&self, key: &PublicKey) -> Option<Member> {
        let member = self.replica.members().by_tls(key)?;
        (!member.revoked && !self.is_suspended(key)).then(|| member.clone())
    }

    /// The segments that a member may read with a record that names a file, and for which somebody has
    /// shown that it is his.
    fn places_of(&self, member: &Member, hash: &BlobHash) -> Result<Vec<i64>, StoreError> {
        let store = self.replica.store();
        let (opened, named) = (store.blob_opened(hash)?, store.blob_named(hash)?);
        let rows = self.replica.segments().values().filter(|row| may(member, row));
        let rows = rows.map(|row| row.sid);
        Ok(rows.filter(|sid| opened.contains(sid) && named.contains(sid)).collect())
    }

    /// Where a record lies that names a file, and as what, if that member may write there.
    fn named_by(
        &self,
        member: &Member,
        record: &RecordKey,
        hash: &BlobHash,
    ) -> Result<Option<Named>, StoreError> {
        let Some(published) = self.replica.published() else { return Ok(None) };
        let Some(object) = published.catalog.ty(&record.ty) else { return Ok(None) };
        for row in self.replica.store().find(&record.ty, &record.id)? {
            let mut segments = self.replica.segments().values();
            let segment = segments.find(|segment| segment.sid == row.sid);
            if !segment.is_some_and(|segment| may(member, segment)) {
                continue;
            }
            let fields: Map<String, Value> = serde_json::from_str(&row.json)
                .map_err(|_| StoreError::Damaged("a record's fields".into()))?;
            let file = object.files(&fields).into_iter().find(|file| file.hash == *hash);
            let named = file.and_then(|file| {
                let attachments = object.fields.get(&file.field)?.attachments.clone()?;
                Some(Named { sid: row.sid, file, attachments })
            });
            if named.is_some() {
                return Ok(named);
            }
        }
        Ok(None)
    }
}

/// A file as a record names it.
struct Named {
    sid: i64,
    file: AttachedFile,
    attachments: Attachments,
}

fn may(member: &Member, row: &SegmentRow) -> bool {
    member.may(&row.address.ty, &row.address.scope)
}
