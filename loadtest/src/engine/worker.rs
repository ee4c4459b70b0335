//! One thread that sends requests: a runtime of its own, so that workers share no lock.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use loadtest_chaos::Board;
use loadtest_model::{Arrivals, Load, Protocol, arrival::Schedule};
use tokio::{sync::Barrier, task::LocalSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    drive::{Closed, Lane, Segments},
    record::Recorder,
    usage,
};
use crate::{error::RunError, paced, work::Ready};

/// Warm-ups of open loads send this many at once at most: enough to open connections.
const WARM_UP_USERS: u32 = 4;

/// What a thread is to do in one round of a part.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its number and how many there are.
    pub(crate) index: u32,
    pub(crate) count: u32,
    pub(crate) ready: Arc<Ready>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) load: Option<Load>,
    /// The times of a replayed trace or a staggered load.
    pub(crate) trace: Arc<[Duration]>,
    pub(crate) seed: u64,
    pub(crate) warmup: Duration,
    pub(crate) limit: Duration,
    pub(crate) segments: Segments,
    pub(crate) recorder: Arc<Mutex<Recorder>>,
    pub(crate) in_flight: Arc<AtomicU64>,
    /// How many a closed load has left, on all workers.
    pub(crate) left: Option<Arc<AtomicU64>>,
    pub(crate) board: Board,
    pub(crate) cancel: CancellationToken,
    /// Where workers wait for each other, and when they went on.
    pub(crate) start: Arc<(Barrier, OnceLock<Instant>)>,
}

/// How a thread did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Its share of a processor while it measured.
    pub(crate) busy: f64,
    /// From begin to its last answer.
    pub(crate) took: Duration,
    /// What only this kind of work has to say.
    pub(crate) extra: BTreeMap<String, f64>,
    /// What it could not clear away.
    pub(crate) left: Vec<String>,
}

impl Worker {
    /// Does it. Blocks the thread that it is called on.
    ///
    /// # Errors
    ///
    /// [`RunError`] if there is no runtime or timer, or the work could not be paced.
    pub(crate) fn run(self) -> Result<Done, RunError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| RunError::Harness { step: "make a runtime", source })?;
        let done = LocalSet::new().block_on(&runtime, self.drive());
        // What is still open then (driver tasks of connections) has nothing more to say.
        runtime.shutdown_background();
        done
    }

    async fn drive(self) -> Result<Done, RunError> {
        let lane = Rc::new(Lane {
            doer: self.ready.doer(self.protocol, self.seed ^ u64::from(self.index)),
            recorder: Arc::clone(&self.recorder),
            in_flight: Arc::clone(&self.in_flight),
            board: self.board.clone(),
            cancel: self.cancel.clone(),
            limit: self.limit,
            segments: self.segments.clone(),
        });
        if !self.warmup.is_zero() {
            lane.warm_up(self.warmup, self.warm_up_users()).await;
        }
        tokio::select! {
            _ = self.start.0.wait() => {}
            // Interrupted, or another worker has failed: it will not come.
            () = self.cancel.cancelled() => return Ok(Done::default()),
        }
        let begin = *self.start.1.get_or_init(Instant::now);
        let cpu = usage::thread_cpu();
        let extra = self.measure(&lane, begin).await?;
        let took = match &self.load {
            // An open loop lasts as long as arrivals may come, though the last came before.
            Some(Load::Open { duration_ms, .. }) if !self.cancel.is_cancelled() => {
                begin.elapsed().max(Duration::from_millis(*duration_ms))
            }
            _ => begin.elapsed(),
        };
        let busy = (usage::thread_cpu() - cpu).as_secs_f64() / took.as_secs_f64().max(1e-9);
        Ok(Done { busy, took, extra, left: lane.doer.settle().await })
    }

    async fn measure(
        &self,
        lane: &Rc<Lane>,
        begin: Instant,
    ) -> Result<BTreeMap<String, f64>, RunError> {
        let timer = |source: io::Error| RunError::Harness { step: "use a timer", source };
        match &self.load {
            None => return paced::run(&self.ready, lane, begin).await,
            Some(Load::Open { arrivals, duration_ms, max_in_flight }) => {
                let duration = Duration::from_millis(*duration_ms);
                let schedule = self.schedule(arrivals)?;
                let most = self.share(*max_in_flight).max(1) as usize;
                lane.open(begin, schedule, duration, most).await.map_err(timer)?;
            }
            Some(Load::Staggered { count, .. }) => {
                let schedule = self.schedule(&staggered())?;
                let most = usize::try_from(*count).unwrap_or(usize::MAX).max(1);
                lane.open(begin, schedule, Duration::MAX, most).await.map_err(timer)?;
            }
            Some(Load::Closed { concurrency, duration_ms, .. }) => {
                let how = Closed {
                    concurrency: self.share(*concurrency),
                    duration: duration_ms.map(Duration::from_millis),
                    left: self.left.clone(),
                };
                lane.closed(begin, &how).await;
            }
        }
        Ok(BTreeMap::new())
    }

    fn schedule(&self, arrivals: &Arrivals) -> Result<Schedule, RunError> {
        let schedule = Schedule::new(arrivals, self.seed, &self.trace)
            .map_err(|error| RunError::Target(error.to_string()))?;
        Ok(schedule.worker(self.index as usize, self.count as usize))
    }

    fn warm_up_users(&self) -> u32 {
        match &self.load {
            Some(Load::Closed { concurrency, .. }) => self.share(*concurrency).max(1),
            Some(Load::Open { max_in_flight, .. }) => WARM_UP_USERS.min(*max_in_flight),
            Some(Load::Staggered { .. }) | None => 1,
        }
    }

    /// This worker's share of a number: the first ones get what can't be divided.
    fn share(&self, of: u32) -> u32 {
        of / self.count + u32::from(self.index < of % self.count)
    }
}

/// A staggered load's times are few, so they are a trace.
fn staggered() -> Arrivals {
    Arrivals::Replay { file: PathBuf::from("staggered"), speed: 1.0 }
}

/// How many requests are under way.
pub(crate) fn under_way(in_flight: &AtomicU64) -> u64 {
    in_flight.load(Ordering::Relaxed)
}
