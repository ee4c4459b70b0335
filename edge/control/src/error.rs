//! Why a call of the API fails: a code and a text for the caller, a cause for the log.

use std::error::Error;

use edge_store::StoreError;
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
            StoreError::NameTaken { .. } => ErrorCode::NameTaken,
            StoreError::Busy { .. } => ErrorCode::Conflict,
            StoreError::Open { .. }
            | StoreError::Migrate(_)
            | StoreError::Query { .. }
            | StoreError::Corrupt { .. }
            | StoreError::DamagedPolicy { .. } => return Self::internal(error),
        };
        Self::new(code, error.to_string())
    }
}
