//! Do curl and nghttp get what they ask for, over HTTP/1.1 and HTTP/2?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{fs, process::Command};

use crate::{
    edge::{Edge, HOST},
    guest::BIG_BYTES,
    tools::run,
};

/// curl, told of our names and our authority, for one of the two protocols.
fn curl(edge: &Edge, http2: bool) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "30", "--noproxy", "*", "--cacert"])
        .arg(edge.ca_file())
        .args(["--resolve", &format!("{HOST}:{}:127.0.0.1", edge.https.port())])
        .args(["--write-out", "%{stderr}%{http_code} %{http_version}"])
        .arg(if http2 { "--http2" } else { "--http1.1" });
    command
}

/// Runs it over either protocol; checks which it was, and gives what was said to `check`.
fn both(edge: &Edge, arguments: &[&str], status: u16, check: impl Fn(String)) {
    for http2 in [false, true] {
        let said = run(curl(edge, http2).args(arguments));
        let version = if http2 { "2" } else { "1.1" };
        assert!(said.err.contains(&format!("{status} {version}")), "{said:?}");
        check(said.ok());
    }
}

#[test]
fn curl_gets_a_page_and_its_fields() {
    let edge = Edge::start();
    both(&edge, &["--include", &edge.url("/hello")], 200, |said| {
        let said = said.to_ascii_lowercase();
        assert!(said.contains("content-type: text/html"), "{said}");
        assert!(said.contains(&format!("alt-svc: h3=\":{}\"", edge.https.port())), "{said}");
        assert!(said.contains("x-request-id: "), "{said}");
        assert!(said.contains("<title>hello</title>"), "{said}");
    });
    both(&edge, &["--head", &edge.url("/hello")], 200, |said| {
        assert!(!said.contains("<title>"), "HEAD has no body: {said}");
    });
    both(&edge, &[&edge.url("/nothing-here")], 404, |said| assert_eq!(said, "404 Not Found\n"));
}

#[test]
fn curl_posts_and_uploads() {
    let edge = Edge::start();
    both(&edge, &["--data", "a=b&c=d", &edge.url("/echo")], 200, |said| {
        assert_eq!(said, "a=b&c=d")
    });
    let upload = edge.path("upload");
    fs::write(&upload, vec![7; BIG_BYTES]).unwrap();
    let upload = upload.to_str().unwrap();
    let all = format!("{BIG_BYTES}\n");
    both(&edge, &["--upload-file", upload, &edge.url("/count")], 200, |said| assert_eq!(said, all));
    // No length in advance: chunks in HTTP/1.1.
    let body = format!("@{upload}");
    let chunked = ["--header", "transfer-encoding: chunked", "--data-binary", &body];
    let said = run(curl(&edge, false).args(chunked).arg(edge.url("/count")));
    assert_eq!(said.ok(), all);
}

#[test]
fn curl_waits_for_100_continue_and_gets_it() {
    let edge = Edge::start();
    let wait = ["--verbose", "--expect100-timeout", "20", "--header", "expect: 100-continue"];
    let ask = run(curl(&edge, false).args(wait).args(["--data", "hello", &edge.url("/echo")]));
    assert!(ask.err.contains("< HTTP/1.1 100 Continue"), "{ask:?}");
    assert_eq!(ask.ok(), "hello");
}

#[test]
fn curl_gets_trailers_ranges_and_events() {
    let edge = Edge::start();
    both(&edge, &["--include", "--header", "te: trailers", &edge.url("/trailers")], 200, |said| {
        assert!(said.contains("body") && said.contains("x-sum: 4"), "{said}");
    });
    let last = BIG_BYTES - 1;
    let content_range = format!("content-range: bytes 251-260/{BIG_BYTES}");
    both(&edge, &["--include", "--range", "251-260", &edge.url("/big")], 206, |said| {
        assert!(said.to_ascii_lowercase().contains(&content_range), "{last} {said}");
        assert!(said.ends_with("\0\u{1}\u{2}\u{3}\u{4}\u{5}\u{6}\u{7}\u{8}\t"), "{said:?}");
    });
    both(&edge, &["--no-buffer", &edge.url("/sse")], 200, |said| {
        assert!(said.starts_with("id: 0\ndata: event 0\n\n"), "{said}");
        assert_eq!(said.matches("data: event").count(), 3, "{said}");
    });
}

#[test]
fn curl_is_told_of_hosts_that_are_not_there() {
    let edge = Edge::start();
    let other = "gone.fn.wrenn.localhost";
    let resolve = format!("{other}:{}:127.0.0.1", edge.https.port());
    let url = format!("https://{other}:{}/", edge.https.port());
    both(&edge, &["--resolve", &resolve, &url], 404, |said| {
        assert!(said.contains("function_not_found"), "{said}");
    });
    let clear = format!("http://{HOST}:{}/hello", edge.http.port());
    let resolve = format!("{HOST}:{}:127.0.0.1", edge.http.port());
    let said = run(curl(&edge, false).args(["--resolve", &resolve, &clear]));
    assert!(said.ok().contains("<title>hello</title>"));
}

#[test]
fn nghttp_sees_trailers_and_many_streams() {
    let edge = Edge::start();
    let mut nghttp = Command::new("nghttp");
    // It wants the address in the URL; name and SNI come from the header.
    let url = format!("https://127.0.0.1:{}/trailers", edge.https.port());
    let host = format!(":authority: {HOST}:{}", edge.https.port());
    nghttp.args(["--verbose", "--header", &host, "--header", "te: trailers", &url]);
    let said = run(&mut nghttp).ok();
    assert!(said.contains("x-sum: 4") && said.contains("x-last: yes"), "{said}");
    assert!(said.contains("; END_STREAM"), "{said}");

    let mut nghttp = Command::new("nghttp");
    let url = format!("https://127.0.0.1:{}/hello", edge.https.port());
    nghttp.args(["--null-out", "--stat", "--multiply=50", "--header", &host, &url]);
    let said = run(&mut nghttp).ok();
    assert_eq!(said.lines().filter(|line| line.contains(" 200 ")).count(), 50, "{said}");
}
