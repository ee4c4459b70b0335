//! The client with servers that leave, lie or talk nonsense.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::time::Duration;

use edge_http1::client::{AnswerError, SendError, Sending};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use tokio::{
    io::AsyncWriteExt as _,
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::{
    client::{get, request, send, server},
    support::{PATIENCE, channel, data, full},
};

/// What `send` says of an answer.
async fn outcome(answer: impl Into<Vec<u8>>) -> Result<(), SendError> {
    let answer = answer.into();
    let (connection, _script) = server(|mut raw| async move {
        raw.head().await;
        let _ = raw.stream.write_all(&answer).await;
        let _ = raw.stream.shutdown().await;
        raw.rest().await
    })
    .await;
    send(connection, get()).await.map(drop)
}

#[tokio::test]
async fn answers_that_are_no_http_are_errors() {
    for answer in [
        "garbage\r\n\r\n",
        "\x00\x01\x02\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\nx: y\n\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Unasked\r\nupgrade: x\r\n\r\n",
    ] {
        let outcome = outcome(answer).await;
        assert!(matches!(outcome, Err(SendError::Answer(_))), "{answer:?} {outcome:?}");
    }
}

#[tokio::test]
async fn answers_without_end_are_errors() {
    let huge = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(300_000));
    assert!(matches!(outcome(huge).await, Err(SendError::Answer(_))));
    let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(300));
    assert!(matches!(outcome(fields).await, Err(SendError::Answer(_))));
    let interims = "HTTP/1.1 103 E\r\n\r\n".repeat(1000);
    assert!(matches!(outcome(interims).await, Err(SendError::Answer(_))));
    assert!(matches!(outcome("HTTP/1.1 200 O").await, Err(SendError::Closed)));
    assert!(matches!(outcome("").await, Err(SendError::Closed)));
}

#[tokio::test]
async fn a_large_head_within_the_limit_is_read() {
    let large = format!(
        "HTTP/1.1 200 OK\r\nx: {}\r\ny: {}\r\ncontent-length: 0\r\n\r\n",
        "a".repeat(60_000),
        "b".repeat(60_000)
    );
    outcome(large).await.unwrap();
}

#[tokio::test]
async fn bodies_that_break_off_or_break_a_rule_are_errors() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\nhalf\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
    ] {
        let (connection, _script) = server(move |mut raw| async move {
            raw.head().await;
            raw.send(answer).await;
            raw.stream.shutdown().await.unwrap();
            raw.rest().await
        })
        .await;
        let mut body = send(connection, get()).await.unwrap().into_body();
        let error = loop {
            match timeout(PATIENCE, body.frame()).await.unwrap() {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("{answer:?} looks whole"),
            }
        };
        assert!(matches!(error, AnswerError::Fault(_)), "{answer:?} {error:?}");
        assert!(body.take_connection().is_none(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_connection_that_said_something_unasked_is_not_used_again() {
    let (connection, script) = server(|mut raw| async move {
        raw.head().await;
        raw.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n").await;
        raw
    })
    .await;
    let mut body = send(connection, get()).await.unwrap().into_body();
    let _raw = script.await.unwrap();
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
    assert!(body.take_connection().is_none());
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_told_from_one_that_may_have_been_used() {
    // Closed with an RST before anything was sent: the write itself fails.
    let (mut connection, script) = server(|raw| async move {
        socket2::SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).unwrap();
    })
    .await;
    script.await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!connection.is_reusable());
    let (connection, script) = server(|raw| async move {
        socket2::SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).unwrap();
    })
    .await;
    script.await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let outcome = send(connection, get()).await.map(drop);
    assert!(matches!(outcome, Err(SendError::Unsent(_))), "{outcome:?}");

    // Closed after the request was read: it may have been acted upon.
    let (connection, script) = server(|mut raw| async move {
        raw.head().await;
    })
    .await;
    let outcome = send(connection, get()).await.map(drop);
    assert!(matches!(outcome, Err(SendError::Closed | SendError::Broken(_))), "{outcome:?}");
    script.await.unwrap();
}

#[tokio::test]
async fn a_body_that_was_asked_for_is_never_called_unsent() {
    let (connection, script) = server(|raw| async move {
        socket2::SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).unwrap();
    })
    .await;
    script.await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let outcome = send(connection, request(Method::POST, full("x"))).await.map(drop);
    assert!(matches!(outcome, Err(SendError::Broken(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_body_of_a_wrong_length_is_an_error() {
    for (says, has) in [(3_u64, "four"), (5, "four")] {
        let (connection, script) = server(|mut raw| async move { raw.rest().await }).await;
        let body = Lying { says, has: Some(has) }.boxed_unsync();
        let outcome = send(connection, request(Method::POST, body)).await.map(drop);
        assert!(matches!(outcome, Err(SendError::Body(_))), "{says} {outcome:?}");
        let sent = String::from_utf8(script.await.unwrap()).unwrap();
        let content = sent.split_once("\r\n\r\n").map_or("", |(_, content)| content);
        assert!((content.len() as u64) < says, "it must not look whole: {sent}");
    }
}

struct Lying {
    says: u64,
    has: Option<&'static str>,
}

impl http_body::Body for Lying {
    type Data = bytes::Bytes;
    type Error = edge_http1::BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<crate::support::Frame>> {
        std::task::Poll::Ready(self.has.take().map(data))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.says)
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_ends_the_connection() {
    let (connection, script) = server(|mut raw| async move { raw.rest().await }).await;
    let (sender, body) = channel();
    sender.send(data("some")).await.unwrap();
    sender.send(Err("the client left".into())).await.unwrap();
    let outcome = send(connection, request(Method::POST, body)).await.map(drop);
    assert!(matches!(outcome, Err(SendError::Body(_))), "{outcome:?}");
    assert!(!script.await.unwrap().ends_with(b"0\r\n\r\n"));

    // The same once the answer has begun: it must not go on as if nothing were.
    let (connection, script) = server(|mut raw| async move {
        raw.head().await;
        raw.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n").await;
        raw.rest().await
    })
    .await;
    let (sender, body) = channel();
    let mut answer = send(connection, request(Method::POST, body)).await.unwrap().into_body();
    answer.frame().await.unwrap().unwrap();
    sender.send(Err("the client left".into())).await.unwrap();
    let error = timeout(PATIENCE, answer.frame()).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, AnswerError::Request(_)), "{error:?}");
    drop(answer);
    assert!(!script.await.unwrap().ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn an_answer_that_does_not_begin_in_time_is_given_up() {
    let (stop, mut stopped) = mpsc::channel::<()>(1);
    let (connection, script) = server(|mut raw| async move {
        raw.head().await;
        let _ = stopped.recv().await; // the test has ended
    })
    .await;
    let (parts, body) = Request::get("/").body(full("")).unwrap().into_parts();
    let sending = Sending {
        fields: b"",
        deadline: Instant::now() + Duration::from_millis(100),
        hold_body_until: None,
        on_interim: &mut |_| {},
    };
    let outcome = timeout(PATIENCE, connection.send(&parts, body, sending)).await.unwrap();
    assert!(matches!(outcome, Err(SendError::Late)));
    drop(stop);
    script.await.unwrap();
}

#[tokio::test]
async fn a_server_that_takes_no_bytes_is_given_up() {
    let (stop, mut stopped) = mpsc::channel::<()>(1);
    let (connection, script) = server(|raw| async move {
        let _ = stopped.recv().await; // the test has ended
        drop(raw);
    })
    .await;
    let (parts, body) = request(Method::POST, full(vec![b'x'; 64 << 20])).into_parts();
    let sending = Sending {
        fields: b"",
        deadline: Instant::now() + Duration::from_millis(300),
        hold_body_until: None,
        on_interim: &mut |_| {},
    };
    let outcome = timeout(PATIENCE, connection.send(&parts, body, sending)).await.unwrap();
    assert!(matches!(outcome, Err(SendError::Late)));
    drop(stop);
    script.await.unwrap();
}
