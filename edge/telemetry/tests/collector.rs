//! What arrives at a collector, and what becomes of spans when it is down, slow or says no.
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, response::IntoResponse};
use edge_telemetry::{
    Background, OtlpConfig, OtlpError, Outcome, Protocol, RequestRecord, RouteKind, Telemetry,
    TelemetryConfig, TelemetryError, TraceContext, TraceParent,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message as _;
use tokio::{net::TcpListener, task::JoinSet};

/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// As many requests as make a batch.
const BATCH: usize = 512;
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// How the collector answers a message.
enum Reply {
    Status(u16, Option<String>),
    Partial(i64),
    Never,
}

#[derive(Default)]
struct Seen {
    replies: VecDeque<Reply>,
    messages: Vec<(ExportTraceServiceRequest, Instant)>,
}

/// A collector that decodes what it gets and answers from a list, `200` after its end.
struct Collector {
    seen: Arc<Mutex<Seen>>,
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Collector {
    async fn start(replies: Vec<Reply>) -> Self {
        let seen = Arc::new(Mutex::new(Seen { replies: replies.into(), ..Seen::default() }));
        let router = Router::new()
            .route("/v1/traces", axum::routing::post(take))
            .with_state(Arc::clone(&seen));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { seen, address, _serving: serving }
    }

    fn spans(&self) -> Vec<Span> {
        let seen = self.seen.lock().unwrap();
        let resources = seen.messages.iter().flat_map(|(message, _)| &message.resource_spans);
        resources.flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).cloned().collect()
    }

    fn times(&self) -> Vec<Instant> {
        self.seen.lock().unwrap().messages.iter().map(|(_, at)| *at).collect()
    }
}

async fn take(
    State(seen): State<Arc<Mutex<Seen>>>,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let message = ExportTraceServiceRequest::decode(body).unwrap();
    let reply = {
        let mut seen = seen.lock().unwrap();
        seen.messages.push((message, Instant::now()));
        seen.replies.pop_front()
    };
    let answer = |partial| ExportTraceServiceResponse { partial_success: partial }.encode_to_vec();
    match reply {
        None => answer(None).into_response(),
        Some(Reply::Partial(rejected_spans)) => answer(Some(ExportTracePartialSuccess {
            rejected_spans,
            error_message: "too old".to_owned(),
        }))
        .into_response(),
        Some(Reply::Status(status, after)) => {
            let status = axum::http::StatusCode::from_u16(status).unwrap();
            match after {
                Some(after) => (status, [("retry-after", after)]).into_response(),
                None => status.into_response(),
            }
        }
        Some(Reply::Never) => std::future::pending().await,
    }
}

fn start(address: SocketAddr) -> (Arc<Telemetry>, Background) {
    let otlp = OtlpConfig {
        endpoint: format!("http://{address}/v1/traces"),
        ratio: 1.0,
        service: "edge-under-test".to_owned(),
    };
    let config = TelemetryConfig { otlp: Some(otlp), ..TelemetryConfig::default() };
    Telemetry::start(config).unwrap()
}

fn finish(telemetry: &Arc<Telemetry>, count: usize) {
    let worker = telemetry.worker(0);
    for _ in 0..count {
        worker.begin();
        let trace = Some(TraceContext::of(&HeaderMap::new(), 1.0));
        worker.finish(RequestRecord { trace, ..RequestRecord::default() });
    }
}

fn counter(telemetry: &Telemetry, name: &str) -> u64 {
    let text = telemetry.metrics().encode();
    let name = format!("wrenn_edge_{name}_total ");
    text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn attributes(span: &Span) -> HashMap<&str, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        other => format!("{other:?}"),
    };
    let all = span.attributes.iter();
    all.map(|a| (a.key.as_str(), text(a.value.as_ref().unwrap().value.as_ref().unwrap()))).collect()
}

fn function_request(trace: TraceContext) -> RequestRecord {
    RequestRecord {
        at_ns: 1_700_000_000_000_000_000,
        client: Some(([192, 0, 2, 7], 4711).into()),
        protocol: Protocol::H2,
        tls: true,
        host: "hello.fn.example:8443".to_owned(),
        path: "/a".into(),
        route: RouteKind::Function,
        function: Some("hello".into()),
        upstream: Some(([127, 0, 0, 1], 7000).into()),
        status: 200,
        outcome: Outcome::Complete,
        route_ms: 0.5,
        lease_ms: Some(4.0),
        restore_ms: Some(3.0),
        upstream_ms: Some(2.0),
        total_ms: 10.0,
        user_agent: "curl/8".into(),
        trace: Some(trace),
        ..RequestRecord::default()
    }
}

#[tokio::test]
async fn a_shutdown_sends_a_request_as_a_tree_of_spans() {
    let collector = Collector::start(Vec::new()).await;
    let (telemetry, background) = start(collector.address);
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", TRACEPARENT.parse().unwrap());
    let trace = TraceContext::of(&headers, 0.0);
    trace.propagate(&mut headers);
    let worker = telemetry.worker(0);
    worker.begin();
    worker.finish(function_request(trace));
    background.stop(PATIENCE).await;

    let spans: HashMap<String, Span> =
        collector.spans().into_iter().map(|span| (span.name.clone(), span)).collect();
    let of = |name: &str| spans.get(name).unwrap_or_else(|| panic!("no {name}: {spans:?}"));
    assert_eq!(spans.len(), 6, "{:?}", spans.keys());
    let trace_id = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes();
    assert!(spans.values().all(|span| span.trace_id == trace_id));

    let (server, upstream) = (of("GET hello"), of("upstream"));
    assert_eq!(server.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert_eq!((server.kind, server.flags), (SpanKind::Server as i32, 0x301));
    assert_eq!((upstream.kind, upstream.flags), (SpanKind::Client as i32, 0x101));
    let told = TraceParent::parse(headers["traceparent"].to_str().unwrap()).unwrap();
    assert_eq!(told.span_id.to_be_bytes(), upstream.span_id[..], "the guest continues this one");
    for (child, parent) in [
        ("route", "GET hello"),
        ("upstream", "GET hello"),
        ("lease", "upstream"),
        ("restore", "lease"),
        ("guest", "upstream"),
    ] {
        assert_eq!(of(child).parent_span_id, of(parent).span_id, "{child}");
    }
    let times = |name| {
        let start = of(name).start_time_unix_nano - 1_700_000_000_000_000_000;
        (start / 1000, (of(name).end_time_unix_nano - 1_700_000_000_000_000_000) / 1000)
    };
    assert_eq!(times("GET hello"), (0, 10_000));
    assert_eq!((times("route"), times("upstream")), ((0, 500), (500, 10_000)));
    assert_eq!((times("lease"), times("restore")), ((500, 4_500), (1_500, 4_500)));
    assert_eq!(times("guest"), (4_500, 6_500));

    let attributes = attributes(server);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("url.scheme", "https"),
        ("url.path", "/a"),
        ("server.address", "hello.fn.example"),
        ("server.port", "8443"),
        ("client.address", "192.0.2.7"),
        ("network.protocol.version", "2"),
        ("user_agent.original", "curl/8"),
        ("wrenn.function", "hello"),
    ] {
        assert_eq!(attributes.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(!attributes.contains_key("error.type") && server.status.is_none());
    let seen = collector.seen.lock().unwrap();
    let resource = seen.messages[0].0.resource_spans[0].resource.as_ref().unwrap();
    assert!(resource.attributes.iter().any(|a| a.key == "service.name"
        && a.value.as_ref().unwrap().value
            == Some(Value::StringValue("edge-under-test".to_owned()))));
}

#[tokio::test]
async fn a_request_that_was_never_answered_has_no_status_and_is_an_error() {
    let collector = Collector::start(Vec::new()).await;
    let (telemetry, background) = start(collector.address);
    finish(&telemetry, 1);
    let unsampled = Some(TraceContext::of(&HeaderMap::new(), 0.0));
    telemetry.worker(0).finish(RequestRecord { trace: unsampled, ..RequestRecord::default() });
    background.stop(PATIENCE).await;
    let spans = collector.spans();
    assert_eq!(spans.len(), 1, "the other is not sampled, and neither has parts");
    let attributes = attributes(&spans[0]);
    assert!(!attributes.contains_key("http.response.status_code"));
    assert_eq!((&*attributes["error.type"], &*attributes["url.scheme"]), ("aborted", "http"));
    assert_eq!(spans[0].status.as_ref().unwrap().code, 2);
    assert!(spans[0].parent_span_id.is_empty() && spans[0].flags == 0x101);
}

#[tokio::test]
async fn a_full_batch_is_sent_at_once_and_again_when_the_collector_asks_for_patience() {
    let again =
        vec![Reply::Status(429, Some("1".to_owned())), Reply::Status(503, None), Reply::Partial(5)];
    let collector = Collector::start(again).await;
    let (telemetry, _background) = start(collector.address);
    finish(&telemetry, BATCH);
    until("all is taken in the end", || counter(&telemetry, "traces_exported") == 512).await;
    let times = collector.times();
    assert_eq!(times.len(), 3);
    assert!(times[1] - times[0] >= Duration::from_secs(1), "the collector's own wish");
    assert!(times[2] - times[1] >= Duration::from_millis(500));
    assert_eq!(counter(&telemetry, "spans_rejected"), 5);
    assert_eq!(counter(&telemetry, "traces_dropped"), 0);
}

#[tokio::test]
async fn spans_that_are_refused_for_good_are_not_sent_again() {
    let collector = Collector::start(vec![Reply::Status(400, None)]).await;
    let (telemetry, background) = start(collector.address);
    finish(&telemetry, 3);
    background.stop(PATIENCE).await;
    assert_eq!(collector.times().len(), 1);
    assert_eq!(counter(&telemetry, "traces_dropped"), 3);
    assert_eq!(counter(&telemetry, "traces_exported"), 0);
    finish(&telemetry, 1);
    assert_eq!(counter(&telemetry, "traces_dropped"), 4, "it came after the end");
}

#[tokio::test]
async fn a_collector_that_is_down_costs_a_full_queue_and_no_wait_at_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (telemetry, background) = start(listener.local_addr().unwrap());
    drop(listener);
    finish(&telemetry, 5000); // the queue holds 4096
    let dropped = counter(&telemetry, "traces_dropped");
    assert_eq!(dropped, 5000 - 4096, "nothing could be taken meanwhile: this test has one thread");
    let started = Instant::now();
    background.stop(PATIENCE).await;
    assert!(started.elapsed() < PATIENCE / 2, "it is not waited for");
    assert_eq!(counter(&telemetry, "traces_dropped"), 5000);
}

#[tokio::test]
async fn a_slow_collector_does_not_hold_up_the_end() {
    let collector = Collector::start(vec![Reply::Never]).await;
    let (telemetry, background) = start(collector.address);
    finish(&telemetry, BATCH + 9);
    until("the first batch is under way", || collector.times().len() == 1).await;
    let started = Instant::now();
    background.stop(Duration::from_millis(200)).await;
    assert!(started.elapsed() < PATIENCE / 2);
    assert_eq!(counter(&telemetry, "traces_dropped"), 521, "under way and waiting ones");
}

#[tokio::test]
async fn whoever_drops_the_background_ends_the_exporter() {
    let collector = Collector::start(Vec::new()).await;
    let (telemetry, background) = start(collector.address);
    drop(background);
    finish(&telemetry, BATCH);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(counter(&telemetry, "traces_dropped"), 512);
    assert!(collector.times().is_empty());
}

#[test]
fn a_collector_needs_an_http_url_and_a_runtime() {
    let start = |endpoint: &str| {
        let (endpoint, service) = (endpoint.to_owned(), String::new());
        let otlp = Some(OtlpConfig { endpoint, ratio: 1.0, service });
        Telemetry::start(TelemetryConfig { otlp, ..TelemetryConfig::default() }).map(|_| ())
    };
    for bad in ["", "collector", "https://127.0.0.1/v1/traces", "http://", "/v1/traces"] {
        let error = start(bad).unwrap_err();
        assert!(matches!(error, TelemetryError::Otlp(OtlpError::Endpoint { .. })), "{bad}");
    }
    let error = start("http://127.0.0.1:1/v1/traces").unwrap_err();
    assert!(matches!(error, TelemetryError::Otlp(OtlpError::Runtime)));
}
