//! The head of an HTTP/1.1 answer, read strictly (RFC 9112).
//!
//! Pure: bytes in, words out. Where a careful server would never be ambiguous, ambiguity is an
//! error here: a load test should notice a gateway that lets two readers see different answers.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

/// Most bytes of a head, or of a body's trailers.
pub(super) const HEAD_MAX_BYTES: usize = 64 * 1024;
/// Most header lines.
const HEADERS_MAX: usize = 128;

/// What a server must not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("a line of the head ends without a carriage return")]
    BareLineFeed,
    #[error("the head is malformed ({0})")]
    Malformed(httparse::Error),
    #[error("the head has more than {HEAD_MAX_BYTES} bytes or {HEADERS_MAX} lines")]
    HeadTooLarge,
    #[error("a header cannot be understood")]
    BadHeader,
    #[error("the content-length is no number, or there are several")]
    BadLength,
    #[error("there is a content-length beside a transfer-encoding")]
    TwoLengths,
    #[error("the transfer-encoding is not `chunked`, or must not be here")]
    BadEncoding,
    #[error("it switched protocols without being asked to")]
    SwitchedProtocols,
    #[error("there are more than {0} interim answers")]
    TooManyInterim(u32),
    #[error("a chunk's size is malformed")]
    BadChunkSize,
    #[error("a chunk does not end where it should")]
    BadChunkEnd,
    #[error("a trailer is malformed")]
    BadTrailer,
    #[error("there are bytes that belong to no answer")]
    Surplus,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// A head, understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
    /// Whether the server would take another request.
    pub(crate) keep_alive: bool,
}

/// Finds where a head ends, looking at each byte once however many pieces it comes in.
#[derive(Debug, Default)]
pub(super) struct EndFinder {
    scanned: usize,
    line_start: usize,
}

impl EndFinder {
    /// The length of the head that `bytes` begin with, once all of it is there.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, Violation> {
        while let Some(found) = bytes[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let feed = self.scanned + found;
            let line = &bytes[self.line_start..feed];
            if line.last() != Some(&b'\r') {
                return Err(Violation::BareLineFeed);
            }
            (self.scanned, self.line_start) = (feed + 1, feed + 1);
            if line.len() == 1 {
                return if feed < HEAD_MAX_BYTES {
                    Ok(Some(feed + 1))
                } else {
                    Err(Violation::HeadTooLarge)
                };
            }
        }
        self.scanned = bytes.len();
        if bytes.len() > HEAD_MAX_BYTES { Err(Violation::HeadTooLarge) } else { Ok(None) }
    }
}

/// Understands a whole head, the answer to a request of that method.
pub(super) fn parse(raw: &[u8], method: &Method) -> Result<Head, Violation> {
    // The parser would skip blank lines in front.
    if raw.first() != Some(&b'H') {
        return Err(Violation::Malformed(httparse::Error::Version));
    }
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut lines);
    match parsed.parse(raw) {
        Ok(httparse::Status::Complete(length)) if length == raw.len() => {}
        Ok(_) => return Err(Violation::Malformed(httparse::Error::NewLine)),
        Err(httparse::Error::TooManyHeaders) => return Err(Violation::HeadTooLarge),
        Err(error) => return Err(Violation::Malformed(error)),
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Violation::Malformed(httparse::Error::Status))?;
    let old = parsed.version == Some(0);
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for line in parsed.headers.iter() {
        let name =
            HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Violation::BadHeader)?;
        let value = HeaderValue::from_bytes(line.value).map_err(|_| Violation::BadHeader)?;
        headers.append(name, value);
    }
    let framing = framing(status, old, &headers, method)?;
    let keep_alive = framing != Framing::UntilClose && keeps_alive(old, &headers);
    let version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
    Ok(Head { status, version, headers, framing, keep_alive })
}

fn framing(
    status: StatusCode,
    old: bool,
    headers: &HeaderMap,
    method: &Method,
) -> Result<Framing, Violation> {
    let length = length(headers)?;
    let encoded = headers.contains_key(header::TRANSFER_ENCODING);
    let interim = status.is_informational() || status == StatusCode::NO_CONTENT;
    if encoded {
        if length.is_some() {
            return Err(Violation::TwoLengths);
        }
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let chunked = codings.next().is_some_and(|c| c.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if !chunked || codings.next().is_some() || old || interim {
            return Err(Violation::BadEncoding);
        }
    }
    Ok(if interim || status == StatusCode::NOT_MODIFIED || method == Method::HEAD {
        Framing::Length(0)
    } else if encoded {
        Framing::Chunked
    } else {
        length.map_or(Framing::UntilClose, Framing::Length)
    })
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, Violation> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.as_bytes();
    // A sign is no digit, though the parser of numbers would take it.
    if values.next().is_some() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Violation::BadLength);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Violation::BadLength)?;
    text.parse().map(Some).map_err(|_| Violation::BadLength)
}

fn keeps_alive(old: bool, headers: &HeaderMap) -> bool {
    let says =
        |option: &str| {
            headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok()).any(
                |value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(option)),
            )
        };
    if old { says("keep-alive") } else { !says("close") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Head, Violation> {
        let length = EndFinder::default().find(text.as_bytes())?.expect("a whole head");
        parse(&text.as_bytes()[..length], &Method::GET)
    }

    #[test]
    fn bodies_are_framed_as_the_head_says() {
        for (fields, framing, keep_alive) in [
            ("content-length: 5\r\n", Framing::Length(5), true),
            ("Transfer-Encoding: Chunked\r\n", Framing::Chunked, true),
            ("", Framing::UntilClose, false),
            ("content-length: 0\r\nconnection: x, Close\r\n", Framing::Length(0), false),
        ] {
            let head = read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).unwrap();
            assert_eq!((head.framing, head.keep_alive), (framing, keep_alive), "{fields}");
        }
        let old = read("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n").unwrap();
        assert!(!old.keep_alive && old.version == Version::HTTP_10);
        let raw = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(parse(raw, &Method::HEAD).unwrap().framing, Framing::Length(0));
        for status in [204, 304] {
            let head = read(&format!("HTTP/1.1 {status} x\r\n\r\n")).unwrap();
            assert_eq!((head.framing, head.keep_alive), (Framing::Length(0), true));
        }
    }

    #[test]
    fn ambiguous_heads_are_violations() {
        use Violation as V;
        for (text, violation) in [
            ("1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n", V::BadLength),
            ("1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n", V::BadLength),
            ("1.1 200 OK\r\ncontent-length: 1, 1\r\n", V::BadLength),
            ("1.1 200 OK\r\ncontent-length: +1\r\n", V::BadLength),
            ("1.1 200 OK\r\ncontent-length: \r\n", V::BadLength),
            ("1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n", V::BadLength),
            ("1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n", V::TwoLengths),
            ("1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n", V::BadEncoding),
            (
                "1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
                V::BadEncoding,
            ),
            ("1.0 200 OK\r\ntransfer-encoding: chunked\r\n", V::BadEncoding),
            ("1.1 204 x\r\ntransfer-encoding: chunked\r\n", V::BadEncoding),
            ("1.1 200 OK\ncontent-length: 1\r\n", V::BareLineFeed),
            ("1.1 200 OK\r\na: b\n", V::BareLineFeed),
            ("1.1 099 OK\r\n", V::Malformed(httparse::Error::Status)),
            ("2.0 200 OK\r\n", V::Malformed(httparse::Error::Version)),
            ("1.1 200 OK\r\na : b\r\n", V::Malformed(httparse::Error::HeaderName)),
            ("1.1 200 OK\r\na: b\r\n c\r\n", V::Malformed(httparse::Error::HeaderName)),
        ] {
            assert_eq!(read(&format!("HTTP/{text}\r\n")), Err(violation), "{text}");
        }
        let blank = read("\r\nHTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(blank, Err(V::Malformed(httparse::Error::Version)));
    }

    #[test]
    fn heads_have_limits() {
        let endless = vec![b'a'; HEAD_MAX_BYTES + 1];
        assert_eq!(EndFinder::default().find(&endless), Err(Violation::HeadTooLarge));
        let many = "a: b\r\n".repeat(HEADERS_MAX + 1);
        let head = format!("HTTP/1.1 200 OK\r\n{many}\r\n");
        assert_eq!(read(&head), Err(Violation::HeadTooLarge));
    }
}
