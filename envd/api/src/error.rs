//! Why a call to the guest daemon failed.

use std::time::Duration;

use connectrpc::{ConnectError, ErrorCode};

/// Why a call to the guest daemon failed.
#[derive(Debug, thiserror::Error)]
pub enum EnvdError {
    /// No connection, or it broke before the answer was complete.
    #[error("envd can't be reached to {call}")]
    Unreachable {
        /// What was asked for.
        call: &'static str,
        /// What the transport said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The deadline passed; whether the guest acted on the call is not known.
    #[error("envd did not {call} within {waited:?}")]
    Timeout {
        /// What was asked for.
        call: &'static str,
        /// The deadline.
        waited: Duration,
    },
    /// The guest daemon answered no.
    #[error("envd refused to {call}: {message} (status {status}, {code})")]
    Refused {
        /// What was asked for.
        call: &'static str,
        /// HTTP status.
        status: u16,
        /// A Connect code such as `not_found`, or the status as text.
        code: String,
        /// The guest daemon's words, cut to 4096 bytes.
        message: String,
    },
    /// The answer is not what the contract says.
    #[error("envd gave a malformed answer to {call}: {detail}")]
    Malformed {
        /// What was asked for.
        call: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

impl EnvdError {
    /// The code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// The HTTP status of a refusal.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    pub(crate) fn unreachable(
        call: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unreachable { call, source: source.into() }
    }

    pub(crate) fn malformed(call: &'static str, detail: impl ToString) -> Self {
        Self::Malformed { call, detail: detail.to_string() }
    }

    /// Sorts a Connect error: the transport's own become [`EnvdError::Unreachable`].
    pub(crate) fn from_connect(call: &'static str, waited: Duration, error: ConnectError) -> Self {
        let code = error.code;
        if code == ErrorCode::DeadlineExceeded {
            return Self::Timeout { call, waited };
        }
        if code == ErrorCode::Unavailable && error.source_arc().is_some() {
            return Self::unreachable(call, error);
        }
        Self::Refused {
            call,
            status: error.http_status().as_u16(),
            code: code.as_str().to_owned(),
            message: shortened(error.message.as_deref().unwrap_or("no message")),
        }
    }
}

/// Cuts a guest's text to 4096 bytes, at a character's edge.
pub(crate) fn shortened(text: &str) -> String {
    const LONGEST: usize = 4096;
    text[..text.floor_char_boundary(LONGEST)].to_owned()
}
