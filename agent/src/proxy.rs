//! The proxy listener: HTTP/1.1 from an edge to a port in a guest.
//!
//! ```text
//! token ─► target ─► lease │ running(sandbox) ─► dial in the namespace ─► stream both ways
//!                                                                 end of body ─► lease ends
//! ```
//!
//! # Invariants
//!
//! - A function's sandbox serves one request. Its lease rides in the response body (or in the
//!   tunnel) and ends with it, however it ends.
//! - Each request has a connection of its own to its guest: none survives a generation, none is
//!   shared between sandboxes.
//! - No header of ours reaches a guest, and none of its answers can pass for ours.
//!
//! # Limits
//!
//! `proxy_connections_max` connections; 64 KiB of head; first byte within `response_wait_ms`.

mod body;
mod error;
mod forward;
mod head;
mod upstream;

use std::{convert::Infallible, sync::Arc, time::Duration};

use agent_api::Token;
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::agent::Agent;

/// Longest for an edge to send a head: it has read the whole of it already.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// Most bytes of a head, and of the read buffer.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Serves proxied requests until the agent stops.
pub async fn serve(agent: Agent, listener: TcpListener, token: Token) {
    let connections = Arc::new(Semaphore::new(agent.host.config.proxy_connections_max as usize));
    let cancel = agent.host.cancel.clone();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = crate::accept::accept(&listener, &connections) => accepted,
        };
        let (agent, token, cancel) = (agent.clone(), token.clone(), cancel.clone());
        let tasks = agent.host.tasks.clone();
        tasks.spawn(async move {
            let (stream, _permit) = accepted;
            let answer = service_fn(move |request| answer(agent.clone(), token.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_MAX)
                .max_buf_size(HEAD_BYTES_MAX)
                .half_close(false)
                .serve_connection(TokioIo::new(stream), answer)
                .with_upgrades();
            if let Some(Err(error)) = cancel.run_until_cancelled(connection).await {
                tracing::debug!("proxy connection ended: {error}");
            }
        });
    }
}

async fn answer(
    agent: Agent,
    token: Token,
    request: Request<Incoming>,
) -> Result<Response<body::Body>, Infallible> {
    let head = match head::Ours::take(&token, request) {
        Ok(head) => head,
        Err(refusal) => return Ok(refusal.response(None)),
    };
    let request_id = head.request_id.clone();
    Ok(match forward::forward(&agent, head).await {
        Ok(response) => response,
        Err(failure) => failure.response(request_id.as_deref()),
    })
}
