//! How guest pages become a layer and a map.
//!
//! Without a parent a block is the non-zero pages of one 64 KiB window of the guest, so that equal
//! windows of different guests are equal blocks. With a parent, changed pages are few and far between: they
//! are packed, but not those that a restore hardly ever needs together.

use crate::{
    LayerId, LayerPin, LayerStore, PageMap, Run, WriteError,
    digest::of_block,
    format::{BLOCK_BYTES, BLOCK_PAGES, LAYERS_MAX, PAGE_BYTES, PAGE_BYTES_U64},
    layer_writer::LayerWriter,
    overlay::{Patch, overlay},
};

/// A changed page further than this from the last one, in pages, begins a block of its own: 1 MiB.
const GAP_PAGES_MAX: u64 = 256;

/// Pages of a window, where guest pages are computed.
const WINDOW_PAGES: u64 = 16;

/// Stands for the new layer in runs until its place in the list is known. No list is that long.
const NEW_LAYER: u16 = u16::MAX;

/// Into which layers blocks may be deduplicated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Any local one, as long as the map names few layers.
    Local,
    /// Those the parent names.
    Parent,
}

/// Takes guest pages in ascending order and writes one new layer of what is new.
///
/// It holds a pin. Dropped unfinished, it leaves nothing; so it should be after an error.
#[derive(Debug)]
pub struct ImageWriter {
    store: LayerStore,
    _pin: LayerPin,
    parent: Option<PageMap>,
    bytes: u64,
    reuse: Reuse,
    /// The parent's layers and those that were deduplicated into.
    layers: Vec<LayerId>,
    layer: LayerWriter,
    patches: Vec<Patch>,
    /// Content and numbers of the pages of the next block.
    content: Vec<u8>,
    numbers: Vec<u64>,
    /// The lowest page that may be put.
    next: u64,
    written: Written,
}

/// What became of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// The new layer, if anything was new.
    pub layer: Option<LayerId>,
    /// Pages that were put.
    pub pages: u64,
    /// Those of them that are zero.
    pub zero_pages: u64,
    /// Those of them that were in a layer already.
    pub deduplicated_pages: u64,
    /// Length of the new layer's `.blocks` file; 0 without one.
    pub stored_bytes: u64,
}

impl ImageWriter {
    pub(crate) fn new(
        store: LayerStore,
        parent: Option<PageMap>,
        bytes: u64,
        reuse: Reuse,
    ) -> Result<Self, WriteError> {
        let expected = parent.as_ref().map_or(PageMap::empty(bytes).bytes(), PageMap::bytes);
        if expected != bytes || !bytes.is_multiple_of(PAGE_BYTES_U64) {
            return Err(WriteError::MemoryLength { parent: expected, bytes });
        }
        Ok(Self {
            _pin: store.pin(),
            layers: parent.as_ref().map_or_else(Vec::new, |map| map.layers().to_vec()),
            layer: LayerWriter::new(store.clone()),
            store,
            parent,
            bytes,
            reuse,
            patches: Vec::new(),
            content: Vec::with_capacity(BLOCK_BYTES),
            numbers: Vec::with_capacity(BLOCK_PAGES),
            next: 0,
            written: Written::default(),
        })
    }

    /// Takes whole consecutive pages, from guest page `page` on; pages of zeroes become zero in the
    /// map, also over the parent's content, and take no room.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: not whole pages, not ascending, beyond the memory's end; or the disk is full or
    /// refuses.
    pub fn put(&mut self, page: u64, content: &[u8]) -> Result<(), WriteError> {
        static ZEROES: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
        let (pages, []) = content.as_chunks::<PAGE_BYTES>() else {
            return Err(WriteError::Partial { page, bytes: content.len() });
        };
        if page < self.next {
            return Err(WriteError::Order { page, next: self.next });
        }
        let count = pages.len() as u64;
        if page.checked_add(count).is_none_or(|end| end > self.bytes / PAGE_BYTES_U64) {
            return Err(WriteError::Range { page, pages: count, bytes: self.bytes });
        }
        for (page, content) in (page..).zip(pages) {
            if *content == ZEROES {
                self.written.zero_pages += 1;
                self.put_zero(page);
            } else {
                self.put_content(page, content)?;
            }
            self.written.pages += 1;
            self.next = page + 1;
        }
        Ok(())
    }

    /// Writes what is left, syncs the layer and names it. No layer is made if nothing was new.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; no layer has got a name then.
    pub fn finish(mut self) -> Result<(PageMap, Written), WriteError> {
        self.flush()?;
        let mut written = self.written;
        if let Some(index) = self.layer.finish()? {
            written.layer = Some(index.id());
            written.stored_bytes = index.stored_bytes();
            let slot = slot_of(&mut self.layers, index.id())?;
            for run in self.patches.iter_mut().filter_map(|patch| patch.run.as_mut()) {
                if run.layer == NEW_LAYER {
                    run.layer = slot;
                }
            }
        }
        // Blocks are closed in order, but zero pages are noted at once.
        self.patches.sort_unstable_by_key(|patch| patch.page);
        let base = self.parent.as_ref().map_or(&[][..], PageMap::runs);
        let runs = overlay(base, &self.patches);
        if u32::try_from(runs.len()).is_err() {
            return Err(WriteError::TooMany { what: "runs" });
        }
        Ok((PageMap::assemble(self.bytes, &self.layers, runs), written))
    }

    fn put_zero(&mut self, page: u64) {
        if self.parent.is_none() {
            return; // it is zero as it is
        }
        match self.patches.last_mut() {
            Some(last) if last.run.is_none() && last.end == page => last.end += 1,
            _ => self.patches.push(Patch { page, end: page + 1, run: None }),
        }
    }

    fn put_content(&mut self, page: u64, content: &[u8; PAGE_BYTES]) -> Result<(), WriteError> {
        if let Some(last) = self.numbers.last() {
            let apart = match self.parent {
                Some(_) => page - last > GAP_PAGES_MAX,
                None => page / WINDOW_PAGES != last / WINDOW_PAGES,
            };
            if apart || self.numbers.len() == BLOCK_PAGES {
                self.flush()?;
            }
        }
        self.numbers.push(page);
        self.content.extend_from_slice(content);
        Ok(())
    }

    /// Closes the block of what was collected: finds it in a layer, or stores it.
    fn flush(&mut self) -> Result<(), WriteError> {
        if self.numbers.is_empty() {
            return Ok(());
        }
        let digest = of_block(&self.content);
        let own = self.layer.find(digest).map(|block| (NEW_LAYER, block));
        let there = match own.or_else(|| self.find_stored(digest)) {
            Some(there) => {
                self.written.deduplicated_pages += self.numbers.len() as u64;
                there
            }
            None => (NEW_LAYER, self.layer.add(digest, &self.content)?),
        };
        let (layer, block) = there;
        for (first, page) in (0..).zip(&self.numbers) {
            match self.patches.last_mut() {
                // Consecutive in the guest and in the block: one run.
                Some(Patch { end, run: Some(run), .. }) if first > 0 && *end == *page => {
                    *end += 1;
                    run.pages += 1;
                }
                _ => {
                    let run = Run { page: *page, pages: 1, layer, block, first };
                    self.patches.push(Patch { page: *page, end: page + 1, run: Some(run) });
                }
            }
        }
        self.numbers.clear();
        self.content.clear();
        Ok(())
    }

    /// Layer, by its place in the list, and number of a stored block with this digest.
    fn find_stored(&mut self, digest: crate::Digest) -> Option<(u16, u32)> {
        let (layer, block) = self.store.known().find(&self.store, digest)?;
        // One place is left for the new layer: with it there is at most one over LAYERS_MAX.
        let may_add = self.reuse == Reuse::Local && self.layers.len() < LAYERS_MAX;
        // A layer that somebody deleted by hand is written again.
        if self.layers.contains(&layer) || (may_add && self.store.contains(layer)) {
            return slot_of(&mut self.layers, layer).ok().map(|slot| (slot, block));
        }
        None
    }
}

/// The place of `layer` in the list, at the end if it is new.
fn slot_of(layers: &mut Vec<LayerId>, layer: LayerId) -> Result<u16, WriteError> {
    let place = layers.iter().position(|there| *there == layer).unwrap_or(layers.len());
    let slot = u16::try_from(place).ok().filter(|slot| *slot != NEW_LAYER);
    let slot = slot.ok_or(WriteError::TooMany { what: "layers" })?;
    if place == layers.len() {
        layers.push(layer);
    }
    Ok(slot)
}
