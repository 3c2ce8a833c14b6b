//! What is to blame for a held record: a smallest set of changes after its last valid state that makes
//! it one, found in its history.
//!
//! A verdict names who wrote the values that a rule read. That is known at once, and may be more than it
//! takes: somebody changed the price, somebody the discount, and somebody the note. Here states are
//! judged that never were, without half of the changes, a quarter, and so on to one change less and one
//! change less again, until each that is left is needed: delta debugging (Zeller and Hildebrandt,
//! "Simplifying and isolating failure-inducing input", 2002), on a history instead of an input.

use std::collections::BTreeSet;

use fieldkeep_catalog::Judgement;
use fieldkeep_model::status::State;
use fieldkeep_model::verdict::Arg;
use fieldkeep_model::{
    ActorId, ChangeHash, Outcome, Pos, Reason, RecordKey, SegmentId, Seq, VersionVector,
};
use fieldkeep_store::{RecordRow, Records as _};

use crate::judging::Subject;
use crate::past::HistoryEntry;
use crate::replica::{Replica, ReplicaError};

/// Changes that are looked through at most.
const MOST: usize = 256;
/// States that are tried at most: each is read from the document and judged, and on a relay everybody
/// waits for that. It is enough for 64 changes of which each is needed.
const TRIES: usize = 192;

/// What is to blame.
#[derive(Clone, Debug, PartialEq)]
pub enum Blame {
    /// These changes, oldest first: with them alone it would be held for all the reasons for which it is
    /// held, and with any one of them less it would not. Of changes that only lie below them, those are
    /// left out that wrote nothing the broken rules read; and of the reasons those for which its last
    /// valid state would be held as well.
    Changes(Vec<HistoryEntry>),
    /// No change of the record: its last valid state would be held for the same reasons. The catalog has
    /// changed, or what it refers to, or another record claims its unique value.
    Surroundings,
    /// So many changes came since it was last valid that which of them it takes is not looked for, or was
    /// not found in bounded time.
    TooMany(u64),
}

/// A record that is taken apart.
struct Case {
    segment: SegmentId,
    row: RecordRow,
    /// The segment's heads when the record was last valid.
    base: Vec<ChangeHash>,
    /// The record's changes since, oldest first.
    since: Vec<Since>,
    /// The reasons for which it would be held without any of them.
    besides: Vec<Reason>,
    /// The reasons for which it is held, those left out.
    reasons: Vec<Reason>,
}

/// A change since the last valid state.
struct Since {
    pos: Pos,
    hash: ChangeHash,
    author: (ActorId, Seq),
    /// What it builds upon, itself included.
    past: VersionVector,
}

impl Since {
    fn builds_on(&self, other: &Self) -> bool {
        self.past.seq(&other.author.0) >= other.author.1
    }
}

impl Replica {
    /// What is to blame for a held record. Nothing where it is not held, or for what no catalog says:
    /// that it was written without permission, say.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn blame(&mut self, key: &RecordKey) -> Result<Option<Blame>, ReplicaError> {
        let rows = self.store.find(&key.ty, &key.id)?.into_iter();
        let mut held = rows.filter(|row| row.state == State::Judged(Outcome::Held));
        let Some(row) = held.next() else { return Ok(None) };
        let Some(segment) = self.segment_of(row.sid).map(|row| row.id) else { return Ok(None) };
        let done = self.row(&segment).done;
        let history = &self.load(&segment)?.history;
        let recent: Vec<Pos> = history.changes_of(&row.id, row.valid_pos + 1..=done).collect();
        if recent.len() > MOST {
            return Ok(Some(Blame::TooMany(recent.len() as u64)));
        }
        let since = recent.into_iter().rev().filter_map(|pos| {
            let (actor, seq, hash) = history.change_at(pos)?;
            Some(Since { pos, hash, author: (actor, seq), past: history.vector_at(&[hash])? })
        });
        let since = since.collect();
        let base = history.heads_through(row.valid_pos);
        let mut case = Case { segment, row, base, since, besides: vec![], reasons: vec![] };
        case.besides = self.hypothesis(&case, &BTreeSet::new())?;
        let whole = (0..case.since.len()).collect();
        case.reasons = self.hypothesis(&case, &whole)?;
        if case.reasons.is_empty() {
            return Ok((!case.besides.is_empty()).then_some(Blame::Surroundings));
        }
        let Some(kept) = self.least(&case, whole)? else {
            return Ok(Some(Blame::TooMany(case.since.len() as u64)));
        };
        Ok(Some(Blame::Changes(self.blamed(key, &case, &kept)?)))
    }

    /// Leaves out whatever may be left out, the newest first, ever fewer at a time until nothing may;
    /// nothing if that is not known after [`TRIES`].
    fn least(
        &mut self,
        case: &Case,
        mut kept: BTreeSet<usize>,
    ) -> Result<Option<BTreeSet<usize>>, ReplicaError> {
        let (mut step, mut tries) = (kept.len(), 0);
        loop {
            step = step.div_ceil(2);
            let before = kept.len();
            let newest_first: Vec<usize> = kept.iter().rev().copied().collect();
            for part in newest_first.chunks(step) {
                let gone: Vec<_> = part.iter().filter(|index| kept.contains(index)).collect();
                if gone.is_empty() {
                    continue;
                }
                tries += 1;
                if tries > TRIES {
                    return Ok(None);
                }
                let mut fewer = kept.clone();
                fewer.retain(|other| {
                    let other = &case.since[*other];
                    !gone.iter().any(|gone| other.builds_on(&case.since[**gone]))
                });
                let reasons = self.hypothesis(case, &fewer)?;
                let holds = |wanted| reasons.iter().any(|reason| demand(reason) == demand(wanted));
                if case.reasons.iter().all(holds) {
                    kept = fewer;
                }
            }
            if step == 1 && kept.len() == before {
                return Ok(Some(kept));
            }
        }
    }

    /// For what the record would be held with those changes alone, and those that they build upon; what
    /// it would be held for without any is left out.
    fn hypothesis(
        &mut self,
        case: &Case,
        kept: &BTreeSet<usize>,
    ) -> Result<Vec<Reason>, ReplicaError> {
        let Some(catalog) = self.catalog() else { return Ok(Vec::new()) };
        let mut heads = case.base.clone();
        heads.extend(kept.iter().map(|index| case.since[*index].hash));
        let record = self.document(&case.segment)?.record_at(&case.row.id, &heads);
        let Some(record) = record.filter(|record| !record.deleted) else { return Ok(Vec::new()) };
        let row = RecordRow { deleted: false, ..case.row.clone() };
        let previous = Some(case.row.clone());
        let subject = Subject { segment: case.segment, row, previous, fields: record.fields };
        let Judgement { outcome, mut reasons, .. } = self.judge(&catalog, &subject);
        reasons.retain(|reason| outcome == Outcome::Held && !case.besides.contains(reason));
        Ok(reasons)
    }

    /// The changes that are to be told.
    fn blamed(
        &mut self,
        key: &RecordKey,
        case: &Case,
        kept: &BTreeSet<usize>,
    ) -> Result<Vec<HistoryEntry>, ReplicaError> {
        let positions = kept.iter().map(|index| case.since[*index].pos).collect();
        let sid = self.row(&case.segment).sid;
        let mut entries = Vec::new();
        for entry in self.entries(sid, &positions)? {
            entries.push(self.told(&case.segment, key, entry)?);
        }
        let read = case.reasons.iter().flat_map(|reason| &reason.fields);
        let read: BTreeSet<&str> = read.map(|field| top(field)).collect();
        let speaks = |entry: &HistoryEntry| {
            entry.writes.iter().any(|write| read.contains(top(&write.field)))
        };
        if entries.iter().any(speaks) {
            entries.retain(speaks);
        }
        Ok(entries)
    }
}

/// What a reason says is broken, whatever the value by which it is.
fn demand(reason: &Reason) -> (&str, Option<&str>, &[String], Option<&Arg>) {
    let child = reason.args.iter().find(|arg| arg.name == "child");
    (&reason.id, reason.rule.as_deref(), &reason.fields, child)
}

/// The field of the record that a path lies in: `lines` of `lines[7].quantity`.
fn top(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or(path)
}
