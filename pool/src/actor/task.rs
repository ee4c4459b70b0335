//! The task behind a [`super::Pool`]: the only owner of its slots.
//!
//! Every arm of its loop is cancel-safe: what is decided is done after the `select!`. Restores
//! and destructions run as tasks of their own and report back over a channel.

use std::{collections::VecDeque, sync::Arc};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Duration, Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Command, QUEUE_LEN, WAITERS_MAX};
use crate::{
    Cause, Driver, Lease, LeaseError, Policy, ReapReason, Stats,
    member::{MemberId, Members},
    slot::{Action, Event},
    stats::Recent,
};

/// Failures in a row after which callers are refused at once instead of waiting.
const FAILURES_MAX: u32 = 3;
/// First pause after a failed restore; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause between restores that fail.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long the loop sleeps when no timer is due.
const IDLE_TICK: Duration = Duration::from_secs(60);

struct Waiter<S> {
    asked_at: Instant,
    reply: oneshot::Sender<Result<Lease<S>, LeaseError>>,
}

enum Report<S> {
    Restored(MemberId, Result<S, Cause>, Duration),
    Died(MemberId),
    Reaped(MemberId),
}

pub(super) struct Task<D: Driver> {
    driver: Arc<D>,
    policy: Policy,
    members: Members<D::Sandbox>,
    waiters: VecDeque<Waiter<D::Sandbox>>,
    commands_rx: mpsc::Receiver<Command<D::Sandbox>>,
    reports_tx: mpsc::Sender<Report<D::Sandbox>>,
    reports_rx: mpsc::Receiver<Report<D::Sandbox>>,
    ended_tx: mpsc::Sender<MemberId>,
    ended_rx: mpsc::Receiver<MemberId>,
    tasks: TaskTracker,
    stats: Stats,
    lease_wait: Recent,
    restore: Recent,
    failures: u32,
    retry_at: Instant,
    closing: bool,
}

impl<D: Driver> Task<D> {
    pub(super) fn new(
        driver: Arc<D>,
        policy: Policy,
        commands_rx: mpsc::Receiver<Command<D::Sandbox>>,
    ) -> Self {
        let (reports_tx, reports_rx) = mpsc::channel(QUEUE_LEN);
        let (ended_tx, ended_rx) = mpsc::channel(QUEUE_LEN);
        Self {
            driver,
            policy,
            members: Members::new(),
            waiters: VecDeque::new(),
            commands_rx,
            reports_tx,
            reports_rx,
            ended_tx,
            ended_rx,
            tasks: TaskTracker::new(),
            stats: Stats::default(),
            lease_wait: Recent::default(),
            restore: Recent::default(),
            failures: 0,
            retry_at: Instant::now(),
            closing: false,
        }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        loop {
            self.serve_waiters();
            self.refill();
            if self.closing && self.members.is_empty() {
                break;
            }
            let wake_at = self.next_timer();
            tokio::select! {
                biased; // shutdown first, then supply, then demand
                () = cancel.cancelled(), if !self.closing => self.drain(),
                Some(report) = self.reports_rx.recv() => self.on_report(report),
                Some(member) = self.ended_rx.recv() => self.reap(member, Event::Release, ReapReason::Released),
                Some(command) = self.commands_rx.recv() => self.on_command(command),
                () = sleep_until(wake_at) => self.on_timer(),
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn on_command(&mut self, command: Command<D::Sandbox>) {
        match command {
            Command::Lease { reply, .. } if self.closing => self.refuse(reply, LeaseError::Closed),
            Command::Lease { reply, .. } if self.waiters.len() >= WAITERS_MAX => {
                self.refuse(reply, LeaseError::Full { waiting: self.waiters.len() });
            }
            Command::Lease { asked_at, reply } => {
                self.waiters.push_back(Waiter { asked_at, reply });
            }
            Command::SetPolicy(policy) => self.policy = policy,
            Command::Stats(reply) => {
                // The asker may have gone; stats are nobody else's.
                let _ = reply.send(self.snapshot());
            }
        }
    }

    fn on_report(&mut self, report: Report<D::Sandbox>) {
        match report {
            Report::Restored(id, Ok(sandbox), took) => self.on_restored(id, sandbox, took),
            Report::Restored(id, Err(cause), _) => self.on_restore_failed(id, cause),
            Report::Died(id) => self.fail(id, ReapReason::Died),
            Report::Reaped(id) => {
                self.step(id, Event::Reaped);
            }
        }
    }

    fn on_restored(&mut self, id: MemberId, sandbox: D::Sandbox, took: Duration) {
        self.failures = 0;
        self.stats.restored += 1;
        self.stats.last_error.clear();
        self.restore.add(took);
        if let Some(member) = self.members.get_mut(id) {
            member.sandbox = Some(Arc::new(sandbox));
            member.restore = took;
        }
        match self.step(id, Event::Ready) {
            Action::Kill => self.destroy(id, ReapReason::Drained),
            _ => self.watch(id),
        }
    }

    fn on_restore_failed(&mut self, id: MemberId, cause: Cause) {
        self.failures += 1;
        self.stats.failed += 1;
        self.stats.last_error = cause.to_string();
        let doublings = self.failures.saturating_sub(1).min(10);
        self.retry_at = Instant::now() + (BACKOFF_MIN * 2u32.pow(doublings)).min(BACKOFF_MAX);
        self.fail(id, ReapReason::Died);
        if self.failures < FAILURES_MAX {
            return;
        }
        for waiter in std::mem::take(&mut self.waiters) {
            let broken = LeaseError::Broken { failures: self.failures, cause: Arc::clone(&cause) };
            self.refuse(waiter.reply, broken);
        }
    }

    /// Warm sandboxes go to whoever has waited longest.
    fn serve_waiters(&mut self) {
        self.waiters.retain(|waiter| !waiter.reply.is_closed());
        while !self.waiters.is_empty() {
            let Some(id) = self.members.oldest_warm() else { return };
            let Some(waiter) = self.waiters.pop_front() else { return };
            self.hand_out(id, waiter);
        }
    }

    fn hand_out(&mut self, id: MemberId, waiter: Waiter<D::Sandbox>) {
        let Some(member) = self.members.get(id) else { return };
        let (Some(sandbox), restore) = (member.sandbox.clone(), member.restore) else { return };
        let warm_before =
            matches!(member.state, crate::slot::State::Warm { since } if since <= waiter.asked_at);
        if waiter.reply.is_closed() {
            return; // it stays warm for the next one
        }
        self.step(id, Event::Lease);
        let mut lease = Lease::new(sandbox, id, self.ended_tx.clone(), restore);
        lease.waited = waiter.asked_at.elapsed();
        lease.hit = warm_before;
        let waited = lease.waited;
        // A caller who hung up this very moment drops the lease, which ends it: the sandbox may
        // have been seen by nobody, but one that was leased never becomes warm again.
        if waiter.reply.send(Ok(lease)).is_ok() {
            self.lease_wait.add(waited);
            *(if warm_before { &mut self.stats.hits } else { &mut self.stats.misses }) += 1;
        }
    }

    fn refill(&mut self) {
        if self.closing || Instant::now() < self.retry_at {
            return;
        }
        let (warm, restoring) = (self.members.warm(), self.members.restoring());
        let mut count = self.policy.to_start(warm, restoring, self.waiters.len());
        if self.failures > 0 {
            count = count.min(1usize.saturating_sub(restoring)); // one probe at a time
        }
        for _ in 0..count {
            self.start_restore();
        }
    }

    fn start_restore(&mut self) {
        let id = self.members.add();
        self.step(id, Event::Prepare);
        self.step(id, Event::Restore);
        let (driver, reports_tx) = (Arc::clone(&self.driver), self.reports_tx.clone());
        self.tasks.spawn(async move {
            let began = Instant::now();
            let restored = driver.restore().await;
            // The task outlives every report: it waits for these tasks before it ends.
            let _ = reports_tx.send(Report::Restored(id, restored, began.elapsed())).await;
        });
    }

    /// Reports the sandbox's own death for as long as it is ours.
    fn watch(&self, id: MemberId) {
        let Some(member) = self.members.get(id) else { return };
        let Some(sandbox) = member.sandbox.clone() else { return };
        let (driver, reports_tx) = (Arc::clone(&self.driver), self.reports_tx.clone());
        let stop = member.watch.clone();
        self.tasks.spawn(async move {
            if stop.run_until_cancelled(driver.died(sandbox)).await.is_some() {
                let _ = reports_tx.send(Report::Died(id)).await;
            }
        });
    }

    fn fail(&mut self, id: MemberId, why: ReapReason) {
        self.step(id, Event::Fail);
        self.reap(id, Event::Drain, why);
    }

    fn reap(&mut self, id: MemberId, event: Event, why: ReapReason) {
        if self.step(id, event) == Action::Kill {
            self.destroy(id, why);
        }
    }

    fn destroy(&mut self, id: MemberId, why: ReapReason) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.watch.cancel();
        let sandbox = member.sandbox.take();
        let (driver, reports_tx) = (Arc::clone(&self.driver), self.reports_tx.clone());
        self.tasks.spawn(async move {
            if let Some(sandbox) = sandbox {
                driver.destroy(sandbox, why).await;
            }
            let _ = reports_tx.send(Report::Reaped(id)).await;
        });
    }

    fn on_timer(&mut self) {
        let now = Instant::now();
        let spare = self.policy.spare(self.members.warm());
        let idle: Vec<_> = self.members.warm_since();
        for (since, id) in idle.into_iter().take(spare) {
            if since + self.policy.idle_ttl <= now {
                self.stats.reaped_idle += 1;
                self.reap(id, Event::Expire, ReapReason::Idle);
            }
        }
        let overdue: Vec<_> =
            self.members.lease_deadlines().filter(|(deadline, _)| *deadline <= now).collect();
        for (_, id) in overdue {
            self.stats.reaped_lease += 1;
            self.reap(id, Event::Expire, ReapReason::LeaseExpired);
        }
    }

    fn next_timer(&self) -> Instant {
        let now = Instant::now();
        let spare = self.policy.spare(self.members.warm());
        let idle = self.members.warm_since().into_iter().take(spare);
        let idle = idle.map(|(since, _)| since + self.policy.idle_ttl);
        let leases = self.members.lease_deadlines().map(|(deadline, _)| deadline);
        let retry = (self.failures > 0 && self.retry_at > now).then_some(self.retry_at);
        idle.chain(leases).chain(retry).min().unwrap_or(now + IDLE_TICK)
    }

    fn drain(&mut self) {
        self.closing = true;
        for waiter in std::mem::take(&mut self.waiters) {
            self.refuse(waiter.reply, LeaseError::Closed);
        }
        for id in self.members.ids() {
            // Leases end by themselves or at their limit.
            let leased = matches!(
                self.members.get(id).map(|member| member.state),
                Some(crate::slot::State::Leased { .. })
            );
            if !leased {
                self.reap(id, Event::Drain, ReapReason::Drained);
            }
        }
    }

    fn refuse(
        &mut self,
        reply: oneshot::Sender<Result<Lease<D::Sandbox>, LeaseError>>,
        why: LeaseError,
    ) {
        self.stats.refused += 1;
        // The caller may have hung up: then nobody needs the answer.
        let _ = reply.send(Err(why));
    }

    fn step(&mut self, id: MemberId, event: Event) -> Action {
        self.members.step(id, event, self.policy.lease_max)
    }

    fn snapshot(&self) -> Stats {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        use crate::slot::State as S;
        Stats {
            warm: count(self.members.warm()),
            restoring: count(self.members.restoring()),
            leased: count(self.members.count(|state| matches!(state, S::Leased { .. }))),
            reaping: count(self.members.count(|state| matches!(state, S::Reaping | S::Failed))),
            lease_wait: self.lease_wait.percentiles(),
            restore: self.restore.percentiles(),
            ..self.stats.clone()
        }
    }
}
