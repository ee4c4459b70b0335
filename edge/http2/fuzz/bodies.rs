//! What has to hold for any bytes that a client sends: the connection ends or waits for no longer than
//! its limits, nothing panics, and what is written back is bounded.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use edge_http2::{BoxError, Config, Counters, Interim, RecvBody, serve};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Runtime,
    time::{Sleep, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// The clock of these runs jumps: this is no time at all, unless something waits for ever.
const FOR_EVER: Duration = Duration::from_secs(36_000);
/// How long a client stays that has sent everything: longer than any limit.
const STAYS: Duration = Duration::from_secs(3600);
/// An answer's content.
const ANSWER: &[u8] = b"ok";
/// Most that is written back for a byte that was read: a whole answer for a head of a few bytes.
const WRITTEN_PER_BYTE: usize = 64;

/// A client of the server, its preface included.
pub(crate) fn server(data: &[u8]) {
    for step in [1, 7, usize::MAX] {
        let written = Arc::new(AtomicUsize::new(0));
        block_on(served(data, step, Arc::clone(&written)));
        let most = 4096 + data.len() * WRITTEN_PER_BYTE;
        assert!(written.load(Relaxed) <= most, "{} bytes", written.load(Relaxed));
    }
}

async fn served(data: &[u8], step: usize, written: Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&asked);
    let service = move |request: Request<RecvBody>| {
        seen.fetch_add(1, Relaxed);
        answer(request)
    };
    let io = Script { data: data.to_vec(), at: 0, step, pause: false, leave: None, written };
    let (config, counters) = (Arc::new(Config::default()), Arc::new(Counters::default()));
    let served = serve(io, config, counters, service, CancellationToken::new()).await;
    if let Ok(ended) = served {
        assert_eq!(ended.requests, asked.load(Relaxed) as u64, "each reached the service once");
    }
    // A head has a frame of nine bytes and at least a field.
    assert!(asked.load(Relaxed) <= data.len() / 10);
}

async fn answer(request: Request<RecvBody>) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
    if let Some(interim) = request.extensions().get::<Interim>() {
        let hints = Response::builder().status(103).body(());
        let _ = hints.map(|hints| interim.send(hints)); // the client may be gone
    }
    let (parts, body) = request.into_parts();
    if parts.method == Method::CONNECT {
        return Response::new(body.boxed_unsync());
    }
    let _ = body.collect().await; // the client may give it up
    Response::new(Full::from(ANSWER).map_err(|never| match never {}).boxed_unsync())
}

/// Runs on a clock that jumps to the next deadline whenever nothing else is to be done.
fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = runtime.get_or_insert_with(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build();
        runtime.expect("a runtime without sockets can be made")
    });
    runtime.block_on(async { timeout(FOR_EVER, future).await.expect("it waits for ever") })
}

/// A client that sends this, in pieces, and takes everything.
struct Script {
    data: Vec<u8>,
    at: usize,
    step: usize,
    pause: bool,
    leave: Option<Pin<Box<Sleep>>>,
    written: Arc<AtomicUsize>,
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
        self.written.fetch_add(buf.len(), Relaxed);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
