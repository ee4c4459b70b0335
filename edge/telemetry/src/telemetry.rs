//! One handle for all: what a worker tells at a request's end, and who asks for it later.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use pool_model::{RequestId, TeamId};

use crate::{
    access_log::{LogConfig, LogTarget, Outbox, Reopen, Writer},
    line::Lines,
    metrics::{
        ConnectionGuard, HandshakeFailure, Limit, Metrics, Refused, Shard, TunnelGuard,
        UpstreamError,
    },
    otlp::{Exporter, OtlpConfig, OtlpError, SpanQueue},
    record::{Outcome, Protocol, RequestRecord},
    ring::Ring,
    sink::LineCounts,
};

/// Records kept in all, unless the settings say otherwise.
const RECORDS_KEPT: usize = 65_536;

/// Settings.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// Threads that will finish requests.
    pub workers: usize,
    /// The access log.
    pub log: LogConfig,
    /// Records kept in all for lookups by id.
    pub records_kept: usize,
    /// Where traces go; nowhere if absent.
    pub otlp: Option<OtlpConfig>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        let log = LogConfig::default();
        Self { workers: 1, log, records_kept: RECORDS_KEPT, otlp: None }
    }
}

/// Why telemetry can't be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The access log can't be opened.
    #[error("the access log cannot be opened")]
    Log(#[source] io::Error),
    /// Traces can't be exported as configured.
    #[error("traces cannot be exported")]
    Otlp(#[from] OtlpError),
}

/// All of the process's telemetry.
#[derive(Debug)]
pub struct Telemetry {
    metrics: Arc<Metrics>,
    rings: Vec<Arc<Ring>>,
    outboxes: Vec<Arc<Outbox>>,
    logs: bool,
    sample: Option<f64>,
    spans: Option<Arc<SpanQueue>>,
    trace_ratio: f64,
    reopen: Reopen,
}

/// What runs beside the workers; ended by [`Background::stop`], or without waiting when dropped.
#[derive(Debug)]
pub struct Background {
    writer: Option<Writer>,
    exporter: Option<Exporter>,
}

impl Background {
    /// Writes and exports what waits, both at once, for at most `within`; what is not done by then
    /// is counted as lost. Not cancel-safe: dropped half-way, the rest is not waited for.
    pub async fn stop(self, within: Duration) {
        let Self { writer, exporter } = self;
        let log = async {
            if let Some(writer) = writer {
                writer.stop(within).await;
            }
        };
        let traces = async {
            if let Some(exporter) = exporter {
                exporter.stop(within).await;
            }
        };
        tokio::join!(log, traces);
    }
}

impl Telemetry {
    /// Starts the log's writer and the exporter, on the calling runtime.
    ///
    /// # Errors
    ///
    /// [`TelemetryError`].
    pub fn start(config: TelemetryConfig) -> Result<(Arc<Self>, Background), TelemetryError> {
        let workers = config.workers.max(1);
        let per_worker = config.records_kept.div_ceil(workers);
        let outboxes: Vec<Arc<Outbox>> = (0..workers).map(|_| Arc::default()).collect();
        let reopen = Reopen::default();
        let LogConfig { target, sample } = config.log;
        let logs = target != LogTarget::Off;
        let lines = Arc::<LineCounts>::default();
        let writer = Writer::start(&target, outboxes.clone(), reopen.clone(), Arc::clone(&lines));
        let writer = writer.map_err(TelemetryError::Log)?;
        let trace_ratio = config.otlp.as_ref().map_or(0.0, |otlp| otlp.ratio);
        let exporter = config.otlp.map(Exporter::start).transpose()?;
        let rings: Vec<Arc<Ring>> = (0..workers).map(|_| Arc::new(Ring::new(per_worker))).collect();
        let spans = exporter.as_ref().map(Exporter::queue);
        let metrics = Metrics::new(workers);
        let own =
            Own { rings: rings.clone(), outboxes: outboxes.clone(), lines, spans: spans.clone() };
        own.register(&metrics);
        let telemetry = Self { metrics, rings, outboxes, logs, sample, spans, trace_ratio, reopen };
        Ok((Arc::new(telemetry), Background { writer, exporter }))
    }

    /// A worker's own part.
    #[must_use]
    pub fn worker(self: &Arc<Self>, index: usize) -> WorkerTelemetry {
        let index = index % self.rings.len();
        WorkerTelemetry {
            shard: self.metrics.shard(index),
            ring: Arc::clone(&self.rings[index]),
            outbox: self.logs.then(|| Arc::clone(&self.outboxes[index])),
            telemetry: Arc::clone(self),
        }
    }

    /// The metrics.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// A limit was met.
    pub fn count_limit(&self, limit: Limit) {
        self.metrics.count_limit(limit);
    }

    /// A TLS handshake ended well.
    pub fn count_handshake(&self, resumed: bool) {
        self.metrics.count_handshake(resumed);
    }

    /// A TLS handshake failed, nobody knows why.
    pub fn count_failed_handshake(&self) {
        self.metrics.count_handshake_failure(HandshakeFailure::Other);
    }

    /// A TLS handshake failed.
    pub fn count_handshake_failure(&self, reason: HandshakeFailure) {
        self.metrics.count_handshake_failure(reason);
    }

    /// Counts a client's connection as open until the guard is dropped. To be called when the
    /// protocol is known, after a TLS handshake.
    pub fn connection(&self, protocol: Protocol) -> ConnectionGuard {
        self.metrics.connection(protocol)
    }

    /// Counts a tunnel (an upgrade or CONNECT) as open until the guard is dropped.
    pub fn tunnel(&self) -> TunnelGuard {
        self.metrics.tunnel()
    }

    /// A request was refused. Workers count by their own [`WorkerTelemetry::count_refused`].
    pub fn count_refused(&self, by: Refused) {
        self.metrics.shard(0).count_refused(by);
    }

    /// An attempt at an agent failed. Workers count by their own
    /// [`WorkerTelemetry::count_upstream_error`].
    pub fn count_upstream_error(&self, kind: UpstreamError) {
        self.metrics.shard(0).count_upstream_error(kind);
    }

    /// A route was looked up. Workers count by their own [`WorkerTelemetry::count_route`].
    pub fn count_route(&self, cached: bool) {
        self.metrics.shard(0).count_route(cached);
    }

    /// Share of traces that are recorded if they begin here; 0 without an exporter.
    #[must_use]
    pub const fn trace_ratio(&self) -> f64 {
        self.trace_ratio
    }

    /// Opens the access log's file anew.
    pub fn reopen_log(&self) {
        self.reopen.ask();
    }

    /// The newest record of a request as JSON, if it is `team`'s (or no team is asked for).
    #[must_use]
    pub fn find(&self, id: RequestId, team: Option<TeamId>) -> Option<String> {
        let found = self.rings.iter().filter_map(|ring| ring.find(id, team));
        found.max_by_key(|record| record.at_ns).map(|record| text_of(&record))
    }

    /// The newest records as JSON, newest first.
    #[must_use]
    pub fn recent(&self, team: Option<TeamId>, limit: usize) -> Vec<String> {
        let mut all: Vec<_> = self.rings.iter().flat_map(|ring| ring.recent(team, limit)).collect();
        all.sort_by_key(|record| std::cmp::Reverse(record.at_ns));
        all.truncate(limit);
        all.iter().map(|record| text_of(record)).collect()
    }
}

/// What telemetry says about itself.
struct Own {
    rings: Vec<Arc<Ring>>,
    outboxes: Vec<Arc<Outbox>>,
    lines: Arc<LineCounts>,
    spans: Option<Arc<SpanQueue>>,
}

impl Own {
    /// Adds its numbers, all of them whether log and traces are on or not.
    fn register(self, metrics: &Metrics) {
        let rings = self.rings.clone();
        metrics.add_gauges(Box::new(move || {
            let kept: usize = rings.iter().map(|ring| ring.len()).sum();
            let kept = i64::try_from(kept).unwrap_or(i64::MAX);
            vec![("records_kept", "Records that can be looked up.", kept)]
        }));
        metrics.add_counters(Box::new(move || self.counts()));
    }

    fn counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        let dropped = self.outboxes.iter().map(|outbox| outbox.dropped.load(Relaxed)).sum();
        let (written, lost) = (self.lines.written.load(Relaxed), self.lines.lost.load(Relaxed));
        let spans = self.spans.as_ref().map(|spans| spans.counts()).unwrap_or_default();
        let dropped_help = "Access log lines that came faster than they could be written.";
        vec![
            ("log_lines_written", "Access log lines that were written.", written),
            ("log_lines_dropped", dropped_help, dropped),
            ("log_lines_lost", "Access log lines that the target did not take.", lost),
            ("traces_exported", "Requests whose spans the collector took.", spans.exported),
            ("traces_dropped", "Requests whose spans were given up.", spans.dropped),
            ("spans_rejected", "Spans that the collector took and rejected.", spans.rejected),
        ]
    }
}

fn text_of(record: &RequestRecord) -> String {
    let mut line = Vec::new();
    Lines::default().write(&mut line, record);
    line.truncate(line.trim_ascii_end().len());
    String::from_utf8(line).expect("made of texts only")
}

/// One worker's part: cheap to use, by one thread.
#[derive(Debug)]
pub struct WorkerTelemetry {
    shard: Arc<Shard>,
    ring: Arc<Ring>,
    outbox: Option<Arc<Outbox>>,
    telemetry: Arc<Telemetry>,
}

impl WorkerTelemetry {
    /// A request began.
    pub fn begin(&self) {
        self.shard.begin();
    }

    /// A request was refused.
    pub fn count_refused(&self, by: Refused) {
        self.shard.count_refused(by);
    }

    /// An attempt at an agent failed.
    pub fn count_upstream_error(&self, kind: UpstreamError) {
        self.shard.count_upstream_error(kind);
    }

    /// A route was looked up, in the cache or behind it.
    pub fn count_route(&self, cached: bool) {
        self.shard.count_route(cached);
    }

    /// The telemetry that this is part of.
    #[must_use]
    pub const fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// Share of new traces that are recorded.
    #[must_use]
    pub fn trace_ratio(&self) -> Option<f64> {
        self.telemetry.spans.is_some().then_some(self.telemetry.trace_ratio)
    }

    /// A request that [`began`](Self::begin) has ended.
    pub fn finish(&self, mut record: RequestRecord) {
        record.bound();
        self.shard.finish(&record);
        let record = Arc::new(record);
        if let Some(outbox) = &self.outbox
            && self.is_logged(&record)
        {
            outbox.push(&record);
        }
        if let Some(spans) = &self.telemetry.spans
            && record.trace.is_some_and(|trace| trace.sampled)
        {
            spans.push(Arc::clone(&record));
        }
        self.ring.push(record);
    }

    fn is_logged(&self, record: &RequestRecord) -> bool {
        let Some(sample) = self.telemetry.sample else { return true };
        record.status >= 400
            || record.status == 0
            || record.outcome == Outcome::Aborted
            || rand::random::<f64>() < sample
    }
}
