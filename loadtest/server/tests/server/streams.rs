//! Bodies of many pieces, whole and cut; events; WebSockets.

use std::{sync::Arc, time::Duration};

use futures::{SinkExt as _, StreamExt as _};
use loadtest_server::Server;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::{
    client::{ALL, Client, PATIENCE, tls},
    start,
};

fn is_pattern(body: &[u8]) -> bool {
    body.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251)
}

#[tokio::test]
async fn bytes_are_the_pattern_with_its_length() {
    let server = start().await;
    for proto in ALL {
        let mut client = Client::new(&server, proto).await;
        for bytes in [0, 1, 64_256, 64_257, 3_000_000] {
            let answer = client.get(&format!("/bytes?n={bytes}")).await;
            assert_eq!(answer.header("content-length"), bytes.to_string(), "{proto:?}");
            assert!(answer.is_whole && answer.body.len() == bytes, "{proto:?}: {bytes}");
            assert!(is_pattern(&answer.body), "{proto:?}: {bytes}");
        }
    }
}

#[tokio::test]
async fn cut_answers_end_after_what_was_asked_for() {
    let server = start().await;
    for proto in ALL {
        for (all, cut) in [(1000, 10), (500_000, 100_000)] {
            let mut client = Client::new(&server, proto).await;
            let answer = client.get(&format!("/bytes?n={all}&cut={cut}")).await;
            let got = answer.body.len();
            assert_eq!(answer.header("content-length"), all.to_string(), "{proto:?}");
            assert!(!answer.is_whole, "{proto:?}: {got} of {all} are not all");
            assert!(is_pattern(&answer.body) && got <= cut, "{proto:?}: {got} of {cut}");
            // Streams that are reset may lose what wasn't read; closed connections don't.
            assert!(got == cut || !proto.is_h1(), "{proto:?}: {got} of {cut}");
        }
    }
}

#[tokio::test]
async fn events_come_in_order_and_in_time() {
    let server = start().await;
    for proto in ALL {
        let mut client = Client::new(&server, proto).await;
        let answer = client.get("/sse?n=5&delay_ms=8").await;
        assert_eq!(answer.header("content-type"), "text/event-stream", "{proto:?}");
        assert!(answer.end_after >= Duration::from_millis(32), "{proto:?}");
        let events: Vec<&str> = answer.text().split_terminator("\n\n").collect();
        assert_eq!(events.len(), 5, "{proto:?}: {events:?}");
        for (at, event) in events.iter().enumerate() {
            let start = format!("id: {at}\nevent: tick\ndata: {{\"index\": {at}, \"time\": ");
            assert!(event.starts_with(&start), "{proto:?}: {event}");
        }
        assert_eq!(client.get("/sse?n=0").await.text(), "");
    }
}

async fn exchange_messages<S: AsyncRead + AsyncWrite + Unpin>(stream: S) {
    let (mut socket, _) = client_async("ws://localhost/ws", stream).await.expect("it agrees");
    let messages = [
        Message::text("hello"),
        Message::binary(vec![7; 300_000]),
        Message::binary(Vec::new()),
        Message::text("grüße"),
    ];
    for message in messages {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.send(Message::Ping("p".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("p".into()));
    socket.close(None).await.unwrap();
    while let Some(message) = socket.next().await {
        assert!(message.unwrap().is_close());
    }
}

async fn tcp(address: Option<std::net::SocketAddr>) -> TcpStream {
    TcpStream::connect(address.unwrap()).await.unwrap()
}

async fn secure(server: &Server) -> tokio_rustls::client::TlsStream<TcpStream> {
    let connector = TlsConnector::from(Arc::new(tls(server, b"http/1.1")));
    let tcp = tcp(server.tls_address()).await;
    connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap()
}

#[tokio::test]
async fn websockets_repeat_what_they_are_told() {
    let server = start().await;
    let all = async {
        exchange_messages(tcp(server.clear_address()).await).await;
        exchange_messages(secure(&server).await).await;
    };
    timeout(PATIENCE, all).await.expect("it ends");
    // Tasks of upgraded connections are waited for, too.
    let open = tcp(server.clear_address()).await;
    let (mut socket, _) = client_async("ws://localhost/ws", open).await.unwrap();
    server.shutdown().await;
    let end = timeout(PATIENCE, socket.next()).await.expect("it ends");
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
}
