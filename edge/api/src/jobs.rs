//! Invocations that nobody waits for, and the schedules that make some.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::FunctionName;

/// Most invocations of one listing.
pub const INVOCATIONS_MAX: u32 = 1000;
/// Invocations of a listing that doesn't say how many.
pub const INVOCATIONS_DEFAULT: u32 = 100;

/// An invocation that nobody waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// Its id, `inv_` and 25 digits of 0-9a-z.
    pub id: String,
    /// The function.
    pub function: FunctionName,
    /// The tag that the request named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Who made it: `async` (a caller) or `cron`.
    pub source: String,
    /// `queued`, `running`, `succeeded`, `dead` (no attempt is left) or `cancelled`.
    pub state: String,
    /// The request's method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// Attempts begun.
    pub attempts: u32,
    /// Attempts before it is a dead letter.
    pub attempts_max: u32,
    /// When the next attempt is due, while it is queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// The status of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why there is no answer, or why it was not good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The answer, if it has one and was asked for alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<InvocationResult>,
    /// How posting the result went, if the function has a webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookStatus>,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When the last attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it was finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When it is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// An answer as it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvocationResult {
    /// Its header fields, in their order.
    pub headers: Vec<(String, String)>,
    /// Its body, base64.
    pub body: String,
    /// Whether the body is only the beginning of it: more than 6 MiB are not kept.
    pub truncated: bool,
}

/// How posting a result went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookStatus {
    /// `due`, `delivered` or `failed`.
    pub state: String,
    /// Tries begun.
    pub attempts: u32,
    /// Why the last one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One schedule of a function, and its times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronStatus {
    /// Its name.
    pub name: String,
    /// Five fields.
    pub schedule: String,
    /// Its time zone.
    pub timezone: String,
    /// The next minute it is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// The last minute it fired for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<Timestamp>,
}
