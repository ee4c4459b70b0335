//! One HTTP/1.1 connection per call, over whatever reaches the guest.
//!
//! # Invariants
//!
//! - A connection serves one call. Its driver task ends when the answer's body is dropped.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use connectrpc::{
    ConnectError,
    client::{ClientBody, ClientTransport},
};
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

/// A two-way byte stream to the guest.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Reaches the guest daemon: dials its port in the sandbox's network.
///
/// Any `Fn() -> impl Future<Output = io::Result<stream>>` is one.
pub trait Connect: Send + Sync + 'static {
    /// Opens a new connection.
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>>;
}

impl<F, Fut, S> Connect for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = io::Result<S>> + Send + 'static,
    S: Io,
{
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let dial = self();
        Box::pin(async move { Ok(Box::new(dial.await?) as Box<dyn Io>) })
    }
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("dial failed")]
    Dial(#[source] io::Error),
    #[error("connection broke")]
    Http(#[from] hyper::Error),
}

/// Sends each request over a connection of its own.
#[derive(Clone)]
pub(crate) struct Transport {
    connector: Arc<dyn Connect>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

impl Transport {
    pub(crate) fn new(connector: Arc<dyn Connect>) -> Self {
        Self { connector }
    }

    /// Dials, sends, and returns as soon as the answer's headers are there.
    pub(crate) async fn request<B>(
        &self,
        mut request: Request<B>,
    ) -> Result<Response<AnswerBody>, SendError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let io = self.connector.connect().await.map_err(SendError::Dial)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            // What goes wrong here is reported by the sender or the body.
            let _ = connection.await;
        }));
        // Origin form, as HTTP/1.1 servers expect it.
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(http::Uri::default, http::Uri::from);
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("envd"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let response = sender.send_request(request).await?;
        Ok(response.map(|body| AnswerBody { body, _driver: driver }))
    }
}

impl ClientTransport for Transport {
    type ResponseBody = AnswerBody;
    type Error = ConnectError;

    fn send(
        &self,
        request: Request<ClientBody>,
    ) -> BoxFuture<'static, Result<Response<AnswerBody>, ConnectError>> {
        let transport = self.clone();
        Box::pin(async move {
            let send = transport.request(request).await;
            send.map_err(|error| ConnectError::unavailable_from_transport("envd", error))
        })
    }
}

/// The body of an answer; keeps its connection alive, and ends it when dropped.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    body: Incoming,
    _driver: AbortOnDropHandle<()>,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
