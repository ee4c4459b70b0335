//! Which request goes where, who may make it, and what a refusal looks like.
//!
//! Every refusal over plain HTTP is `{"code": <status>, "message": "..."}`, as E2B's clients
//! expect it.

use std::{error::Error, sync::Arc};

use bytes::Bytes;
use connectrpc::ConnectRpcBody;
use envd_api::{Init, VERSION_HEADER};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
pub(crate) use pool_model::chain;
use serde::Serialize;
use tower::ServiceExt as _;

use crate::{
    access::{AccessDenied, check_token},
    connections::{ConnectionId, Connections},
    files,
    guest::Guest,
    lifecycle::{self, InitError, QuiesceError},
    process,
};

/// What can break while a body is sent.
pub(crate) type BodyError = Box<dyn Error + Send + Sync>;

/// The body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Longest body of an init: its environment is most of it.
const INIT_MAX_BYTES: usize = 1 << 20;

/// A refusal over plain HTTP.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl ToString) -> Self {
        Self { status, message: message.to_string() }
    }

    /// A refusal that tells all causes of an error.
    pub(crate) fn of(status: StatusCode, error: &dyn Error) -> Self {
        Self { status, message: chain(error) }
    }

    fn into_response(self) -> Response<Body> {
        #[derive(Serialize)]
        struct Shape {
            code: u16,
            message: String,
        }
        json(self.status, &Shape { code: self.status.as_u16(), message: self.message })
    }
}

impl From<AccessDenied> for Refusal {
    fn from(denied: AccessDenied) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, denied)
    }
}

/// Wraps bytes as a body.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    answer
}

pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    // Maps with text keys and plain structs always have a JSON form.
    let mut answer = Response::new(full(serde_json::to_vec(value).unwrap_or_default()));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// Answers one request.
pub(crate) async fn route(
    guest: Arc<Guest>,
    connections: Arc<Connections>,
    caller: ConnectionId,
    request: Request<Incoming>,
) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answered = dispatch(&guest, connections, caller, request).await;
    let answer = answered.unwrap_or_else(Refusal::into_response);
    tracing::debug!(%method, path, status = answer.status().as_u16(), "answered");
    answer
}

async fn dispatch(
    guest: &Arc<Guest>,
    connections: Arc<Connections>,
    caller: ConnectionId,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let path = request.uri().path();
    match (request.method(), path) {
        (&Method::GET, "/health") => return Ok(health()),
        (&Method::POST, "/init") => return init(guest, connections, caller, request).await,
        (&Method::POST, "/quiesce") => {
            check_token(guest.identity.token().as_deref(), request.headers())?;
            return quiesce(guest, connections, caller).await;
        }
        _ => {}
    }
    if guest.lifecycle.is_quiesced().await {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "sandbox is quiesced"));
    }
    // Files may also be reached by a signed address, so they check for themselves.
    match (request.method(), path) {
        (&Method::GET, "/files") => return files::download(guest, request).await,
        (&Method::POST, "/files") => return files::upload(guest, request).await,
        _ => {}
    }
    check_token(guest.identity.token().as_deref(), request.headers())?;
    match (request.method(), path) {
        (&Method::POST, "/files/archive") => files::extract_archive(guest, request).await,
        (&Method::GET, "/metrics") => {
            let metrics = crate::metrics::read(&guest.cpu, guest.system.now());
            let metrics =
                metrics.map_err(|error| Refusal::of(StatusCode::INTERNAL_SERVER_ERROR, &error))?;
            Ok(json(StatusCode::OK, &metrics))
        }
        (&Method::GET, "/envs") => Ok(json(StatusCode::OK, &guest.identity.env())),
        (_, path) if path.starts_with("/process.Process/") => Ok(rpc(guest, request).await),
        (
            _,
            "/health" | "/init" | "/quiesce" | "/files" | "/files/archive" | "/metrics" | "/envs",
        ) => Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")),
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "no such endpoint")),
    }
}

fn health() -> Response<Body> {
    let mut answer = empty(StatusCode::NO_CONTENT);
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VERSION_HEADER, HeaderValue::from_static(crate::VERSION));
    answer
}

async fn rpc(guest: &Arc<Guest>, request: Request<Incoming>) -> Response<Body> {
    match process::service(guest).oneshot(request).await {
        Ok(answer) => answer.map(|body| match body {
            // On its own it tells its size, so that the answer needs no chunks.
            ConnectRpcBody::Full(body) => body.map_err(|never| match never {}).boxed_unsync(),
            body => body.map_err(|never| match never {}).boxed_unsync(),
        }),
        Err(never) => match never {},
    }
}

async fn init(
    guest: &Arc<Guest>,
    connections: Arc<Connections>,
    caller: ConnectionId,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    check_token(guest.identity.token().as_deref(), request.headers())?;
    let bad = |what: &dyn std::fmt::Display| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("init is invalid: {what}"))
    };
    let body = Limited::new(request.into_body(), INIT_MAX_BYTES).collect().await;
    let body = body.map_err(|error| bad(&error))?.to_bytes();
    // What serde says about a wrong value may quote it; its place is enough.
    let parsed: Init = serde_json::from_slice(&body)
        .map_err(|e| bad(&format!("malformed JSON at line {} column {}", e.line(), e.column())))?;
    let guest = Arc::clone(guest);
    let work = async move { lifecycle::init(&guest, &connections, caller, parsed).await };
    detached(work).await?.map_err(|error| {
        let status = match error {
            InitError::Bad(_) => StatusCode::BAD_REQUEST,
            InitError::Replayed { .. } => StatusCode::CONFLICT,
            InitError::System { .. } | InitError::Thaw(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        refused("init", status, &error)
    })?;
    Ok(health())
}

async fn quiesce(
    guest: &Arc<Guest>,
    connections: Arc<Connections>,
    caller: ConnectionId,
) -> Result<Response<Body>, Refusal> {
    let guest = Arc::clone(guest);
    let work = async move { lifecycle::quiesce(&guest, &connections, caller).await };
    detached(work).await?.map_err(|error| {
        let status = match error {
            QuiesceError::StartInFlight { .. } | QuiesceError::Sync { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            QuiesceError::Freeze(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        refused("quiesce", status, &error)
    })?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Runs work to its end even when the caller hangs up and its request is dropped.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work).await.map_err(|error| {
        tracing::error!("a task died: {error}");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
    })
}

fn refused(call: &str, status: StatusCode, error: &dyn Error) -> Refusal {
    let refusal = Refusal::of(status, error);
    tracing::warn!("{call} refused: {refusal}");
    refusal
}
