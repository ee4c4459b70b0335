//! The proxy listener: HTTP/1.1 or HTTP/2 (prior knowledge) from an edge to a port in a guest.
//!
//! ```text
//! token ─► target ─► lease │ awake(sandbox) ─► kept connection │ dial ─► stream both ways
//!                                                    end of body ─► lease ends │ connection kept
//! ```
//!
//! # Invariants
//!
//! - A function's sandbox serves one request. Its lease rides in the response body (or in the
//!   tunnel) and ends with it, however it ends.
//! - A connection into a guest belongs to that guest: none survives a generation, none is shared
//!   between sandboxes. Leases keep none.
//! - No header or trailer of ours reaches a guest, and none of its answers can pass for ours.
//! - An answer whose guest died breaks off; it never seems complete.
//!
//! # Limits
//!
//! `proxy_connections_max` connections; 64 KiB of head; first byte within `response_wait_ms`; per
//! HTTP/2 connection 128 streams, 256 KiB each and 1 MiB in all in flight. 1xx answers reach edges
//! that speak HTTP/1.1 only.

mod body;
mod conn;
mod error;
mod exchange;
mod forward;
mod head;
mod inward;
mod links;
mod reach;
#[cfg(test)]
mod tests;
mod upstream;
mod wire;

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use agent_api::Token;
use http::{Request, Response, Version};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

pub(crate) use links::Links;

use crate::agent::Agent;
use conn::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, Tracked};
use exchange::Shared;
use inward::{Interims, Inward};

/// Longest for an edge to send a head: it has read the whole of it already.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// Most bytes of a head, and of the read buffer.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// How often a silent HTTP/2 connection is asked whether its edge is there.
const PING_EVERY: Duration = Duration::from_secs(20);

/// The listener's side of all requests.
#[derive(Debug)]
struct Proxy {
    agent: Agent,
    token: Token,
    shared: Shared,
}

/// Serves proxied requests until the agent stops.
pub async fn serve(agent: Agent, listener: TcpListener, token: Token) {
    let connections = Arc::new(Semaphore::new(agent.host.config.proxy_connections_max as usize));
    let cancel = agent.host.cancel.clone();
    let tasks = agent.host.tasks.clone();
    let places = Arc::new(Semaphore::new(agent.host.config.guest_idle_max as usize));
    let shared = Shared { places, tasks: tasks.clone() };
    let proxy = Arc::new(Proxy { agent, token, shared });
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = crate::accept::accept(&listener, &connections) => accepted,
        };
        let (proxy, cancel) = (Arc::clone(&proxy), cancel.clone());
        tasks.spawn(async move {
            let (stream, _permit) = accepted;
            let serving = connection(stream, move |request, interims| {
                let proxy = Arc::clone(&proxy);
                async move { answer(&proxy, request, interims).await }
            });
            if let Some(Err(error)) = cancel.run_until_cancelled(serving).await {
                tracing::debug!("proxy connection ended: {error}");
            }
        });
    }
}

/// Serves one connection of an edge, in the protocol that it begins with.
async fn connection<A, F>(stream: TcpStream, answer: A) -> Result<(), body::Error>
where
    A: Fn(Request<Incoming>, Option<Interims>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<body::Body>> + Send + 'static,
{
    let opened = timeout(HEAD_MAX, Inward::open(stream)).await;
    let (stream, is_h2) = opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let interims = stream.interims();
    let service = service_fn(move |request: Request<Incoming>| {
        // HTTP/1.0 knows no 1xx (RFC 9110, 15.2).
        let h1 = request.version() == Version::HTTP_11;
        let answering = answer(request, h1.then(|| interims.clone()));
        async move { Ok::<_, Infallible>(answering.await) }
    });
    if is_h2 {
        let mut builder = hyper::server::conn::http2::Builder::new(Tracked::default());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX)
            .keep_alive_interval(PING_EVERY);
        builder.serve_connection(TokioIo::new(stream), service).await?;
    } else {
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX)
            .max_buf_size(HEAD_BYTES_MAX as usize)
            .half_close(false)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await?;
    }
    Ok(())
}

async fn answer(
    proxy: &Proxy,
    request: Request<Incoming>,
    interims: Option<Interims>,
) -> Response<body::Body> {
    let head = match head::Ours::take(&proxy.token, request) {
        Ok(head) => head,
        Err(refusal) => return refusal.response(None),
    };
    let request_id = head.request_id.clone();
    match forward::forward(proxy, head, interims).await {
        Ok(response) => response,
        Err(failure) => failure.response(request_id.as_deref()),
    }
}
