//! What is to blame for a held record: a smallest set of changes after its last valid state that makes
//! it one, found in its history.
//!
//! A verdict names who wrote the values that a rule read. That is known at once, and may be more than it
//! takes: somebody changed the price, somebody the discount, and somebody the note. Here states are
//! judged that never were, with one change less and one change less again, until each that is left is
//! needed.

use std::collections::BTreeSet;

use fieldkeep_catalog::Judgement;
use fieldkeep_model::status::State;
use fieldkeep_model::{ChangeHash, Outcome, Pos, Reason, RecordKey, SegmentId};
use fieldkeep_store::{RecordRow, Records as _};

use crate::judging::Subject;
use crate::past::HistoryEntry;
use crate::replica::{Replica, ReplicaError};

/// Changes that are looked through at most.
const MOST: usize = 64;
/// States that are tried at most: each is read from the document and judged, and on a relay everybody
/// waits for that.
const TRIES: usize = 3 * MOST;

/// What is to blame.
#[derive(Clone, Debug, PartialEq)]
pub enum Blame {
    /// These changes, oldest first: with any one of them less, it would not be held as it is. Of changes
    /// that only lie below them, those are left out that wrote nothing the broken rules read; and of the
    /// reasons those for which its last valid state would be held as well.
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
    since: Vec<(Pos, ChangeHash)>,
    /// The reasons for which it would be held without any of them.
    besides: Vec<Reason>,
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
        let positions = history.changes_of(&row.id, done + 1);
        let recent = positions.take_while(|pos| *pos > row.valid_pos);
        let mut since: Vec<(Pos, ChangeHash)> =
            recent.filter_map(|pos| Some((pos, history.change_at(pos)?.2))).collect();
        if since.len() > MOST {
            return Ok(Some(Blame::TooMany(since.len() as u64)));
        }
        since.reverse();
        let base = history.heads_through(row.valid_pos);
        let mut case = Case { segment, row, base, since, besides: Vec::new() };
        let whole = (0..case.since.len()).collect();
        if let Some(without) = self.hypothesis(&case, &BTreeSet::new())? {
            case.besides = without.reasons;
        }
        if self.hypothesis(&case, &whole)?.is_none() {
            return Ok((!case.besides.is_empty()).then_some(Blame::Surroundings));
        }
        let Some((kept, judgement)) = self.least(&case, whole)? else {
            return Ok(Some(Blame::TooMany(case.since.len() as u64)));
        };
        Ok(Some(Blame::Changes(self.blamed(key, &case, &kept, &judgement)?)))
    }

    /// Leaves out whatever may be left out, the newest first, until nothing may; nothing if that is not
    /// known after [`TRIES`].
    fn least(
        &mut self,
        case: &Case,
        mut kept: BTreeSet<usize>,
    ) -> Result<Option<(BTreeSet<usize>, Judgement)>, ReplicaError> {
        let mut broken = self.hypothesis(case, &kept)?.expect("that it is held was just seen");
        let mut tries = 0;
        loop {
            let before = kept.len();
            for candidate in kept.clone().into_iter().rev() {
                if !kept.contains(&candidate) {
                    continue;
                }
                tries += 1;
                if tries > TRIES {
                    return Ok(None);
                }
                let mut fewer = kept.clone();
                let history = &self.load(&case.segment)?.history;
                let gone = case.since[candidate].1;
                fewer.retain(|other| !history.covers(&[case.since[*other].1], &gone));
                if let Some(judgement) = self.hypothesis(case, &fewer)? {
                    (kept, broken) = (fewer, judgement);
                }
            }
            if kept.len() == before {
                return Ok(Some((kept, broken)));
            }
        }
    }

    /// What the record would be with those changes alone, and those that they build upon: its judgement,
    /// if it would be held for something that it would not be held for without any.
    fn hypothesis(
        &mut self,
        case: &Case,
        kept: &BTreeSet<usize>,
    ) -> Result<Option<Judgement>, ReplicaError> {
        let Some(catalog) = self.catalog() else { return Ok(None) };
        let mut heads = case.base.clone();
        heads.extend(kept.iter().map(|index| case.since[*index].1));
        let record = self.document(&case.segment)?.record_at(&case.row.id, &heads);
        let Some(record) = record.filter(|record| !record.deleted) else { return Ok(None) };
        let row = RecordRow { deleted: false, ..case.row.clone() };
        let previous = Some(case.row.clone());
        let subject = Subject { segment: case.segment, row, previous, fields: record.fields };
        let mut judgement = self.judge(&catalog, &subject);
        judgement.reasons.retain(|reason| !case.besides.contains(reason));
        let held = judgement.outcome == Outcome::Held && !judgement.reasons.is_empty();
        Ok(held.then_some(judgement))
    }

    /// The changes that are to be told.
    fn blamed(
        &mut self,
        key: &RecordKey,
        case: &Case,
        kept: &BTreeSet<usize>,
        judgement: &Judgement,
    ) -> Result<Vec<HistoryEntry>, ReplicaError> {
        let positions = kept.iter().map(|index| case.since[*index].0).collect();
        let sid = self.row(&case.segment).sid;
        let mut entries = Vec::new();
        for entry in self.entries(sid, &positions)? {
            entries.push(self.told(&case.segment, key, entry)?);
        }
        let read = judgement.reasons.iter().flat_map(|reason| &reason.fields);
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

/// The field of the record that a path lies in: `lines` of `lines[7].quantity`.
fn top(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or(path)
}
