//! WebSockets and server-sent events.

use std::{net::SocketAddr, time::Duration};

use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue};
use loadtest_wire::{Connection, Event, Events, Message, Protocol, Request, WebSocket};
use tokio::{io::AsyncWriteExt, time::Instant};

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
