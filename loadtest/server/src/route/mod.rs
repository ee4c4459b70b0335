//! Which path is answered how.
//!
//! A body that comes with a request is read to its end before the answer, so that a connection can
//! always be used again.

mod delay;
mod fault;
mod identity;
mod stream;
mod ws;

use std::{sync::Arc, time::Instant};

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};

use crate::{
    body::{Cut, Inbound, Incomplete, Outbound, full},
    query::BadQuery,
    state::State,
};

/// What durations of an answer are told in.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// The answer of `/`.
const OK: &[u8] = b"ok\n";
/// What is said of any other path.
const PATHS: &str = "/, /delay, /stall, /echo, /mixup, /bytes, /status, /error, /reset, /sse, /ws, \
                     /sandbox";

/// Why a request isn't answered as its route would.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Query(#[from] BadQuery),
    #[error("no such path; expected one of {PATHS}")]
    Path,
    #[error("{0}")]
    Handshake(&'static str),
    #[error(transparent)]
    Body(#[from] Incomplete),
    /// Not to be answered at all.
    #[error(transparent)]
    Cut(#[from] Cut),
}

/// The whole answer, if there is nothing to be thought about.
pub(crate) fn quick(request: &Request<Inbound>, state: &State) -> Option<Response<Outbound>> {
    let is_quick = request.uri().path() == "/" && request.body().is_empty() && !state.is_stalled();
    is_quick.then(ok)
}

/// Answers, or has the stream (or the connection that is one) reset.
pub(crate) async fn answer(
    request: Request<Inbound>,
    state: &Arc<State>,
) -> Result<Response<Outbound>, Cut> {
    let begun = Instant::now();
    let response = match routed(request, state, begun).await {
        Ok(response) => response,
        Err(Refusal::Cut(cut)) => return Err(cut),
        Err(refusal) => {
            let status = match refusal {
                Refusal::Path => StatusCode::NOT_FOUND,
                _ => StatusCode::BAD_REQUEST,
            };
            text(status, format!("{refusal}\n"))
        }
    };
    state.released().await;
    Ok(response)
}

async fn routed(
    mut request: Request<Inbound>,
    state: &Arc<State>,
    begun: Instant,
) -> Result<Response<Outbound>, Refusal> {
    let uri = request.uri().clone();
    let query = uri.query();
    match uri.path() {
        // These read the body, or take it with them.
        "/echo" => return identity::echo(request, query).await,
        "/mixup" => return identity::mixup(request, query, state).await,
        "/sandbox" => return identity::sandbox(request, query, state).await,
        "/ws" => return ws::accept(request, query, state),
        _ => {}
    }
    while request.body_mut().next().await?.is_some() {}
    match uri.path() {
        "/" => Ok(ok()),
        "/delay" => delay::delay(query, state, begun).await,
        "/stall" => fault::stall(query, state, begun).await,
        "/bytes" => stream::bytes(query, state),
        "/sse" => stream::events(query, state),
        "/status" => fault::status(query),
        "/error" => fault::error(query, state),
        "/reset" => fault::reset(query, state),
        _ => Err(Refusal::Path),
    }
}

fn ok() -> Response<Outbound> {
    Response::new(full(OK))
}

fn text(status: StatusCode, text: String) -> Response<Outbound> {
    typed(status, "text/plain; charset=utf-8", full(text))
}

fn typed(status: StatusCode, kind: &'static str, body: Outbound) -> Response<Outbound> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("names and numbers are visible ASCII")
}
