//! Base memory: a memfd per snapshot, filled unit by unit.
//!
//! ```text
//! Absent ─ first fault ─► Filling ─► Present
//!    ▲                       │ error    ▲
//!    └───────────────────────┘          └─ read ahead and prefetched
//! ```
//!
//! A unit is one stored block's pages or one window's zeroes (see [`crate::plan`]), with huge pages
//! one of them. The state only saves work: that a page is never seen half-filled is the kernel's
//! doing (see [`crate::memory`]). So whoever fills ahead of faults takes no state to do so, and
//! no fault waits for it.

mod huge;

use std::{
    fs::File,
    io,
    ops::Range,
    os::fd::OwnedFd,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pool_model::SnapshotId;
use pool_remote::Origin;
use pool_store::PAGE_BYTES;

use crate::{
    error::{BaseError, FillError, shortened, step},
    image::{Buffers, Image, Span},
    limits::Limits,
    memory::{HUGE_BYTES, Identity, Memory},
    plan::Content,
    working::Working,
};

const ABSENT: u8 = 0;
const FILLING: u8 = 1;
const PRESENT: u8 = 2;

/// How long a fault waits for another one that is filling the same unit before it does it too.
const FILLING_WAIT: Duration = Duration::from_secs(5);

/// Small pages in a huge one.
const HUGE_PAGES: usize = HUGE_BYTES / PAGE_BYTES;

/// Neighbours that were read with a unit and are not put in yet.
#[derive(Debug)]
pub(crate) struct Ahead {
    span: Span,
    origin: Origin,
}

/// The memory of one snapshot on this host.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) snapshot: SnapshotId,
    /// Faults of all clones.
    pub(crate) faults: AtomicU64,
    pub(crate) working: Working,
    pub(crate) image: Image,
    memory: Memory,
    limits: Limits,
    units: Box<[AtomicU8]>,
    turn: Mutex<()>,
    filled: Condvar,
    last_error: Mutex<Option<String>>,
}

impl Base {
    /// Makes empty base memory for `snapshot`.
    pub(crate) fn create(
        snapshot: SnapshotId,
        image: Image,
        limits: Limits,
    ) -> Result<Self, BaseError> {
        let memory = Memory::create(snapshot, image.bytes(), limits.huge_pages)?;
        Ok(Self::new(snapshot, image, memory, limits))
    }

    /// Takes over what a pager before us made and a VMM holds open as `held`.
    pub(crate) fn recover(
        snapshot: SnapshotId,
        held: &OwnedFd,
        image: impl FnOnce() -> Result<Image, BaseError>,
        limits: Limits,
    ) -> Result<Self, BaseError> {
        let memory = Memory::recover(snapshot, held)?;
        let image = image()?;
        let (expected, found) = (image.bytes(), memory.bytes());
        if expected != found {
            return Err(BaseError::Length { snapshot, expected, found });
        }
        let base = Self::new(snapshot, image, memory, limits);
        base.find_present().map_err(step("find the resident pages"))?;
        Ok(base)
    }

    fn new(snapshot: SnapshotId, image: Image, memory: Memory, limits: Limits) -> Self {
        let small = image.plan.units();
        let units = if memory.is_huge() { image.plan.pages() / HUGE_PAGES } else { small };
        Self {
            snapshot,
            faults: AtomicU64::new(0),
            working: Working::default(),
            image,
            memory,
            limits,
            units: (0..units).map(|_| AtomicU8::new(ABSENT)).collect(),
            turn: Mutex::new(()),
            filled: Condvar::new(),
            last_error: Mutex::default(),
        }
    }

    /// Guest memory in bytes.
    pub(crate) const fn bytes(&self) -> u64 {
        self.image.bytes()
    }

    /// Tells two base memories of the same snapshot apart.
    pub(crate) const fn identity(&self) -> Identity {
        self.memory.identity()
    }

    /// The memfd, opened for reading only, for a VMM to map.
    pub(crate) fn for_reading(&self) -> io::Result<File> {
        self.memory.for_reading()
    }

    /// Bytes in memory or swap.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.memory.resident_bytes()
    }

    /// How many units there are.
    pub(crate) const fn units(&self) -> usize {
        self.units.len()
    }

    /// Units that are wholly there.
    pub(crate) fn present(&self) -> u64 {
        (0..self.units()).filter(|unit| self.is_present(*unit)).count() as u64
    }

    pub(crate) fn is_present(&self, unit: usize) -> bool {
        self.units[unit].load(Ordering::Acquire) == PRESENT
    }

    pub(crate) const fn is_huge(&self) -> bool {
        self.memory.is_huge()
    }

    /// How long one fault may take.
    pub(crate) const fn fault_deadline(&self) -> Duration {
        self.limits.fault_deadline
    }

    /// What went wrong last, for the stats.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_last_error(&self, text: &str) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(shortened(text));
    }

    /// Buffers for one session's faults.
    pub(crate) fn buffers(&self) -> Buffers {
        let far = self.image.has_far_layers();
        let stored = if far { self.limits.remote_read_bytes } else { 0 };
        Buffers::new(stored, if self.is_huge() { HUGE_BYTES } else { 0 })
    }

    /// The unit of the guest page at this offset into memory.
    pub(crate) fn unit_at(&self, offset: u64) -> usize {
        let page = usize::try_from(offset).expect("an offset into mapped memory") / PAGE_BYTES;
        if self.is_huge() { page / HUGE_PAGES } else { self.image.plan.unit_of(page) }
    }

    /// The guest pages of a unit, in ranges.
    pub(crate) fn ranges(&self, unit: usize) -> impl Iterator<Item = Range<u64>> + '_ {
        let huge = self.is_huge();
        let pieces = if huge { &[] } else { self.image.plan.pieces(unit) };
        let bytes = PAGE_BYTES as u64;
        let small = pieces.iter().map(move |piece| {
            let pages = piece.range();
            u64::from(pages.start) * bytes..u64::from(pages.end) * bytes
        });
        let whole = unit as u64 * HUGE_BYTES as u64;
        small.chain(huge.then_some(whole..whole + HUGE_BYTES as u64))
    }

    /// Makes sure that `unit` is there. Doesn't allocate, unless the object store is asked.
    ///
    /// What was read with it is to be put in by [`Base::fill_ahead`], with the same buffers, when
    /// those who wait for the unit have been woken.
    pub(crate) fn fill(
        &self,
        unit: usize,
        buffers: &mut Buffers,
        deadline: Instant,
    ) -> Result<Option<Ahead>, FillError> {
        let state = &self.units[unit];
        match state.compare_exchange(ABSENT, FILLING, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                let outcome = self.populate(unit, buffers, deadline);
                let next = if outcome.is_ok() { PRESENT } else { ABSENT };
                // Whoever fills ahead may have been faster; what is there stays there.
                let _ = state.compare_exchange(FILLING, next, Ordering::AcqRel, Ordering::Acquire);
                // Under the lock, so that it can't slip in between a waiter's look and its wait.
                drop(self.turn.lock().unwrap_or_else(PoisonError::into_inner));
                self.filled.notify_all();
                outcome
            }
            Err(PRESENT) => Ok(None),
            Err(_) => {
                self.wait_while_filling(state, deadline);
                match state.load(Ordering::Acquire) {
                    PRESENT => Ok(None),
                    // It failed or takes too long: doing it (again) is always right.
                    _ => self.populate(unit, buffers, deadline),
                }
            }
        }
    }

    fn wait_while_filling(&self, state: &AtomicU8, deadline: Instant) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let filling = |_: &mut ()| state.load(Ordering::Acquire) == FILLING;
        // Half of what is left, so that there is time to do it ourselves.
        let patience = (deadline.saturating_duration_since(Instant::now()) / 2).min(FILLING_WAIT);
        drop(self.filled.wait_timeout_while(turn, patience, filling));
    }

    /// Reads `unit` from the snapshot and puts in those of its pages that aren't there.
    fn populate(
        &self,
        unit: usize,
        buffers: &mut Buffers,
        deadline: Instant,
    ) -> Result<Option<Ahead>, FillError> {
        if self.is_huge() {
            self.populate_huge(unit, buffers, deadline)?;
            return Ok(None);
        }
        let absent = |unit: usize| self.units[unit].load(Ordering::Relaxed) == ABSENT;
        let Some(span) = self.read_span(unit, absent) else {
            self.install_zeroes(unit)?;
            return Ok(None);
        };
        let origin = self.image.read(&span, &mut buffers.stored, deadline)?;
        self.install(&span, unit, origin, buffers, deadline)?;
        Ok((span.units.len() > 1).then_some(Ahead { span, origin }))
    }

    /// As [`Base::fill`], but without claiming the unit: a fault on it does not wait for this.
    pub(crate) fn fill_unclaimed(
        &self,
        unit: usize,
        buffers: &mut Buffers,
        deadline: Instant,
    ) -> Result<(), FillError> {
        if !self.is_present(unit) {
            self.populate(unit, buffers, deadline)?;
            self.set_present(unit);
        }
        Ok(())
    }

    /// What to read for `unit`: of a layer on this host its block, else also its neighbours.
    fn read_span(&self, unit: usize, wanted: impl Fn(usize) -> bool) -> Option<Span> {
        let Content::Block { layer, .. } = self.image.plan.content_of(unit) else { return None };
        let far = self.image.is_far(layer);
        let limit = if far { self.limits.remote_read_bytes } else { 0 };
        self.image.span(unit, limit, |next| far && wanted(next))
    }

    /// Puts in what was read with a unit, from the buffers that it was read into.
    pub(crate) fn fill_ahead(
        &self,
        ahead: &Ahead,
        buffers: &mut Buffers,
        deadline: Instant,
    ) -> Result<(), FillError> {
        for unit in ahead.span.units.clone().skip(1).filter(|unit| !self.is_present(*unit)) {
            self.install(&ahead.span, unit, ahead.origin, buffers, deadline)?;
            self.set_present(unit);
        }
        Ok(())
    }

    /// Notes that all pages of `unit` are there.
    pub(crate) fn set_present(&self, unit: usize) {
        if self.units[unit].swap(PRESENT, Ordering::AcqRel) == FILLING {
            drop(self.turn.lock().unwrap_or_else(PoisonError::into_inner));
            self.filled.notify_all();
        }
    }

    /// Decodes the block of one unit of a span and puts in its pages.
    fn install(
        &self,
        span: &Span,
        unit: usize,
        origin: Origin,
        buffers: &mut Buffers,
        deadline: Instant,
    ) -> Result<(), FillError> {
        let Content::Block { block, .. } = self.image.plan.content_of(unit) else {
            return Ok(self.install_zeroes(unit)?);
        };
        let Buffers { stored, pages, .. } = buffers;
        let len = self.image.decode(span, block, (stored, origin), pages, deadline)?;
        for piece in self.image.plan.pieces(unit) {
            let start = usize::from(piece.first) * PAGE_BYTES;
            let end = start + usize::from(piece.pages) * PAGE_BYTES;
            self.memory.install(piece.page, &pages[..len][start..end])?;
        }
        Ok(())
    }

    fn install_zeroes(&self, unit: usize) -> io::Result<()> {
        let mut pieces = self.image.plan.pieces(unit).iter();
        pieces
            .try_for_each(|piece| self.memory.install_zeroes(piece.page, usize::from(piece.pages)))
    }

    /// Puts in zeroes for a run of guest pages.
    pub(crate) fn install_zero_run(&self, run: Range<u32>) -> io::Result<()> {
        self.memory.install_zeroes(run.start, run.len())
    }

    /// Puts in a run of guest pages, `page` being the first.
    pub(crate) fn install_run(&self, page: u32, content: &[u8]) -> io::Result<()> {
        self.memory.install(page, content)
    }

    /// The content of one guest page, for a clone that gets a copy of its own.
    pub(crate) fn page<'a>(
        &self,
        offset: u64,
        buffers: &'a mut Buffers,
        deadline: Instant,
    ) -> Result<&'a [u8], FillError> {
        let page = usize::try_from(offset).expect("an offset into mapped memory") / PAGE_BYTES;
        let unit = self.image.plan.unit_of(page);
        let Buffers { stored, block: decoded, .. } = buffers;
        let Some(span) = self.image.span(unit, 0, |_| false) else {
            decoded[..PAGE_BYTES].fill(0);
            return Ok(&decoded[..PAGE_BYTES]);
        };
        let origin = self.image.read(&span, stored, deadline)?;
        let block = span.blocks.start;
        self.image.decode(&span, block, (stored, origin), decoded, deadline)?;
        let mut pieces = self.image.plan.pieces(unit).iter();
        let piece = pieces.find(|piece| piece.range().any(|its| its as usize == page));
        let piece = piece.expect("a page is in a piece of its unit");
        let start = (usize::from(piece.first) + page - piece.page as usize) * PAGE_BYTES;
        Ok(&decoded[start..start + PAGE_BYTES])
    }

    /// Marks the units of which every page exists.
    fn find_present(&self) -> io::Result<()> {
        if self.is_huge() {
            return Ok(());
        }
        let present = self.memory.present_pages()?;
        for (unit, state) in self.units.iter().enumerate() {
            let mut pages = self.image.plan.pieces(unit).iter().flat_map(|piece| piece.range());
            if pages.all(|page| present[page as usize]) {
                state.store(PRESENT, Ordering::Release);
            }
        }
        Ok(())
    }
}
