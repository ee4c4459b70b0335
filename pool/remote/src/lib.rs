//! Snapshots in an S3-compatible object store: how a snapshot made on one host restores on another.
//!
//! ```text
//! host A                          bucket                           host B
//! snapshot ── publish ─► manifest, map, state, disks ── fetch ─► snapshot without blocks
//! layers   ── publish ─► blocks, indexes ── LayerSource ─► block cache ─► page server
//! ```
//!
//! # Invariants
//!
//! - `manifest.json` is written last and deleted first: where it is, the snapshot is whole.
//! - Layers and disks are named by their content and never change. What is there is not sent again.
//! - No byte from the bucket is used before its digest was checked, and a damaged local file is not
//!   sent: damage is an error that names the object.
//! - Every request is tried a bounded number of times within a bounded time, and its error says
//!   which object, what was tried, how often, and what happened the last time.
//! - Credentials are never printed.
//!
//! # Limits
//!
//! A manifest is at most 64 KiB, an index or a map at most 256 MiB. Publishing takes up to
//! `parallel` × 8 MiB of memory, and for a moment room on the disk for the packed disk. One
//! collection at a time. An upload in parts that dies half-way leaves parts that only the bucket's
//! lifecycle rules remove.

mod cache;
mod config;
mod disk;
mod disks;
mod error;
mod fetch;
mod gc;
mod install;
mod keys;
mod publish;
mod ranges;
mod remote;
mod retry;
mod source;
mod stats;
mod upload;

pub use cache::{BlockCache, CacheFile};
pub use config::{
    ConfigError, Credentials, DEFAULT_ATTEMPT_TIMEOUT, DEFAULT_ATTEMPTS, DEFAULT_DEADLINE,
    DEFAULT_PARALLEL, RemoteConfig,
};
pub use error::{Cause, RemoteError, SourceError};
pub use gc::Collected;
pub use publish::Published;
pub use remote::Remote;
pub use source::{LayerSource, SourceLayer, Trust};
pub use stats::{BUCKET_BOUNDS_US, Origin, OriginStats, SourceStats};
pub use upload::PART_BYTES;
