//! More than one request on a connection, and who says that there are no more.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::time::Duration;

use edge_http1::server::{Config, Ended, ServeError};
use tokio::{io::AsyncWriteExt as _, sync::mpsc, time::timeout};

use crate::support::{PATIENCE, Server, channel, data, full, ok, report};

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(report).await;
    let mut client = server.connect().await;
    let mut requests = String::new();
    for number in 0..50 {
        requests += &format!("GET /{number} HTTP/1.1\r\nhost: h\r\n\r\n");
        requests += &format!("POST /{number} HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody");
        requests += "PUT /c HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
        requests += "2\r\nab\r\n0\r\n\r\n";
    }
    client.send(requests).await;
    for number in 0..50 {
        assert_eq!(client.answer().await.text(), format!("GET /{number} []"));
        assert_eq!(client.answer().await.text(), format!("POST /{number} [body]"));
        assert_eq!(client.answer().await.text(), "PUT /c [ab]");
    }
}

#[tokio::test]
async fn a_bad_second_request_does_not_harm_the_first() {
    let mut server = Server::start(report).await;
    let mut client = server.connect().await;
    client.send("GET /good HTTP/1.1\r\nhost: h\r\n\r\nGET /bad HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "GET /good []");
    assert_eq!(client.answer().await.status, 400);
    assert_eq!(client.rest().await, b"");
    assert!(matches!(server.ended().await, Err(ServeError::Refused(_))));
}

#[tokio::test]
async fn connections_are_kept_as_both_sides_say() {
    let server = Server::start(report).await;
    for (request, kept, says) in [
        ("GET / HTTP/1.1\r\nhost: h\r\n\r\n", true, None),
        ("GET / HTTP/1.1\r\nhost: h\r\nconnection: Close\r\n\r\n", false, Some("close")),
        ("GET / HTTP/1.1\r\nhost: h\r\nconnection: x, close\r\n\r\n", false, Some("close")),
        ("GET / HTTP/1.0\r\n\r\n", false, Some("close")),
        ("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n", true, Some("keep-alive")),
        ("GET / HTTP/1.0\r\nconnection: keep-alive, close\r\n\r\n", false, Some("close")),
    ] {
        let mut client = server.connect().await;
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!(answer.field("connection"), says, "{request}");
        if kept {
            assert_eq!(client.get("/again").await.status, 200, "{request}");
        } else {
            assert_eq!(client.rest().await, b"", "{request}");
        }
    }
}

#[tokio::test]
async fn a_connection_ends_after_its_last_request() {
    let mut server = Server::with(Config { max_requests: 3, ..Config::default() }, report).await;
    let mut client = server.connect().await;
    assert_eq!(client.get("/1").await.field("connection"), None);
    assert_eq!(client.get("/2").await.field("connection"), None);
    assert_eq!(client.get("/3").await.field("connection"), Some("close"));
    assert_eq!(client.rest().await, b"");
    drop(client);
    assert_eq!(server.ended().await.unwrap(), Ended { requests: 3 });
}

#[tokio::test]
async fn a_drain_closes_what_is_idle_and_lets_what_is_busy_end() {
    let (start, mut started) = mpsc::channel(1);
    let mut server = Server::start(move |_| {
        let start = start.clone();
        Box::pin(async move {
            let (sender, body) = channel();
            start.send(sender).await.unwrap();
            ok(body)
        })
    })
    .await;
    let mut idle = server.connect().await;
    let mut late = server.connect().await;
    let mut busy = server.connect().await;
    busy.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let streaming = started.recv().await.unwrap();
    assert!(!busy.head().await.contains("close"), "nobody knew of the drain");
    let mut waiting = server.connect().await;
    waiting.send("GET /half HTTP/1.1\r\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.drain.cancel();
    late.send("GET /late HTTP/1.1\r\nhost: h\r\n\r\n").await;
    drop(started.recv().await.unwrap());
    assert_eq!(late.answer().await.field("connection"), Some("close"), "it was on its way");
    drop(late);
    assert_eq!(idle.rest().await, b"");
    let ended = [server.ended().await.unwrap().requests, server.ended().await.unwrap().requests];
    assert_eq!(ended.iter().sum::<u64>(), 1, "the late one's, and none");
    streaming.send(data("more")).await.unwrap();
    drop(streaming);
    assert_eq!(busy.exactly(14).await, b"4\r\nmore\r\n0\r\n\r\n");
    assert_eq!(busy.rest().await, b"", "closed behind its answer");
    drop(busy);
    assert_eq!(server.ended().await.unwrap(), Ended { requests: 1 });
    waiting.send("host: h\r\n\r\n").await;
    drop(started.recv().await.unwrap());
    assert_eq!(waiting.answer().await.field("connection"), Some("close"), "it had begun");
}

/// Tells when it is dropped.
struct Told(mpsc::Sender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.try_send(()); // somebody else was faster
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_the_service_with_it() {
    let (tell, mut told) = mpsc::channel(1);
    let mut server = Server::start(move |_| {
        let guard = Told(tell.clone());
        Box::pin(async move {
            let _guard = guard;
            std::future::pending().await
        })
    })
    .await;
    for half_closed in [false, true] {
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        assert!(timeout(Duration::from_millis(100), told.recv()).await.is_err());
        if half_closed {
            client.stream.shutdown().await.unwrap();
        } else {
            drop(client);
        }
        assert_eq!(timeout(PATIENCE, told.recv()).await.unwrap(), Some(()), "{half_closed}");
        assert!(matches!(server.ended().await, Err(ServeError::Gone)), "{half_closed}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_the_answer_with_it() {
    let (start, mut started) = mpsc::channel(1);
    let mut server = Server::start(move |_| {
        let start = start.clone();
        Box::pin(async move {
            let (sender, body) = channel();
            start.send(sender).await.unwrap();
            ok(body)
        })
    })
    .await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let streaming = started.recv().await.unwrap();
    client.head().await;
    drop(client);
    timeout(PATIENCE, streaming.closed()).await.unwrap();
    assert!(matches!(server.ended().await, Err(ServeError::Gone | ServeError::Io(_))));
}

#[tokio::test]
async fn a_client_may_leave_between_requests() {
    let mut server = Server::start(|_| Box::pin(async { ok(full("x")) })).await;
    let mut client = server.connect().await;
    client.get("/").await;
    drop(client);
    assert_eq!(server.ended().await.unwrap(), Ended { requests: 1 });
    let mut client = server.connect().await;
    client.send("GET / HT").await;
    drop(client);
    assert!(matches!(server.ended().await, Err(ServeError::Gone)), "in the middle of a head");
}
