//! What the control plane tells the data plane: where a function or a sandbox lives.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use pool_model::{FunctionId, InvocationPolicy, SandboxId, TeamId, TrafficPolicy};

/// Answers where to send a request. Caching is the implementer's affair: the `cached_` getters must
/// answer from memory, without a lock that could be held long, or say `None`.
#[async_trait]
pub trait Routes: Send + Sync + 'static {
    /// The function called `name` (lower case), if that is known without asking anybody.
    fn cached_function(&self, name: &str) -> Option<Result<Arc<FunctionRoute>, RouteError>>;

    /// The function called `name` (lower case).
    async fn function(&self, name: &str) -> Result<Arc<FunctionRoute>, RouteError>;

    /// The sandbox, if it is known without asking anybody.
    fn cached_sandbox(&self, id: SandboxId) -> Option<Result<Arc<SandboxRoute>, RouteError>>;

    /// The sandbox; a paused one is resumed by its agent when the request comes there.
    async fn sandbox(&self, id: SandboxId) -> Result<Arc<SandboxRoute>, RouteError>;

    /// The function that a custom domain (lower case) belongs to, if that is known already.
    fn cached_domain(&self, host: &str) -> Option<Result<Arc<str>, RouteError>>;

    /// The function that a verified custom domain (lower case) belongs to.
    async fn domain(&self, host: &str) -> Result<Arc<str>, RouteError>;

    /// Whose API key this is.
    async fn team_of_key(&self, key: &str) -> Result<Option<TeamId>, RouteError>;

    /// Takes an invocation that nobody waits for; it is on disk when this returns.
    async fn submit(&self, invocation: Submission) -> Result<Submitted, SubmitError>;
}

/// Where a function can be invoked, and how.
#[derive(Debug, Clone)]
pub struct FunctionRoute {
    /// The function.
    pub function: FunctionId,
    /// Its name.
    pub name: Arc<str>,
    /// Whose it is.
    pub team: TeamId,
    /// How it may be invoked.
    pub policy: Arc<InvocationPolicy>,
    /// What its URLs are signed with, if any ever was.
    pub signing_secret: Option<Arc<str>>,
    /// What its plain name means if no tag has a weight.
    pub current: VersionRoute,
    /// Its tags.
    pub tags: Vec<TagRoute>,
    /// Agents in the order in which they are tried.
    pub agents: Arc<[AgentEndpoint]>,
}

/// A tag of a function.
#[derive(Debug, Clone)]
pub struct TagRoute {
    /// The tag.
    pub tag: Arc<str>,
    /// Its share of the requests to the plain name; 0: none.
    pub weight: u32,
    /// What it stands for.
    pub version: VersionRoute,
}

/// One version of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRoute {
    /// Its number.
    pub version: u32,
    /// The pool that serves it.
    pub pool: FunctionId,
    /// Longest wait for the head of the answer, counted from the request's arrival.
    pub timeout: Duration,
}

/// Where a sandbox can be reached, and by whom.
#[derive(Debug, Clone)]
pub struct SandboxRoute {
    /// Whose it is.
    pub team: TeamId,
    /// The agent that holds it.
    pub agent: AgentEndpoint,
    /// Who may reach its ports.
    pub traffic: Arc<TrafficPolicy>,
    /// What opens its private ports.
    pub traffic_token: Option<Arc<str>>,
    /// Longest wait for the head of the answer, counted from the request's arrival.
    pub timeout: Duration,
}

/// An invocation that nobody waits for.
#[derive(Debug)]
pub struct Submission {
    /// The function.
    pub route: Arc<FunctionRoute>,
    /// The tag that the request named.
    pub tag: Option<String>,
    /// Method, path and header fields as the guest will see them.
    pub parts: http::request::Parts,
    /// The whole body.
    pub body: Bytes,
}

/// An invocation that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Its id.
    pub id: String,
    /// Where its state can be asked for.
    pub status_url: String,
}

/// Why an invocation was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// As many wait as may wait.
    #[error("as many invocations of this function wait as may wait")]
    Full,
    /// It is larger than what is kept.
    #[error("the request is larger than an asynchronous invocation may be: {reason}")]
    TooLarge {
        /// Which limit, with its number.
        reason: String,
    },
    /// It can't be recorded now.
    #[error("the invocation cannot be recorded now")]
    Unavailable,
}

/// An agent's proxy listener.
#[derive(Debug, Clone)]
pub struct AgentEndpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it wants to see.
    pub token: AgentToken,
}

/// The secret between edge and agent. `Debug` doesn't show it.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentToken(Arc<HeaderValue>);

impl AgentToken {
    /// Takes the token; `None` if it could not stand in a header.
    #[must_use]
    pub fn new(token: &str) -> Option<Self> {
        let mut value = HeaderValue::from_str(token).ok()?;
        value.set_sensitive(true);
        Some(Self(Arc::new(value)))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for AgentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentToken(..)")
    }
}

/// Why there is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// There is no such function or sandbox.
    #[error("there is no such target")]
    NotFound,
    /// It exists, but no agent can serve it now, or it can't be looked up now.
    #[error("the target cannot be served now")]
    Unavailable,
}
