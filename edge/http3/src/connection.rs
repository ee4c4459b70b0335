//! A server connection: its control stream, its requests, its drain.

use std::{
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::Body;
use quinn::{RecvStream, SendStream};
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};

use crate::{
    BoxError, Config, ConnectionError, Counters, RecvBody, control,
    link::{Link, varint},
    request,
    wire::{Code, frame, varint as number, write_frame_header, write_settings},
};

/// How many requests the transport should allow a new connection to have open at once, if it is to
/// allow more later ([`Config::requests_open_max`]). QUIC keeps tables with a place for each stream
/// that a client may open, so a hundred of them cost every connection 4 KiB from its start.
pub const FIRST_REQUESTS: u32 = 16;

/// The first GOAWAY: no request is refused yet (RFC 9114 5.2).
const GOAWAY_NOBODY: u64 = number::MAX - 3;

/// How long a GOAWAY has to reach the client: a round trip, within these bounds.
const NOTICE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long the client has to close the connection itself: three round trips, within these bounds.
const FAREWELL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The request with which a connection is no longer one of those that bring but a few, and may have
/// as many open as [`Config::requests_open_max`] says: half of [`FIRST_REQUESTS`], so that a client
/// that goes on learns of the room before it needs it.
const NOT_FEW: u64 = FIRST_REQUESTS as u64 / 2;

/// How often the tasks of requests that ended are forgotten while no new ones come.
const TIDY_EVERY: Duration = Duration::from_secs(2);

/// How long small answers that were written before the drain have to be acknowledged, at most.
const SMALL_ANSWERS: Duration = Duration::from_secs(5);

/// How a connection ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// It was drained: every request that was accepted has been answered.
    pub graceful: bool,
    /// Requests that were accepted.
    pub requests: u64,
}

/// Serves a connection until the client leaves, an error, or `drain` and the end of its requests.
///
/// Requests carry a [`Protocol`](crate::Protocol) in their extensions if they are an extended CONNECT: a
/// 2xx answer makes the two bodies the directions of a tunnel. [`RecvBody::interim`](crate::RecvBody::interim)
/// sends 1xx answers. Each request runs in a task of its own; `Expect: 100-continue` is the service's affair.
///
/// # Errors
///
/// [`ConnectionError`]; a client that leaves is none, nor is one that falls silent.
///
/// # Cancel safety
///
/// Dropping the future closes the connection and aborts its requests.
pub fn serve<S, F, B>(
    connection: quinn::Connection,
    config: Arc<Config>,
    service: S,
    drain: impl Future<Output = ()> + Send,
) -> impl Future<Output = Result<Ended, ConnectionError>> + Send
where
    S: Fn(Request<RecvBody>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    // This future lives as long as the connection, and an `async fn` would hold what it is given twice.
    let drain = Box::pin(drain);
    let link = Arc::new(Link::new(connection, config));
    async move {
        let ended = run(&link, service, drain).await;
        match (link.failure(), ended) {
            (Some(failure), _) => Err(failure),
            (None, Ok(())) => Ok(ended_of(&link, true)),
            (None, Err(error)) => match peer_error(error) {
                Some(error) => Err(error),
                None => Ok(ended_of(&link, false)),
            },
        }
    }
}

fn ended_of(link: &Link, graceful: bool) -> Ended {
    Ended { graceful, requests: link.accepted.load(Ordering::Relaxed) }
}

/// What is wrong about the way a connection ended, if anything is.
fn peer_error(error: quinn::ConnectionError) -> Option<ConnectionError> {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            let code = close.error_code.into_inner();
            // 0 is what is sent by those who don't care.
            let is_quiet = code == 0 || code == u64::from(Code::H3_NO_ERROR.value());
            (!is_quiet).then_some(ConnectionError::Peer { code })
        }
        quinn::ConnectionError::LocallyClosed
        | quinn::ConnectionError::TimedOut
        | quinn::ConnectionError::Reset => None,
        error => Some(error.into()),
    }
}

/// How far the drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// The client knows that it is to open no more requests.
    Announced,
    /// It knows which of its requests are served.
    Closing,
}

/// Ok: the connection was drained.
///
/// What it awaits but once is on the heap for as long, or this future would have room for the largest.
async fn run<S, F, B>(
    link: &Arc<Link>,
    service: S,
    mut drain: Pin<Box<impl Future<Output = ()>>>,
) -> Result<(), quinn::ConnectionError>
where
    S: Fn(Request<RecvBody>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut control = Box::pin(open_control(link)).await?;
    let mut side = JoinSet::new();
    side.spawn(control::run(Arc::clone(link), control.stopped()));
    let mut requests = JoinSet::new();
    let _closing = Closing(link);
    let mut stage = Stage::Open;
    // When the next stage begins, if that is a matter of time; else when to tidy up.
    let mut alarm = pin!(sleep(TIDY_EVERY));
    loop {
        tokio::select! {
            biased;
            () = &mut drain, if stage == Stage::Open => {
                stage = Stage::Announced;
                link.drain();
                Box::pin(send_goaway(link, &mut control, GOAWAY_NOBODY)).await;
                let patience = link.quic.rtt().clamp(NOTICE.0, NOTICE.1);
                alarm.as_mut().reset(Instant::now() + patience);
            }
            () = &mut alarm, if stage == Stage::Announced || !requests.is_empty() => {
                if stage == Stage::Announced {
                    stage = Stage::Closing;
                    let next = link.accepted.load(Ordering::Relaxed) * 4;
                    Box::pin(send_goaway(link, &mut control, next)).await;
                }
                // What ended stays in memory until then: not for as long as the client says nothing.
                reap(&mut requests);
                link.deliveries.tidy();
                alarm.as_mut().reset(Instant::now() + TIDY_EVERY);
            }
            joined = requests.join_next(), if stage == Stage::Closing => match joined {
                Some(joined) => log_panic(joined),
                None => break,
            },
            accepted = link.quic.accept_bi() => {
                let (send, recv) = accepted?;
                if stage == Stage::Closing {
                    reject(link, send, recv);
                    continue;
                }
                if link.accepted.fetch_add(1, Ordering::Relaxed) + 1 == NOT_FEW {
                    allow_more(link);
                }
                // Reaped here and not when they end: that would wake this task once more for each.
                reap(&mut requests);
                let serving = request::serve(Arc::clone(link), send, recv, service.clone());
                // On the heap of its own, which it gives back when it ends and not when it is reaped.
                requests.spawn(Box::pin(serving));
            }
        }
    }
    Box::pin(farewell(link)).await;
    Ok(())
}

/// Gives the client time to take what is on its way, and to close the connection itself.
async fn farewell(link: &Link) {
    let patience = link.config.ack_timeout.min(SMALL_ANSWERS);
    // Whoever takes longer has lost the connection, or does not want it.
    let _ = timeout(patience, link.deliveries.all()).await;
    let patience = (link.quic.rtt() * 3).clamp(FAREWELL.0, FAREWELL.1);
    let _ = timeout(patience, link.quic.closed()).await; // the client may close it first
}

/// Opens our control stream and says what we support (RFC 9114 6.2.1).
async fn open_control(link: &Link) -> Result<SendStream, quinn::ConnectionError> {
    let mut out = BytesMut::new();
    number::encode(control::CONTROL, &mut out);
    write_settings(&link.limits, &mut out);
    let opening = async {
        let mut control = link.quic.open_uni().await?;
        // If it can't be written the connection is gone, which the next step finds out.
        let _ = control.write_all(&out).await;
        Ok(control)
    };
    timeout(link.config.head_timeout, opening).await.unwrap_or_else(|_| {
        let reason = "the client has no room for a control stream";
        link.refuse(Code::H3_STREAM_CREATION_ERROR, reason.into());
        Err(quinn::ConnectionError::LocallyClosed)
    })
}

async fn send_goaway(link: &Link, control: &mut SendStream, id: u64) {
    let mut out = BytesMut::new();
    write_frame_header(frame::GOAWAY, number::len(id) as u64, &mut out);
    number::encode(id, &mut out);
    // A client that doesn't let us write will see the connection close.
    let _ = timeout(NOTICE.1, control.write_all(&out)).await;
    tracing::trace!(peer = %link.quic.remote_address(), id, "goaway");
}

/// The client turned out to have many requests.
fn allow_more(link: &Link) {
    if let Some(most) = link.config.requests_open_max {
        link.quic.set_max_concurrent_bi_streams(most.into());
    }
}

/// The client may send the request again elsewhere (RFC 9114 4.1.1).
fn reject(link: &Link, mut send: SendStream, mut recv: RecvStream) {
    Counters::count(&link.counters().rejected);
    let code = varint(Code::H3_REQUEST_REJECTED);
    let _ = send.reset(code); // it may be gone
    let _ = recv.stop(code); // it may have ended
}

fn reap(requests: &mut JoinSet<()>) {
    while let Some(joined) = requests.try_join_next() {
        log_panic(joined);
    }
}

fn log_panic(joined: Result<(), JoinError>) {
    if let Err(error) = joined
        && error.is_panic()
    {
        tracing::error!(error = &error as &dyn std::error::Error, "a request's task panicked");
    }
}

/// Closes the connection before its streams are dropped, which would say that they are complete.
struct Closing<'l>(&'l Link);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.quic.close(varint(Code::H3_NO_ERROR), b"");
    }
}
