//! All protocols give the same answers.

use std::time::Duration;

use bytes::Bytes;
use edge_proxy::BoxError;
use http::{HeaderMap, HeaderValue, Request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    agent::SANDBOX,
    client::{ALL, Client, ENCRYPTED, Proto, full, get, post, text, tls_stream},
    stack::{Stack, function},
};

#[tokio::test]
async fn each_protocol_reaches_the_agent_with_the_same_request() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let mut request = post(&function("HELLO"), "/seen?a=b%20c", full("body"));
        request.headers_mut().insert("x-mine", HeaderValue::from_static("kept"));
        request.headers_mut().insert("x-wrenn-target", HeaderValue::from_static("forged"));
        let response = client.send(request).await;
        assert_eq!(response.status(), 200, "{proto:?}");
        assert_eq!(response.headers()["x-wrenn-sandbox"], SANDBOX);
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let timing = response.headers()["server-timing"].to_str().unwrap().to_owned();
        assert!(timing.starts_with("route;dur="), "{timing}");
        assert!(timing.ends_with(", lease;dur=0.1, restore;dur=2.5, upstream;dur=7"), "{timing}");
        let seen: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!((&seen["method"], &seen["uri"]), (&"POST".into(), &"/seen?a=b%20c".into()));
        assert_eq!(seen["body"], "body");
        let headers = &seen["headers"];
        assert_eq!(headers["host"], function("HELLO"));
        assert_eq!(headers["x-wrenn-target"], "function/fn_0000000000000000000000007");
        assert_eq!(headers["x-wrenn-request-id"], id.as_str());
        assert_eq!(headers["x-mine"], "kept");
        assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
        let scheme = if proto == Proto::Plain { "http" } else { "https" };
        assert_eq!(headers["x-forwarded-proto"], scheme);
    }
}

#[tokio::test]
async fn get_reaches_the_guest_without_a_body_header() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let seen = text(client.send(get(&function("hello"), "/seen")).await).await;
        let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
        for name in ["transfer-encoding", "content-length", "expect"] {
            assert!(seen["headers"][name].is_null(), "{proto:?} {name}: {seen}");
        }
    }
}

#[tokio::test]
async fn head_answers_have_headers_and_no_body() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let host = function("hello");
        let head = Request::head("/seen").header("host", &host).body(crate::client::empty());
        let response = client.send(head.unwrap()).await;
        assert_eq!(response.status(), 200, "{proto:?}");
        assert_eq!(text(response).await, "");
        assert_eq!(client.send(get(&host, "/seen")).await.status(), 200, "{proto:?} goes on");
    }
}

#[tokio::test]
async fn sandbox_port_and_api_are_routed_by_host() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let host = format!("8000-{}.wrenn.localhost:8443", "0".repeat(24) + "1");
        let seen = text(client.send(get(&host, "/seen")).await).await;
        let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
        let target = format!("sandbox/sb_{}/8000", "0".repeat(24) + "1");
        assert_eq!(seen["headers"]["x-wrenn-target"], target.as_str());
        let api = client.send(get("api.wrenn.localhost", "/healthz")).await;
        assert!(api.headers().contains_key("x-request-id"));
        assert_eq!(text(api).await, "api /healthz", "{proto:?}");
    }
}

#[tokio::test]
async fn http3_is_announced_over_tls_only_and_guests_cannot_announce() {
    let stack = Stack::start().await;
    let expected = format!("h3=\":{}\"; ma=86400", stack.quic.port());
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let response = client.send(get(&function("hello"), "/nasty")).await;
        let headers = response.headers();
        match proto {
            Proto::H1 | Proto::H2 => assert_eq!(headers["alt-svc"], expected.as_str()),
            Proto::Plain | Proto::H3 => assert!(!headers.contains_key("alt-svc"), "{proto:?}"),
        }
        for gone in ["x-wrenn-token", "keep-alive", "proxy-authenticate", "connection"] {
            assert!(!headers.contains_key(gone), "{proto:?} {gone}");
        }
        assert_ne!(headers["x-request-id"], "forged");
        assert_eq!(headers["x-guest"], "stays");
    }
}

#[tokio::test]
async fn trailers_cross_both_ways() {
    let stack = Stack::start().await;
    for proto in ENCRYPTED {
        let mut client = Client::new(&stack, proto).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("42"));
        let frames: [Result<_, BoxError>; 2] =
            [Ok(Frame::data(Bytes::from_static(b"data"))), Ok(Frame::trailers(trailers))];
        let body = BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(frames)));
        let mut request = post(&function("hello"), "/echo", body);
        request.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        let answer = client.send(request).await.into_body().collect().await.unwrap();
        let trailers = answer.trailers().cloned().unwrap_or_default();
        assert_eq!(trailers.get("x-sum").map(HeaderValue::as_bytes), Some(&b"42"[..]), "{proto:?}");
    }
}

#[tokio::test]
async fn websocket_bytes_go_both_ways_over_http1() {
    let stack = Stack::start().await;
    let mut stream = tls_stream(&stack, b"http/1.1").await;
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
        function("hello")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap().to_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(answer.contains("upgrade: websocket"), "{answer}");
    for text in ["first", "second", "third"] {
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut echo = vec![0; text.len()];
        timeout(Duration::from_secs(5), stream.read_exact(&mut echo)).await.unwrap().unwrap();
        assert_eq!(echo, text.as_bytes());
    }
}

#[tokio::test]
async fn other_upgrades_are_dropped() {
    let stack = Stack::start().await;
    let mut client = Client::new(&stack, Proto::Plain).await;
    let mut request = get(&function("hello"), "/seen");
    request.headers_mut().insert("connection", HeaderValue::from_static("upgrade, http2-settings"));
    request.headers_mut().insert("upgrade", HeaderValue::from_static("h2c"));
    request.headers_mut().insert("http2-settings", HeaderValue::from_static("AAMAAABk"));
    let seen = text(client.send(request).await).await;
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    for name in ["upgrade", "connection", "http2-settings"] {
        assert!(seen["headers"][name].is_null(), "{seen}");
    }
}
