//! What the outside sees of the edge: the JSON of its API, its error codes and a client.
//!
//! # Invariants
//!
//! - A request with a field this version doesn't know is refused; an answer may gain fields.
//! - Every error has the one shape [`ErrorBody`] with a code from [`ErrorCode`].
//! - `openapi.json` beside this crate describes exactly the routes the control plane serves.
//!
//! # Limits
//!
//! The code archive of a deploy is at most [`MAX_ARCHIVE_BYTES`], any other request body at most
//! [`MAX_JSON_BYTES`].

mod capsule;
mod client;
mod domain;
mod error;
mod exec;
mod function;
mod jobs;
mod name;
mod pool;
mod pool_stats;
mod sign;
mod snapshot;
mod version;

pub use capsule::{Capsule, CreateCapsule, SetTimeout};
pub use client::{Client, ClientError, Endpoint, ExecStream, PoolEvents};
pub use domain::{AddDomain, Domain, TxtRecord};
pub use error::ErrorBody;
pub use exec::{BadChunk, Chunk, Encoding, ExecEvent, ExecRequest};
pub use function::{DeployConfig, Function};
pub use jobs::{
    CronStatus, INVOCATIONS_DEFAULT, INVOCATIONS_MAX, Invocation, InvocationResult, WebhookStatus,
};
pub use name::{BadFunctionName, FunctionName};
pub use pool::{
    Drained, POOL_EVENTS_INTERVAL_MS, POOL_EVENTS_INTERVAL_MS_MAX, POOL_EVENTS_INTERVAL_MS_MIN,
    PoolEnd, PoolEvent, PoolInfo, PoolPatch, PoolTrouble, Prewarm,
};
pub use pool_stats::{Breaker, PoolHistogram, PoolMemory, PoolSample, PoolStats, RestoreStep};
pub use sign::{SIGN_EXPIRES_S_MAX, Sign, SignedUrl};
pub use snapshot::{CreateSnapshot, SnapshotInfo, SnapshotKind, TemplateInfo};
pub use version::{BadTagName, FunctionTag, FunctionVersion, Promote, SetTag, TagName};

pub use pool_model::{
    Day, ErrorCode, InvocationPolicy, PoolPolicy, Prefetch, Reuse, Schedule, TagWeight, TimeOfDay,
    TrafficPolicy,
};

use serde::{Deserialize, Serialize};

/// The header that carries the API key.
pub const API_KEY_HEADER: &str = "x-api-key";
/// The header that carries the request's id, on every answer.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// Most bytes of a deploy's code archive as sent (compressed).
pub const MAX_ARCHIVE_BYTES: u64 = 64 << 20;
/// Most bytes of any other request body.
pub const MAX_JSON_BYTES: usize = 1 << 20;
/// The checked-in OpenAPI description, served at `/openapi.json`.
pub const OPENAPI: &str = include_str!("../openapi.json");

/// Every listing has this shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List<T> {
    /// What was found, oldest first.
    pub items: Vec<T>,
}

/// The answer of `GET /healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`, or `degraded` when no agent answers.
    pub status: String,
    /// The edge's version.
    pub version: String,
    /// Whether the agent answered its last health question.
    pub agent_reachable: bool,
}
