//! How fast could it be: a server of HTTP/1.1 that does next to nothing, the upstream of `loadtest/edge`?
//!
//! ```text
//! bench_upstream 127.0.0.1:9000
//! ```
//!
//! `GET /` is answered with 1 KiB, `GET /10m` with 10 MiB, a WebSocket's handshake with 101, after
//! which the connection is only held. Requests have no body, and come one at a time.
#![allow(clippy::unwrap_used, reason = "a program for measurements: what fails ends it")]

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const LARGE_BYTES: usize = 10 << 20;
/// More than any request here has.
const HEAD_BYTES: usize = 16 << 10;

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

/// The end of a WebSocket's handshake (RFC 6455 4.2.2).
fn switched(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let key = fields.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let accept = derive_accept_key(key.map_or("", |(_, key)| key).as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-accept: {accept}\r\n\r\n"
    )
}

async fn serve(mut stream: TcpStream, answers: &Answers) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = vec![0; HEAD_BYTES];
    let mut filled = 0;
    loop {
        let count = stream.read(&mut head[filled..]).await?;
        filled += count;
        if count == 0 || filled == HEAD_BYTES {
            return Ok(());
        }
        let asked = &head[..filled];
        if !asked.ends_with(b"\r\n\r\n") {
            continue;
        }
        let large = asked.starts_with(b"GET /10m ");
        if asked.starts_with(b"GET /ws ") {
            stream.write_all(switched(asked).as_bytes()).await?;
            while stream.read(&mut head).await? != 0 {}
            return Ok(());
        }
        stream.write_all(if large { &answers.large } else { &answers.small }).await?;
        filled = 0;
    }
}
