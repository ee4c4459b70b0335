//! HTTP/3 over QUIC.

use std::{
    fmt,
    future::poll_fn,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes};
use h3::client::{RequestStream, SendRequest};
use h3_quinn::{BidiStream, OpenStreams};
use http::{Version, response::Parts};
use quinn::{TransportConfig, VarInt, crypto::rustls::QuicClientConfig};

use crate::{CallError, Request, Stack};

/// How often a quiet connection is heard of.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long a server may be silent, milliseconds.
const SILENCE_MAX: VarInt = VarInt::from_u32(5000);

/// One connection.
pub(crate) struct Sender {
    authority: String,
    requests: SendRequest<OpenStreams, Bytes>,
    // It carries the connection's packets for as long as it lives.
    endpoint: quinn::Endpoint,
}

/// A body that is still coming.
pub(crate) struct Body {
    stream: RequestStream<BidiStream<Bytes>, Bytes>,
    // A connection ends with its last sender.
    _requests: SendRequest<OpenStreams, Bytes>,
    _endpoint: quinn::Endpoint,
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

/// Connects.
pub(crate) async fn open(
    stack: &Stack,
    host: &str,
    authority: String,
) -> Result<Sender, CallError> {
    const STEP: &str = "connect over QUIC";
    let crypto = QuicClientConfig::try_from(stack.tls(b"h3")).map_err(CallError::at(STEP))?;
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let mut endpoint = quinn::Endpoint::client(any).map_err(CallError::at(STEP))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    endpoint.set_default_client_config(config);
    let connecting = endpoint.connect(stack.secure_address(), host);
    let connection = connecting.map_err(CallError::at(STEP))?.await.map_err(CallError::at(STEP))?;
    let (mut driver, requests) = h3::client::new(h3_quinn::Connection::new(connection))
        .await
        .map_err(CallError::at("begin HTTP/3"))?;
    // Its errors reach us through the requests on the connection.
    tokio::spawn(async move { poll_fn(|context| driver.poll_close(context)).await });
    Ok(Sender { authority, requests, endpoint })
}

/// A server that was killed says nothing: its silence is noticed soon.
fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(KEEP_ALIVE)).max_idle_timeout(Some(SILENCE_MAX.into()));
    transport
}

impl Sender {
    pub(crate) async fn start(&mut self, request: Request) -> Result<(Parts, Body), CallError> {
        const SEND: &str = "send the request";
        let head = request.head(&self.authority)?;
        let mut stream = self.requests.send_request(head).await.map_err(CallError::at(SEND))?;
        for piece in request.pieces {
            stream.send_data(piece).await.map_err(CallError::at(SEND))?;
        }
        stream.finish().await.map_err(CallError::at(SEND))?;
        let response = stream.recv_response().await;
        let (mut parts, ()) = response.map_err(CallError::at("read the answer"))?.into_parts();
        parts.version = Version::HTTP_3;
        let (_requests, _endpoint) = (self.requests.clone(), self.endpoint.clone());
        Ok((parts, Body { stream, _requests, _endpoint }))
    }
}

/// The next piece of a body.
pub(crate) async fn next(body: &mut Body) -> Result<Option<Bytes>, CallError> {
    let data = body.stream.recv_data().await.map_err(CallError::at("read the answer's body"))?;
    Ok(data.map(|mut data| data.copy_to_bytes(data.remaining())))
}
