//! Sends one request to one agent: HTTP/1.1, or HTTP/2 without TLS for guests that speak only that.
//!
//! A kept connection that turns out to be closed before a byte was sent is replaced, silently;
//! nothing else is sent twice. Dropping the future or the answer closes the connection (or resets
//! the stream), so the agent, and through it the guest, sees a client that went away.

mod body;
mod h2c;
mod pool;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use edge_http1::client::{self, Connection, Sending};
use http::{Response, request, response};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

pub(crate) use body::UpstreamBody;
pub(crate) use pool::Pool;

use crate::{
    body::BoxError, config::Limits, headers::added::Added, pace::Pace, request_body::BodyHandle,
};

/// Stale kept connections that are tried before a new one is made.
const STALE_MAX: usize = 4;
/// How long a held body waits to be asked for before it goes out unasked.
const HOLD_WAIT: Duration = Duration::from_secs(1);

/// A worker's side of all agents.
#[derive(Debug)]
pub(crate) struct Upstream {
    pool: Arc<Pool>,
    h2c: h2c::Links,
    connect_timeout: Duration,
}

/// An answer's head, its body, and when the request was handed over.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) parts: response::Parts,
    pub(crate) body: UpstreamBody,
    pub(crate) sent_at: Instant,
    pub(crate) reused: bool,
}

/// How one attempt is made.
pub(crate) struct Attempt<'a> {
    pub(crate) agent: SocketAddr,
    /// When it begins.
    pub(crate) now: Instant,
    pub(crate) parts: &'a request::Parts,
    pub(crate) added: &'a Added,
    pub(crate) body: &'a BodyHandle,
    pub(crate) deadline: Instant,
    /// The body stays here until the agent asks for it.
    pub(crate) hold_body: bool,
    pub(crate) h2c: bool,
    /// How silent and how slow the bodies may be.
    pub(crate) pace: &'a Pace,
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
    /// The client's own body broke off or was too large.
    #[error("the request's body broke off")]
    Body(#[source] BoxError),
    /// The deadline passed.
    #[error("the agent at {agent} did not answer in time")]
    Deadline { agent: SocketAddr },
}

impl Upstream {
    pub(crate) fn new(limits: &Limits) -> Self {
        let pool = Pool::new(limits.upstream_idle_per_agent, limits.upstream_idle_timeout);
        let connect_timeout = limits.connect_timeout;
        Self { pool: Arc::new(pool), h2c: h2c::Links::default(), connect_timeout }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection the request went by, or resets its stream.
    pub(crate) async fn send(
        &self,
        attempt: Attempt<'_>,
        on_interim: &mut (dyn FnMut(Response<()>) + Send),
    ) -> Result<Answered, SendError> {
        if attempt.h2c {
            return Box::pin(self.h2c.send(&attempt, self.connect_timeout)).await;
        }
        let agent = attempt.agent;
        for stale in 0..=STALE_MAX {
            let kept = if stale < STALE_MAX { self.pool.take(agent, attempt.now) } else { None };
            let reused = kept.is_some();
            let connection = match kept {
                Some(connection) => connection,
                None => dial(agent, attempt.deadline, self.connect_timeout).await?,
            };
            match self.exchange(connection, &attempt, reused, on_interim).await {
                Err(Sent::Stale) => {}
                Err(Sent::Failed(error)) => return Err(error),
                Ok(answered) => return Ok(answered),
            }
        }
        let source = io::Error::other("every connection was closed before the request was sent");
        Err(SendError::Connect { agent, source: source.into() })
    }

    async fn exchange(
        &self,
        connection: Connection,
        attempt: &Attempt<'_>,
        reused: bool,
        on_interim: &mut (dyn FnMut(Response<()>) + Send),
    ) -> Result<Answered, Sent> {
        let agent = attempt.agent;
        // A kept connection is at hand at once; to read the clock is not for nothing.
        let sent_at = if reused { attempt.now } else { Instant::now() };
        let hold = attempt.hold_body && !attempt.body.is_empty();
        let sending = Sending {
            fields: attempt.added.wire(),
            deadline: attempt.deadline,
            hold_body_until: hold.then(|| sent_at + HOLD_WAIT),
            on_interim,
        };
        let body = attempt.body.attempt(attempt.pace);
        let failed = |error| Err(Sent::Failed(error));
        match connection.send(attempt.parts, body, sending).await {
            Ok(response) => {
                let (parts, answer) = response.into_parts();
                let body = UpstreamBody::h1(answer, &self.pool, agent, attempt.pace);
                Ok(Answered { parts, body, sent_at, reused })
            }
            Err(client::SendError::Unsent(_) | client::SendError::Closed)
                if reused && attempt.body.is_untouched() && is_repeatable(attempt.parts) =>
            {
                Err(Sent::Stale)
            }
            Err(client::SendError::Unsent(_)) if reused && attempt.body.is_untouched() => {
                Err(Sent::Stale)
            }
            Err(client::SendError::Late) => failed(SendError::Deadline { agent }),
            Err(client::SendError::Body(source)) => failed(SendError::Body(source)),
            Err(error) => failed(SendError::Reset { agent, source: error.into() }),
        }
    }
}

/// What one connection made of a request.
enum Sent {
    /// The connection was closed before the agent can have read anything.
    Stale,
    Failed(SendError),
}

/// A kept connection that is closed without an answer was closed while idle, as the agent does after
/// a while; a safe request may then go once more (RFC 9110 9.2.2).
fn is_repeatable(parts: &request::Parts) -> bool {
    parts.method.is_safe()
}

async fn dial(
    agent: SocketAddr,
    deadline: Instant,
    connect_timeout: Duration,
) -> Result<Connection, SendError> {
    connect(agent, deadline, connect_timeout).await.map(Connection::from_tcp)
}

async fn connect(
    agent: SocketAddr,
    deadline: Instant,
    connect_timeout: Duration,
) -> Result<TcpStream, SendError> {
    let failed = |source: BoxError| SendError::Connect { agent, source };
    let until = deadline.min(Instant::now() + connect_timeout);
    let stream = timeout_at(until, TcpStream::connect(agent))
        .await
        .map_err(|elapsed| failed(elapsed.into()))?
        .map_err(|error| failed(error.into()))?;
    stream.set_nodelay(true).map_err(|error| failed(error.into()))?;
    Ok(stream)
}
