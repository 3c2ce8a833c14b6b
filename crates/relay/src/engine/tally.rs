//! What the engine counts as it goes: what is in the log and what became of it, who is connected.
//!
//! What a segment adds is kept, so that a commit costs what it has moved. What is in the log is counted once
//! it is durable.

use std::collections::BTreeMap;
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fieldkeep_model::{PublicKey, SegmentId, TypeName};
use fieldkeep_protocol::Code;
use fieldkeep_replica::{OVER_QUOTA, Received, Replica};
use fieldkeep_store::{Blobs as _, SegmentRow, StoreError, Verdicts as _};

use crate::metrics::{Metrics, gauge, of_code, of_limit, of_reason, of_type};

/// The counts of an engine.
#[derive(Debug, Default)]
pub(super) struct Tally {
    metrics: Arc<Metrics>,
    shares: BTreeMap<SegmentId, Share>,
    online: BTreeMap<PublicKey, usize>,
    /// Changes that were admitted or kept aside, and are not durable yet.
    arrived: u64,
    aside: u64,
    /// Those of them of whose authors too much is stored.
    over: u64,
}

/// What a segment adds to the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    log: u64,
    packed: u64,
    lag: u64,
    verdicts: u64,
    live: u64,
    held: u64,
    waiting: u64,
}

impl Tally {
    /// The counts as a replica stands when it is opened.
    pub(super) fn of(replica: &Replica) -> Self {
        let mut tally = Self::default();
        for reason in ["busy", "failed", "slow"] {
            drop(tally.metrics.handshakes_refused.get_or_create(&of_reason(reason)));
        }
        for limit in ["connections", "handshakes", "strangers", "traffic"] {
            drop(tally.metrics.limited_seconds.get_or_create(&of_limit(limit)));
        }
        for limit in ["connections", "strangers", "traffic"] {
            drop(tally.metrics.limited_sessions.get_or_create(&of_limit(limit)));
        }
        // All that there are: a counter that begins with its first event hides that one from rates.
        for code in (1..).map_while(Code::from_number) {
            drop(tally.metrics.sessions_ended.get_or_create(&of_code(&code.to_string())));
        }
        tally.metrics.set_trouble(None);
        for row in replica.segments().values() {
            tally.moved(row);
        }
        // Those were stated before.
        tally.metrics.verdicts.inner().store(0, Ordering::Relaxed);
        tally.stands(replica);
        if let Err(error) = tally.read(replica) {
            tracing::warn!(%error, "files and dismissals of before are not counted");
        }
        tally
    }

    fn read(&self, replica: &Replica) -> Result<(), StoreError> {
        let types = replica.published().map(|published| published.catalog.types().keys());
        for ty in types.into_iter().flatten() {
            let Metrics { records, records_held, records_waiting, .. } = &*self.metrics;
            for by_type in [records, records_held, records_waiting] {
                drop(by_type.get_or_create(&of_type(ty)));
            }
            self.dismissed(replica, ty)?;
        }
        self.metrics.files_bytes.set(gauge(replica.store().blob_bytes()?));
        Ok(())
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// A segment stands otherwise than before, and durably.
    pub(super) fn moved(&mut self, row: &SegmentRow) {
        let share = Share {
            log: row.tip,
            packed: row.packed,
            lag: row.tip.saturating_sub(row.done),
            verdicts: row.verdict,
            live: row.live,
            held: row.held,
            waiting: row.waiting,
        };
        let before = self.shares.insert(row.id, share).unwrap_or_default();
        if before == share {
            return;
        }
        let more = |now: u64, before: u64| gauge(now) - gauge(before);
        let Metrics { log_changes, log_packed_changes, judging_lag_changes, verdicts, .. } =
            &*self.metrics;
        log_changes.inc_by(more(share.log, before.log));
        log_packed_changes.inc_by(more(share.packed, before.packed));
        judging_lag_changes.inc_by(more(share.lag, before.lag));
        verdicts.inc_by(share.verdicts.saturating_sub(before.verdicts));
        let Metrics { records, records_held, records_waiting, sums, .. } = &*self.metrics;
        for (by_type, sum, now, before) in [
            (records, &sums.records, share.live, before.live),
            (records_held, &sums.held, share.held, before.held),
            (records_waiting, &sums.waiting, share.waiting, before.waiting),
        ] {
            if now != before {
                sum.inc_by(more(now, before));
                by_type.get_or_create(&of_type(&row.address.ty)).inc_by(more(now, before));
            }
        }
    }

    /// Other segments are no more: what they added is not counted any longer.
    pub(super) fn retain(&mut self, there: impl Fn(&SegmentId) -> bool) {
        let gone: Vec<SegmentId> = self.shares.keys().filter(|id| !there(id)).copied().collect();
        for id in gone {
            let Some(share) = self.shares.remove(&id) else { continue };
            let Metrics { log_changes, log_packed_changes, judging_lag_changes, .. } =
                &*self.metrics;
            log_changes.dec_by(gauge(share.log));
            log_packed_changes.dec_by(gauge(share.packed));
            judging_lag_changes.dec_by(gauge(share.lag));
        }
    }

    /// Changes of devices were taken in.
    pub(super) fn received(&mut self, received: &Received) {
        self.arrived += received.admitted.map_or(0, |(first, last)| last - first + 1);
        for (_, reason) in
            received.aside.iter().filter(|(hash, _)| received.newly_aside.contains(hash))
        {
            let count = if *reason == OVER_QUOTA { &mut self.over } else { &mut self.aside };
            *count += 1;
        }
    }

    /// Changes were refused, with that code.
    pub(super) fn refused(&self, code: &str) {
        self.metrics.changes_refused.get_or_create(&of_code(code)).inc();
    }

    /// What was taken in is durable.
    pub(super) fn committed(&mut self) {
        let (arrived, aside) = (take(&mut self.arrived), take(&mut self.aside));
        self.metrics.changes_aside.inc_by(aside);
        self.metrics.limited_changes.inc_by(take(&mut self.over));
        if arrived > 0 {
            self.metrics.changes_admitted.inc_by(arrived);
            self.metrics.ingest_changes.observe(arrived as f64);
        }
    }

    /// The disk refused what was taken in.
    pub(super) fn failed(&mut self, why: String) {
        (self.arrived, self.aside, self.over) = (0, 0, 0);
        self.metrics.commit_failures.inc();
        self.metrics.set_trouble(Some(why));
    }

    /// Which catalog and epoch hold, and what is judged anew for them.
    pub(super) fn stands(&self, replica: &Replica) {
        let number = replica.published().map_or(0, |published| published.number);
        self.metrics.catalog_number.set(gauge(number));
        self.metrics.epoch.set(gauge(replica.epoch().counter));
        self.metrics.judging_anew_segments.set(gauge(replica.renewing() as u64));
    }

    /// How many records of a type somebody put aside.
    pub(super) fn dismissed(&self, replica: &Replica, ty: &TypeName) -> Result<(), StoreError> {
        let count = replica.store().dismissals(ty)?;
        self.metrics.records_dismissed.get_or_create(&of_type(ty)).set(gauge(count));
        Ok(())
    }

    /// Something was decided of a held record.
    pub(super) fn decided(&self) {
        self.metrics.sums.decided.inc();
    }

    /// So many connections are open.
    pub(super) fn connected(&self, connections: usize) {
        self.metrics.connections.set(gauge(connections as u64));
    }

    /// A connection is a device's of the organisation.
    pub(super) fn came(&mut self, key: PublicKey) {
        *self.online.entry(key).or_default() += 1;
        self.metrics.devices_online.set(gauge(self.online.len() as u64));
    }

    /// A device's connection is gone.
    pub(super) fn left(&mut self, key: &PublicKey) {
        if let Some(connections) = self.online.get_mut(key) {
            *connections -= 1;
        }
        self.online.retain(|_, connections| *connections > 0);
        self.metrics.devices_online.set(gauge(self.online.len() as u64));
    }
}
