//! What a map's pages contain, read from local layers.

use std::os::unix::fs::FileExt as _;

use crate::{
    BlockError, Layer, LayerId, LayerStore, PageMap, ReadError, Run, decode_block,
    format::{BLOCK_BYTES, PAGE_BYTES, PAGE_BYTES_U64},
};

/// Reads runs of a map. Keeps each layer open, and of each the block that was read last: cheap
/// if runs are read in order.
#[derive(Debug)]
pub struct ImageReader<'a> {
    store: &'a LayerStore,
    map: &'a PageMap,
    layers: Vec<Option<OpenLayer>>,
    stored: Box<[u8]>,
}

#[derive(Debug)]
struct OpenLayer {
    layer: Layer,
    block: Option<u32>,
    content: Box<[u8]>,
}

impl<'a> ImageReader<'a> {
    /// Reads from `store`, which has to have all layers that are read from.
    #[must_use]
    pub fn new(store: &'a LayerStore, map: &'a PageMap) -> Self {
        let layers = map.layers().iter().map(|_| None).collect();
        Self { store, map, layers, stored: vec![0; BLOCK_BYTES].into() }
    }

    /// The verified content of `run`, which is one of the map's.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: a layer isn't here, or a block of it is damaged or not what the map claims.
    ///
    /// # Panics
    ///
    /// If the map has no such layer.
    pub fn content(&mut self, run: &Run) -> Result<&[u8], ReadError> {
        let id = self.map.layers()[usize::from(run.layer)];
        let open = &mut self.layers[usize::from(run.layer)];
        let open = match open {
            Some(open) => open,
            None => {
                let layer = self.store.open(id)?;
                let content = vec![0; BLOCK_BYTES].into();
                open.insert(OpenLayer { layer, block: None, content })
            }
        };
        open.load(id, run.block, &mut self.stored)?;
        let entry = open.layer.index().blocks()[run.block as usize];
        let from = usize::from(run.first) * PAGE_BYTES;
        let to = from + run.pages as usize * PAGE_BYTES;
        if to > entry.content_bytes() {
            return Err(ReadError::Pages { layer: id, block: run.block, pages: entry.pages });
        }
        Ok(&open.content[from..to])
    }

    /// Fills `out` with the guest's memory from page `page` on, zero pages included.
    ///
    /// # Errors
    ///
    /// See [`ImageReader::content`]; `out` then holds anything.
    ///
    /// # Panics
    ///
    /// If `out` isn't whole pages.
    pub fn read(&mut self, page: u64, out: &mut [u8]) -> Result<(), ReadError> {
        assert!(out.len().is_multiple_of(PAGE_BYTES), "whole pages are read");
        out.fill(0);
        let map = self.map;
        let end = page + out.len() as u64 / PAGE_BYTES_U64;
        for run in map.runs_between(page, end) {
            let run = run.part(run.page.max(page), run.end().min(end));
            let at = usize::try_from(run.page - page).unwrap_or(usize::MAX) * PAGE_BYTES;
            let content = self.content(&run)?;
            out[at..at + content.len()].copy_from_slice(content);
        }
        Ok(())
    }
}

impl OpenLayer {
    /// Makes `block` the one that was read last.
    fn load(&mut self, id: LayerId, block: u32, stored: &mut [u8]) -> Result<(), ReadError> {
        if self.block == Some(block) {
            return Ok(());
        }
        self.block = None;
        let blocks = self.layer.index().blocks();
        let Some(entry) = blocks.get(block as usize) else {
            let blocks = blocks.len();
            return Err(ReadError::Missing { layer: id, block, blocks });
        };
        let stored = &mut stored[..entry.stored_len()];
        self.layer.file().read_exact_at(stored, entry.offset).map_err(|source| ReadError::Io {
            layer: id,
            block,
            source,
        })?;
        decode_block(entry, stored, &mut self.content)
            .map_err(|source: BlockError| ReadError::Damaged { layer: id, block, source })?;
        self.block = Some(block);
        Ok(())
    }
}
