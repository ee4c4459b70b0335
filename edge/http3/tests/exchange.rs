//! Requests and answers between this server and a client that keeps the rules.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use edge_http3::{BoxError, Config, FIRST_REQUESTS, Protocol, RecvBody};
use futures::{FutureExt, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use support::*;
use tokio::{sync::Notify, time::timeout};

#[tokio::test]
async fn a_get_is_answered_whole_and_known_to_have_no_body() {
    let service = |request: Request<RecvBody>| -> Answer {
        assert!(request.body().is_end_stream());
        assert_eq!(request.body().size_hint().exact(), Some(0));
        Box::pin(async { Response::new(full("hello")) })
    };
    let mut server = Server::start(Config::default(), service);
    let mut client = server.h3().await;
    for method in ["GET", "HEAD"] {
        let mut stream = client.open(method).await;
        stream.finish().await.unwrap();
        let response = timeout(PATIENCE, stream.recv_response()).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        if method == "GET" {
            assert_eq!(response.headers()["content-length"], "5");
            assert_eq!(read_all(&mut stream).await, b"hello");
        } else {
            assert_eq!(read_all(&mut stream).await, b"");
        }
    }
    client.quic.close(0x100_u32.into(), b"");
    let ended = server.ended().await.unwrap();
    assert_eq!((ended.requests, ended.graceful), (2, false));
}

/// Sends a request's data and trailers back.
fn echo(request: Request<RecvBody>) -> Answer {
    Box::pin(
        async move { Response::new(request.into_body().map_err(BoxError::from).boxed_unsync()) },
    )
}

#[tokio::test]
async fn bodies_of_any_size_and_trailers_go_both_ways() {
    let server = Server::start(Config::default(), echo);
    let mut client = server.h3().await;
    let stream = client.open("POST").await;
    let (mut send, mut recv) = stream.split();
    let all = Bytes::from((0..20_u32 << 20).map(|n| (n % 251) as u8).collect::<Vec<_>>());
    let sending = {
        let all = all.clone();
        tokio::spawn(async move {
            for at in (0..all.len()).step_by(1 << 20) {
                send.send_data(all.slice(at..at + (1 << 20))).await.unwrap();
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("sum", HeaderValue::from_static("ok"));
            send.send_trailers(trailers).await.unwrap();
            send.finish().await.unwrap();
        })
    };
    assert_eq!(recv.recv_response().await.unwrap().status(), 200);
    let mut got = Vec::new();
    while let Some(data) = timeout(PATIENCE, recv.recv_data()).await.unwrap().unwrap() {
        got.extend_from_slice(bytes::Buf::chunk(&data));
    }
    assert!(got == all, "what came back differs");
    assert_eq!(recv.recv_trailers().await.unwrap().unwrap()["sum"], "ok");
    sending.await.unwrap();
}

#[tokio::test]
async fn a_body_that_is_not_read_stops_its_client_at_the_window() {
    let go = Arc::new(Notify::new());
    let going = Arc::clone(&go);
    let service = move |request: Request<RecvBody>| -> Answer {
        let go = Arc::clone(&going);
        Box::pin(async move {
            go.notified().await;
            drop(request);
            Response::new(full("no"))
        })
    };
    let server = Server::start(Config::default(), service);
    let raw = server.raw().await;
    let (mut send, recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&headers(&POST)).await.unwrap();
    send.write_all(&announce(0, 1 << 30)).await.unwrap();
    let mut sent = 0;
    let block = vec![7; 64 * 1024];
    while let Ok(written) = timeout(Duration::from_millis(500), send.write(&block)).await {
        sent += written.unwrap();
        assert!(sent < 4 << 20, "{sent} bytes were taken that nobody reads");
    }
    go.notify_one();
    assert_eq!(outcome(recv).await.status(), b"200");
    let code = timeout(PATIENCE, send.stopped()).await.unwrap().unwrap().unwrap();
    assert_eq!(code.into_inner(), 0x100, "stopped without an error, after the answer");
}

#[tokio::test]
async fn interim_answers_come_before_the_final_one_and_never_after() {
    let service = |request: Request<RecvBody>| -> Answer {
        let interim = request.body().interim();
        Box::pin(async move {
            let answer = |status: u16| Response::builder().status(status).body(()).unwrap();
            interim.send(answer(103)).unwrap();
            interim.send(answer(101)).unwrap_err();
            interim.send(answer(100)).unwrap();
            interim.send(answer(200)).unwrap_err();
            tokio::time::sleep(Duration::from_millis(20)).await;
            interim.send(answer(102)).unwrap();
            let late = async move { interim.send(answer(103)).is_err().to_string().into() };
            let body = stream::once(late).map(|data| Ok(Frame::data(data)));
            Response::new(StreamBody::new(body).boxed_unsync())
        })
    };
    let server = Server::start(Config::default(), service);
    let mut client = server.h3().await;
    let mut stream = client.open("GET").await;
    stream.finish().await.unwrap();
    for status in [103, 100, 102, 200] {
        let response = timeout(PATIENCE, stream.recv_response()).await.unwrap().unwrap();
        assert_eq!(response.status(), status);
    }
    assert_eq!(read_all(&mut stream).await, b"true");
}

/// Says when it is dropped.
struct Dropped(Arc<Notify>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_client_that_stops_an_answer_ends_the_service_and_a_lost_connection_too() {
    let (begun, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (beginning, dropping) = (Arc::clone(&begun), Arc::clone(&gone));
    let service = move |_: Request<RecvBody>| -> Answer {
        let dropped = Dropped(Arc::clone(&dropping));
        beginning.notify_one();
        Box::pin(async move {
            let _dropped = dropped;
            std::future::pending().await
        })
    };
    let server = Server::start(Config::default(), service);
    let raw = server.raw().await;
    let (mut send, mut recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&headers(&GET)).await.unwrap();
    timeout(PATIENCE, begun.notified()).await.unwrap();
    recv.stop(0x10c_u32.into()).unwrap();
    timeout(PATIENCE, gone.notified()).await.unwrap();
    assert_eq!(count(&server.counters.resets), 1);
    let (mut send, _recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&headers(&GET)).await.unwrap();
    timeout(PATIENCE, begun.notified()).await.unwrap();
    raw.quic.close(0x100_u32.into(), b"");
    timeout(PATIENCE, gone.notified()).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_reset_and_not_just_shorter() {
    let service = |request: Request<RecvBody>| -> Answer {
        let panics = request.uri().path() == "/panic";
        Box::pin(async move {
            let failing = async move {
                assert!(!panics, "as asked for");
                Err::<Frame<Bytes>, BoxError>("broken".into())
            };
            let first = stream::once(async { Ok(Frame::data(Bytes::from_static(b"half"))) });
            let late = stream::once(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                failing.await
            });
            Response::new(StreamBody::new(first.chain(late)).boxed_unsync())
        })
    };
    let server = Server::start(Config::default(), service);
    let raw = server.raw().await;
    assert_eq!(raw.request(&headers(&GET)).await, Outcome::Reset(0x102));
    let mut panic = GET;
    panic[3].1 = "/panic";
    assert_eq!(raw.request(&headers(&panic)).await, Outcome::Reset(0x102));
}

#[tokio::test]
async fn extended_connect_is_a_tunnel_with_two_ends() {
    let service = |mut request: Request<RecvBody>| -> Answer {
        let protocol = request.extensions_mut().remove::<Protocol>();
        Box::pin(async move {
            let Some(protocol) = protocol else {
                let mut refused = Response::new(full("no"));
                *refused.status_mut() = StatusCode::NOT_IMPLEMENTED;
                return refused;
            };
            assert_eq!(protocol.as_str(), "websocket");
            let mut body = request.into_body();
            let answer = stream::once(async move {
                let mut all = b"got ".to_vec();
                while let Some(frame) = body.frame().await {
                    all.extend_from_slice(&frame.unwrap().into_data().unwrap());
                }
                Ok(Frame::data(all.into()))
            });
            Response::new(StreamBody::new(answer).boxed_unsync())
        })
    };
    let server = Server::start(Config::default(), service);
    let raw = server.raw().await;
    let mut head = GET.to_vec();
    head[0].1 = "CONNECT";
    head.push((":protocol", "websocket"));
    let (mut send, mut recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&headers(&head)).await.unwrap();
    let mut answer = [0; 6];
    timeout(PATIENCE, recv.read_exact(&mut answer)).await.unwrap().unwrap(); // before any DATA
    send.write_all(&frame(0, b"one ")).await.unwrap();
    send.write_all(&frame(0, b"two")).await.unwrap();
    send.finish().unwrap();
    let Outcome::Answer(rest) = outcome(recv).await else { panic!("no answer") };
    assert!(rest.ends_with(b"got one two"));
    // Trailers have no place in a tunnel.
    let trailers = [headers(&head), headers(&[("a", "b")])].concat();
    assert_eq!(raw.request(&trailers).await, Outcome::Closed(0x105));
    // A plain CONNECT is the service's to refuse.
    let raw = server.raw().await;
    let plain = headers(&[(":method", "CONNECT"), (":authority", "b.test:1")]);
    let Outcome::Answer(refused) = raw.request(&plain).await else { panic!("no answer") };
    assert!(refused.ends_with(b"no"));
}

/// How much of an endless answer of this priority came before 1 MB of one with `u=3`.
async fn overtaken_by(priority: &'static str, update: &str) -> usize {
    let service = |request: Request<RecvBody>| -> Answer {
        let pieces = if request.uri().path() == "/small" { 16 } else { usize::MAX };
        let piece = || Ok(Frame::data(Bytes::from_static(&[7; 64 * 1024])));
        let body = stream::iter(std::iter::repeat_with(piece).take(pieces));
        Box::pin(async move { Response::new(StreamBody::new(body).boxed_unsync()) })
    };
    let server = Server::start(Config::default(), service);
    let mut raw = server.raw().await;
    if !update.is_empty() {
        let update = [b"\0", update.as_bytes()].concat(); // for the stream with the id 0
        raw.control.write_all(&frame(0xf_0700, &update)).await.unwrap();
    }
    let ask = |path: &'static str, priority: &'static str| {
        let mut head = GET.to_vec();
        head[3].1 = path;
        head.push(("priority", priority));
        headers(&head)
    };
    let (mut send, mut large) = raw.quic.open_bi().await.unwrap();
    send.write_all(&ask("/large", priority)).await.unwrap();
    timeout(PATIENCE, large.read_chunk(1, true)).await.unwrap().unwrap();
    let (mut send, mut small) = raw.quic.open_bi().await.unwrap();
    send.write_all(&ask("/small", "u=3")).await.unwrap();
    let mut taken = 0;
    let reading = async { while small.read_chunk(1 << 16, true).await.unwrap().is_some() {} };
    let draining = async {
        while let Ok(Some(chunk)) = large.read_chunk(1 << 16, true).await {
            taken += chunk.bytes.len();
        }
    };
    tokio::select! {
        () = reading => {}
        () = draining => panic!("the large answer ended"),
        () = tokio::time::sleep(PATIENCE) => {} // held up for good: that counts as much as it got
    }
    taken
}

#[tokio::test]
async fn an_urgent_answer_leaves_far_less_to_others_than_one_that_is_not() {
    let (urgent, idle) = (overtaken_by("u=0", "").await, overtaken_by("u=7", "").await);
    assert!(urgent > 4 * idle, "{urgent} bytes at u=0, {idle} bytes at u=7");
}

#[tokio::test]
async fn a_priority_update_replaces_what_the_head_said() {
    let (urgent, idle) = (overtaken_by("u=7", "u=0").await, overtaken_by("u=0", "u=7").await);
    assert!(urgent > 4 * idle, "{urgent} bytes at u=0, {idle} bytes at u=7");
}

#[tokio::test]
async fn a_client_that_goes_on_may_have_more_requests_open() {
    let config = Config { requests_open_max: Some(40), ..Config::default() };
    let server = Server::start(config, |_| -> Answer { Box::pin(std::future::pending()) });
    let raw = server.raw().await;
    let mut open = Vec::new();
    for _ in 0..FIRST_REQUESTS {
        open.push(raw.quic.open_bi().now_or_never().unwrap().unwrap());
    }
    assert!(raw.quic.open_bi().now_or_never().is_none());
    let get = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")];
    for (send, _) in &mut open[..FIRST_REQUESTS as usize / 2] {
        send.write_all(&headers(&get)).await.unwrap();
    }
    for _ in FIRST_REQUESTS..40 {
        open.push(timeout(PATIENCE, raw.quic.open_bi()).await.unwrap().unwrap());
    }
    assert!(raw.quic.open_bi().now_or_never().is_none());
}
