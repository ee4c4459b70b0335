//! The RPC listener: Connect over HTTP/2 without TLS, one bearer token.
//!
//! # Invariants
//!
//! - Nothing is answered without the token.
//! - It shares neither connections nor limits with the proxy listener: a sandbox's traffic can't
//!   stall it.
//!
//! # Limits
//!
//! `rpc_connections_max` connections, 256 calls on each, messages of 65 MiB.

mod convert;
mod exec;
mod pools;
mod ready;
mod service;

use std::{convert::Infallible, sync::Arc, time::Duration};

use agent_api::Token;
use bytes::Bytes;
use connectrpc::{ConnectRpcService, Limits, Router};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tower::ServiceExt as _;

use crate::agent::Agent;

/// Calls that one connection carries at once.
const STREAMS_MAX: u32 = 256;
/// How often an idle connection is probed, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Serves RPC until the agent stops.
pub async fn serve(agent: Agent, listener: TcpListener, token: Token) {
    let limits = Limits::default()
        .with_max_request_body_size(agent_api::MESSAGE_BYTES_MAX)
        .with_max_message_size(agent_api::MESSAGE_BYTES_MAX);
    let service = Arc::new(service::Service::new(agent.clone()));
    let rpc = ConnectRpcService::new(Router::new().add_service(service)).with_limits(limits);
    let connections = Arc::new(Semaphore::new(agent.host.config.rpc_connections_max as usize));
    let cancel = agent.host.cancel.clone();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = crate::accept::accept(&listener, &connections) => accepted,
        };
        let (rpc, token, cancel) = (rpc.clone(), token.clone(), cancel.clone());
        agent.host.tasks.spawn(async move {
            let (stream, _permit) = accepted;
            let answer = service_fn(move |request| call(rpc.clone(), token.clone(), request));
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .serve_connection(TokioIo::new(stream), answer);
            if let Some(Err(error)) = cancel.run_until_cancelled(connection).await {
                tracing::debug!("rpc connection ended: {error}");
            }
        });
    }
}

async fn call(
    rpc: ConnectRpcService,
    token: Token,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let authorization = request.headers().get(header::AUTHORIZATION);
    let given = authorization.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if !given.is_some_and(|given| token.matches(given)) {
        let body = Full::new(Bytes::from_static(br#"{"code":"unauthenticated"}"#));
        let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        return Ok(response);
    }
    let response = match rpc.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
}
