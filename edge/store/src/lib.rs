//! The edge's records: teams, keys, functions, capsules, snapshots and unfinished work.
//!
//! SQLite through sqlx today; the SQL in `migrations/` and in here is what PostgreSQL takes too
//! (numbered parameters, TEXT and BIGINT), so that it can come behind [`Store`] later.
//!
//! # Invariants
//!
//! - Everything a caller can name is looked up by (team, name or id): no query crosses teams, but
//!   those of the reconciler and the router, which say so.
//! - An API key is never stored, only its BLAKE3 hash.
//! - A function always points to a snapshot that has a row; a function's snapshot without a
//!   function is garbage and found by [`Store::orphan_snapshots`].
//!
//! # Limits
//!
//! Four connections; a writer waits 5 s for the one before it.

mod capsules;
mod error;
mod functions;
mod keys;
mod operations;
mod row;
mod snapshots;
mod store;

pub use capsules::CapsuleRecord;
pub use error::StoreError;
pub use functions::{FunctionRecord, NewVersion, Published};
pub use keys::{ApiKey, BadApiKey};
pub use operations::{OperationKind, OperationRecord};
pub use snapshots::{SnapshotKind, SnapshotRecord};
pub use store::Store;
