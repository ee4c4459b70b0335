//! Which heads and trailers are well-formed (RFC 9114 4.2, 4.3, 4.4, 10.3; RFC 9220), as `http` types.
//!
//! What two parsers could read differently is refused here, so that nothing past it has to ask.

mod encode;
mod fields;
mod target;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Version, header, request};

pub use encode::{encode_response, encode_trailers, response_frame, trailers_frame};
use fields::Fields;
use target::Pseudo;

use super::{
    Code, Limits,
    qpack::{Section, SectionError},
};

/// A request's head that keeps all rules.
#[derive(Debug)]
pub struct RequestHead {
    /// Method, target (always with an authority), version and fields. The target of CONNECT is the
    /// authority alone; that of extended CONNECT is whole, with a [`Protocol`] in the extensions.
    pub parts: request::Parts,
    /// How many bytes of DATA have to come, if the head says so.
    pub content_length: Option<u64>,
}

impl RequestHead {
    /// Whether nothing but DATA may follow, which is the tunnel's (RFC 9114 4.4).
    #[must_use]
    pub fn is_connect(&self) -> bool {
        self.parts.method == Method::CONNECT
    }
}

/// What an extended CONNECT asks to speak (`:protocol`, RFC 9220), such as `websocket`. It is an
/// extension of the request.
#[derive(Clone, PartialEq, Eq)]
pub struct Protocol(Arc<str>);

impl Protocol {
    /// The name as the client wrote it, a token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Protocol({:?})", self.as_str())
    }
}

/// Why a head or trailers are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// They break a rule of HTTP/3: the stream ends.
    #[error("malformed message: {reason}")]
    Malformed {
        /// Which rule.
        reason: &'static str,
    },
    /// They can't be decoded (the connection ends), or are beyond a limit (the answer is 431).
    #[error(transparent)]
    Section(#[from] SectionError),
}

impl HeadError {
    /// The code to reset the stream or close the connection with.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Malformed { .. } => Code::H3_MESSAGE_ERROR,
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

const fn malformed(reason: &'static str) -> HeadError {
    HeadError::Malformed { reason }
}

/// Reads the head of a request: the payload of its first HEADERS frame. Values share memory with it.
///
/// # Errors
///
/// [`HeadError`], for the first rule that is broken.
pub fn decode_request(payload: Bytes, limits: &Limits) -> Result<RequestHead, HeadError> {
    let mut section = Section::new(payload, limits)?;
    let mut pseudo = Pseudo::default();
    let mut fields = Fields::default();
    while let Some(field) = section.next_field()? {
        if field.name().first() == Some(&b':') {
            if fields.any {
                return Err(malformed("a pseudo-header field after a header field"));
            }
            pseudo.add(field)?;
        } else {
            fields.add(field)?;
        }
    }
    let (headers, content_length) = fields.finish()?;
    let (method, uri, protocol) = pseudo.target(&headers)?;
    if method == Method::CONNECT && content_length.is_some() {
        return Err(malformed("a content-length for CONNECT"));
    }
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri;
    parts.version = Version::HTTP_3;
    parts.headers = headers;
    if let Some(protocol) = protocol {
        parts.extensions.insert(Protocol(protocol.into()));
    }
    Ok(RequestHead { parts, content_length })
}

/// Reads the trailers of a request: the payload of its last HEADERS frame.
///
/// # Errors
///
/// [`HeadError`], for the first rule that is broken.
pub fn decode_trailers(payload: Bytes, limits: &Limits) -> Result<HeaderMap, HeadError> {
    let mut section = Section::new(payload, limits)?;
    let mut fields = Fields::default();
    while let Some(field) = section.next_field()? {
        if field.name().first() == Some(&b':') {
            return Err(malformed("a pseudo-header field in trailers"));
        }
        fields.add(field)?;
    }
    let (trailers, _) = fields.finish()?;
    // What frames or routes a message has to be known before its body (RFC 9110 6.5.1).
    if trailers.contains_key(header::CONTENT_LENGTH) || trailers.contains_key(header::HOST) {
        return Err(malformed("a field in trailers that belongs into the head"));
    }
    Ok(trailers)
}
