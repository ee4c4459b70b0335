//! Why a call of the API failed.

use std::time::Duration;

use http::Uri;

use crate::{ErrorBody, ErrorCode};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The endpoint's URL can't be used.
    #[error("`{url}` can't be used as the API's address: {reason}")]
    BadEndpoint {
        /// The URL.
        url: Uri,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No connection.
    #[error("could not connect to {address}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke, or what came is no HTTP.
    #[error("the connection to the API failed")]
    Http(#[source] hyper::Error),
    /// The deadline passed.
    #[error("the API did not answer within {0:?}")]
    Deadline(Duration),
    /// The API refused.
    #[error("{}: {}", .0.code, .0.message)]
    Refused(ErrorBody, http::StatusCode),
    /// The answer isn't what this version of the client expects.
    #[error("the API's answer (status {status}) was not understood")]
    BadAnswer {
        /// Its status.
        status: http::StatusCode,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The request couldn't be written down.
    #[error("the request could not be made")]
    BadRequest(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ClientError {
    /// The API's code, if it was the API that refused and the code is known here.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(body, _) => body.code.parse().ok(),
            _ => None,
        }
    }
}
