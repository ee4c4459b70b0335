//! URLs that may be called without a key, for a while.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Longest that a signed URL may be good, seconds: 30 days.
pub const SIGN_EXPIRES_S_MAX: u64 = 2_592_000;

/// The body of `POST /v1/functions/{name}/sign`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sign {
    /// The method that may be used; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path and query.
    pub path: String,
    /// How long it is good, seconds from now: 1 to [`SIGN_EXPIRES_S_MAX`].
    pub expires_s: u64,
}

/// A signed URL. The function's `auth` has to name `signed_url`, or its signature is not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedUrl {
    /// The URL.
    pub url: String,
    /// When it ends to be good.
    pub expires_at: Timestamp,
}
