//! What was disturbed so far, and what the answers say of it.
//!
//! # Invariants
//!
//! - An answer costs one relaxed load while nothing is open. While something is, a good answer
//!   that can't change anything still costs no more.
//! - A failure counts for each disturbance that is open. One is open until its part ends, or until
//!   the next one comes, if by then it is undone and was recovered from: what fails later is the
//!   next one's doing.

use std::{
    error::Error,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use loadtest_model::{Disturbance, Recovery, chain};
use tokio::sync::watch;

/// Most disturbances of a run: their record is kept until its end.
const ENTRIES_MAX: usize = 10_000;
/// Most that are followed at a time: each failure is noted in each. Beyond, the oldest is closed.
const OPEN_MAX: usize = 64;
/// The gate when nothing is open.
const NOTHING: u64 = 0;
/// The gate when every answer matters.
const EVERYTHING: u64 = u64::MAX;

/// Takes every answer of a run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Good answers that ended at or after this (nanoseconds since the part's begin) change
    /// nothing. See [`NOTHING`] and [`EVERYTHING`].
    gate_ns: AtomicU64,
    log: Mutex<Log>,
    clock: watch::Sender<Option<Clock>>,
}

/// Where the run is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// When the first part began to measure.
    pub(crate) first: Instant,
    /// When the current one did; none between two.
    pub(crate) part: Option<Instant>,
}

#[derive(Debug, Default)]
struct Log {
    part: Option<(String, Instant)>,
    entries: Vec<Entry>,
    /// Those that answers are noted in, ascending.
    open: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    what: String,
    part: String,
    at: Duration,
    failed: Option<String>,
    recovery: Recovery,
    undone: bool,
}

/// One disturbance on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryId(usize);

impl Board {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            gate_ns: AtomicU64::new(NOTHING),
            log: Mutex::default(),
            clock: watch::Sender::new(None),
        }))
    }

    /// Takes one answer: when its request was sent and when it ended, since the part's begin, and
    /// whether it was as it should be.
    #[inline]
    pub fn note(&self, sent: Duration, ended: Duration, good: bool) {
        let gate = self.0.gate_ns.load(Ordering::Relaxed);
        if gate == NOTHING || (good && nanoseconds(ended) >= gate) {
            return;
        }
        self.take(sent, ended, good);
    }

    /// What was disturbed last and is not over: not undone, or not recovered from.
    #[must_use]
    pub fn current(&self) -> Option<String> {
        let log = self.lock();
        let over = |(index, entry): &(usize, &Entry)| {
            let followed = log.open.contains(index);
            entry.undone && (!followed || entry.recovery.recovery_ms().is_some())
        };
        let mut latest = log.entries.iter().enumerate().rev();
        latest.find(|found| !over(found)).map(|(_, entry)| entry.what.clone())
    }

    pub(crate) fn begin_part(&self, id: &str, begin: Instant) {
        let mut log = self.lock();
        self.close_all(&mut log);
        log.part = Some((id.to_owned(), begin));
        drop(log);
        self.0.clock.send_modify(|clock| {
            let first = clock.map_or(begin, |clock| clock.first);
            *clock = Some(Clock { first, part: Some(begin) });
        });
    }

    pub(crate) fn end_part(&self) {
        self.close_all(&mut self.lock());
        self.0.clock.send_modify(|clock| {
            if let Some(clock) = clock {
                clock.part = None;
            }
        });
    }

    pub(crate) fn clock(&self) -> watch::Receiver<Option<Clock>> {
        self.0.clock.subscribe()
    }

    /// Begins a disturbance, now. None if there were too many.
    pub(crate) fn open(&self, what: String) -> Option<EntryId> {
        let mut log = self.lock();
        let id = log.add(what, None)?;
        let Log { open, entries, .. } = &mut *log;
        open.retain(|index| {
            let entry = &entries[*index];
            !entry.undone || entry.recovery.recovery_ms().is_none()
        });
        if open.len() == OPEN_MAX {
            open.remove(0);
        }
        open.push(id.0);
        self.set_gate(&log);
        Some(id)
    }

    /// Records one that could not even begin. None if there were too many.
    pub(crate) fn could_not(&self, what: String, error: &dyn Error) -> Option<EntryId> {
        let mut log = self.lock();
        let id = log.add(what, Some(chain(error)))?;
        log.entries[id.0].undone = true;
        Some(id)
    }

    /// Ends one that could not be done: nothing that failed is its doing.
    pub(crate) fn failed(&self, id: EntryId, error: &dyn Error) {
        let mut log = self.lock();
        let entry = &mut log.entries[id.0];
        entry.failed = Some(chain(error));
        entry.recovery = Recovery::new(entry.at);
        entry.undone = true;
        log.open.retain(|index| *index != id.0);
        self.set_gate(&log);
    }

    /// Says that one is undone, or has nothing to undo.
    pub(crate) fn undone(&self, id: EntryId, error: Option<&dyn Error>) {
        let entry = &mut self.lock().entries[id.0];
        entry.undone = true;
        if let Some(error) = error {
            entry.failed = Some(format!("could not be undone: {}", chain(error)));
        }
    }

    pub(crate) fn finish(&self) -> Vec<Disturbance> {
        self.end_part();
        std::mem::take(&mut self.lock().entries).into_iter().map(Entry::into_words).collect()
    }

    #[cold]
    fn take(&self, sent: Duration, ended: Duration, good: bool) {
        let mut log = self.lock();
        let Log { open, entries, .. } = &mut *log;
        for index in open.iter() {
            entries[*index].recovery.note(sent, ended, good);
        }
        self.set_gate(&log);
    }

    fn close_all(&self, log: &mut Log) {
        log.open.clear();
        self.set_gate(log);
    }

    fn set_gate(&self, log: &Log) {
        let first_good = |index: &usize| {
            let entry = &log.entries[*index];
            entry.recovery.recovery_ms().map_or(EVERYTHING, |ms| {
                // One more, for what was lost to rounding.
                nanoseconds(entry.at + Duration::from_secs_f64(ms / 1e3)).saturating_add(1)
            })
        };
        let gate = log.open.iter().map(first_good).max().unwrap_or(NOTHING);
        self.0.gate_ns.store(gate, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // Whoever panicked left at most one answer out.
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn add(&mut self, what: String, failed: Option<String>) -> Option<EntryId> {
        if self.entries.len() == ENTRIES_MAX {
            return None;
        }
        let (part, at) = self.part.as_ref().map_or_else(Default::default, |(id, begin)| {
            (id.clone(), Instant::now().saturating_duration_since(*begin))
        });
        let recovery = Recovery::new(at);
        self.entries.push(Entry { what, part, at, failed, recovery, undone: false });
        Some(EntryId(self.entries.len() - 1))
    }
}

impl Entry {
    fn into_words(self) -> Disturbance {
        let done = self.failed.is_none() || self.recovery.lost() > 0;
        Disturbance {
            what: self.what,
            part: self.part,
            at_s: self.at.as_secs_f64(),
            failed: self.failed,
            lost: self.recovery.lost(),
            outage_ms: self.recovery.outage_ms(),
            recovery_ms: self.recovery.recovery_ms().filter(|_| done),
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    // 584 years are enough.
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A board in a part that began so long ago.
    fn board(ago: Duration) -> Board {
        let board = Board::new();
        board.begin_part("invoke/h2", Instant::now().checked_sub(ago).unwrap());
        board
    }

    const fn s(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn answers_count_from_the_disturbance_on() {
        let board = board(s(100));
        board.note(s(1), s(300), false); // nothing is open
        let id = board.open("kill".to_owned()).unwrap();
        assert_eq!(board.current().as_deref(), Some("kill"));
        board.undone(id, None);
        board.note(s(1), s(300), false);
        board.note(s(301), s(302), true);
        assert_eq!(board.current(), None, "undone and recovered from");
        board.note(s(301), s(310), true); // too late to matter
        board.note(s(302), s(400), false); // but a failure matters
        assert_eq!(board.current().as_deref(), Some("kill"));
        let found = board.finish();
        assert_eq!((found[0].lost, found[0].recovery_ms), (2, None));
        assert_eq!(found[0].part, "invoke/h2");
        assert!((100.0..200.0).contains(&found[0].at_s), "{}", found[0].at_s);
    }

    #[test]
    fn failure_is_the_doing_of_whoever_is_not_recovered_from() {
        let board = board(s(100));
        let first = board.open("first".to_owned()).unwrap();
        board.undone(first, None);
        board.note(s(200), s(201), true);
        board.open("second".to_owned()).unwrap(); // closes the first
        board.note(s(202), s(203), false);
        board.open("third".to_owned()).unwrap(); // leaves the second open
        board.note(s(204), s(205), false);
        let lost: Vec<u64> = board.finish().iter().map(|found| found.lost).collect();
        assert_eq!(lost, [0, 2, 1]);
    }

    #[test]
    fn disturbance_ends_with_its_part() {
        let board = board(s(100));
        board.open("kill".to_owned()).unwrap();
        board.note(s(200), s(201), false);
        board.end_part();
        board.note(s(200), s(202), false);
        board.begin_part("next", Instant::now());
        board.note(s(200), s(203), false);
        assert_eq!(board.current().as_deref(), Some("kill"), "not undone yet");
        let second = board.open("pause".to_owned()).unwrap();
        board.note(s(200), s(203), false);
        board.undone(second, Some(&io::Error::other("no")));
        let found = board.finish();
        assert_eq!((found[0].lost, found[1].lost), (1, 1));
        assert_eq!(found[1].failed.as_deref(), Some("could not be undone: no"));
        assert_eq!(found[1].part, "next");
    }

    #[test]
    fn what_could_not_be_done_has_cost_nothing() {
        let board = board(s(1));
        let id = board.open("fill".to_owned()).unwrap();
        board.note(s(2), s(3), false);
        board.failed(id, &io::Error::other("read-only"));
        board.could_not("kill".to_owned(), &io::Error::other("gone")).unwrap();
        board.note(s(2), s(3), false);
        assert_eq!(board.current(), None);
        let found = board.finish();
        assert_eq!(found[0].failed.as_deref(), Some("read-only"));
        assert_eq!(found[1].failed.as_deref(), Some("gone"));
        assert!(found.iter().all(|found| found.lost == 0 && found.recovery_ms.is_none()));
    }

    #[test]
    fn record_is_bounded() {
        let board = board(s(1));
        for _ in 0..ENTRIES_MAX {
            board.open("again".to_owned()).unwrap();
        }
        assert_eq!(board.open("again".to_owned()), None);
        assert_eq!(board.lock().open.len(), OPEN_MAX);
        assert_eq!(board.finish().len(), ENTRIES_MAX);
    }
}
