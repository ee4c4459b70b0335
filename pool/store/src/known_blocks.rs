//! Which blocks this host has already: what deduplication asks.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{Digest, LayerId, LayerIndex, LayerStore};

/// All blocks of local layers by digest; read from their indexes at the first question.
#[derive(Debug, Default)]
pub(crate) struct KnownBlocks {
    blocks: Mutex<Option<HashMap<Digest, Place>>>,
}

/// Where a block is: layer, and number within it.
pub(crate) type Place = (LayerId, u32);

impl KnownBlocks {
    /// Where a block of this digest is, if any layer of `store` has one.
    pub(crate) fn find(&self, store: &LayerStore, digest: Digest) -> Option<Place> {
        self.lock().get_or_insert_with(|| load(store)).get(&digest).copied()
    }

    /// Adds a layer that has just got its name.
    pub(crate) fn add(&self, index: &LayerIndex) {
        if let Some(blocks) = self.lock().as_mut() {
            insert(blocks, index);
        }
    }

    /// Layers were deleted: the next question reads the indexes again.
    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<Digest, Place>>> {
        // A half-filled map only finds less.
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert(blocks: &mut HashMap<Digest, Place>, index: &LayerIndex) {
    for (number, block) in (0..).zip(index.blocks()) {
        blocks.entry(block.digest).or_insert((index.id(), number));
    }
}

/// Reads all indexes whose blocks are here too. One that can't be read deduplicates nothing.
fn load(store: &LayerStore) -> HashMap<Digest, Place> {
    let mut blocks = HashMap::new();
    let names = std::fs::read_dir(store.dir()).into_iter().flatten().flatten();
    for name in names.map(|entry| entry.file_name()) {
        let id = name.to_str().and_then(|name| name.strip_suffix(".index"));
        let Some(id) = id.and_then(|id| id.parse().ok()) else {
            continue;
        };
        match store.open(id) {
            Ok(layer) => insert(&mut blocks, layer.index()),
            Err(crate::LayerError::NotFound { .. }) => {} // its blocks are elsewhere
            Err(error) => tracing::warn!(%id, %error, "cannot deduplicate into a layer"),
        }
    }
    blocks
}
