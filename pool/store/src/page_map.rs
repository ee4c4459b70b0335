//! Which content every page of a guest's memory has: `memory.map`.
//!
//! # Invariants
//!
//! - Runs are sorted by page, do not overlap, and lie within the memory.
//! - A run lies within one block: `first + pages <= 16`, and its layer is in the list.
//! - No layer is listed twice.

use std::collections::HashSet;

use crate::{
    Digest, FormatError, LayerId,
    format::{BLOCK_PAGES, PAGE_BYTES_U64, Reader},
};

const WHAT: &str = "page map";
const MAGIC: &[u8; 8] = b"wrennmap";
const VERSION: u32 = 1;
const LAYER_BYTES: u64 = 32;
const RUN_BYTES: u64 = 16;

/// Consecutive guest pages whose content is consecutive pages of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First guest page.
    pub page: u64,
    /// How many, from 1 to 16.
    pub pages: u32,
    /// Index into [`PageMap::layers`].
    pub layer: u16,
    /// Block of that layer. Whether the layer has it, and with enough pages, only its index says.
    pub block: u32,
    /// Page within the block.
    pub first: u8,
}

impl Run {
    /// The guest page after the last.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.page + u64::from(self.pages)
    }

    /// The part of it from guest page `from` to before `to`, both of which it holds.
    pub(crate) fn part(&self, from: u64, to: u64) -> Self {
        let skipped = u8::try_from(from - self.page).expect("a run has at most 16 pages");
        let pages = u32::try_from(to - from).expect("a run has at most 16 pages");
        Self { page: from, pages, first: self.first + skipped, ..*self }
    }
}

/// What a guest's memory consists of. See [`crate::format`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageMap {
    bytes: u64,
    layers: Vec<LayerId>,
    runs: Vec<Run>,
}

impl PageMap {
    /// Memory of `bytes` bytes, all zero; rounded up to whole pages.
    #[must_use]
    pub fn empty(bytes: u64) -> Self {
        let bytes = bytes.checked_next_multiple_of(PAGE_BYTES_U64).unwrap_or(bytes);
        Self { bytes, layers: Vec::new(), runs: Vec::new() }
    }

    /// Puts a map together whose invariants the caller has kept, leaving out unused layers.
    pub(crate) fn assemble(bytes: u64, layers: &[LayerId], mut runs: Vec<Run>) -> Self {
        let mut slots = vec![None; layers.len()];
        let mut used = Vec::new();
        for run in &mut runs {
            let named = usize::from(run.layer);
            run.layer = *slots[named].get_or_insert_with(|| {
                used.push(layers[named]);
                u16::try_from(used.len() - 1).expect("no more are used than there are")
            });
        }
        Self { bytes, layers: used, runs }
    }

    /// Guest memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The layers that runs refer to.
    #[must_use]
    pub fn layers(&self) -> &[LayerId] {
        &self.layers
    }

    /// What is not zero, sorted by page.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Layer, block and page within the block of guest page `page`; `None` if it is zero.
    #[must_use]
    pub fn lookup(&self, page: u64) -> Option<(u16, u32, u8)> {
        let after = self.runs.partition_point(|run| run.page <= page);
        let run = self.runs[..after].last().filter(|run| page < run.end())?;
        let run = run.part(page, page + 1);
        Some((run.layer, run.block, run.first))
    }

    /// The runs that touch guest pages from `from` to before `to`.
    #[must_use]
    pub fn runs_between(&self, from: u64, to: u64) -> &[Run] {
        let start = self.runs.partition_point(|run| run.end() <= from);
        let end = self.runs.partition_point(|run| run.page < to);
        self.runs.get(start..end).unwrap_or_default()
    }

    /// Reads a map. Allocates no more than a few times the input.
    ///
    /// # Errors
    ///
    /// [`FormatError`] names what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::begin(WHAT, MAGIC, VERSION, bytes)?;
        let layer_count = reader.u32()?;
        let memory = reader.u64()?;
        let run_count = reader.u32()?;
        let reserved = reader.u32()?;
        let tables = u64::from(layer_count) * LAYER_BYTES + u64::from(run_count) * RUN_BYTES;
        reader.expect_left(tables)?;
        let Ok(layer_count) = u16::try_from(layer_count) else {
            return Err(reader.value(0, "number of layers", layer_count, "over 65535"));
        };
        if !memory.is_multiple_of(PAGE_BYTES_U64) {
            return Err(reader.value(0, "memory in bytes", memory, "not whole pages"));
        }
        if reserved != 0 {
            return Err(reader.value(0, "reserved bytes", reserved, "not 0"));
        }
        let mut layers = Vec::with_capacity(usize::from(layer_count));
        let mut seen = HashSet::with_capacity(usize::from(layer_count));
        for item in 0..usize::from(layer_count) {
            let layer = LayerId(Digest(reader.take()?));
            if !seen.insert(layer) {
                return Err(reader.value(item, "layer", item as u64, "listed before"));
            }
            layers.push(layer);
        }
        let mut runs = Vec::with_capacity(run_count as usize);
        let mut free = 0;
        for item in 0..run_count as usize {
            let run = read_run(&mut reader, item, layer_count, free..memory / PAGE_BYTES_U64)?;
            free = run.end();
            runs.push(run);
        }
        Ok(Self { bytes: memory, layers, runs })
    }

    /// The bytes of `memory.map`.
    ///
    /// # Panics
    ///
    /// Never: no map has more layers or runs than its counts hold.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32 + 32 * self.layers.len() + 16 * self.runs.len());
        let layers = u32::try_from(self.layers.len()).expect("at most 65535");
        let runs = u32::try_from(self.runs.len()).expect("the writer stops before that");
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(layers.to_le_bytes());
        bytes.extend(self.bytes.to_le_bytes());
        bytes.extend(runs.to_le_bytes());
        bytes.extend([0; 4]);
        for layer in &self.layers {
            bytes.extend(layer.0.0);
        }
        for run in &self.runs {
            bytes.extend(run.page.to_le_bytes());
            bytes.extend(run.block.to_le_bytes());
            bytes.extend(run.layer.to_le_bytes());
            bytes.push(run.first);
            bytes.push(u8::try_from(run.pages).expect("at most 16"));
        }
        bytes
    }
}

/// Reads one run that has to lie in the guest pages `free`.
fn read_run(
    reader: &mut Reader<'_>,
    item: usize,
    layers: u16,
    free: std::ops::Range<u64>,
) -> Result<Run, FormatError> {
    let (page, block, layer) = (reader.u64()?, reader.u32()?, reader.u16()?);
    let (first, pages) = (reader.u8()?, reader.u8()?);
    if page < free.start {
        return Err(reader.value(item, "page", page, "before the last run's end"));
    }
    if pages == 0 || usize::from(first) + usize::from(pages) > BLOCK_PAGES {
        return Err(reader.value(item, "pages", pages, "none, or more than a block has"));
    }
    if page >= free.end || free.end - page < u64::from(pages) {
        return Err(reader.value(item, "page", page, "beyond the memory's end"));
    }
    if layer >= layers {
        return Err(reader.value(item, "layer", layer, "not in the list"));
    }
    Ok(Run { page, pages: pages.into(), layer, block, first })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layer(digit: u8) -> LayerId {
        LayerId(Digest([digit; 32]))
    }

    fn sample() -> PageMap {
        let run = |page, pages, layer, first| Run { page, pages, layer, block: 7, first };
        let runs = vec![run(0, 16, 0, 0), run(16, 1, 1, 15), run(99, 1, 0, 3)];
        PageMap { bytes: 100 * PAGE_BYTES_U64, layers: vec![layer(1), layer(2)], runs }
    }

    #[test]
    fn pages_are_found_where_runs_say() {
        let map = sample();
        assert_eq!(map.lookup(15), Some((0, 7, 15)));
        assert_eq!(map.lookup(16), Some((1, 7, 15)));
        assert_eq!(map.lookup(99), Some((0, 7, 3)));
        assert_eq!((map.lookup(17), map.lookup(98), map.lookup(100)), (None, None, None));
        assert_eq!(map.runs_between(15, 17), &map.runs()[..2]);
        assert_eq!(map.runs_between(16, 99), &map.runs()[1..2]);
        assert_eq!(map.runs_between(17, 99), []);
    }

    #[test]
    fn unused_layers_are_left_out() {
        let runs = sample().runs[1..2].to_vec();
        let map = PageMap::assemble(100 * PAGE_BYTES_U64, &sample().layers, runs);
        assert_eq!(map.layers(), [layer(2)]);
        assert_eq!(map.lookup(16), Some((0, 7, 15)));
    }

    #[test]
    fn what_no_writer_writes_is_refused_by_name() {
        let runs = 32 + 2 * 32; // where they begin: page (8), block (4), layer (2), first, pages
        for (at, value, named) in [
            (0, b'W', "this is no page map"),
            (8, 2, "version 2, this program reads 1"),
            (12, 3, "by its counts"),
            (17, 0x41, "not whole pages"),
            (16, 1, "not whole pages"),
            (28, 1, "reserved"),
            (64, 1, "layer"),
            (runs + 8 + 6, 1, "more than a block has"),
            (runs + 15, 0, "none"),
            (runs + 16, 15, "before the last run's end"),
            (runs + 32, 100, "beyond the memory's end"),
            (runs + 32 + 7, 0xff, "beyond the memory's end"),
            (runs + 32 + 12, 2, "not in the list"),
        ] {
            let mut bytes = sample().to_bytes();
            match at {
                17 => bytes[16..18].copy_from_slice(&[0xff, value]),
                64 => bytes[64..96].fill(value), // the first layer's id again
                _ => bytes[at] = value,
            }
            let error = PageMap::from_bytes(&bytes).unwrap_err().to_string();
            assert!(error.contains(named), "{at}: {error}");
        }
    }

    #[test]
    fn absurd_counts_are_refused_before_anything_is_allocated() {
        let mut bytes = sample().to_bytes();
        bytes[24..28].fill(0xff);
        let error = PageMap::from_bytes(&bytes).unwrap_err();
        assert!(matches!(error, FormatError::Length { .. }), "{error:?}");
        let many = [&MAGIC[..], &[1, 0, 0, 0, 0, 0, 1, 0], &[0; 16], &[0; 65_536 * 32]].concat();
        let error = PageMap::from_bytes(&many).unwrap_err();
        assert!(error.to_string().contains("over 65535"), "{error}");
    }

    proptest! {
        #[test]
        fn maps_come_back_and_cut_ones_do_not(
            shapes in prop::collection::vec((0..9_u64, 1..=8_u32, 0..3_u16, any::<u32>(), 0..=8_u8), 0..40),
            cut: prop::sample::Index,
        ) {
            let mut page = 0;
            let runs: Vec<Run> = shapes
                .iter()
                .map(|(gap, pages, layer, block, first)| {
                    let start = page + gap;
                    page = start + u64::from(*pages);
                    Run { page: start, pages: *pages, layer: *layer, block: *block, first: *first }
                })
                .collect();
            let layers = [layer(1), layer(2), layer(3)];
            let map = PageMap::assemble(page * PAGE_BYTES_U64, &layers, runs);
            let bytes = map.to_bytes();
            prop_assert_eq!(PageMap::from_bytes(&bytes), Ok(map));
            prop_assert!(PageMap::from_bytes(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn arbitrary_runs_are_refused_or_sound(table in prop::collection::vec(any::<[u8; 4]>(), 0..12)) {
            let mut bytes = sample().to_bytes();
            bytes.truncate(32 + 64);
            bytes[24..28].copy_from_slice(&u32::try_from(table.len()).unwrap().to_le_bytes());
            for [page, layer, first, pages] in table {
                bytes.extend(u64::from(page).to_le_bytes());
                bytes.extend([0; 4]);
                bytes.extend(u16::from(layer % 3).to_le_bytes());
                bytes.extend([first % 17, pages % 18]);
            }
            if let Ok(map) = PageMap::from_bytes(&bytes) {
                prop_assert!(map.runs().is_sorted_by(|a, b| a.end() <= b.page));
                prop_assert!(map.runs().iter().all(|run| run.end() <= 100 && run.layer < 2));
                prop_assert_eq!(map.to_bytes(), bytes);
            }
        }
    }
}
