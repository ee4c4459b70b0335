//! Heads of requests and answers: found, parsed, and checked against what two parsers could read
//! differently.

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, request, response,
};
use memchr::memchr_iter;

use crate::{decode::Decoder, framing};

/// Header fields that are looked at; more are refused whatever the configuration says.
pub(crate) const FIELDS_MAX: usize = 256;
/// Place for what a proxy adds to a head, so that the map need not grow.
const FIELDS_ADDED: usize = 5;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// It breaks a rule of RFC 9110 or RFC 9112.
    #[error("the head is malformed: {0}")]
    Malformed(&'static str),
    /// It is larger than allowed, or has more fields.
    #[error("the head is too large")]
    TooLarge,
    /// The request line alone is larger than allowed.
    #[error("the request target is too long")]
    TargetTooLong,
    /// Its version is not 1.0 or 1.1.
    #[error("the version is not served")]
    Version,
    /// A transfer coding other than `chunked`.
    #[error("the transfer coding is unknown")]
    Coding,
}

/// Looks for the end of a head, without looking twice at a byte.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    scanned: usize,
    /// A line of what was looked at ends with LF alone.
    pub(crate) bare_lf: bool,
}

impl Finder {
    /// The length of the head at the start of `buf`, its empty line included.
    pub(crate) fn find(&mut self, buf: &[u8]) -> Option<usize> {
        let from = self.scanned.min(buf.len());
        self.scanned = buf.len();
        for at in memchr_iter(b'\n', &buf[from..]).map(|at| from + at) {
            let before = &buf[..at];
            self.bare_lf |= before.last() != Some(&b'\r');
            if before.ends_with(b"\n\r") && before.ends_with(b"\r\n\r") || before.ends_with(b"\n") {
                return Some(at + 1);
            }
        }
        None
    }
}

/// Whether a line ends with LF alone.
pub(crate) fn has_bare_lf(block: &[u8]) -> bool {
    memchr_iter(b'\n', block).any(|at| at == 0 || block[at - 1] != b'\r')
}

/// Which of the fields that frame a body or speak of the connection a head has: most have none, and
/// the map is not asked for what is not there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) length: bool,
    pub(crate) coding: bool,
    connection: bool,
    upgrade: bool,
    expect: bool,
    hosts: usize,
}

impl Seen {
    fn note(&mut self, name: &HeaderName) {
        match *name {
            header::CONTENT_LENGTH => self.length = true,
            header::TRANSFER_ENCODING => self.coding = true,
            header::CONNECTION => self.connection = true,
            header::UPGRADE => self.upgrade = true,
            header::EXPECT => self.expect = true,
            header::HOST => self.hosts += 1,
            _ => {}
        }
    }
}

/// A request's head and what it says about its body and its connection.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) parts: request::Parts,
    pub(crate) body: Decoder,
    /// Whether the client may send another request after this one.
    pub(crate) keep_alive: bool,
    /// Whether it asks for another protocol, and has no body.
    pub(crate) upgrade: bool,
    pub(crate) expects_continue: bool,
}

/// Parses a whole head: `block` ends with its empty line, and was looked at by `finder`.
pub(crate) fn parse_request(
    block: Bytes,
    finder: &Finder,
    fields_max: usize,
) -> Result<RequestHead, HeadFault> {
    if finder.bare_lf {
        return Err(HeadFault::Malformed("a line ends with a bare LF"));
    }
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(&block, &mut fields[..fields_max.min(FIELDS_MAX)]) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(HeadFault::Malformed("it ends too early")),
        Err(httparse::Error::Version) if !has_three_words(&block) => {
            return Err(HeadFault::Malformed("the request line is not in order"));
        }
        Err(error) => return Err(fault_of(error)),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(HeadFault::Malformed("the request line is incomplete"));
    };
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| HeadFault::Malformed("the method is not a token"))?;
    check_target(&method, target)?;
    let uri = Uri::from_maybe_shared(block.slice_ref(target.as_bytes()))
        .map_err(|_| HeadFault::Malformed("the request target is not a URI"))?;
    let (headers, seen) = fields_of(&block, parsed.headers)?;
    let version = if version == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let (mut parts, ()) = http::Request::new(()).into_parts();
    (parts.method, parts.uri, parts.version, parts.headers) = (method, uri, version, headers);
    let body = framing::request_body(&parts, seen)?;
    check_host(version, seen)?;
    let expects_continue = version == Version::HTTP_11
        && body.exact() != Some(0)
        && seen.expect
        && parts.headers.get(header::EXPECT).is_some_and(|v| is(v, "100-continue"));
    let upgrade = body.exact() == Some(0)
        && version == Version::HTTP_11
        && seen.upgrade
        && has_token(&parts.headers, "upgrade");
    let keep_alive = keeps_alive(version, &parts.headers, seen);
    Ok(RequestHead { parts, body, keep_alive, upgrade, expects_continue })
}

/// An answer's head and what it says about its body and its connection.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) parts: response::Parts,
    pub(crate) seen: Seen,
    pub(crate) keep_alive: bool,
}

/// Parses a whole head: `block` ends with its empty line, and was looked at by `finder`.
pub(crate) fn parse_response(block: Bytes, finder: &Finder) -> Result<ResponseHead, HeadFault> {
    if finder.bare_lf {
        return Err(HeadFault::Malformed("a line ends with a bare LF"));
    }
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, &block, &mut fields) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(HeadFault::Malformed("it ends too early")),
        Err(error) => return Err(fault_of(error)),
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(HeadFault::Malformed("the status is not a number"))?;
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let (headers, seen) = fields_of(&block, parsed.headers)?;
    let (mut parts, ()) = http::Response::new(()).into_parts();
    (parts.status, parts.version, parts.headers) = (status, version, headers);
    let keep_alive = keeps_alive(version, &parts.headers, seen);
    Ok(ResponseHead { parts, seen, keep_alive })
}

/// Whether a request line is a method, a target and a version, whatever each of them is worth.
fn has_three_words(block: &[u8]) -> bool {
    let line = block.split(|byte| *byte == b'\r').next().unwrap_or_default();
    line.split(|byte| *byte == b' ').count() == 3
}

fn fault_of(error: httparse::Error) -> HeadFault {
    match error {
        httparse::Error::TooManyHeaders => HeadFault::TooLarge,
        httparse::Error::Version => HeadFault::Version,
        httparse::Error::HeaderName => HeadFault::Malformed("a field name is not a token"),
        httparse::Error::HeaderValue => {
            HeadFault::Malformed("a field value has control characters")
        }
        httparse::Error::NewLine => HeadFault::Malformed("a line does not end with CRLF"),
        httparse::Error::Token => HeadFault::Malformed("the request line is not in order"),
        httparse::Error::Status => HeadFault::Malformed("the status line is not in order"),
    }
}

fn fields_of(
    block: &Bytes,
    fields: &[httparse::Header<'_>],
) -> Result<(HeaderMap, Seen), HeadFault> {
    let mut map = HeaderMap::with_capacity(fields.len() + FIELDS_ADDED);
    let mut seen = Seen::default();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| HeadFault::Malformed("a field name is not a token"))?;
        let value = HeaderValue::from_maybe_shared(block.slice_ref(field.value))
            .map_err(|_| HeadFault::Malformed("a field value has control characters"))?;
        seen.note(&name);
        map.append(name, value);
    }
    Ok((map, seen))
}

/// RFC 9112 3.2: one Host, and HTTP/1.1 cannot do without.
fn check_host(version: Version, seen: Seen) -> Result<(), HeadFault> {
    match seen.hosts {
        0 if version == Version::HTTP_11 => Err(HeadFault::Malformed("Host is missing")),
        0 | 1 => Ok(()),
        _ => Err(HeadFault::Malformed("there is more than one Host")),
    }
}

/// RFC 9112 3.2: which form goes with which method; a fragment belongs to none, and would be dropped
/// by `Uri` without a word.
fn check_target(method: &Method, target: &str) -> Result<(), HeadFault> {
    if target.contains('#') {
        return Err(HeadFault::Malformed("the request target has a fragment"));
    }
    let fits = match (target, *method == Method::CONNECT) {
        ("*", _) => *method == Method::OPTIONS,
        (_, true) => !target.contains('/'),
        (_, false) => target.starts_with('/') || target.contains("://"),
    };
    if fits { Ok(()) } else { Err(HeadFault::Malformed("the request target has a wrong form")) }
}

fn keeps_alive(version: Version, headers: &HeaderMap, seen: Seen) -> bool {
    if !seen.connection {
        return version == Version::HTTP_11;
    }
    if has_token(headers, "close") {
        return false;
    }
    version == Version::HTTP_11 || has_token(headers, "keep-alive")
}

fn has_token(headers: &HeaderMap, token: &str) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

fn is(value: &HeaderValue, word: &str) -> bool {
    value.as_bytes().eq_ignore_ascii_case(word.as_bytes())
}

/// Takes up to two empty lines off the start: some clients send one after a body (RFC 9112 2.2).
///
/// # Errors
///
/// If there are more.
pub(crate) fn skip_empty_lines(
    buf: &mut BytesMut,
    finder: &mut Finder,
    skipped: &mut u8,
) -> Result<(), HeadFault> {
    while buf.starts_with(b"\r\n") {
        if *skipped == 2 {
            return Err(HeadFault::Malformed("it begins with empty lines"));
        }
        *skipped += 1;
        buf.advance(2);
        *finder = Finder::default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<RequestHead, HeadFault> {
        let mut finder = Finder::default();
        assert_eq!(finder.find(text.as_bytes()), Some(text.len()), "{text:?}");
        parse_request(Bytes::from(text.to_owned()), &finder, 100)
    }

    #[test]
    fn a_plain_request_is_read() {
        let head = request("POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n").unwrap();
        assert_eq!(head.parts.method, Method::POST);
        assert_eq!(head.parts.uri, "/a?b");
        assert_eq!(head.body.exact(), Some(5));
        assert!(head.keep_alive && !head.upgrade);
        let head = request("GET / HTTP/1.0\r\n\r\n").unwrap();
        assert!(!head.keep_alive);
        let text = "GET / HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
        assert!(request(text).unwrap().upgrade);
        let text = "PUT / HTTP/1.1\r\nhost: h\r\nexpect: 100-Continue\r\ncontent-length: 1\r\n\r\n";
        assert!(request(text).unwrap().expects_continue);
    }

    /// RFC 9112, by section.
    #[test]
    fn what_could_be_read_differently_is_refused() {
        for (section, text) in [
            ("2.2 bare LF", "GET / HTTP/1.1\nHost: h\n\n"),
            ("2.2 bare LF in a field", "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n"),
            ("3 two spaces", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
            ("3.2 no Host", "GET / HTTP/1.1\r\n\r\n"),
            ("3.2 two Hosts", "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"),
            ("5.1 space before colon", "GET / HTTP/1.1\r\nHost : h\r\n\r\n"),
            ("5.1 empty name", "GET / HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n"),
            ("5.2 folding", "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n"),
            ("9110 5.5 NUL", "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n"),
            ("9110 5.5 bare CR", "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n"),
            ("6.1 TE and 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            ("6.1 gzip last", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n"),
            (
                "6.1 unknown coding",
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: x, chunked\r\n\r\n",
            ),
            (
                "6.1 two TEs",
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            (
                "6.1 vertical tab",
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
            ),
            (
                "6.3 CL.TE",
                "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            (
                "6.3 TE.CL",
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            ),
            (
                "6.3 two CLs",
                "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            ),
            ("6.3 CL list", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\n"),
            ("6.3 +5", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\n"),
            ("6.3 -1", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n"),
            (
                "6.3 too large",
                "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551616\r\n\r\n",
            ),
            ("2.3 version", "GET / HTTP/2.0\r\nHost: h\r\n\r\n"),
        ] {
            assert!(request(text).is_err(), "{section}");
        }
    }

    #[test]
    fn a_head_is_found_once_it_is_whole() {
        let text = b"GET / HTTP/1.1\r\nhost: h\r\n\r\nrest";
        let mut finder = Finder::default();
        for end in 0..text.len() {
            let found = finder.find(&text[..end]);
            assert_eq!(found, (end == text.len() - 4).then_some(text.len() - 4), "{end}");
            if found.is_some() {
                break;
            }
        }
        assert_eq!(Finder::default().find(b"GET / HTTP/1.1\n\nx"), Some(16));
    }

    #[test]
    fn answers_say_how_they_end() {
        let answer = |text: &str| {
            let mut finder = Finder::default();
            assert_eq!(finder.find(text.as_bytes()), Some(text.len()), "{text:?}");
            parse_response(Bytes::from(text.to_owned()), &finder)
        };
        let body = |text: &str, method: &Method| {
            let head = answer(text).unwrap();
            framing::response_body(&head.parts, head.seen, method).unwrap()
        };
        let get = &Method::GET;
        assert!(matches!(body("HTTP/1.1 200 OK\r\n\r\n", get), Some(Decoder::Close)));
        let sized = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n";
        assert!(matches!(body(sized, get), Some(Decoder::Length(3))));
        assert!(body(sized, &Method::HEAD).is_none());
        assert!(body("HTTP/1.1 204 No Content\r\n\r\n", get).is_none());
        assert!(answer("HTTP/1.1 abc\r\n\r\n").is_err());
    }
}
