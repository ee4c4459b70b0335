//! An agent's proxy listener in small: speaks the contract, answers by path.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use edge_proxy::{Body, BoxError};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, channel::Channel};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::{Notify, mpsc},
    time::sleep,
};

use crate::{
    guest,
    pattern::{check, large},
};

/// What edge and agent share in these tests.
pub(crate) const TOKEN: &str = "a-token-of-the-test";
/// The sandbox that answers.
pub(crate) const SANDBOX: &str = "sb_0000000000000000000000abc";

/// How an agent takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Serves,
    PoolEmpty,
}

/// A running fake agent; stops when dropped.
pub(crate) struct FakeAgent {
    pub(crate) address: SocketAddr,
    /// Paths whose request or answer was dropped before its end.
    pub(crate) aborted: tokio::sync::Mutex<mpsc::Receiver<String>>,
    /// Lets `/two-steps` and `/hold` go on.
    pub(crate) go: Arc<Notify>,
    /// Connections that were accepted.
    pub(crate) connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Shared {
    mode: Mode,
    aborted_tx: mpsc::Sender<String>,
    go: Arc<Notify>,
}

impl FakeAgent {
    pub(crate) async fn start(mode: Mode) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), mode)
    }

    /// The same where a test listens already.
    pub(crate) fn on(listener: TcpListener, mode: Mode) -> Self {
        let address = listener.local_addr().unwrap();
        let (aborted_tx, aborted_rx) = mpsc::channel(64);
        let go = Arc::new(Notify::new());
        let shared = Shared { mode, aborted_tx, go: Arc::clone(&go) };
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let shared = shared.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(request, shared.clone()));
                    let mut builder = auto::Builder::new(TokioExecutor::new());
                    builder.http2().enable_connect_protocol();
                    let io = TokioIo::new(stream);
                    let _ = builder.serve_connection_with_upgrades(io, service).await;
                });
            }
        });
        Self { address, aborted: tokio::sync::Mutex::new(aborted_rx), go, connections, task }
    }

    /// Waits until a request to `path` was dropped before its end.
    pub(crate) async fn wait_for_abort(&self, path: &str) {
        let mut aborted = self.aborted.lock().await;
        let waiting = async {
            while let Some(seen) = aborted.recv().await {
                if seen == path {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting)
            .await
            .unwrap_or_else(|_| panic!("the agent never saw {path} aborted"));
    }
}

/// Reports when dropped, unless disarmed.
pub(crate) struct Guard {
    path: String,
    pub(crate) armed: bool,
    aborted_tx: mpsc::Sender<String>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            let _ = self.aborted_tx.try_send(std::mem::take(&mut self.path));
        }
    }
}

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

fn error(status: StatusCode, code: &'static str) -> Response<Body> {
    let text = format!(r#"{{"code":"{code}","message":"by the agent","request_id":"req"}}"#);
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert("x-wrenn-error", HeaderValue::from_static(code));
    response
}

async fn answer(request: Request<Incoming>, shared: Shared) -> Result<Response<Body>, Infallible> {
    if request.headers().get("x-wrenn-token").is_none_or(|token| token != TOKEN) {
        return Ok(error(StatusCode::UNAUTHORIZED, "unauthorized"));
    }
    if shared.mode == Mode::PoolEmpty {
        return Ok(error(StatusCode::SERVICE_UNAVAILABLE, "pool_empty"));
    }
    let path = request.uri().path().to_owned();
    let armed = matches!(
        path.as_str(),
        "/hang" | "/echo" | "/two-steps" | "/silent" | "/sse" | "/grpc/hang"
    );
    let guard = Guard { path: path.clone(), armed, aborted_tx: shared.aborted_tx.clone() };
    let mut request = request;
    if matches!(path.as_str(), "/hang" | "/silent") {
        // A connection whose request was not read to its end is not watched by hyper.
        let _ = request.body_mut().collect().await; // a client that left is seen below
    }
    let mut response = match path.as_str() {
        "/seen" => seen(request).await,
        "/count" => count(request).await,
        "/echo" => echo(request, guard),
        "/ws" => return Ok(websocket(request)),
        "/hold" => {
            shared.go.notified().await;
            Response::new(full("held"))
        }
        "/hang" => hang(guard).await,
        "/two-steps" => two_steps(shared.go.clone(), guard),
        "/silent" => silent(guard),
        "/die" => die(),
        "/nasty" => nasty(),
        "/sse" => guest::events(shared.go.clone(), guard),
        "/sized" => {
            Response::new(full(vec![b'x'; request.uri().query().unwrap().parse().unwrap()]))
        }
        "/long" => guest::long(&request),
        "/pattern" => Response::new(large(request.uri().query().unwrap().parse().unwrap())),
        "/check" => Response::new(full(format!("{:?}", check(request.into_body()).await))),
        "/range" => guest::range(&request),
        "/cookies" => guest::cookies(),
        "/redirect" => guest::redirect(&request),
        path if path.starts_with("/grpc") => guest::grpc(request, guard).await,
        "/port-closed" => error(StatusCode::BAD_GATEWAY, "port_closed"),
        _ => error(StatusCode::NOT_FOUND, "internal"),
    };
    let headers = response.headers_mut();
    headers.insert("x-wrenn-sandbox", HeaderValue::from_static(SANDBOX));
    headers.append(
        "server-timing",
        HeaderValue::from_static("lease;dur=0.1, restore;dur=2.5, upstream;dur=7"),
    );
    Ok(response)
}

/// What reached the agent, as JSON.
async fn seen(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let headers: serde_json::Map<_, _> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let seen = serde_json::json!({
        "method": parts.method.as_str(),
        "uri": parts.uri.path_and_query().map(ToString::to_string),
        "version": format!("{:?}", parts.version),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    Response::new(full(seen.to_string()))
}

/// How many bytes came, and whether their sender ended them cleanly.
async fn count(request: Request<Incoming>) -> Response<Body> {
    let mut body = request.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
            Err(_) => return error(StatusCode::BAD_REQUEST, "invalid_argument"),
        }
    }
    Response::new(full(bytes.to_string()))
}

/// Sends the body back as it comes, trailers included.
pub(crate) fn echo(request: Request<Incoming>, guard: Guard) -> Response<Body> {
    let trailer = request.headers().get(header::TRAILER).cloned();
    let body = Guarded { body: request.into_body(), guard };
    let mut response = Response::new(BodyExt::boxed_unsync(body));
    if let Some(trailer) = trailer {
        response.headers_mut().insert(header::TRAILER, trailer);
    }
    response
}

struct Guarded {
    body: Incoming,
    guard: Guard,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(std::pin::Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() {
            self.guard.armed = false;
        }
        std::task::Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}

/// Never answers.
async fn hang(guard: Guard) -> Response<Body> {
    std::future::pending::<()>().await;
    drop(guard);
    error(StatusCode::INTERNAL_SERVER_ERROR, "internal")
}

/// `one`, then `two` once told so.
fn two_steps(go: Arc<Notify>, guard: Guard) -> Response<Body> {
    let steps = futures::stream::unfold((0, go, guard), async |(step, go, mut guard)| match step {
        0 => Some((Ok(Frame::data(Bytes::from_static(b"one"))), (1, go, guard))),
        1 => {
            go.notified().await;
            guard.armed = false;
            Some((Ok(Frame::data(Bytes::from_static(b"two"))), (2, go, guard)))
        }
        _ => None,
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(Box::pin(steps))))
}

/// One chunk, then nothing for ever.
fn silent(guard: Guard) -> Response<Body> {
    let chunks = futures::stream::unfold((true, guard), async |(first, guard)| {
        if !first {
            std::future::pending::<()>().await;
        }
        Some((Ok(Frame::data(Bytes::from_static(b"only"))), (false, guard)))
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(Box::pin(chunks))))
}

/// One chunk, then the connection breaks.
fn die() -> Response<Body> {
    let (mut sender, body) = Channel::<Bytes, BoxError>::new(2);
    tokio::spawn(async move {
        let _ = sender.send_data(Bytes::from_static(b"partial")).await;
        sleep(Duration::from_millis(50)).await;
        sender.abort("the guest died".into());
    });
    Response::new(body.boxed_unsync())
}

/// Everything a guest might try to say in the edge's name.
fn nasty() -> Response<Body> {
    let mut response = Response::new(full("nasty"));
    let headers = response.headers_mut();
    for (name, value) in [
        ("alt-svc", "h3=\":1\""),
        ("x-wrenn-token", "forged"),
        ("x-request-id", "forged"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("x-guest", "stays"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn websocket(mut request: Request<Incoming>) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let mut io = TokioIo::new(upgraded);
        let mut buffer = [0; 1024];
        while let Ok(bytes @ 1..) = io.read(&mut buffer).await {
            if io.write_all(&buffer[..bytes]).await.is_err() {
                return;
            }
            if &buffer[..bytes] == b"bye" {
                break;
            }
        }
        let _ = io.shutdown().await;
    });
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response
}
