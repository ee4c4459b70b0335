//! HTTP/2 without TLS to agents, for guests that speak only HTTP/2: gRPC needs its trailers and both
//! directions at once. Many requests share a connection.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Uri, Version, uri::Scheme};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::{Answered, Attempt, SendError, UpstreamBody, connect};
use crate::{body::BoxError, request_body::RequestBody};

/// Requests at a time on one connection; agents allow more.
const STREAMS_MAX: usize = 64;
/// Flow control per stream.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Flow control per connection.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// How often a silent connection is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(20);

/// A request's place on a connection; the connection lives at least as long.
#[derive(Debug)]
pub(super) struct Place(Arc<Link>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Link {
    sender: SendRequest<RequestBody>,
    streams: AtomicUsize,
    _driver: AbortOnDropHandle<()>,
}

/// The connections, by agent.
#[derive(Debug, Default)]
pub(super) struct Links(Mutex<HashMap<SocketAddr, Vec<Arc<Link>>>>);

impl Links {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Vec<Arc<Link>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn send(
        &self,
        attempt: &Attempt<'_>,
        connect_timeout: Duration,
    ) -> Result<Answered, SendError> {
        let agent = attempt.agent;
        let (place, reused) = match self.take(agent) {
            Some(place) => (place, true),
            None => (self.open(attempt, connect_timeout).await?, false),
        };
        let request = request(attempt);
        let sent_at = Instant::now();
        let sending = place.0.sender.clone().send_request(request);
        match timeout_at(attempt.deadline, sending).await {
            Ok(Ok(response)) => {
                let (parts, incoming) = response.into_parts();
                let body = UpstreamBody::h2(incoming, place, attempt.pace);
                Ok(Answered { parts, body, sent_at, reused })
            }
            Ok(Err(error)) => Err(SendError::Reset { agent, source: error.into() }),
            Err(_) => Err(SendError::Deadline { agent }),
        }
    }

    /// A connection with room; those that ended are forgotten.
    fn take(&self, agent: SocketAddr) -> Option<Place> {
        let mut links = self.lock();
        let of_agent = links.get_mut(&agent)?;
        of_agent.retain(|link| !link.sender.is_closed());
        let free = of_agent.iter().find(|l| l.streams.load(Ordering::Relaxed) < STREAMS_MAX)?;
        Some(place_on(free))
    }

    async fn open(
        &self,
        attempt: &Attempt<'_>,
        connect_timeout: Duration,
    ) -> Result<Place, SendError> {
        let agent = attempt.agent;
        let stream = connect(agent, attempt.deadline, connect_timeout).await?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(PING_EVERY)
            .handshake(TokioIo::new(stream))
            .await;
        let failed = |source: BoxError| SendError::Connect { agent, source };
        let (sender, connection) = handshake.map_err(|error| failed(error.into()))?;
        let driver = tokio::spawn(async move {
            // Its error reaches whoever waits for an answer or reads a body.
            let _ = connection.await;
        });
        let driver = AbortOnDropHandle::new(driver);
        let link = Arc::new(Link { sender, streams: AtomicUsize::new(0), _driver: driver });
        let place = place_on(&link);
        self.lock().entry(agent).or_default().push(link);
        Ok(place)
    }
}

fn place_on(link: &Arc<Link>) -> Place {
    link.streams.fetch_add(1, Ordering::Relaxed);
    Place(Arc::clone(link))
}

fn request(attempt: &Attempt<'_>) -> Request<RequestBody> {
    let mut request = Request::new(attempt.body.attempt(attempt.pace));
    let parts = attempt.parts;
    *request.method_mut() = parts.method.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = parts.headers.clone();
    attempt.added.append_to(request.headers_mut());
    let host = request.headers_mut().remove(http::header::HOST);
    let authority = host.and_then(|host| host.to_str().ok()?.parse().ok());
    let mut uri = parts.uri.clone().into_parts();
    (uri.scheme, uri.authority) = (Some(Scheme::HTTP), authority);
    if uri.authority.is_none() {
        uri.scheme = None;
    }
    if let Ok(uri) = Uri::from_parts(uri) {
        *request.uri_mut() = uri;
    }
    request
}
