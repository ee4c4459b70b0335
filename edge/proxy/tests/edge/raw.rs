//! HTTP by hand, for what a proper client would not send.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Sends the bytes and reads until the answer's head is complete or the connection ends.
pub(crate) async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..bytes]);
        }
    };
    let _ = timeout(Duration::from_millis(500), reading).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A HEADERS frame of HTTP/3 with the four pseudo-header fields, QPACK literals with names from
/// the static table (RFC 9204 3.1, 4.5.4).
pub(crate) fn h3_head(authority: &str, method: &str, path: &str) -> Vec<u8> {
    let mut block = vec![0, 0]; // no dynamic table
    let mut literal = |index: u8, value: &str| {
        match index {
            0..15 => block.push(0x50 | index), // literal, static name, 4-bit index
            _ => block.extend([0x5f, index - 15]),
        }
        assert!(value.len() < 127, "one byte of length");
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.as_bytes());
    };
    literal(15, method);
    literal(22, "https");
    literal(0, authority);
    literal(1, path);
    let mut frame = vec![0x01, 0x40, u8::try_from(block.len()).unwrap()];
    frame.extend(block);
    frame
}
