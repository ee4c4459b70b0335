//! hyper's client, which behaves: bodies, trailers, interim answers, many streams, leaving early.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::time::Duration;

use edge_http2::Config;
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::{sync::mpsc, task::JoinSet};

use crate::support::{
    Answering, Server, channel, data, empty, full, ok, report, request, soon, through,
};

#[tokio::test]
async fn requests_of_every_kind_are_answered() {
    let mut server = Server::start(report).await;
    let mut client = server.client().await;
    for (method, body, said) in [
        ("GET", empty(), "GET /a 0"),
        ("POST", full("hello"), "POST /a 5"),
        ("PUT", full(vec![b'x'; 3 << 20]), "PUT /a 3145728"),
        ("DELETE", empty(), "DELETE /a 0"),
    ] {
        let response = soon(client.send_request(request(method, "/a", body))).await.unwrap();
        let length = response.headers()["content-length"].to_str().unwrap().to_owned();
        assert_eq!(length, said.len().to_string());
        assert_eq!(soon(response.collect()).await.unwrap().to_bytes(), said);
    }
    let head = soon(client.send_request(request("HEAD", "/a", empty()))).await.unwrap();
    assert_eq!(soon(head.collect()).await.unwrap().to_bytes(), "");
}

#[tokio::test]
async fn fields_of_a_connection_do_not_end_an_answer() {
    let mut server = Server::start(|_| {
        Box::pin(async {
            let mut response = ok(full("fine"));
            for name in ["connection", "keep-alive", "proxy-connection", "upgrade"] {
                response.headers_mut().insert(name, "x".parse().unwrap());
            }
            response.headers_mut().insert("transfer-encoding", "chunked".parse().unwrap());
            response.headers_mut().insert("te", "gzip".parse().unwrap());
            response
        })
    })
    .await;
    let mut client = server.client().await;
    let response = soon(client.send_request(request("GET", "/", empty()))).await.unwrap();
    assert_eq!(response.headers().len(), 1, "content-length alone: {:?}", response.headers());
    assert_eq!(soon(response.collect()).await.unwrap().to_bytes(), "fine");
}

#[tokio::test]
async fn interim_answers_come_first() {
    let server = Server::start(|request| {
        Box::pin(async move {
            let interim = request.body().interim();
            let hints = Response::builder().status(103).header("link", "a");
            interim.send(hints.header("connection", "x").body(()).unwrap()).unwrap();
            assert!(interim.send(Response::new(())).is_err(), "200 is final");
            let switching = Response::builder().status(101).body(()).unwrap();
            assert!(interim.send(switching).is_err());
            let (sender, body) = channel();
            tokio::spawn(async move {
                sender.send(data("x")).await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
                let late = Response::builder().status(103).body(()).unwrap();
                assert!(interim.send(late).is_err(), "too late");
                sender.send(data("y")).await.unwrap();
            });
            ok(body)
        })
    })
    .await;
    // hyper's client does not show them for HTTP/2, so this is the `h2` crate's.
    let (client, connection) = h2::client::handshake(server.connect().await).await.unwrap();
    let client: h2::client::SendRequest<bytes::Bytes> = client;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    let mut client = soon(client.ready()).await.unwrap();
    let asked = http::Request::get("http://host.test/").body(()).unwrap();
    let (mut answer, _) = client.send_request(asked, true).unwrap();
    let interim = soon(std::future::poll_fn(|cx| answer.poll_informational(cx))).await;
    let interim = interim.unwrap().unwrap();
    assert_eq!(
        (interim.status().as_u16(), &interim.headers()["link"]),
        (103, &"a".parse().unwrap())
    );
    assert!(!interim.headers().contains_key("connection"));
    let mut body = soon(answer).await.unwrap().into_body();
    let mut all = Vec::new();
    while let Some(piece) = soon(body.data()).await {
        all.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(all, b"xy");
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let mut server =
        Server::start(|request| Box::pin(async move { ok(through(request.into_body())) })).await;
    let mut client = server.client().await;
    let (sender, body) = channel();
    let response = soon(client.send_request(request("POST", "/", body))).await.unwrap();
    sender.send(data("hello")).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    sender.send(Ok(Frame::trailers(trailers.clone()))).await.unwrap();
    let all = soon(response.collect()).await.unwrap();
    assert_eq!(all.trailers(), Some(&trailers));
    assert_eq!(all.to_bytes(), "hello");
}

#[tokio::test]
async fn large_bodies_go_both_ways_with_slow_readers() {
    let mut server = Server::start(|request| {
        Box::pin(async move {
            let mut body = request.into_body();
            let (sender, answer) = channel();
            tokio::spawn(async move {
                while let Some(frame) = body.frame().await {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    sender.send(Ok(frame.unwrap())).await.unwrap();
                }
            });
            ok(answer)
        })
    })
    .await;
    let mut client = server.client().await;
    let asked = request("POST", "/", full(vec![b'x'; 4 << 20]));
    let mut body = soon(client.send_request(asked)).await.unwrap().into_body();
    let mut size = 0;
    while let Some(frame) = soon(body.frame()).await {
        size += frame.unwrap().data_ref().map_or(0, bytes::Bytes::len);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(size, 4 << 20);
}

#[tokio::test]
async fn a_body_that_nobody_reads_holds_no_more_than_its_window() {
    let (stop, mut stopped) = mpsc::channel::<()>(1);
    let (hold, mut held) = mpsc::channel(1);
    let mut server = Server::start(move |request| {
        let hold = hold.clone();
        Box::pin(async move {
            hold.send(request.into_body()).await.unwrap();
            std::future::pending().await
        })
    })
    .await;
    let mut client = server.client().await;
    let (sender, body) = channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(client.send_request(request("POST", "/", body)).await) });
    let unread = soon(held.recv()).await.unwrap();
    let mut sent = 0;
    while let Ok(Ok(())) =
        tokio::time::timeout(Duration::from_millis(300), sender.send(data(vec![0; 64 * 1024])))
            .await
    {
        sent += 64 * 1024;
        assert!(sent < 16 << 20, "{sent}");
    }
    drop((unread, stop));
    assert!(stopped.recv().await.is_none());
}

#[tokio::test]
async fn many_streams_are_served_at_once() {
    let mut server = Server::start(report).await;
    let client = server.client().await;
    let mut tasks = JoinSet::new();
    for number in 0..500 {
        let mut client = client.clone();
        tasks.spawn(async move {
            let body = full(vec![b'x'; number]);
            let response = client.send_request(request("POST", "/n", body)).await.unwrap();
            assert_eq!(response.collect().await.unwrap().to_bytes(), format!("POST /n {number}"));
        });
    }
    while let Some(done) = soon(tasks.join_next()).await {
        done.unwrap();
    }
}

/// What is written makes room for more to be read: the client's windows are in it.
#[tokio::test]
async fn large_answers_side_by_side_never_wait_for_each_other() {
    const LARGE: usize = 4 << 20;
    let service = |_| -> Answering { Box::pin(async { ok(full(vec![7; LARGE])) }) };
    let mut server = Server::start(service).await;
    for streams in [2, 3, 8] {
        let client = server.client().await;
        let mut downloads = JoinSet::new();
        for _ in 0..streams {
            let mut client = client.clone();
            downloads.spawn(async move {
                for _ in 0..20 {
                    let response = client.send_request(request("GET", "/", empty())).await.unwrap();
                    let body = response.into_body().collect().await.unwrap();
                    assert_eq!(body.to_bytes().len(), LARGE);
                }
            });
        }
        while let Some(done) = soon(downloads.join_next()).await {
            done.unwrap();
        }
    }
}

/// Tells when it is dropped.
struct Told(mpsc::Sender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.try_send(()); // somebody else was faster
    }
}

#[tokio::test]
async fn a_client_that_gives_a_stream_up_takes_its_service_with_it() {
    let (tell, mut told) = mpsc::channel(1);
    let mut server = Server::start(move |request| {
        let guard = Told(tell.clone());
        Box::pin(async move {
            if request.uri().path() == "/other" {
                return ok(full("alive"));
            }
            let _guard = guard;
            std::future::pending().await
        })
    })
    .await;
    let mut client = server.client().await;
    let waiting = client.send_request(request("GET", "/", empty()));
    assert!(tokio::time::timeout(Duration::from_millis(100), waiting).await.is_err());
    soon(told.recv()).await.unwrap();
    let other = soon(client.send_request(request("GET", "/other", empty()))).await.unwrap();
    assert_eq!(soon(other.collect()).await.unwrap().to_bytes(), "alive");
}

#[tokio::test]
async fn a_client_that_gives_an_answer_up_takes_its_body_with_it() {
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
    let mut client = server.client().await;
    let response = soon(client.send_request(request("GET", "/", empty()))).await.unwrap();
    let sender = started.recv().await.unwrap();
    drop(response);
    soon(sender.closed()).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_reset_and_no_other() {
    let mut server = Server::start(|request| {
        Box::pin(async move {
            if request.uri().path() == "/other" {
                return ok(full("alive"));
            }
            let (sender, body) = channel();
            tokio::spawn(async move {
                sender.send(data("some")).await.unwrap();
                sender.send(Err("the guest died".into())).await.unwrap();
            });
            ok(body)
        })
    })
    .await;
    let mut client = server.client().await;
    let response = soon(client.send_request(request("GET", "/", empty()))).await.unwrap();
    assert!(soon(response.collect()).await.is_err());
    let other = soon(client.send_request(request("GET", "/other", empty()))).await.unwrap();
    assert_eq!(soon(other.collect()).await.unwrap().to_bytes(), "alive");
}

#[tokio::test]
async fn an_answer_may_come_without_the_body_being_read() {
    let mut server = Server::start(|_| {
        Box::pin(async {
            let mut response = ok(full("too much"));
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            response
        })
    })
    .await;
    let mut client = server.client().await;
    for _ in 0..20 {
        let asked = request("POST", "/", full(vec![b'x'; 2 << 20]));
        let response = soon(client.send_request(asked)).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(soon(response.collect()).await.unwrap().to_bytes(), "too much");
    }
}

#[tokio::test]
async fn a_drain_lets_streams_end() {
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
    let mut client = server.client().await;
    let response = soon(client.send_request(request("GET", "/", empty()))).await.unwrap();
    let sender = started.recv().await.unwrap();
    server.drain.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    sender.send(data("to the end")).await.unwrap();
    drop(sender);
    assert_eq!(soon(response.collect()).await.unwrap().to_bytes(), "to the end");
    assert_eq!(server.ended().await.unwrap().requests, 1);
}

#[tokio::test]
async fn silence_ends_a_connection_and_a_slow_body_its_request() {
    let config = Config {
        idle_timeout: Duration::from_millis(400),
        body_timeout: Duration::from_millis(200),
        ..Config::default()
    };
    let mut server = Server::with(config, report).await;
    let mut client = server.client().await;
    let (_sender, body) = channel();
    let response = soon(client.send_request(request("POST", "/", body))).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    drop(response);
    server.ended().await.unwrap();
    assert_eq!(server.counters.idle.load(std::sync::atomic::Ordering::Relaxed), 1);
}
