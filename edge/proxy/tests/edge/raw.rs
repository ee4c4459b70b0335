//! HTTP by hand, for what a proper client would not send.

use std::{net::SocketAddr, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
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

/// A HEADERS frame that asks for a WebSocket (RFC 9220).
pub(crate) fn h3_connect(authority: &str, path: &str) -> Vec<u8> {
    let mut frame = h3_head(authority, "CONNECT", path);
    // `:protocol` is in no static table: a literal with a literal name (RFC 9204 4.5.6).
    frame.extend([0x27, 2]);
    frame.extend(b":protocol");
    frame.push(9);
    frame.extend(b"websocket");
    frame[2] = u8::try_from(frame.len() - 3).unwrap();
    frame
}

/// Takes the first frame of HTTP/3 out of the buffer, if all of it is there: its type, its payload.
pub(crate) fn h3_frame(buffer: &mut BytesMut) -> Option<(u64, Bytes)> {
    let (kind, kind_bytes) = varint(buffer)?;
    let (length, length_bytes) = varint(&buffer[kind_bytes..])?;
    let (head, length) = (kind_bytes + length_bytes, usize::try_from(length).unwrap());
    if buffer.len() < head + length {
        return None;
    }
    buffer.advance(head);
    Some((kind, buffer.split_to(length).freeze()))
}

/// What begins an HTTP/2 connection, and a GET on stream 1 (RFC 9113 3.4, RFC 7541 6).
pub(crate) fn h2_start(authority: &str, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87]; // `:method: GET`, `:scheme: https`
    for (name, value) in [(1, authority), (4, path)] {
        block.extend([name, u8::try_from(value.len()).unwrap()]); // literal, static name
        block.extend(value.as_bytes());
    }
    let length = u8::try_from(block.len()).unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let head = [0, 0, length, 1, 0x5, 0, 0, 0, 1]; // HEADERS, END_STREAM and END_HEADERS
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &head, &block].concat()
}

/// A frame of HTTP/2: its type, flags, stream and payload.
pub(crate) type H2Frame = (u8, u8, u32, Vec<u8>);

/// Reads the next frame of HTTP/2; none at the connection's end. A PING is answered.
pub(crate) async fn h2_frame(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<H2Frame> {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
    io.read_exact(&mut payload).await.ok()?;
    if (head[3], head[4]) == (6, 0) {
        io.write_all(&[&[0, 0, 8, 6, 1, 0, 0, 0, 0], &payload[..]].concat()).await.ok()?;
    }
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some((head[3], head[4], stream, payload))
}

/// RFC 9000 16: the number and its length.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let length = 1 << (bytes.first()? >> 6);
    let bytes = bytes.get(..length)?;
    let number = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Some((number & (u64::MAX >> (66 - 8 * length)), length))
}
