//! What is filled before it is asked for, and how well that was chosen.

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pool_model::Prefetch;
use pool_store::{BLOCK_BYTES, WorkingSet};

use crate::{base::Base, memory::HUGE_BYTES};

/// So many restores are always recorded.
const RECORD_FIRST: u32 = 3;

/// And later one in so many.
const RECORD_EVERY: u64 = 32;

/// Of the set, one part in so many may fault outside of it before it is recorded anew: 5 %.
const STALE_PART: u64 = 20;

/// Counters of one base's working set and of what was filled ahead.
#[derive(Debug, Default)]
pub(crate) struct Working {
    /// By unit: whether it is filled ahead of faults. Unset until that was asked for.
    set: OnceLock<Box<[bool]>>,
    pub(crate) units: AtomicU64,
    pub(crate) prefetched_units: AtomicU64,
    pub(crate) prefetched_bytes: AtomicU64,
    pub(crate) prefetch_us: AtomicU64,
    /// Faults that came before what was filled ahead.
    pub(crate) faults_in_set: AtomicU64,
    /// Windows of the set that recorded restores touched.
    pub(crate) hits: AtomicU64,
    /// Windows that recorded restores touched outside of the set.
    pub(crate) misses: AtomicU64,
    /// Windows of the set that recorded restores did not touch.
    pub(crate) untouched: AtomicU64,
    /// How often a first response was reported; held while the file is replaced.
    responses: Mutex<u64>,
}

impl Working {
    /// Whether `unit` belongs to what is filled ahead; counts a fault on it. Allocates nothing.
    pub(crate) fn count_fault(&self, unit: usize) -> bool {
        let inside = self.set.get().is_some_and(|set| set.get(unit).is_some_and(|inside| *inside));
        self.faults_in_set.fetch_add(u64::from(inside), Ordering::Relaxed);
        inside
    }

    pub(crate) fn count_prefetched(&self, units: u64, bytes: u64, since_begin: Duration) {
        self.prefetched_units.fetch_add(units, Ordering::Relaxed);
        self.prefetched_bytes.fetch_add(bytes, Ordering::Relaxed);
        let micros = u64::try_from(since_begin.as_micros()).unwrap_or(u64::MAX);
        self.prefetch_us.fetch_max(micros, Ordering::Relaxed);
    }
}

/// The units to fill ahead of faults, in the plan's order. Empty if that was begun before.
pub(crate) fn begin(base: &Base, prefetch: Prefetch) -> Vec<usize> {
    let units: BTreeSet<usize> = match prefetch {
        Prefetch::None => return Vec::new(),
        Prefetch::Full => (0..base.units()).collect(),
        Prefetch::WorkingSet => {
            let Some(set) = load(base.image.working_set_path()) else { return Vec::new() };
            if base.is_huge() {
                let in_one = u32::try_from(HUGE_BYTES / BLOCK_BYTES).expect("it is 32");
                let huge = set.windows().map(|window| (window / in_one) as usize);
                huge.filter(|unit| *unit < base.units()).collect()
            } else {
                base.image.plan.units_of_windows(set.windows())
            }
        }
    };
    let mut flags = vec![false; base.units()].into_boxed_slice();
    units.iter().for_each(|unit| flags[*unit] = true);
    if base.working.set.set(flags).is_err() {
        return Vec::new();
    }
    base.working.units.store(units.len() as u64, Ordering::Relaxed);
    units.into_iter().collect()
}

/// Notes that a clone has given its first response, `outside` of its faults having been outside of
/// the set. If it is time to, asks for the windows it `touched` and saves them with the snapshot.
///
/// # Errors
///
/// What `touched` says, or the disk.
pub(crate) fn record(
    base: &Base,
    outside: u64,
    touched: impl FnOnce() -> io::Result<BTreeSet<u32>>,
) -> io::Result<()> {
    let working = &base.working;
    let mut responses = working.responses.lock().unwrap_or_else(PoisonError::into_inner);
    *responses += 1;
    let path = base.image.working_set_path();
    let mut set = load(path).unwrap_or_else(|| WorkingSet::new(base.bytes()));
    let units = working.units.load(Ordering::Relaxed);
    let is_stale = units > 0 && outside * STALE_PART > units;
    let is_due = set.restores() < RECORD_FIRST || responses.is_multiple_of(RECORD_EVERY);
    if !is_due && !is_stale {
        return Ok(());
    }
    let touched = touched()?;
    if set.restores() > 0 {
        let before: BTreeSet<u32> = set.windows().collect();
        let hits = before.intersection(&touched).count() as u64;
        working.hits.fetch_add(hits, Ordering::Relaxed);
        working.misses.fetch_add(touched.len() as u64 - hits, Ordering::Relaxed);
        working.untouched.fetch_add(before.len() as u64 - hits, Ordering::Relaxed);
    }
    set.observe(&touched);
    set.save(path)
}

/// The set at `path`. One that is damaged is no more than a guess lost.
fn load(path: &Path) -> Option<WorkingSet> {
    WorkingSet::load(path).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "working set ignored");
        None
    })
}
