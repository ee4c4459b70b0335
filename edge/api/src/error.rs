//! The one error shape.

use serde::{Deserialize, Serialize};

/// The body of every answer that isn't a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong, for programs: one of [`crate::ErrorCode`]'s words.
    pub code: String,
    /// What went wrong, for people.
    pub message: String,
    /// The request's id, as in the `x-request-id` header and the logs.
    pub request_id: String,
}
