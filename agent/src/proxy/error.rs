//! Answers that the agent makes itself, in the one JSON shape.

use std::fmt;

use agent_api::proxy;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use pool::LeaseError;
use pool_model::{ErrorCode, SandboxId};

use super::body::Body;
use crate::{
    error::{AgentError, chain},
    lifecycle::Asleep,
};

/// Seconds after which a refused request may find a sandbox.
const RETRY_AFTER_S: u16 = 1;
/// Seconds after which one may find a sandbox that boots.
const RETRY_STARTING_S: u16 = 2;
/// Seconds after which one may find a sandbox whose resume is slow already.
const RETRY_RESUMING_S: u16 = 5;

/// Why a request was not answered by its guest.
#[derive(Debug)]
pub(super) struct Failure {
    code: ErrorCode,
    message: String,
    sandbox: Option<SandboxId>,
}

impl Failure {
    pub(super) fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), sandbox: None }
    }

    pub(super) fn of(mut self, sandbox: SandboxId) -> Self {
        self.sandbox = Some(sandbox);
        self
    }

    pub(super) fn response(self, request_id: Option<&str>) -> Response<Body> {
        let body = serde_json::json!({
            "code": self.code.as_str(),
            "message": self.message,
            "request_id": request_id,
        });
        let body = Full::new(Bytes::from(body.to_string()));
        let body = Body::new(body.map_err(|never| match never {}).boxed_unsync());
        let mut response = Response::new(body);
        *response.status_mut() =
            StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::BAD_GATEWAY);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(proxy::ERROR, HeaderValue::from_static(self.code.as_str()));
        if self.code.http_status() == 503 {
            let seconds = match self.code {
                ErrorCode::SandboxStarting => RETRY_STARTING_S,
                ErrorCode::SandboxResuming => RETRY_RESUMING_S,
                _ => RETRY_AFTER_S,
            };
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(sandbox) = self.sandbox {
            super::upstream::set_sandbox(headers, sandbox);
        }
        response
    }
}

impl From<&AgentError> for Failure {
    fn from(error: &AgentError) -> Self {
        let code = error.code();
        if code == ErrorCode::Internal {
            tracing::error!("proxying failed: {}", chain(error));
        }
        Self::new(code, error.public_message())
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        Self::from(&error)
    }
}

impl From<Asleep> for Failure {
    fn from(asleep: Asleep) -> Self {
        match &asleep {
            Asleep::Starting => Self::new(ErrorCode::SandboxStarting, asleep),
            Asleep::Resuming => Self::new(ErrorCode::SandboxResuming, asleep),
            Asleep::Failed(error) => Self::from(error.as_ref()),
        }
    }
}

impl From<LeaseError> for Failure {
    fn from(error: LeaseError) -> Self {
        let code = match &error {
            LeaseError::TimedOut { .. } | LeaseError::Full { .. } => ErrorCode::PoolEmpty,
            LeaseError::Broken { cause, .. } => {
                cause.downcast_ref::<AgentError>().map_or(ErrorCode::Internal, AgentError::code)
            }
            // It is being replaced or removed; another try sees which.
            LeaseError::Closed => ErrorCode::PoolEmpty,
        };
        Self::new(code, chain(&error))
    }
}
