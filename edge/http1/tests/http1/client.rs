//! The client with servers that behave, each in its own way.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::time::Duration;

use bytes::Bytes;
use edge_http1::client::{Answer, Connection, SendError, Sending};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::support::{PATIENCE, Raw, TestBody, channel, data, empty, full};

/// A server of one connection that does what the test says.
pub(crate) async fn server<F, T>(script: impl FnOnce(Raw) -> F) -> (Connection, JoinHandle<T>)
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connecting = TcpStream::connect(address);
    let (client, server) = tokio::join!(connecting, listener.accept());
    let raw = Raw { stream: server.unwrap().0, buf: Vec::new() };
    (Connection::from_tcp(client.unwrap()), tokio::spawn(script(raw)))
}

pub(crate) async fn send_with(
    connection: Connection,
    request: Request<TestBody>,
    hold: Option<Duration>,
    on_interim: &mut (dyn FnMut(Response<()>) + Send),
) -> Result<Response<Answer>, SendError> {
    let (parts, body) = request.into_parts();
    let sending = Sending {
        fields: b"",
        deadline: Instant::now() + PATIENCE,
        hold_body_until: hold.map(|hold| Instant::now() + hold),
        on_interim,
    };
    timeout(PATIENCE * 2, connection.send(&parts, body, sending)).await.unwrap()
}

pub(crate) async fn send(
    connection: Connection,
    request: Request<TestBody>,
) -> Result<Response<Answer>, SendError> {
    send_with(connection, request, None, &mut |_| {}).await
}

pub(crate) fn request(method: Method, body: TestBody) -> Request<TestBody> {
    Request::builder().method(method).uri("/a?b").header("host", "h").body(body).unwrap()
}

pub(crate) fn get() -> Request<TestBody> {
    request(Method::GET, empty())
}

/// The body's content and trailers; the connection if it may be used again.
async fn read(response: Response<Answer>) -> (Bytes, Option<HeaderMap>, Option<Connection>) {
    let mut answer = response.into_body();
    let (mut all, mut trailers) = (Vec::new(), None);
    while let Some(frame) = timeout(PATIENCE, answer.frame()).await.unwrap() {
        match frame.unwrap().into_data() {
            Ok(data) => all.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    (all.into(), trailers, answer.take_connection())
}

#[tokio::test]
async fn every_framing_of_an_answer_is_read_to_its_end() {
    for (method, answer, content, kept) in [
        (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "hello", true),
        (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "", true),
        (
            Method::GET,
            "HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
            true,
        ),
        (
            Method::GET,
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nto the end",
            "to the end",
            false,
        ),
        (Method::GET, "HTTP/1.1 200 OK\r\n\r\nto the end", "to the end", false),
        (Method::GET, "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", "hi", false),
        (
            Method::GET,
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi",
            "hi",
            true,
        ),
        (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "", true),
        (Method::HEAD, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "", true),
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n", "", true),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", "", true),
        (
            Method::GET,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
            "hi",
            false,
        ),
    ] {
        let (connection, script) = server(move |mut raw| async move {
            let head = raw.head().await;
            raw.send(answer).await;
            if !kept {
                raw.stream.shutdown().await.unwrap();
            }
            (head, raw)
        })
        .await;
        let response = send(connection, request(method, empty())).await.unwrap();
        let (body, _, connection) = read(response).await;
        assert_eq!(body, content, "{answer}");
        assert_eq!(connection.is_some(), kept, "{answer}");
        assert!(script.await.unwrap().0.contains(" /a?b HTTP/1.1\r\nhost: h\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let (connection, script) = server(|mut raw| async move {
        let head = raw.head().await;
        let body = raw.exactly(29).await;
        raw.send(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-b: 2\r\n\r\n",
        )
        .await;
        (head, String::from_utf8(body).unwrap(), raw)
    })
    .await;
    let (sender, body) = channel();
    sender.send(data("hello")).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "12345".parse().unwrap());
    sender.send(Ok(http_body::Frame::trailers(trailers))).await.unwrap();
    let response = send(connection, request(Method::POST, body)).await.unwrap();
    let (body, trailers, connection) = read(response).await;
    assert_eq!((body, &trailers.unwrap()["x-b"]), ("a".into(), &"2".parse().unwrap()));
    assert!(connection.is_some());
    let (head, sent, _raw) = script.await.unwrap();
    assert!(head.contains("transfer-encoding: chunked\r\n") && !head.contains("content-length"));
    assert_eq!(sent, "5\r\nhello\r\n0\r\nx-sum: 12345\r\n\r\n");
}

#[tokio::test]
async fn a_connection_serves_request_after_request() {
    let (mut connection, script) = server(|mut raw| async move {
        for number in 0..20 {
            let head = raw.head().await;
            assert!(head.contains("content-length: 3\r\n"), "{head}");
            assert_eq!(raw.exactly(3).await, b"abc");
            raw.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{number:02}")).await;
        }
        raw
    })
    .await;
    for number in 0..20 {
        assert!(connection.is_reusable());
        connection.shrink();
        let response = send(connection, request(Method::PUT, full("abc"))).await.unwrap();
        let (body, _, kept) = read(response).await;
        assert_eq!(body, format!("{number:02}"));
        connection = kept.unwrap();
    }
    drop(script.await.unwrap());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!connection.is_reusable(), "the server has closed it");
}

#[tokio::test]
async fn interim_answers_are_shown_and_the_final_one_is_returned() {
    let (connection, _script) = server(|mut raw| async move {
        raw.head().await;
        raw.send("HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 200 OK\r\n")
            .await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        raw.send("content-length: 2\r\n\r\nhi").await;
        raw
    })
    .await;
    let mut seen = Vec::new();
    let mut on_interim = |interim: Response<()>| seen.push(interim.status().as_u16());
    let response = send_with(connection, get(), None, &mut on_interim).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(read(response).await.0, "hi");
    assert_eq!(seen, [103, 102]);
}

fn expecting() -> Request<TestBody> {
    let mut request = request(Method::POST, full("hello"));
    request.headers_mut().insert("expect", "100-continue".parse().unwrap());
    request
}

#[tokio::test]
async fn a_held_body_waits_for_its_100() {
    let (connection, script) = server(|mut raw| async move {
        raw.head().await;
        let silent = raw.is_silent().await;
        raw.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        let body = raw.exactly(5).await;
        raw.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        (silent, body, raw)
    })
    .await;
    let hold = Some(PATIENCE);
    let response = send_with(connection, expecting(), hold, &mut |_| {}).await.unwrap();
    assert!(read(response).await.2.is_some());
    let (silent, body, _raw) = script.await.unwrap();
    assert!(silent && body == b"hello");
}

#[tokio::test]
async fn a_held_body_is_sent_at_last_or_never() {
    let (connection, script) = server(|mut raw| async move {
        raw.head().await;
        let body = raw.exactly(5).await;
        raw.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        (body, raw)
    })
    .await;
    let hold = Some(Duration::from_millis(50));
    send_with(connection, expecting(), hold, &mut |_| {}).await.unwrap();
    assert_eq!(script.await.unwrap().0, b"hello", "the server never asked");

    let (connection, script) = server(|mut raw| async move {
        raw.head().await;
        raw.send("HTTP/1.1 417 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        raw.rest().await
    })
    .await;
    let response = send_with(connection, expecting(), Some(PATIENCE), &mut |_| {}).await.unwrap();
    assert_eq!(response.status(), StatusCode::EXPECTATION_FAILED);
    drop(response);
    let rest = script.await.unwrap();
    assert!(b"hello".starts_with(&rest), "nothing but the body may follow: {rest:?}");
}

#[tokio::test]
async fn an_answer_may_come_before_the_body_has_been_sent() {
    let (connection, script) = server(|mut raw| async move {
        raw.head().await;
        raw.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        for word in ["one", "two"] {
            assert_eq!(raw.line().await, "3");
            assert_eq!(raw.exactly(5).await, format!("{word}\r\n").as_bytes());
            raw.send(format!("3\r\n{word}\r\n")).await;
        }
        assert_eq!(raw.exactly(5).await, b"0\r\n\r\n");
        raw.send("0\r\n\r\n").await;
        raw
    })
    .await;
    let (sender, body) = channel();
    let mut answer = send(connection, request(Method::POST, body)).await.unwrap().into_body();
    for word in ["one", "two"] {
        sender.send(data(word)).await.unwrap();
        let frame = timeout(PATIENCE, answer.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
    }
    drop(sender);
    assert!(timeout(PATIENCE, answer.frame()).await.unwrap().is_none());
    script.await.unwrap();
}

#[tokio::test]
async fn an_early_answers_connection_is_not_used_again_while_its_body_is_unsent() {
    let (connection, script) = server(|mut raw| async move {
        raw.head().await;
        raw.send("HTTP/1.1 413 Large\r\ncontent-length: 2\r\n\r\nno").await;
        raw.rest().await
    })
    .await;
    let (sender, body) = channel();
    let response = send(connection, request(Method::POST, body)).await.unwrap();
    let (body, _, connection) = read(response).await;
    assert!(body == "no" && connection.is_none());
    timeout(PATIENCE, sender.closed()).await.unwrap();
    assert_eq!(timeout(PATIENCE, script).await.unwrap().unwrap(), b"", "and it is closed");
}

#[tokio::test]
async fn a_tunnel_opens_with_101_and_half_closes_each_way() {
    let (connection, script) = server(|mut raw| async move {
        raw.head().await;
        let silent = raw.is_silent().await;
        raw.send("HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nfirst").await;
        let got = raw.rest().await;
        raw.send("last").await;
        (silent, got)
    })
    .await;
    let (sender, body) = channel();
    sender.send(data("early")).await.unwrap();
    let mut request = request(Method::GET, body);
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "x".parse().unwrap());
    let response = send(connection, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut answer = response.into_body();
    let first = timeout(PATIENCE, answer.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first");
    sender.send(data(" and late")).await.unwrap();
    drop(sender);
    let last = timeout(PATIENCE, answer.collect()).await.unwrap().unwrap().to_bytes();
    assert_eq!(last, "last");
    assert_eq!(script.await.unwrap(), (true, b"early and late".to_vec()));
}
