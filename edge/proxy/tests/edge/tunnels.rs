//! WebSockets over each protocol: bytes both ways, ends by either side, refusals, silence.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    client::{quic_connect, tls_stream},
    raw,
    stack::{Stack, function},
};

const PATIENCE: Duration = Duration::from_secs(20);

enum Ends {
    H1(Box<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>),
    H2(h2::SendStream<Bytes>, h2::RecvStream, JoinHandle<()>),
    H3(quinn::SendStream, quinn::RecvStream, quinn::Endpoint),
}

/// A client's end of a tunnel.
struct Socket {
    ends: Ends,
    unread: BytesMut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    H1,
    H2,
    H3,
}

const OVER: [Over; 3] = [Over::H1, Over::H2, Over::H3];

impl Drop for Socket {
    fn drop(&mut self) {
        match &self.ends {
            Ends::H1(_) => {}
            Ends::H2(_, _, task) => task.abort(),
            Ends::H3(_, _, endpoint) => endpoint.close(0x100_u32.into(), b""),
        }
    }
}

impl Socket {
    /// Asks for a WebSocket; the status, and the tunnel if there is one.
    async fn open(stack: &Stack, over: Over, path: &str) -> (u16, Self) {
        let opening = async {
            match over {
                Over::H1 => open_h1(stack, path).await,
                Over::H2 => open_h2(stack, path).await,
                Over::H3 => open_h3(stack, path).await,
            }
        };
        let (status, ends) = timeout(PATIENCE, opening).await.expect("an answer");
        (status, Self { ends, unread: BytesMut::new() })
    }

    async fn send(&mut self, bytes: &[u8]) {
        match &mut self.ends {
            Ends::H1(stream) => stream.write_all(bytes).await.unwrap(),
            Ends::H2(send, _, _) => send.send_data(Bytes::copy_from_slice(bytes), false).unwrap(),
            Ends::H3(send, _, _) => {
                let length = u32::try_from(bytes.len()).unwrap() | 0x8000_0000;
                let frame = [&[0x00], &length.to_be_bytes()[..], bytes].concat();
                send.write_all(&frame).await.unwrap();
            }
        }
    }

    /// The client says no more.
    async fn finish(&mut self) {
        match &mut self.ends {
            Ends::H1(stream) => stream.shutdown().await.unwrap(),
            Ends::H2(send, _, _) => send.send_data(Bytes::new(), true).unwrap(),
            Ends::H3(send, _, _) => send.finish().unwrap(),
        }
    }

    /// The next bytes; none if the guest says no more, or the tunnel broke.
    async fn receive(&mut self) -> Option<Bytes> {
        match &mut self.ends {
            Ends::H1(stream) => {
                let mut buffer = vec![0; 64 * 1024];
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                (read > 0).then(|| Bytes::copy_from_slice(&buffer[..read]))
            }
            Ends::H2(_, recv, _) => {
                let data = recv.data().await?.ok()?;
                let _ = recv.flow_control().release_capacity(data.len());
                Some(data)
            }
            Ends::H3(_, recv, _) => loop {
                if let Some((kind, payload)) = raw::h3_frame(&mut self.unread) {
                    if kind == 0 && !payload.is_empty() {
                        return Some(payload);
                    }
                    continue;
                }
                let chunk = recv.read_chunk(64 * 1024, true).await.ok()??;
                self.unread.extend_from_slice(&chunk.bytes);
            },
        }
    }

    async fn expect(&mut self, expected: &[u8]) {
        let mut got = Vec::new();
        while got.len() < expected.len() {
            let more = timeout(PATIENCE, self.receive()).await.expect("no hang");
            got.extend_from_slice(&more.expect("the tunnel is open"));
        }
        assert!(got == expected, "{} bytes came", got.len());
    }

    async fn ends(&mut self) {
        let ending = async { while self.receive().await.is_some() {} };
        timeout(PATIENCE, ending).await.expect("the tunnel ends");
    }
}

async fn open_h1(stack: &Stack, path: &str) -> (u16, Ends) {
    let mut stream = tls_stream(stack, b"http/1.1").await;
    let host = function("hello");
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
    (status, Ends::H1(Box::new(stream)))
}

async fn open_h2(stack: &Stack, path: &str) -> (u16, Ends) {
    let stream = tls_stream(stack, b"h2").await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let task = tokio::spawn(async move { drop(connection.await) });
    let mut sender = sender.ready().await.unwrap();
    while !sender.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(Duration::from_millis(5)).await; // its settings are under way
    }
    let request = http::Request::builder()
        .method("CONNECT")
        .uri(format!("https://{}{path}", function("hello")))
        .extension(h2::ext::Protocol::from_static("websocket"))
        .body(())
        .unwrap();
    let (response, send) = sender.send_request(request, false).unwrap();
    let response = response.await.unwrap();
    (response.status().as_u16(), Ends::H2(send, response.into_body(), task))
}

async fn open_h3(stack: &Stack, path: &str) -> (u16, Ends) {
    let (endpoint, connection) = quic_connect(stack).await;
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&[0x00, 0x04, 0x00]).await.unwrap(); // control stream, empty SETTINGS
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&raw::h3_connect(&function("hello"), path)).await.unwrap();
    let mut unread = BytesMut::new();
    let (kind, head) = loop {
        if let Some(frame) = raw::h3_frame(&mut unread) {
            break frame;
        }
        let chunk = recv.read_chunk(1024, true).await.unwrap().expect("an answer");
        unread.extend_from_slice(&chunk.bytes);
    };
    assert_eq!(kind, 1, "HEADERS come first");
    // `:status 200` is number 25 of QPACK's static table (RFC 9204 appendix A); 404 is 27.
    let status = match head[2] {
        0xd9 => 200,
        0xdb => 404,
        other => panic!("status {other:#x}"),
    };
    std::mem::forget(control); // a control stream that ends is a connection error
    (status, Ends::H3(send, recv, endpoint))
}

fn accepted(over: Over) -> u16 {
    if over == Over::H1 { 101 } else { 200 }
}

#[tokio::test]
async fn bytes_go_both_ways_until_the_client_ends() {
    let stack = Stack::start().await;
    for over in OVER {
        let (status, mut socket) = Socket::open(&stack, over, "/ws").await;
        assert_eq!(status, accepted(over), "{over:?}");
        for text in ["first", "second", "third"] {
            socket.send(text.as_bytes()).await;
            socket.expect(text.as_bytes()).await;
        }
        socket.finish().await;
        socket.ends().await;
    }
}

#[tokio::test]
async fn a_guest_may_end_first() {
    let stack = Stack::start().await;
    for over in OVER {
        let (_, mut socket) = Socket::open(&stack, over, "/ws").await;
        socket.send(b"bye").await; // the guest echoes that and ends
        socket.expect(b"bye").await;
        socket.ends().await;
    }
}

#[tokio::test]
async fn what_comes_after_the_clients_end_still_arrives() {
    let stack = Stack::start().await;
    for over in OVER {
        let (_, mut socket) = Socket::open(&stack, over, "/ws").await;
        let block = vec![b'x'; 60_000];
        socket.send(&block).await;
        socket.finish().await;
        if over == Over::H1 {
            continue; // TLS ends both ways at once for this client's peer
        }
        socket.expect(&block).await;
        socket.ends().await;
    }
}

#[tokio::test]
async fn a_refused_upgrade_is_an_answer() {
    let stack = Stack::start().await;
    for over in OVER {
        let (status, _socket) = Socket::open(&stack, over, "/nothing-there").await;
        assert_eq!(status, 404, "{over:?}");
    }
}

#[tokio::test]
async fn a_silent_tunnel_is_cut() {
    let idle = Duration::from_millis(400);
    let stack = Stack::with(|limits| limits.tunnel_idle_timeout = idle).await;
    for over in OVER {
        let (status, mut socket) = Socket::open(&stack, over, "/ws").await;
        assert_eq!(status, accepted(over), "{over:?}");
        socket.send(b"x").await;
        socket.expect(b"x").await;
        let started = std::time::Instant::now();
        socket.ends().await;
        assert!(started.elapsed() >= idle / 2, "{over:?} was cut too early");
    }
}
