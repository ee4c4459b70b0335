//! HTTP/3 over QUIC.

use std::{
    cell::RefCell,
    fmt,
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes};
use h3::{
    client::{RequestStream, SendRequest},
    error::{ConnectionError, StreamError},
};
use h3_quinn::{BidiStream, OpenStreams, RecvStream, SendStream};
use http::{
    Version,
    uri::{Authority, Scheme},
};
use quinn::{TransportConfig, VarInt, crypto::rustls::QuicClientConfig};
use tokio::{
    runtime::{Handle, Id},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    CallError, OpenTimes, Origin, Request, answer::Head, dial, error::Source, origin::alpn,
    upload::Upload,
};

/// How often a quiet connection is heard of.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long a server may be silent, milliseconds.
const SILENCE_MAX: VarInt = VarInt::from_u32(5000);
/// So large that flow control is not what is measured, bytes.
const STREAM_WINDOW_BYTES: VarInt = VarInt::from_u32(16 << 20);
const CONNECTION_WINDOW_BYTES: VarInt = VarInt::from_u32(256 << 20);
/// `H3_NO_ERROR`.
const NO_ERROR: VarInt = VarInt::from_u32(0x100);

const HEAD: &str = "the answer's head";
const BODY: &str = "the answer's body";

/// A handle on a connection.
#[derive(Clone)]
pub(crate) struct Sender {
    requests: SendRequest<OpenStreams, Bytes>,
    authority: Authority,
    link: Arc<Link>,
}

/// What a connection needs for as long as it lives; it ends with the last who needs it.
struct Link {
    driver: JoinHandle<ConnectionError>,
    connection: quinn::Connection,
    /// Carries the packets.
    _endpoint: quinn::Endpoint,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.close(NO_ERROR, b"");
        self.driver.abort();
    }
}

/// A body that is still coming.
pub(crate) struct Body {
    stream: RequestStream<RecvStream, Bytes>,
    upload: Upload,
    // The library ends a connection with its last sender.
    sender: Sender,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

/// How connections are made with this way to secure them.
pub(crate) fn config(crypto: QuicClientConfig) -> quinn::ClientConfig {
    let mut transport = TransportConfig::default();
    // A server that was killed says nothing: its silence is noticed soon.
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(SILENCE_MAX.into()))
        .stream_receive_window(STREAM_WINDOW_BYTES)
        .receive_window(CONNECTION_WINDOW_BYTES)
        .send_window(CONNECTION_WINDOW_BYTES.into_inner());
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    config
}

/// An endpoint, the runtime it belongs to, and the address it is bound to.
type Kept = (Id, IpAddr, quinn::Endpoint);

thread_local! {
    // One socket for all connections of a worker; at most one per kind of address.
    static ENDPOINTS: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
}

fn endpoint(target: IpAddr) -> io::Result<quinn::Endpoint> {
    let bind: IpAddr = match target {
        IpAddr::V4(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let runtime = Handle::current().id();
    ENDPOINTS.with_borrow_mut(|kept| {
        if let Some((.., endpoint)) = kept.iter().find(|kept| (kept.0, kept.1) == (runtime, bind)) {
            return Ok(endpoint.clone());
        }
        // Those of a runtime that this thread has left are of no use any more.
        kept.retain(|kept| kept.0 == runtime);
        let endpoint = quinn::Endpoint::client(SocketAddr::new(bind, 0))?;
        kept.push((runtime, bind, endpoint.clone()));
        Ok(endpoint)
    })
}

/// Connects.
pub(crate) async fn open(origin: &Origin, times: &mut OpenTimes) -> Result<Sender, CallError> {
    let config = origin.quic()?;
    let authority =
        origin.authority().parse().map_err(CallError::at("say the host's name by HTTP/3"))?;
    let mut failure = None;
    for address in dial::resolve(origin, times).await? {
        let began = Instant::now();
        let endpoint = endpoint(address.ip()).map_err(CallError::at("make a socket for QUIC"))?;
        let connecting = endpoint
            .connect_with(config.clone(), address, origin.host())
            .map_err(CallError::at("begin to connect by QUIC"))?;
        match connecting.await {
            Ok(connection) => {
                times.handshake = Some(began.elapsed());
                return begin(connection, endpoint, authority).await;
            }
            Err(error) => failure = Some(refused(address, error)),
        }
    }
    Err(failure.expect("a resolved name has at least one address"))
}

async fn begin(
    connection: quinn::Connection,
    endpoint: quinn::Endpoint,
    authority: Authority,
) -> Result<Sender, CallError> {
    let begun = h3::client::new(h3_quinn::Connection::new(connection.clone())).await;
    let (mut driver, requests) = begun.map_err(|error| match connection.close_reason() {
        Some(reason) => ended("the begin of HTTP/3", &reason, error),
        None => CallError::protocol(error),
    })?;
    // Its errors reach us through the requests on the connection.
    let driver = tokio::spawn(async move { poll_fn(|context| driver.poll_close(context)).await });
    let link = Arc::new(Link { driver, connection, _endpoint: endpoint });
    Ok(Sender { requests, authority, link })
}

impl Sender {
    pub(crate) fn is_open(&self) -> bool {
        !self.link.driver.is_finished() && self.link.connection.close_reason().is_none()
    }

    pub(crate) async fn start(&mut self, request: &Request) -> Result<(Head, Body), CallError> {
        let head = request.head(&Scheme::HTTPS, &self.authority)?;
        let sent = self.requests.send_request(head).await;
        let stream = sent.map_err(|error| failed("the request", &self.link, error))?;
        let (send, mut stream): (RequestStream<SendStream<Bytes>, Bytes>, _) =
            RequestStream::<BidiStream<Bytes>, Bytes>::split(stream);
        let mut upload = Upload::of(upload(send, request.pieces().to_vec()));
        let response = upload.alongside(stream.recv_response()).await;
        let (parts, ()) = response.map_err(|error| failed(HEAD, &self.link, error))?.into_parts();
        let head = Head { status: parts.status, version: Version::HTTP_3, headers: parts.headers };
        Ok((head, Body { stream, upload, sender: self.clone() }))
    }
}

impl Body {
    /// The next piece.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let data = self.upload.alongside(self.stream.recv_data()).await;
        let data = data.map_err(|error| failed(BODY, &self.sender.link, error))?;
        Ok(data.map(|mut data| data.copy_to_bytes(data.remaining())))
    }
}

/// Sends a body, as fast as the server takes it.
async fn upload(
    mut stream: RequestStream<SendStream<Bytes>, Bytes>,
    pieces: Vec<Bytes>,
) -> Result<(), StreamError> {
    for piece in pieces {
        stream.send_data(piece).await?;
    }
    stream.finish().await
}

fn refused(address: SocketAddr, error: quinn::ConnectionError) -> CallError {
    /// A TLS alert comes as this and its number; 120 is `no_application_protocol`.
    const NO_PROTOCOL: u64 = 0x100 + 120;
    let code = match &error {
        quinn::ConnectionError::TransportError(error) => Some(u64::from(error.code)),
        quinn::ConnectionError::ConnectionClosed(close) => Some(u64::from(close.error_code)),
        _ => None,
    };
    match code {
        Some(NO_PROTOCOL) => CallError::Alpn { asked: alpn(loadtest_model::Protocol::H3) },
        Some(0x100..0x200) => CallError::Tls { source: error.into() },
        _ => CallError::Connect { address, source: error.into() },
    }
}

/// Why a request ended. The library's own words are not all public; the connection's are.
fn failed(step: &'static str, link: &Link, error: StreamError) -> CallError {
    if let Some(reason) = link.connection.close_reason() {
        return ended(step, &reason, error);
    }
    match error {
        StreamError::RemoteTerminate { .. } => CallError::Reset { step, source: error.into() },
        StreamError::HeaderTooBig { max_size, .. } => {
            let max_bytes = usize::try_from(max_size).unwrap_or(usize::MAX);
            CallError::TooLarge { what: HEAD, max_bytes }
        }
        StreamError::StreamError { .. } => CallError::protocol(error),
        // What is left: the server is going away.
        _ => CallError::Closed { step },
    }
}

fn ended(
    step: &'static str,
    reason: &quinn::ConnectionError,
    error: impl Into<Source>,
) -> CallError {
    use quinn::ConnectionError as E;
    match reason {
        E::ApplicationClosed(close) if close.error_code == NO_ERROR => CallError::Closed { step },
        // We close a connection when the server breaks HTTP/3, and QUIC does for its own reasons.
        E::LocallyClosed | E::TransportError(_) | E::VersionMismatch => CallError::protocol(error),
        _ => CallError::Reset { step, source: error.into() },
    }
}
