//! Guests that speak only HTTP/2: gRPC-like exchanges.

use std::convert::Infallible;

use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use tokio::sync::mpsc;

use super::*;

type Chunk = Result<Frame<Bytes>, io::Error>;
type Stream = StreamBody<futures::stream::BoxStream<'static, Chunk>>;

/// A body that is sent piece by piece; `Err` resets its stream.
fn pieces() -> (mpsc::Sender<Chunk>, Stream) {
    let (tx, rx) = mpsc::channel(4);
    let stream = futures::stream::unfold(rx, |mut rx: mpsc::Receiver<Chunk>| async move {
        rx.recv().await.map(|piece| (piece, rx))
    });
    (tx, StreamBody::new(Box::pin(stream)))
}

fn piece(text: &str) -> Chunk {
    Ok(Frame::data(Bytes::from(text.to_owned())))
}

/// Echoes each piece at once, then the request's trailers and a status. `break` resets the stream,
/// and when the client is gone `gone` is cancelled.
async fn echo(
    request: Request<Incoming>,
    gone: CancellationToken,
) -> Response<UnsyncBoxBody<Bytes, io::Error>> {
    assert_eq!(request.uri().authority().unwrap(), "guest.test");
    assert_eq!(request.headers()["te"], "trailers");
    assert!(request.headers().keys().all(|name| !name.as_str().starts_with(proxy::PREFIX)));
    let (tx, stream) = pieces();
    let mut body = request.into_body();
    tokio::spawn(async move {
        let mut trailers = HeaderMap::new();
        loop {
            let frame = match body.frame().await {
                None => break,
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return gone.cancel(),
            };
            match frame.into_data() {
                Ok(data) if data == "break" => {
                    let _ = tx.send(Err(io::Error::other("broken"))).await;
                    return;
                }
                Ok(data) => drop(tx.send(Ok(Frame::data(data))).await),
                Err(frame) => trailers = frame.into_trailers().unwrap(),
            }
        }
        trailers.insert("grpc-status", HeaderValue::from_static("7"));
        trailers.insert("x-wrenn-error", HeaderValue::from_static("forged"));
        let _ = tx.send(Ok(Frame::trailers(trailers))).await;
    });
    Response::new(stream.boxed_unsync())
}

struct Echoing {
    edge: Edge,
    gone: CancellationToken,
    connections: mpsc::Receiver<()>,
    _serving: AbortOnDropHandle<()>,
}

async fn echoing(keep: bool) -> Echoing {
    let (listener, guest) = by_hand().await;
    let gone = CancellationToken::new();
    let (tx, connections) = mpsc::channel(64);
    let told = gone.clone();
    let serving = tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tx.send(()).await.unwrap();
            let gone = told.clone();
            let service = service_fn(move |request| {
                let echoed = echo(request, gone.clone());
                async move { Ok::<_, Infallible>(echoed.await) }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tasks.spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    let edge = Edge::before(guest, keep).await;
    Echoing { edge, gone, connections, _serving: AbortOnDropHandle::new(serving) }
}

async fn next(body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    timeout(LONG, body.frame()).await.unwrap()
}

async fn data(body: &mut Incoming) -> Bytes {
    next(body).await.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test]
async fn both_directions_stream_at_once_and_trailers_cross() {
    let echoing = echoing(true).await;
    let mut h2 = echoing.edge.h2().await;
    let (tx, body) = pieces();
    let response = timeout(LONG, h2.send_request(request(true, body))).await.unwrap().unwrap();
    let mut answer = response.into_body();
    for text in ["one", "two", "three"] {
        tx.send(piece(text)).await.unwrap();
        assert_eq!(data(&mut answer).await, text);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", HeaderValue::from_static("abc"));
    trailers.insert("x-wrenn-token", HeaderValue::from_static("forged"));
    tx.send(Ok(Frame::trailers(trailers))).await.unwrap();
    let trailers = next(&mut answer).await.unwrap().unwrap().into_trailers().unwrap();
    let mut names: Vec<_> = trailers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["checksum", "grpc-status"]);
    assert_eq!(trailers["grpc-status"], "7");
    assert!(next(&mut answer).await.is_none());
}

#[tokio::test]
async fn reset_of_one_stream_leaves_the_others_on_the_same_connection() {
    let mut echoing = echoing(true).await;
    let mut h2 = echoing.edge.h2().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let (tx, body) = pieces();
        let sent = h2.send_request(request(true, body));
        open.push((tx, timeout(LONG, sent).await.unwrap().unwrap().into_body()));
    }
    let (tx, mut broken) = open.remove(1);
    tx.send(piece("break")).await.unwrap();
    assert!(next(&mut broken).await.unwrap().is_err());
    for (tx, answer) in &mut open {
        tx.send(piece("still")).await.unwrap();
        assert_eq!(data(answer).await, "still");
    }
    assert!(echoing.connections.try_recv().is_ok());
    assert!(echoing.connections.try_recv().is_err(), "more than one connection");
}

#[tokio::test]
async fn client_that_aborts_resets_the_guests_stream() {
    let echoing = echoing(true).await;
    let mut h2 = echoing.edge.h2().await;
    let (tx, body) = pieces();
    let response = timeout(LONG, h2.send_request(request(true, body))).await.unwrap().unwrap();
    let mut answer = response.into_body();
    tx.send(piece("one")).await.unwrap();
    assert_eq!(data(&mut answer).await, "one");
    drop((answer, tx.send(Err(io::Error::other("gone"))).await));
    timeout(LONG, echoing.gone.cancelled()).await.unwrap();
}

#[tokio::test]
async fn leases_share_no_connection_and_drained_ones_are_not_used_again() {
    for (keep, drained, expected) in [(true, false, 1), (true, true, 2), (false, false, 2)] {
        let mut echoing = echoing(keep).await;
        for _ in 0..2 {
            let mut h2 = echoing.edge.h2().await;
            let response = h2.send_request(request(true, Full::new(Bytes::from("hello"))));
            let response = timeout(LONG, response).await.unwrap().unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
            if drained {
                echoing.edge.guest().links.drain();
                echoing.edge.guest().links.admit();
            }
        }
        let mut connections = 0;
        while echoing.connections.try_recv().is_ok() {
            connections += 1;
        }
        assert_eq!(connections, expected, "keep: {keep}, drained: {drained}");
    }
}

#[tokio::test]
async fn guest_without_http2_is_said_to_have_none() {
    let (listener, guest) = by_hand().await;
    let edge = Edge::before(guest, true).await;
    let asked = once("GET", &format!("{}: {}\r\n", proxy::PROTOCOL, proxy::H2C));
    let serve = async {
        let mut stream = accept(&listener).await;
        read_to(&mut stream, "PRI * HTTP/2.0").await;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream
    };
    let (_stream, answer) = tokio::join!(serve, edge.ask(&asked));
    assert!(answer.contains("x-wrenn-error: upstream_reset\r\n"), "{answer}");
    assert!(answer.contains("does not speak HTTP/2"), "{answer}");
    let other = edge.ask(&once("GET", &format!("{}: h9\r\n", proxy::PROTOCOL))).await;
    assert!(other.contains("x-wrenn-error: invalid_argument\r\n"), "{other}");
    let other = edge.ask(&once("CONNECT", "").replace("/path", "guest.test:80")).await;
    assert!(other.contains("x-wrenn-error: not_implemented\r\n"), "{other}");
}
