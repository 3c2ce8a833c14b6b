//! A bundle of a revoked device, taken by an operator: nobody's work is lost because its device is not
//! trusted any more.

use std::collections::BTreeSet;

use fieldkeep_model::{DeviceNumber, Member, SegmentAddress, SegmentId};
use fieldkeep_protocol::bundle::{Survey, Unfit};
use fieldkeep_protocol::frame::{Push, SegmentRef};
use fieldkeep_replica::{Accepted, Accepting, Batch, PutError};

use super::unpacking::Unpacking;
use crate::engine::Engine;

impl Engine {
    /// Takes what a revoked device wrote into a bundle for this relay, and what of it lies aside here, as
    /// far as an operator goes; all or nothing. Each record that is written again is on the trail. Returns
    /// whose it is as well. A commit must follow.
    ///
    /// # Errors
    /// [`Unfit`] where the bundle is another's, or of a device that was not revoked: nothing was changed.
    /// Failures of the store.
    pub fn accept(
        &mut self,
        by: (i64, &str),
        survey: &Survey,
        pushes: Vec<Push>,
        how: Accepting,
    ) -> Result<Result<(Member, Accepted), Unfit>, PutError> {
        let mine = self.replica.me().keys.public();
        let author = match survey.revoked_sender(self.replica.members(), &mine) {
            Ok(author) => author,
            Err(unfit) => return Ok(Err(unfit)),
        };
        let mut batches = Vec::new();
        for Push { segment: SegmentRef { id, address }, batch, heads } in pushes {
            let Ok(batch) = self.replica.batch(&id, address, &batch, heads) else {
                return Ok(Err(Unfit::Nonsense));
            };
            batches.push(batch);
        }
        let undeclared = batches.extract_if(.., |one| !self.replica.is_declared(&one.segment));
        let undeclared: BTreeSet<SegmentAddress> = undeclared.map(|one| one.segment).collect();
        let mut accepted = self.accept_of(by, &author, &batches, how)?;
        accepted.undeclared = undeclared;
        Ok(Ok((author, accepted)))
    }

    /// Takes what of a revoked device lies aside here, likewise: its device may never be seen again.
    ///
    /// # Errors
    /// [`Unfit`] where there is no such device, or it was not revoked. Failures of the store.
    pub fn accept_aside(
        &mut self,
        by: (i64, &str),
        device: DeviceNumber,
        how: Accepting,
    ) -> Result<Result<(Member, Accepted), Unfit>, PutError> {
        let mut members = self.replica.members().members().values();
        let author = match members.find(|member| member.number == device && !member.relay) {
            Some(author) if author.revoked => author.clone(),
            Some(author) => return Ok(Err(Unfit::InGoodStanding(author.name.clone()))),
            None => return Ok(Err(Unfit::Stranger)),
        };
        let accepted = self.accept_of(by, &author, &[], how)?;
        Ok(Ok((author, accepted)))
    }

    fn accept_of(
        &mut self,
        (now, who): (i64, &str),
        author: &Member,
        batches: &[Batch],
        how: Accepting,
    ) -> Result<Accepted, PutError> {
        self.now = now;
        let accepted = self.replica.accept(author, batches, how, now)?;
        if how == Accepting::Trying {
            return Ok(accepted);
        }
        // Of what only lies aside nobody is told: nothing is in the log.
        let has_log = |id: &&SegmentId| self.replica.segment(id).is_some_and(|row| row.tip > 0);
        let moved: Vec<SegmentId> = accepted.moved.iter().filter(has_log).copied().collect();
        for segment in &moved {
            self.has_grown(segment)?;
        }
        let note = format!("of {} (device {}), which was revoked", author.name, author.number);
        for record in &accepted.records {
            self.decided(now, who, "accept", &record.key, note.clone())?;
        }
        Ok(accepted)
    }

    /// Takes the files of such a bundle in, once what was accepted of it is judged: as if this relay
    /// brought them, whose changes name them.
    #[must_use]
    pub fn accept_files(&self) -> Option<Unpacking> {
        let mine = self.replica.me().keys.public();
        self.replica.members().by_signing(&mine).cloned().map(Unpacking::of)
    }
}
