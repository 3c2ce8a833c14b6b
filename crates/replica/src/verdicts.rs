//! Verdict blocks as they travel: taken over from whoever brings them, and handed on.

use std::collections::BTreeSet;

use fieldkeep_model::status::State;
use fieldkeep_model::verdict::{self, ArgValue, Opening};
use fieldkeep_model::{Epoch, Judged, Outcome, RecordId, SegmentId, Signed, Verdict, VerdictBlock};
use fieldkeep_store::{
    BlockRow, RecordRow, Records as _, StandingVerdict, StoreError, Verdicts as _, about_device,
    about_rule,
};

use crate::extent::MORE;
use crate::judging::unchanged;
use crate::replica::{Replica, ReplicaError};
use crate::witness::StatementError;

/// Verdict blocks that go into one frame.
const BLOCKS: usize = 64;

/// What one frame holds of a segment's verdicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerdictPage {
    /// The blocks, oldest first.
    pub blocks: Vec<Signed>,
    /// What opens their sealed arguments, as far as the receiver may read it.
    pub openings: Vec<Opening>,
    /// Whether nothing follows. The newest block is among them then, also where it has no verdict.
    pub whole: bool,
}

impl Replica {
    /// Takes over a block of verdicts, if it is newer than what is held.
    ///
    /// # Errors
    /// [`StatementError::Unsigned`] when it is not what it claims to be; failures of the store.
    pub fn take_verdicts(
        &mut self,
        id: &SegmentId,
        relay: u64,
        signed: &Signed,
        openings: &[Opening],
    ) -> Result<Vec<RecordId>, StatementError> {
        let block: Option<VerdictBlock> = self.members.stated_by(relay, verdict::CONTEXT, signed);
        let block = block.ok_or(StatementError::Unsigned)?;
        if block.org != self.org() || block.segment != *id {
            return Err(StatementError::Unsigned);
        }
        let Some(row) = self.segments.get(id) else { return Ok(Vec::new()) };
        let sid = row.sid;
        let newest = self.newest_block(sid)?;
        if newest.as_ref().is_some_and(|(newest, _)| newest.judged() >= block.judged()) {
            return Ok(Vec::new());
        }
        let mut changed = Vec::new();
        if newest.is_some_and(|(newest, _)| newest.epoch < block.epoch) {
            // The first block of an epoch states everything that stands.
            changed.extend(self.store.clear_verdicts(sid)?);
        }
        for verdict in &block.verdicts {
            self.take_verdict(id, verdict, openings)?;
            changed.push(verdict.id.clone());
        }
        if !block.verdicts.is_empty() {
            let own = openings.iter().filter(|o| block.verdicts.iter().any(|v| opens(o, v)));
            let own: Vec<&Opening> = own.collect();
            let openings = minicbor::to_vec(own).expect("encoding into memory cannot fail");
            let (epoch, number) = (block.epoch, block.number);
            let row = BlockRow { epoch, number, block: signed.clone(), openings };
            self.store.append_block(sid, &row)?;
        }
        self.store.put_judged(sid, signed)?;
        let row = self.row_mut(id);
        row.verdict = block.number;
        (row.judged, row.judged_catalog) = (block.pos, block.catalog);
        changed.extend(self.store.pass_judged(sid, block.pos)?);
        Ok(changed)
    }

    /// The newest block of a segment, read and as it was signed.
    pub(crate) fn newest_block(
        &self,
        sid: i64,
    ) -> Result<Option<(VerdictBlock, Signed)>, ReplicaError> {
        let Some(signed) = self.store.judged(sid)? else { return Ok(None) };
        let block = signed.read::<VerdictBlock>();
        let block = block.ok_or_else(|| StoreError::Damaged("a verdict block".into()))?;
        Ok(Some((block, signed)))
    }

    /// How far the verdicts of a segment are known here.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn judged(&self, id: &SegmentId) -> Result<Option<Judged>, ReplicaError> {
        Ok(self.newest_block(self.row(id).sid)?.map(|(block, _)| block.judged()))
    }

    /// The newest block of a segment, for those who send it on.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn judged_block(&self, id: &SegmentId) -> Result<Option<Signed>, ReplicaError> {
        Ok(self.store.judged(self.row(id).sid)?)
    }

    /// What follows a number in a segment's verdicts of an epoch, as much as one frame of so many
    /// bytes holds, but at least one block. `readable` says which openings go with it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn verdict_page(
        &self,
        id: &SegmentId,
        (epoch, after): (Epoch, u64),
        bytes: usize,
        readable: impl Fn(&Opening) -> bool,
    ) -> Result<VerdictPage, ReplicaError> {
        let mut rows = self.store.blocks(self.row(id).sid, epoch, after, BLOCKS)?;
        let mut size = 0;
        let fits = rows.iter().take_while(|row| {
            size += row.block.bytes.len() + row.openings.len();
            size <= bytes
        });
        let fits = fits.count().max(1);
        let whole = rows.len() < BLOCKS && fits >= rows.len();
        rows.truncate(fits);
        let openings = rows.iter().filter_map(|row| minicbor::decode(&row.openings).ok());
        let openings = openings.flat_map(|openings: Vec<Opening>| openings).filter(readable);
        let openings = openings.collect();
        let mut blocks: Vec<Signed> = rows.into_iter().map(|row| row.block).collect();
        if whole {
            let newest = self.judged_block(id)?;
            blocks.extend(newest.filter(|newest| blocks.last() != Some(newest)));
        }
        Ok(VerdictPage { blocks, openings, whole })
    }

    fn take_verdict(
        &mut self,
        id: &SegmentId,
        verdict: &Verdict,
        openings: &[Opening],
    ) -> Result<(), ReplicaError> {
        let sid = self.row(id).sid;
        if verdict.outcome == Outcome::Valid {
            self.store.put_verdict(sid, &verdict.id, None)?;
        } else {
            let own = openings.iter().filter(|opening| opens(opening, verdict));
            let own: Vec<Opening> = own.cloned().collect();
            self.store.put_verdict(sid, &verdict.id, Some(&standing(verdict, &own)))?;
        }
        let Some(row) = self.store.record(sid, &verdict.id)? else { return Ok(()) };
        if row.hash == verdict.record {
            let state = State::Judged(verdict.outcome);
            self.store.put_record(&mut RecordRow { state, forecast: None, ..row })?;
        } else {
            self.forecast(unchanged(*id, row))?;
        }
        Ok(())
    }
}

/// A verdict as it is kept, with what it is found by.
pub(crate) fn standing(verdict: &Verdict, openings: &[Opening]) -> StandingVerdict {
    const FITS: &str = "encoding into memory cannot fail";
    let rules = verdict
        .reasons
        .iter()
        .filter(|reason| reason.id != MORE)
        .map(|reason| about_rule(reason.rule.as_deref().unwrap_or(&reason.id)));
    let devices = verdict.culprits.iter().map(|culprit| about_device(culprit.actor.device()));
    let about: BTreeSet<String> = rules.chain(devices).collect();
    StandingVerdict {
        bytes: minicbor::to_vec(verdict).expect(FITS),
        openings: minicbor::to_vec(openings).expect(FITS),
        since: verdict.culprits.iter().map(|culprit| culprit.time).max().unwrap_or(0),
        about: about.into_iter().collect(),
    }
}

/// Whether an opening belongs to an argument of a verdict.
fn opens(opening: &Opening, verdict: &Verdict) -> bool {
    let seal = ArgValue::Sealed(opening.seal());
    verdict.reasons.iter().flat_map(|reason| &reason.args).any(|arg| arg.value == seal)
}
