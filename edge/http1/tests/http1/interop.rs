//! Our server with hyper's client, and our client with hyper's server.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::convert::Infallible;

use bytes::Bytes;
use edge_http1::client::Connection;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::{
    client::{request, send},
    support::{PATIENCE, Server, TestBody, channel, data, empty, full, ok, through},
};

async fn hypers(
    server: &Server,
) -> (hyper::client::conn::http1::SendRequest<TestBody>, JoinSet<()>) {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let io = TokioIo::new(stream);
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.with_upgrades().await) });
    (sender, tasks)
}

#[tokio::test]
async fn hypers_client_understands_our_server() {
    let server = Server::start(|request| {
        Box::pin(async move {
            let mut response = if request.uri().path() == "/echo" {
                ok(through(request.into_body()))
            } else {
                ok(full("plain"))
            };
            response.headers_mut().insert("x-mine", "1".parse().unwrap());
            response
        })
    })
    .await;
    let (mut client, _tasks) = hypers(&server).await;
    for _ in 0..3 {
        let plain = request(Method::GET, empty());
        let response = client.send_request(plain).await.unwrap();
        assert_eq!(
            (response.status(), &response.headers()["x-mine"]),
            (StatusCode::OK, &"1".parse().unwrap())
        );
        assert_eq!(response.collect().await.unwrap().to_bytes(), "plain");
        client.ready().await.unwrap();
    }
    let (sender, body) = channel();
    let mut echo = request(Method::POST, body);
    *echo.uri_mut() = "/echo".parse().unwrap();
    sender.send(data(vec![b'x'; 1 << 20])).await.unwrap();
    sender.send(data("end")).await.unwrap();
    drop(sender);
    let response = timeout(PATIENCE, client.send_request(echo)).await.unwrap().unwrap();
    let body = timeout(PATIENCE, response.collect()).await.unwrap().unwrap().to_bytes();
    assert_eq!(body.len(), (1 << 20) + 3);
}

#[tokio::test]
async fn hypers_client_upgrades_on_our_server() {
    let server = Server::start(|request| {
        Box::pin(async move {
            let mut response = Response::new(through(request.into_body()));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
        })
    })
    .await;
    let (mut client, _tasks) = hypers(&server).await;
    let mut asking = request(Method::GET, empty());
    asking.headers_mut().insert("connection", "upgrade".parse().unwrap());
    asking.headers_mut().insert("upgrade", "echo".parse().unwrap());
    let response = client.send_request(asking).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = timeout(PATIENCE, hyper::upgrade::on(response)).await.unwrap().unwrap();
    let mut tunnel = TokioIo::new(upgraded);
    tokio::io::AsyncWriteExt::write_all(&mut tunnel, b"through").await.unwrap();
    let mut back = [0; 7];
    tokio::io::AsyncReadExt::read_exact(&mut tunnel, &mut back).await.unwrap();
    assert_eq!(&back, b"through");
}

/// hyper's server; it answers with what it was sent and how much of it.
async fn hypers_server() -> (std::net::SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async {
            let (parts, body) = request.into_parts();
            if parts.uri.path() == "/echo" {
                return Ok::<_, Infallible>(Response::new(body.boxed_unsync()));
            }
            let size = body.collect().await.unwrap().to_bytes().len();
            let said = Bytes::from(format!("{} {} {size}", parts.method, parts.uri));
            let body = Full::new(said).map_err(|never| match never {}).boxed_unsync();
            Ok(Response::new(body))
        });
        let builder = hyper::server::conn::http1::Builder::new();
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    });
    (address, tasks)
}

#[tokio::test]
async fn our_client_understands_hypers_server() {
    let (address, _tasks) = hypers_server().await;
    let mut connection = Connection::from_tcp(TcpStream::connect(address).await.unwrap());
    for (asked, said) in [
        (request(Method::GET, empty()), "GET /a?b 0"),
        (request(Method::PUT, full("hello")), "PUT /a?b 5"),
        (request(Method::POST, full(vec![b'x'; 3 << 20])), "POST /a?b 3145728"),
        (request(Method::DELETE, empty()), "DELETE /a?b 0"),
    ] {
        let mut answer = send(connection, asked).await.unwrap().into_body();
        let mut all = Vec::new();
        while let Some(frame) = timeout(PATIENCE, answer.frame()).await.unwrap() {
            all.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
        assert_eq!(all, said.as_bytes());
        connection = answer.take_connection().unwrap();
    }
    let (sender, body) = channel();
    let mut echo = request(Method::POST, body);
    *echo.uri_mut() = "/echo".parse().unwrap();
    let mut answer = send(connection, echo).await.unwrap().into_body();
    for word in ["one", "two"] {
        sender.send(data(word)).await.unwrap();
        let frame = timeout(PATIENCE, answer.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
    }
    sender.send(Ok(Frame::trailers(HeaderMap::new()))).await.unwrap();
    drop(sender);
    while let Some(frame) = timeout(PATIENCE, answer.frame()).await.unwrap() {
        frame.unwrap();
    }
    assert!(answer.take_connection().is_some());
}
