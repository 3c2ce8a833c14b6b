//! Admission: how changes come into a segment's log.
//!
//! A batch is admitted whole or not at all: stage 1 first (a member wrote it, a signed head vouches
//! for it), then the gate, change by change. What its author may not write is kept aside, unmerged,
//! until something permitted builds on it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use fieldkeep_documents::{Admitted, Code, History, Refusal, batch};
use fieldkeep_model::{
    ActorId, ChangeHash, ChangeHeader, DeviceNumber, Head, Member, Pos, SegmentAddress, SegmentId,
    Seq, SignedHead, VersionVector,
};
use fieldkeep_store::{Aside, ChangeRow, Flags, Log as _, StoreError};
use tracing::debug_span;

use crate::PART;
use crate::cache::Pending;
use crate::identity::Role;
use crate::quota::may_be_built_on;
use crate::replica::{Replica, ReplicaError};
use crate::taint::Noted;

/// Bytes that may lie aside of one member's changes.
const ASIDE_QUOTA: u64 = 8 * 1024 * 1024;

/// How a change came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Written here, and merged already.
    Own,
    /// Handed over by a member. On a device it waits for a receipt of the relay.
    Peer,
    /// The same, without permission.
    Tainted,
    /// From that position of the relay's log.
    Log(Pos),
}

/// Changes of one segment, as a peer hands them over.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The segment.
    pub segment: SegmentAddress,
    /// The chunks in causal order.
    pub chunks: Vec<Vec<u8>>,
    /// The signed heads that vouch for them.
    pub heads: Vec<SignedHead>,
}

/// The longest chunks of one batch together, inflated, in bytes.
const BATCH_RAW: usize = 1024 * 1024;

/// Why bytes that came are no batch of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// They do not decode, or belong to no segment that could be.
    #[error("a push that does not decode")]
    Malformed,
    /// Nothing in it, or more than one head of an author: each would have to be verified.
    #[error("a push without changes, or with a head too many")]
    Heads,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Positions of what was admitted: first and last, if anything was.
    pub admitted: Option<(Pos, Pos)>,
    /// For each actor of the batch the newest change that is in the log.
    pub newest: Vec<(ActorId, Seq, ChangeHash)>,
    /// Changes that were kept aside, and why: `not_permitted` or [`crate::OVER_QUOTA`].
    pub aside: Vec<(ChangeHash, &'static str)>,
    /// Those of them that did not lie aside before.
    pub newly_aside: BTreeSet<ChangeHash>,
}

/// The refusal of a batch, named by its first bad change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stage {stage}: {code}: {text}")]
pub struct Refused {
    /// The change, zero where the bytes are none.
    pub hash: ChangeHash,
    /// The stage.
    pub stage: u8,
    /// The code, as it travels.
    pub code: &'static str,
    /// What it means.
    pub text: String,
    /// What the change waits for.
    pub missing: Vec<ChangeHash>,
    /// The change's author and counter, if it has them.
    pub author: Option<(ActorId, Seq)>,
}

/// Why a batch was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// A change is refused, and with it the batch; nothing was written.
    #[error(transparent)]
    Refused(Box<Refused>),
    /// The replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<StoreError> for AdmitError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

/// What a batch brings into the log, or finds there.
struct Intake {
    /// The newest change of each author.
    newest: BTreeMap<ActorId, (Seq, ChangeHash)>,
    /// Heads that may vouch for them: those that came, and those that lay aside.
    heads: Vec<SignedHead>,
}

impl Replica {
    /// Changes as a peer hands them over, of a segment that is here or that their sender names.
    ///
    /// # Errors
    /// When they cannot be what they are said to be; nothing in them has been checked besides.
    pub fn batch(
        &self,
        id: &SegmentId,
        named: Option<SegmentAddress>,
        bytes: &[u8],
        heads: Vec<SignedHead>,
    ) -> Result<Batch, BatchError> {
        let known = self.segments.get(id).map(|row| row.address.clone());
        let segment = known.or(named).filter(|address| {
            let buckets = address.buckets.is_power_of_two() && address.bucket < address.buckets;
            buckets && address.id(&self.org()) == *id
        });
        let segment = segment.ok_or(BatchError::Malformed)?;
        let chunks = batch::decode(bytes, BATCH_RAW).map_err(|_| BatchError::Malformed)?;
        let authors: BTreeSet<ActorId> = heads.iter().map(|head| head.head.actor).collect();
        if chunks.is_empty() || authors.len() < heads.len() {
            return Err(BatchError::Heads);
        }
        Ok(Batch { segment, chunks, heads })
    }

    /// Admits a batch that a member handed over.
    ///
    /// # Errors
    /// [`AdmitError::Refused`] with the stage and code of the first bad change: nothing of the batch
    /// was written. Failures of the replica besides.
    pub fn receive(
        &mut self,
        from: DeviceNumber,
        batch: &Batch,
        now: i64,
    ) -> Result<Received, AdmitError> {
        let changes = debug_span!(target: PART, "vouch").in_scope(|| self.vouched(batch))?;
        let id = batch.segment.id(&self.org());
        let _part = debug_span!(target: PART, "admit", changes = changes.len() as i64).entered();
        let result = self.appending(&id, |replica| {
            replica.open_segment(&batch.segment)?;
            let judges = replica.me.role == Role::Relay;
            replica.receive_all(&id, batch, &changes, (judges, now))
        });
        tracing::debug!(segment = %id, from, changes = changes.len(), admitted = result.is_ok());
        result
    }

    /// Takes changes in one after the other. Where this replica `judges` who may write what, what is
    /// not authorised by the membership log here is kept aside.
    pub(crate) fn receive_all(
        &mut self,
        id: &SegmentId,
        batch: &Batch,
        changes: &[Parsed<'_>],
        (judges, now): (bool, i64),
    ) -> Result<Received, AdmitError> {
        let mut received = Received::default();
        let mut intake = Intake { newest: BTreeMap::new(), heads: batch.heads.clone() };
        for change in changes {
            let Parsed { header, chunk, .. } = change;
            if self.load(id)?.history.contains(&header.hash) {
                intake.newest.insert(header.actor, (header.seq, header.hash));
                continue;
            }
            if let Some(reason) = self.kept_back(id, header).filter(|_| judges) {
                let records = self.aside_records(id, chunk, header)?;
                if self.keep_aside(id, change, records, &batch.heads, (reason, now))? {
                    received.newly_aside.insert(header.hash);
                }
                received.aside.push((header.hash, reason));
                continue;
            }
            let admitted = self.check_with_asides(id, change, &mut intake)?;
            let pos = self.append(id, chunk, admitted, Origin::Peer)?;
            intake.newest.insert(header.actor, (header.seq, header.hash));
            received.admitted = Some((received.admitted.map_or(pos, |(first, _)| first), pos));
        }
        self.vouch(id, &mut intake)?;
        self.keep_heads(id, &intake.heads)?;
        // What lay aside for a moment only, because others build on it, is in the log.
        let history = &self.load(id)?.history;
        received.aside.retain(|(hash, _)| !history.contains(hash));
        received.newest =
            intake.newest.into_iter().map(|(actor, (seq, hash))| (actor, seq, hash)).collect();
        Ok(received)
    }

    /// Reads the changes of a batch that passes stages 0 and 1.
    pub(crate) fn vouched<'a>(&self, batch: &'a Batch) -> Result<Vec<Parsed<'a>>, AdmitError> {
        let changes = parse(&batch.chunks)?;
        self.identify(batch, &changes)?;
        Ok(changes)
    }

    /// Stage 1: every change is a member's, and a valid signed head names the newest of each actor.
    fn identify(&self, batch: &Batch, changes: &[Parsed<'_>]) -> Result<(), AdmitError> {
        let segment = batch.segment.id(&self.org());
        let mut newest: BTreeMap<ActorId, &ChangeHeader> = BTreeMap::new();
        for Parsed { header, .. } in changes {
            if self.members.author(&header.actor).is_none() {
                return Err(stage_one(header, "unknown-author", "its author is not a member"));
            }
            if let Some(previous) = newest.insert(header.actor, header) {
                let follows =
                    header.seq == previous.seq + 1 && header.deps.contains(&previous.hash);
                if !follows {
                    return Err(stage_one(
                        header,
                        "unchained",
                        "it does not follow its author's previous change",
                    ));
                }
            }
        }
        for header in newest.values() {
            let member = self.members.author(&header.actor).expect("checked above");
            let vouched = batch.heads.iter().any(|head| {
                head.head.actor == header.actor
                    && head.head.seq == header.seq
                    && head.head.hash == header.hash
                    && member.vouches(head, &self.org(), &segment)
            });
            if !vouched {
                let ChangeHeader { actor, seq, hash, .. } = **header;
                return Err(unvouched(Head { actor, seq, hash }));
            }
        }
        Ok(())
    }

    /// Checks a change; if it builds on what was kept aside, that is admitted first, tainted.
    fn check_with_asides(
        &mut self,
        id: &SegmentId,
        change: &Parsed<'_>,
        intake: &mut Intake,
    ) -> Result<Admitted, AdmitError> {
        let refusal = match change.check(&self.load(id)?.history) {
            Ok(admitted) => return Ok(admitted),
            Err(refusal) => refusal,
        };
        let waits = refusal.waits().unwrap_or_default().to_vec();
        if !self.admit_asides(id, waits, intake)? {
            return Err(refused(&change.header, &refusal));
        }
        let admitted = change.check(&self.load(id)?.history);
        admitted.map_err(|refusal| refused(&change.header, &refusal))
    }

    /// Sees to it that a head vouches for every author's newest change in the log. Where all that
    /// there are name a change that was kept aside, that is admitted, tainted: without it nobody
    /// could tell who wrote the others.
    fn vouch(&mut self, id: &SegmentId, intake: &mut Intake) -> Result<(), AdmitError> {
        let sid = self.row(id).sid;
        // A device's own key vouches for what it wrote, whenever that is asked for.
        let own = |actor: &ActorId| self.me.role == Role::Device && self.me.signs_for(actor);
        let authors = intake.newest.keys().copied().filter(|actor| !own(actor));
        let authors: Vec<ActorId> = authors.collect();
        for actor in authors {
            let history = &self.load(id)?.history;
            let seq = history.vector().seq(&actor);
            let Some(last) = history.hash_of(&actor, seq) else { continue };
            let pos = history.position(&last).unwrap_or(0);
            let mut vouching = intake.heads.iter().filter(|head| head.head.actor == actor);
            let here = vouching.any(|head| head.head.hash == last);
            let stored = self.store.heads(sid, pos, pos)?;
            if here || stored.iter().any(|(_, head)| head.head.hash == last) {
                continue;
            }
            let heads = intake.heads.iter().map(|head| head.head);
            let heads: Vec<Head> = heads.filter(|head| head.actor == actor).collect();
            let mut vouched = false;
            for head in heads.iter().filter(|head| head.seq > seq) {
                vouched = vouched || self.admit_asides(id, vec![head.hash], intake)?;
            }
            if !vouched {
                return Err(unvouched(Head { actor, seq, hash: last }));
            }
        }
        Ok(())
    }

    /// Admits what was kept aside, with all that it builds on, tainted. Returns whether that could be
    /// done; if not, some of it may have been.
    fn admit_asides(
        &mut self,
        id: &SegmentId,
        mut wanted: Vec<ChangeHash>,
        intake: &mut Intake,
    ) -> Result<bool, AdmitError> {
        let sid = self.row(id).sid;
        let mut found: BTreeMap<ChangeHash, (Vec<ChangeHash>, Aside)> = BTreeMap::new();
        while let Some(hash) = wanted.pop() {
            if found.contains_key(&hash) {
                continue;
            }
            let aside = self.store.aside(sid, &hash)?;
            let Some(aside) = aside.filter(|aside| may_be_built_on(&aside.reason)) else {
                return Ok(false);
            };
            let deps = ChangeHeader::parse(&aside.bytes).map(|h| h.deps).unwrap_or_default();
            let history = &self.load(id)?.history;
            wanted.extend(deps.iter().filter(|dep| !history.contains(dep)));
            found.insert(hash, (deps, aside));
        }
        while !found.is_empty() {
            let history = &self.load(id)?.history;
            let ready =
                found.iter().find(|(_, (deps, _))| deps.iter().all(|d| history.contains(d)));
            let Some(hash) = ready.map(|(hash, _)| *hash) else { return Ok(false) };
            let (_, aside) = found.remove(&hash).expect("just found");
            let Ok(admitted) = self.load(id)?.history.check(&aside.bytes) else {
                return Ok(false);
            };
            self.append(id, &aside.bytes, admitted, Origin::Tainted)?;
            self.store.take_aside(sid, &aside.hash)?;
            intake.newest.insert(aside.actor, (aside.seq, aside.hash));
            intake.heads.extend(minicbor::decode::<SignedHead>(&aside.head));
        }
        Ok(true)
    }

    /// Appends a checked change to the log.
    pub(crate) fn append(
        &mut self,
        id: &SegmentId,
        chunk: &[u8],
        admitted: Admitted,
        origin: Origin,
    ) -> Result<Pos, ReplicaError> {
        let tainted = origin == Origin::Tainted;
        let row = self.row_mut(id);
        let header = &admitted.header;
        row.tip += 1;
        row.chain = row.chain.extend(&header.hash);
        row.sum = row.sum.wrapping_add(log_digest(&header.hash));
        let (sid, pos) = (row.sid, row.tip);
        let change = ChangeRow {
            pos,
            actor: header.actor,
            seq: header.seq,
            hash: header.hash,
            flags: Flags { tainted },
            bytes: chunk.to_vec(),
        };
        self.store.append_change(sid, &change)?;
        if self.me.role == Role::Relay && matches!(origin, Origin::Peer | Origin::Tainted) {
            *self.appended.entry(header.actor.device()).or_default() += chunk.len() as u64;
        }
        let (log_pos, unsaved) = match (origin, self.me.role) {
            (Origin::Log(log_pos), _) => (log_pos, 0),
            (Origin::Own, _) => (0, 0),
            (Origin::Peer | Origin::Tainted, Role::Relay) => (pos, 0),
            (Origin::Peer | Origin::Tainted, Role::Device) => (0, 1),
        };
        let loaded = self.load(id)?;
        loaded.history.admit(&admitted);
        if tainted || !loaded.taint.is_empty() {
            let (actor, seq, hash) = (header.actor, header.seq, header.hash);
            let entry = Noted { pos, actor, seq, hash, tainted, bytes: chunk };
            loaded.taint.note(&loaded.history, &entry);
        }
        if origin != Origin::Own {
            loaded.pending.push_back(Pending { log_pos, unsaved, touched: admitted.touched });
            self.behind.insert(*id);
        }
        Ok(pos)
    }

    /// Keeps the heads that their authors signed for changes of the log, at those positions.
    pub(crate) fn keep_heads(
        &mut self,
        id: &SegmentId,
        heads: &[SignedHead],
    ) -> Result<(), ReplicaError> {
        let sid = self.row(id).sid;
        for head in heads {
            let history = &self.load(id)?.history;
            let stated = Some((head.head.actor, head.head.seq));
            let pos = history.position(&head.head.hash);
            let Some(pos) = pos.filter(|_| history.locate(&head.head.hash) == stated) else {
                continue;
            };
            let author = self.members.author(&head.head.actor);
            if !author.is_some_and(|member| member.vouches(head, &self.org(), id)) {
                continue;
            }
            if let Some(chain) = self.chain_at(id, pos)? {
                self.store.put_head(sid, pos, &chain, head)?;
            }
        }
        Ok(())
    }

    /// Keeps a change that came byte for byte, within its author's quota, without merging it. Returns
    /// whether it did not lie aside before.
    pub(crate) fn keep_aside(
        &mut self,
        id: &SegmentId,
        Parsed { header, chunk, .. }: &Parsed<'_>,
        records: Vec<String>,
        heads: &[SignedHead],
        (reason, time): (&str, i64),
    ) -> Result<bool, AdmitError> {
        let device = header.actor.device();
        if self.store.aside_bytes(device)? + chunk.len() as u64 > ASIDE_QUOTA {
            return Err(stage_one(header, "quota", "too much of its author's lies aside already"));
        }
        let head = heads.iter().find(|head| head.head.actor == header.actor);
        let head =
            head.map(|head| minicbor::to_vec(head).expect("encoding into memory cannot fail"));
        let aside = Aside {
            sid: self.row(id).sid,
            hash: header.hash,
            actor: header.actor,
            seq: header.seq,
            reason: reason.to_owned(),
            time,
            records,
            head: head.unwrap_or_default(),
            bytes: chunk.to_vec(),
        };
        Ok(self.store.put_aside(&aside)?)
    }

    /// Of changes that came: those that are in the log now lie aside no more.
    pub(crate) fn forget_asides(
        &mut self,
        id: &SegmentId,
        changes: &[Parsed<'_>],
    ) -> Result<(), ReplicaError> {
        let sid = self.row(id).sid;
        if self.store.newest_asides(sid)?.is_empty() {
            return Ok(());
        }
        for Parsed { header, .. } in changes {
            if self.load(id)?.history.contains(&header.hash) {
                self.store.take_aside(sid, &header.hash)?;
            }
        }
        Ok(())
    }

    /// The records that a change without permission touches, as far as that can be told. Permission
    /// is no excuse: what the gate refuses is refused, and what waits for more than other changes
    /// that lie aside is not kept.
    fn aside_records(
        &mut self,
        id: &SegmentId,
        chunk: &[u8],
        header: &ChangeHeader,
    ) -> Result<Vec<String>, AdmitError> {
        let refusal = match self.load(id)?.history.check(chunk) {
            Ok(admitted) => {
                let touched = admitted.touched.iter().map(|touch| touch.record.to_string());
                return Ok(touched.collect::<BTreeSet<_>>().into_iter().collect());
            }
            Err(refusal) => refusal,
        };
        let sid = self.row(id).sid;
        for hash in refusal.waits().ok_or_else(|| refused(header, &refusal))? {
            let aside = self.store.aside(sid, hash)?;
            if aside.is_none_or(|aside| !may_be_built_on(&aside.reason)) {
                return Err(refused(header, &refusal));
            }
        }
        Ok(Vec::new())
    }

    /// The version vector of a segment; empty if there is none.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn vector(&mut self, id: &SegmentId) -> Result<VersionVector, ReplicaError> {
        if !self.segments.contains_key(id) {
            return Ok(VersionVector::default());
        }
        Ok(self.load(id)?.history.vector())
    }

    /// Notes, on a relay, the newest seq of an actor, so that an offer is answered without loading
    /// anything.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn note_newest(
        &mut self,
        id: &SegmentId,
        actor: &ActorId,
        seq: Seq,
    ) -> Result<(), ReplicaError> {
        let sid = self.row(id).sid;
        if self.store.acknowledged(sid, actor)? < seq {
            self.store.acknowledge(sid, actor, seq)?;
        }
        Ok(())
    }

    /// The member that wrote a change.
    #[must_use]
    pub fn author(&self, actor: &ActorId) -> Option<&Member> {
        self.members.author(actor)
    }
}

/// What a change adds to its segment's sum.
pub(crate) fn log_digest(hash: &ChangeHash) -> u128 {
    u128::from_be_bytes(hash.0[..16].try_into().expect("sixteen bytes"))
}

/// A change that passed stage 0.
pub(crate) struct Parsed<'a> {
    pub(crate) header: ChangeHeader,
    pub(crate) chunk: &'a [u8],
    /// Whether the chunk is raw. What deflated ones inflate to is not kept: a batch of them may come
    /// to far more than the batch.
    raw: bool,
}

impl Parsed<'_> {
    /// Stages 2 to 4 of the gate.
    pub(crate) fn check(&self, history: &History) -> Result<Admitted, Refusal> {
        if self.raw {
            history.check_parsed(&self.header, self.chunk)
        } else {
            history.check(self.chunk)
        }
    }
}

fn parse(chunks: &[Vec<u8>]) -> Result<Vec<Parsed<'_>>, AdmitError> {
    let changes = chunks.iter().map(|chunk| {
        let parsed = ChangeHeader::parse_with_raw(chunk).map(|(header, raw)| {
            let raw = matches!(raw, Cow::Borrowed(_));
            Parsed { header, chunk, raw }
        });
        parsed.map_err(|error| {
            let code = Code::Header(error);
            AdmitError::Refused(Box::new(Refused {
                hash: ChangeHash([0; 32]),
                stage: 0,
                code: code.as_str(),
                text: error.to_string(),
                missing: Vec::new(),
                author: None,
            }))
        })
    });
    changes.collect()
}

fn unvouched(change: Head) -> AdmitError {
    AdmitError::Refused(Box::new(Refused {
        hash: change.hash,
        stage: 1,
        code: "unvouched",
        text: "no signed head of its author vouches for it".to_owned(),
        missing: Vec::new(),
        author: Some((change.actor, change.seq)),
    }))
}

fn stage_one(header: &ChangeHeader, code: &'static str, text: &str) -> AdmitError {
    AdmitError::Refused(Box::new(Refused {
        hash: header.hash,
        stage: 1,
        code,
        text: text.to_owned(),
        missing: Vec::new(),
        author: Some((header.actor, header.seq)),
    }))
}

pub(crate) fn refused(header: &ChangeHeader, refusal: &Refusal) -> AdmitError {
    AdmitError::Refused(Box::new(Refused {
        hash: header.hash,
        stage: refusal.stage,
        code: refusal.code.as_str(),
        text: refusal.code.to_string(),
        missing: refusal.waits().unwrap_or_default().to_vec(),
        author: Some((header.actor, header.seq)),
    }))
}
