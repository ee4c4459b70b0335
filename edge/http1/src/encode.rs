//! Heads and chunks as bytes.

use std::{cell::RefCell, time::SystemTime};

use bytes::{BufMut as _, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version, header, request, response};

/// A body of so many bytes has its place kept behind its head.
const SMALL_BYTES: usize = 4 * 1024;

/// How the end of a body is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body and no word about one.
    None,
    /// `Content-Length`.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// The end of the connection.
    Close,
}

/// Writes an answer's head. Fields that frame or speak of the connection are ours alone.
pub(crate) fn response(
    buf: &mut BytesMut,
    parts: &response::Parts,
    framing: Framing,
    connection: Option<&'static str>,
) {
    make_room(buf, 256 + parts.headers.len() * 48 + body_room(framing));
    status_line(buf, parts.status);
    let upgrading = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in &parts.headers {
        let ours = *name == header::CONTENT_LENGTH
            || *name == header::TRANSFER_ENCODING
            || *name == header::CONNECTION
            || (*name == header::UPGRADE && !upgrading)
            || name.as_str() == "keep-alive";
        if !ours {
            field(buf, name.as_str(), value.as_bytes());
        }
    }
    // Of a HEAD's or a 304's answer the length is what a GET would have had.
    if framing == Framing::None
        && !parts.status.is_informational()
        && parts.status != StatusCode::NO_CONTENT
        && let Some(length) = parts.headers.get(header::CONTENT_LENGTH)
    {
        field(buf, "content-length", length.as_bytes());
    }
    frame(buf, framing);
    if let Some(connection) = connection {
        field(buf, "connection", connection.as_bytes());
    }
    if !parts.status.is_informational() && !parts.headers.contains_key(header::DATE) {
        date(buf);
    }
    buf.put_slice(b"\r\n");
}

/// Room in a buffer; a new one's is allocated without a detour.
fn make_room(buf: &mut BytesMut, bytes: usize) {
    if buf.capacity() == 0 {
        *buf = BytesMut::with_capacity(bytes);
    } else {
        buf.reserve(bytes);
    }
}

/// Room for a body that is small: it is copied behind its head.
fn body_room(framing: Framing) -> usize {
    let Framing::Length(length) = framing else { return 0 };
    usize::try_from(length).ok().filter(|length| *length <= SMALL_BYTES).unwrap_or(0)
}

/// Writes a 1xx head.
pub(crate) fn interim(buf: &mut BytesMut, status: StatusCode, headers: &HeaderMap) {
    status_line(buf, status);
    for (name, value) in headers {
        if !matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION)
        {
            field(buf, name.as_str(), value.as_bytes());
        }
    }
    buf.put_slice(b"\r\n");
}

/// Writes a request's head; `fields` are more of them, as they are.
pub(crate) fn request(buf: &mut BytesMut, parts: &request::Parts, fields: &[u8], framing: Framing) {
    make_room(buf, 256 + parts.headers.len() * 48 + fields.len());
    buf.put_slice(parts.method.as_str().as_bytes());
    buf.put_u8(b' ');
    match parts.uri.path_and_query() {
        Some(path) if parts.method != Method::CONNECT => buf.put_slice(path.as_str().as_bytes()),
        _ => buf.put_slice(b"/"),
    }
    buf.put_slice(b" HTTP/1.1\r\n");
    for (name, value) in &parts.headers {
        if !matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING) {
            field(buf, name.as_str(), value.as_bytes());
        }
    }
    buf.put_slice(fields);
    frame(buf, framing);
    buf.put_slice(b"\r\n");
}

/// Writes a chunk's size line; its data and a CRLF follow.
pub(crate) fn chunk_size(buf: &mut BytesMut, size: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0_u8; 16];
    let (mut at, mut left) = (digits.len(), size);
    loop {
        at -= 1;
        digits[at] = HEX[left % 16];
        left /= 16;
        if left == 0 {
            break;
        }
    }
    buf.put_slice(&digits[at..]);
    buf.put_slice(b"\r\n");
}

/// Writes the end of a chunked body.
pub(crate) fn last_chunk(buf: &mut BytesMut, trailers: Option<&HeaderMap>) {
    buf.put_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        field(buf, name.as_str(), value.as_bytes());
    }
    buf.put_slice(b"\r\n");
}

fn frame(buf: &mut BytesMut, framing: Framing) {
    match framing {
        Framing::None | Framing::Close => {}
        Framing::Chunked => buf.put_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Length(length) => {
            buf.put_slice(b"content-length: ");
            decimal(buf, length);
            buf.put_slice(b"\r\n");
        }
    }
}

fn decimal(buf: &mut BytesMut, number: u64) {
    let mut digits = [0_u8; 20];
    let (mut at, mut left) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        if left == 0 {
            break;
        }
    }
    buf.put_slice(&digits[at..]);
}

fn status_line(buf: &mut BytesMut, status: StatusCode) {
    if status == StatusCode::OK {
        return buf.put_slice(b"HTTP/1.1 200 OK\r\n");
    }
    buf.put_slice(b"HTTP/1.1 ");
    buf.put_slice(status.as_str().as_bytes());
    buf.put_u8(b' ');
    buf.put_slice(status.canonical_reason().unwrap_or("").as_bytes());
    buf.put_slice(b"\r\n");
}

fn field(buf: &mut BytesMut, name: &str, value: &[u8]) {
    buf.put_slice(name.as_bytes());
    buf.put_slice(b": ");
    buf.put_slice(value);
    buf.put_slice(b"\r\n");
}

/// `Date`, formatted once per second and thread.
fn date(buf: &mut BytesMut) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(of, text)| {
        if *of != second {
            (*of, *text) = (second, httpdate::fmt_http_date(now));
        }
        field(buf, "date", text.as_bytes());
    });
}

/// The version that a framing can be said in.
pub(crate) fn answer_framing(
    exact: Option<u64>,
    version: Version,
    status: StatusCode,
    is_head: bool,
) -> Framing {
    if is_head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    {
        return Framing::None;
    }
    match exact {
        Some(length) => Framing::Length(length),
        None if version == Version::HTTP_11 => Framing::Chunked,
        None => Framing::Close,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for number in [0_u64, 7, 10, 255, 4096, u64::MAX] {
            let mut buf = BytesMut::new();
            decimal(&mut buf, number);
            assert_eq!(&buf[..], number.to_string().as_bytes());
            let mut buf = BytesMut::new();
            let size = usize::try_from(number).unwrap();
            chunk_size(&mut buf, size);
            assert_eq!(&buf[..], format!("{size:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn framing_is_ours_alone() {
        let answer = http::Response::builder()
            .header("content-length", "9")
            .header("transfer-encoding", "chunked")
            .header("connection", "x")
            .header("upgrade", "h2c")
            .header("date", "today")
            .header("x-mine", "stays")
            .body(())
            .unwrap();
        let mut buf = BytesMut::new();
        response(&mut buf, &answer.into_parts().0, Framing::Length(3), Some("close"));
        let text = "HTTP/1.1 200 OK\r\ndate: today\r\nx-mine: stays\r\ncontent-length: 3\r\n\
                    connection: close\r\n\r\n";
        assert_eq!(std::str::from_utf8(&buf).unwrap(), text);
    }

    #[test]
    fn a_heads_answer_keeps_its_length() {
        let answer = http::Response::builder().header("content-length", "9").body(()).unwrap();
        let mut buf = BytesMut::new();
        response(&mut buf, &answer.into_parts().0, Framing::None, None);
        let text = std::str::from_utf8(&buf).unwrap();
        assert!(text.contains("content-length: 9\r\n") && text.contains("\r\ndate: "), "{text}");
    }
}
