//! How does the server say where an answer ends, and what of a request's body does it read?

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use bytes::Bytes;
use edge_http1::server::ServeError;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncWriteExt as _;

use crate::support::{Server, TestBody, channel, data, empty, full, ok, report, through};

const CHUNKED: &str = "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn chunked_bodies_are_read_to_their_end() {
    let server = Server::start(report).await;
    let mut client = server.connect().await;
    for (body, content) in [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("005;name=value;x=\"y\"\r\nhello\r\n1 ;a\r\n!\r\n000\r\n\r\n", "hello!"),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\n", "01234567890123456789"),
    ] {
        client.send(format!("{CHUNKED}{body}")).await;
        assert_eq!(client.answer().await.text(), format!("POST / [{content}]"));
    }
}

#[tokio::test]
async fn chunk_tricks_end_the_connection() {
    let mut server = Server::start(report).await;
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(300));
    let trailers = format!("0\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    for trick in [
        "g\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5,5\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "0\r\nbad name: x\r\n\r\n",
        "0\r\nx: a\r\n b\r\n\r\n",
        "0\r\nx: y\n\r\n\r\n",
        long.as_str(),
        trailers.as_str(),
    ] {
        let mut client = server.connect().await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n";
        client.send(format!("{CHUNKED}{trick}{smuggled}")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 400, "{trick:?} {answer:?}");
        assert_eq!(answer.field("connection"), Some("close"), "{trick:?}");
        let _ = client.stream.shutdown().await; // so that nobody waits for more of it
        assert_eq!(client.rest().await, b"", "{trick:?}");
        assert_eq!(server.ended().await.unwrap().requests, 1);
    }
    let malformed = server.counters.malformed.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(malformed, 19);
}

#[tokio::test]
async fn trailers_of_a_request_reach_the_service() {
    let server = Server::start(|request| {
        Box::pin(async move {
            let (_, body) = request.into_parts();
            let body = http_body_util::BodyExt::collect(body).await.unwrap();
            let trailers = body.trailers().cloned().unwrap_or_default();
            ok(full(format!("{trailers:?}")))
        })
    })
    .await;
    let mut client = server.connect().await;
    client.send(format!("{CHUNKED}1\r\na\r\n0\r\nX-Sum: 7\r\nContent-Length: 5\r\n\r\n")).await;
    assert_eq!(client.answer().await.text(), r#"{"x-sum": "7"}"#, "what frames is left out");
}

#[tokio::test]
async fn answers_without_a_known_length_are_chunked_or_end_with_the_connection() {
    let server = Server::start(|_| {
        Box::pin(async {
            let (sender, body) = channel();
            tokio::spawn(async move {
                sender.send(data("one")).await.unwrap();
                sender.send(data(vec![b'x'; 100_000])).await.unwrap();
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", HeaderValue::from_static("7"));
                sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
            });
            ok(body)
        })
    })
    .await;
    let whole = [b"one".as_slice(), &[b'x'; 100_000]].concat();
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(client.head().await.contains("transfer-encoding: chunked\r\n"));
    assert_eq!(client.line().await, "3");
    assert_eq!(client.exactly(5).await, b"one\r\n");
    assert_eq!(client.line().await, "186a0");
    assert_eq!(client.exactly(100_002).await[..100_000], whole[3..]);
    assert_eq!(client.exactly(15).await, b"0\r\nx-sum: 7\r\n\r\n");
    let again = client.get("/").await;
    assert_eq!(again.body, whole, "the connection goes on");

    let mut old = server.connect().await;
    old.send("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").await;
    let answer = old.answer().await;
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(answer.field("transfer-encoding").is_none() && answer.body == whole);
}

/// A body that says one length and has another.
struct Lying {
    says: u64,
    has: Option<Bytes>,
}

impl Body for Lying {
    type Data = Bytes;
    type Error = edge_http1::BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.has.take().map(|data| Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.says)
    }
}

fn lying(says: u64, has: &'static str) -> TestBody {
    http_body_util::BodyExt::boxed_unsync(Lying { says, has: Some(has.into()) })
}

#[tokio::test]
async fn an_answer_of_a_wrong_length_never_ends_cleanly() {
    for (says, has) in [(3, "four"), (5, "four"), (100, "")] {
        let mut server =
            Server::start(move |_| Box::pin(async move { ok(lying(says, has)) })).await;
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let all = client.rest().await;
        let body = all.windows(4).position(|at| at == b"\r\n\r\n").map(|at| all.len() - at - 4);
        let whole = body.is_some_and(|body| body as u64 >= says);
        assert!(!whole, "{says} {has}: {}", String::from_utf8_lossy(&all));
        assert!(matches!(server.ended().await, Err(ServeError::Answer(_))), "{says} {has}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_ends_cleanly() {
    let mut server = Server::start(|_| {
        Box::pin(async {
            let (sender, body) = channel();
            tokio::spawn(async move {
                sender.send(data("some")).await.unwrap();
                sender.send(Err("the guest died".into())).await.unwrap();
            });
            ok(body)
        })
    })
    .await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let all = String::from_utf8(client.rest().await).unwrap();
    assert!(!all.contains("\r\n0\r\n"), "no last chunk: {all}");
    match server.ended().await {
        Err(ServeError::Answer(error)) => assert_eq!(error.to_string(), "the guest died"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn head_204_and_304_have_no_body_and_the_connection_goes_on() {
    let server = Server::start(|request| {
        Box::pin(async move {
            let status = request.uri().path()[1..].parse::<u16>().unwrap();
            let mut response = Response::new(full("content"));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().insert("content-length", HeaderValue::from_static("7"));
            response
        })
    })
    .await;
    let mut client = server.connect().await;
    client.send("HEAD /200 HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(client.head().await.contains("content-length: 7\r\n"));
    client.send("GET /204 HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 204 ") && !head.contains("content-length"), "{head}");
    client.send("GET /304 HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(client.head().await.contains("content-length: 7\r\n"));
    assert_eq!(client.get("/200").await.text(), "content");
    assert_eq!(client.get("/404").await.status, 404);
}

#[tokio::test]
async fn an_answer_may_begin_before_the_request_has_ended() {
    let server =
        Server::start(|request| Box::pin(async move { ok(through(request.into_body())) })).await;
    let mut client = server.connect().await;
    client.send(CHUNKED).await;
    let head = client.head().await;
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    for word in ["one", "two!", "three"] {
        client.send(format!("{:x}\r\n{word}\r\n", word.len())).await;
        assert_eq!(client.line().await, format!("{:x}", word.len()));
        assert_eq!(client.exactly(word.len() + 2).await, format!("{word}\r\n").as_bytes());
    }
    client.send("0\r\nx-last: 1\r\n\r\n").await;
    assert_eq!(client.exactly(16).await, b"0\r\nx-last: 1\r\n\r\n");
}

#[tokio::test]
async fn what_is_left_of_a_small_body_is_skipped_and_a_large_one_ends_the_connection() {
    let server = Server::start(|_| Box::pin(async { ok(empty()) })).await;
    let mut client = server.connect().await;
    let post =
        |bytes: usize| format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {bytes}\r\n\r\n");
    for _ in 0..3 {
        client.send(post(30_000)).await;
        client.send(vec![b'x'; 30_000]).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (200, None));
    }
    client.send(format!("{CHUNKED}5\r\nhello\r\n0\r\n\r\n")).await;
    assert_eq!(client.answer().await.field("connection"), None);
    client.send(post(1_000_000)).await;
    client.send(vec![b'x'; 200_000]).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    assert_eq!(client.rest().await, b"");
}
