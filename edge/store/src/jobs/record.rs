//! What is known of an invocation that nobody waits for, and how it stands in the table.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use pool_model::{FunctionId, RequestId, TeamId};
use rand::Rng as _;
use sqlx::sqlite::SqliteRow;

use crate::{StoreError, row::Typed};

/// The columns that [`read`] reads: all but the bodies, which are large.
pub(super) const COLUMNS: &str = "id, team_id, function_id, function_name, tag, source, state, \
    method, path, attempts_max, backoff_ms, result_ttl_ms, webhook, attempts, claims, \
    next_attempt_at_ms, status, truncated, error, webhook_state, webhook_attempts, webhook_error, \
    created_at_ms, started_at_ms, finished_at_ms, expires_at_ms";

/// Bits of an id that are random; the time in milliseconds stands above them.
const RANDOM_BITS: u32 = 80;

/// The id of an invocation: `inv_` and 25 digits of 0-9a-z. Later ones sort later.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InvocationId(u128);

impl InvocationId {
    /// Makes a new one.
    #[must_use]
    pub fn generate(at: Timestamp) -> Self {
        let ms = u128::from(at.as_millisecond().max(0).unsigned_abs()) & 0xffff_ffff_ffff;
        let random = rand::rng().random::<u128>() >> (u128::BITS - RANDOM_BITS);
        Self((ms << RANDOM_BITS) | random)
    }
}

/// A text that is no id of an invocation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no invocation's id: expected `inv_` and 25 digits of 0-9a-z")]
pub struct BadInvocationId(String);

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All ids have the same digits.
        write!(f, "inv_{}", RequestId::from_u128(self.0).label())
    }
}

impl fmt::Debug for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InvocationId {
    type Err = BadInvocationId;
    fn from_str(text: &str) -> Result<Self, BadInvocationId> {
        let label = text.strip_prefix("inv_").unwrap_or("");
        let id = RequestId::from_label(label);
        id.map(|id| Self(id.as_u128()))
            .map_err(|_| BadInvocationId(text.chars().take(64).collect()))
    }
}

/// Words of a column.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$case_doc:meta])* $case:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$case_doc])* $case,)* }

        impl $name {
            /// The word for it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$case => $word,)* }
            }
        }

        impl FromStr for $name {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($word => Ok(Self::$case),)* _ => Err(()) }
            }
        }
    };
}

words! {
    /// Who made an invocation.
    InvocationSource {
        /// A caller that asked not to wait.
        Async = "async",
        /// The clock.
        Cron = "cron",
    }
}

words! {
    /// Where an invocation stands.
    InvocationState {
        /// It waits for an attempt.
        Queued = "queued",
        /// An attempt is under way.
        Running = "running",
        /// It has an answer that is final.
        Succeeded = "succeeded",
        /// No attempt is left: a dead letter.
        Dead = "dead",
        /// It was taken back before it ran, or its function was deleted.
        Cancelled = "cancelled",
    }
}

words! {
    /// Whether a result was posted.
    WebhookState {
        /// It is to be.
        Due = "due",
        /// It was.
        Delivered = "delivered",
        /// It was given up.
        Failed = "failed",
    }
}

/// An invocation to be.
#[derive(Debug, Clone)]
pub struct NewInvocation {
    /// Its id.
    pub id: InvocationId,
    /// The function's team.
    pub team: TeamId,
    /// The function.
    pub function: FunctionId,
    /// The function's name.
    pub name: String,
    /// The tag that was named.
    pub tag: Option<String>,
    /// Who makes it.
    pub source: InvocationSource,
    /// The request's method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// Its header fields; values as they are, also if they aren't UTF-8.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its body.
    pub body: Vec<u8>,
    /// Attempts before it is a dead letter.
    pub attempts_max: u32,
    /// Pause after the first attempt, milliseconds.
    pub backoff_ms: u64,
    /// How long its result is kept, milliseconds.
    pub result_ttl_ms: u64,
    /// Where the result is posted to.
    pub webhook: Option<String>,
    /// Now.
    pub at: Timestamp,
}

/// An invocation without its bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvocationRecord {
    /// Its id.
    pub id: InvocationId,
    /// The function's team.
    pub team: TeamId,
    /// The function, which may be gone.
    pub function: FunctionId,
    /// The function's name at the time.
    pub name: String,
    /// The tag that was named.
    pub tag: Option<String>,
    /// Who made it.
    pub source: InvocationSource,
    /// Where it stands.
    pub state: InvocationState,
    /// The request's method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// Attempts before it is a dead letter.
    pub attempts_max: u32,
    /// Pause after the first attempt, milliseconds.
    pub backoff_ms: u64,
    /// How long its result is kept, milliseconds.
    pub result_ttl_ms: u64,
    /// Where the result is posted to.
    pub webhook: Option<String>,
    /// Attempts begun.
    pub attempts: u32,
    /// How often it was claimed: says whether a claim still holds.
    pub claims: u64,
    /// When the next attempt is due, if one is.
    pub next_attempt_at: Timestamp,
    /// The status of the last answer.
    pub status: Option<u16>,
    /// Whether the answer was longer than what is kept.
    pub truncated: bool,
    /// Why there is no answer, or why it was not good.
    pub error: Option<String>,
    /// Whether the result was posted.
    pub webhook_state: Option<WebhookState>,
    /// How often that was tried.
    pub webhook_attempts: u32,
    /// Why it failed.
    pub webhook_error: Option<String>,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When the last attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it is forgotten.
    pub expires_at: Option<Timestamp>,
}

/// Header fields and a body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InvocationBody {
    /// The fields in their order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

pub(super) fn read(row: &SqliteRow) -> Result<InvocationRecord, StoreError> {
    let row = Typed(row);
    Ok(InvocationRecord {
        id: row.parse("id")?,
        team: row.parse("team_id")?,
        function: row.parse("function_id")?,
        name: row.text("function_name")?,
        tag: row.optional_text("tag")?,
        source: row.parse("source")?,
        state: row.parse("state")?,
        method: row.text("method")?,
        path: row.text("path")?,
        attempts_max: row.number("attempts_max")?,
        backoff_ms: row.number("backoff_ms")?,
        result_ttl_ms: row.number("result_ttl_ms")?,
        webhook: row.optional_text("webhook")?,
        attempts: row.number("attempts")?,
        claims: row.number("claims")?,
        next_attempt_at: row.time("next_attempt_at_ms")?,
        status: row.optional_number("status")?,
        truncated: row.flag("truncated")?,
        error: row.optional_text("error")?,
        webhook_state: row.parse_optional("webhook_state")?,
        webhook_attempts: row.number("webhook_attempts")?,
        webhook_error: row.optional_text("webhook_error")?,
        created_at: row.time("created_at_ms")?,
        started_at: row.optional_time("started_at_ms")?,
        finished_at: row.optional_time("finished_at_ms")?,
        expires_at: row.optional_time("expires_at_ms")?,
    })
}

pub(super) fn read_request(row: &Typed<'_>) -> Result<InvocationBody, StoreError> {
    Ok(InvocationBody { headers: headers(row, "headers")?, body: bytes(row, "body")? })
}

pub(super) fn read_answer(row: &Typed<'_>) -> Result<InvocationBody, StoreError> {
    let (headers, body) = (headers(row, "response_headers")?, bytes(row, "response_body")?);
    Ok(InvocationBody { headers, body })
}

/// Bytes as the text that stands in the table.
pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn bytes(row: &Typed<'_>, column: &'static str) -> Result<Vec<u8>, StoreError> {
    decode(column, &row.text(column)?)
}

fn decode(column: &'static str, text: &str) -> Result<Vec<u8>, StoreError> {
    STANDARD.decode(text).map_err(|_| corrupt(column, text))
}

/// Header fields as the JSON that stands in the table: pairs of a name and a value, the value in
/// base64 for it may be any bytes.
pub(super) fn headers_json(headers: &[(String, Vec<u8>)]) -> String {
    let pairs: Vec<_> = headers.iter().map(|(name, value)| (name, encode(value))).collect();
    serde_json::to_string(&pairs).expect("pairs of texts are JSON")
}

fn headers(row: &Typed<'_>, column: &'static str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let text = row.text(column)?;
    let pairs: Vec<(String, String)> =
        serde_json::from_str(&text).map_err(|_| corrupt(column, &text))?;
    let decoded = pairs.into_iter().map(|(name, value)| Ok((name, decode(column, &value)?)));
    decoded.collect()
}

fn corrupt(column: &'static str, found: &str) -> StoreError {
    StoreError::Corrupt { column, found: found.chars().take(64).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_age_and_survive_their_text() {
        let at = |ms| InvocationId::generate(Timestamp::from_millisecond(ms).unwrap());
        let (old, new) = (at(1_700_000_000_000), at(1_700_000_000_001));
        assert!(old < new && old.to_string() < new.to_string());
        assert_ne!(at(5), at(5));
        assert_eq!(new.to_string().parse::<InvocationId>().unwrap(), new);
        for bad in ["", "inv_", "req_0000000000000000000000000", &old.to_string()[4..]] {
            assert!(bad.parse::<InvocationId>().is_err(), "{bad}");
        }
    }
}
