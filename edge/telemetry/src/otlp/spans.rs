//! What a request looks like as spans: names, times and attributes of OpenTelemetry's conventions.
//!
//! ```text
//! server  |---------------------------------------|  the client's request
//! route   |---|                                      the edge's own part
//! upstream    |-----------------------------------|  client span: what the guest continues
//! lease       |-----|                                the agent's wait for a sandbox
//! restore       |---|                                within it, if one was restored for it
//! guest             |-----------|                    to its answer's head
//! ```
//!
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>

use std::sync::Arc;

use http::Method;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, SpanFlags, Status, span::SpanKind,
        status::StatusCode as Code,
    },
};

use crate::{
    record::{Outcome, Protocol, RequestRecord},
    trace::{self, TraceContext},
};

/// No part of a request takes longer: one year, so that sums with Unix time stay in range.
const LONGEST_NS: u64 = 365 * 24 * 60 * 60 * 1_000_000_000;

/// A batch as one message.
pub(super) fn message(service: &str, batch: &[Arc<RequestRecord>]) -> ExportTraceServiceRequest {
    let spans = batch.iter().flat_map(|record| spans(record)).collect();
    let scope = InstrumentationScope {
        name: "wrenn-edge".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let attributes =
        vec![text("service.name", service), text("service.version", env!("CARGO_PKG_VERSION"))];
    let resource = Resource { attributes, ..Resource::default() };
    let scope_spans = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
    let resource_spans = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

/// A request's span and one for each of its parts.
fn spans(record: &RequestRecord) -> Vec<Span> {
    let Some(trace) = record.trace else { return Vec::new() };
    let end = record.at_ns.saturating_add(nanoseconds(record.total_ms));
    let mut spans = vec![server(record, &trace, end)];
    let sent_on = record.at_ns.saturating_add(nanoseconds(record.route_ms)).min(end);
    if record.route_ms > 0.0 {
        spans.push(part(&trace, "route", trace.span_id, record.at_ns, sent_on));
    }
    if record.upstream.is_some() {
        spans.push(upstream(record, &trace, sent_on, end));
        agents(record, &trace, sent_on, &mut spans);
    }
    spans
}

fn server(record: &RequestRecord, trace: &TraceContext, end: u64) -> Span {
    let target = record.function.as_deref().unwrap_or(record.route.as_str());
    let mut span = span(trace, trace.span_id, trace.parent, record.at_ns, end);
    let method = method(&record.method);
    span.name = format!("{} {target}", if method == OTHER { "HTTP" } else { method });
    span.kind = SpanKind::Server as i32;
    if trace.parent != 0 {
        span.flags |= SpanFlags::ContextIsRemoteMask as u32;
    }
    span.attributes = server_attributes(record);
    let failed = record.status >= 500 || record.outcome == Outcome::Aborted;
    span.status = failed.then(failure);
    span
}

/// The request to the agent: the span that the guest's own spans hang from.
fn upstream(record: &RequestRecord, trace: &TraceContext, start: u64, end: u64) -> Span {
    let mut span = span(trace, trace.upstream_span_id, trace.span_id, start, end);
    "upstream".clone_into(&mut span.name);
    span.kind = SpanKind::Client as i32;
    let all = &mut span.attributes;
    all.push(text("http.request.method", method(&record.method)));
    if let Some(agent) = record.upstream {
        all.push(text("server.address", &agent.ip().to_string()));
        all.push(number("server.port", agent.port().into()));
    }
    if record.retries > 0 {
        all.push(number("http.request.resend_count", record.retries.into()));
    }
    if let Some(sandbox) = record.sandbox {
        all.push(text("wrenn.sandbox", &sandbox.to_string()));
    }
    all.push(flag("wrenn.connection_reused", record.reused));
    // A client span is an error from 400 on, other than a server's.
    let failed = record.status >= 400 || record.outcome == Outcome::Aborted;
    span.status = failed.then(failure);
    span
}

/// What the agent says about its part.
fn agents(record: &RequestRecord, trace: &TraceContext, start: u64, spans: &mut Vec<Span>) {
    let parent = trace.upstream_span_id;
    let known = |ms: Option<f32>| ms.map(nanoseconds).filter(|took| *took > 0);
    let mut at = start;
    let lease = known(record.lease_ms).map(|took| {
        let until = at.saturating_add(took);
        let lease = part(trace, "lease", parent, at, until);
        at = until;
        (lease, took)
    });
    if let Some(took) = known(record.restore_ms) {
        // Part of the lease's wait if it fits into it; its own, if a sandbox was asked for by name.
        let (from, until, above) = match &lease {
            Some((lease, waited)) if took <= *waited => {
                (at.saturating_sub(took), at, id_of(&lease.span_id))
            }
            _ => (at, at.saturating_add(took), parent),
        };
        spans.push(part(trace, "restore", above, from, until));
        at = until;
    }
    spans.extend(lease.map(|(lease, _)| lease));
    if let Some(took) = known(record.upstream_ms) {
        spans.push(part(trace, "guest", parent, at, at.saturating_add(took)));
    }
}

fn part(trace: &TraceContext, name: &str, parent: u64, start: u64, end: u64) -> Span {
    let mut part = span(trace, trace::new_span_id(), parent, start, end);
    name.clone_into(&mut part.name);
    part.kind = SpanKind::Internal as i32;
    part
}

fn span(trace: &TraceContext, id: u64, parent: u64, start: u64, end: u64) -> Span {
    Span {
        trace_id: trace.trace_id.to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
        start_time_unix_nano: start,
        end_time_unix_nano: end.max(start),
        // The trace's flags, and that it is known whether the parent is another process's.
        flags: u32::from(trace.flags()) | SpanFlags::ContextHasIsRemoteMask as u32,
        ..Span::default()
    }
}

fn id_of(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}

fn failure() -> Status {
    Status { code: Code::Error as i32, ..Status::default() }
}

/// What a clock may say by mistake, not a number included, is cut to what a span can hold.
fn nanoseconds(ms: f32) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    let nanoseconds = (f64::from(ms) * 1e6) as u64;
    nanoseconds.min(LONGEST_NS)
}

/// What the conventions call a method that is not one of those that everybody knows.
const OTHER: &str = "_OTHER";

/// A name with few values: anybody can send any method.
fn method(method: &Method) -> &str {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    if known.contains(method) { method.as_str() } else { OTHER }
}

/// The names of OpenTelemetry's HTTP conventions, and ours.
fn server_attributes(record: &RequestRecord) -> Vec<KeyValue> {
    let protocol = match record.protocol {
        Protocol::H1 => "1.1",
        Protocol::H2 => "2",
        Protocol::H3 => "3",
    };
    let (address, port) = host_and_port(&record.host);
    let size = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    let mut all = vec![
        text("http.request.method", method(&record.method)),
        text("url.scheme", if record.tls { "https" } else { "http" }),
        text("url.path", &record.path),
        text("network.protocol.name", "http"),
        text("network.protocol.version", protocol),
        text("wrenn.request_id", &record.id.0.to_string()),
        text("wrenn.route", record.route.as_str()),
        number("http.request.body.size", size(record.bytes_in)),
        number("http.response.body.size", size(record.bytes_out)),
    ];
    if method(&record.method) == OTHER {
        all.push(text("http.request.method_original", record.method.as_str()));
    }
    if !address.is_empty() {
        all.push(text("server.address", address));
    }
    all.extend(port.map(|port| number("server.port", port.into())));
    if record.status > 0 {
        all.push(number("http.response.status_code", record.status.into()));
    }
    if let Some(client) = record.client {
        all.push(text("client.address", &client.ip().to_string()));
        all.push(number("client.port", client.port().into()));
    }
    if !record.user_agent.is_empty() {
        all.push(text("user_agent.original", &record.user_agent));
    }
    if let Some(function) = &record.function {
        all.push(text("wrenn.function", function));
    }
    if record.version > 0 {
        all.push(number("wrenn.version", record.version.into()));
    }
    all.extend(error_type(record).map(|what| text("error.type", &what)));
    all
}

/// The code of ours, or else the status, or else that it broke off.
fn error_type(record: &RequestRecord) -> Option<String> {
    if !record.code.is_empty() {
        return Some(record.code.to_owned());
    }
    match record.status {
        500.. => Some(record.status.to_string()),
        _ => (record.outcome == Outcome::Aborted).then(|| "aborted".to_owned()),
    }
}

/// An authority's parts; brackets around an IPv6 address are not part of it.
fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    (bare.unwrap_or(host), port)
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn flag(key: &str, value: bool) -> KeyValue {
    attribute(key, Value::BoolValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = AnyValue { value: Some(value) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_too_long_for_a_span() {
        let times = [0.0, 1.5, -1.0, f32::NAN, f32::INFINITY, f32::MAX, f32::NEG_INFINITY];
        let expected = [0, 1_500_000, 0, 0, LONGEST_NS, LONGEST_NS, 0];
        assert_eq!(times.map(nanoseconds), expected);
        let trace = TraceContext::of(&http::HeaderMap::new(), 1.0);
        for ms in times {
            let spans = spans(&RequestRecord {
                at_ns: u64::MAX - 5,
                trace: Some(trace),
                upstream: Some(([127, 0, 0, 1], 1).into()),
                route_ms: ms,
                lease_ms: Some(ms),
                restore_ms: Some(ms),
                upstream_ms: Some(ms),
                total_ms: ms,
                ..RequestRecord::default()
            });
            assert!(spans.iter().all(|s| s.start_time_unix_nano <= s.end_time_unix_nano));
        }
    }

    #[test]
    fn an_authority_has_a_host_and_perhaps_a_port() {
        assert_eq!(host_and_port("a.example"), ("a.example", None));
        assert_eq!(host_and_port("a.example:8443"), ("a.example", Some(8443)));
        assert_eq!(host_and_port("[::1]:80"), ("::1", Some(80)));
        assert_eq!(host_and_port("[::1]"), ("::1", None));
        assert_eq!(host_and_port(""), ("", None));
    }

    #[test]
    fn a_method_that_nobody_knows_is_no_name_of_a_span() {
        let span = server(
            &RequestRecord {
                method: Method::from_bytes(b"X-1234").unwrap(),
                ..RequestRecord::default()
            },
            &TraceContext::of(&http::HeaderMap::new(), 1.0),
            0,
        );
        assert_eq!(span.name, "HTTP none");
        assert!(span.attributes.contains(&text("http.request.method", "_OTHER")));
        assert!(span.attributes.contains(&text("http.request.method_original", "X-1234")));
    }
}
