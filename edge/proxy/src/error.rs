//! Every way a request can fail at the edge, its stable code and its status.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderValue, Response, StatusCode, header};
use pool_model::{RequestId, SandboxId};

use crate::{
    body::{self, Body, BoxError},
    route::HostError,
};

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
    /// No function has this name.
    #[error("there is no function `{name}`")]
    FunctionNotFound {
        /// The name.
        name: String,
    },
    /// No sandbox has this id.
    #[error("there is no sandbox {sandbox}")]
    SandboxNotFound {
        /// The id.
        sandbox: SandboxId,
    },
    /// The control plane knows the target but has no agent for it.
    #[error("no agent can serve this now")]
    NoAgent,
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
    /// The stable code and the status. A new variant does not compile until it has both.
    #[must_use]
    pub fn code(&self) -> (&'static str, StatusCode) {
        match self {
            Self::Host(HostError::BadHost) => ("bad_host", StatusCode::BAD_REQUEST),
            Self::Host(HostError::BadPort) => ("bad_port", StatusCode::BAD_REQUEST),
            Self::Host(HostError::LabelTooLong) => ("label_too_long", StatusCode::BAD_REQUEST),
            Self::Host(HostError::UnknownHost) => ("unknown_host", StatusCode::NOT_FOUND),
            Self::Malformed { .. } => ("invalid_argument", StatusCode::BAD_REQUEST),
            Self::HeadersTooLarge { .. } => {
                ("headers_too_large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
            }
            Self::FunctionNotFound { .. } => ("function_not_found", StatusCode::NOT_FOUND),
            Self::SandboxNotFound { .. } => ("sandbox_not_found", StatusCode::NOT_FOUND),
            Self::NoAgent | Self::AgentUnavailable { .. } => {
                ("agent_unavailable", StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::NoCapacity { .. } => ("no_capacity", StatusCode::SERVICE_UNAVAILABLE),
            Self::DeadlineExceeded { .. } => ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
            Self::UpstreamReset { .. } => ("upstream_reset", StatusCode::BAD_GATEWAY),
        }
    }

    /// The answer: `{code, message, request_id}`.
    pub(crate) fn into_response(self, request_id: RequestId) -> Response<Body> {
        let (code, status) = self.code();
        let text = serde_json::json!({
            "code": code,
            "message": self.to_string(),
            "request_id": request_id,
        });
        let mut response = Response::new(body::full(text.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-wrenn-error", HeaderValue::from_static(code));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
