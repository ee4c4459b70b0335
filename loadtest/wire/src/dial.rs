//! Opens a connection, each phase timed.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use loadtest_model::Protocol;
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{CallError, Origin, origin::alpn};

/// How long the phases of opening a connection took; none where there was no such phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenTimes {
    /// Looking the name up.
    pub dns: Option<Duration>,
    /// The TCP connect.
    pub connect: Option<Duration>,
    /// The TLS or QUIC handshake.
    pub handshake: Option<Duration>,
}

/// A TCP connection, secured or not.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The addresses of an origin, every one of which may be called.
pub(crate) async fn resolve(
    origin: &Origin,
    times: &mut OpenTimes,
) -> Result<Vec<SocketAddr>, CallError> {
    let addresses = match origin.known_address() {
        Some(address) => vec![address],
        None => look_up(origin, times).await?,
    };
    // A name that leads elsewhere even once is not trusted at all.
    addresses.iter().try_for_each(|address| origin.guard().check(address.ip()))?;
    Ok(addresses)
}

async fn look_up(origin: &Origin, times: &mut OpenTimes) -> Result<Vec<SocketAddr>, CallError> {
    let failed = |source| CallError::Dns { host: origin.host().to_owned(), source };
    let began = Instant::now();
    let found = tokio::net::lookup_host((origin.host(), origin.port())).await.map_err(failed)?;
    times.dns = Some(began.elapsed());
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "it has no address")));
    }
    Ok(found)
}

/// Connects by TCP, and by TLS if the origin has it.
pub(crate) async fn dial(
    origin: &Origin,
    protocol: Protocol,
    times: &mut OpenTimes,
) -> Result<Stream, CallError> {
    let addresses = resolve(origin, times).await?;
    let began = Instant::now();
    let stream = connect(&addresses).await?;
    times.connect = Some(began.elapsed());
    let Some(config) = origin.tls(protocol) else { return Ok(Stream::Plain(stream)) };
    let began = Instant::now();
    let stream = secure(origin, protocol, config, stream).await?;
    times.handshake = Some(began.elapsed());
    Ok(Stream::Tls(Box::new(stream)))
}

async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, CallError> {
    let mut failure = None;
    for &address in addresses {
        match TcpStream::connect(address).await.and_then(|stream| {
            stream.set_nodelay(true)?;
            Ok(stream)
        }) {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                failure = Some(CallError::Connect { address, source: error.into() });
            }
        }
    }
    Err(failure.expect("a resolved name has at least one address"))
}

async fn secure(
    origin: &Origin,
    protocol: Protocol,
    config: &Arc<ClientConfig>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, CallError> {
    let asked = alpn(protocol);
    let name = ServerName::try_from(origin.host().to_owned())
        .map_err(CallError::at("use the host's name for TLS"))?;
    let connector = TlsConnector::from(Arc::clone(config));
    let stream = connector.connect(name, stream).await.map_err(|error| failed(error, asked))?;
    if stream.get_ref().1.alpn_protocol() != Some(asked.as_bytes()) {
        return Err(CallError::Alpn { asked });
    }
    Ok(stream)
}

fn failed(error: io::Error, asked: &'static str) -> CallError {
    let tls = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            CallError::Alpn { asked }
        }
        Some(_) => CallError::Tls { source: error.into() },
        None => CallError::lost("the TLS handshake")(error),
    }
}

impl Stream {
    /// Whether the server has not hung up. What else it may have said is found out by reading.
    pub(crate) fn is_open(&self) -> bool {
        let tcp = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        match tcp.poll_peek(&mut Context::from_waker(Waker::noop()), &mut byte) {
            Poll::Ready(Ok(bytes)) => bytes > 0,
            Poll::Ready(Err(_)) => false,
            Poll::Pending => true,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
