//! Which heads and trailers are well-formed (RFC 9114 4.2, 4.3, 4.4, 10.3; RFC 9220), as `http` types.

mod encode;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use edge_fields::{Malformed, RequestFields, TrailerFields};
pub use edge_fields::{Protocol, RequestHead};
use http::{HeaderMap, Version};

pub use encode::{encode_response, encode_trailers, response_frame, trailers_frame};

use super::{
    Code, Limits,
    qpack::{Section, SectionError},
};

/// Why a head or trailers are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// They break a rule of HTTP/3: the stream ends.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// They can't be decoded (the connection ends), or are beyond a limit (the answer is 431).
    #[error(transparent)]
    Section(#[from] SectionError),
}

impl HeadError {
    /// The code to reset the stream or close the connection with.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Malformed(_) => Code::H3_MESSAGE_ERROR,
            Self::Section(error) => error.code(),
        }
    }

    /// Whether the connection ends, not only the stream.
    #[must_use]
    pub const fn is_connection_error(self) -> bool {
        matches!(self, Self::Section(SectionError::Decompression(_)))
    }

    /// Whether it is about a limit: a request can be answered 431.
    #[must_use]
    pub const fn is_over_limit(self) -> bool {
        matches!(self, Self::Section(SectionError::TooLarge { .. } | SectionError::TooMany { .. }))
    }
}

/// Reads the head of a request: the payload of its first HEADERS frame. Values share memory with it.
///
/// # Errors
///
/// [`HeadError`], for the first rule that is broken.
pub fn decode_request(payload: Bytes, limits: &Limits) -> Result<RequestHead, HeadError> {
    let mut section = Section::new(payload, limits)?;
    let mut fields = RequestFields::default();
    while let Some(field) = section.next_field()? {
        fields.add(field)?;
    }
    Ok(fields.finish(Version::HTTP_3)?)
}

/// Reads the trailers of a request: the payload of its last HEADERS frame.
///
/// # Errors
///
/// [`HeadError`], for the first rule that is broken.
pub fn decode_trailers(payload: Bytes, limits: &Limits) -> Result<HeaderMap, HeadError> {
    let mut section = Section::new(payload, limits)?;
    let mut fields = TrailerFields::default();
    while let Some(field) = section.next_field()? {
        fields.add(field)?;
    }
    Ok(fields.finish()?)
}
