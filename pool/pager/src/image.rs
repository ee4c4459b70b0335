//! What belongs into base memory: a snapshot's map, its layers, and how a block is read verified.
//!
//! # Invariants
//!
//! - What [`Image::decode`] returns has the digest that the layer's index names; the index is what
//!   the map's layer id names, the map what the manifest names, the manifest what the snapshot's
//!   id names.
//! - Reading from this host's layers or cache allocates nothing.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use pool_model::SnapshotId;
use pool_remote::{LayerSource, Origin, SourceLayer, Trust};
use pool_store::{BLOCK_BYTES, BlockEntry, Snapshot, decode_block};

use crate::{
    error::{BaseError, FillError},
    plan::{Content, Plan},
    totals::Counters,
};

/// One layer of the map.
#[derive(Debug)]
struct ImageLayer {
    source: SourceLayer,
    /// Whether the last read of a layer that is not on this host came from the cache: then the
    /// next one probably does, and is not worth a long request.
    cached: AtomicBool,
}

/// Blocks side by side in one layer, and the units that need them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) layer: u16,
    pub(crate) blocks: Range<u32>,
    pub(crate) units: Range<usize>,
}

/// The content of one snapshot's memory.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) plan: Plan,
    layers: Box<[ImageLayer]>,
    counters: Arc<Counters>,
    bytes: u64,
    working_set: PathBuf,
}

impl Image {
    /// Opens the snapshot in `dir`: manifest by its id, map by its digest, the layers' indexes.
    pub(crate) fn open(
        snapshot: SnapshotId,
        dir: &Path,
        source: &LayerSource,
        counters: Arc<Counters>,
    ) -> Result<Self, BaseError> {
        let opened = Snapshot::open_at(dir, snapshot).map_err(|source| BaseError::Snapshot {
            snapshot,
            dir: dir.display().to_string(),
            source: Box::new(source),
        })?;
        let open = |id: &pool_store::LayerId| {
            let source = source.open(*id);
            let source =
                source.map_err(|source| BaseError::Layer { snapshot, source: Box::new(source) })?;
            Ok(ImageLayer { source, cached: AtomicBool::new(false) })
        };
        let layers = opened.map().layers().iter().map(open).collect::<Result<Box<[_]>, _>>()?;
        let plan = Plan::new(opened.map(), |layer, block| {
            let layer: &ImageLayer = layers.get(usize::from(layer))?;
            Some(entry_of(layer, block)?.pages)
        });
        let plan = plan.map_err(|source| BaseError::Plan { snapshot, source })?;
        let (bytes, working_set) = (opened.map().bytes(), opened.working_set_path());
        Ok(Self { plan, layers, counters, bytes, working_set })
    }

    /// Guest memory in bytes.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the snapshot's working set is kept; the file need not exist.
    pub(crate) fn working_set_path(&self) -> &Path {
        &self.working_set
    }

    /// Whether a layer is not on this host.
    pub(crate) fn has_far_layers(&self) -> bool {
        self.layers.iter().any(|layer| !layer.source.is_local())
    }

    /// Whether reading this layer may take a request to the object store, so that more than one
    /// block should be asked for.
    pub(crate) fn is_far(&self, layer: u16) -> bool {
        let layer = &self.layers[usize::from(layer)];
        !layer.source.is_local() && !layer.cached.load(Ordering::Relaxed)
    }

    /// The block of `unit` and those behind it that `wanted` units need, side by side, stored in
    /// at most `limit` bytes (but at least the first). `None` for a unit of zeroes.
    pub(crate) fn span(
        &self,
        unit: usize,
        limit: usize,
        wanted: impl Fn(usize) -> bool,
    ) -> Option<Span> {
        let Content::Block { layer, block } = self.plan.content_of(unit) else { return None };
        let mut span = Span { layer, blocks: block..block + 1, units: unit..unit + 1 };
        let mut stored = self.entry(layer, block).stored_len();
        for next in unit + 1..self.plan.units() {
            let Content::Block { layer: its_layer, block: its_block } = self.plan.content_of(next)
            else {
                break;
            };
            let same = its_block + 1 == span.blocks.end;
            let adjacent = its_block == span.blocks.end;
            if its_layer != layer || !(same || adjacent) || !wanted(next) {
                break;
            }
            if adjacent {
                stored += self.entry(layer, its_block).stored_len();
                if stored > limit {
                    break;
                }
                span.blocks.end += 1;
            }
            span.units.end = next + 1;
        }
        Some(span)
    }

    /// Reads the stored bytes of a span to the beginning of `stored`.
    pub(crate) fn read(
        &self,
        span: &Span,
        stored: &mut [u8],
        deadline: Instant,
    ) -> Result<Origin, FillError> {
        let layer = &self.layers[usize::from(span.layer)];
        let (first, last) = (span.blocks.start, span.blocks.end - 1);
        let origin = layer.source.read(first, last, stored, Trust::Cached, deadline);
        let origin = origin.map_err(|source| {
            let damage = matches!(source, pool_remote::SourceError::Block { .. });
            self.counters.damaged.fetch_add(u64::from(damage), Ordering::Relaxed);
            let place = layer.source.place();
            FillError::Read { place, block: first, source: Box::new(source) }
        })?;
        layer.cached.store(origin == Origin::Cache, Ordering::Relaxed);
        self.counters.read(origin, self.stored_len(span));
        Ok(origin)
    }

    /// Decompresses and verifies one block of a span that was read into `stored`, into the
    /// beginning of `pages`. If the cache had it damaged it is read again. Returns its length.
    pub(crate) fn decode(
        &self,
        span: &Span,
        block: u32,
        (stored, origin): (&mut [u8], Origin),
        pages: &mut [u8],
        deadline: Instant,
    ) -> Result<usize, FillError> {
        let entry = self.entry(span.layer, block);
        let start = self.offset_in(span, entry);
        let stored = &mut stored[start..start + entry.stored_len()];
        let Err(mut damage) = decode_block(entry, stored, pages) else {
            return Ok(entry.content_bytes());
        };
        self.counters.damaged.fetch_add(1, Ordering::Relaxed);
        let layer = &self.layers[usize::from(span.layer)].source;
        if origin != Origin::Local {
            layer.read(block, block, stored, Trust::Refetch, deadline).map_err(|source| {
                FillError::Read { place: layer.place(), block, source: Box::new(source) }
            })?;
            match decode_block(entry, stored, pages) {
                Ok(()) => return Ok(entry.content_bytes()),
                Err(again) => damage = again,
            }
        }
        Err(FillError::Damaged { place: layer.place(), block, source: damage })
    }

    /// Bytes that a unit's block has when decoded; 0 for zeroes.
    pub(crate) fn content_bytes(&self, unit: usize) -> usize {
        match self.plan.content_of(unit) {
            Content::Block { layer, block } => self.entry(layer, block).content_bytes(),
            Content::Zero => 0,
        }
    }

    /// Bytes that a unit's block is stored in; 0 for zeroes.
    pub(crate) fn stored_bytes(&self, unit: usize) -> usize {
        match self.plan.content_of(unit) {
            Content::Block { layer, block } => self.entry(layer, block).stored_len(),
            Content::Zero => 0,
        }
    }

    fn stored_len(&self, span: &Span) -> usize {
        let last = self.entry(span.layer, span.blocks.end - 1);
        self.offset_in(span, last) + last.stored_len()
    }

    /// Where a block of a span is in what was read. Blocks are stored without gaps.
    fn offset_in(&self, span: &Span, entry: &BlockEntry) -> usize {
        let first = self.entry(span.layer, span.blocks.start);
        usize::try_from(entry.offset - first.offset).expect("a span fits in its buffer")
    }

    fn entry(&self, layer: u16, block: u32) -> &BlockEntry {
        entry_of(&self.layers[usize::from(layer)], block).expect("the plan has checked every block")
    }
}

fn entry_of(layer: &ImageLayer, block: u32) -> Option<&BlockEntry> {
    layer.source.index().blocks().get(usize::try_from(block).ok()?)
}

/// Room for reading, allocated before the first fault.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Stored bytes of a span.
    pub(crate) stored: Box<[u8]>,
    /// Decoded blocks.
    pub(crate) pages: Box<[u8]>,
    /// One block, where `pages` is put together of parts.
    pub(crate) block: Box<[u8]>,
}

impl Buffers {
    /// Room for spans of up to `stored` bytes, or one block, and for `pages` bytes of content.
    pub(crate) fn new(stored: usize, pages: usize) -> Self {
        let zeroed = |len: usize| vec![0; len.max(BLOCK_BYTES)].into_boxed_slice();
        Self { stored: zeroed(stored), pages: zeroed(pages), block: zeroed(BLOCK_BYTES) }
    }
}
