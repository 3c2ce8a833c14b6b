//! A bundle of a revoked device, taken by an operator: nobody's work is lost because its device is not
//! trusted any more.

use std::collections::BTreeSet;

use fieldkeep_model::{Member, SegmentAddress};
use fieldkeep_protocol::bundle::{Survey, Unfit};
use fieldkeep_protocol::frame::{Push, SegmentRef};
use fieldkeep_replica::{Accepted, Accepting, PutError};

use super::unpacking::Unpacking;
use crate::engine::Engine;

impl Engine {
    /// Takes what a revoked device wrote into a bundle for this relay, as far as an operator goes; all or
    /// nothing. Each record that is written again is on the trail. Returns whose it is as well. A commit
    /// must follow.
    ///
    /// # Errors
    /// [`Unfit`] where the bundle is another's, or of a device that was not revoked: nothing was changed.
    /// Failures of the store.
    pub fn accept(
        &mut self,
        (now, who): (i64, &str),
        survey: &Survey,
        pushes: Vec<Push>,
        how: Accepting,
    ) -> Result<Result<(Member, Accepted), Unfit>, PutError> {
        self.now = now;
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
        let mut accepted = self.replica.accept(&author, &batches, how, now)?;
        accepted.undeclared = undeclared;
        if how == Accepting::Trying {
            return Ok(Ok((author, accepted)));
        }
        self.moved.extend(&accepted.moved);
        for segment in &accepted.moved {
            self.has_grown(segment)?;
        }
        let note = format!("of {} (device {}), which was revoked", author.name, author.number);
        for record in &accepted.records {
            self.decided(now, who, "accept", &record.key, note.clone())?;
        }
        Ok(Ok((author, accepted)))
    }

    /// Takes the files of such a bundle in, once what was accepted of it is judged: as if this relay
    /// brought them, whose changes name them.
    #[must_use]
    pub fn accept_files(&self) -> Option<Unpacking> {
        let mine = self.replica.me().keys.public();
        self.replica.members().by_signing(&mine).cloned().map(Unpacking::of)
    }
}
