//! The task behind a [`super::Pool`]: the only owner of its slots, and the order in which it acts.
//!
//! Each turn takes what has happened (every queue is emptied up to [`BATCH`]) and then settles what
//! follows from it once. Every arm of the `select!` is cancel-safe: what is decided is done after
//! it. Nothing in a turn looks at every slot; timers lie in a wheel.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::SystemTime,
};

use pool_model::Reuse;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Duration, Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Command, LeaseReply, QUEUE_LEN,
    life::{Report, Reports},
    supply::Aim,
};
use crate::{
    Driver, Policy, ReapReason, Stats,
    breaker::Breaker,
    lease::{Ended, Token},
    member::{MemberId, Members},
    policy::Have,
    series::Sample,
    slot::{Action, Event},
    stats::Record,
    wheel::{TimerId, Wheel},
};

/// Messages taken from each queue before the next settling.
const BATCH: usize = 128;
/// How long the loop sleeps when no timer is set.
const FAR: Duration = Duration::from_secs(86_400);

/// A caller who waits.
pub(super) struct Waiter<S> {
    pub(super) token: Token,
    pub(super) asked_at: Instant,
    pub(super) reply: LeaseReply<S>,
}

/// A drain that waits until these are gone.
pub(super) struct Draining {
    pub(super) left: BTreeSet<MemberId>,
    pub(super) count: u32,
    pub(super) reply: oneshot::Sender<u32>,
}

/// What the task's timers are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// A lease's limit.
    Lease(MemberId),
    /// A sandbox's greatest age.
    Age(MemberId),
    /// The oldest warm sandbox over the target has been idle for long enough.
    Idle,
    /// A restore may be tried again.
    Retry,
    /// The target may have changed.
    Review,
}

/// What comes in from callers.
pub(super) struct Queues<S> {
    pub(super) commands_rx: mpsc::Receiver<Command<S>>,
    pub(super) ended_rx: mpsc::UnboundedReceiver<Ended>,
}

enum Input<S> {
    Close,
    Report(Report<S>),
    Ended(Ended),
    Command(Command<S>),
    Timer,
}

pub(super) struct Task<D: Driver> {
    pub(super) driver: Arc<D>,
    pub(super) policy: Policy,
    pub(super) cap: u32,
    pub(super) aim: Aim,
    pub(super) breaker: Breaker,
    pub(super) members: Members<D::Sandbox>,
    pub(super) waiters: VecDeque<Waiter<D::Sandbox>>,
    pub(super) drains: Vec<Draining>,
    pub(super) wheel: Wheel<Timer>,
    pub(super) idle_timer: Option<(TimerId, u64)>,
    pub(super) record: Record,
    pub(super) ended_tx: mpsc::UnboundedSender<Ended>,
    pub(super) reports_tx: Reports<D::Sandbox>,
    pub(super) tasks: TaskTracker,
    pub(super) closing: bool,
    /// The time of this turn.
    pub(super) now: Instant,
    start: Instant,
    queues: Queues<D::Sandbox>,
    reports_rx: mpsc::Receiver<Report<D::Sandbox>>,
}

impl<D: Driver> Task<D> {
    pub(super) fn new(
        driver: Arc<D>,
        policy: Policy,
        queues: Queues<D::Sandbox>,
        ended_tx: mpsc::UnboundedSender<Ended>,
    ) -> Self {
        let (reports_tx, reports_rx) = mpsc::channel(QUEUE_LEN);
        let now = Instant::now();
        Self {
            driver,
            policy,
            cap: u32::MAX,
            aim: Aim::default(),
            breaker: Breaker::new(),
            members: Members::new(),
            waiters: VecDeque::new(),
            drains: Vec::new(),
            wheel: Wheel::new(),
            idle_timer: None,
            record: Record::default(),
            ended_tx,
            reports_tx,
            tasks: TaskTracker::new(),
            closing: false,
            now,
            start: now,
            queues,
            reports_rx,
        }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let cancelled = cancel.cancelled();
        let sleep = sleep_until(self.start + FAR);
        tokio::pin!(cancelled, sleep);
        loop {
            self.settle();
            if self.closing && self.members.is_empty() {
                break;
            }
            let wake_at = self.wake_at();
            if sleep.deadline() != wake_at {
                sleep.as_mut().reset(wake_at);
            }
            let input = tokio::select! {
                biased; // shutdown first, then supply, then demand
                () = &mut cancelled, if !self.closing => Input::Close,
                Some(report) = self.reports_rx.recv() => Input::Report(report),
                Some(ended) = self.queues.ended_rx.recv() => Input::Ended(ended),
                Some(command) = self.queues.commands_rx.recv() => Input::Command(command),
                () = &mut sleep => Input::Timer,
            };
            self.begin_turn();
            self.take(input);
            self.take_batch();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Time has passed in which nothing changed.
    fn begin_turn(&mut self) {
        self.now = Instant::now();
        self.sample();
        self.breaker.tick(self.now);
        let now_ms = self.ms(self.now);
        // Asked before the queues, or a busy pool would never look at its timers.
        if self.wheel.next().is_some_and(|next| next <= now_ms) {
            for (timer, _) in self.wheel.advance(now_ms) {
                self.on_timer(timer);
            }
        }
    }

    fn take(&mut self, input: Input<D::Sandbox>) {
        match input {
            Input::Close => self.close(),
            Input::Report(report) => self.on_report(report),
            Input::Ended(ended) => self.on_ended(ended),
            Input::Command(command) => self.on_command(command),
            Input::Timer => {} // begin_turn has looked
        }
    }

    /// Takes what has come meanwhile, in the order of the `select!`.
    fn take_batch(&mut self) {
        for _ in 0..BATCH {
            let Ok(report) = self.reports_rx.try_recv() else { break };
            self.on_report(report);
        }
        for _ in 0..BATCH {
            let Ok(ended) = self.queues.ended_rx.try_recv() else { break };
            self.on_ended(ended);
        }
        for _ in 0..BATCH {
            let Ok(command) = self.queues.commands_rx.try_recv() else { break };
            self.on_command(command);
        }
    }

    /// What follows from all that has happened.
    fn settle(&mut self) {
        self.review_if_due();
        self.serve_waiters();
        self.refuse_if_broken();
        self.hold_cap();
        self.replace_aged();
        self.refill();
        self.reap_idle();
    }

    fn on_command(&mut self, command: Command<D::Sandbox>) {
        // An asker who is gone needs no answer.
        match command {
            Command::Lease { token, asked_at, reply } => {
                self.on_lease(Waiter { token, asked_at, reply });
            }
            Command::SetPolicy(policy) => self.set_policy(policy),
            Command::SetCap(cap) => self.cap = cap,
            Command::Prewarm(count) => self.prewarm(count),
            Command::Drain(reply) => self.drain(reply),
            Command::Want { bytes_each, reply } => {
                let _ = reply.send(self.want(bytes_each));
            }
            Command::Stats(reply) => {
                let _ = reply.send(self.stats());
            }
        }
    }

    fn on_report(&mut self, report: Report<D::Sandbox>) {
        match report {
            Report::Restored { id, made, took } => self.on_restored(id, made, took),
            Report::NotRestored { id, cause } => self.on_not_restored(id, cause),
            Report::Renewed { id, result } => self.on_renewed(id, result),
            Report::Died(id) => self.fail(id, ReapReason::Died),
            Report::Reaped(id) => self.on_reaped(id),
        }
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Lease(id) => {
                self.record.counted.reaped_lease += 1;
                self.reap(id, Event::Expire, ReapReason::LeaseExpired);
            }
            Timer::Age(id) => self.members.mark_aged(id),
            Timer::Idle => self.idle_timer = None,
            Timer::Retry => {} // settling looks at the breaker
            Timer::Review => self.aim.review_timer = None,
        }
    }

    /// Takes a step that may end in a destruction.
    pub(super) fn reap(&mut self, id: MemberId, event: Event, why: ReapReason) {
        if self.step(id, event) == Action::Kill {
            self.destroy(id, why);
        }
    }

    pub(super) fn fail(&mut self, id: MemberId, why: ReapReason) {
        self.step(id, Event::Fail);
        self.reap(id, Event::Drain, why);
    }

    /// Tells the sandbox's own task to destroy it.
    pub(super) fn destroy(&mut self, id: MemberId, why: ReapReason) {
        let Some(member) = self.members.get_mut(id) else { return };
        let timers = [member.lease_timer.take(), member.age_timer.take()];
        member.sandbox = None;
        if let Some(end) = member.end.take() {
            // The task ends only after this, or with the runtime.
            let _ = end.send(why);
        }
        for timer in timers.into_iter().flatten() {
            self.wheel.cancel(timer);
        }
    }

    pub(super) fn step(&mut self, id: MemberId, event: Event) -> Action {
        self.members.step(id, event, self.now, self.policy.limits())
    }

    pub(super) fn have(&self) -> Have {
        let (counts, waiting) = (self.members.counts(), self.waiters.len());
        Have {
            warm: counts.warm,
            aged: u32::try_from(self.members.aged().0).unwrap_or(u32::MAX),
            restoring: counts.restoring,
            leased: counts.leased,
            // The few that serve their last request are replaced when it ends.
            returning: match self.policy.tuning.reuse {
                Reuse::Never => 0,
                Reuse::Sequential => counts.leased,
            },
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
        }
    }

    /// A time as the wheel counts it, rounded down.
    pub(super) fn ms(&self, at: Instant) -> u64 {
        u64::try_from(self.since_start(at).as_millis()).unwrap_or(u64::MAX)
    }

    /// The first moment of the wheel that is not before `at`: no timer fires too early.
    pub(super) fn ms_after(&self, at: Instant) -> u64 {
        let micros = self.since_start(at).as_nanos().div_ceil(1_000_000);
        u64::try_from(micros).unwrap_or(u64::MAX)
    }

    pub(super) fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.start)
    }

    fn wake_at(&self) -> Instant {
        let next = self.wheel.next().map(|ms| self.start + Duration::from_millis(ms));
        next.unwrap_or(self.now + FAR).min(self.now + FAR)
    }

    /// Records the intervals that ended before this turn.
    fn sample(&mut self) {
        let now_ms = self.ms(self.now);
        if self.record.series.is_due(now_ms) {
            let counts = self.members.counts();
            let counted = &self.record.counted;
            let sample = Sample {
                at_ms: 0, // each sample's own
                warm: counts.warm,
                restoring: counts.restoring,
                leased: counts.leased,
                target: self.aim.target,
                hits: counted.hits,
                misses: counted.misses,
                refused: counted.refused,
            };
            self.record.series.roll(now_ms, unix_ms(), sample);
        }
    }

    fn stats(&self) -> Stats {
        let counts = self.members.counts();
        let refusal = self.breaker.refusal(self.now);
        let retry_in = refusal.map_or(Duration::ZERO, |refusal| refusal.retry_in);
        Stats {
            warm: counts.warm,
            restoring: counts.restoring,
            leased: counts.leased,
            reaping: counts.reaping,
            target: self.aim.target,
            cap: self.cap,
            breaker: self.breaker.state(),
            retry_in_ms: u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX),
            ..self.record.stats()
        }
    }
}

/// Milliseconds since 1970 on this host's clock.
pub(super) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
