//! HTTP/3 over QUIC. A test peer: `h3` and its adapter as they are published.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use h3::{
    error::Code,
    server::{RequestResolver, RequestStream},
};
use h3_quinn::SendStream;
use http::{Method, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use nix::sys::socket::{setsockopt, sockopt};
use quinn::{EndpointConfig, Incoming, TransportConfig, VarInt, crypto::rustls::QuicServerConfig};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use crate::{
    ServeError,
    body::{Inbound, Outbound},
    certificate::Certificate,
    route,
    state::State,
    tasks::Tasks,
};

/// `H3_NO_ERROR` (RFC 9114 8.1).
pub(crate) const NO_ERROR: VarInt = VarInt::from_u32(0x100);
/// Streams of a connection.
const STREAMS_MAX: u32 = 1000;
/// A silent connection ends after so many milliseconds.
const IDLE_MAX_MS: u32 = 300_000;
/// The kernel's buffers of the UDP socket; the usual ones are too small for bursts.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// For a handshake and the first words of HTTP/3.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// For a request's head, and for a piece of an answer to be taken.
const PIECE_WAIT: Duration = Duration::from_secs(30);

type Sender = RequestStream<SendStream<Bytes>, Bytes>;

/// Opens the UDP socket.
pub(crate) fn bind(
    address: SocketAddr,
    certificate: &Certificate,
    tasks: &Tasks,
) -> Result<quinn::Endpoint, ServeError> {
    let crypto = QuicServerConfig::try_from(certificate.quic()?).map_err(|_| {
        ServeError::Tls(rustls::Error::General("no initial cipher suite for QUIC".to_owned()))
    })?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_MAX_MS).into()));
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    let open = || {
        let udp = std::net::UdpSocket::bind(address)?;
        // Without them bursts lose packets, which are sent again.
        let _ = setsockopt(&udp, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES);
        let _ = setsockopt(&udp, sockopt::SndBuf, &SOCKET_BUFFER_BYTES);
        let endpoint = EndpointConfig::default();
        quinn::Endpoint::new(endpoint, Some(config), udp, Arc::new(tasks.clone()))
    };
    open().map_err(|source| ServeError::Bind { address, transport: "UDP", source })
}

/// Accepts until the server stops.
pub(crate) async fn accept(endpoint: quinn::Endpoint, places: Arc<Semaphore>, state: Arc<State>) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let shared = Arc::clone(&state);
        state.tasks.spawn(async move {
            connection(incoming, shared).await;
            drop(place);
        });
    }
}

async fn connection(incoming: Incoming, state: Arc<State>) {
    let begin = async {
        let connection = incoming.accept().ok()?.await.ok()?;
        let mut builder = h3::server::builder();
        builder.send_grease(false);
        builder.build::<_, Bytes>(h3_quinn::Connection::new(connection)).await.ok()
    };
    // A handshake that doesn't come about is the client's to report.
    let Ok(Some(mut h3)) = timeout(HANDSHAKE_WAIT, begin).await else { return };
    // As many as QUIC allows streams. They end with the connection.
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = requests.join_next(), if !requests.is_empty() => {}
            accepted = h3.accept() => match accepted {
                Ok(Some(resolver)) => {
                    requests.spawn(request(resolver, Arc::clone(&state)));
                }
                Ok(None) | Err(_) => return,
            },
        }
    }
}

async fn request(resolver: RequestResolver<h3_quinn::Connection, Bytes>, state: Arc<State>) {
    let Ok(Ok((head, stream))) = timeout(PIECE_WAIT, resolver.resolve_request()).await else {
        return;
    };
    let is_head = head.method() == Method::HEAD;
    let (mut send, recv) = stream.split();
    let answer = route::answer(head.map(|()| Inbound::Quic(recv)), &state).await;
    let sent = match answer {
        Ok(response) => write(response, &mut send, is_head).await,
        Err(_) => None,
    };
    if sent.is_none() {
        // Dropped as it is, the stream would end as if the answer were whole.
        send.stop_stream(Code::H3_INTERNAL_ERROR);
    }
}

/// Sends it; none if not all of it.
async fn write(response: Response<Outbound>, send: &mut Sender, is_head: bool) -> Option<()> {
    let (mut parts, mut body) = response.into_parts();
    let is_bare = matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if let Some(bytes) = body.size_hint().exact().filter(|_| !is_bare) {
        // As hyper does for the others.
        parts.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| bytes.into());
    }
    let head = Response::from_parts(parts, ());
    timeout(PIECE_WAIT, send.send_response(head)).await.ok()?.ok()?;
    while let Some(frame) = body.frame().await {
        if is_head {
            break;
        }
        match frame.ok()?.into_data() {
            Ok(data) => timeout(PIECE_WAIT, send.send_data(data)).await.ok()?.ok()?,
            Err(frame) => {
                let trailers = frame.into_trailers().ok()?;
                timeout(PIECE_WAIT, send.send_trailers(trailers)).await.ok()?.ok()?;
            }
        }
    }
    timeout(PIECE_WAIT, send.finish()).await.ok()?.ok()
}
