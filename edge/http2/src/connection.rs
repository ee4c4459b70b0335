//! A server connection: handshake, streams, drain.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::TryFutureExt as _;
use h2::{Reason, server};
use http::{Request, Response};
use http_body::Body;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    BoxError, Config, Counters, Protocol, RecvBody,
    batched::Batched,
    check,
    keep_alive::{KeepAlive, Verdict},
    meter::{Excess, Meter, Metered},
    stream::Answering,
};

/// How long a refused client has to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a connection ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// Requests that reached the service.
    pub requests: u64,
}

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The preface or the first settings did not come in time.
    #[error("the HTTP/2 handshake took too long")]
    Handshake,
    /// The client broke the protocol, or the connection broke.
    #[error("the HTTP/2 connection broke")]
    Protocol(#[from] h2::Error),
    /// The client sent what costs more than it brings.
    #[error("the client was sent away: {0}")]
    Excess(&'static str),
    /// The client did not answer a PING.
    #[error("the client does not answer")]
    Dead,
}

/// Serves a connection until the client leaves, an error, or `drain` and the end of its streams.
///
/// Requests carry an [`Interim`](crate::Interim) in their extensions and, if they are an extended
/// CONNECT, a [`Protocol`]: a 2xx answer makes the two bodies the directions of a tunnel.
///
/// # Errors
///
/// [`ServeError`]; a client that leaves is none.
///
/// # Cancel safety
///
/// Dropping the future closes the connection and aborts its streams' tasks.
pub async fn serve<I, S, F, B>(
    io: I,
    config: Arc<Config>,
    counters: Arc<Counters>,
    service: S,
    drain: CancellationToken,
) -> Result<Ended, ServeError>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Fn(Request<RecvBody>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let meter = Meter::new(Arc::clone(&config));
    // On the heap: what serves the connection afterwards has no room for it.
    let io = Batched::new(io);
    let handshake = builder(&config).handshake(Metered::new(io.clone(), Arc::clone(&meter)));
    let handshake = Box::pin(timeout(config.handshake_timeout, handshake.map_ok(Box::new)));
    let Ok(shaken) = handshake.await else {
        Counters::count(&counters.handshake);
        return Err(ServeError::Handshake);
    };
    let mut inner = match shaken {
        Ok(inner) => inner,
        Err(error) if is_gone(&error) => return Ok(Ended::default()),
        Err(error) => return Err(error.into()),
    };
    let keep_alive = KeepAlive::new(inner.ping_pong(), config.idle_timeout);
    let connection =
        Connection { inner, io, config, counters, meter, keep_alive, streams: JoinSet::new() };
    connection.run(service, drain).await
}

fn builder(config: &Config) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(config.max_concurrent_streams)
        .max_header_list_size(config.max_header_list_bytes)
        .initial_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .max_send_buffer_size(config.send_buffer_bytes)
        .max_pending_accept_reset_streams(config.max_pending_resets)
        .enable_connect_protocol();
    builder
}

struct Connection<I> {
    inner: Box<server::Connection<Metered<Batched<I>>, Bytes>>,
    io: Batched<I>,
    config: Arc<Config>,
    counters: Arc<Counters>,
    meter: Arc<Meter>,
    keep_alive: KeepAlive,
    streams: JoinSet<()>,
}

/// What happened on a connection.
enum Event {
    Stream(Box<(Request<h2::RecvStream>, server::SendResponse<Bytes>)>),
    Drain,
    Excess(Excess),
    Silence(Verdict),
    Closed(Option<h2::Error>),
}

impl<I: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection<I> {
    async fn run<S, F, B>(
        mut self,
        service: S,
        drain: CancellationToken,
    ) -> Result<Ended, ServeError>
    where
        S: Fn(Request<RecvBody>) -> F,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let mut requests = 0;
        let mut draining = false;
        let mut drained = Box::pin(drain.cancelled_owned());
        loop {
            let event = poll_fn(|cx| {
                if !draining && drained.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Drain);
                }
                self.poll_event(cx)
            });
            match event.await {
                Event::Drain => {
                    draining = true;
                    self.inner.graceful_shutdown();
                }
                Event::Stream(stream) => {
                    requests += u64::from(self.open(*stream, &service));
                }
                Event::Excess(excess) => {
                    excess.count(&self.counters);
                    self.send_away(excess.code()).await;
                    return Err(ServeError::Excess(excess.reason()));
                }
                Event::Silence(Verdict::Dead) => return Err(ServeError::Dead),
                Event::Silence(Verdict::Idle) => {
                    Counters::count(&self.counters.idle);
                    self.inner.graceful_shutdown();
                    self.close().await;
                    return Ok(Ended { requests });
                }
                Event::Closed(None) => return Ok(Ended { requests }),
                Event::Closed(Some(error)) if is_gone(&error) => return Ok(Ended { requests }),
                Event::Closed(Some(error)) => {
                    let Some(excess) = self.meter.excess_of(&error) else {
                        return Err(error.into());
                    };
                    excess.count(&self.counters);
                    return Err(ServeError::Excess(excess.reason()));
                }
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        while let Poll::Ready(Some(_)) = self.streams.poll_join_next(cx) {}
        let accepted = self.inner.poll_accept(cx);
        if accepted.is_pending() {
            // The turn is over. A client that takes nothing is seen by the streams that wait for it.
            match self.io.poll_send(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(Event::Closed(None)),
                Poll::Ready(Ok(())) if self.streams.is_empty() => self.io.shrink(),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if let Some(excess) = self.meter.excess() {
            return Poll::Ready(Event::Excess(excess));
        }
        match accepted {
            Poll::Ready(Some(Ok(stream))) => return Poll::Ready(Event::Stream(Box::new(stream))),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Event::Closed(Some(error))),
            Poll::Ready(None) => return Poll::Ready(Event::Closed(None)),
            Poll::Pending => {}
        }
        let busy = !self.streams.is_empty();
        self.keep_alive.poll(cx, &self.meter, busy).map(Event::Silence)
    }

    /// Gives a request to the service. False: it is malformed.
    fn open<S, F, B>(
        &mut self,
        (request, mut respond): (Request<h2::RecvStream>, server::SendResponse<Bytes>),
        service: &S,
    ) -> bool
    where
        S: Fn(Request<RecvBody>) -> F,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (mut parts, stream) = request.into_parts();
        let extended = parts.extensions.get::<h2::ext::Protocol>().is_some();
        if let Some(fault) = check::fault(&parts, extended) {
            tracing::debug!(fault, "a request is malformed");
            Counters::count(&self.counters.malformed);
            respond.send_reset(Reason::PROTOCOL_ERROR);
            return false;
        }
        let answering = Answering::new(respond, &parts.method);
        parts.extensions.insert(answering.interim());
        if let Some(protocol) = parts.extensions.remove::<h2::ext::Protocol>() {
            parts.extensions.insert(Protocol::new(protocol));
        }
        let body = RecvBody::new(stream, &parts.headers, self.config.body_timeout);
        let serving = service(Request::from_parts(parts, body));
        let (config, counters) = (Arc::clone(&self.config), Arc::clone(&self.counters));
        self.streams.spawn(async move { answering.run(serving, &config, &counters).await });
        true
    }

    /// RFC 9113 10.5: a client may be treated as one that means harm.
    async fn send_away(&mut self, why: Reason) {
        self.streams.abort_all();
        self.inner.abrupt_shutdown(why);
        self.close().await;
    }

    /// Says what is left to say, to a client that may be gone or not read it.
    async fn close(&mut self) {
        let closing = poll_fn(|cx| {
            let closed = self.inner.poll_closed(cx);
            let _ = self.io.poll_send(cx); // it is closed then
            closed
        });
        let _ = timeout(FAREWELL, closing).await;
    }
}

/// The client closed the connection, in good order or not: nobody's fault.
fn is_gone(error: &h2::Error) -> bool {
    let quiet = [
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::UnexpectedEof,
        io::ErrorKind::NotConnected,
    ];
    error.get_io().is_some_and(|error| quiet.contains(&error.kind()))
        || error.reason() == Some(Reason::NO_ERROR)
}
