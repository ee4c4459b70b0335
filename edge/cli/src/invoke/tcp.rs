//! HTTP/1.1 and HTTP/2 over TCP, with TLS where the target has it.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{Head, Sink, Target};
use crate::failure::Failure;

/// One connection; requests go one after the other.
pub(super) enum Sender {
    H1(http1::SendRequest<Full<Bytes>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

/// Connects, and negotiates exactly the protocol asked for.
pub(super) async fn open(
    target: &Target,
    address: SocketAddr,
    http2: bool,
) -> Result<Sender, Failure> {
    let failed = |e| Failure::local(format!("connect to {}:{}", target.host, target.port), e);
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let Some(tls) = &target.tls else { return handshake(stream, http2).await };
    let mut tls = rustls::ClientConfig::clone(tls);
    let protocol: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
    tls.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from(target.host.clone())
        .map_err(|_| Failure::Gave(format!("`{}` is no name of a server", target.host)))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let stream = connector.connect(name, stream).await.map_err(failed)?;
    if stream.get_ref().1.alpn_protocol() != Some(protocol) {
        let asked = String::from_utf8_lossy(protocol);
        return Err(Failure::Gave(format!("{} does not speak {asked}", target.host)));
    }
    handshake(stream, http2).await
}

async fn handshake<S>(stream: S, http2: bool) -> Result<Sender, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |e| Failure::local("open the HTTP connection", e);
    let stream = TokioIo::new(stream);
    // The connections' own errors reach us through the requests on them.
    if http2 {
        let handshake = http2::handshake(TokioExecutor::new(), stream);
        let (sender, connection) = handshake.await.map_err(failed)?;
        tokio::spawn(connection);
        Ok(Sender::H2(sender))
    } else {
        let (sender, connection) = http1::handshake(stream).await.map_err(failed)?;
        tokio::spawn(connection);
        Ok(Sender::H1(sender))
    }
}

impl Sender {
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::H1(sender) => sender.is_ready(),
            Self::H2(sender) => sender.is_ready(),
        }
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Bytes>,
        sink: &mut Sink<'_>,
    ) -> Result<Head, Failure> {
        let request = request.map(Full::new);
        let sent = match self {
            Self::H1(sender) => sender.send_request(origin_form(request)?).await,
            Self::H2(sender) => sender.send_request(request).await,
        };
        let response = sent.map_err(|e| Failure::local("send the request", e))?;
        let (parts, mut body) = response.into_parts();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| Failure::local("read the answer", e))?;
            if let Ok(data) = frame.into_data() {
                sink(&data)?;
            }
        }
        Ok(Head { status: parts.status, version: parts.version, headers: parts.headers })
    }
}

/// HTTP/1.1 wants the path in the request line and the host in its header.
fn origin_form(mut request: Request<Full<Bytes>>) -> Result<Request<Full<Bytes>>, Failure> {
    let unusable = |_| Failure::Usage("the path or the host has forbidden bytes".to_owned());
    let authority = request.uri().authority().map_or("", |authority| authority.as_str());
    let host: HeaderValue = authority.parse().map_err(unusable)?;
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    if !request.headers().contains_key(header::HOST) {
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(request)
}
