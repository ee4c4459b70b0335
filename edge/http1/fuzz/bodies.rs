//! What has to hold for any bytes that a peer sends: the same outcome however they were cut, no
//! panic, no hang, and an answer to each request that is understood.

use std::{
    io,
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use edge_http1::{
    BoxError,
    client::{self, Sending},
    fuzzing,
    server::{self, Config, Counters, RecvBody},
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Runtime,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Cuts of an input: small ones, and all at once.
const STEPS: [usize; 5] = [1, 2, 3, 17, usize::MAX];
/// The clock of these runs jumps: this is no time at all, unless something waits for ever.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// How long a peer stays that has sent everything: longer than any limit.
const STAYS: Duration = Duration::from_secs(600);

/// The head of a request.
pub(crate) fn requests(data: &[u8]) {
    let whole = fuzzing::request(data, usize::MAX);
    for step in STEPS {
        assert_eq!(fuzzing::request(data, step), whole, "in pieces of {step}");
    }
    if let Some((end, _)) = &whole {
        assert!(*end <= data.len() && data[..*end].ends_with(b"\n"));
        assert_eq!(fuzzing::request(&data[..*end], 1), whole, "what follows does not matter");
    }
}

/// A chunked body.
pub(crate) fn chunked(data: &[u8]) {
    let whole = fuzzing::chunked(data, usize::MAX);
    for step in STEPS {
        assert_eq!(fuzzing::chunked(data, step), whole, "in pieces of {step}");
    }
    if let Some((content, true)) = whole {
        let size = format!("{:x}\r\n", content.len());
        let again = match content.len() {
            0 => b"0\r\n\r\n".to_vec(),
            _ => [size.as_bytes(), &content, b"\r\n0\r\n\r\n"].concat(),
        };
        assert_eq!(fuzzing::chunked(&again, 5), Some((content, true)), "written and read again");
    }
}

/// A server that answers a client's request.
pub(crate) fn answers(data: &[u8]) {
    let _ = fuzzing::response(data);
    let outcomes = STEPS.map(|step| block_on(answered(data, step)));
    for outcome in &outcomes {
        assert_eq!(*outcome, outcomes[0]);
    }
}

/// Status, content, and whether the connection may be used again; or that it failed.
async fn answered(data: &[u8], step: usize) -> Option<(StatusCode, Option<Vec<u8>>)> {
    let connection = client::Connection::new(Script::new(data, step));
    let upgrade = data.first().is_some_and(|byte| byte % 2 == 0);
    let mut request = Request::get("/").header("host", "h");
    if upgrade {
        request = request.header("upgrade", "x");
    }
    let (parts, body) = request.body(Empty::<Bytes>::new()).ok()?.into_parts();
    let sending = Sending {
        deadline: Instant::now() + Duration::from_secs(60),
        hold_body_until: None,
        on_interim: &mut |interim| assert!(interim.status().is_informational()),
    };
    let response = connection.send(&parts, body, sending).await.ok()?;
    let status = response.status();
    let body = response.into_body().collect().await.ok();
    Some((status, body.map(|body| body.to_bytes().to_vec())))
}

/// A client of the server.
pub(crate) fn server(data: &[u8]) {
    let outcomes = STEPS.map(|step| block_on(served(data, step)));
    for outcome in &outcomes {
        assert_eq!(*outcome, outcomes[0]);
    }
}

type Asked = (String, Option<Vec<u8>>);

/// What the service saw.
async fn served(data: &[u8], step: usize) -> Vec<Asked> {
    let (seen, mut asked) = tokio::sync::mpsc::channel(1024);
    let (config, counters) = (Config::default(), Counters::default());
    let service = |request: Request<RecvBody>| {
        let seen = seen.clone();
        async move {
            let (parts, body) = request.into_parts();
            let said = format!("{} {} {:?}", parts.method, parts.uri, parts.headers);
            let upgrade = http_body::Body::size_hint(&body).exact().is_none()
                && parts.headers.contains_key("upgrade")
                && !parts.headers.contains_key("transfer-encoding");
            if upgrade {
                let _ = seen.try_send((said, None)); // full: it does not matter
                return switching(body);
            }
            let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
            let _ = seen.try_send((said, body)); // full: it does not matter
            let full = Full::new(Bytes::from_static(b"ok")).map_err(|never| match never {});
            Response::new(full.boxed_unsync())
        }
    };
    let io = Script::new(data, step);
    let drain = CancellationToken::new();
    let serving = server::serve(io, Bytes::new(), &config, &counters, service, drain);
    let _ = serving.await; // that it ends is what counts
    drop(seen);
    let mut all = Vec::new();
    while let Some(one) = asked.recv().await {
        all.push(one);
    }
    all
}

fn switching(body: RecvBody) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
    let mut response = Response::new(body.map_err(Into::into).boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
}

/// Runs on a clock that jumps to the next deadline whenever nothing else is to be done.
fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: OnceLock<std::sync::Mutex<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build();
        std::sync::Mutex::new(runtime.expect("a runtime without sockets can be made"))
    });
    let runtime = runtime.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    runtime.block_on(async { timeout(FOR_EVER, future).await.expect("it waits for ever") })
}

/// A peer that sends this, in pieces, and takes everything; it leaves once its bytes are read.
struct Script {
    data: Vec<u8>,
    at: usize,
    step: usize,
    pause: bool,
    /// When it leaves, behind its last byte.
    leave: Option<Pin<Box<Sleep>>>,
}

impl Script {
    fn new(data: &[u8], step: usize) -> Self {
        Self { data: data.to_vec(), at: 0, step, pause: false, leave: None }
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Nothing comes at once: between two pieces the other side gets to do something.
        self.pause = !self.pause;
        if self.pause {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let take = self.step.min(self.data.len() - self.at).min(buf.remaining());
        if take == 0 {
            // It waits, as one that has asked does; a tunnel would for ever.
            let leave = self.leave.get_or_insert_with(|| Box::pin(sleep(STAYS)));
            return leave.as_mut().poll(cx).map(|()| Ok(()));
        }
        buf.put_slice(&self.data[self.at..self.at + take]);
        self.at += take;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
