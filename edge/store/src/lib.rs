//! The edge's records: teams, keys, functions, capsules, snapshots, invocations that nobody waits
//! for, and unfinished work.
//!
//! SQLite through sqlx today; the SQL in `migrations/` and in here is what PostgreSQL takes too
//! (numbered parameters, TEXT and BIGINT), so that it can come behind [`Store`] later.
//!
//! # Invariants
//!
//! - Everything a caller can name is looked up by (team, name or id): no query crosses teams, but
//!   those of the reconciler and the router, which say so.
//! - An API key is never stored, only its BLAKE3 hash.
//! - A version always points to a snapshot that has a row; a function's snapshot without a version
//!   is garbage and found by [`Store::orphan_snapshots`].
//! - A version has a row while it is its function's current one or has a tag.
//!
//! # Limits
//!
//! Four connections; a writer waits 5 s for the one before it.

mod capsules;
mod domains;
mod error;
mod functions;
mod jobs;
mod keys;
mod live;
mod live_sql;
mod operations;
mod publish;
mod row;
mod secret;
mod snapshots;
mod store;

pub use capsules::CapsuleRecord;
pub use domains::{DOMAINS_MAX, DomainRecord};
pub use error::StoreError;
pub use functions::FunctionRecord;
pub use jobs::{
    Answer, BadInvocationId, CronFire, CronOwner, End, InvocationBody, InvocationId,
    InvocationRecord, InvocationSource, InvocationState, NewInvocation, WebhookState,
};
pub use keys::{ApiKey, BadApiKey};
pub use live::{Change, ChangeError, LiveFunction, TAGS_MAX, TagRecord, VersionRecord};
pub use operations::{OperationKind, OperationRecord};
pub use publish::{NewVersion, Published};
pub use secret::Secret;
pub use snapshots::{SnapshotKind, SnapshotRecord};
pub use store::Store;
