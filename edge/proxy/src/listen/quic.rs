//! HTTP/3 over QUIC.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use h3::server::{RequestResolver, RequestStream};
use http::{Method, Response};
use http_body_util::BodyExt as _;
use nix::sys::socket::{setsockopt, sockopt};
use quinn::{
    EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::QuicServerConfig,
};
use tokio::{task::JoinSet, time::timeout};

use super::{
    BindError, Lifecycle, h3_body,
    h3_transport::{Connection, RecvStream, SendStream, StreamControl},
};
use crate::{
    TlsError,
    body::Body,
    config::Limits,
    gateway::{ClientInfo, Gateway, Protocol},
    tls::Identity,
};

/// `H3_NO_ERROR` (RFC 9114 8.1).
pub(super) const NO_ERROR: VarInt = VarInt::from_u32(0x100);
/// Flow control per stream; also what an unread upload may hold.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Flow control per connection (quinn's default is none).
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Unacknowledged answer bytes per connection.
const SEND_WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// Control and QPACK streams, and some to be skipped.
const UNI_STREAMS_MAX: u32 = 8;
/// Handshakes waiting to be looked at.
const INCOMING_MAX: usize = 1024;
/// Early bytes kept for all of them.
const INCOMING_BUFFER_BYTES: u64 = 16 * 1024 * 1024;
/// Kernel buffers of the UDP socket; the default is far too small for bursts.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Read ahead of a stream's body, beyond the largest head.
const READ_AHEAD_BYTES: usize = 128 * 1024;
/// How long a drained connection's last bytes have to be taken.
const LINGER: Duration = Duration::from_secs(1);

/// Opens the UDP socket.
pub(super) fn bind(
    address: SocketAddr,
    identity: &Arc<Identity>,
    limits: &Limits,
) -> Result<quinn::Endpoint, BindError> {
    let socket = |source| BindError::Socket { listener: "quic", address, source };
    let crypto = QuicServerConfig::try_from(identity.quic_config()?).map_err(|_| {
        TlsError::Unusable(rustls::Error::General("no initial cipher suite for QUIC".to_owned()))
    })?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport(limits)))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size_total(INCOMING_BUFFER_BYTES);
    let udp = std::net::UdpSocket::bind(address).map_err(socket)?;
    if setsockopt(&udp, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES).is_err()
        || setsockopt(&udp, sockopt::SndBuf, &SOCKET_BUFFER_BYTES).is_err()
    {
        tracing::warn!(%address, "the QUIC socket keeps its small buffers");
    }
    let endpoint = EndpointConfig::default();
    quinn::Endpoint::new(endpoint, Some(config), udp, Arc::new(TokioRuntime)).map_err(socket)
}

fn transport(limits: &Limits) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle_ms = u32::try_from(limits.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    transport
        .max_concurrent_bidi_streams(limits.max_streams.into())
        .max_concurrent_uni_streams(UNI_STREAMS_MAX.into())
        .max_idle_timeout(Some(VarInt::from_u32(idle_ms).into()))
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(CONNECTION_WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None);
    transport
}

/// Accepts until drained.
pub(super) async fn accept(endpoint: quinn::Endpoint, gateway: Arc<Gateway>, life: Lifecycle) {
    loop {
        let incoming = tokio::select! {
            biased;
            () = life.drain.cancelled() => return refuse_rest(&endpoint),
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        let Some(place) = life.place() else {
            incoming.refuse();
            continue;
        };
        // Under load an address must be shown to be real before it costs a handshake.
        let busy = life.permits.available_permits() < gateway.limits.max_connections / 2;
        if busy && !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry(); // it may: asked just before
            continue;
        }
        let connection = connection(incoming, Arc::clone(&gateway), life.clone());
        life.spawn(async move {
            connection.await;
            drop(place);
        });
    }
}

/// No new connections; those that are open go on.
fn refuse_rest(endpoint: &quinn::Endpoint) {
    endpoint.set_server_config(None);
}

async fn connection(incoming: Incoming, gateway: Arc<Gateway>, life: Lifecycle) {
    let peer = incoming.remote_address();
    let handshake = async { incoming.accept()?.await };
    let conn = match timeout(gateway.limits.handshake_timeout, handshake).await {
        Ok(Ok(conn)) => conn,
        Ok(Err(error)) => {
            tracing::debug!(%peer, error = &error as &dyn std::error::Error, "no QUIC handshake");
            return;
        }
        Err(_) => return tracing::debug!(%peer, "the QUIC handshake took too long"),
    };
    let stream_budget = gateway.limits.max_header_bytes as usize + READ_AHEAD_BYTES;
    let (transport, mut controls) = Connection::new(conn.clone(), stream_budget);
    let mut builder = h3::server::builder();
    // Above the real limit, so that the edge answers 431 itself: `h3`'s own answer is not finished.
    let section_bytes = u64::try_from(stream_budget).unwrap_or(u64::MAX);
    builder.max_field_section_size(section_bytes).send_grease(false);
    let building = builder.build::<_, Bytes>(transport);
    let Ok(Ok(mut h3)) = timeout(gateway.limits.handshake_timeout, building).await else {
        return conn.close(NO_ERROR, b"");
    };
    let client = ClientInfo { peer, protocol: Protocol::H3, tls: true };
    let mut requests = JoinSet::new();
    let mut draining = false;
    loop {
        if draining && requests.is_empty() {
            // The last answer may be unacknowledged, and closing now would discard it.
            let _ = timeout(LINGER, conn.closed()).await;
            break;
        }
        tokio::select! {
            biased;
            () = life.drain.cancelled(), if !draining => {
                draining = true;
                // One more may be under way; `shutdown(0)` would disown the last accepted one.
                let _ = timeout(LINGER, h3.shutdown(1)).await;
            }
            Some(_) = requests.join_next(), if !requests.is_empty() => {}
            accepted = h3.accept() => match accepted {
                Ok(Some(resolver)) => {
                    let Ok(control) = controls.try_recv() else { break };
                    let gateway = Arc::clone(&gateway);
                    requests.spawn(request(resolver, control, client, gateway));
                }
                Ok(None) => break,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(%peer, error, "connection ended");
                    break;
                }
            },
        }
    }
    // What is left has lost its connection; dropping it ends it upstream too.
}

async fn request(
    resolver: RequestResolver<Connection, Bytes>,
    mut control: StreamControl,
    client: ClientInfo,
    gateway: Arc<Gateway>,
) {
    let resolving = resolver.resolve_request();
    let resolved = timeout(gateway.limits.header_read_timeout, resolving).await;
    let Ok(Ok((head, stream))) = resolved else {
        // Malformed, too large or too slow: `h3` answered, or dropping resets the stream.
        return tracing::debug!(peer = %client.peer, "a request had no usable head");
    };
    control.budget.pause_when_spent();
    let (mut send, recv): (
        RequestStream<SendStream<Bytes>, Bytes>,
        RequestStream<RecvStream, Bytes>,
    ) = stream.split();
    let is_head = head.method() == Method::HEAD;
    let answering = async {
        let request = h3_body::attach(head, recv, control.budget.clone()).await;
        let response = Arc::clone(&gateway).serve(client, request).await;
        respond(&mut send, response, is_head, gateway.limits.body_idle_timeout).await
    };
    let outcome = tokio::select! {
        outcome = answering => outcome,
        () = &mut control.stopped => Err("the client stopped the answer".into()),
    };
    if let Err(error) = outcome {
        // Dropping the stream resets it: the client must not take the answer for complete.
        tracing::debug!(peer = %client.peer, error = &*error, "an answer was not sent whole");
    }
}

async fn respond(
    send: &mut RequestStream<SendStream<Bytes>, Bytes>,
    response: Response<Body>,
    is_head: bool,
    patience: Duration,
) -> Result<(), crate::BoxError> {
    let (parts, mut body) = response.into_parts();
    let head = Response::from_parts(parts, ());
    timeout(patience, send.send_response(head)).await??;
    while let Some(frame) = body.frame().await {
        if is_head {
            continue;
        }
        match frame?.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => timeout(patience, send.send_data(data)).await??,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    timeout(patience, send.send_trailers(trailers)).await??;
                }
            }
        }
    }
    timeout(patience, send.finish()).await??;
    Ok(())
}
