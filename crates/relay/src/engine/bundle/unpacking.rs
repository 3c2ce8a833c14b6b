//! Taking a bundle in that a device wrote: its changes, then its wishes, then files that records name,
//! each by the same checks as in a session and on a lane.

use std::collections::BTreeSet;

use fieldkeep_model::{Member, SegmentAddress, SegmentId};
use fieldkeep_protocol::bundle::{Enclosed, Enclosure, Entry, Subject, Survey, Unfit, Unpacked};
use fieldkeep_protocol::frame::{Frame, Push, SegmentRef};
use fieldkeep_replica::{AdmitError, ReplicaError};
use fieldkeep_transfer::{Arrived, Brought};

use crate::engine::Engine;
use crate::engine::wishes::{WISHES, Wish};

/// A bundle that is being taken in.
#[derive(Debug)]
pub struct Unpacking {
    from: Member,
    refused: BTreeSet<SegmentId>,
    wishes: Vec<Wish>,
    /// Through which wish it tells.
    told: u64,
    unpacked: Unpacked,
}

impl Unpacking {
    /// One of which nothing was taken yet.
    pub(super) fn of(from: Member) -> Self {
        let unpacked = Unpacked { from: from.name.clone(), ..Unpacked::default() };
        Self { from, refused: BTreeSet::new(), wishes: Vec::new(), told: 0, unpacked }
    }

    /// What was taken by now.
    #[must_use]
    pub fn unpacked(&self) -> &Unpacked {
        &self.unpacked
    }

    /// Notes that nothing more of a segment is taken.
    fn refuse(&mut self, id: SegmentId, segment: Option<SegmentAddress>, code: &str, text: &str) {
        tracing::warn!(segment = %id, code, text, "refused, from a bundle");
        if self.refused.insert(id) {
            self.unpacked.refuse(Subject::Segment(id, segment), code, text);
        }
    }
}

impl Engine {
    /// Begins to take a bundle in, once it was read through: whose it is and for whom. What it brings
    /// of the membership log is taken; a commit must follow.
    ///
    /// # Errors
    /// [`Unfit`] where it is not taken: nothing was changed.
    pub fn unpack(
        &mut self,
        now: i64,
        survey: &Survey,
    ) -> Result<Result<Unpacking, Unfit>, ReplicaError> {
        self.now = now;
        let mine = self.replica.me().keys.public();
        let from = match survey.sender(self.replica.members(), &mine) {
            Ok(from) if self.is_suspended(&from.keys.tls) => Err(Unfit::Suspended(from.name)),
            other => other,
        };
        let from = match from {
            Ok(from) => from,
            Err(unfit) => return Ok(Err(unfit)),
        };
        self.append_members(&survey.members)?;
        Ok(Ok(Unpacking::of(from)))
    }

    /// Takes in what a bundle consists of, as from a session of whoever wrote it; wishes are kept until
    /// [`Engine::unpack_wishes`], and files come by [`Engine::unpack_file`]. A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn unpack_entry(
        &mut self,
        now: i64,
        unpacking: &mut Unpacking,
        entry: Entry,
    ) -> Result<(), ReplicaError> {
        self.now = now;
        let wish = match entry {
            Entry::Frame(Frame::Witness(statement)) => {
                if let Some(epoch) = self.replica.lost(&statement)? {
                    self.open_epoch(epoch)?;
                }
                return Ok(());
            }
            Entry::Frame(Frame::Push(push)) => return self.unpack_push(unpacking, push),
            Entry::Frame(Frame::Report(report)) => {
                return Ok(self.report_unpacked(&unpacking.from.identity, report)?);
            }
            Entry::Frame(Frame::Rejudge(key)) => Wish::Rejudge(key),
            Entry::Frame(Frame::Dismiss(dismiss)) => Wish::Dismiss(dismiss),
            Entry::Enclosed(Enclosed::Told(told)) => {
                unpacking.told = told.number;
                return Ok(());
            }
            // What it says of where its writer stands was read at first; the rest is for devices.
            Entry::Frame(_) | Entry::Enclosed(_) | Entry::Piece(_) => return Ok(()),
        };
        if unpacking.wishes.len() < WISHES {
            unpacking.wishes.push(wish);
        }
        Ok(())
    }

    /// Heeds the wishes that a bundle brings, once all else that was taken of it is judged. A commit
    /// must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn unpack_wishes(
        &mut self,
        now: i64,
        unpacking: &mut Unpacking,
    ) -> Result<(), ReplicaError> {
        self.now = now;
        let wishes = std::mem::take(&mut unpacking.wishes);
        self.heed(&unpacking.from, &wishes, unpacking.told)
    }

    /// What becomes of a file that a bundle brings, once all else of it is judged: as on a lane of
    /// whoever wrote it. A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn unpack_file(
        &mut self,
        now: i64,
        unpacking: &Unpacking,
        file: &Enclosure,
    ) -> Result<Brought, ReplicaError> {
        self.now = now;
        self.file_brought(&unpacking.from.keys.tls, &file.file)
    }

    /// Notes what became of that file. A commit must follow.
    ///
    /// # Errors
    /// When the store fails.
    pub fn file_unpacked(
        &mut self,
        now: i64,
        unpacking: &mut Unpacking,
        file: &Enclosure,
        arrived: Arrived,
    ) -> Result<(), ReplicaError> {
        self.now = now;
        let file = &file.file;
        let (code, text) = match arrived {
            Arrived::Known => return Ok(()),
            Arrived::Shown(tree) => {
                if self.file_shown(&unpacking.from.keys.tls, &file.record, &tree)? {
                    unpacking.unpacked.files += 1;
                    return Ok(());
                }
                let text = "no record that this device may write names the file any more";
                ("not-named".to_owned(), text.to_owned())
            }
            Arrived::Unfit(unfit) => (unfit.code, unfit.text),
        };
        tracing::warn!(file = %file.hash, code, text, "refused, from a bundle");
        let subject = Subject::File(file.record.clone(), file.hash);
        unpacking.unpacked.refuse(subject, &code, &text);
        Ok(())
    }

    fn unpack_push(&mut self, unpacking: &mut Unpacking, push: Push) -> Result<(), ReplicaError> {
        let SegmentRef { id, address } = push.segment;
        if unpacking.refused.contains(&id) {
            return Ok(());
        }
        let named = address.clone();
        let changes = match self.replica.batch(&id, address, &push.batch, push.heads) {
            Ok(changes) => changes,
            Err(error) => {
                unpacking.refuse(id, named, "malformed", &error.to_string());
                return Ok(());
            }
        };
        let segment = Some(changes.segment.clone());
        if !self.replica.is_declared(&changes.segment) {
            let text = "the relay's catalog has no such type, or divides it otherwise";
            self.tally.refused("undeclared");
            unpacking.refuse(id, segment, "undeclared", text);
            return Ok(());
        }
        match self.replica.receive(unpacking.from.number, &changes, self.now) {
            Ok(received) => {
                self.tally.received(&received);
                if let Some((first, last)) = received.admitted {
                    unpacking.unpacked.changes += last - first + 1;
                    self.has_grown(&id)?;
                }
                unpacking.unpacked.aside += received.aside.len() as u64;
                for (actor, seq, _) in &received.newest {
                    self.replica.note_newest(&id, actor, *seq)?;
                }
                Ok(())
            }
            Err(AdmitError::Refused(refused)) => {
                self.tally.refused(refused.code);
                unpacking.refuse(id, segment, refused.code, &refused.to_string());
                Ok(())
            }
            Err(AdmitError::Replica(error)) => Err(error),
        }
    }
}
