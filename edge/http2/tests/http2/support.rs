//! What the tests share: a server with a service of the test's, bodies, hyper's client.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use edge_http2::{BoxError, Config, Counters, Ended, RecvBody, ServeError, serve};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::{
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
pub(crate) type Client = hyper::client::conn::http2::SendRequest<TestBody>;

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
    let (sender, mut receiver) = mpsc::channel::<Frame>(4);
    let stream = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    (sender, BodyExt::boxed_unsync(StreamBody::new(stream)))
}

pub(crate) fn data(data: impl Into<Bytes>) -> Frame {
    Ok(http_body::Frame::data(data.into()))
}

/// `200` with a body.
pub(crate) fn ok(body: TestBody) -> Response<TestBody> {
    Response::new(body)
}

/// Answers with what was asked: method, target, and how much the body had.
pub(crate) fn report(request: Request<RecvBody>) -> Answering {
    Box::pin(async move {
        let (parts, body) = request.into_parts();
        match body.collect().await {
            Ok(body) => {
                let size = body.to_bytes().len();
                ok(full(format!("{} {} {size}", parts.method, parts.uri.path())))
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
    pub(crate) address: SocketAddr,
    pub(crate) counters: Arc<Counters>,
    pub(crate) drain: CancellationToken,
    ended: mpsc::Receiver<Result<Ended, ServeError>>,
    tasks: JoinSet<()>,
}

impl Server {
    pub(crate) async fn with<S>(config: Config, service: S) -> Self
    where
        S: Fn(Request<RecvBody>) -> Answering + Clone + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (counters, drain) = (Arc::new(Counters::default()), CancellationToken::new());
        let (end, ended) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        let (config, for_server) = (Arc::new(config), (Arc::clone(&counters), drain.clone()));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (counters, drain) = for_server.clone();
                let serving = serve(stream, Arc::clone(&config), counters, service.clone(), drain);
                let end = end.clone();
                connections.spawn(async move {
                    let _ = end.try_send(serving.await); // not every test asks
                });
            }
        });
        Self { address, counters, drain, ended, tasks }
    }

    pub(crate) async fn start<S>(service: S) -> Self
    where
        S: Fn(Request<RecvBody>) -> Answering + Clone + Send + Sync + 'static,
    {
        Self::with(Config::default(), service).await
    }

    /// How the next connection ended.
    pub(crate) async fn ended(&mut self) -> Result<Ended, ServeError> {
        timeout(PATIENCE, self.ended.recv()).await.unwrap().unwrap()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// hyper's client.
    pub(crate) async fn client(&mut self) -> Client {
        let io = hyper_util::rt::TokioIo::new(self.connect().await);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (client, connection) =
            hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        self.tasks.spawn(async move { drop(connection.await) });
        client
    }
}

pub(crate) fn request(method: &str, path: &str, body: TestBody) -> Request<TestBody> {
    let uri = format!("http://host.test{path}");
    Request::builder().method(method).uri(uri).body(body).unwrap()
}

/// Waits, but not for ever.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.unwrap()
}

/// Bytes of this process that are in memory.
pub(crate) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
