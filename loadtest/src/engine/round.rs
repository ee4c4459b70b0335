//! One round of a part: its workers, and what is seen of them while they work.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use loadtest_model::{
    Arrivals, Histogram, Load, Part, Phase, PoolSample, Progress, Protocol, Scenario, Tick,
    arrival::Schedule,
};
use tokio::{
    sync::{Barrier, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    drive::Segments,
    record::{Recent, Recorder},
    usage,
    worker::{Done, Worker, under_way},
};
use crate::{error::RunError, pool_watch::PoolWatch, work::Ready};

/// Pieces that a part's latency is cut into: enough to resample, few enough to keep.
const SEGMENTS: usize = 20;
/// Most steps that a part's course is told in.
const TICKS_MAX: u32 = 600;
/// The shortest step: what is shown live.
const TICK_MIN: Duration = Duration::from_millis(500);

/// The kind of failure that a sandbox is which could not be cleared away.
const LEFT_BEHIND: &str = "left_behind";

/// What a round is about.
#[derive(Debug)]
pub(crate) struct Round<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) protocol: Option<Protocol>,
    /// Its number among the rounds of its part, and how many there are.
    pub(crate) number: u32,
    pub(crate) rounds: u32,
    pub(crate) workers: u32,
    pub(crate) seed: u64,
    pub(crate) warmup: Duration,
    pub(crate) ready: Arc<Ready>,
    pub(crate) trace: Arc<[Duration]>,
    pub(crate) chaos: &'a loadtest_chaos::Chaos,
    pub(crate) cancel: CancellationToken,
    pub(crate) progress: &'a watch::Sender<Progress>,
    /// What the progress says of the whole run.
    pub(crate) shown: Progress,
}

/// How the harness did in a round.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Effort {
    /// The busiest worker's share of a processor.
    pub(crate) busiest: f64,
    /// Processor time of the whole process, and how long that was.
    pub(crate) cpu: Duration,
    pub(crate) took: Duration,
    pub(crate) rss_start_mib: f64,
    pub(crate) rss_max_mib: f64,
    pub(crate) late: u64,
    pub(crate) timed: u64,
    pub(crate) held_back: u64,
}

impl Round<'_> {
    /// Does it and adds what came of it to its part.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the harness could not work. A target that fails is a result.
    pub(crate) async fn run(mut self, part: &mut Part) -> Result<Effort, RunError> {
        let pieces = self.pieces();
        let recorders: Vec<_> =
            (0..self.workers).map(|_| Arc::new(Mutex::new(Recorder::new(pieces)))).collect();
        let in_flight = Arc::new(AtomicU64::new(0));
        let start = Arc::new((Barrier::new(self.workers as usize + 1), OnceLock::new()));
        // Cancelled with the run, and if a worker fails: the others must not wait for it.
        let cancel = self.cancel.child_token();
        let mut workers = self.start(pieces, &recorders, &in_flight, &start, &cancel);
        let _unless_done = cancel.clone().drop_guard();
        self.show(if self.warmup.is_zero() { Phase::Preparing } else { Phase::WarmUp });
        tokio::select! {
            _ = start.0.wait() => {}
            () = self.cancel.cancelled() => {}
            // One that ends before it begins has failed.
            Some(ended) = workers.join_next() => { joined(ended)?; }
        }
        let begin = *start.1.get_or_init(Instant::now);
        let mut effort = Effort { rss_start_mib: usage::rss_mib(), ..Effort::default() };
        let cpu = usage::process_cpu();
        self.chaos.begin_part(&part.id(), begin.into_std());
        let watch = PoolWatch::start(self.ready.pool(), begin);
        let mut course = Course {
            recorders: &recorders,
            in_flight: &in_flight,
            begin,
            offset: part.duration_s,
            last: begin,
        };
        let ended = self.follow(&mut workers, &mut course, &watch, part, &mut effort).await;
        self.chaos.end_part();
        part.pool.extend(
            watch
                .stop()
                .await
                .into_iter()
                .map(|sample| PoolSample { at_s: sample.at_s + course.offset, ..sample }),
        );
        let done = ended?;
        let took = done.iter().map(|done| done.took).max().unwrap_or_default();
        part.duration_s += took.as_secs_f64();
        for one in &done {
            for left in &one.left {
                *part.errors.entry(LEFT_BEHIND.to_owned()).or_default() += 1;
                part.samples.entry(LEFT_BEHIND.to_owned()).or_insert_with(|| left.clone());
            }
            for (name, value) in &one.extra {
                // Rounds are as good as each other: their mean.
                *part.extra.entry(name.clone()).or_default() += value / f64::from(self.rounds);
            }
        }
        for recorder in &recorders {
            let recorder = lock(recorder);
            let (late, timed, held_back) = recorder.sends();
            effort.late += late;
            effort.timed += timed;
            effort.held_back += held_back;
            recorder.add_to(part, pieces * (self.number as usize));
        }
        effort.busiest = done.iter().map(|done| done.busy).fold(0.0, f64::max);
        effort.cpu = usage::process_cpu().saturating_sub(cpu);
        effort.took = took;
        Ok(effort)
    }

    fn start(
        &self,
        pieces: usize,
        recorders: &[Arc<Mutex<Recorder>>],
        in_flight: &Arc<AtomicU64>,
        start: &Arc<(Barrier, OnceLock<Instant>)>,
        cancel: &CancellationToken,
    ) -> JoinSet<Result<Done, RunError>> {
        let segments = self.segments(pieces);
        let left = match self.scenario.load {
            Some(Load::Closed { requests: Some(requests), .. }) => {
                Some(Arc::new(AtomicU64::new(requests)))
            }
            _ => None,
        };
        let mut workers = JoinSet::new();
        for (index, recorder) in (0..self.workers).zip(recorders) {
            let worker = Worker {
                index,
                count: self.workers,
                ready: Arc::clone(&self.ready),
                protocol: self.protocol,
                load: self.scenario.load.clone(),
                trace: Arc::clone(&self.trace),
                seed: self.seed,
                warmup: self.warmup,
                limit: Duration::from_millis(self.scenario.timeout_ms),
                segments: segments.clone(),
                recorder: Arc::clone(recorder),
                in_flight: Arc::clone(in_flight),
                left: left.clone(),
                board: self.chaos.board(),
                cancel: cancel.clone(),
                start: Arc::clone(start),
            };
            workers.spawn_blocking(move || worker.run());
        }
        workers
    }

    /// Looks at the workers step by step until all have ended.
    async fn follow(
        &mut self,
        workers: &mut JoinSet<Result<Done, RunError>>,
        course: &mut Course<'_>,
        watch: &PoolWatch,
        part: &mut Part,
        effort: &mut Effort,
    ) -> Result<Vec<Done>, RunError> {
        let length = self.length();
        let step = length.map_or(TICK_MIN, |length| (length / TICKS_MAX).max(TICK_MIN));
        let mut steps = interval_at(course.begin + step, step);
        steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let schedule = self.asked();
        let mut done = Vec::new();
        loop {
            tokio::select! {
                biased;
                ended = workers.join_next() => match ended {
                    Some(ended) => done.push(joined(ended)?),
                    None => break,
                },
                _ = steps.tick() => {
                    let recent = course.step(part);
                    effort.rss_max_mib = effort.rss_max_mib.max(usage::rss_mib());
                    self.shown.pool = watch.level();
                    self.shown.disturbance = self.chaos.board().current();
                    self.shown.length_s = length.map(|length| length.as_secs_f64());
                    self.shown.asked_rate =
                        schedule.as_ref().and_then(|schedule| schedule.rate_at(course.begin.elapsed()));
                    course.tell(&mut self.shown, &recent, step);
                    let draining = length.is_some_and(|length| course.begin.elapsed() > length);
                    self.show(if draining { Phase::Draining } else { Phase::Measuring });
                }
            }
        }
        course.step(part);
        effort.rss_max_mib = effort.rss_max_mib.max(usage::rss_mib());
        Ok(done)
    }

    fn show(&mut self, phase: Phase) {
        self.shown.phase = phase;
        self.progress.send_replace(self.shown.clone());
    }

    /// The rates that open arrivals ask for.
    fn asked(&self) -> Option<Schedule> {
        match &self.scenario.load {
            Some(Load::Open { arrivals, .. }) => {
                Schedule::new(arrivals, self.seed, &self.trace).ok()
            }
            _ => None,
        }
    }

    /// How long it will take, if that is known.
    fn length(&self) -> Option<Duration> {
        match &self.scenario.load {
            Some(Load::Open { duration_ms, .. }) => Some(Duration::from_millis(*duration_ms)),
            Some(Load::Closed { duration_ms, .. }) => duration_ms.map(Duration::from_millis),
            Some(Load::Staggered { count, delay_ms }) => {
                Some(Duration::from_millis(*delay_ms) * *count)
            }
            None => None,
        }
    }

    /// Pieces of latency in this round.
    fn pieces(&self) -> usize {
        match &self.scenario.load {
            Some(Load::Open { arrivals: Arrivals::Steps { levels }, .. }) => levels.len(),
            _ => SEGMENTS.div_ceil(self.rounds as usize),
        }
    }

    fn segments(&self, pieces: usize) -> Segments {
        let count = u32::try_from(pieces).unwrap_or(u32::MAX).max(1);
        let by_number = |number: u64| Segments::Number {
            each: number.div_ceil(u64::from(count)),
            so_far: Arc::new(AtomicU64::new(0)),
        };
        match &self.scenario.load {
            Some(Load::Open { arrivals: Arrivals::Steps { levels }, .. }) => {
                let mut end = Duration::ZERO;
                Segments::Ends(
                    levels
                        .iter()
                        .map(|level| {
                            end += Duration::from_millis(level.for_ms);
                            end
                        })
                        .collect(),
                )
            }
            Some(Load::Closed { requests: Some(requests), .. }) => by_number(*requests),
            Some(Load::Staggered { count, .. }) => by_number(u64::from(*count)),
            _ => Segments::Time(self.length().unwrap_or(Duration::MAX) / count),
        }
    }
}

/// What is seen of a round as it goes.
struct Course<'a> {
    recorders: &'a [Arc<Mutex<Recorder>>],
    in_flight: &'a AtomicU64,
    begin: Instant,
    /// Seconds that the part's earlier rounds took.
    offset: f64,
    last: Instant,
}

impl Course<'_> {
    /// Takes what has ended since the last step and adds it to the part's course.
    fn step(&mut self, part: &mut Part) -> Recent {
        let mut recent = Recent::default();
        for recorder in self.recorders {
            let one = lock(recorder).take_recent();
            recent.planned += one.planned;
            recent.succeeded += one.succeeded;
            recent.failed += one.failed;
            recent.latency.merge(&one.latency);
        }
        let now = Instant::now();
        let at_s = (self.last - self.begin).as_secs_f64() + self.offset;
        let length_s = (now - self.last).as_secs_f64();
        self.last = now;
        let tick = Tick {
            at_s,
            length_s,
            planned: recent.planned,
            succeeded: recent.succeeded,
            failed: recent.failed,
            p50_ms: recent.latency.quantile_ms(0.5),
            p99_ms: recent.latency.quantile_ms(0.99),
            in_flight: under_way(self.in_flight),
        };
        push(&mut part.ticks, tick);
        recent
    }

    fn tell(&self, shown: &mut Progress, recent: &Recent, step: Duration) {
        let (mut succeeded, mut failed) = (0, 0);
        let mut worst: Option<(String, u64)> = None;
        for recorder in self.recorders {
            let recorder = lock(recorder);
            let (good, bad, commonest) = recorder.totals();
            succeeded += good;
            failed += bad;
            if let Some((kind, count)) = commonest
                && worst.as_ref().is_none_or(|(_, most)| count > *most)
            {
                worst = Some((kind.to_owned(), count));
            }
        }
        #[allow(clippy::cast_precision_loss)]
        let rate = recent.succeeded as f64 / step.as_secs_f64();
        shown.elapsed_s = self.begin.elapsed().as_secs_f64();
        shown.rate = rate;
        (shown.succeeded, shown.failed) = (succeeded, failed);
        shown.worst_error = worst.map(|(kind, _)| kind);
        shown.in_flight = under_way(self.in_flight);
        shown.latency = Histogram::summary(&recent.latency);
    }
}

/// Adds a step; one that ended early, as the last of a round does, is added to the one before: what
/// little there is in it would be a rate of its own otherwise.
fn push(ticks: &mut Vec<Tick>, tick: Tick) {
    match ticks.last_mut() {
        Some(last)
            if tick.length_s < last.length_s / 2.0
                && tick.at_s < last.at_s + last.length_s * 1.5 =>
        {
            last.length_s += tick.length_s;
            last.planned += tick.planned;
            last.succeeded += tick.succeeded;
            last.failed += tick.failed;
            last.p99_ms = last.p99_ms.max(tick.p99_ms);
            last.in_flight = tick.in_flight;
        }
        _ => ticks.push(tick),
    }
}

fn joined(ended: Result<Result<Done, RunError>, tokio::task::JoinError>) -> Result<Done, RunError> {
    match ended {
        Ok(done) => done,
        Err(error) => {
            Err(RunError::Harness { step: "finish a worker", source: std::io::Error::other(error) })
        }
    }
}

fn lock(recorder: &Mutex<Recorder>) -> std::sync::MutexGuard<'_, Recorder> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}
