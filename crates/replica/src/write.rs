//! Writing: one call is one Automerge change, and becomes durable with the next commit.

use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_catalog::{Catalog, ObjectType};
use fieldkeep_documents::document::{Author, HEADS_AT_ONCE, WriteError, WrittenMany};
use fieldkeep_documents::{Document, Record};
use fieldkeep_model::{
    ActorId, ChangeHash, Edit, Head, Pos, RecordEdit, RecordId, RecordKey, Scalar, SegmentId, Seq,
    SignedHead, TypeName, VersionVector,
};
use fieldkeep_store::{Log as _, Outgoing, RecordRow, Records as _, StoreError};

use crate::admit::{Origin, Refused};
use crate::identity::Role;
use crate::replica::{Replica, ReplicaError};

/// New records that become one change together, at most: a batch on the wire is never much more.
const TOGETHER: usize = 64;

/// What a write did.
#[derive(Clone, Debug)]
pub struct Wrote {
    /// The record.
    pub key: RecordKey,
    /// Its segment.
    pub segment: SegmentId,
    /// The change, unless nothing was to be changed.
    pub change: Option<(Seq, ChangeHash)>,
    /// The record's row afterwards.
    pub row: RecordRow,
}

/// Changes on their way to the relay, or to another device.
#[derive(Clone, Debug)]
pub struct OutgoingBatch {
    /// The chunks in causal order.
    pub chunks: Vec<Vec<u8>>,
    /// The signed heads that vouch for them.
    pub heads: Vec<SignedHead>,
    /// The position in this store's log through which they reach.
    pub reached: Pos,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// There is no catalog yet: it comes from the relay.
    #[error(
        "there is no catalog here yet, so no object type is known: sync with the relay once (`fieldkeep sync`)"
    )]
    NoCatalog,
    /// The catalog does not have the type.
    #[error("the catalog has no object type `{ty}`{}", suggestion(.known))]
    UnknownType {
        /// The type that was named.
        ty: TypeName,
        /// The types that there are.
        known: Vec<TypeName>,
    },
    /// There is no such record.
    #[error("there is no record {0}")]
    Absent(RecordKey),
    /// The record is deleted.
    #[error("{0} was deleted: bring it back with `fieldkeep put {0} --undelete`, then edit it")]
    Deleted(RecordKey),
    /// The scope field of a record cannot change.
    #[error(
        "`{field}` says where {key} is kept and cannot change: delete the record and create another one there"
    )]
    ScopeChange {
        /// The record.
        key: RecordKey,
        /// The scope field.
        field: String,
    },
    /// The record is in a state in which it is edited only by way of a relay.
    #[error(
        "this needs a connection: {0} is edited by way of the relay in the state that it is in"
    )]
    NeedsConnection(RecordKey),
    /// This device left the scope out: what is written there would stay here.
    #[error(
        "this device does not subscribe to {ty}={scope}: `fieldkeep subscribe {ty}={scope}` first"
    )]
    NotSubscribed {
        /// The type.
        ty: TypeName,
        /// The scope.
        scope: String,
    },
    /// The change is larger than a change may be, or cannot be represented.
    #[error("the record cannot be written: {0}")]
    Write(WriteError),
    /// The change would not pass the gate: a fault of ours. Nothing was saved.
    #[error("the change would be refused everywhere ({0}); nothing was saved")]
    Refused(Box<Refused>),
    /// The replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<StoreError> for PutError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

fn suggestion(known: &[TypeName]) -> String {
    let names: Vec<_> = known.iter().map(TypeName::as_str).collect();
    if names.is_empty() { String::new() } else { format!(": it has {}", names.join(", ")) }
}

/// What the catalog says of a type.
///
/// # Errors
/// It does not have it.
pub fn declared<'c>(catalog: &'c Catalog, ty: &TypeName) -> Result<&'c ObjectType, PutError> {
    let known = || catalog.types().keys().cloned().collect();
    catalog.ty(ty).ok_or_else(|| PutError::UnknownType { ty: ty.clone(), known: known() })
}

impl Replica {
    /// Writes a record. It is durable after the next [`Replica::commit`], and not before.
    ///
    /// # Errors
    /// See [`PutError`]; nothing of the write is kept then.
    pub fn put(&mut self, key: &RecordKey, edit: &RecordEdit, now: i64) -> Result<Wrote, PutError> {
        self.check_connection(key)?;
        self.put_anyhow(key, edit, now)
    }

    /// Writes a record to see what it comes to, also where only a relay may write it.
    /// [`Replica::forget`] has to follow.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put_anyhow(
        &mut self,
        key: &RecordKey,
        edit: &RecordEdit,
        now: i64,
    ) -> Result<Wrote, PutError> {
        let segment = self.home_of(key, edit)?;
        let author = self.writer(now);
        self.undoable(&segment, |replica| replica.put_in(&segment, key, edit, &author))
    }

    /// The segment that holds a record, or will once that edit is written.
    pub(crate) fn home_of(
        &mut self,
        key: &RecordKey,
        edit: &RecordEdit,
    ) -> Result<SegmentId, PutError> {
        let existing = self.store.presence(&key.ty, &key.id)?;
        if existing.is_none() && edit.deleted.is_some() {
            return Err(PutError::Absent(key.clone()));
        }
        if existing.is_some_and(|(_, deleted, _)| deleted) && edit.deleted.is_none() {
            return Err(PutError::Deleted(key.clone()));
        }
        self.home(key, edit, existing.map(|(sid, ..)| sid))
    }

    /// Writes many records, as a device. Those that are new and lie in one segment become one change
    /// together: what a change costs is then shared by all of them, and each segment is loaded once.
    /// Durable after the next [`Replica::commit`].
    ///
    /// # Errors
    /// See [`PutError`]; the caller drops what was written before.
    pub fn put_many(
        &mut self,
        puts: &[(RecordKey, RecordEdit)],
        now: i64,
    ) -> Result<Vec<Wrote>, PutError> {
        let mut new: BTreeMap<SegmentId, Vec<usize>> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for (at, (key, edit)) in puts.iter().enumerate() {
            let plain = edit.deleted.is_none() && !edit.edits.is_empty();
            if plain && self.store.presence(&key.ty, &key.id)?.is_none() && ids.insert(key) {
                new.entry(self.home(key, edit, None)?).or_default().push(at);
            }
        }
        let mut wrote: Vec<Option<Wrote>> = puts.iter().map(|_| None).collect();
        for (segment, places) in new {
            for together in places.chunks(TOGETHER) {
                let group: Vec<_> = together.iter().map(|at| puts[*at].clone()).collect();
                let written = self.put_new(&segment, &group, now)?;
                together.iter().zip(written).for_each(|(at, one)| wrote[*at] = Some(one));
            }
        }
        let all = wrote.into_iter().zip(puts);
        all.map(|(one, (key, edit))| one.map_or_else(|| self.put(key, edit, now), Ok)).collect()
    }

    /// Writes records that are not there as one change, or as several where one would be too large.
    fn put_new(
        &mut self,
        segment: &SegmentId,
        puts: &[(RecordKey, RecordEdit)],
        now: i64,
    ) -> Result<Vec<Wrote>, PutError> {
        let author = self.writer(now);
        let together = self.undoable(segment, |replica| replica.create(segment, puts, &author));
        match together {
            Err(PutError::Write(_) | PutError::Refused(_)) if puts.len() > 1 => {
                let (first, second) = puts.split_at(puts.len() / 2);
                let mut wrote = self.put_new(segment, first, now)?;
                wrote.extend(self.put_new(segment, second, now)?);
                Ok(wrote)
            }
            other => other,
        }
    }

    fn create(
        &mut self,
        segment: &SegmentId,
        puts: &[(RecordKey, RecordEdit)],
        author: &Author,
    ) -> Result<Vec<Wrote>, PutError> {
        self.catch_up(segment)?;
        self.merge_heads(segment, HEADS_AT_ONCE, author.time)?;
        let edits: Vec<_> = puts.iter().map(|(key, edit)| (key.id.clone(), edit.clone())).collect();
        let document = self.document(segment)?;
        let written = document.write_many(author, &edits).map_err(PutError::Write)?;
        let Some(WrittenMany { made, records }) = written else {
            let absent = puts.first().map(|(key, _)| PutError::Absent(key.clone()));
            return absent.map_or_else(|| Ok(Vec::new()), Err);
        };
        let mut records: BTreeMap<RecordId, Record> = records.into_iter().collect();
        let pos = self.keep_own(segment, &made.chunk)?;
        let ids = records.keys().cloned().collect();
        self.expect_receipt(segment, pos, made.seq, ids)?;
        let mut wrote = Vec::with_capacity(puts.len());
        for (key, _) in puts {
            let record = records.remove(&key.id);
            let record = record.ok_or_else(|| PutError::Absent(key.clone()))?;
            let subject = self.compose(segment, &key.id, record, 0, 1)?;
            let row = self.project_alone(subject)?;
            let change = Some((made.seq, made.hash));
            wrote.push(Wrote { key: key.clone(), segment: *segment, change, row });
        }
        Ok(wrote)
    }

    /// The segment that holds a record, or will.
    fn home(
        &mut self,
        key: &RecordKey,
        edit: &RecordEdit,
        existing: Option<i64>,
    ) -> Result<SegmentId, PutError> {
        let catalog = self.catalog().ok_or(PutError::NoCatalog)?;
        let object = declared(&catalog, &key.ty)?;
        let stated = object.scope.as_ref().and_then(|field| stated_scope(field, edit));
        if let Some(sid) = existing {
            let home = self.segment_of(sid).expect("records lie in segments");
            if stated.is_some_and(|scope| scope != home.address.scope) {
                let field = object.scope.clone().unwrap_or_default();
                return Err(PutError::ScopeChange { key: key.clone(), field });
            }
            let id = home.id;
            self.subscribed(&key.ty, &home.address.scope)?;
            return Ok(id);
        }
        let address = object.address(&key.id, &stated.unwrap_or_default());
        self.subscribed(&key.ty, &address.scope)?;
        Ok(self.open_segment(&address)?)
    }

    /// Whether this replica keeps a scope: what is written in another one would never be exchanged.
    fn subscribed(&self, ty: &TypeName, scope: &str) -> Result<(), PutError> {
        match self.subscriptions.get(ty) {
            Some(wanted) if !wanted.contains(scope) => {
                Err(PutError::NotSubscribed { ty: ty.clone(), scope: scope.to_owned() })
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(crate) fn put_in(
        &mut self,
        segment: &SegmentId,
        key: &RecordKey,
        edit: &RecordEdit,
        author: &Author,
    ) -> Result<Wrote, PutError> {
        self.catch_up(segment)?;
        self.merge_heads(segment, HEADS_AT_ONCE, author.time)?;
        let apart = self.is_apart(&self.row(segment).address);
        let stood = if apart { Some(self.read_apart(segment, &[&key.id])?) } else { None };
        let document = self.document(segment)?;
        let written = document.write(author, &key.id, edit).map_err(PutError::Write)?;
        let Some(written) = written else {
            return self.unchanged_write(segment, key);
        };
        let pos = self.keep_own(segment, &written.chunk)?;
        let row = match stood {
            Some(stood) => {
                self.count_apart(segment, &stood)?;
                self.compose(segment, &key.id, written.record, 0, 0)?.row
            }
            None => self.project_own(segment, key, written.record, pos, written.seq)?,
        };
        let change = Some((written.seq, written.hash));
        Ok(Wrote { key: key.clone(), segment: *segment, change, row })
    }

    fn unchanged_write(&mut self, segment: &SegmentId, key: &RecordKey) -> Result<Wrote, PutError> {
        let row = self.store.record(self.row(segment).sid, &key.id)?;
        let row = row.ok_or_else(|| PutError::Absent(key.clone()))?;
        Ok(Wrote { key: key.clone(), segment: *segment, change: None, row })
    }

    /// Runs an own change through the gate and appends it: it is merged already.
    pub(crate) fn keep_own(&mut self, id: &SegmentId, chunk: &[u8]) -> Result<Pos, PutError> {
        let checked = self.load(id)?.history.check(chunk);
        let admitted = checked.map_err(|refusal| {
            let header = fieldkeep_model::ChangeHeader::parse(chunk).ok();
            PutError::Refused(Box::new(Refused {
                hash: header.map_or(ChangeHash([0; 32]), |header| header.hash),
                stage: refusal.stage,
                code: refusal.code.as_str(),
                text: refusal.code.to_string(),
                missing: Vec::new(),
                author: None,
            }))
        })?;
        let pos = self.append(id, chunk, admitted, Origin::Own)?;
        self.row_mut(id).done = pos;
        Ok(pos)
    }

    fn project_own(
        &mut self,
        id: &SegmentId,
        key: &RecordKey,
        record: Record,
        pos: Pos,
        seq: Seq,
    ) -> Result<RecordRow, PutError> {
        let sid = self.row(id).sid;
        let device = self.me.role == Role::Device;
        if device {
            self.expect_receipt(id, pos, seq, vec![key.id.clone()])?;
        }
        if device {
            let subject = self.compose(id, &key.id, record, 0, 1)?;
            return Ok(self.project_alone(subject)?);
        }
        let subject = self.project_as(id, &key.id, record, pos, 0)?;
        self.issue_verdicts(id, vec![subject])?;
        Ok(self.store.record(sid, &key.id)?.expect("just saved"))
    }

    /// Writes content again that a lost branch held, without asking whether it may.
    pub(crate) fn write_again(
        &mut self,
        id: &SegmentId,
        edits: &[(RecordId, RecordEdit)],
        now: i64,
    ) -> Result<usize, PutError> {
        let ty = self.row(id).address.ty.clone();
        let author = self.writer(now);
        for (record, edit) in edits {
            let key = RecordKey::new(ty.clone(), record.clone());
            match self.put_in(id, &key, edit, &author) {
                Err(PutError::Write(_)) => self.write_in_parts(id, &key, edit, &author)?,
                // Only the lost branch has the record that this edit is for.
                Err(PutError::Absent(_)) => tracing::warn!(
                    %key,
                    "an edit was not written again, because its record is not there; \
                     its bytes are kept aside"
                ),
                other => drop(other?),
            }
        }
        Ok(edits.len())
    }

    /// Writes an edit that is too large for one change field by field. What even so cannot be
    /// written stays readable in the bytes that were kept aside.
    pub(crate) fn write_in_parts(
        &mut self,
        id: &SegmentId,
        key: &RecordKey,
        edit: &RecordEdit,
        author: &Author,
    ) -> Result<(), PutError> {
        let deletion = RecordEdit { edits: Vec::new(), deleted: edit.deleted };
        let parts = edit.edits.iter().map(|one| RecordEdit::from(vec![one.clone()]));
        for part in parts.chain(edit.deleted.map(|_| deletion)) {
            match self.put_in(id, key, &part, author) {
                Err(PutError::Write(error)) => tracing::error!(
                    %key,
                    %error,
                    "part of an edit could not be written again; its bytes are kept aside"
                ),
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Merges everything of a segment that is not merged, so that a write builds on all of it.
    pub(crate) fn catch_up(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        while self.row(id).done < self.row(id).tip {
            self.materialise(id, usize::MAX)?;
        }
        Ok(())
    }

    pub(crate) fn document(&mut self, id: &SegmentId) -> Result<&mut Document, ReplicaError> {
        Ok(self.load_document(id)?.document.as_mut().expect("just loaded"))
    }

    fn writer(&self, now: i64) -> Author {
        let mut person = self.me.name.clone();
        person.truncate(person.floor_char_boundary(fieldkeep_model::header::limit::MESSAGE));
        Author { actor: self.me.actor(), person, time: now }
    }

    /// Merges a segment's heads by changes of this replica's own when there are more than so many:
    /// each change names all heads, so many of them make every later change larger. Returns whether
    /// it did.
    pub(crate) fn merge_heads(
        &mut self,
        id: &SegmentId,
        most: usize,
        now: i64,
    ) -> Result<bool, PutError> {
        if self.load(id)?.history.heads().len() <= most {
            return Ok(false);
        }
        let author = self.writer(now);
        let merges = self.document(id)?.merge_heads(&author).map_err(PutError::Write)?;
        for made in &merges {
            let pos = self.keep_own(id, &made.chunk)?;
            if self.me.role == Role::Device {
                self.expect_receipt(id, pos, made.seq, Vec::new())?;
            }
        }
        let Some(made) = merges.last() else { return Ok(false) };
        let head = Head { actor: made.actor, seq: made.seq, hash: made.hash };
        let head = SignedHead::new(&self.org(), id, head, &self.me.keys);
        self.keep_heads(id, &[head])?;
        Ok(true)
    }

    /// Notes that an own change of these records needs a receipt.
    fn expect_receipt(
        &mut self,
        id: &SegmentId,
        pos: Pos,
        seq: Seq,
        records: Vec<RecordId>,
    ) -> Result<(), StoreError> {
        let actor = self.me.actor();
        let outgoing = Outgoing { pos, actor, seq, refused: None, records, carried: false };
        self.store.put_outgoing(self.row(id).sid, &outgoing)
    }

    /// The changes of a segment after a position that await a receipt, of about so many bytes.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn outgoing_batch(
        &self,
        id: &SegmentId,
        after: Pos,
        bytes: usize,
    ) -> Result<Option<OutgoingBatch>, ReplicaError> {
        let waiting = self.store.unsent(self.row(id).sid, after)?;
        // What nobody vouches for goes all the same: the relay's answer is shown.
        let batch = self.batch_of(id, &waiting, after, bytes)?;
        Ok(batch.map(|(batch, _)| batch))
    }

    /// [`Self::outgoing_batch`] without what the relay is known to hold.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn unsaved_batch(
        &self,
        id: &SegmentId,
        after: Pos,
        bytes: usize,
        held: &VersionVector,
    ) -> Result<Option<OutgoingBatch>, ReplicaError> {
        let sid = self.row(id).sid;
        let mut waiting = self.store.unsent(sid, after)?;
        if !held.stamps.is_empty() {
            let known = self.store.outgoing(sid)?.into_iter();
            let known = known.filter(|change| change.seq <= held.seq(&change.actor));
            for change in known {
                waiting.remove(&change.pos);
            }
        }
        let batch = self.batch_of(id, &waiting, after, bytes)?;
        Ok(batch.map(|(batch, _)| batch))
    }

    /// Changes for another device behind a position of this store's log, of about so many bytes; what
    /// it is known to hold is left out. `None` if it holds everything.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn batch_for(
        &mut self,
        id: &SegmentId,
        after: Pos,
        bytes: usize,
        known: impl Fn(&ActorId, Seq) -> bool,
    ) -> Result<Option<OutgoingBatch>, ReplicaError> {
        let (sid, tip) = (self.row(id).sid, self.row(id).tip);
        self.load(id)?;
        let history = &self.cache.peek(id).expect("just loaded").history;
        // What came with a branch that lies aside may have been vouched for by that alone.
        let mut vouched: BTreeMap<ActorId, Seq> = BTreeMap::new();
        for (_, SignedHead { head, .. }) in self.store.heads(sid, after + 1, tip)? {
            let newest = vouched.entry(head.actor).or_default();
            *newest = head.seq.max(*newest);
        }
        let mut lacking = BTreeSet::new();
        let mut left_out: BTreeSet<ChangeHash> = BTreeSet::new();
        for pos in after + 1..=tip {
            let Some((actor, seq, hash)) = history.change_at(pos) else { break };
            if known(&actor, seq) {
                continue;
            }
            let own = self.me.signs_for(&actor);
            let stands = own || vouched.get(&actor).is_some_and(|head| seq <= *head);
            let builds = || history.deps_of(&hash).iter().any(|dep| left_out.contains(dep));
            if !stands || !left_out.is_empty() && builds() {
                left_out.insert(hash);
            } else {
                lacking.insert(pos);
            }
        }
        let batch = self.batch_of(id, &lacking, after, bytes)?;
        Ok(batch.and_then(|(batch, whole)| whole.then_some(batch)))
    }

    /// The entries at some positions of the log as a batch that ends where signed heads vouch for all
    /// of it; whether they do.
    fn batch_of(
        &self,
        id: &SegmentId,
        wanted: &BTreeSet<Pos>,
        after: Pos,
        bytes: usize,
    ) -> Result<Option<(OutgoingBatch, bool)>, ReplicaError> {
        let row = self.row(id);
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { return Ok(None) };
        let stored = self.store.heads(row.sid, *first, row.tip)?;
        let mut newest: BTreeMap<ActorId, Head> = BTreeMap::new();
        let (mut chunks, mut taken, mut reached) = (Vec::new(), 0, after);
        let own = |actor: &ActorId| self.me.signs_for(actor);
        let vouched = |newest: &BTreeMap<ActorId, Head>| {
            newest.values().all(|head| {
                own(&head.actor) || stored.iter().any(|(_, stored)| stored.head == *head)
            })
        };
        let walk = self.each_entry(row.sid, *first, |entry| {
            if entry.pos > *last || (taken >= bytes && vouched(&newest)) {
                return Err(Full::Yes);
            }
            if wanted.contains(&entry.pos) {
                let header = entry.header;
                let head = Head { actor: header.actor, seq: header.seq, hash: header.hash };
                let before: Option<&Head> = newest.get(&header.actor);
                if before.is_some_and(|before| before.seq + 1 != header.seq) {
                    // One between them was refused: in a push, an author's changes follow each other.
                    return Err(Full::Yes);
                }
                newest.insert(header.actor, head);
                taken += entry.bytes.len();
                chunks.push(entry.bytes);
                reached = entry.pos;
            }
            Ok(())
        });
        if let Err(Full::Failed(error)) = walk {
            return Err(error);
        }
        let whole = vouched(&newest);
        let heads = newest.into_values().filter_map(|head| {
            if own(&head.actor) {
                return Some(SignedHead::new(&self.org(), id, head, &self.me.keys));
            }
            stored.iter().find(|(_, stored)| stored.head == head).map(|(_, stored)| *stored)
        });
        Ok(Some((OutgoingBatch { chunks, heads: heads.collect(), reached }, whole)))
    }
}

enum Full {
    Yes,
    Failed(ReplicaError),
}

impl From<ReplicaError> for Full {
    fn from(error: ReplicaError) -> Self {
        Self::Failed(error)
    }
}

/// The scope that an edit states: absent, cleared (empty), or a value.
fn stated_scope(field: &str, edit: &RecordEdit) -> Option<String> {
    let stated = edit.edits.iter().rev().find(|edit| edit.field() == field)?;
    match stated {
        Edit::Put(_, Scalar::Str(text)) => Some(text.clone()),
        Edit::Put(_, Scalar::Int(number)) => Some(number.to_string()),
        Edit::Put(_, Scalar::Bool(flag)) => Some(flag.to_string()),
        Edit::Put(_, Scalar::Float(number)) => Some(serde_json::json!(number).to_string()),
        Edit::Json(..)
        | Edit::Text(..)
        | Edit::Add(..)
        | Edit::Clear(_)
        | Edit::Child(..)
        | Edit::RemoveChild(..) => Some(String::new()),
    }
}
