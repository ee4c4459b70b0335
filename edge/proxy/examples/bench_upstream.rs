//! How fast could it be: a server of HTTP/1.1 that does next to nothing, the upstream of `loadtest/edge`?
//!
//! ```text
//! bench_upstream 127.0.0.1:9000
//! ```
//!
//! `/` is answered with 1 KiB, `/10m` with 10 MiB, after the request's body if it has one of a known
//! length; `/ws` is a WebSocket that says what it hears. Requests come one at a time.
#![allow(clippy::unwrap_used, reason = "a program for measurements: what fails ends it")]

use std::sync::Arc;

use futures::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

const LARGE_BYTES: usize = 10 << 20;
/// More than any request's head here has.
const BUFFER_BYTES: usize = 64 << 10;

struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
}

fn answer(bytes: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {bytes}\r\n\r\n"
    );
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + bytes, b'x');
    answer
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let address = std::env::args().nth(1).expect("usage: bench_upstream HOST:PORT");
    let listener = TcpListener::bind(&address).await.unwrap();
    let answers = Arc::new(Answers { small: answer(1024), large: answer(LARGE_BYTES) });
    println!("listening");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            let _ = serve(stream, &answers).await; // a proxy may go away at any time
        });
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// The end of a WebSocket's handshake (RFC 6455 4.2.2).
fn switched(head: &str) -> String {
    let accept = derive_accept_key(field(head, "sec-websocket-key").unwrap_or("").as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-accept: {accept}\r\n\r\n"
    )
}

async fn serve(mut stream: TcpStream, answers: &Answers) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        let count = stream.read(&mut buffer[filled..]).await?;
        filled += count;
        if count == 0 {
            return Ok(());
        }
        // Without a body the head's end is that of what has come: the usual case is cheap.
        let end = match &buffer[..filled] {
            read if read.ends_with(b"\r\n\r\n") => filled,
            read => match read.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(place) => place + 4,
                None if filled == BUFFER_BYTES => return Ok(()),
                None => continue,
            },
        };
        let head = &buffer[..end];
        let path = head.split(|byte| *byte == b' ').nth(1);
        if path == Some(b"/ws") {
            let answer = switched(&String::from_utf8_lossy(head));
            stream.write_all(answer.as_bytes()).await?;
            return echo(stream).await;
        }
        let answer = if path == Some(b"/10m") { &answers.large } else { &answers.small };
        if !head.starts_with(b"GET ") {
            let length = field(&String::from_utf8_lossy(head), "content-length")
                .map_or(0, |length| length.parse().unwrap());
            let mut rest: usize = length - (filled - end);
            while rest > 0 {
                let most = rest.min(BUFFER_BYTES);
                match stream.read(&mut buffer[..most]).await? {
                    0 => return Ok(()),
                    count => rest -= count,
                }
            }
        }
        stream.write_all(answer).await?;
        filled = 0;
    }
}

async fn echo(stream: TcpStream) -> std::io::Result<()> {
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_binary() && socket.send(message).await.is_err() {
            break;
        }
    }
    Ok(())
}
