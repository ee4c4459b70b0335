//! Threads that fill base memory ahead of faults.
//!
//! # Invariants
//!
//! - They take no lock and no state that a fault waits for: what they read goes into buffers of
//!   their own, and pages that exist already are left alone.
//! - All bases share the threads, one read each in turn, so that a large base holds up no other.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread::JoinHandle,
    time::Instant,
};

use pool_remote::Origin;
use pool_store::PAGE_BYTES;

use crate::{
    base::Base,
    error::{FillError, chain},
    image::{Buffers, Span},
    memory::HUGE_BYTES,
    plan::{Content, Plan},
};

/// Stored bytes per read, at most.
const READ_BYTES: usize = 1 << 20;

/// Decoded bytes that are copied together, at most: what fits in a processor's cache.
const CONTENT_BYTES: usize = 1 << 20;

/// Units per turn, at most: 4 MiB of zeroes.
const UNITS: usize = 64;

const STACK_BYTES: usize = 256 << 10;

/// What to fill for one base.
struct Job {
    base: Weak<Base>,
    /// In the plan's order.
    units: Arc<[usize]>,
    /// Parts of `units` that are still to be done, each for one turn.
    chunks: VecDeque<Range<usize>>,
    begun: Instant,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    is_stopped: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads, for all bases.
pub(crate) struct Prefetcher {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Prefetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prefetcher").finish_non_exhaustive()
    }
}

impl Prefetcher {
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let start = |_| {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("prefetch".to_owned());
            thread.stack_size(STACK_BYTES).spawn(move || work(&shared))
        };
        let threads = (0..threads).map(start).collect::<io::Result<_>>()?;
        Ok(Self { shared, threads: Mutex::new(threads) })
    }

    /// Has these units of `base` filled, in this order.
    pub(crate) fn fill(&self, base: &Arc<Base>, units: Vec<usize>) {
        let chunks = if base.is_huge() {
            (0..units.len()).map(|at| at..at + 1).collect()
        } else {
            chunks(base, &units)
        };
        if chunks.is_empty() {
            return;
        }
        let (base, units) = (Arc::downgrade(base), units.into());
        self.shared.queue().jobs.push_back(Job { base, units, chunks, begun: Instant::now() });
        self.shared.changed.notify_all();
    }

    /// Ends the threads, each after the read it is at.
    pub(crate) fn stop(&self) {
        self.shared.queue().is_stopped = true;
        self.shared.changed.notify_all();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join(); // a panic has ended the process before this
        }
    }
}

/// Cuts units into what is read and copied together.
fn chunks(base: &Base, units: &[usize]) -> VecDeque<Range<usize>> {
    let mut chunks = VecDeque::new();
    let mut start = 0;
    let (mut stored, mut content) = (0, 0);
    for (at, unit) in units.iter().enumerate() {
        let (its_stored, its_content) =
            (base.image.stored_bytes(*unit), base.image.content_bytes(*unit));
        let fits = stored + its_stored <= READ_BYTES && content + its_content <= CONTENT_BYTES;
        let step = at.checked_sub(1).map(|at| step(&base.image.plan, units[at], *unit));
        let joins = at - start < UNITS
            && match step {
                None | Some(Step::Zeroes | Step::SameBlock) => true,
                Some(Step::NextBlock) => fits,
                Some(Step::Apart) => false,
            };
        if !joins {
            chunks.push_back(start..at);
            start = at;
            (stored, content) = (0, 0);
        }
        if !joins || step != Some(Step::SameBlock) {
            stored += its_stored;
            content += its_content;
        }
    }
    if start < units.len() {
        chunks.push_back(start..units.len());
    }
    chunks
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    SameBlock,
    NextBlock,
    Zeroes,
    Apart,
}

/// How a unit lies to the one before.
fn step(plan: &Plan, previous: usize, unit: usize) -> Step {
    match (plan.content_of(previous), plan.content_of(unit)) {
        (Content::Zero, Content::Zero) => Step::Zeroes,
        (Content::Block { layer: a, block: before }, Content::Block { layer: b, block })
            if a == b && block == before =>
        {
            Step::SameBlock
        }
        (Content::Block { layer: a, block: before }, Content::Block { layer: b, block })
            if a == b && block == before + 1 =>
        {
            Step::NextBlock
        }
        _ => Step::Apart,
    }
}

fn work(shared: &Shared) {
    let mut buffers = Buffers::new(READ_BYTES, CONTENT_BYTES.max(HUGE_BYTES));
    while let Some((base, units, chunk, begun)) = next(shared) {
        let Some(base) = base.upgrade() else { continue };
        let units = &units[chunk];
        match fill(&base, units, &mut buffers) {
            Ok((filled, bytes)) => base.working.count_prefetched(filled, bytes, begun.elapsed()),
            Err(error) => {
                // Not the end of anything: a fault on it tries again, and says so if it can't.
                let cause = chain(&error);
                base.set_last_error(&format!("prefetch: {cause}"));
                tracing::warn!(snapshot = %base.snapshot, cause, "cannot fill ahead");
            }
        }
    }
}

type Turn = (Weak<Base>, Arc<[usize]>, Range<usize>, Instant);

/// Waits for the next part of a job; `None` when stopped.
fn next(shared: &Shared) -> Option<Turn> {
    let mut queue = shared.queue();
    loop {
        if queue.is_stopped {
            return None;
        }
        if let Some(mut job) = queue.jobs.pop_front() {
            let chunk = job.chunks.pop_front();
            let turn =
                chunk.map(|chunk| (job.base.clone(), Arc::clone(&job.units), chunk, job.begun));
            if !job.chunks.is_empty() && job.base.strong_count() > 0 {
                queue.jobs.push_back(job);
            }
            if turn.is_some() {
                return turn;
            }
            continue;
        }
        queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Fills a part of a job; returns units and bytes that it put in.
fn fill(base: &Base, units: &[usize], buffers: &mut Buffers) -> Result<(u64, u64), FillError> {
    let deadline = Instant::now() + base.fault_deadline();
    let absent = units.iter().filter(|unit| !base.is_present(**unit)).count() as u64;
    if absent == 0 {
        return Ok((0, 0));
    }
    if base.is_huge() {
        for unit in units {
            base.fill_unclaimed(*unit, buffers, deadline)?;
        }
        return Ok((absent, absent * HUGE_BYTES as u64));
    }
    match base.image.plan.content_of(units[0]) {
        Content::Zero => fill_zeroes(base, units)?,
        Content::Block { layer, block } => {
            let last = match base.image.plan.content_of(units[units.len() - 1]) {
                Content::Block { block, .. } => block,
                Content::Zero => block,
            };
            let span = Span { layer, blocks: block..last + 1, units: units[0]..units[0] + 1 };
            let origin = base.image.read(&span, &mut buffers.stored, deadline)?;
            fill_blocks(base, units, &span, origin, buffers, deadline)?;
        }
    }
    let mut bytes = 0;
    for unit in units {
        if !base.is_present(*unit) {
            bytes += base.ranges(*unit).map(|range| range.end - range.start).sum::<u64>();
        }
        base.set_present(*unit);
    }
    Ok((absent, bytes))
}

fn fill_zeroes(base: &Base, units: &[usize]) -> io::Result<()> {
    let mut run: Range<u32> = 0..0;
    let put = |run: &Range<u32>| base.install_zero_run(run.clone());
    for piece in units.iter().flat_map(|unit| base.image.plan.pieces(*unit)) {
        if piece.page != run.end {
            put(&run)?;
            run = piece.page..piece.page;
        }
        run.end = piece.range().end;
    }
    put(&run)
}

/// Decodes all blocks of a span side by side, then copies runs that are neighbours both in guest
/// memory and in the buffer, as long as they are.
fn fill_blocks(
    base: &Base,
    units: &[usize],
    span: &Span,
    origin: Origin,
    buffers: &mut Buffers,
    deadline: Instant,
) -> Result<(), FillError> {
    let Buffers { stored, pages, .. } = buffers;
    let mut at = 0;
    for block in span.blocks.clone() {
        at += base.image.decode(span, block, (stored, origin), &mut pages[at..], deadline)?;
    }
    let (mut run, mut run_at) = (0..0_u32, 0);
    let bytes = |run: &Range<u32>| run.len() * PAGE_BYTES;
    let (mut start, mut previous) = (0, units[0]);
    for unit in units {
        if step(&base.image.plan, previous, *unit) == Step::NextBlock {
            start += base.image.content_bytes(previous);
        }
        previous = *unit;
        for piece in base.image.plan.pieces(*unit) {
            let piece_at = start + usize::from(piece.first) * PAGE_BYTES;
            if piece.page != run.end || piece_at != run_at + bytes(&run) {
                base.install_run(run.start, &pages[run_at..run_at + bytes(&run)])?;
                (run, run_at) = (piece.page..piece.page, piece_at);
            }
            run.end = piece.range().end;
        }
    }
    Ok(base.install_run(run.start, &pages[run_at..run_at + bytes(&run)])?)
}
