//! Frames: their nine-byte headers, what their payloads are made of, and how ours are written.

use std::ops::Range;

use bytes::{BufMut as _, BytesMut};

use super::Code;

/// The client's connection preface (RFC 9113 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame's header (RFC 9113 4.1).
pub(crate) const HEADER_BYTES: usize = 9;
/// Most bytes of a payload that we take: what holds unless a SETTINGS says otherwise (RFC 9113 6.5.2).
pub(crate) const PAYLOAD_MAX_BYTES: usize = 16_384;
/// Most bytes of a payload that we send: the frame is one TLS record then (RFC 8446 5.1).
pub(crate) const SEND_MAX_BYTES: usize = PAYLOAD_MAX_BYTES - HEADER_BYTES;
/// The largest window (RFC 9113 6.9.1), and the largest stream's number.
pub(crate) const MAX_31_BITS: u32 = (1 << 31) - 1;

/// Types of frames (RFC 9113 6).
pub(crate) mod kind {
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
}

/// Flags of frames (RFC 9113 6).
pub(crate) mod flag {
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of the payload.
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Header {
    #[inline]
    pub(crate) const fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [a, b, c, kind, flags, s, t, u, v] = *bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s, t, u, v]) & MAX_31_BITS,
        }
    }

    pub(crate) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Where the content of a DATA or HEADERS frame is, without its padding (RFC 9113 6.1).
    pub(crate) fn unpadded(&self, payload: &[u8]) -> Result<Range<usize>, Code> {
        if !self.has(flag::PADDED) {
            return Ok(0..payload.len());
        }
        let Some(&padding) = payload.first() else { return Err(Code::FRAME_SIZE_ERROR) };
        match payload.len().checked_sub(usize::from(padding)) {
            Some(end) if end >= 1 => Ok(1..end),
            _ => Err(Code::PROTOCOL_ERROR),
        }
    }
}

/// The four bytes of a WINDOW_UPDATE or RST_STREAM, and the first of a priority.
pub(crate) fn number(payload: &[u8]) -> Result<u32, Code> {
    match payload.try_into() {
        Ok(bytes) => Ok(u32::from_be_bytes(bytes)),
        Err(_) => Err(Code::FRAME_SIZE_ERROR),
    }
}

/// Writes a frame's header. `length` is at most [`SEND_MAX_BYTES`].
#[inline]
pub(crate) fn put_header(out: &mut BytesMut, length: usize, kind: u8, flags: u8, stream: u32) {
    debug_assert!(length <= PAYLOAD_MAX_BYTES);
    let [.., b, c] = length.to_be_bytes();
    let [s, t, u, v] = stream.to_be_bytes();
    out.put_slice(&[0, b, c, kind, flags, s, t, u, v]);
}

/// Writes a frame whose payload is a number.
pub(crate) fn put_number(out: &mut BytesMut, kind: u8, stream: u32, number: u32) {
    put_header(out, 4, kind, 0, stream);
    out.put_u32(number);
}

/// Writes a PING or its answer.
pub(crate) fn put_ping(out: &mut BytesMut, flags: u8, opaque: [u8; 8]) {
    put_header(out, 8, kind::PING, flags, 0);
    out.put_slice(&opaque);
}

/// Writes a GOAWAY: no stream above `last` is or will be served.
pub(crate) fn put_go_away(out: &mut BytesMut, last: u32, code: Code) {
    put_header(out, 8, kind::GOAWAY, 0, 0);
    out.put_u32(last);
    out.put_u32(code.0);
}

/// Writes a head or trailers: HEADERS, and CONTINUATION for what has no room in it. `block` writes the
/// field block.
pub(crate) fn put_fields(
    out: &mut BytesMut,
    stream: u32,
    ends: bool,
    block: impl FnOnce(&mut BytesMut),
) {
    let flags = if ends { flag::END_STREAM } else { 0 };
    let at = out.len();
    put_header(out, 0, kind::HEADERS, flags | flag::END_HEADERS, stream);
    block(out);
    let length = out.len() - at - HEADER_BYTES;
    if length <= SEND_MAX_BYTES {
        let [.., b, c] = length.to_be_bytes();
        out[at + 1..at + 3].copy_from_slice(&[b, c]);
        return;
    }
    let block = out.split_off(at + HEADER_BYTES);
    out.truncate(at);
    let pieces = block.chunks(SEND_MAX_BYTES);
    let last = pieces.len() - 1;
    for (index, piece) in pieces.enumerate() {
        let kind = if index == 0 { kind::HEADERS } else { kind::CONTINUATION };
        let flags = if index == 0 { flags } else { 0 };
        let end = if index == last { flag::END_HEADERS } else { 0 };
        put_header(out, piece.len(), kind, flags | end, stream);
        out.put_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Header {
        Header::parse(bytes[..HEADER_BYTES].try_into().unwrap())
    }

    #[test]
    fn headers_are_read_as_they_are_written() {
        let mut out = BytesMut::new();
        put_header(&mut out, 0x1234, kind::DATA, flag::END_STREAM, 7);
        let header = Header { length: 0x1234, kind: kind::DATA, flags: 1, stream: 7 };
        assert_eq!(parsed(&out), header);
        out[5] |= 0x80;
        assert_eq!(parsed(&out), header, "the reserved bit says nothing");
    }

    #[test]
    fn padding_is_taken_off_and_may_not_be_longer_than_what_is_there() {
        let padded = Header { length: 3, kind: 0, flags: flag::PADDED, stream: 1 };
        assert_eq!(padded.unpadded(&[0, 9, 9]), Ok(1..3));
        assert_eq!(padded.unpadded(&[2, 9, 9]), Ok(1..1));
        assert_eq!(padded.unpadded(&[3, 9, 9]), Err(Code::PROTOCOL_ERROR));
        assert_eq!(padded.unpadded(&[]), Err(Code::FRAME_SIZE_ERROR));
        assert_eq!(Header { flags: 0, ..padded }.unpadded(&[3, 9]), Ok(0..2));
    }

    #[test]
    fn large_heads_are_cut_into_continuations() {
        for size in [0, 100, SEND_MAX_BYTES, SEND_MAX_BYTES + 1, 3 * SEND_MAX_BYTES, 50_000] {
            let mut out = BytesMut::from("before");
            put_fields(&mut out, 5, true, |out| out.put_bytes(b'x', size));
            let (mut rest, mut got, mut kinds) = (&out[6..], 0, Vec::new());
            loop {
                let header = parsed(rest);
                assert!(header.length <= SEND_MAX_BYTES && header.stream == 5);
                kinds.push((header.kind, header.flags));
                got += header.length;
                rest = &rest[HEADER_BYTES + header.length..];
                if header.has(flag::END_HEADERS) {
                    break;
                }
            }
            assert_eq!((got, rest.len()), (size, 0));
            assert_eq!(kinds[0].0, kind::HEADERS);
            assert!(kinds[0].1 & flag::END_STREAM != 0);
            assert!(kinds[1..].iter().all(|(kind, _)| *kind == kind::CONTINUATION));
        }
    }
}
