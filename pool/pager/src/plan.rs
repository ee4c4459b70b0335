//! Which pages are put into base memory together: the fill plan of one snapshot's map.
//!
//! A **unit** is what one fault fills: the pages of one stored block, wherever the guest has them
//! (a diff's block is scattered), or the zero pages of one 64 KiB window. Never more than 16
//! pages: a block that many pages share (deduplicated) makes several units.
//!
//! # Invariants
//!
//! - Every page belongs to exactly one unit, and every piece lies within its block.
//! - Units of blocks come first, in the order of layers and blocks, so that neighbours in the plan
//!   are neighbours in the file; then those of zeroes, in the order of pages.

use std::{collections::BTreeSet, ops::Range};

use pool_store::{BLOCK_PAGES, PageMap};

/// Pages of one piece or unit at most.
const PAGES: usize = BLOCK_PAGES;

/// Guest pages that are neighbours in memory and in their block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The first guest page.
    pub(crate) page: u32,
    /// Where it is in the block, in pages; 0 for zeroes.
    pub(crate) first: u8,
    /// How many pages.
    pub(crate) pages: u8,
}

impl Piece {
    /// The guest pages.
    pub(crate) fn range(self) -> Range<u32> {
        self.page..self.page + u32::from(self.pages)
    }
}

/// Where a unit's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Content {
    /// In this block of this layer of the map.
    Block { layer: u16, block: u32 },
    /// Nowhere: all zeroes.
    Zero,
}

#[derive(Debug)]
struct Unit {
    content: Content,
    /// Index of its first piece; its last is before the next unit's first.
    pieces: u32,
}

/// Why there is no plan for a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("page {page} is in block {block} of layer {layer}, which has no such page")]
    Block { page: u64, layer: u16, block: u32 },
    #[error("{bytes} bytes of memory are more than a plan can describe")]
    Bytes { bytes: u64 },
}

/// Page to unit, and unit to pieces.
#[derive(Debug)]
pub(crate) struct Plan {
    units: Box<[Unit]>,
    pieces: Box<[Piece]>,
    of_page: Box<[u32]>,
}

impl Plan {
    /// The plan for `map`; `pages_in` says how many pages a block of a layer has.
    pub(crate) fn new(
        map: &PageMap,
        pages_in: impl Fn(u16, u32) -> Option<u8>,
    ) -> Result<Self, PlanError> {
        let too_many = PlanError::Bytes { bytes: map.bytes() };
        let pages = usize::try_from(map.bytes()).map_err(|_| too_many)? / pool_store::PAGE_BYTES;
        // The largest number means "no unit yet" below.
        u32::try_from(pages).ok().filter(|pages| *pages < u32::MAX).ok_or(too_many)?;
        let mut building = Building::new(pages);
        for (layer, block, piece) in sorted_pieces(map, pages_in)? {
            building.add(Content::Block { layer, block }, piece);
        }
        building.add_zeroes();
        Ok(building.finish())
    }

    /// How many units there are.
    pub(crate) const fn units(&self) -> usize {
        self.units.len()
    }

    /// Guest pages.
    pub(crate) const fn pages(&self) -> usize {
        self.of_page.len()
    }

    /// The unit of a guest page.
    pub(crate) fn unit_of(&self, page: usize) -> usize {
        index(self.of_page[page])
    }

    /// Where a unit's content is.
    pub(crate) fn content_of(&self, unit: usize) -> Content {
        self.units[unit].content
    }

    /// A unit's pieces.
    pub(crate) fn pieces(&self, unit: usize) -> &[Piece] {
        let end = self.units.get(unit + 1).map_or(self.pieces.len(), |next| index(next.pieces));
        &self.pieces[index(self.units[unit].pieces)..end]
    }

    /// The units of these 64 KiB windows, in the plan's order; windows beyond memory have none.
    pub(crate) fn units_of_windows(&self, windows: impl Iterator<Item = u32>) -> BTreeSet<usize> {
        let pages = windows.flat_map(|window| {
            let start = index(window).saturating_mul(PAGES).min(self.pages());
            start..(start + PAGES).min(self.pages())
        });
        pages.map(|page| self.unit_of(page)).collect()
    }
}

/// The map's runs, cut to what fits in a block, in the order of layers and blocks.
fn sorted_pieces(
    map: &PageMap,
    pages_in: impl Fn(u16, u32) -> Option<u8>,
) -> Result<Vec<(u16, u32, Piece)>, PlanError> {
    let mut pieces = Vec::with_capacity(map.runs().len());
    for run in map.runs() {
        let (layer, block) = (run.layer, run.block);
        let outside = PlanError::Block { page: run.page, layer, block };
        let available = pages_in(layer, block).ok_or(outside)?;
        let pages = u8::try_from(run.pages).map_err(|_| outside)?;
        let page = u32::try_from(run.page).map_err(|_| outside)?;
        if run.first.checked_add(pages).is_none_or(|end| end > available) {
            return Err(outside);
        }
        pieces.push((layer, block, Piece { page, first: run.first, pages }));
    }
    pieces.sort_unstable_by_key(|(layer, block, piece)| (*layer, *block, piece.page));
    Ok(pieces)
}

struct Building {
    units: Vec<Unit>,
    pieces: Vec<Piece>,
    of_page: Vec<u32>,
    /// Pages of the last unit so far.
    filled: usize,
}

impl Building {
    fn new(pages: usize) -> Self {
        let of_page = vec![u32::MAX; pages];
        Self { units: Vec::new(), pieces: Vec::new(), of_page, filled: 0 }
    }

    /// Adds a piece to the last unit if it is of the same content and has room, or to a new one.
    fn add(&mut self, content: Content, piece: Piece) {
        let room = self.filled + usize::from(piece.pages) <= PAGES;
        if !room || self.units.last().is_none_or(|unit| unit.content != content) {
            self.begin(content);
        }
        self.push(piece);
    }

    fn begin(&mut self, content: Content) {
        self.units.push(Unit { content, pieces: number(self.pieces.len()) });
        self.filled = 0;
    }

    fn push(&mut self, piece: Piece) {
        let unit = number(self.units.len() - 1);
        let start = index(piece.page);
        self.of_page[start..start + usize::from(piece.pages)].fill(unit);
        self.filled += usize::from(piece.pages);
        self.pieces.push(piece);
    }

    /// Puts the pages that no block has into one unit per window.
    fn add_zeroes(&mut self) {
        for window in (0..self.of_page.len()).step_by(PAGES) {
            let end = (window + PAGES).min(self.of_page.len());
            let mut page = window;
            let mut begun = false;
            while let Some(start) = (page..end).find(|page| self.of_page[*page] == u32::MAX) {
                let next = (start..end).find(|page| self.of_page[*page] != u32::MAX);
                page = next.unwrap_or(end);
                if !std::mem::replace(&mut begun, true) {
                    self.begin(Content::Zero);
                }
                let pages = u8::try_from(page - start).expect("a window has 16 pages");
                self.push(Piece { page: number(start), first: 0, pages });
            }
        }
    }

    fn finish(self) -> Plan {
        let Self { units, pieces, of_page, .. } = self;
        Plan { units: units.into(), pieces: pieces.into(), of_page: of_page.into() }
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).expect("usize has at least 32 bits here")
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("there are no more units and pieces than pages")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map's bytes are the store's business: runs of one layer as the writer would make them.
    fn plan_of(pages: u64, put: &[(u64, usize)]) -> Plan {
        let dir = tempfile::tempdir().unwrap();
        let layers = pool_store::LayerStore::new(dir.path().to_owned());
        let mut writer = layers.writer(None, pages * 4096).unwrap();
        for &(page, count) in put {
            let number = |at: usize| u8::try_from(at / 4096 + 1).unwrap();
            let content: Vec<u8> = (0..count * 4096).map(number).collect();
            writer.put(page, &content).unwrap();
        }
        let (map, _) = writer.finish().unwrap();
        let opened: Vec<_> = map.layers().iter().map(|id| layers.open(*id).unwrap()).collect();
        Plan::new(&map, |layer, block| {
            Some(opened[usize::from(layer)].index().blocks()[block as usize].pages)
        })
        .unwrap()
    }

    fn blocks(plan: &Plan) -> usize {
        (0..plan.units()).filter(|unit| plan.content_of(*unit) != Content::Zero).count()
    }

    fn assert_whole(plan: &Plan) {
        let mut seen = vec![false; plan.pages()];
        for unit in 0..plan.units() {
            let mut pages = 0;
            for piece in plan.pieces(unit) {
                for page in piece.range() {
                    assert!(!std::mem::replace(&mut seen[page as usize], true), "page {page}");
                    assert_eq!(plan.unit_of(page as usize), unit);
                    pages += 1;
                }
            }
            assert!((1..=16).contains(&pages), "unit {unit} has {pages} pages");
            let is_block = plan.content_of(unit) != Content::Zero;
            assert_eq!(is_block, unit < blocks(plan));
        }
        assert!(seen.into_iter().all(|seen| seen), "every page has a unit");
    }

    #[test]
    fn empty_memory_is_one_unit_of_zeroes_per_window() {
        let plan = plan_of(40, &[]);
        assert_eq!((plan.units(), blocks(&plan)), (3, 0));
        assert_eq!(plan.pieces(2), [Piece { page: 32, first: 0, pages: 8 }]);
        assert_whole(&plan);
    }

    #[test]
    fn zero_pages_between_content_are_units_of_their_windows() {
        let plan = plan_of(32, &[(3, 2), (7, 1), (20, 12)]);
        assert_eq!((plan.units(), blocks(&plan)), (4, 2));
        let zeroes = plan.pieces(plan.unit_of(0));
        let pages: Vec<_> = zeroes.iter().flat_map(|piece| piece.range()).collect();
        assert_eq!(pages, [0, 1, 2, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_whole(&plan);
    }

    #[test]
    fn content_that_many_windows_share_is_cut_into_bounded_units() {
        let put: Vec<_> = (0..64).map(|window| (window * 16, 16)).collect();
        let plan = plan_of(64 * 16, &put);
        assert_eq!((plan.units(), blocks(&plan)), (64, 64), "one stored block, 64 units");
        assert_whole(&plan);
    }

    #[test]
    fn windows_name_the_units_of_their_pages() {
        let plan = plan_of(40, &[(0, 4), (16, 16)]);
        let units = plan.units_of_windows([0, 2, 9, u32::MAX].into_iter());
        let expected = [plan.unit_of(0), plan.unit_of(5), plan.unit_of(39)];
        assert_eq!(units, BTreeSet::from(expected));
    }

    #[test]
    fn page_beyond_its_block_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layers = pool_store::LayerStore::new(dir.path().to_owned());
        let mut writer = layers.writer(None, 16 * 4096).unwrap();
        writer.put(2, &[5; 3 * 4096]).unwrap();
        let (map, _) = writer.finish().unwrap();
        let short = Plan::new(&map, |_, _| Some(2)).unwrap_err();
        assert_eq!(short, PlanError::Block { page: 2, layer: 0, block: 0 });
        assert!(Plan::new(&map, |_, _| None).is_err());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn every_page_is_in_one_unit(
            pages in 1..200_u64,
            put in proptest::collection::vec((0..200_u64, 1..40_usize), 0..8),
        ) {
            let mut next = 0;
            let mut sorted = put;
            sorted.sort_unstable();
            let inside: Vec<_> = sorted
                .into_iter()
                .filter(|(page, count)| {
                    let fits = *page >= next && page + *count as u64 <= pages;
                    if fits { next = page + *count as u64; }
                    fits
                })
                .collect();
            assert_whole(&plan_of(pages, &inside));
        }
    }
}
