//! Why a call of the API fails: a code and a text for the caller, a cause for the log.

use std::error::Error;

use edge_store::{ChangeError, StoreError};
use pool_model::ErrorCode;

/// A refusal or a failure. `Display` is what the caller is told.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    code: ErrorCode,
    message: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ApiError {
    /// A refusal whose text says it all.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: None }
    }

    /// A failure of ours: the caller learns that it was ours, the log why.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let message = "an internal error; the log has it under the request id".to_owned();
        Self { code: ErrorCode::Internal, message, source: Some(source.into()) }
    }

    /// What is wrong with which field.
    pub(crate) fn field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidArgument, format!("`{field}`: {problem}"))
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// True if the thing asked for isn't there.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        self.code.http_status() == 404
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NameTaken { .. } | StoreError::DomainTaken { .. } => ErrorCode::NameTaken,
            StoreError::Busy { .. } | StoreError::TooManyDomains => ErrorCode::Conflict,
            StoreError::Change(change) => return change.clone().into(),
            StoreError::Open { .. }
            | StoreError::Migrate(_)
            | StoreError::Query { .. }
            | StoreError::Corrupt { .. }
            | StoreError::DamagedPolicy { .. }
            | StoreError::DamagedInvocation { .. } => return Self::internal(error),
        };
        Self::new(code, error.to_string())
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        match &error {
            ChangeError::NoVersion { .. } => Self::field("version", error),
            ChangeError::FirstIsCurrent => Self::field("promote", error),
            ChangeError::Unreachable => Self::field("tag", error),
            ChangeError::NoTag { .. } => Self::new(ErrorCode::TagNotFound, error.to_string()),
            ChangeError::InSplit { .. } | ChangeError::TooManyTags => {
                Self::new(ErrorCode::Conflict, error.to_string())
            }
        }
    }
}
