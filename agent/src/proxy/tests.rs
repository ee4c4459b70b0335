//! The proxy against fake guests on loopback: the parts that all its tests share.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod h2c;
mod kept;
mod streams;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use agent_api::{
    Token,
    proxy::{self, Target},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pool_model::{Port, SandboxId};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle, task::TaskTracker};

use super::{
    exchange::{Call, Shared, Timing, To, exchange},
    head::Ours,
    links::Links,
    reach::Reach,
};
use crate::guest::Ending;

/// Longer than anything takes on the slowest machine.
const LONG: Duration = Duration::from_secs(20);
const SECRET: &str = "token-of-the-test-0123456789abcdef";

/// A guest whose ports are all one address on loopback.
struct Fake {
    at: SocketAddr,
    /// Which of the sandboxes at this address.
    number: u128,
    links: Links,
    ending: OnceLock<Ending>,
    over: CancellationToken,
}

impl Fake {
    fn new(at: SocketAddr) -> Arc<Self> {
        Self::numbered(at, 0)
    }

    fn numbered(at: SocketAddr, number: u128) -> Arc<Self> {
        let links = Links::default();
        links.admit();
        let (ending, over) = (OnceLock::new(), CancellationToken::new());
        Arc::new(Self { at, number, links, ending, over })
    }

    fn end(&self, ending: Ending) {
        let _ = self.ending.set(ending);
        self.links.cut();
        self.over.cancel();
    }
}

#[async_trait::async_trait]
impl Reach for Fake {
    fn sandbox(&self) -> SandboxId {
        SandboxId::from_u128(self.number)
    }
    fn links(&self) -> &Links {
        &self.links
    }
    async fn dial(&self, _port: Port, limit: Duration) -> io::Result<TcpStream> {
        timeout(limit, TcpStream::connect(self.at)).await?
    }
    fn ending(&self) -> Option<Ending> {
        self.ending.get().copied()
    }
    async fn ended(&self) -> Ending {
        self.over.cancelled().await;
        *self.ending.get().unwrap()
    }
}

/// A proxy before whichever guest is there now.
struct Edge {
    at: SocketAddr,
    guest: Arc<Mutex<Arc<Fake>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Edge {
    async fn before(guest: Arc<Fake>, keep: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let guest = Arc::new(Mutex::new(guest));
        let behind = Arc::clone(&guest);
        let shared =
            Arc::new(Shared { places: Arc::new(Semaphore::new(64)), tasks: TaskTracker::new() });
        let serving = tokio::spawn(async move {
            let mut edges = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (behind, shared) = (Arc::clone(&behind), Arc::clone(&shared));
                edges.spawn(super::connection(stream, move |request, interims| {
                    let (guest, shared) = (Arc::clone(&behind.lock().unwrap()), shared.clone());
                    async move {
                        let ours = match Ours::take(&token(), request) {
                            Ok(ours) => ours,
                            Err(refusal) => return refusal.response(None),
                        };
                        let call = Call { ours, interims, deadline: Instant::now() + LONG };
                        let to = To { guest: &guest, port: Port::ENVD, keep };
                        let sent = exchange(&shared, to, call, Timing::default(), ()).await;
                        sent.unwrap_or_else(|failure| failure.response(None))
                    }
                }));
            }
        });
        Self { at, guest, _serving: AbortOnDropHandle::new(serving) }
    }

    fn guest(&self) -> Arc<Fake> {
        Arc::clone(&self.guest.lock().unwrap())
    }

    /// Sends bytes on a connection of their own.
    async fn raw(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// The whole answer to one request whose connection ends with it.
    async fn ask(&self, request: &str) -> String {
        let mut stream = self.raw(request).await;
        let mut answer = Vec::new();
        timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn h2<B>(&self) -> http2::SendRequest<B>
    where
        B: http_body::Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = TcpStream::connect(self.at).await.unwrap();
        let io = TokioIo::new(stream);
        let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(driver);
        sender
    }
}

fn token() -> Token {
    Token::new(SECRET)
}

/// A request's head with our headers, its connection to be closed.
fn head(method: &str, more: &str) -> String {
    let target = Target::Sandbox(SandboxId::from_u128(9), Port::ENVD);
    format!(
        "{method} /path HTTP/1.1\r\nhost: guest.test\r\n{}: {SECRET}\r\n{}: {target}\r\n{more}\r\n",
        proxy::TOKEN,
        proxy::TARGET,
    )
}

fn once(method: &str, more: &str) -> String {
    head(method, &format!("connection: close\r\n{more}"))
}

/// A request with our headers, for HTTP/2.
fn request<B>(h2c: bool, body: B) -> Request<B> {
    let target = Target::Sandbox(SandboxId::from_u128(9), Port::ENVD);
    let mut request = Request::post("http://guest.test/path")
        .header(proxy::TOKEN, SECRET)
        .header(proxy::TARGET, target.to_string())
        .header("te", "trailers");
    if h2c {
        request = request.header(proxy::PROTOCOL, proxy::H2C);
    }
    request.body(body).unwrap()
}

/// Reads until `needle` has come.
async fn read_to(stream: &mut TcpStream, needle: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(needle) {
        let mut part = [0; 4096];
        let count = timeout(LONG, stream.read(&mut part)).await.unwrap().unwrap();
        assert!(count > 0, "ended before {needle:?}: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&part[..count]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// A listener for a fake guest that the test serves by hand.
async fn by_hand() -> (TcpListener, Arc<Fake>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let guest = Fake::new(listener.local_addr().unwrap());
    (listener, guest)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    timeout(LONG, listener.accept()).await.unwrap().unwrap().0
}

/// Waits for what another task does soon.
async fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn text(text: &str) -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from(text.to_owned())))
}
