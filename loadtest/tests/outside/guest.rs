//! What stands behind the edge? An agent that has no machines: it answers every call with nothing,
//! and every proxied request as a guest would, by path.
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

/// What the edge shows to the agent.
pub(crate) const TOKEN: &str = "the-token-of-the-outside-tests";
/// Bytes of `/big`.
pub(crate) const BIG_BYTES: usize = 8 << 20;
/// What a browser shows: the protocol that the page came by.
const PAGE: &str = "<!doctype html><title>hello</title><p id=p>hello</p><script>\
    document.getElementById('p').textContent = \
    'came by ' + performance.getEntriesByType('navigation')[0].nextHopProtocol;</script>";

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// Where the agent listens; it ends with the runtime it was started on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Agent {
    pub(crate) rpc: SocketAddr,
    pub(crate) proxy: SocketAddr,
}

impl Agent {
    pub(crate) async fn start() -> Self {
        Self { rpc: serve(Part::Rpc).await, proxy: serve(Part::Proxy).await }
    }
}

#[derive(Clone, Copy)]
enum Part {
    Rpc,
    Proxy,
}

async fn serve(part: Part) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let service = service_fn(move |request| async move {
                Ok::<_, Infallible>(match part {
                    Part::Rpc => nothing(&request),
                    Part::Proxy => guest(request).await,
                })
            });
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // A client that goes away is none of our business.
                let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// A message without fields: no sandboxes, no snapshots, no objection.
fn nothing(request: &Request<Incoming>) -> Response<Body> {
    let mut response = text("");
    if let Some(kind) = request.headers().get(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    response
}

async fn guest(request: Request<Incoming>) -> Response<Body> {
    let shown = request.headers().get("x-wrenn-token").map(HeaderValue::as_bytes);
    assert_eq!(shown, Some(TOKEN.as_bytes()), "the edge shows the token");
    let mut response = match request.uri().path() {
        "/hello" | "/" => page(),
        "/echo" => echo(request),
        "/count" => count(request).await,
        "/big" => big(request.headers()),
        "/drip" => drip(request.uri().query()),
        "/trailers" => with_trailers(vec![data("body")], &[("x-sum", "4"), ("x-last", "yes")]),
        "/sse" => events(),
        "/ws" => websocket(request),
        path if path.starts_with("/test.Echo/") => grpc(request).await,
        _ => status(StatusCode::NOT_FOUND),
    };
    let sandbox = HeaderValue::from_static("sb_0000000000000000000000abc");
    response.headers_mut().insert("x-wrenn-sandbox", sandbox);
    response
}

fn text(body: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync())
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = text(format!("{status}\n"));
    *response.status_mut() = status;
    response
}

fn page() -> Response<Body> {
    let mut response = text(PAGE);
    set(&mut response, header::CONTENT_TYPE, "text/html");
    response
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}

fn data(bytes: impl Into<Bytes>) -> Frame<Bytes> {
    Frame::data(bytes.into())
}

fn frames(frames: Vec<Frame<Bytes>>) -> Response<Body> {
    let frames = futures::stream::iter(frames.into_iter().map(Ok));
    Response::new(StreamBody::new(frames).boxed_unsync())
}

/// The body as it comes.
fn echo(request: Request<Incoming>) -> Response<Body> {
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut response = Response::new(request.into_body().boxed_unsync());
    if let Some(kind) = kind {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

/// How many bytes came.
async fn count(request: Request<Incoming>) -> Response<Body> {
    let mut body = request.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return status(StatusCode::BAD_REQUEST) };
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    text(format!("{bytes}\n"))
}

/// Many bytes, or `range: bytes=FIRST-LAST` of them.
fn big(headers: &HeaderMap) -> Response<Body> {
    let bytes: Vec<u8> = (0_u8..=250).cycle().take(BIG_BYTES).collect();
    let range = headers.get(header::RANGE).and_then(|range| {
        let (first, last) = range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
    });
    let Some((first, last)) = range else {
        let mut response = text(bytes);
        set(&mut response, header::ACCEPT_RANGES, "bytes");
        return response;
    };
    let mut response = text(Bytes::copy_from_slice(&bytes[first..=last]));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let range = format!("bytes {first}-{last}/{BIG_BYTES}").try_into().unwrap();
    response.headers_mut().insert(header::CONTENT_RANGE, range);
    response
}

/// As many lines as the query says, a tenth of a second between them.
fn drip(query: Option<&str>) -> Response<Body> {
    let lines: u32 = query.and_then(|query| query.parse().ok()).unwrap_or(3);
    let lines = futures::stream::iter(0..lines).then(|line| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(data(format!("line {line}\n")))
    });
    Response::new(StreamBody::new(lines).boxed_unsync())
}

fn events() -> Response<Body> {
    let events = (0..3).map(|n| data(format!("id: {n}\ndata: event {n}\n\n"))).collect();
    let mut response = frames(events);
    set(&mut response, header::CONTENT_TYPE, "text/event-stream");
    response
}

fn with_trailers(
    mut body: Vec<Frame<Bytes>>,
    trailers: &[(&'static str, &'static str)],
) -> Response<Body> {
    let names: Vec<_> = trailers.iter().map(|(name, _)| *name).collect();
    let fields = trailers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    body.push(Frame::trailers(fields.collect()));
    let mut response = frames(body);
    response.headers_mut().insert(header::TRAILER, names.join(", ").try_into().unwrap());
    response
}

/// Echoes messages, RFC 6455.
fn websocket(mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned() else {
        return status(StatusCode::BAD_REQUEST);
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let io = TokioIo::new(upgraded);
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            let done = message.is_close();
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
            if done {
                let _ = socket.flush().await; // the answer to the close; its sender may be gone
                return;
            }
        }
    });
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
    *response.body_mut() = text("").into_body();
    set(&mut response, header::CONNECTION, "upgrade");
    set(&mut response, header::UPGRADE, "websocket");
    let accept = derive_accept_key(key.as_bytes()).try_into().unwrap();
    response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// gRPC by hand: `Unary` sends its message back, `Stream` three times, `Fail` says `NOT_FOUND`.
async fn grpc(request: Request<Incoming>) -> Response<Body> {
    assert_eq!(request.version(), http::Version::HTTP_2, "gRPC is spoken over HTTP/2");
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let Ok(message) = request.into_body().collect().await.map(|body| body.to_bytes()) else {
        return status(StatusCode::BAD_REQUEST);
    };
    let times = match method.as_str() {
        "Unary" => 1,
        "Stream" => 3,
        _ => 0,
    };
    let body = (0..times).map(|_| data(message.clone())).collect();
    let trailers: &[_] = if times == 0 {
        &[("grpc-status", "5"), ("grpc-message", "no such method")]
    } else {
        &[("grpc-status", "0")]
    };
    let mut response = with_trailers(body, trailers);
    response.headers_mut().remove(header::TRAILER);
    set(&mut response, header::CONTENT_TYPE, "application/grpc");
    response
}
