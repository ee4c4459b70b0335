//! Why a command fails, and with which exit status.

use std::{error::Error, io, path::Path};

use edge_api::ClientError;
use serde::Serialize;

/// Exit status of `sandbox exec` when the failure is ours, not the command's (as with `docker`).
pub(crate) const EXEC_FAILED: u8 = 125;

/// Most links of a chain of causes that are shown.
const CAUSES_MAX: usize = 8;

/// What stops a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The API refused, or was not reached.
    #[error("{0}")]
    Api(ClientError),
    /// The arguments or a file of the caller's can't be used.
    #[error("{0}")]
    Usage(String),
    /// Something on this machine failed.
    #[error("could not {step}")]
    Local {
        /// What was attempted.
        step: String,
        /// What the system said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It took too long or came out wrong; the message is complete.
    #[error("{0}")]
    Gave(String),
    /// The failure of `sandbox exec` itself.
    #[error("{0}")]
    Exec(Box<Failure>),
}

/// The shape of an error on standard error with `--json`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    code: &'a str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

impl Failure {
    /// `step` failed with `source`.
    pub(crate) fn local(
        step: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Local { step: step.into(), source: source.into() }
    }

    /// A closure for `map_err`: doing `verb` to `path` failed.
    pub(crate) fn file(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let step = format!("{verb} {}", path.display());
        move |source| Self::local(step, source)
    }

    /// The process's exit status.
    pub(crate) const fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => 64, // EX_USAGE of sysexits.h
            Self::Exec(_) => EXEC_FAILED,
            Self::Api(_) | Self::Local { .. } | Self::Gave(_) => 1,
        }
    }

    /// For people: code, message and request id, then the chain of causes.
    pub(crate) fn report(&self) -> String {
        let mut text = format!("error: {self}");
        if let Some(id) = self.request_id() {
            text.push_str(&format!("\n  request id: {id}"));
        }
        for cause in self.causes() {
            text.push_str(&format!("\n  because: {cause}"));
        }
        text
    }

    /// For programs: one line of JSON.
    pub(crate) fn as_json(&self) -> String {
        let mut message = self.to_string();
        if let Self::Api(ClientError::Refused(body, _)) = self {
            message.clone_from(&body.message);
        }
        for cause in self.causes() {
            message.push_str(": ");
            message.push_str(&cause);
        }
        let line = Line { code: self.code(), message, request_id: self.request_id() };
        serde_json::to_string(&line).expect("texts are valid JSON")
    }

    fn code(&self) -> &str {
        match self {
            Self::Api(ClientError::Refused(body, _)) => &body.code,
            Self::Api(ClientError::Deadline(_)) => "deadline_exceeded",
            Self::Api(_) => "unreachable",
            Self::Usage(_) => "usage",
            Self::Local { .. } | Self::Gave(_) => "failed",
            Self::Exec(inner) => inner.code(),
        }
    }

    fn request_id(&self) -> Option<&str> {
        match self {
            Self::Api(ClientError::Refused(body, _)) => Some(&body.request_id),
            Self::Exec(inner) => inner.request_id(),
            _ => None,
        }
    }

    fn causes(&self) -> Vec<String> {
        let mut next = match self {
            Self::Api(error) => error.source(),
            Self::Exec(inner) => return inner.causes(),
            _ => self.source(),
        };
        let mut causes = Vec::new();
        while let Some(cause) = next
            && causes.len() < CAUSES_MAX
        {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Api(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_shows_code_message_and_request_id() {
        let body = edge_api::ErrorBody {
            code: "function_not_found".to_owned(),
            message: "no function `x`".to_owned(),
            request_id: "req_1".to_owned(),
        };
        let failure = Failure::from(ClientError::Refused(body, http::StatusCode::NOT_FOUND));
        let text = failure.report();
        assert!(text.contains("function_not_found: no function `x`"), "{text}");
        assert!(text.contains("request id: req_1"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&failure.as_json()).unwrap();
        assert_eq!(json["message"], "no function `x`");
        assert_eq!(Failure::Exec(Box::new(failure)).exit_status(), EXEC_FAILED);
    }
}
