//! Extended CONNECT (RFC 8441): a stream as a tunnel, with the `h2` crate's client.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use bytes::Bytes;
use edge_http2::Protocol;
use h2::{RecvStream, SendStream, client::SendRequest, ext};
use http::{Method, Request, StatusCode, Version};
use http_body_util::BodyExt as _;
use tokio::{sync::mpsc, task::JoinSet};

use crate::support::{Server, channel, data, empty, full, ok, soon, through};

async fn client(server: &Server) -> (SendRequest<Bytes>, JoinSet<()>) {
    let (client, connection) = h2::client::handshake(server.connect().await).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    let mut client = soon(client.ready()).await.unwrap();
    // The server's settings say whether it may be asked.
    while !client.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
        client = soon(client.ready()).await.unwrap();
    }
    (client, tasks)
}

async fn open(client: &mut SendRequest<Bytes>) -> (StatusCode, SendStream<Bytes>, RecvStream) {
    let request = Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .uri("http://host.test/chat")
        .extension(ext::Protocol::from_static("websocket"))
        .body(())
        .unwrap();
    let (answer, send) = client.send_request(request, false).unwrap();
    let answer = soon(answer).await.unwrap();
    (answer.status(), send, answer.into_body())
}

/// Reads to the end.
async fn rest(receive: &mut RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = soon(receive.data()).await {
        let piece = piece.unwrap();
        receive.flow_control().release_capacity(piece.len()).unwrap();
        all.extend_from_slice(&piece);
    }
    all
}

#[tokio::test]
async fn a_tunnel_carries_both_directions_and_its_protocol_is_seen() {
    let server = Server::start(|request| {
        Box::pin(async move {
            assert_eq!(request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
            assert_eq!((request.method(), request.uri().path()), (&Method::CONNECT, "/chat"));
            ok(through(request.into_body()))
        })
    })
    .await;
    let (mut client, _tasks) = client(&server).await;
    let (status, mut send, mut receive) = open(&mut client).await;
    assert_eq!(status, StatusCode::OK);
    for word in ["one", "two", "three"] {
        send.send_data(word.into(), false).unwrap();
        let piece = soon(receive.data()).await.unwrap().unwrap();
        assert_eq!(piece, word);
        receive.flow_control().release_capacity(piece.len()).unwrap();
    }
    send.send_data(Bytes::new(), true).unwrap();
    assert_eq!(rest(&mut receive).await, b"");
}

#[tokio::test]
async fn each_direction_of_a_tunnel_may_end_first() {
    let (report, mut reports) = mpsc::channel(1);
    let server = Server::start(move |request| {
        let report = report.clone();
        Box::pin(async move {
            let (sender, body) = channel();
            let upload = request.into_body();
            tokio::spawn(async move {
                sender.send(data("bye")).await.unwrap();
                drop(sender);
                let all = upload.collect().await.unwrap().to_bytes();
                report.send(all).await.unwrap();
            });
            ok(body)
        })
    })
    .await;
    let (mut client, _tasks) = client(&server).await;
    let (_, mut send, mut receive) = open(&mut client).await;
    assert_eq!(rest(&mut receive).await, b"bye");
    send.send_data("still ".into(), false).unwrap();
    send.send_data("here".into(), true).unwrap();
    assert_eq!(soon(reports.recv()).await.unwrap(), "still here");
}

#[tokio::test]
async fn the_server_goes_on_after_the_clients_end() {
    let server = Server::start(|request| {
        Box::pin(async move {
            let (sender, body) = channel();
            let upload = request.into_body();
            tokio::spawn(async move {
                let all = upload.collect().await.unwrap().to_bytes();
                sender.send(data(format!("got {}", all.len()))).await.unwrap();
            });
            ok(body)
        })
    })
    .await;
    let (mut client, _tasks) = client(&server).await;
    let (_, mut send, mut receive) = open(&mut client).await;
    send.send_data("hello".into(), true).unwrap();
    assert_eq!(rest(&mut receive).await, b"got 5");
}

#[tokio::test]
async fn a_refused_tunnel_is_a_plain_answer() {
    let server = Server::start(|_| {
        Box::pin(async {
            let mut response = ok(full("no"));
            *response.status_mut() = StatusCode::FORBIDDEN;
            response
        })
    })
    .await;
    let (mut client, _tasks) = client(&server).await;
    let (status, _send, mut receive) = open(&mut client).await;
    assert_eq!((status, rest(&mut receive).await), (StatusCode::FORBIDDEN, b"no".to_vec()));
}

#[tokio::test]
async fn an_empty_answer_to_a_tunnel_still_leaves_the_clients_direction() {
    let (report, mut reports) = mpsc::channel(1);
    let server = Server::start(move |request| {
        let report = report.clone();
        Box::pin(async move {
            let upload = request.into_body();
            tokio::spawn(async move {
                let size = upload.collect().await.map(|all| all.to_bytes().len());
                report.send(size.unwrap()).await.unwrap();
            });
            ok(empty())
        })
    })
    .await;
    let (mut client, _tasks) = client(&server).await;
    let (status, mut send, mut receive) = open(&mut client).await;
    assert_eq!((status, rest(&mut receive).await), (StatusCode::OK, Vec::new()));
    send.send_data("hello".into(), true).unwrap();
    assert_eq!(soon(reports.recv()).await.unwrap(), 5);
}
