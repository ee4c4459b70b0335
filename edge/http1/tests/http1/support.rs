//! What the tests share: a server with a service of the test's, and a client that writes bytes.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use edge_http1::{
    BoxError,
    server::{Config, Counters, Ended, RecvBody, ServeError, serve},
};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longest wait of a test for anything: only a failure takes that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type TestBody = UnsyncBoxBody<Bytes, BoxError>;
pub(crate) type Answering = Pin<Box<dyn Future<Output = Response<TestBody>> + Send>>;
pub(crate) type Frame = Result<http_body::Frame<Bytes>, BoxError>;

/// A body of known length.
pub(crate) fn full(data: impl Into<Bytes>) -> TestBody {
    Full::new(data.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub(crate) fn empty() -> TestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A request's body as an answer's.
pub(crate) fn through(body: RecvBody) -> TestBody {
    body.map_err(Into::into).boxed_unsync()
}

/// A body of unknown length that the test feeds.
pub(crate) fn channel() -> (mpsc::Sender<Frame>, TestBody) {
    let (sender, receiver) = mpsc::channel(4);
    let stream = tokio_stream(receiver);
    (sender, BodyExt::boxed_unsync(StreamBody::new(stream)))
}

fn tokio_stream(
    mut receiver: mpsc::Receiver<Frame>,
) -> impl futures::Stream<Item = Frame> + Send + 'static {
    futures::stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

pub(crate) fn data(data: impl Into<Bytes>) -> Frame {
    Ok(http_body::Frame::data(data.into()))
}

/// `200` with a body.
pub(crate) fn ok(body: TestBody) -> Response<TestBody> {
    Response::new(body)
}

/// Answers with what was asked: method, target, and the body's content.
pub(crate) fn report(request: Request<RecvBody>) -> Answering {
    Box::pin(async move {
        let (parts, body) = request.into_parts();
        match body.collect().await {
            Ok(body) => {
                let body = body.to_bytes();
                let body = String::from_utf8_lossy(&body);
                ok(full(format!("{} {} [{body}]", parts.method, parts.uri)))
            }
            Err(error) => {
                let mut response = ok(full(error.to_string()));
                *response.status_mut() = http::StatusCode::BAD_REQUEST;
                response
            }
        }
    })
}

/// A server on a port of its own until it is dropped.
pub(crate) struct Server {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) counters: Arc<Counters>,
    pub(crate) drain: CancellationToken,
    ended: mpsc::Receiver<Result<Ended, ServeError>>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(crate) async fn with<S>(config: Config, service: S) -> Self
    where
        S: Fn(Request<RecvBody>) -> Answering + Clone + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (counters, drain) = (Arc::new(Counters::default()), CancellationToken::new());
        let (end, ended) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        let accepting =
            accept(listener, Arc::new(config), Arc::clone(&counters), drain.clone(), service, end);
        tasks.spawn(accepting);
        Self { address, counters, drain, ended, _tasks: tasks }
    }

    pub(crate) async fn start<S>(service: S) -> Self
    where
        S: Fn(Request<RecvBody>) -> Answering + Clone + Send + 'static,
    {
        Self::with(Config::default(), service).await
    }

    pub(crate) async fn connect(&self) -> Raw {
        Raw { stream: TcpStream::connect(self.address).await.unwrap(), buf: Vec::new() }
    }

    /// How the next connection ended.
    pub(crate) async fn ended(&mut self) -> Result<Ended, ServeError> {
        timeout(PATIENCE, self.ended.recv()).await.unwrap().unwrap()
    }
}

async fn accept<S>(
    listener: TcpListener,
    config: Arc<Config>,
    counters: Arc<Counters>,
    drain: CancellationToken,
    service: S,
    end: mpsc::Sender<Result<Ended, ServeError>>,
) where
    S: Fn(Request<RecvBody>) -> Answering + Clone + Send + 'static,
{
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let (config, counters, service) = (config.clone(), counters.clone(), service.clone());
        let (drain, end) = (drain.clone(), end.clone());
        connections.spawn(async move {
            let served = serve(stream, Bytes::new(), &config, &counters, service, drain).await;
            let _ = end.try_send(served); // not every test asks
        });
    }
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A client that writes and reads bytes.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    pub(crate) buf: Vec<u8>,
}

impl Raw {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.unwrap().unwrap();
    }

    /// Reads some more. 0: the server sends no more.
    async fn fill(&mut self) -> usize {
        timeout(PATIENCE, self.stream.read_buf(&mut self.buf)).await.unwrap().unwrap_or(0)
    }

    /// Reads up to `bytes` and takes them.
    pub(crate) async fn exactly(&mut self, bytes: usize) -> Vec<u8> {
        while self.buf.len() < bytes {
            assert!(self.fill().await > 0, "ended early: {:?}", self.shown());
        }
        self.buf.drain(..bytes).collect()
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.buf).into_owned()
    }

    /// The next head, with its empty line.
    pub(crate) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.buf.windows(4).position(|at| at == b"\r\n\r\n") {
                let head: Vec<u8> = self.buf.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            assert!(self.fill().await > 0, "no head: {:?}", self.shown());
        }
    }

    /// The next answer: as long as it says, or to the connection's end.
    pub(crate) async fn answer(&mut self) -> Seen {
        let head = self.head().await;
        let status = head[9..12].parse().unwrap();
        let mut seen = Seen { status, head, body: Vec::new() };
        if let Some(length) = seen.field("content-length") {
            let length = length.parse().unwrap();
            seen.body = self.exactly(length).await;
        } else if seen.field("transfer-encoding") == Some("chunked") {
            seen.body = self.chunks().await;
        } else if !matches!(status, 100..200 | 204 | 304) {
            seen.body = self.rest().await;
        }
        seen
    }

    /// A line without its end.
    pub(crate) async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buf.windows(2).position(|at| at == b"\r\n") {
                let line: Vec<u8> = self.buf.drain(..end + 2).collect();
                return String::from_utf8(line[..end].to_vec()).unwrap();
            }
            assert!(self.fill().await > 0, "no line: {:?}", self.shown());
        }
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line().await, 16).unwrap();
            if size == 0 {
                while !self.line().await.is_empty() {}
                return body;
            }
            body.extend(self.exactly(size).await);
            assert_eq!(self.line().await, "");
        }
    }

    /// All that still comes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await > 0 {}
        std::mem::take(&mut self.buf)
    }

    /// Whether the server sends nothing for a moment, and is still there.
    pub(crate) async fn is_silent(&mut self) -> bool {
        let some = timeout(Duration::from_millis(150), self.stream.read_buf(&mut self.buf)).await;
        some.is_err()
    }

    /// Sends `GET` with a target.
    pub(crate) async fn get(&mut self, target: &str) -> Seen {
        self.send(format!("GET {target} HTTP/1.1\r\nhost: h\r\n\r\n")).await;
        self.answer().await
    }
}
