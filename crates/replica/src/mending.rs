//! Mending: what is derived is derived again from the changes, which are never touched.

use std::collections::BTreeMap;

use fieldkeep_model::status::State;
use fieldkeep_model::{Outcome, Pos, RecordId, SegmentId, Verdict};
use fieldkeep_store::{Apart, Log as _, Records as _, Verdicts as _};

use crate::generations::comes_to;
use crate::judging::unchanged;
use crate::replica::{Replica, ReplicaError};

/// How a record stands by what was stated of it.
struct Stood {
    /// Where its newest change lies in the log.
    pos: Pos,
    outcome: Outcome,
    /// Its last valid content, and through where that was.
    valid: Option<(String, Pos)>,
}

impl Replica {
    /// Derives a segment's records and document again from its changes.
    ///
    /// # Errors
    /// When the replica fails.
    pub fn derive_again(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        let sid = self.row(id).sid;
        self.store.clear_records(sid)?;
        self.cache.evict(id);
        self.count_none(id);
        self.row_mut(id).done = 0;
        self.behind.insert(*id);
        self.materialise(id, usize::MAX)?;
        for change in self.store.outgoing(sid)? {
            self.store.unsettle(sid, &change.records)?;
        }
        Ok(())
    }

    /// The same on a relay, where what was stated of records goes on to stand: only where they are judged
    /// otherwise as they really are, something is stated. Counts are counted, indexes made, and caches
    /// dropped. Returns the segments that have a block of verdicts more.
    ///
    /// # Errors
    /// [`ReplicaError::Damaged`] when the changes do not merge; failures of the store besides.
    pub fn project_again(&mut self, id: &SegmentId) -> Result<Vec<SegmentId>, ReplicaError> {
        let (judged, _) = self.together(true, |replica| replica.project_all(id))?;
        Ok(judged)
    }

    fn project_all(&mut self, id: &SegmentId) -> Result<Vec<SegmentId>, ReplicaError> {
        let sid = self.row(id).sid;
        self.store.forget_caches(sid)?;
        self.cache.evict(id);
        let ids = self.load_document(id)?.document.as_ref().expect("just loaded").ids();
        let mut stood = BTreeMap::new();
        for record in ids {
            stood.insert(record.clone(), self.stood(id, &record)?);
        }
        self.store.clear_records(sid)?;
        self.count_none(id);
        if std::mem::take(&mut self.row_mut(id).damaged) && self.row(id).done < self.row(id).tip {
            self.behind.insert(*id);
        }
        if self.is_apart(&self.row(id).address) {
            let none = stood.keys().map(|record| (record.clone(), None)).collect();
            self.count_apart(id, &none)?;
            return self.issue_verdicts(id, Vec::new());
        }
        let mut subjects = Vec::new();
        for (record, Stood { pos, outcome, valid }) in stood {
            let document = self.load_document(id)?.document.as_ref().expect("just loaded");
            let Some(merged) = document.record(&record) else { continue };
            let mut subject = self.compose(id, &record, merged, pos, 0)?;
            let row = &mut subject.row;
            row.state = State::Judged(outcome);
            if let Some((json, pos)) = valid {
                (row.valid, row.valid_pos) = (Some(json), pos);
            } else if outcome != Outcome::Valid {
                row.valid_pos = 0;
            }
            self.save_projected(&mut subject)?;
            self.count_judged(id, None, &subject.row, outcome);
            subjects.push(unchanged(*id, subject.row));
        }
        self.issue_verdicts(id, subjects)
    }

    /// Takes a segment's records out of what is read; its log stays, and what that comes to is counted.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn retire(&mut self, id: &SegmentId) -> Result<(), ReplicaError> {
        let sid = self.row(id).sid;
        self.store.clear_records(sid)?;
        self.store.forget_verdicts(sid)?;
        self.cache.evict(id);
        self.count_none(id);
        self.behind.remove(id);
        let row = self.row_mut(id);
        row.done = row.tip;
        if row.damaged {
            return Ok(());
        }
        let (records, rows) = comes_to(self.document(id)?);
        let apart = Apart { records, rows, ..self.apart(id) };
        Ok(self.save_apart(id, apart)?)
    }

    fn stood(&mut self, id: &SegmentId, record: &RecordId) -> Result<Stood, ReplicaError> {
        let (sid, done) = (self.row(id).sid, self.row(id).done);
        // A row that cannot be read says nothing.
        let kept = self.store.record(sid, record).ok().flatten();
        let pos = kept.map_or(done, |row| row.pos);
        let stated = self.store.verdict(sid, record)?;
        let stated = stated.and_then(|(bytes, _)| minicbor::decode::<Verdict>(&bytes).ok());
        let Some(Verdict { outcome, last_valid, .. }) = stated else {
            return Ok(Stood { pos, outcome: Outcome::Valid, valid: None });
        };
        let history = &self.load(id)?.history;
        // The newest of a log's heads is its last change.
        let end = |heads: &[_]| heads.iter().filter_map(|head| history.position(head)).max();
        let valid = last_valid.map(|valid| (valid.json, end(&valid.heads).unwrap_or(0)));
        Ok(Stood { pos, outcome, valid })
    }

    fn count_none(&mut self, id: &SegmentId) {
        let row = self.row_mut(id);
        (row.records, row.live, row.rows) = (0, 0, 0);
        (row.held, row.waiting) = (0, 0);
        if let Some(apart) = self.apart.get_mut(id) {
            (apart.records, apart.rows) = (0, 0);
        }
    }
}
