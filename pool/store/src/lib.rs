//! Snapshots on disk: one directory per snapshot, complete or not there at all, over layers of
//! content-addressed blocks that they share.
//!
//! ```text
//! snapshots/{snapshot25}/{manifest.json, memory.map, state, scratch.ext4}    working-set, later
//!                                            │
//!                        guest pages ► blocks │ of
//!                                            ▼
//! layers/{layer}.index, {layer}.blocks       (one per snapshot, of what its parent did not have)
//!
//! begin ─► .tmp-…/{state,scratch.ext4}  ─► commit: digest, fsync, rename ─► {snapshot25}/
//!   └─ writer ─► put, put, finish ─► layer ─┘
//! ```
//!
//! # Invariants
//!
//! - A directory whose name is a snapshot's label is complete and was synced before it got the
//!   name; so is a layer that has an index. Nothing in them is written again, the working set aside.
//! - The id is the first 128 bits of the BLAKE3 hash of the manifest without its id, and the
//!   manifest holds the digest of every file; the map's layers are named by digest, too, and their blocks
//!   by theirs: same id, same bytes.
//! - A restore reads one map and the blocks it needs, however often the sandbox was paused: no
//!   snapshot needs its parent, and a map names few layers.
//! - What is damaged is refused and named; no byte of a block is used before its digest was checked.
//! - Layers are deleted only while nobody makes a snapshot, and only if none names them.
//! - Holes stay holes: files are copied and digested extent by extent.
//! - A full disk is told apart from every other failure and leaves nothing half-made.
//!
//! # Limits
//!
//! A manifest is at most 64 KiB. Everything here blocks on the disk: call it from a blocking
//! thread. The agent is the only writer of a store.

mod adopt;
mod block;
mod collect;
mod digest;
mod draft;
mod durable;
mod error;
pub mod format;
mod image_reader;
mod image_writer;
mod known_blocks;
mod layer_error;
mod layer_index;
mod layer_writer;
mod layers;
mod manifest;
mod overlay;
mod page_map;
mod pins;
mod snapshot;
mod sparse;
mod sparse_digest;
mod store;
mod working_set;

pub use adopt::AdoptError;
pub use block::{BlockEntry, BlockError, Codec, decode_block};
pub use collect::{ARRIVING_PREFIX, GcReport};
pub use digest::{Digest, LayerId, ParseDigestError};
pub use draft::Draft;
pub use error::{
    BeginError, CommitError, DeleteError, ListError, OpenError, is_damage, is_no_space,
};
pub use format::{BLOCK_BYTES, BLOCK_PAGES, FormatError, LAYERS_MAX, PAGE_BYTES};
pub use image_reader::ImageReader;
pub use image_writer::{ImageWriter, Written};
pub use layer_error::{GcError, LayerError, ReadError, WriteError};
pub use layer_index::LayerIndex;
pub use layers::{Layer, LayerStore};
pub use manifest::{
    FileDigest, MANIFEST_BYTES_MAX, MANIFEST_VERSION, Manifest, Memory, NewManifest,
};
pub use page_map::{PageMap, Run};
pub use pins::LayerPin;
pub use snapshot::Snapshot;
pub use sparse::{Extent, copy_sparse, copy_sparse_into, data_extents};
pub use sparse_digest::digest_sparse;
pub use store::SnapshotStore;
pub use working_set::WorkingSet;
