//! An HTTP connection into a guest: how is a request put on it?

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, Version, header, uri::Scheme};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle, task::TaskTracker};

use super::{
    HEAD_BYTES_MAX,
    wire::{Line, Wire},
};

/// Flow control of one stream, bytes.
pub(super) const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// Flow control of one connection, bytes.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// A connection for one request after the other.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) sender: http1::SendRequest<ToGuest>,
    pub(super) line: Line,
    pub(super) epoch: u64,
    _driver: AbortOnDropHandle<()>,
}

/// A connection for many streams at once.
#[derive(Debug)]
pub(super) struct Stream2 {
    pub(super) sender: http2::SendRequest<ToGuest>,
    pub(super) line: Line,
    pub(super) epoch: u64,
    _driver: AbortOnDropHandle<()>,
}

impl Conn {
    pub(super) async fn open(
        stream: TcpStream,
        cut: CancellationToken,
        epoch: u64,
    ) -> hyper::Result<Self> {
        let (wire, line) = Wire::new(stream, cut);
        let (sender, connection) = http1::handshake(TokioIo::new(wire)).await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            // What goes wrong here is reported by the sender or the body.
            let _ = connection.with_upgrades().await;
        }));
        Ok(Self { sender, line, epoch, _driver: driver })
    }

    /// Whether the guest may be believed to still read what is sent.
    pub(super) fn is_alive(&self) -> bool {
        !self.sender.is_closed() && self.line.is_quiet()
    }
}

impl Stream2 {
    pub(super) async fn open(
        stream: TcpStream,
        cut: CancellationToken,
        epoch: u64,
    ) -> hyper::Result<Self> {
        let (wire, line) = Wire::new(stream, cut);
        let (sender, connection) = http2::Builder::new(Tracked::default())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(wire))
            .await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            let _ = connection.await;
        }));
        Ok(Self { sender, line, epoch, _driver: driver })
    }

    /// Whether it takes another stream. What came and was not read yet is the connection's own.
    pub(super) fn is_alive(&self) -> bool {
        !self.sender.is_closed()
    }
}

/// Runs the small tasks of an HTTP/2 connection. Each ends with its connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        self.0.spawn(work);
    }
}

/// A request's body on its way to a guest.
#[derive(Debug)]
pub(super) enum ToGuest {
    /// There is none.
    Empty,
    /// As it comes from the edge.
    Live(Incoming),
}

impl HttpBody for ToGuest {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Live(body) => Pin::new(body).poll_frame(cx).map_ok(|mut frame| {
                super::body::scrub(&mut frame);
                frame
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Live(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Live(body) => body.size_hint(),
        }
    }
}

/// How a guest is spoken to.
#[derive(Debug, Clone)]
pub(super) enum Manner {
    /// HTTP/1.1, the connection may be kept.
    Keep,
    /// HTTP/1.1, one request on its own connection.
    Close,
    /// HTTP/1.1, then another protocol.
    Upgrade(HeaderValue),
    /// HTTP/2 by prior knowledge.
    H2c {
        /// The answer may have trailers.
        trailers: bool,
    },
}

/// The request as its guest shall see it.
pub(super) fn for_guest(request: Request<Incoming>, manner: &Manner) -> Request<ToGuest> {
    let (mut parts, body) = request.into_parts();
    parts.extensions = http::Extensions::new(); // the edge's connection is none of the guest's
    let body = if body.is_end_stream() { ToGuest::Empty } else { ToGuest::Live(body) };
    let authority = parts.uri.authority().cloned();
    let path = parts.uri.path_and_query().cloned();
    let headers = &mut parts.headers;
    parts.version = Version::HTTP_11;
    parts.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    if let Some(authority) = &authority
        && !headers.contains_key(header::HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(header::HOST, host);
    }
    match manner {
        Manner::Keep => {}
        Manner::Close => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Manner::Upgrade(protocol) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, protocol.clone());
        }
        Manner::H2c { trailers } => {
            parts.version = Version::HTTP_2;
            let host = headers.remove(header::HOST);
            let host = host.and_then(|host| host.to_str().ok()?.parse().ok()).or(authority);
            parts.uri = with_authority(std::mem::take(&mut parts.uri), host);
            if *trailers {
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
            }
        }
    }
    Request::from_parts(parts, body)
}

fn with_authority(uri: Uri, authority: Option<http::uri::Authority>) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.unwrap_or_else(|| {
        http::uri::Authority::from_static("localhost") // `:authority` may not be left out of a URI
    }));
    Uri::from_parts(parts).unwrap_or(uri)
}

/// The same request once more, if repeating it does no harm (RFC 9110, 9.2.2) and nothing of it has
/// to be kept for that.
pub(super) fn spare(request: &Request<ToGuest>) -> Option<Request<ToGuest>> {
    let idempotent =
        request.method().is_safe() || [Method::PUT, Method::DELETE].contains(request.method());
    if !idempotent || !request.body().is_end_stream() {
        return None;
    }
    let mut again = Request::new(ToGuest::Empty);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    again.headers_mut().clone_from(request.headers());
    Some(again)
}

/// What an answer came by, which must outlive its body.
#[derive(Debug)]
pub(super) enum Used {
    /// Its own connection.
    H1(Conn),
    /// A stream of one.
    H2(#[allow(dead_code, reason = "held, not read")] Arc<Stream2>),
}
