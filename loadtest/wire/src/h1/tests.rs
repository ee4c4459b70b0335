//! Answers as they may be cut into pieces, and answers that are none.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use futures::executor::block_on;
use http::{HeaderName, HeaderValue, Method};
use proptest::{prelude::*, sample::Index};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

/// A server that says these pieces once it was spoken to, and hangs up.
#[derive(Debug)]
struct Script {
    pieces: VecDeque<Vec<u8>>,
    heard: Vec<u8>,
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.heard.is_empty() {
            return Poll::Pending;
        }
        if let Some(piece) = self.pieces.front_mut() {
            let taken = piece.len().min(buffer.remaining());
            buffer.put_slice(&piece[..taken]);
            piece.drain(..taken);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.heard.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What came of a call, comparable.
#[derive(Debug, PartialEq)]
struct Outcome {
    head: Option<Head>,
    body: Vec<u8>,
    error: Option<&'static str>,
    again: bool,
}

fn call(method: Method, pieces: Vec<Vec<u8>>) -> Outcome {
    let pieces = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
    let mut wire = Wire::new(Script { pieces, heard: Vec::new() }, "a.test").unwrap();
    let mut outcome = Outcome { head: None, body: Vec::new(), error: None, again: false };
    let done = block_on(async {
        outcome.head = Some(wire.start(&Request::new(method, "/")).await?.0);
        while let Some(piece) = wire
            .next(|input, bytes| {
                let piece = input[..bytes].to_vec();
                input.advance(bytes);
                piece
            })
            .await?
        {
            outcome.body.extend(piece);
        }
        Ok::<_, CallError>(())
    });
    outcome.error = done.err().map(|error| error.kind());
    outcome.again = wire.state == State::Idle && wire.input.is_empty();
    outcome
}

fn get(text: &str) -> Outcome {
    call(Method::GET, vec![text.as_bytes().to_vec()])
}

fn cut(bytes: &[u8], at: &[Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<_> = at.iter().map(|index| index.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|ends| bytes[ends[0]..ends[1]].to_vec()).collect()
}

#[test]
fn interim_answers_are_skipped_but_not_for_ever() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let outcome = get(&format!("{interim}HTTP/1.1 100 Continue\r\n\r\n{answer}"));
    assert_eq!((outcome.body.as_slice(), outcome.error), (&b"ok"[..], None));
    assert_eq!(get(&format!("{}{answer}", interim.repeat(17))).error, Some("protocol"));
    let switched = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n";
    assert_eq!(get(switched).error, Some("protocol"));
}

#[test]
fn an_answer_that_breaks_off_is_an_error() {
    for text in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
    ] {
        let outcome = get(text);
        assert_eq!((outcome.error, outcome.again), (Some("closed"), false), "{text}");
    }
}

#[test]
fn a_body_without_a_length_ends_with_the_connection() {
    let outcome = get("HTTP/1.1 200 OK\r\n\r\nall of it");
    assert_eq!((outcome.body.as_slice(), outcome.error), (&b"all of it"[..], None));
    assert!(!outcome.again);
}

#[test]
fn answers_to_head_have_no_body() {
    let text = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".to_vec();
    let outcome = call(Method::HEAD, vec![text]);
    assert_eq!((outcome.body.len(), outcome.error, outcome.again), (0, None, true));
}

#[test]
fn what_is_sent_says_host_headers_and_chunks() {
    let script = Script { pieces: VecDeque::new(), heard: Vec::new() };
    let mut wire = Wire::new(script, "a.test:81").unwrap();
    let body = vec!["hello, wonderful world".into(), Bytes::new(), "!".into()];
    let mut request = Request::new(Method::POST, "/x").body(body);
    request.set_nonce(HeaderName::from_static("x-nonce"), HeaderValue::from_static("7"));
    let error = block_on(wire.start(&request)).unwrap_err();
    assert_eq!(error.kind(), "closed");
    assert_eq!(
        String::from_utf8_lossy(&wire.stream.heard),
        "POST /x HTTP/1.1\r\nhost: a.test:81\r\ntransfer-encoding: chunked\r\nx-nonce: 7\r\n\r\n\
         16\r\nhello, wonderful world\r\n1\r\n!\r\n0\r\n\r\n"
    );
}

const FRAGMENTS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 404 \r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 204 x\r\n",
    "content-length: 3\r\n",
    "content-length: 0\r\n",
    "transfer-encoding: chunked\r\n",
    "connection: close\r\n",
    "\r\n",
    "\n",
    "\r",
    "3\r\nabc\r\n",
    "0\r\n\r\n",
    "abc",
    "x: y\r\n",
    "\0",
    "\u{e4}: \u{e4}\r\n",
];

proptest! {
    #[test]
    fn an_answer_is_the_same_however_it_is_cut(
        chunked in any::<bool>(),
        body in "[ -~]{0,40}",
        at in prop::collection::vec(any::<Index>(), 0..16),
    ) {
        let text = if chunked && !body.is_empty() {
            let (length, head) = (body.len(), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked");
            format!("{head}\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n")
        } else {
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        };
        let outcome = call(Method::GET, cut(text.as_bytes(), &at));
        prop_assert_eq!(&outcome.body, body.as_bytes());
        prop_assert!(outcome.again && outcome.error.is_none());
        prop_assert_eq!(outcome, get(&text));
    }

    #[test]
    fn nonsense_is_the_same_however_it_is_cut(
        fragments in prop::collection::vec(prop::sample::select(FRAGMENTS), 0..12),
        at in prop::collection::vec(any::<Index>(), 0..16),
    ) {
        let text = fragments.concat();
        let (cut, whole) = (call(Method::GET, cut(text.as_bytes(), &at)), get(&text));
        // Bytes behind an answer may not have come yet when it is over.
        let alike = |one: &Outcome| (one.body.clone(), one.error);
        prop_assert_eq!(alike(&cut), alike(&whole));
        prop_assert_eq!(cut.head, whole.head);
    }

    #[test]
    fn random_bytes_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        real in any::<bool>(),
    ) {
        let head: &[u8] = if real { b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n" } else { b"" };
        let outcome = call(Method::GET, vec![[head, &bytes].concat()]);
        prop_assert!(outcome.error.is_some() || outcome.head.is_some());
    }
}
