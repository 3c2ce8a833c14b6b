//! What a relay counts while it serves. Whatever happens is counted where it happens: who asks has nothing
//! counted for him, and waits for nobody.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use fieldkeep_model::TypeName;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::sample::Stopwatch;

/// One label and its value.
type Label = [(&'static str, String); 1];
/// A gauge for each type of records.
type ByType = Family<Label, Gauge>;
/// A counter for each code or reason.
type ByCode = Family<Label, Counter>;
/// Seconds, for each of something.
type Seconds = Family<Label, Counter<f64, AtomicU64>>;

/// Counts over all types, beside those that are served by type.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) records: Gauge,
    pub(crate) held: Gauge,
    pub(crate) waiting: Gauge,
    /// What was decided of held records.
    pub(crate) decided: Counter,
    pub(crate) commits: Stopwatch,
}

macro_rules! metrics {
    ($($name:ident: $kind:ty = $made:expr, $help:literal;)*) => {
        /// The counts, under the names that they are served by.
        #[derive(Debug)]
        pub(crate) struct Metrics {
            registry: Registry,
            trouble: Mutex<Option<String>>,
            /// What is summed up for whoever draws it, and not served.
            pub(crate) sums: Sums,
            $(#[doc = $help] pub(crate) $name: $kind,)*
        }

        impl Default for Metrics {
            fn default() -> Self {
                let mut registry = Registry::with_prefix("fieldkeep");
                $(
                    let $name: $kind = $made;
                    registry.register(stringify!($name), $help, $name.clone());
                )*
                Self { registry, trouble: Mutex::default(), sums: Sums::default(), $($name,)* }
            }
        }
    };
}

metrics! {
    ready: Gauge = Gauge::default(), "Whether what comes is taken in: 1, or 0 while the disk refuses";
    connections: Gauge = Gauge::default(), "Connections that are open";
    devices_online: Gauge = Gauge::default(), "Devices of the organisation that are connected";
    handshakes_refused: ByCode = Family::default(), "Handshakes that came to nothing, by reason";
    sessions_ended: ByCode = Family::default(), "Sessions that the relay ended, by code";
    strangers: Gauge = Gauge::default(), "Connections of keys that are not enrolled";
    limited_seconds: Seconds = Family::default(), "Seconds for which something was left unread or waited, by limit";
    limited_sessions: ByCode = Family::default(), "Sessions that ended or did not begin, by limit";
    limited_files: Counter = Counter::default(), "Attached files that were refused for want of room";
    limited_changes: Counter = Counter::default(), "Changes that were kept aside, because too much is stored of their author";
    received_bytes: Counter = Counter::default(), "Bytes of frames that came, files left out";
    sent_bytes: Counter = Counter::default(), "Bytes of frames that were sent, files left out";
    changes_admitted: Counter = Counter::default(), "Changes of devices that are in the log and durable";
    changes_refused: ByCode = Family::default(), "Batches of changes that the gate refused, by code";
    changes_aside: Counter = Counter::default(), "Changes that were kept aside for want of a permission";
    log_changes: Gauge = Gauge::default(), "Changes in the log";
    log_packed_changes: Gauge = Gauge::default(), "Changes in the log that lie in packs";
    packs_compressed: Counter = Counter::default(), "Packs that were compressed harder, when nothing else was to be done";
    judging_lag_changes: Gauge = Gauge::default(), "Changes in the log that are not merged and judged yet";
    judging_anew_segments: Gauge = Gauge::default(), "Segments to be judged anew, for a catalog or a permission";
    verdicts: Counter = Counter::default(), "Verdicts that were stated";
    records: ByType = Family::default(), "Records that are not deleted, by type";
    records_held: ByType = Family::default(), "Records that break a rule, by type";
    records_waiting: ByType = Family::default(), "Records that wait for another one, by type";
    records_dismissed: ByType = Family::default(), "Records that somebody put aside, by type";
    commit_seconds: Histogram = Histogram::new(exponential_buckets(0.000_5, 2.0, 14)),
        "How long a commit took, until the disk had it and what it lets out was made";
    ingest_changes: Histogram = Histogram::new(exponential_buckets(1.0, 4.0, 7)),
        "How many changes of devices a commit made durable";
    commit_failures: Counter = Counter::default(), "Commits that the disk refused: nothing of them was acknowledged";
    engine_queue_length: Gauge = Gauge::default(), "Inputs that wait for the engine";
    fanout_backlog_bytes: Gauge = Gauge::default(), "Bytes that wait for devices that read slowly";
    calls_pending: Gauge = Gauge::default(), "Calls that wait for a host";
    questions_pending: Gauge = Gauge::default(), "Questions that are being answered";
    store_bytes: Gauge = Gauge::default(), "Bytes of the database and its journal";
    files_bytes: Gauge = Gauge::default(), "Bytes of attached files that are here whole";
    backup_timestamp_seconds: Gauge = Gauge::default(),
        "The moment of the newest good backup, in seconds since 1970; 0 if none is known";
    catalog_number: Gauge = Gauge::default(), "The number of the catalog in force, 0 without one";
    epoch: Gauge = Gauge::default(), "The epoch of the log";
}

impl Metrics {
    /// All of them, in the text format of OpenMetrics.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing into memory cannot fail");
        text
    }

    /// Why nothing is taken in at the moment.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on nothing is taken in, and why; or it is again.
    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        self.ready.set(trouble.is_none().into());
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// The label of a type.
pub(crate) fn of_type(ty: &TypeName) -> Label {
    [("type", ty.to_string())]
}

/// The label of a code.
pub(crate) fn of_code(code: &str) -> Label {
    [("code", code.to_owned())]
}

/// The label of a limit.
pub(crate) fn of_limit(limit: &str) -> Label {
    [("limit", limit.to_owned())]
}

/// The label of a reason.
pub(crate) fn of_reason(reason: &str) -> Label {
    [("reason", reason.to_owned())]
}

/// A number as gauges take it.
pub(crate) fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
