//! Sends spans to an OpenTelemetry collector: OTLP over HTTP, protobuf.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode as Code},
};
use prost::Message as _;
use tokio::{sync::Notify, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    record::{Outcome, RequestRecord},
    telemetry::bump,
    trace::TraceContext,
};

/// Spans of requests that may wait.
const QUEUE_MAX: usize = 4096;
/// Requests' spans in one message.
const BATCH_MAX: usize = 512;
/// How long a span waits for company.
const BATCH_WAIT: Duration = Duration::from_secs(5);
/// Longest wait for a collector's answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts at one message.
const ATTEMPTS: u32 = 4;
/// Most bytes of a collector's answer.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// No part of a request takes longer: one year, so that sums with Unix time stay in range.
const LONGEST_NS: u64 = 365 * 24 * 60 * 60 * 1_000_000_000;

/// Where traces go.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpConfig {
    /// The collector, e.g. `http://127.0.0.1:4318/v1/traces`.
    pub endpoint: String,
    /// Share of traces that begin here and are recorded, 0 to 1.
    pub ratio: f64,
    /// `service.name`.
    pub service: String,
}

/// A configuration that can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OtlpError {
    /// The endpoint is no `http` URL.
    #[error("`{endpoint}` is not an http:// URL of a collector")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
}

/// Requests by what became of their spans, and spans that were rejected.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SpanCounts {
    pub(crate) exported: u64,
    pub(crate) dropped: u64,
    pub(crate) rejected: u64,
}

/// Records whose spans wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct SpanQueue {
    waiting: Mutex<Vec<Arc<RequestRecord>>>,
    dropped: AtomicU64,
    full: Notify,
}

impl SpanQueue {
    pub(crate) fn push(&self, record: Arc<RequestRecord>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == QUEUE_MAX {
            drop(waiting);
            return bump(&self.dropped);
        }
        waiting.push(record);
        if waiting.len() == BATCH_MAX {
            self.full.notify_one();
        }
    }

    pub(crate) fn counts(&self) -> SpanCounts {
        SpanCounts { dropped: self.dropped.load(Relaxed), ..SpanCounts::default() }
    }

    fn take(&self) -> Vec<Arc<RequestRecord>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.len().min(BATCH_MAX);
        waiting.drain(..count).collect()
    }
}

/// The task that sends spans.
#[derive(Debug)]
pub(crate) struct Exporter {
    queue: Arc<SpanQueue>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Exporter {
    pub(crate) fn start(config: OtlpConfig) -> Result<Self, OtlpError> {
        let bad = || OtlpError::Endpoint { endpoint: config.endpoint.clone() };
        let uri: Uri = config.endpoint.parse().map_err(|_| bad())?;
        if uri.scheme_str() != Some("http") || uri.authority().is_none() {
            return Err(bad());
        }
        let queue = Arc::new(SpanQueue::default());
        let stop = CancellationToken::new();
        let sender = Sender {
            uri,
            service: config.service,
            client: Client::builder(TokioExecutor::new()).build_http(),
        };
        let task = tokio::spawn(run(sender, Arc::clone(&queue), stop.clone()));
        Ok(Self { queue, stop, task })
    }

    pub(crate) fn queue(&self) -> Arc<SpanQueue> {
        Arc::clone(&self.queue)
    }

    pub(crate) async fn stop(self, within: Duration) {
        self.stop.cancel();
        let abort = self.task.abort_handle();
        if timeout(within, self.task).await.is_err() {
            abort.abort(); // the collector is slower than the shutdown may be
        }
    }
}

async fn run(sender: Sender, queue: Arc<SpanQueue>, stop: CancellationToken) {
    loop {
        let stopping = tokio::select! {
            () = stop.cancelled() => true,
            () = queue.full.notified() => false,
            () = tokio::time::sleep(BATCH_WAIT) => false,
        };
        loop {
            let batch = queue.take();
            if batch.is_empty() {
                break;
            }
            let count = batch.len() as u64;
            if !sender.send(&batch).await {
                queue.dropped.fetch_add(count, Relaxed);
            }
        }
        if stopping {
            return;
        }
    }
}

struct Sender {
    uri: Uri,
    service: String,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
}

/// What a collector made of a message.
enum Sent {
    Taken,
    Later(Option<Duration>),
    Refused,
}

impl Sender {
    /// Sends a batch, again if the collector asks for that. False: it was given up.
    async fn send(&self, batch: &[Arc<RequestRecord>]) -> bool {
        let message = Bytes::from(self.message(batch).encode_to_vec());
        let mut pause = Duration::from_millis(500);
        for attempt in 1..=ATTEMPTS {
            match self.attempt(message.clone()).await {
                Sent::Taken => return true,
                Sent::Refused => return false,
                Sent::Later(_) if attempt == ATTEMPTS => return false,
                Sent::Later(after) => {
                    tokio::time::sleep(after.unwrap_or(pause).min(SEND_TIMEOUT)).await;
                    pause *= 2;
                }
            }
        }
        false
    }

    async fn attempt(&self, message: Bytes) -> Sent {
        let mut request = Request::post(self.uri.clone()).body(Full::new(message));
        if let Ok(request) = &mut request {
            let kind = HeaderValue::from_static("application/x-protobuf");
            request.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        let Ok(request) = request else { return Sent::Refused };
        let answer = match timeout(SEND_TIMEOUT, self.client.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the trace collector cannot be reached");
                return Sent::Later(None);
            }
            Err(_) => return Sent::Later(None),
        };
        let status = answer.status();
        if status.is_success() {
            self.note_partial(answer).await;
            return Sent::Taken;
        }
        // The specification's list of statuses after which the same message may be sent again.
        let again = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        if !again.contains(&status) {
            tracing::warn!(%status, "the trace collector refuses spans");
            return Sent::Refused;
        }
        let after = answer.headers().get(header::RETRY_AFTER);
        let after = after.and_then(|value| value.to_str().ok()?.parse().ok());
        Sent::Later(after.map(Duration::from_secs))
    }

    async fn note_partial(&self, answer: http::Response<hyper::body::Incoming>) {
        let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect();
        let Ok(Ok(body)) = timeout(SEND_TIMEOUT, body).await else { return };
        let answer = ExportTraceServiceResponse::decode(body.to_bytes());
        if let Ok(ExportTraceServiceResponse { partial_success: Some(partial) }) = answer
            && partial.rejected_spans > 0
        {
            let rejected = partial.rejected_spans;
            tracing::warn!(rejected, why = partial.error_message, "spans were rejected");
        }
    }

    fn message(&self, batch: &[Arc<RequestRecord>]) -> ExportTraceServiceRequest {
        let spans = batch.iter().flat_map(|record| spans(record)).collect();
        let scope = InstrumentationScope {
            name: "wrenn-edge".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let resource = Resource {
            attributes: vec![text("service.name", &self.service)],
            ..Resource::default()
        };
        let scope_spans = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
        let resource_spans = ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
    }
}

/// A request's span and one for each of its parts.
fn spans(record: &RequestRecord) -> Vec<Span> {
    let Some(trace) = record.trace else { return Vec::new() };
    let end = record.at_ns.saturating_add(nanoseconds(record.total_ms));
    let target = record.function.as_deref().unwrap_or(record.route.as_str());
    let mut server = span(&trace, trace.span_id, trace.parent, record.at_ns, end);
    server.name = format!("{} {target}", record.method);
    server.kind = SpanKind::Server as i32;
    server.attributes = attributes(record);
    let failed = record.status >= 500 || record.outcome == Outcome::Aborted;
    server.status = failed.then(|| Status { code: Code::Error as i32, ..Status::default() });
    let mut spans = vec![server];
    let mut at = record.at_ns;
    let parts = [
        ("route", Some(record.route_ms)),
        ("lease", record.lease_ms),
        ("upstream", record.upstream_ms),
    ];
    for (name, ms) in parts {
        let Some(ms) = ms.filter(|ms| *ms > 0.0) else { continue };
        let until = at.saturating_add(nanoseconds(ms));
        let mut part = span(&trace, rand::random::<u64>() | 1, trace.span_id, at, until);
        name.clone_into(&mut part.name);
        part.kind = SpanKind::Internal as i32;
        spans.push(part);
        at = until;
    }
    spans
}

fn span(trace: &TraceContext, id: u64, parent: u64, start: u64, end: u64) -> Span {
    Span {
        trace_id: trace.trace_id.to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        ..Span::default()
    }
}

/// What a clock may say by mistake, not a number included, is cut to what a span can hold.
fn nanoseconds(ms: f32) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    let nanoseconds = (f64::from(ms) * 1e6) as u64;
    nanoseconds.min(LONGEST_NS)
}

/// The names of OpenTelemetry's HTTP conventions, and ours.
fn attributes(record: &RequestRecord) -> Vec<KeyValue> {
    let protocol = match record.protocol.as_str() {
        "h1" => "1.1",
        "h2" => "2",
        _ => "3",
    };
    let mut all = vec![
        text("http.request.method", record.method.as_str()),
        text("url.path", &record.path),
        text("server.address", &record.host),
        text("network.protocol.version", protocol),
        text("wrenn.request_id", &record.id.0.to_string()),
        text("wrenn.route", record.route.as_str()),
        number("http.response.status_code", i64::from(record.status)),
        number("http.request.body.size", i64::try_from(record.bytes_in).unwrap_or(i64::MAX)),
        number("http.response.body.size", i64::try_from(record.bytes_out).unwrap_or(i64::MAX)),
    ];
    if let Some(client) = record.client.map(|client: SocketAddr| client.ip()) {
        all.push(text("client.address", &client.to_string()));
    }
    if let Some(sandbox) = record.sandbox {
        all.push(text("wrenn.sandbox", &sandbox.to_string()));
    }
    if !record.code.is_empty() {
        all.push(text("error.type", record.code));
    }
    all
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn number(key: &str, value: i64) -> KeyValue {
    let value = AnyValue { value: Some(Value::IntValue(value)) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}
