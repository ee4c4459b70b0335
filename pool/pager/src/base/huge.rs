//! How a page of 2 MiB is put together of blocks.

use std::time::Instant;

use pool_remote::Origin;
use pool_store::PAGE_BYTES;

use super::{Base, HUGE_PAGES};
use crate::{
    error::FillError,
    image::{Buffers, Span},
    memory::HUGE_BYTES,
    plan::Content,
};

impl Base {
    /// Puts a whole huge page together of its units and puts it in.
    pub(super) fn populate_huge(
        &self,
        huge: usize,
        buffers: &mut Buffers,
        deadline: Instant,
    ) -> Result<(), FillError> {
        let first = huge * HUGE_PAGES;
        let within = |unit: usize| {
            let mut pieces = self.image.plan.pieces(unit).iter();
            pieces.any(|piece| (piece.page as usize) / HUGE_PAGES == huge)
        };
        let mut done = [false; HUGE_PAGES];
        buffers.pages.fill(0);
        for page in first..first + HUGE_PAGES {
            if done[page - first] {
                continue;
            }
            let Some(span) = self.read_span(self.image.plan.unit_of(page), within) else {
                continue;
            };
            let origin = self.image.read(&span, &mut buffers.stored, deadline)?;
            for unit in span.units.clone() {
                self.place(&span, unit, origin, first, buffers, &mut done, deadline)?;
            }
        }
        let page = u32::try_from(first).expect("a plan has at most 2^32 pages");
        Ok(self.memory.install(page, &buffers.pages[..HUGE_BYTES])?)
    }

    /// Decodes a unit's block and copies its pages to their places in a huge page from `first` on.
    #[allow(clippy::too_many_arguments, reason = "one step of one loop, taken out to be read")]
    fn place(
        &self,
        span: &Span,
        unit: usize,
        origin: Origin,
        first: usize,
        buffers: &mut Buffers,
        done: &mut [bool; HUGE_PAGES],
        deadline: Instant,
    ) -> Result<(), FillError> {
        let Content::Block { block, .. } = self.image.plan.content_of(unit) else { return Ok(()) };
        let Buffers { stored, pages, block: decoded } = buffers;
        self.image.decode(span, block, (stored, origin), decoded, deadline)?;
        for piece in self.image.plan.pieces(unit) {
            for (index, page) in piece.range().enumerate() {
                let inside = (page as usize).checked_sub(first).filter(|at| *at < HUGE_PAGES);
                let Some(at) = inside else { continue };
                let from = (usize::from(piece.first) + index) * PAGE_BYTES;
                pages[at * PAGE_BYTES..][..PAGE_BYTES]
                    .copy_from_slice(&decoded[from..from + PAGE_BYTES]);
                done[at] = true;
            }
        }
        Ok(())
    }
}
