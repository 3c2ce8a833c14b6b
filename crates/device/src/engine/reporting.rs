//! What the device says of itself, where the relay keeps that: what it has, and what of it has no receipt.
//! Said with the introduction, because a session that finds all equal is over with the relay's first
//! answer, and again when it is otherwise; while changes are on their way their receipts are waited for. A
//! relay that does not keep it passes it over.

use fieldkeep_protocol::frame::{Frame, Hello};
use fieldkeep_protocol::report::TYPES_TOLD;
use fieldkeep_protocol::{Report, TypeHeld, capability};
use fieldkeep_replica::ReplicaError;
use fieldkeep_store::{Blobs as _, Log as _, StoreError};

use super::Engine;

/// How often it is told, at most, that there are other records, where nothing else has changed.
const RECORDS_TOLD_MS: i64 = 60_000;

/// What was said on the present connection.
#[derive(Debug, Default)]
pub(super) struct Reporting {
    /// Whether the relay keeps it.
    wanted: bool,
    /// Whether it may be otherwise than it was said.
    stale: bool,
    told: Option<Report>,
}

impl Engine {
    /// Something that a report speaks of may have changed.
    pub(crate) fn may_report(&mut self) {
        self.reporting.stale = true;
    }

    /// Says how things stand on a connection that begins.
    pub(super) fn report_first(&mut self) -> Result<(), StoreError> {
        let report = self.whole_report()?;
        self.control(&Frame::Report(report.clone()));
        self.reporting.told = Some(report);
        Ok(())
    }

    /// The relay has said whether it keeps reports.
    pub(super) fn learn_reports(&mut self, welcome: &Hello) {
        self.reporting.wanted = welcome.capabilities & capability::REPORTS != 0;
        self.reporting.stale |= self.reporting.told.is_none();
    }

    /// Says how things stand, if that is wanted and worth it.
    pub(super) fn report(&mut self) -> Result<(), ReplicaError> {
        let Reporting { wanted, stale, told } = &self.reporting;
        let settled = told.is_none() || self.under_way.is_empty();
        if !wanted || !stale || !settled || !self.is_online() {
            return Ok(());
        }
        let told = told.clone();
        self.reporting.stale = false;
        let mut report = self.standing()?;
        let changed = told.as_ref().is_none_or(|told| told.essence() != report.essence());
        let since = told.as_ref().map_or(i64::MAX, |told| self.now.saturating_sub(told.time));
        if !changed && since < RECORDS_TOLD_MS {
            return Ok(());
        }
        report.types = self.types_held()?;
        if changed || told.is_none_or(|told| told.types != report.types) {
            self.control(&Frame::Report(report.clone()));
        }
        self.reporting.told = Some(report);
        Ok(())
    }

    /// How things stand, but for the records.
    fn standing(&self) -> Result<Report, StoreError> {
        let store = self.replica.store();
        let (mut waiting, mut refused) = (0, 0);
        for (waits, was_refused) in store.outgoing_by_segment()?.into_values() {
            (waiting, refused) = (waiting + waits, refused + was_refused);
        }
        let [files, _] = store.upload_counts()?;
        Ok(Report {
            time: self.now,
            catalog: self.replica.published().map_or(0, |published| published.number),
            members: self.replica.members().len(),
            waiting,
            refused,
            files,
            leaves_out: self.paused.is_chosen(),
            types: Vec::new(),
        })
    }

    fn types_held(&self) -> Result<Vec<TypeHeld>, StoreError> {
        let counts = self.replica.views().counts_by_type()?.into_iter();
        let here = counts.filter(|(_, counts)| counts.segments > 0 || counts.unsaved > 0);
        let held = here.map(|(ty, counts)| TypeHeld {
            ty,
            records: counts.local,
            unsaved: counts.unsaved + counts.carried,
        });
        Ok(held.take(TYPES_TOLD).collect())
    }

    /// The same for a bundle, which the relay takes some time.
    pub(super) fn whole_report(&self) -> Result<Report, StoreError> {
        Ok(Report { types: self.types_held()?, ..self.standing()? })
    }
}
