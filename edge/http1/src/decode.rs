//! A body's end, and its bytes on the way there (RFC 9112 6.3).

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use crate::chunk::Chunked;

/// The next piece of a body.
#[derive(Debug)]
pub(crate) enum Decoded {
    /// Content.
    Data(Bytes),
    /// Fields behind the content; nothing follows.
    Trailers(HeaderMap),
    /// Nothing follows.
    End,
    /// More has to be read first.
    More,
}

/// Why a body's bytes cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// They break a rule.
    #[error("the body is malformed: {0}")]
    Malformed(&'static str),
    /// The peer went away before the body's end.
    #[error("the peer went away in the middle of a body")]
    Truncated,
}

/// How a body's end is known.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// By a length: what is left of it.
    Length(u64),
    /// By the chunked coding.
    Chunked(Chunked),
    /// By the end of the connection.
    Close,
}

impl Decoder {
    pub(crate) const fn chunked() -> Self {
        Self::Chunked(Chunked::new())
    }

    /// What is still to come, if that is known.
    pub(crate) const fn exact(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::Close => None,
        }
    }

    /// Takes the next piece out of `buf`; `eof`: nothing will be added to it.
    pub(crate) fn decode(&mut self, buf: &mut BytesMut, eof: bool) -> Result<Decoded, BodyFault> {
        let decoded = match self {
            Self::Length(0) => Decoded::End,
            Self::Length(left) if !buf.is_empty() => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                *left -= take as u64;
                Decoded::Data(buf.split_to(take).freeze())
            }
            Self::Length(_) => Decoded::More,
            Self::Chunked(chunked) => chunked.decode(buf)?,
            Self::Close if !buf.is_empty() => Decoded::Data(buf.split().freeze()),
            Self::Close if eof => Decoded::End,
            Self::Close => Decoded::More,
        };
        match decoded {
            Decoded::More if eof => Err(BodyFault::Truncated),
            decoded => Ok(decoded),
        }
    }
}
