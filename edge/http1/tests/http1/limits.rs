//! Clients that are slow, on purpose or not, are sent away in time and counted.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use edge_http1::server::{Config, Refusal, ServeError};
use tokio::time::sleep;

use crate::support::{Server, full, ok, report};

const SOON: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_slow_head_is_answered_408() {
    let mut server = Server::with(Config { head_timeout: SOON, ..Config::default() }, report).await;
    let mut client = server.connect().await;
    let begin = Instant::now();
    for byte in b"GET / HT" {
        client.send([*byte]).await;
        sleep(Duration::from_millis(10)).await;
    }
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (408, Some("close")));
    assert!(begin.elapsed() >= SOON);
    assert_eq!(client.rest().await, b"");
    let ended = server.ended().await;
    assert!(matches!(ended, Err(ServeError::Refused(Refusal::HeadTimeout))), "{ended:?}");
    assert_eq!(server.counters.head_timeout.load(Relaxed), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let config = Config { keep_alive_timeout: SOON, ..Config::default() };
    let mut server = Server::with(config, report).await;
    let mut never = server.connect().await;
    assert_eq!(never.rest().await, b"");
    let mut client = server.connect().await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(client.rest().await, b"");
    for _ in 0..2 {
        assert!(server.ended().await.is_ok());
    }
    assert_eq!(server.counters.idle.load(Relaxed), 2);
}

#[tokio::test]
async fn a_body_that_stops_is_given_up() {
    let server = Server::with(Config { body_timeout: SOON, ..Config::default() }, report).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nhalf").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (400, "the request's body came too slowly"));
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(client.rest().await, b"");
    assert_eq!(server.counters.body_rate.load(Relaxed), 1);
}

#[tokio::test]
async fn a_client_that_takes_no_bytes_is_given_up() {
    let config = Config { write_timeout: SOON, ..Config::default() };
    let mut server =
        Server::with(config, |_| Box::pin(async { ok(full(vec![b'x'; 64 << 20])) })).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(matches!(server.ended().await, Err(ServeError::Stalled)));
    assert_eq!(server.counters.write_stalled.load(Relaxed), 1);
    let all = client.rest().await;
    assert!(all.len() < 64 << 20, "it must not look whole");
}

#[tokio::test]
async fn a_client_that_takes_bytes_slowly_is_served() {
    let config = Config { write_timeout: Duration::from_secs(2), ..Config::default() };
    let size = 64 << 20;
    let server =
        Server::with(config, move |_| Box::pin(async move { ok(full(vec![b'x'; size])) })).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    client.head().await;
    // Longer in all than the time that it may take nothing.
    for _ in 0..16 {
        assert_eq!(client.exactly(size / 16).await.len(), size / 16);
        sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(server.counters.write_stalled.load(Relaxed), 0);
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_flood_of_tiny_chunks_costs_little_and_works() {
    let server = Server::start(report).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.send("1\r\nx\r\n".repeat(50_000)).await;
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.body.len(), 50_000 + "POST / []".len());
}
