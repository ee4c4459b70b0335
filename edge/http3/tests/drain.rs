//! A connection is drained: GOAWAY twice, what was accepted is answered, what comes later is not.

mod support;

use std::sync::Arc;

use edge_http3::{Config, RecvBody};
use http::{Request, Response};
use support::*;
use tokio::{sync::Semaphore, time::timeout};

/// Answers once there is a permit.
fn held(gate: &Arc<Semaphore>) -> impl Fn(Request<RecvBody>) -> Answer + Clone + Send + 'static {
    let gate = Arc::clone(gate);
    move |_| {
        let gate = Arc::clone(&gate);
        Box::pin(async move {
            gate.acquire().await.expect("it is never closed").forget();
            Response::new(full(vec![7; 100_000]))
        })
    }
}

#[tokio::test]
async fn goaway_comes_twice_and_what_was_accepted_is_answered() {
    let gate = Arc::new(Semaphore::new(0));
    let mut server = Server::start(Config::default(), held(&gate));
    let raw = server.raw().await;
    let (mut send, first) = raw.quic.open_bi().await.unwrap();
    send.write_all(&headers(&GET)).await.unwrap();
    send.finish().unwrap();
    let mut control = raw.quic.accept_uni().await.unwrap();
    let mut seen = vec![0; 2];
    control.read_exact(&mut seen).await.unwrap();
    assert_eq!(seen, [0x00, 0x04], "control stream, settings");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    server.drain.cancel();
    let nobody = frame(7, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc]);
    let second = frame(7, &[4]);
    let both = [nobody, second].concat();
    while !seen.ends_with(&both) {
        let chunk = timeout(PATIENCE, control.read_chunk(1024, true)).await.unwrap().unwrap();
        seen.extend_from_slice(&chunk.expect("it stays open").bytes);
    }
    assert_eq!(raw.request(&headers(&GET)).await, Outcome::Reset(0x10b));
    assert_eq!(count(&server.counters.rejected), 1);
    gate.add_permits(1);
    assert_eq!(outcome(first).await.status(), b"200");
    assert_eq!(raw.closed().await, 0x100);
    let ended = server.ended().await.unwrap();
    assert_eq!((ended.graceful, ended.requests), (true, 1));
}

#[tokio::test]
async fn another_implementation_gets_its_answer_and_opens_no_more() {
    let gate = Arc::new(Semaphore::new(0));
    let mut server = Server::start(Config::default(), held(&gate));
    let mut client = server.h3().await;
    let mut stream = client.open("GET").await;
    stream.finish().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    server.drain.cancel();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    gate.add_permits(1);
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
    assert_eq!(read_all(&mut stream).await.len(), 100_000);
    assert!(server.ended().await.unwrap().graceful);
}

#[tokio::test]
async fn an_idle_connection_is_drained_at_once() {
    let gate = Arc::new(Semaphore::new(1));
    let mut server = Server::start(Config::default(), held(&gate));
    let raw = server.raw().await;
    server.drain.cancel();
    assert_eq!(raw.closed().await, 0x100);
    let ended = server.ended().await.unwrap();
    assert_eq!((ended.graceful, ended.requests), (true, 0));
}
