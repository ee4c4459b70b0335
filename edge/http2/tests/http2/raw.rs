//! A client that writes frames by hand and reads what comes back.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{PATIENCE, Server};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;

/// RFC 9113 7.
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL: u32 = 1;
pub(crate) const FLOW_CONTROL: u32 = 3;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const FRAME_SIZE: u32 = 6;
pub(crate) const REFUSED: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const COMPRESSION: u32 = 9;
pub(crate) const CALM: u32 = 11;

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field section in literals without indexing (RFC 7541 6.2.2), so that nothing has to be known.
pub(crate) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

fn text(block: &mut Vec<u8>, text: &str) {
    if text.len() < 127 {
        block.push(u8::try_from(text.len()).unwrap());
    } else {
        block.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128 + 128).unwrap());
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap());
    }
    block.extend(text.as_bytes());
}

/// A request's four pseudo-header fields, and more.
pub(crate) fn head(method: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "h")];
    fields(&[&pseudo, more].concat())
}

/// A whole request without a body.
pub(crate) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET", &[]))
}

/// A request whose body is still to come.
pub(crate) fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head("POST", &[]))
}

/// What came from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Got {
    /// The error code of an RST_STREAM or a GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A connection, byte by byte.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    buf: Vec<u8>,
}

impl Raw {
    /// Connects and says nothing.
    pub(crate) async fn silent(server: &Server) -> Self {
        Self { stream: server.connect().await, buf: Vec::new() }
    }

    /// Connects and exchanges settings.
    pub(crate) async fn open(server: &Server) -> Self {
        Self::with_settings(server, &[]).await
    }

    pub(crate) async fn with_settings(server: &Server, settings: &[u8]) -> Self {
        let mut raw = Self::silent(server).await;
        raw.send([PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await;
        loop {
            let got = raw.next().await.unwrap();
            if got.kind == SETTINGS && got.flags & ACK != 0 {
                raw.send(frame(SETTINGS, ACK, 0, b"")).await;
                return raw;
            }
        }
    }

    /// Sends, unless the server has closed already.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// The next frame; none: the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Got> {
        loop {
            if let Some(header) = self.buf.get(..9) {
                let length = usize::from(header[0]) << 16
                    | usize::from(header[1]) << 8
                    | usize::from(header[2]);
                if self.buf.len() >= 9 + length {
                    let frame: Vec<u8> = self.buf.drain(..9 + length).collect();
                    let stream = u32::from_be_bytes(frame[5..9].try_into().unwrap());
                    let (kind, flags, payload) = (frame[3], frame[4], frame[9..].to_vec());
                    return Some(Got { kind, flags, stream, payload });
                }
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buf)).await;
            if read.unwrap().unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Reads on to a frame of this kind.
    pub(crate) async fn until(&mut self, kind: u8, stream: u32) -> Got {
        loop {
            let got = self.next().await.expect("the connection has ended");
            assert_ne!(got.kind, GOAWAY, "code {}", got.code());
            if got.kind == kind && got.stream == stream {
                return got;
            }
        }
    }

    /// A PING and its answer: all that was sent before has been dealt with.
    pub(crate) async fn ping(&mut self) {
        self.send(frame(PING, 0, 0, b"are-you?")).await;
        assert_eq!(self.until(PING, 0).await.payload, b"are-you?");
    }
}

/// What a client is told for what it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// GOAWAY with this code, then the connection's end.
    Connection(u32),
    /// RST_STREAM of this stream with this code.
    Stream(u32, u32),
    /// The connection's end without a word.
    Closed,
    /// Nothing: it is allowed, or has to be passed over.
    Nothing,
    /// An answer on this stream.
    Answer(u32),
}

/// Sends `bytes`, then a PING, and sees what comes of it.
pub(crate) async fn told(raw: &mut Raw, bytes: &[u8]) -> Told {
    raw.send(bytes).await;
    raw.send(frame(PING, 0, 0, b"and now?")).await;
    let mut told = Told::Nothing;
    loop {
        let Some(got) = raw.next().await else {
            return if told == Told::Nothing { Told::Closed } else { told };
        };
        match got.kind {
            GOAWAY if got.code() != NO_ERROR => return Told::Connection(got.code()),
            RST_STREAM => return Told::Stream(got.stream, got.code()),
            HEADERS => told = Told::Answer(got.stream),
            PING if got.payload == b"and now?" => {
                // An answer may come a moment later than the PING's.
                while told == Told::Nothing
                    && let Ok(Some(got)) = timeout(LATER, raw.next()).await
                {
                    told = match got.kind {
                        HEADERS => Told::Answer(got.stream),
                        RST_STREAM => Told::Stream(got.stream, got.code()),
                        GOAWAY => Told::Connection(got.code()),
                        _ => Told::Nothing,
                    };
                }
                return told;
            }
            _ => {}
        }
    }
}

/// How long to wait for what need not come.
const LATER: std::time::Duration = std::time::Duration::from_millis(150);

/// One line of a conformance table: what RFC 9113 wants.
pub(crate) struct Case {
    what: &'static str,
    bytes: Vec<u8>,
    wanted: Told,
}

/// A MUST of RFC 9113 by its section.
pub(crate) fn case(what: &'static str, bytes: impl Into<Vec<u8>>, wanted: Told) -> Case {
    Case { what, bytes: bytes.into(), wanted }
}

/// Tries each case on a connection of its own; says all that differ.
pub(crate) async fn try_all(server: &Server, cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for case in cases {
        let mut raw = Raw::open(server).await;
        let told = told(&mut raw, &case.bytes).await;
        if told != case.wanted {
            wrong.push(format!("{}: {told:?} instead of {:?}", case.what, case.wanted));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
