//! Sends one request to one agent over HTTP/1.1.
//!
//! A pooled connection that turns out to be closed before a byte was sent is replaced, silently;
//! nothing else is sent twice. Dropping the future or the answer closes the connection, so the
//! agent, and through it the guest, sees a client that went away.

mod answer;
mod pool;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use answer::AnswerBody;
use pool::Link;
pub(crate) use pool::Pool;

use crate::{
    body::{BoxError, RequestBody},
    config::Limits,
};

/// Stale pooled connections that are tried before a new one is made.
const STALE_MAX: usize = 4;
/// Largest head of an answer. The agent's own fields come on top of the guest's.
const ANSWER_HEAD_MAX_BYTES: usize = 128 * 1024;
/// Most header fields of an answer.
const ANSWER_HEADERS_MAX: usize = 256;

/// The edge's side of all agents.
#[derive(Debug)]
pub(crate) struct Upstream {
    pool: Arc<Pool>,
    connect_timeout: Duration,
    links: TaskTracker,
    cut: CancellationToken,
}

/// An answer's head, the link its body comes by, and when the request was handed over.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) response: Response<Incoming>,
    pub(crate) link: Link,
    pub(crate) sent_at: Instant,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// Nothing was sent.
    #[error("the agent at {agent} cannot be reached")]
    Connect {
        agent: SocketAddr,
        #[source]
        source: BoxError,
    },
    /// Something may have been sent.
    #[error("the connection to the agent at {agent} broke")]
    Reset {
        agent: SocketAddr,
        #[source]
        source: BoxError,
    },
    /// The deadline passed.
    #[error("the agent at {agent} did not answer in time")]
    Deadline { agent: SocketAddr },
}

impl Upstream {
    pub(crate) fn new(limits: &Limits) -> Self {
        let pool = Pool::new(limits.upstream_idle_per_agent, limits.upstream_idle_timeout);
        Self {
            pool: Arc::new(pool),
            connect_timeout: limits.connect_timeout,
            links: TaskTracker::new(),
            cut: CancellationToken::new(),
        }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Closes every connection and waits until they are gone, `wait` at most.
    pub(crate) async fn close(&self, wait: Duration) {
        self.cut.cancel();
        self.pool.clear();
        self.links.close();
        let _ = timeout(wait, self.links.wait()).await; // they only have to notice
    }

    /// Sends `request` and waits for the head of the answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection the request went by.
    pub(crate) async fn send(
        &self,
        agent: SocketAddr,
        mut request: Request<RequestBody>,
        deadline: Instant,
    ) -> Result<Answered, SendError> {
        for attempt in 0..=STALE_MAX {
            let pooled = if attempt < STALE_MAX { self.pool.take(agent) } else { None };
            let fresh = pooled.is_none();
            let mut link = match pooled {
                Some(link) => link,
                None => self.dial(agent, deadline).await?,
            };
            let sent_at = Instant::now();
            let sending = link.sender().try_send_request(request);
            let Ok(outcome) = timeout_at(deadline, sending).await else {
                return Err(SendError::Deadline { agent });
            };
            match outcome {
                Ok(response) => return Ok(Answered { response, link, sent_at }),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    _ => {
                        let source = error.into_error().into();
                        return Err(SendError::Reset { agent, source });
                    }
                },
            }
        }
        let source = io::Error::other("every connection was closed before the request was sent");
        Err(SendError::Connect { agent, source: source.into() })
    }

    async fn dial(&self, agent: SocketAddr, deadline: Instant) -> Result<Link, SendError> {
        let connect = |source: BoxError| SendError::Connect { agent, source };
        let until = deadline.min(Instant::now() + self.connect_timeout);
        let stream = timeout_at(until, TcpStream::connect(agent))
            .await
            .map_err(|elapsed| connect(elapsed.into()))?
            .map_err(|error| connect(error.into()))?;
        stream.set_nodelay(true).map_err(|error| connect(error.into()))?;
        let (sender, connection) = http1::Builder::new()
            .max_header_size(ANSWER_HEAD_MAX_BYTES)
            .max_headers(ANSWER_HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| connect(error.into()))?;
        let cut = self.cut.clone();
        let task = self.links.spawn(async move {
            // Its error reaches whoever waits for the answer or reads the body.
            let _ = cut.run_until_cancelled_owned(connection.with_upgrades()).await;
        });
        Ok(Link::new(agent, sender, task.abort_handle()))
    }
}
