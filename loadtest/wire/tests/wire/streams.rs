//! WebSockets and server-sent events.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use loadtest_wire::{Connection, Event, Events, Message, Protocol, Request, WebSocket};
use tokio::{io::AsyncWriteExt, time::Instant};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use crate::server::{PATIENCE, echo_plain, listen, plain, read_head};

async fn echo_messages() -> SocketAddr {
    listen(|stream| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.to_text().is_ok_and(|text| text == "vanish") {
                return;
            }
            if message.is_text() || message.is_binary() {
                let _ = socket.send(message).await;
            }
        }
    })
    .await
}

async fn open(address: SocketAddr, within: Duration) -> WebSocket {
    let mut headers = HeaderMap::new();
    headers.insert("x-a", HeaderValue::from_static("b"));
    let deadline = Instant::now() + within;
    let opened = WebSocket::open(&plain(address), "/ws?x=1", &headers, deadline).await;
    let (socket, times) = opened.unwrap_or_else(|error| panic!("{}", error.in_full()));
    assert!(times.connect.is_some());
    socket
}

#[tokio::test]
async fn messages_come_back_and_the_farewell_too() {
    let mut socket = open(echo_messages().await, PATIENCE).await;
    for message in [Message::Text("hello".to_owned()), Message::Binary(vec![0; 100_000].into())] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap(), Some(message));
    }
    socket.close().await.unwrap();
}

#[tokio::test]
async fn a_server_that_vanishes_or_is_silent_is_told() {
    let address = echo_messages().await;
    let mut socket = open(address, PATIENCE).await;
    socket.send(Message::Text("vanish".to_owned())).await.unwrap();
    let kind = socket.next().await.unwrap_err().kind();
    assert!(["closed", "reset"].contains(&kind), "{kind}");
    let mut socket = open(address, Duration::from_secs(3)).await;
    assert!(socket.next().await.unwrap_err().is_deadline());
}

#[tokio::test]
async fn a_server_without_websockets_says_its_status() {
    let address = echo_plain(false).await;
    let deadline = Instant::now() + PATIENCE;
    let opened = WebSocket::open(&plain(address), "/", &HeaderMap::new(), deadline).await;
    let error = opened.map(drop).unwrap_err();
    assert_eq!(error.kind(), "no_websocket");
    assert!(error.to_string().contains("200"), "{error}");
}

/// HTTP/2 in the clear, with WebSockets on `/ws`, if it says so.
async fn echo_on_streams(says_so: bool) -> SocketAddr {
    listen(move |stream| async move {
        let mut server = http2::Builder::new(TokioExecutor::new());
        if says_so {
            server.enable_connect_protocol();
        }
        let service = service_fn(|mut request: http::Request<Incoming>| async move {
            let protocol = request.extensions().get::<hyper::ext::Protocol>().cloned();
            let mut response = Response::new(Full::<Bytes>::default());
            if request.uri().path() != "/ws" || request.headers()["sec-websocket-version"] != "13" {
                *response.status_mut() = StatusCode::NOT_FOUND;
            } else if protocol.is_some_and(|name| name.as_str() == "websocket") {
                tokio::spawn(async move {
                    let io = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
                    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
                    while let Some(Ok(message)) = socket.next().await {
                        let _ = socket.send(message).await; // the farewell is answered already
                    }
                });
            }
            Ok::<_, Infallible>(response)
        });
        let _ = server.serve_connection(TokioIo::new(stream), service).await; // for the client to tell
    })
    .await
}

async fn open_h2(address: SocketAddr) -> Connection {
    let opened = Connection::open_within(&plain(address), Protocol::H2, PATIENCE).await;
    opened.unwrap().connection
}

#[tokio::test]
async fn many_websockets_share_a_connection() {
    let mut connection = open_h2(echo_on_streams(true).await).await;
    let (headers, deadline) = (HeaderMap::new(), Instant::now() + PATIENCE);
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let opened = WebSocket::open_on(&mut connection, "/ws", &headers, deadline).await;
        sockets.push(opened.unwrap_or_else(|error| panic!("{}", error.in_full())));
    }
    for (index, socket) in sockets.iter_mut().enumerate() {
        let large = Message::Binary(vec![0; 200_000].into());
        for message in [Message::Text(index.to_string()), large] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap(), Some(message));
        }
    }
    for socket in sockets {
        socket.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_can_have_no_websocket_says_why() {
    let headers = HeaderMap::new();
    let soon = || Instant::now() + Duration::from_millis(500);
    let mut connection = open_h2(echo_on_streams(true).await).await;
    let deadline = Instant::now() + PATIENCE;
    let refused = WebSocket::open_on(&mut connection, "/other", &headers, deadline).await;
    let refused = refused.unwrap_err();
    assert!(refused.kind() == "no_websocket" && refused.to_string().contains("404"), "{refused}");
    let mut without = open_h2(echo_on_streams(false).await).await;
    let late = WebSocket::open_on(&mut without, "/ws", &headers, soon()).await.unwrap_err();
    assert!(late.is_deadline(), "{late}");
    let address = echo_plain(false).await;
    let opened = Connection::open_within(&plain(address), Protocol::H1, PATIENCE).await.unwrap();
    let mut older = opened.connection;
    let wrong = WebSocket::open_on(&mut older, "/ws", &headers, soon()).await.unwrap_err();
    assert!(wrong.in_full().contains("not of HTTP/2"), "{}", wrong.in_full());
}

#[tokio::test]
async fn events_come_one_by_one() {
    let address = listen(|mut stream| async move {
        read_head(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        for piece in ["id: 1\nda", "ta: one\n", "\n", "event: end\ndata: two\n\ndata: cut off\n"] {
            let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
            stream.write_all(chunk.as_bytes()).await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    })
    .await;
    let opened = Connection::open_within(&plain(address), Protocol::H1, PATIENCE).await.unwrap();
    let mut connection = opened.connection;
    let incoming = connection.start(&Request::get("/").within(PATIENCE)).await.unwrap();
    let mut events = Events::new(incoming);
    assert_eq!(events.answer().status, 200);
    let mut come = Vec::new();
    while let Some(Event { id, event, data }) = events.next().await.unwrap() {
        come.push(format!("{id} {event} {data}"));
    }
    assert_eq!(come, ["1 message one", "1 end two"]);
}
