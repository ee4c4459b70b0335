//! The frames of a Connect stream: a byte of flags, four of length, then JSON.
//!
//! # Limits
//!
//! A message has at most 4 MiB; E2B's daemon cuts output at 32 KiB.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, de::DeserializeOwned};

/// Longest message.
const MESSAGE_MAX_BYTES: usize = 4 << 20;
/// Flags and length.
const HEAD_BYTES: usize = 5;
/// The flag of the last frame.
const END: u8 = 2;

/// Why a stream is none of Connect's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadStream {
    /// Flags we did not ask for, or no frame at all.
    #[error("expected a frame of a Connect stream with flags 0 or 2, got flags {0:#04x}")]
    Flags(u8),
    /// Too long.
    #[error("a message has {0} bytes, expected at most {MESSAGE_MAX_BYTES}")]
    Length(usize),
    /// Not JSON, or not of the shape.
    #[error("a message is not the JSON that was expected: {0}")]
    Json(String),
    /// It broke off.
    #[error("the stream ended without its last frame")]
    Cut,
}

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A message.
    Message(Bytes),
    /// The end, and the error it ended with.
    End(Option<StreamError>),
}

/// The error that a stream ended with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct StreamError {
    pub(super) code: String,
    #[serde(default)]
    pub(super) message: String,
}

#[derive(Deserialize)]
struct Trailer {
    error: Option<StreamError>,
}

/// Wraps one message.
pub(super) fn envelope(message: &str) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + message.len());
    frame.put_u8(0);
    // Ours are commands; one of 4 GiB fits no memory.
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message.as_bytes());
    frame.freeze()
}

/// Cuts what comes into frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// Takes what has come.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, if all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, BadStream> {
        let Some(flags) = self.buffer.first().copied() else { return Ok(None) };
        // Told apart at once, so that a page of HTML is not taken for a long message.
        if flags != 0 && flags != END {
            return Err(BadStream::Flags(flags));
        }
        let Some(mut head) = self.buffer.get(1..HEAD_BYTES) else { return Ok(None) };
        let length = usize::try_from(head.get_u32()).unwrap_or(usize::MAX);
        if length > MESSAGE_MAX_BYTES {
            return Err(BadStream::Length(length));
        }
        if self.buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        let message = self.buffer.split_to(length).freeze();
        if flags != END {
            return Ok(Some(Frame::Message(message)));
        }
        let trailer: Trailer = json(&message)?;
        Ok(Some(Frame::End(trailer.error)))
    }
}

/// A message's JSON.
pub(super) fn json<T: DeserializeOwned>(message: &[u8]) -> Result<T, BadStream> {
    serde_json::from_slice(message).map_err(|error| BadStream::Json(error.to_string()))
}

#[cfg(test)]
mod unit {
    use super::*;

    fn all(pieces: &[&[u8]]) -> Result<Vec<Frame>, BadStream> {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        for piece in pieces {
            frames.push(piece);
            while let Some(frame) = frames.next()? {
                found.push(frame);
            }
        }
        Ok(found)
    }

    #[test]
    fn frames_are_the_same_wherever_the_bytes_are_cut() {
        let mut bytes = envelope("{\"a\":1}").to_vec();
        bytes.extend_from_slice(&envelope(""));
        bytes.extend_from_slice(b"\x02\0\0\0\x02{}");
        let whole = all(&[&bytes]).unwrap();
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[0], Frame::Message("{\"a\":1}".into()));
        assert_eq!(whole[2], Frame::End(None));
        for at in 0..bytes.len() {
            assert_eq!(all(&[&bytes[..at], &bytes[at..]]).unwrap(), whole, "cut at {at}");
        }
    }

    #[test]
    fn end_tells_its_error() {
        let end = br#"{"error":{"code":"unavailable","message":"gone"},"metadata":{}}"#;
        let mut bytes = vec![2, 0, 0, 0, u8::try_from(end.len()).unwrap()];
        bytes.extend_from_slice(end);
        let error = StreamError { code: "unavailable".into(), message: "gone".into() };
        assert_eq!(all(&[&bytes]).unwrap(), [Frame::End(Some(error))]);
    }

    #[test]
    fn other_bytes_are_no_stream() {
        assert_eq!(all(&[b"<html>"]), Err(BadStream::Flags(b'<')));
        assert_eq!(all(&[b"\x01\0\0\0\x01x"]), Err(BadStream::Flags(1)));
        assert!(matches!(all(&[b"\0\xff\xff\xff\xff"]), Err(BadStream::Length(_))));
        assert!(matches!(all(&[b"\x02\0\0\0\x01x"]), Err(BadStream::Json(_))));
    }
}
