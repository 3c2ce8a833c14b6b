//! Traces for an operator who runs a collector: spans leave over OTLP, in a thread of their own.
//!
//! The only place that knows OpenTelemetry: everybody else makes spans of `tracing`. Whoever makes one waits
//! for nobody: a span for which there is no room is counted and forgotten, and so are those that a collector
//! does not take. The log says how many, once a minute at most. Ending takes a bounded time.

use std::io::Read as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fieldkeep_relay::{Collector, Config, PART, TRACES};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, RetryPolicy, SpanExporter as Otlp, WithExportConfig as _,
    WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData,
    SpanExporter, SpanProcessor,
};
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{DynFilterFn, LevelFilter};
use tracing_subscriber::layer::Context as Within;
use tracing_subscriber::registry::LookupSpan;

use crate::args::relay::Relay;
use crate::args::{Args, Command, Directory};

/// Spans that may wait for the collector: some two megabytes.
const WAITING: usize = 4_096;
/// Spans that are sent at once.
const AT_ONCE: usize = 512;
/// How long a span waits at most until it is sent.
const DELAY: Duration = Duration::from_secs(5);
/// How long a collector may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What of its answer is read, in bytes.
const ANSWER: u64 = 64 * 1024;
/// How long what waits may take to leave when the process ends.
const FLUSH: Duration = Duration::from_secs(2);
/// How often it is told at most what was lost.
const TOLD: Duration = Duration::from_secs(60);

/// Where spans go.
#[derive(Debug)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tally: Arc<Tally>,
}

impl Traces {
    /// What the configuration asks for, of a command that is traced. One that is not to be understood is for
    /// the command to tell.
    pub(crate) fn asked(args: &Args) -> Option<Self> {
        let Command::Relay(Relay::Serve(_) | Relay::Backup { .. }) = args.command else {
            return None;
        };
        let directory = Directory::new(args.dir.clone()).path().ok()?;
        let collector = Config::read(&directory).ok()?.traces?;
        // The address was looked at when the configuration was read.
        Self::to(&collector).ok()
    }

    fn to(collector: &Collector) -> Result<Self, ExporterBuildError> {
        let tally = Arc::new(Tally::new());
        let otlp = Otlp::builder()
            .with_http()
            .with_http_client(Client::new())
            .with_endpoint(format!("{}/v1/traces", collector.endpoint))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(TIMEOUT)
            .with_retry_policy(RetryPolicy::disabled())
            .build()?;
        let exporter = Counted { otlp, tally: Arc::clone(&tally) };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(WAITING)
            .with_max_export_batch_size(AT_ONCE)
            .with_scheduled_delay(DELAY);
        let batches =
            BatchSpanProcessor::builder(exporter).with_batch_config(batches.build()).build();
        let resource = Resource::builder()
            .with_service_name("fieldkeep-relay")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        // Which sessions are traced was decided when they began.
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource.build())
            .with_span_processor(Bounded { batches, tally: Arc::clone(&tally) });
        Ok(Self { provider: provider.build(), tally })
    }

    /// What hears of spans: of sessions and what is done for them, and of parts of what it hears of. It hears
    /// of no event, and spans of others do not exist for it.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'s> LookupSpan<'s> + Send + Sync,
    {
        let heard = |of: &Metadata<'_>| of.is_span() && [TRACES, PART].contains(&of.target());
        let filter = DynFilterFn::new(move |of: &Metadata<'_>, within: &Within<'_, S>| {
            heard(of) && (of.target() == TRACES || within.lookup_current().is_some())
        });
        let filter =
            filter
                .with_callsite_filter(move |of| {
                    if heard(of) { Interest::sometimes() } else { Interest::never() }
                })
                .with_max_level_hint(LevelFilter::DEBUG);
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("fieldkeep"))
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_filter(filter)
    }

    /// Sends what waits, as far as that takes no longer than it may.
    pub(crate) fn end(self) {
        // A collector that does not take it in time has lost it, which is told.
        let _ = self.provider.shutdown_with_timeout(FLUSH);
        self.tally.end();
    }
}

/// How many spans wait, and how many were lost.
#[derive(Debug)]
struct Tally {
    waiting: AtomicUsize,
    lost: AtomicU64,
    /// Why the last of them were that were sent, and when that was told.
    last: Mutex<(Option<String>, Option<Instant>)>,
}

impl Tally {
    fn new() -> Self {
        Self { waiting: AtomicUsize::new(0), lost: AtomicU64::new(0), last: Mutex::default() }
    }

    /// Whether there is room for one more; it is counted where there is none.
    fn enters(&self) -> bool {
        let room = self.waiting.fetch_add(1, Relaxed) < WAITING;
        if !room {
            self.waiting.fetch_sub(1, Relaxed);
            self.lost.fetch_add(1, Relaxed);
        }
        room
    }

    /// So many were sent, or lost for a reason.
    fn left(&self, spans: usize, sent: Result<(), String>, now: Instant) {
        self.waiting.fetch_sub(spans, Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(why) = sent {
            self.lost.fetch_add(spans as u64, Relaxed);
            last.0 = Some(why);
        }
        let due = last.1.is_none_or(|told| now.duration_since(told) >= TOLD);
        if due && self.lost.load(Relaxed) > 0 {
            last.1 = Some(now);
            self.tell(last.0.take());
        }
    }

    /// Nothing is sent any more.
    fn end(&self) {
        let left = self.waiting.load(Relaxed) as u64;
        if self.lost.fetch_add(left, Relaxed) + left > 0 {
            self.tell(self.last.lock().unwrap_or_else(PoisonError::into_inner).0.take());
        }
    }

    fn tell(&self, why: Option<String>) {
        let spans = self.lost.swap(0, Relaxed);
        let why = why.unwrap_or_else(|| "the collector takes them too slowly".to_owned());
        tracing::warn!(spans, why, "spans were lost; nothing else was");
    }
}

/// Lets in what there is room for. The queue behind it is as long, and drops nothing uncounted.
#[derive(Debug)]
struct Bounded {
    batches: BatchSpanProcessor,
    tally: Arc<Tally>,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.tally.enters() {
            self.batches.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Counts what leaves, in the thread that sends it.
#[derive(Debug)]
struct Counted {
    otlp: Otlp,
    tally: Arc<Tally>,
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.otlp.export(batch).await;
        let told = sent.as_ref().copied().map_err(ToString::to_string);
        self.tally.left(spans, told, Instant::now());
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// What speaks HTTP: one request a connection, no redirect, no proxy, and an answer that is bounded.
#[derive(Debug)]
struct Client(ureq::Agent);

impl Client {
    fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(0)
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .user_agent(concat!("fieldkeep/", env!("CARGO_PKG_VERSION")));
        Self(config.build().new_agent())
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    /// Waits in the thread that sends spans, and has nothing else to do.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let answer = self.0.run(Request::from_parts(head, &*body))?;
        let (head, body) = answer.into_parts();
        let mut said = Vec::new();
        body.into_reader().take(ANSWER).read_to_end(&mut said)?;
        Ok(Response::from_parts(head, said.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_without_room_is_counted_as_lost_and_there_is_room_once_others_have_left() {
        let tally = Tally::new();
        assert!((0..WAITING).all(|_| tally.enters()));
        assert!(!tally.enters());
        assert_eq!(tally.lost.load(Relaxed), 1);
        tally.left(AT_ONCE, Ok(()), Instant::now());
        assert!((0..AT_ONCE).all(|_| tally.enters()));
        assert!(!tally.enters());
        tally.left(WAITING, Err("nobody is there".to_owned()), Instant::now());
        assert_eq!(tally.lost.load(Relaxed), 1 + WAITING as u64, "told again after a minute");
        assert_eq!(tally.waiting.load(Relaxed), 0);
    }
}
