//! HTTP/1.1 and HTTP/2 over TCP.

use std::{convert::Infallible, fmt, sync::Arc};

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Uri, header, response::Parts};
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{CallError, Request, Stack};

type Upload = UnsyncBoxBody<Bytes, Infallible>;

/// One connection.
pub(crate) struct Sender {
    /// The `Host` header, or `:authority`.
    authority: String,
    protocol: Protocol,
}

enum Protocol {
    H1(http1::SendRequest<Upload>),
    H2(http2::SendRequest<Upload>),
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// Connects over TLS and insists on the protocol.
pub(crate) async fn open(
    stack: &Stack,
    host: &str,
    authority: String,
    http2: bool,
) -> Result<Sender, CallError> {
    const STEP: &str = "connect over TLS";
    let alpn: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
    let stream = dial(stack.secure_address()).await?;
    let name = ServerName::try_from(host.to_owned()).map_err(CallError::at(STEP))?;
    let connector = TlsConnector::from(Arc::new(stack.tls(alpn)));
    let stream = connector.connect(name, stream).await.map_err(CallError::at(STEP))?;
    if stream.get_ref().1.alpn_protocol() != Some(alpn) {
        let asked = String::from_utf8_lossy(alpn);
        return Err(CallError::at(STEP)(format!("the stack does not speak {asked}")));
    }
    let protocol = if http2 { h2(stream).await? } else { h1(stream).await? };
    Ok(Sender { authority, protocol })
}

/// Connects in the clear.
pub(crate) async fn plain(stack: &Stack, host: &str) -> Result<Sender, CallError> {
    let protocol = h1(dial(stack.plain_address()).await?).await?;
    Ok(Sender { authority: host.to_owned(), protocol })
}

async fn dial(address: std::net::SocketAddr) -> Result<TcpStream, CallError> {
    const STEP: &str = "connect";
    let stream = TcpStream::connect(address).await.map_err(CallError::at(STEP))?;
    stream.set_nodelay(true).map_err(CallError::at(STEP))?;
    Ok(stream)
}

// The connections' own errors reach us through the requests on them.

async fn h1<S>(stream: S) -> Result<Protocol, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(CallError::at("begin HTTP/1.1"))?;
    tokio::spawn(connection);
    Ok(Protocol::H1(sender))
}

async fn h2<S>(stream: S) -> Result<Protocol, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(CallError::at("begin HTTP/2"))?;
    tokio::spawn(connection);
    Ok(Protocol::H2(sender))
}

impl Sender {
    pub(crate) async fn start(&mut self, request: Request) -> Result<(Parts, Incoming), CallError> {
        const STEP: &str = "send the request";
        let response = match &mut self.protocol {
            Protocol::H1(sender) => {
                sender.ready().await.map_err(CallError::at(STEP))?;
                let request = origin_form(&self.authority, request)?;
                sender.send_request(request).await
            }
            Protocol::H2(sender) => {
                sender.ready().await.map_err(CallError::at(STEP))?;
                let (parts, ()) = request.head(&self.authority)?.into_parts();
                let request = http::Request::from_parts(parts, upload(request.pieces));
                sender.send_request(request).await
            }
        };
        Ok(response.map_err(CallError::at(STEP))?.into_parts())
    }
}

/// HTTP/1.1 has the path in its first line and the host in a header, which may be malformed.
fn origin_form(authority: &str, request: Request) -> Result<http::Request<Upload>, CallError> {
    const STEP: &str = "write the request's head";
    let path: Uri = request.path.parse().map_err(CallError::at(STEP))?;
    let host: HeaderValue = authority.parse().map_err(CallError::at(STEP))?;
    let Request { method, headers, pieces, .. } = request;
    let mut request = http::Request::new(upload(pieces));
    *request.method_mut() = method;
    *request.uri_mut() = path;
    *request.headers_mut() = headers;
    request.headers_mut().insert(header::HOST, host);
    Ok(request)
}

fn upload(pieces: Vec<Bytes>) -> Upload {
    if pieces.is_empty() {
        return Empty::new().boxed_unsync();
    }
    let frames = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

/// The next piece of a body.
pub(crate) async fn next(body: &mut Incoming) -> Result<Option<Bytes>, CallError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(CallError::at("read the answer's body"))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
