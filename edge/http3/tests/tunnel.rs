//! A tunnel's two directions end one by one, and the second outlives a drain.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use edge_http3::{BoxError, Config, RecvBody};
use futures::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use support::*;
use tokio::{
    sync::{Mutex, Notify},
    time::timeout,
};

const CONNECT: [(&str, &str); 5] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "https"),
    (":authority", "a.test"),
    (":path", "/"),
];

/// Begins an endless answer and drops the request's body when told to.
fn dropping(go: &Arc<Notify>) -> impl Fn(Request<RecvBody>) -> Answer + Clone + Send + 'static {
    let go = Arc::clone(go);
    move |request| {
        let go = Arc::clone(&go);
        Box::pin(async move {
            tokio::spawn(async move {
                go.notified().await;
                drop(request);
            });
            let body = stream::pending::<Result<Frame<Bytes>, BoxError>>();
            Response::new(StreamBody::new(body).boxed_unsync())
        })
    }
}

#[tokio::test]
async fn a_tunnel_whose_body_is_dropped_is_stopped_at_once_and_sends_on() {
    let go = Arc::new(Notify::new());
    let server = Server::start(Config::default(), dropping(&go));
    let raw = server.raw().await;
    let (mut send, mut recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&headers(&CONNECT)).await.unwrap();
    let mut head = [0; 6];
    timeout(PATIENCE, recv.read_exact(&mut head)).await.unwrap().unwrap();
    go.notify_one();
    let code = timeout(PATIENCE, send.stopped()).await.unwrap().unwrap().unwrap();
    assert_eq!(code.into_inner(), 0x100);
    let more = timeout(std::time::Duration::from_millis(100), recv.read_chunk(1, true)).await;
    assert!(more.is_err(), "the answer goes on: {more:?}");
}

#[tokio::test]
async fn a_refused_tunnel_is_stopped_after_its_answer() {
    let refuse = |request: Request<RecvBody>| -> Answer {
        drop(request);
        let mut response = Response::new(full("no"));
        *response.status_mut() = http::StatusCode::FORBIDDEN;
        Box::pin(std::future::ready(response))
    };
    let server = Server::start(Config::default(), refuse);
    let raw = server.raw().await;
    let (mut send, recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&headers(&CONNECT)).await.unwrap();
    let Outcome::Answer(answer) = outcome(recv).await else { panic!("no answer") };
    assert!(answer.ends_with(b"no"));
    let code = timeout(PATIENCE, send.stopped()).await.unwrap().unwrap().unwrap();
    assert_eq!(code.into_inner(), 0x100);
}

#[tokio::test]
async fn a_drain_leaves_the_open_direction_of_a_tunnel_to_its_end() {
    let got = Arc::new(Mutex::new(Vec::new()));
    let done = Arc::new(Notify::new());
    let (collected, tell) = (Arc::clone(&got), Arc::clone(&done));
    // Answers nothing, and reads all that comes.
    let service = move |request: Request<RecvBody>| -> Answer {
        let (collected, tell) = (Arc::clone(&collected), Arc::clone(&tell));
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                collected.lock().await.extend_from_slice(frame.data_ref().map_or(b"", |data| data));
            }
            tell.notify_one();
        });
        Box::pin(std::future::ready(Response::new(full(""))))
    };
    let mut server = Server::start(Config::default(), service);
    let raw = server.raw().await;
    let (mut send, recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&headers(&CONNECT)).await.unwrap();
    assert_eq!(outcome(recv).await.status(), b"200");
    server.drain.cancel();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await; // longer than a drain takes
    send.write_all(&frame(0, b"late, but here")).await.unwrap();
    send.finish().unwrap();
    timeout(PATIENCE, done.notified()).await.unwrap();
    assert_eq!(*got.lock().await, b"late, but here");
    assert!(server.ended().await.unwrap().graceful);
}
