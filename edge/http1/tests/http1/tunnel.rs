//! A `101` makes two directions of a connection that know nothing of each other.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::time::Duration;

use edge_http1::server::{RecvBody, ServeError};
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use tokio::{io::AsyncWriteExt as _, sync::mpsc, time::timeout};

use crate::support::{
    Answering, PATIENCE, Raw, Server, TestBody, channel, data, full, ok, report, through,
};

const UPGRADE: &str =
    "GET / HTTP/1.1\r\nhost: h\r\nconnection: keep-alive, Upgrade\r\nupgrade: echo\r\n\r\n";

fn switching(body: TestBody) -> Response<TestBody> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::UPGRADE, "echo".parse().unwrap());
    response
}

fn echo(request: Request<RecvBody>) -> Answering {
    Box::pin(async move { switching(through(request.into_body())) })
}

async fn opened(server: &Server) -> Raw {
    let mut client = server.connect().await;
    client.send(UPGRADE).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    assert!(head.contains("upgrade: echo\r\n") && !head.contains("content-length"), "{head}");
    client
}

#[tokio::test]
async fn bytes_go_through_as_they_are() {
    let mut server = Server::start(echo).await;
    let mut client = opened(&server).await;
    for word in ["GET / HTTP/1.1\r\n\r\n", "0\r\n\r\n", "\0\x01"] {
        client.send(word).await;
        assert_eq!(client.exactly(word.len()).await, word.as_bytes());
    }
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"");
    assert_eq!(server.ended().await.unwrap().requests, 1);
}

#[tokio::test]
async fn bytes_behind_the_head_are_the_tunnels() {
    let server = Server::start(echo).await;
    let mut client = server.connect().await;
    client.send(format!("{UPGRADE}early")).await;
    client.head().await;
    assert_eq!(client.exactly(5).await, b"early");
}

#[tokio::test]
async fn both_directions_may_be_heavy_without_a_deadlock() {
    // The service writes without looking at what comes, as the client does.
    let (report, mut reports) = mpsc::channel(1);
    let server = Server::start(move |request| {
        let report = report.clone();
        Box::pin(async move {
            let (sender, body) = channel();
            let upload = request.into_body();
            tokio::spawn(async move {
                for _ in 0..512 {
                    sender.send(data(vec![b'd'; 32 * 1024])).await.unwrap();
                }
            });
            tokio::spawn(async move {
                let all = upload.collect().await.unwrap().to_bytes();
                report.send(all.len()).await.unwrap();
            });
            switching(body)
        })
    })
    .await;
    let client = opened(&server).await;
    let Raw { stream, buf } = client;
    let (read, mut write) = stream.into_split();
    let writing = tokio::spawn(async move {
        for _ in 0..512 {
            write.write_all(&[b'u'; 32 * 1024]).await.unwrap();
        }
        write.shutdown().await.unwrap();
    });
    timeout(PATIENCE, writing).await.unwrap().unwrap();
    assert_eq!(timeout(PATIENCE, reports.recv()).await.unwrap(), Some(16 << 20));
    let mut all = buf;
    let mut read = read;
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut all);
    timeout(PATIENCE, reading).await.unwrap().unwrap();
    assert_eq!(all.len(), 16 << 20);
}

#[tokio::test]
async fn the_server_goes_on_after_the_clients_half_close() {
    let server = Server::start(|request| {
        Box::pin(async move {
            let (sender, body) = channel();
            let upload = request.into_body();
            tokio::spawn(async move {
                let all = upload.collect().await.unwrap().to_bytes();
                tokio::time::sleep(Duration::from_millis(100)).await;
                sender.send(data(format!("got {}", all.len()))).await.unwrap();
            });
            switching(body)
        })
    })
    .await;
    let mut client = opened(&server).await;
    client.send("hello").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"got 5");
}

#[tokio::test]
async fn the_client_goes_on_after_the_servers_half_close() {
    let (report, mut reports) = mpsc::channel(1);
    let mut server = Server::start(move |request| {
        let report = report.clone();
        Box::pin(async move {
            let upload = request.into_body();
            tokio::spawn(async move {
                let all = upload.collect().await.unwrap().to_bytes();
                report.send(all).await.unwrap();
            });
            switching(full("bye"))
        })
    })
    .await;
    let mut client = opened(&server).await;
    assert_eq!(client.rest().await, b"bye");
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.send("still ").await;
    client.send("here").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(timeout(PATIENCE, reports.recv()).await.unwrap().unwrap(), "still here");
    assert_eq!(server.ended().await.unwrap().requests, 1);
}

#[tokio::test]
async fn a_refused_upgrade_leaves_a_plain_connection() {
    let server = Server::start(report).await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        // The body of a request whose upgrade is refused would end; nobody waits for it here.
        let mut refused = server.connect().await;
        refused.send("GET /x HTTP/1.1\r\nhost: h\r\nupgrade: echo\r\n\r\n").await;
        assert_eq!(refused.answer().await.text(), "GET /x []", "no `Connection: upgrade`");
    }
    let refusing = Server::start(|_| {
        Box::pin(async {
            let mut response = ok(full("no"));
            *response.status_mut() = StatusCode::FORBIDDEN;
            response
        })
    })
    .await;
    assert_eq!(client.get("/").await.status, 200);
    let mut client = refusing.connect().await;
    for _ in 0..3 {
        client.send(UPGRADE).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (403, None));
        assert_eq!(client.get("/").await.status, 403);
    }
}

#[tokio::test]
async fn the_body_of_a_refused_upgrade_ends() {
    let (report, mut reports) = mpsc::channel(1);
    let server = Server::start(move |request| {
        let report = report.clone();
        Box::pin(async move {
            let upload = request.into_body();
            tokio::spawn(async move {
                let all = upload.collect().await.unwrap().to_bytes();
                report.send(all.len()).await.unwrap();
            });
            ok(full("plain"))
        })
    })
    .await;
    let mut client = server.connect().await;
    client.send(UPGRADE).await;
    assert_eq!(client.answer().await.text(), "plain");
    assert_eq!(timeout(PATIENCE, reports.recv()).await.unwrap(), Some(0));
    assert_eq!(client.get("/").await.text(), "plain");
}

#[tokio::test]
async fn a_request_with_a_body_is_no_upgrade() {
    let mut server = Server::start(echo).await;
    let mut client = server.connect().await;
    let request = UPGRADE.replace("\r\n\r\n", "\r\ncontent-length: 4\r\n\r\nbody");
    client.send(request).await;
    assert_eq!(client.rest().await, b"", "a 101 would be an answer to nothing");
    assert!(matches!(server.ended().await, Err(ServeError::Answer(_))));
}
