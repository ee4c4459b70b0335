//! How new blocks become a layer's two files.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use crate::{
    BlockEntry, Digest, LayerIndex, LayerStore, WriteError,
    block::Encoder,
    durable::{sync_dir, write_synced},
    format::PAGE_BYTES,
};

/// A layer in the making. Its files have temporary names; dropping it removes them.
#[derive(Debug)]
pub(crate) struct LayerWriter {
    store: LayerStore,
    /// Where the files are; the extensions tell them apart.
    path: PathBuf,
    file: Option<File>,
    encoder: Encoder,
    blocks: Vec<BlockEntry>,
    numbers: HashMap<Digest, u32>,
    stored: u64,
}

impl LayerWriter {
    pub(crate) fn new(store: LayerStore) -> Self {
        let path = store.fresh_path();
        Self {
            store,
            path,
            file: None,
            encoder: Encoder::new(),
            blocks: Vec::new(),
            numbers: HashMap::new(),
            stored: 0,
        }
    }

    /// The number of the block with this digest, if it is in this layer already.
    pub(crate) fn find(&self, digest: Digest) -> Option<u32> {
        self.numbers.get(&digest).copied()
    }

    /// Appends a block and returns its number. After an error the same block may be added again.
    pub(crate) fn add(&mut self, digest: Digest, pages: &[u8]) -> Result<u32, WriteError> {
        // One below the most, so that the number of blocks fits, too.
        let Some(number) = u32::try_from(self.blocks.len()).ok().filter(|n| *n < u32::MAX) else {
            return Err(WriteError::TooMany { what: "blocks" });
        };
        if self.file.is_none() {
            self.file = Some(self.create()?);
        }
        let (codec, stored) = self.encoder.encode(pages);
        let path = self.path.with_extension("blocks");
        if let Some(file) = &self.file {
            // At a place, not at the end: what a failed write left is written over.
            file.write_all_at(stored, self.stored)
                .map_err(|source| WriteError::from_io("write", path, source))?;
        }
        self.blocks.push(BlockEntry {
            digest,
            offset: self.stored,
            stored: u32::try_from(stored.len()).expect("a block has at most 64 Ki"),
            pages: u8::try_from(pages.len() / PAGE_BYTES).expect("a block has at most 16 pages"),
            codec,
        });
        self.stored += stored.len() as u64;
        self.numbers.insert(digest, number);
        Ok(number)
    }

    /// Syncs the files and gives them their names, blocks first; `None` if there are no blocks.
    pub(crate) fn finish(mut self) -> Result<Option<LayerIndex>, WriteError> {
        let Some(file) = self.file.take() else {
            return Ok(None);
        };
        let index = LayerIndex::new(std::mem::take(&mut self.blocks));
        if self.store.contains(index.id()) {
            return Ok(Some(index)); // same id, same bytes: ours are removed
        }
        // Both are whole before the first gets its name: a full disk is found out by then.
        let [blocks, entries] = ["blocks", "index"].map(|kind| self.path.with_extension(kind));
        file.sync_all().map_err(|source| WriteError::from_io("sync", &blocks, source))?;
        write_synced(&entries, &index.to_bytes())
            .map_err(|source| WriteError::from_io("write", &entries, source))?;
        rename(&blocks, &self.store.blocks_path(index.id()))?;
        rename(&entries, &self.store.index_path(index.id()))?;
        let dir = self.store.dir();
        sync_dir(dir).map_err(|source| WriteError::from_io("sync", dir, source))?;
        self.store.known().add(&index);
        Ok(Some(index))
    }

    fn create(&self) -> Result<File, WriteError> {
        let dir = self.store.dir();
        fs::create_dir_all(dir).map_err(|source| WriteError::from_io("make", dir, source))?;
        let path = self.path.with_extension("blocks");
        File::create_new(&path).map_err(|source| WriteError::from_io("make", path, source))
    }
}

impl Drop for LayerWriter {
    fn drop(&mut self) {
        for path in ["blocks", "index"].map(|kind| self.path.with_extension(kind)) {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove a half-written layer");
            }
        }
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), WriteError> {
    fs::rename(from, to).map_err(|source| WriteError::from_io("name", to, source))
}
