//! Fields, one after the other, as a request's head or as trailers.

use std::{fmt, sync::Arc};

use http::{HeaderMap, Method, Version, header, request};

use crate::{Field, rules::Fields, target::Pseudo};

/// Which rule a message breaks (RFC 9113 8.1.1, RFC 9114 4.1.2): its stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub &'static str);

/// What an extended CONNECT asks to speak (`:protocol`, RFC 8441, RFC 9220), such as `websocket`. It is
/// an extension of the request.
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
    /// Whether nothing but DATA may follow, which is the tunnel's (RFC 9113 8.5, RFC 9114 4.4).
    #[must_use]
    pub fn is_connect(&self) -> bool {
        self.parts.method == Method::CONNECT
    }
}

/// The fields of a request's head so far.
#[derive(Debug, Default)]
pub struct RequestFields {
    pseudo: Pseudo,
    fields: Fields,
}

impl RequestFields {
    /// Takes the next field.
    ///
    /// # Errors
    ///
    /// [`Malformed`], if it breaks a rule by itself or for what came before it.
    #[inline]
    pub fn add(&mut self, field: Field) -> Result<(), Malformed> {
        if field.name().first() != Some(&b':') {
            return self.fields.add(field);
        }
        if self.fields.any {
            return Err(Malformed("a pseudo-header field after a header field"));
        }
        self.pseudo.add(field)
    }

    /// The head that they are.
    ///
    /// # Errors
    ///
    /// [`Malformed`], for what is missing or does not fit.
    pub fn finish(self, version: Version) -> Result<RequestHead, Malformed> {
        let (headers, content_length) = self.fields.finish()?;
        let (method, uri, protocol) = self.pseudo.target(&headers)?;
        if method == Method::CONNECT && content_length.is_some() {
            return Err(Malformed("a content-length for CONNECT"));
        }
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = method;
        parts.uri = uri;
        parts.version = version;
        parts.headers = headers;
        if let Some(protocol) = protocol {
            parts.extensions.insert(Protocol(protocol.into()));
        }
        Ok(RequestHead { parts, content_length })
    }
}

/// The fields of trailers so far.
#[derive(Debug, Default)]
pub struct TrailerFields(Fields);

impl TrailerFields {
    /// Takes the next field.
    ///
    /// # Errors
    ///
    /// [`Malformed`], if it may not be there.
    pub fn add(&mut self, field: Field) -> Result<(), Malformed> {
        if field.name().first() == Some(&b':') {
            return Err(Malformed("a pseudo-header field in trailers"));
        }
        self.0.add(field)
    }

    /// The trailers that they are.
    ///
    /// # Errors
    ///
    /// [`Malformed`], if there is a field that belongs into the head.
    pub fn finish(self) -> Result<HeaderMap, Malformed> {
        let (trailers, _) = self.0.finish()?;
        // What frames or routes a message has to be known before its body (RFC 9110 6.5.1).
        if trailers.contains_key(header::CONTENT_LENGTH) || trailers.contains_key(header::HOST) {
            return Err(Malformed("a field in trailers that belongs into the head"));
        }
        Ok(trailers)
    }
}
