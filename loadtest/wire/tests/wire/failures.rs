//! Answers that don't come, or not as they should.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::Method;
use loadtest_wire::{CallError, Connection, Origin, Protocol, Request};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::server::{Identity, PATIENCE, echo_quic, listen, plain, read_head, secure};

/// How a server goes on when it has said what it has to say.
#[derive(Clone, Copy)]
enum Then {
    Reset,
    Close,
    Wait,
}

/// Answers each request on a connection with the same words, but only `answers` times.
async fn says(words: &'static str, answers: usize, then: Then) -> SocketAddr {
    listen(move |mut stream| async move {
        for _ in 0..answers {
            if read_head(&mut stream).await.is_empty() {
                return;
            }
            stream.write_all(words.as_bytes()).await.unwrap();
        }
        end(stream, then).await;
    })
    .await
}

async fn end(stream: TcpStream, then: Then) {
    match then {
        Then::Reset => {
            // What was said has to arrive before: a reset overtakes it.
            tokio::time::sleep(Duration::from_millis(300)).await;
            stream.set_zero_linger().unwrap();
        }
        Then::Close => {}
        Then::Wait => tokio::time::sleep(PATIENCE * 10).await,
    }
}

async fn open(origin: &Origin, protocol: Protocol) -> Connection {
    Connection::open_within(origin, protocol, PATIENCE).await.unwrap().connection
}

async fn get(address: SocketAddr, within: Duration) -> Result<Bytes, CallError> {
    let mut connection = open(&plain(address), Protocol::H1).await;
    let answer = connection.call(&Request::get("/").within(within)).await;
    if answer.is_err() {
        assert!(!connection.is_open());
    }
    Ok(answer?.body)
}

const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole";

#[tokio::test]
async fn a_reset_is_told_from_an_early_end() {
    let error = get(says(HALF, 1, Then::Reset).await, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), "reset", "{}", error.in_full());
    let error = get(says("HTTP/1.1 200", 1, Then::Reset).await, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), "reset", "{}", error.in_full());
    let error = get(says(HALF, 1, Then::Close).await, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), "closed", "{}", error.in_full());
    let error = get(says("", 1, Then::Close).await, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), "closed", "{}", error.in_full());
}

#[tokio::test]
async fn silence_is_a_timeout_that_says_what_is_missing() {
    let soon = Duration::from_millis(300);
    for (words, missing) in [("", "head"), ("HTTP/1.1 200", "head"), (HALF, "body")] {
        let error = get(says(words, 1, Then::Wait).await, soon).await.unwrap_err();
        assert!(error.is_deadline() && error.kind() == "timeout", "{error}");
        assert!(error.to_string().contains(missing), "{words:?}: {error}");
    }
    let mut connection = open(&plain(says(HALF, 1, Then::Wait).await), Protocol::H1).await;
    let mut incoming = connection.start(&Request::get("/").within(soon)).await.unwrap();
    assert_eq!(incoming.next().await.unwrap().as_deref(), Some(&b"half"[..]));
    assert!(incoming.next().await.unwrap_err().is_deadline());
}

#[tokio::test]
async fn bytes_behind_an_answer_spoil_the_next_request() {
    let words = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n";
    let mut connection = open(&plain(says(words, 2, Then::Wait).await), Protocol::H1).await;
    let request = Request::get("/").within(PATIENCE);
    assert_eq!(connection.call(&request).await.unwrap().body, "ok");
    let error = connection.call(&request).await.unwrap_err();
    assert_eq!(error.kind(), "protocol", "{}", error.in_full());
    assert!(!connection.is_open());
}

#[tokio::test]
async fn a_connection_that_the_server_has_ended_is_not_open() {
    let mut connection = open(&plain(says(WHOLE, 1, Then::Close).await), Protocol::H1).await;
    let request = Request::get("/").within(PATIENCE);
    assert_eq!(connection.call(&request).await.unwrap().body, "whole");
    let ended = async {
        while connection.is_open() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    assert_eq!(connection.call(&request).await.unwrap_err().kind(), "closed");
}

#[tokio::test]
async fn a_server_may_end_a_connection_with_its_answer() {
    for words in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nwhole",
        "HTTP/1.1 200 OK\r\n\r\nwhole",
        "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nwhole",
    ] {
        let mut connection = open(&plain(says(words, 1, Then::Close).await), Protocol::H1).await;
        let answer = connection.call(&Request::get("/").within(PATIENCE)).await.unwrap();
        assert_eq!(answer.body, "whole", "{words}");
        assert!(!connection.is_open(), "{words}");
    }
}

#[tokio::test]
async fn a_refusal_that_comes_before_all_was_sent_is_an_answer() {
    let words = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 5\r\n\r\nlarge";
    let mut connection = open(&plain(says(words, 1, Then::Wait).await), Protocol::H1).await;
    let body = vec![Bytes::from(vec![0; 1 << 20]); 64];
    let request = Request::new(Method::POST, "/").body(body).within(PATIENCE);
    let answer = connection.call(&request).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (413, &b"large"[..]));
    assert!(!connection.is_open(), "half a request is left on it");
}

#[tokio::test]
async fn a_head_without_an_end_is_too_large() {
    let address = listen(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        while stream.write_all(b"x: y\r\n").await.is_ok() {}
    })
    .await;
    assert_eq!(get(address, PATIENCE).await.unwrap_err().kind(), "too_large");
}

#[tokio::test]
async fn a_malformed_authority_is_sent_as_it_is() {
    let address = listen(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        let answer = format!("HTTP/1.1 400 x\r\ncontent-length: {}\r\n\r\n{host}", host.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let origin = plain(address).with_authority("a b:c:d");
    let mut connection = open(&origin, Protocol::H1).await;
    let answer = connection.call(&Request::get("/").within(PATIENCE)).await.unwrap();
    assert_eq!(answer.body, "a b:c:d");
    let split = plain(address).with_authority("a\r\nx: y");
    let error = Connection::open(&split, Protocol::H1).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), "failed");
}

#[tokio::test]
async fn http2_to_a_server_that_does_not_speak_it_fails() {
    let address = says("HTTP/1.1 400 Bad Request\r\n\r\n", 1, Then::Close).await;
    let mut connection = open(&plain(address), Protocol::H2).await;
    let error = connection.call(&Request::get("/").within(PATIENCE)).await.unwrap_err();
    assert!(["protocol", "closed", "reset"].contains(&error.kind()), "{}", error.in_full());
    assert!(!connection.is_open());
}

#[tokio::test]
async fn http2_notices_when_its_server_is_gone_or_silent() {
    let address = listen(|stream| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(stream);
    })
    .await;
    let mut connection = open(&plain(address), Protocol::H2).await;
    let error = connection.call(&Request::get("/").within(PATIENCE)).await.unwrap_err();
    assert!(["closed", "reset"].contains(&error.kind()), "{}", error.in_full());
    let address = listen(|stream| end(stream, Then::Wait)).await;
    let mut connection = open(&plain(address), Protocol::H2).await;
    let request = Request::get("/").within(Duration::from_millis(300));
    assert!(connection.call(&request).await.unwrap_err().is_deadline());
}

#[tokio::test]
async fn http3_tells_a_stopped_stream_from_an_ended_connection() {
    let identity = Identity::new();
    let (address, endpoint) = echo_quic(&identity, &["h3"]).await;
    let mut connection = open(&secure(address, &identity), Protocol::H3).await;
    let error = connection.call(&Request::get("/stop").within(PATIENCE)).await.unwrap_err();
    assert_eq!(error.kind(), "reset", "{}", error.in_full());
    assert!(connection.is_open(), "only a stream was reset");
    endpoint.close(0x100_u32.into(), b"");
    let ended = async {
        while connection.is_open() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    let error = connection.call(&Request::get("/").within(PATIENCE)).await.unwrap_err();
    assert_eq!(error.kind(), "closed", "{}", error.in_full());
}
