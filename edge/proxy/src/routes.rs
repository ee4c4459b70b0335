//! What the control plane tells the data plane: where a function or a sandbox lives.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::HeaderValue;
use pool_model::{FunctionId, SandboxId};

/// Answers where to send a request. Caching is the implementer's affair.
#[async_trait]
pub trait Routes: Send + Sync + 'static {
    /// The agents that may hold warm sandboxes of the function called `name` (lower case).
    async fn function(&self, name: &str) -> Result<FunctionRoute, RouteError>;

    /// The agent that holds the sandbox; a paused one may be resumed meanwhile.
    async fn sandbox(&self, id: SandboxId) -> Result<SandboxRoute, RouteError>;
}

/// Where a function can be invoked.
#[derive(Debug, Clone)]
pub struct FunctionRoute {
    /// The function.
    pub function: FunctionId,
    /// Agents in the order in which they are tried.
    pub agents: Vec<AgentEndpoint>,
    /// Longest wait for the head of the answer, counted from the request's arrival.
    pub timeout: Duration,
}

/// Where a sandbox can be reached.
#[derive(Debug, Clone)]
pub struct SandboxRoute {
    /// The agent that holds it.
    pub agent: AgentEndpoint,
    /// Longest wait for the head of the answer, counted from the request's arrival.
    pub timeout: Duration,
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

    pub(crate) fn header(&self) -> HeaderValue {
        (*self.0).clone()
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
