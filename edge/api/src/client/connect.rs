//! Opens one HTTP/1.1 connection to the API, in the clear or over TLS.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{ClientError, Endpoint};

/// Longest time to open a connection, TLS included.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Connects and starts the task that drives the connection; it ends with the connection.
pub(super) async fn connect(endpoint: &Endpoint) -> Result<SendRequest<Full<Bytes>>, ClientError> {
    let url = &endpoint.url;
    let bad = |reason| ClientError::BadEndpoint { url: url.clone(), reason };
    let host = url.host().ok_or_else(|| bad("it names no host"))?;
    let tls = match url.scheme_str() {
        Some("http") => None,
        Some("https") => Some(endpoint.tls.clone().ok_or_else(|| bad("no certificates given"))?),
        _ => return Err(bad("expected http:// or https://")),
    };
    let port = url.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let failed = |source| ClientError::Connect { address: format!("{host}:{port}"), source };
    let open = async {
        let stream = dial(endpoint.connect, host, port).await.map_err(failed)?;
        let Some(config) = tls else { return handshake(stream).await };
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|_| bad("its host is no name a certificate can have"))?;
        let stream =
            tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(failed)?;
        handshake(stream).await
    };
    tokio::time::timeout(CONNECT_DEADLINE, open)
        .await
        .unwrap_or_else(|_| Err(failed(io::ErrorKind::TimedOut.into())))
}

async fn dial(fixed: Option<SocketAddr>, host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = match fixed {
        Some(address) => TcpStream::connect(address).await?,
        // RFC 6761: these names are loopback whatever the resolver thinks.
        None if host == "localhost" || host.ends_with(".localhost") => {
            TcpStream::connect(("127.0.0.1", port)).await?
        }
        None => TcpStream::connect((host.trim_matches(['[', ']']), port)).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Http)?;
    // Its errors reach the caller through the request or the body.
    tokio::spawn(connection);
    Ok(sender)
}
