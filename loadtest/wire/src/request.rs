//! A request, prepared once and sent often.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};

use crate::CallError;

/// Longest for a request, from its first byte to the last of its answer, unless it says otherwise.
const CALL_MAX: Duration = Duration::from_secs(60);

/// A request. Cheap to clone; what is sent of it is prepared once.
#[derive(Debug, Clone)]
pub struct Request {
    inner: Arc<Inner>,
    nonce: Option<(HeaderName, HeaderValue)>,
    within: Duration,
}

#[derive(Debug, Clone)]
struct Inner {
    method: Method,
    path: String,
    headers: HeaderMap,
    pieces: Vec<Bytes>,
    prepared: OnceLock<Prepared>,
}

/// What every sending of a request has in common.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    target: PathAndQuery,
    /// The first line of HTTP/1.1.
    pub(crate) line: Box<[u8]>,
    /// The header lines of HTTP/1.1 but the host's.
    pub(crate) fields: Box<[u8]>,
    /// Whether the headers name a host.
    pub(crate) has_host: bool,
    /// Whether the body is sent in chunks, where it has to be said how.
    pub(crate) chunked: bool,
}

impl Request {
    /// A GET of a path and query.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// A request without a body.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        let inner = Inner {
            method,
            path: path.into(),
            headers: HeaderMap::new(),
            pieces: Vec::new(),
            prepared: OnceLock::new(),
        };
        Self { inner: Arc::new(inner), nonce: None, within: CALL_MAX }
    }

    fn edit(&mut self) -> &mut Inner {
        let inner = Arc::make_mut(&mut self.inner);
        inner.prepared = OnceLock::new();
        inner
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.edit().headers.append(name, value);
        self
    }

    /// Gives it a body, sent piece by piece and without a length (unless a header has one).
    #[must_use]
    pub fn body(mut self, pieces: Vec<Bytes>) -> Self {
        self.edit().pieces = pieces;
        self
    }

    /// Gives it a body of a known length.
    #[must_use]
    pub fn content(mut self, content: Bytes) -> Self {
        let inner = self.edit();
        inner.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(content.len()));
        inner.pieces = vec![content];
        self
    }

    /// Bounds it, from its first byte to the last of its answer.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Sets the one header that differs from sending to sending. Nothing is prepared anew.
    pub fn set_nonce(&mut self, name: HeaderName, value: HeaderValue) {
        self.nonce = Some((name, value));
    }

    /// How long it may take.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.within
    }

    /// Bytes of its body.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.inner.pieces.iter().map(Bytes::len).sum()
    }

    pub(crate) fn method(&self) -> &Method {
        &self.inner.method
    }

    pub(crate) fn pieces(&self) -> &[Bytes] {
        &self.inner.pieces
    }

    pub(crate) fn nonce(&self) -> Option<&(HeaderName, HeaderValue)> {
        self.nonce.as_ref()
    }

    pub(crate) fn prepared(&self) -> Result<&Prepared, CallError> {
        if let Some(prepared) = self.inner.prepared.get() {
            return Ok(prepared);
        }
        let prepared = Prepared::of(&self.inner)?;
        Ok(self.inner.prepared.get_or_init(|| prepared))
    }

    /// The head, its target in absolute form, as HTTP/2 and HTTP/3 take it.
    pub(crate) fn head(
        &self,
        scheme: &Scheme,
        authority: &Authority,
    ) -> Result<http::Request<()>, CallError> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(scheme.clone());
        uri.authority = Some(authority.clone());
        uri.path_and_query = Some(self.prepared()?.target.clone());
        let mut head = http::Request::new(());
        *head.method_mut() = self.inner.method.clone();
        *head.uri_mut() =
            Uri::from_parts(uri).map_err(CallError::at("write the request's head"))?;
        *head.headers_mut() = self.inner.headers.clone();
        if let Some((name, value)) = &self.nonce {
            head.headers_mut().insert(name.clone(), value.clone());
        }
        Ok(head)
    }
}

impl Prepared {
    fn of(request: &Inner) -> Result<Self, CallError> {
        const STEP: &str = "write the request's head";
        let Inner { method, path, headers, pieces, .. } = request;
        let target: PathAndQuery = path.parse().map_err(CallError::at(STEP))?;
        if !target.as_str().starts_with(['/', '*']) {
            return Err(CallError::at(STEP)("a path begins with `/`"));
        }
        let line = format!("{method} {target} HTTP/1.1\r\n").into_bytes().into();
        let mut fields = Vec::new();
        for (name, value) in headers {
            push_field(&mut fields, name, value);
        }
        let chunked = !pieces.is_empty() && !headers.contains_key(header::CONTENT_LENGTH);
        if chunked {
            let how = HeaderValue::from_static("chunked");
            push_field(&mut fields, &header::TRANSFER_ENCODING, &how);
        }
        let has_host = headers.contains_key(header::HOST);
        Ok(Self { target, line, fields: fields.into(), has_host, chunked })
    }
}

/// Writes a header line.
pub(crate) fn push_field(into: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    into.extend_from_slice(name.as_str().as_bytes());
    into.extend_from_slice(b": ");
    into.extend_from_slice(value.as_bytes());
    into.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changing_a_request_prepares_it_anew_and_leaves_its_clones() {
        let first = Request::get("/a?b=1");
        assert_eq!(&*first.prepared().unwrap().line, b"GET /a?b=1 HTTP/1.1\r\n");
        let name = HeaderName::from_static("x-a");
        let second = first.clone().header(name, HeaderValue::from_static("1"));
        assert_eq!(&*second.prepared().unwrap().fields, b"x-a: 1\r\n");
        assert!(first.prepared().unwrap().fields.is_empty());
    }

    #[test]
    fn a_path_cannot_smuggle_lines() {
        for path in ["/ HTTP/1.1\r\nx: y", "/a b", "/\n", "http://other/"] {
            assert!(Request::get(path).prepared().is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_body_has_a_length_or_chunks() {
        let post = Request::new(Method::POST, "/");
        assert!(!post.prepared().unwrap().chunked);
        assert!(post.clone().body(vec![Bytes::from_static(b"a")]).prepared().unwrap().chunked);
        let sized = post.content(Bytes::from_static(b"abc"));
        assert_eq!(&*sized.prepared().unwrap().fields, b"content-length: 3\r\n");
        assert!(!sized.prepared().unwrap().chunked);
    }
}
