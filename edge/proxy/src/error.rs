//! Every way a request can fail at the edge, its stable code, and whose fault it is.

use std::{net::SocketAddr, time::Duration};

use edge_telemetry::Refused;
use pool_model::{ErrorCode, SandboxId};

use crate::{body::BoxError, route::HostError};

/// Why the edge answers instead of a guest.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The host names nothing.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The request's head breaks a rule of HTTP.
    #[error("the request is malformed: {reason}")]
    Malformed {
        /// Which rule.
        reason: &'static str,
    },
    /// The head is too large.
    #[error("the request's header fields are larger than {limit_bytes} bytes")]
    HeadersTooLarge {
        /// The limit.
        limit_bytes: u32,
    },
    /// The connection's SNI is another host.
    #[error("this connection was made for another host than `{host}`")]
    Misdirected {
        /// The host of the request.
        host: String,
    },
    /// A method or protocol that is not served.
    #[error("{what} is not served here")]
    NotImplemented {
        /// What.
        what: &'static str,
    },
    /// `Expect` asks for something unknown.
    #[error("`Expect` may only be `100-continue`")]
    Expectation,
    /// The request came through here too often.
    #[error("the request has come through this edge {hops} times: it goes in a circle")]
    Loop {
        /// How often.
        hops: usize,
    },
    /// No function has this name.
    #[error("there is no function `{name}`")]
    FunctionNotFound {
        /// The name.
        name: String,
    },
    /// The function has no such tag.
    #[error("function `{name}` has no tag `{tag}`")]
    TagNotFound {
        /// The function.
        name: String,
        /// The tag.
        tag: String,
    },
    /// No sandbox has this id.
    #[error("there is no sandbox {sandbox}")]
    SandboxNotFound {
        /// The id.
        sandbox: SandboxId,
    },
    /// Not allowed in from there.
    #[error("requests from this address are not allowed")]
    AddressRefused,
    /// Nobody said who asks, or not convincingly.
    #[error("{reason}")]
    Unauthorized {
        /// What is missing or wrong.
        reason: String,
    },
    /// Credentials came along but can't be checked now.
    #[error("credentials cannot be checked now: {reason}")]
    Unchecked {
        /// What can't be asked.
        reason: String,
    },
    /// Known, but not allowed.
    #[error("{reason}")]
    Forbidden {
        /// Why.
        reason: String,
    },
    /// Too many requests per second.
    #[error("more requests than {scope} may have per second; try again in {retry_after:?}")]
    RateLimited {
        /// Whose limit.
        scope: &'static str,
        /// When there is room again.
        retry_after: Duration,
    },
    /// Too many wait already.
    #[error("as many requests wait for this target as may wait")]
    QueueFull {
        /// When there may be room again.
        retry_after: Duration,
    },
    /// Waited in vain.
    #[error("no place became free in {waited:?}")]
    QueueTimeout {
        /// How long.
        waited: Duration,
        /// When there may be room again.
        retry_after: Duration,
    },
    /// The body is larger than the function takes.
    #[error("the request's body is larger than {limit_bytes} bytes")]
    PayloadTooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The answer is larger than the function may give.
    #[error("the answer is larger than {limit_bytes} bytes")]
    ResponseTooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The body came too slowly.
    #[error("the request's body came too slowly")]
    RequestTimeout,
    /// An invocation that nobody waits for could not be taken.
    #[error("{source}")]
    Submit {
        /// Why.
        source: crate::routes::SubmitError,
    },
    /// The control plane knows the target but has no agent for it.
    #[error("no agent can serve this now")]
    NoAgent,
    /// The agents failed too often.
    #[error("every agent of this target failed too often just now")]
    CircuitOpen {
        /// When one is tried again.
        retry_after: Duration,
    },
    /// The agent can't be reached.
    #[error("the agent of this target cannot be reached")]
    AgentUnavailable {
        /// Its address; for the log, not for the client.
        agent: SocketAddr,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// No agent has a sandbox to spare.
    #[error("no sandbox is free for function `{name}`")]
    NoCapacity {
        /// The function.
        name: String,
    },
    /// The answer did not begin in time.
    #[error("{step} took longer than {after:?}")]
    DeadlineExceeded {
        /// What was waited for.
        step: &'static str,
        /// How long.
        after: Duration,
    },
    /// The connection to the agent broke before the answer began.
    #[error("the connection broke before the answer began")]
    UpstreamReset {
        /// How.
        #[source]
        source: BoxError,
    },
}

impl EdgeError {
    /// The stable code. A new variant does not compile until it has one.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Host(HostError::BadHost) => ErrorCode::BadHost,
            Self::Host(HostError::BadPort) => ErrorCode::BadPort,
            Self::Host(HostError::LabelTooLong) => ErrorCode::LabelTooLong,
            Self::Host(HostError::UnknownHost) => ErrorCode::UnknownHost,
            Self::Malformed { .. } => ErrorCode::InvalidArgument,
            Self::HeadersTooLarge { .. } => ErrorCode::HeadersTooLarge,
            Self::Misdirected { .. } => ErrorCode::MisdirectedRequest,
            Self::NotImplemented { .. } => ErrorCode::NotImplemented,
            Self::Expectation => ErrorCode::ExpectationFailed,
            Self::Loop { .. } => ErrorCode::LoopDetected,
            Self::FunctionNotFound { .. } => ErrorCode::FunctionNotFound,
            Self::TagNotFound { .. } => ErrorCode::TagNotFound,
            Self::SandboxNotFound { .. } => ErrorCode::SandboxNotFound,
            Self::AddressRefused | Self::Forbidden { .. } => ErrorCode::Forbidden,
            Self::Unauthorized { .. } => ErrorCode::Unauthorized,
            Self::RateLimited { .. } => ErrorCode::RateLimited,
            Self::QueueFull { .. } | Self::Submit { source: crate::routes::SubmitError::Full } => {
                ErrorCode::QueueFull
            }
            Self::QueueTimeout { .. } => ErrorCode::QueueTimeout,
            Self::PayloadTooLarge { .. }
            | Self::Submit { source: crate::routes::SubmitError::TooLarge { .. } } => {
                ErrorCode::PayloadTooLarge
            }
            Self::ResponseTooLarge { .. } => ErrorCode::ResponseTooLarge,
            Self::RequestTimeout => ErrorCode::RequestTimeout,
            Self::Submit { source: crate::routes::SubmitError::Unavailable }
            | Self::Unchecked { .. }
            | Self::NoAgent
            | Self::AgentUnavailable { .. } => ErrorCode::AgentUnavailable,
            Self::CircuitOpen { .. } => ErrorCode::CircuitOpen,
            Self::NoCapacity { .. } => ErrorCode::NoCapacity,
            Self::DeadlineExceeded { .. } => ErrorCode::DeadlineExceeded,
            Self::UpstreamReset { .. } => ErrorCode::UpstreamReset,
        }
    }

    /// Which guard refused the request, if one did.
    pub(crate) fn refused_by(&self) -> Option<Refused> {
        match self {
            Self::RateLimited { .. } => Some(Refused::Rate),
            Self::QueueFull { .. } => Some(Refused::Queue),
            Self::QueueTimeout { .. } => Some(Refused::QueueTimeout),
            Self::Unauthorized { .. } => Some(Refused::Auth),
            Self::AddressRefused => Some(Refused::Address),
            Self::CircuitOpen { .. } => Some(Refused::Circuit),
            _ => None,
        }
    }

    /// When another try makes sense, if that is known or the code says so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. }
            | Self::QueueFull { retry_after }
            | Self::QueueTimeout { retry_after, .. }
            | Self::CircuitOpen { retry_after } => Some(*retry_after),
            Self::Submit { .. } => Some(Duration::from_secs(1)),
            _ if self.code().http_status() == 503 => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}
