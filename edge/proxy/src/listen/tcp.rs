//! HTTP/1.1 in the clear, HTTP/1.1 or HTTP/2 over TLS.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::Lifecycle;
use crate::{
    body::Body,
    config::Limits,
    gateway::{ClientInfo, Gateway, Protocol},
};

/// Pause after a failed `accept` (no descriptors left): others must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Flow control per HTTP/2 stream; also what an unread upload may hold.
const H2_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Flow control per HTTP/2 connection.
const H2_CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Unsent answer bytes per HTTP/2 stream.
const H2_SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Streams reset before they were accepted (rapid reset); more end the connection.
const H2_PENDING_RESETS_MAX: usize = 20;

/// Accepts until drained.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    gateway: Arc<Gateway>,
    life: Lifecycle,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = life.drain.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot accept");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = life.place() else {
            tracing::debug!(%peer, "too many connections: one was closed");
            continue;
        };
        let connection = connection(stream, peer, tls.clone(), Arc::clone(&gateway), life.clone());
        life.spawn(async move {
            connection.await;
            drop(place);
        });
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    gateway: Arc<Gateway>,
    life: Lifecycle,
) {
    // A client that takes no bytes for so long is gone, whatever its TCP says.
    let silence_ms =
        u32::try_from(gateway.limits.body_idle_timeout.as_millis()).unwrap_or(u32::MAX);
    if stream.set_nodelay(true).is_err()
        || setsockopt(&stream, sockopt::TcpUserTimeout, &silence_ms).is_err()
    {
        return tracing::debug!(%peer, "connection is gone");
    }
    let mut client = ClientInfo { peer, protocol: Protocol::H1, tls: tls.is_some() };
    let Some(acceptor) = tls else {
        return serve_h1(stream, client, gateway, &life).await;
    };
    match timeout(gateway.limits.handshake_timeout, acceptor.accept(stream)).await {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            client.protocol = Protocol::H2;
            serve_h2(stream, client, gateway, life).await;
        }
        Ok(Ok(stream)) => serve_h1(stream, client, gateway, &life).await,
        Ok(Err(error)) => {
            tracing::debug!(%peer, error = &error as &dyn std::error::Error, "no TLS handshake");
        }
        Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
    }
}

fn service(
    gateway: Arc<Gateway>,
    client: ClientInfo,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Future<Output = Result<Response<Body>, Infallible>> + Send,
> + Send {
    service_fn(move |request: Request<Incoming>| {
        let gateway = Arc::clone(&gateway);
        async move {
            let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            Ok(gateway.serve(client, request).await)
        }
    })
}

async fn serve_h1<S>(stream: S, client: ClientInfo, gateway: Arc<Gateway>, life: &Lifecycle)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let serving = h1_builder(&gateway.limits)
        .serve_connection(TokioIo::new(stream), service(gateway, client))
        .with_upgrades();
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = life.drain.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    log_end(ended, &client);
}

async fn serve_h2<S>(stream: S, client: ClientInfo, gateway: Arc<Gateway>, life: Lifecycle)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let serving = h2_builder(&gateway.limits, Streams(life.clone()))
        .serve_connection(TokioIo::new(stream), service(gateway, client));
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = life.drain.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    log_end(ended, &client);
}

fn log_end(ended: hyper::Result<()>, client: &ClientInfo) {
    if let Err(error) = ended {
        let error: &dyn std::error::Error = &error;
        tracing::debug!(peer = %client.peer, error, "connection ended early");
    }
}

fn h1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .max_headers(limits.max_headers)
        .max_header_size(limits.max_header_bytes as usize);
    builder
}

fn h2_builder(limits: &Limits, streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(limits.max_header_bytes)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS_MAX)
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(H2_SEND_BUFFER_BYTES)
        .keep_alive_interval(limits.idle_timeout / 2)
        .keep_alive_timeout(limits.idle_timeout / 2);
    builder
}

/// Runs HTTP/2 streams where they are waited for and cut.
#[derive(Debug, Clone)]
struct Streams(Lifecycle);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}
