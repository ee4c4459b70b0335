//! When arrivals come, and what is waited for between them: open loop, closed loop, staggered.
//!
//! An open-loop arrival has a time of its own, and its latency runs from that time: a target that
//! stalls makes the arrivals after it late, and that is measured rather than left out (what is
//! called coordinated omission). As many arrivals are under way as are allowed; the next one then
//! waits for the first to end, and its latency runs meanwhile.

use std::{
    io,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use loadtest_chaos::Board;
use loadtest_model::arrival::Schedule;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    pacer::Pacer,
    record::{Recorder, When},
};
use crate::{
    outcome::{Failure, Outcome},
    work::Doer,
};

/// What belongs to one worker in one round of a part.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) doer: Doer,
    pub(crate) recorder: Arc<Mutex<Recorder>>,
    /// Under way on all workers.
    pub(crate) in_flight: Arc<AtomicU64>,
    pub(crate) board: Board,
    pub(crate) cancel: CancellationToken,
    /// Longest for one arrival.
    pub(crate) limit: Duration,
    /// What the arrivals are cut into.
    pub(crate) segments: Segments,
}

/// Which piece of a part an arrival belongs to.
#[derive(Debug, Clone)]
pub(crate) enum Segments {
    /// By time: pieces as long as this.
    Time(Duration),
    /// By time: pieces that end here.
    Ends(Vec<Duration>),
    /// By number: this many arrivals each.
    Number {
        /// Arrivals in a piece.
        each: u64,
        /// Arrivals so far, of all workers.
        so_far: Arc<AtomicU64>,
    },
}

impl Segments {
    fn of(&self, due: Duration) -> usize {
        let index = match self {
            Self::Time(each) => due.as_nanos() / each.as_nanos().max(1),
            Self::Ends(ends) => ends.partition_point(|end| *end <= due).min(ends.len() - 1) as u128,
            Self::Number { each, so_far } => {
                u128::from(so_far.fetch_add(1, Ordering::Relaxed) / (*each).max(1))
            }
        };
        usize::try_from(index).unwrap_or(usize::MAX)
    }
}

/// How many, and since when.
#[derive(Debug, Clone)]
pub(crate) struct Closed {
    /// At a time, on this worker.
    pub(crate) concurrency: u32,
    /// For how long.
    pub(crate) duration: Option<Duration>,
    /// How many are left, on all workers.
    pub(crate) left: Option<Arc<AtomicU64>>,
}

impl Lane {
    /// Sends at the schedule's times until `duration`, at most `max_in_flight` at once.
    ///
    /// # Errors
    ///
    /// The kernel's, if it has no timer.
    pub(crate) async fn open(
        self: &Rc<Self>,
        begin: Instant,
        schedule: Schedule,
        duration: Duration,
        max_in_flight: usize,
    ) -> io::Result<()> {
        let mut pacer = Pacer::new()?;
        let places = Arc::new(Semaphore::new(max_in_flight));
        let mut shots = JoinSet::new();
        for due in schedule.take_while(|due| *due < duration) {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => break,
                paced = pacer.until(begin + due) => paced?,
            }
            let (place, held_back) = match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => (place, false),
                Err(_) => tokio::select! {
                    () = self.cancel.cancelled() => break,
                    place = Arc::clone(&places).acquire_owned() => {
                        (place.expect("nobody closes it"), true)
                    }
                },
            };
            let lane = Rc::clone(self);
            shots.spawn_local(async move {
                lane.shoot(begin, Some(due), held_back).await;
                drop(place);
            });
            // Whatever has ended is let go of, so that the set does not grow.
            while shots.try_join_next().is_some() {}
        }
        while shots.join_next().await.is_some() {}
        Ok(())
    }

    /// Sends the next as soon as the last has ended.
    pub(crate) async fn closed(self: &Rc<Self>, begin: Instant, how: &Closed) {
        let mut users = JoinSet::new();
        for _ in 0..how.concurrency {
            let (lane, how) = (Rc::clone(self), how.clone());
            users.spawn_local(async move {
                while !lane.cancel.is_cancelled()
                    && how.duration.is_none_or(|duration| begin.elapsed() < duration)
                    && how.left.as_deref().is_none_or(take_one)
                {
                    lane.shoot(begin, None, false).await;
                }
            });
        }
        while users.join_next().await.is_some() {}
    }

    /// Does what does not count, for as long as `duration`.
    pub(crate) async fn warm_up(self: &Rc<Self>, duration: Duration, concurrency: u32) {
        let begin = Instant::now();
        let mut users = JoinSet::new();
        for _ in 0..concurrency {
            let lane = Rc::clone(self);
            users.spawn_local(async move {
                while !lane.cancel.is_cancelled() && begin.elapsed() < duration {
                    lane.lock().warm_up();
                    let _ = timeout(lane.limit, lane.doer.once()).await;
                }
            });
        }
        while users.join_next().await.is_some() {}
    }

    /// One arrival; without a time of its own it is due when it is turned to.
    pub(crate) async fn shoot(&self, begin: Instant, due: Option<Duration>, held_back: bool) {
        let began = begin.elapsed();
        let due_at = due.unwrap_or(began);
        self.lock().plan();
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let outcome = match timeout(self.limit, self.doer.once()).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::failed(Failure::new("timeout", format!("over {:?}", self.limit))),
        };
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let ended = outcome.ended.map_or_else(|| begin.elapsed(), |ended| ended - begin);
        self.board.note(began, ended, outcome.failure.is_none());
        let when = When { due: due_at, began, ended, held_back, timed: due.is_some() };
        self.lock().note(outcome, when, self.segments.of(due_at));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes one of what is left; false if there is none.
fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}
