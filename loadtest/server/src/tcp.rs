//! HTTP/1.1 and HTTP/2, in clear text or over TLS.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Version};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    body::{Cut, Inbound, Outbound},
    route,
    state::State,
    tasks::Tasks,
};

/// Streams of a connection.
const STREAMS_MAX: u32 = 1000;
/// For a TLS handshake.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// For a request's head.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// After the system refused a connection, as it does when files run out.
const REFUSED_WAIT: Duration = Duration::from_millis(20);

/// Accepts until the server stops.
pub(crate) async fn accept(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    places: Arc<Semaphore>,
    state: Arc<State>,
) {
    let tls = tls.map(TlsAcceptor::from);
    let builder = builder(&state.tasks);
    // Nobody closes the semaphore.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(REFUSED_WAIT).await;
            continue;
        };
        let (tls, builder, shared) = (tls.clone(), builder.clone(), Arc::clone(&state));
        state.tasks.spawn(async move {
            // It only makes small answers slower if this is refused.
            let _ = stream.set_nodelay(true);
            let reset = Arc::new(AtomicBool::new(false));
            let socket = Socket { stream, reset: Arc::clone(&reset) };
            match tls {
                None => serve(socket, &builder, shared, reset).await,
                Some(tls) => {
                    // A handshake that doesn't come about is the client's to report.
                    if let Ok(Ok(stream)) = timeout(HANDSHAKE_WAIT, tls.accept(socket)).await {
                        serve(stream, &builder, shared, reset).await;
                    }
                }
            }
            drop(place);
        });
    }
}

fn builder(tasks: &Tasks) -> auto::Builder<Tasks> {
    let mut builder = auto::Builder::new(tasks.clone());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
    builder
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    builder: &auto::Builder<Tasks>,
    state: Arc<State>,
    reset: Arc<AtomicBool>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let request = request.map(Inbound::Tcp);
        let quick = route::quick(&request, &state);
        // Nothing is shared by the quick ones: they are what throughput is measured with.
        let slow = quick
            .is_none()
            .then(|| Box::pin(thorough(request, Arc::clone(&state), Arc::clone(&reset))));
        async move {
            match (quick, slow) {
                (Some(response), _) => Ok(response),
                (None, Some(slow)) => slow.await,
                (None, None) => Err(Cut), // one of them is there
            }
        }
    });
    // Its errors are the client's to see, and some are what it asked for.
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

async fn thorough(
    request: Request<Inbound>,
    state: Arc<State>,
    reset: Arc<AtomicBool>,
) -> Result<Response<Outbound>, Cut> {
    let is_stream = request.version() == Version::HTTP_2;
    let answer = route::answer(request, &state).await;
    if answer.is_err() && !is_stream {
        // There is only one stream, and it is the connection.
        reset.store(true, Relaxed);
    }
    answer
}

/// A connection that can be reset instead of closed.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Relaxed) {
            // If it is refused the connection is closed, which the client notices as well.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.load(Relaxed) {
            return Poll::Ready(Ok(())); // a FIN would come before the reset
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
