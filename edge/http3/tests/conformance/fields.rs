//! Which heads and bodies are well-formed: RFC 9114 4.1.2, 4.2, 4.3, 4.4 and 10.3, RFC 9220.

use super::{Due::*, Sent, check, get, request};
use crate::support::*;

const MALFORMED: super::Due = StreamError(0x10e);

/// The fields of a GET but the one at this place.
fn without(at: usize) -> Vec<(&'static str, &'static str)> {
    GET.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, field)| *field).collect()
}

/// A GET in which the value at this place is another.
fn with(at: usize, value: &'static str) -> Sent {
    let mut fields = GET;
    fields[at].1 = value;
    request(&fields)
}

fn connect(more: &[(&str, &str)]) -> Sent {
    request(&[&[(":method", "CONNECT")][..], more].concat())
}

#[tokio::test]
async fn bodies_and_fields_keep_the_rules_of_http() {
    let post = |more: &[(&str, &str)], rest: &[u8]| {
        Sent::Request([&headers(&[&POST[..], more].concat())[..], rest].concat())
    };
    let rows = vec![
        ("4.1.2: fewer bytes", post(&[("content-length", "2")], &frame(0, b"x")), MALFORMED),
        ("4.1.2: more bytes", post(&[("content-length", "2")], &frame(0, b"xyz")), MALFORMED),
        ("4.1.2: none", post(&[("content-length", "2")], b""), MALFORMED),
        ("4.1.2: as many", post(&[("content-length", "2")], &frame(0, b"xy")), Status("200")),
        ("4.1.2: no number", post(&[("content-length", "x")], b""), MALFORMED),
        (
            "4.1.2: two lengths",
            post(&[("content-length", "1"), ("content-length", "2")], b""),
            MALFORMED,
        ),
        ("4.2: upper case", get(&[("Accept", "x")]), MALFORMED),
        ("4.2: connection", get(&[("connection", "close")]), MALFORMED),
        ("4.2: keep-alive", get(&[("keep-alive", "1")]), MALFORMED),
        ("4.2: proxy-connection", get(&[("proxy-connection", "close")]), MALFORMED),
        ("4.2: transfer-encoding", get(&[("transfer-encoding", "chunked")]), MALFORMED),
        ("4.2: upgrade", get(&[("upgrade", "h2c")]), MALFORMED),
        ("4.2: te", get(&[("te", "gzip")]), MALFORMED),
        ("4.2: te: trailers", get(&[("te", "trailers")]), Status("200")),
        ("4.2.1: crumbs of a cookie", get(&[("cookie", "a=b"), ("cookie", "c=d")]), Status("200")),
        ("4.2.2: too large", get(&[("a", "x".repeat(33_000).as_str())]), Status("431")),
        ("10.3: a space in a name", get(&[("a b", "x")]), MALFORMED),
        ("10.3: no name", get(&[("", "x")]), MALFORMED),
        ("10.3: a colon in a name", get(&[("a:b", "x")]), MALFORMED),
        ("10.3: CR", get(&[("a", "x\ry")]), MALFORMED),
        ("10.3: LF", get(&[("a", "x\ny")]), MALFORMED),
        ("10.3: NUL", get(&[("a", "x\0y")]), MALFORMED),
    ];
    check(rows).await;
}

#[tokio::test]
async fn pseudo_header_fields_keep_their_rules() {
    let after: Vec<_> = [&[("a", "b")][..], &GET].concat();
    let rows = vec![
        ("4.3: an unknown one", get(&[(":foo", "x")]), MALFORMED),
        ("4.3: one of answers", get(&[(":status", "200")]), MALFORMED),
        ("4.3: after a field", request(&after), MALFORMED),
        (
            "4.3: in trailers",
            Sent::Request([headers(&GET), headers(&[(":path", "/")])].concat()),
            MALFORMED,
        ),
        ("4.3.1: no method", request(&without(0)), MALFORMED),
        ("4.3.1: no scheme", request(&without(1)), MALFORMED),
        ("4.3.1: no path", request(&without(3)), MALFORMED),
        ("4.3.1: neither authority nor host", request(&without(2)), MALFORMED),
        (
            "4.3.1: a host instead",
            request(&[&without(2)[..], &[("host", "a.test")]].concat()),
            Status("200"),
        ),
        ("4.3.1: the same host", get(&[("host", "a.test")]), Status("200")),
        ("4.3.1: another host", get(&[("host", "b.test")]), MALFORMED),
        ("4.3.1: two methods", get(&[(":method", "GET")]), MALFORMED),
        ("4.3.1: two schemes", get(&[(":scheme", "https")]), MALFORMED),
        ("4.3.1: two authorities", get(&[(":authority", "a.test")]), MALFORMED),
        ("4.3.1: two paths", get(&[(":path", "/")]), MALFORMED),
        ("4.3.1: an empty authority", with(2, ""), MALFORMED),
        ("4.3.1: userinfo", with(2, "me@a.test"), MALFORMED),
        ("4.3.1: an empty path", with(3, ""), MALFORMED),
        ("4.3.1: a path without a slash", with(3, "a"), MALFORMED),
        (
            "4.3.1: OPTIONS *",
            request(&[(":method", "OPTIONS"), GET[1], GET[2], (":path", "*")]),
            Status("200"),
        ),
        ("4.3.1: * of another method", with(3, "*"), MALFORMED),
    ];
    check(rows).await;
}

#[tokio::test]
async fn connect_keeps_its_rules() {
    let [_, scheme, authority, path] = GET;
    let websocket = (":protocol", "websocket");
    let tunnel = headers(&[(":method", "CONNECT"), websocket, scheme, authority, path]);
    let then = |frames: &[u8]| Sent::Request([&tunnel[..], frames].concat());
    let rows = vec![
        ("4.4: CONNECT", connect(&[(":authority", "a.test:443")]), Status("200")),
        ("4.4: no authority", connect(&[]), MALFORMED),
        ("4.4: a scheme", connect(&[(":authority", "a.test:443"), scheme]), MALFORMED),
        ("4.4: a path", connect(&[(":authority", "a.test:443"), path]), MALFORMED),
        ("4.4: DATA", then(&frame(0, b"x")), Status("200")),
        ("4.4: unknown frames", then(&frame(0x21, b"x")), Status("200")),
        ("4.4: trailers", then(&headers(&[("a", "b")])), ConnectionError(0x105)),
        ("9220 3: extended", then(&[]), Status("200")),
        ("9220 3: no scheme", connect(&[websocket, authority, path]), MALFORMED),
        ("9220 3: no path", connect(&[websocket, authority, scheme]), MALFORMED),
        ("9220 3: no authority", connect(&[websocket, scheme, path]), MALFORMED),
        ("9220 3: of another method", get(&[websocket]), MALFORMED),
    ];
    check(rows).await;
}
