//! Snapshots on disk: one directory per snapshot, complete or not there at all.
//!
//! ```text
//! begin ─► .tmp-…/{memory,state,scratch.ext4} ─► commit: digest, fsync, rename ─► {snapshot25}/
//!                        └─ dropped or crashed: removed, at the latest by sweep_drafts
//! ```
//!
//! # Invariants
//!
//! - A directory whose name is a snapshot's label is complete and was synced before it got the
//!   name. Nothing in it is ever written again.
//! - The id is the first 128 bits of the BLAKE3 hash of the manifest without its id, and the
//!   manifest holds the digest of every file: same id, same bytes.
//! - Holes stay holes: files are copied and digested extent by extent.
//! - A full disk is told apart from every other failure and leaves nothing half-made.
//!
//! # Limits
//!
//! A manifest is at most 64 KiB. Everything here blocks on the disk: call it from a blocking
//! thread. The agent is the only writer of a store.

mod digest;
mod error;
mod manifest;
mod sparse;
mod store;

pub use digest::digest_sparse;
pub use error::{BeginError, CommitError, DeleteError, ListError, OpenError, is_no_space};
pub use manifest::{
    FileDigest, Files, MANIFEST_BYTES_MAX, MANIFEST_VERSION, Manifest, NewManifest,
};
pub use sparse::{Extent, copy_sparse, data_extents};
pub use store::{Draft, Snapshot, SnapshotStore};
