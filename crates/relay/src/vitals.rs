//! How a relay is doing, for whoever watches it. The engine is not asked: what it counts is read, so that an
//! answer comes when it is busy, and when its disk is slow.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fieldkeep_link::Endpoint;
use fieldkeep_store::home;
use prometheus_client::metrics::gauge::Gauge;

use crate::metrics::{Metrics, gauge, of_reason};
use crate::sample::Sample;
use crate::server::{Handle, now};

/// How a relay that serves is doing.
#[derive(Clone, Debug)]
pub struct Vitals {
    metrics: Arc<Metrics>,
    endpoint: Arc<Endpoint>,
    engine: Handle,
    database: PathBuf,
    journal: PathBuf,
}

impl Vitals {
    pub(crate) fn new(
        metrics: Arc<Metrics>,
        endpoint: Arc<Endpoint>,
        engine: Handle,
        directory: &Path,
    ) -> Self {
        let database = home::database(directory);
        let mut journal = database.clone().into_os_string();
        journal.push("-wal");
        Self { metrics, endpoint, engine, database, journal: journal.into() }
    }

    /// Whether its engine runs; if it does not, the process is about to end.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.engine.waiting().is_some()
    }

    /// Why it takes nothing in at the moment; nothing where it does. Judging anew, after an upgrade or for
    /// another catalog, is no reason.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if !self.is_alive() {
            return Some("the relay has stopped".to_owned());
        }
        self.metrics.trouble()
    }

    /// What it has counted, in the text format of OpenMetrics, which Prometheus reads.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.look();
        let refused = self.metrics.handshakes_refused.get_or_create(&of_reason("busy"));
        refused.inner().store(self.endpoint.refused(), Ordering::Relaxed);
        drop(refused);
        self.metrics.text()
    }

    /// How it stands at this moment.
    #[must_use]
    pub fn sample(&self) -> Sample {
        self.look();
        let Metrics { sums, .. } = &*self.metrics;
        let level = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or(0);
        Sample {
            time: now(),
            admitted: self.metrics.changes_admitted.get(),
            verdicts: self.metrics.verdicts.get(),
            bytes: (self.metrics.received_bytes.get(), self.metrics.sent_bytes.get()),
            commits: sums.commits.read(),
            lag: level(&self.metrics.judging_lag_changes),
            renewing: level(&self.metrics.judging_anew_segments),
            queue: level(&self.metrics.engine_queue_length),
            devices: level(&self.metrics.devices_online),
            records: level(&sums.records),
            held: level(&sums.held),
            waiting: level(&sums.waiting),
            decided: sums.decided.get(),
            catalog: level(&self.metrics.catalog_number),
            stored: level(&self.metrics.store_bytes),
        }
    }

    /// Looks at what nobody counts: how much waits, and how long the files are.
    fn look(&self) {
        let waiting = self.engine.waiting().unwrap_or_default();
        self.metrics.engine_queue_length.set(gauge(waiting as u64));
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        self.metrics.store_bytes.set(gauge(length(&self.database) + length(&self.journal)));
    }
}
