//! How the pool's task keeps its supply: what it aims for, what it restores, what it gives up.
//!
//! What is warm over the target goes after the sizing's short grace, after the idle TTL at the
//! latest: the target already says what an idle sandbox is worth, and `pool-sim` shows that
//! keeping it for the whole TTL costs three times the memory where callers come in bursts.

use std::sync::Arc;

use pool_model::Reuse;
use tokio::{
    sync::oneshot,
    time::{Duration, Instant},
};

use super::{
    life::{self, Made},
    task::{Task, Timer, unix_ms},
};
use crate::{
    Cause, Driver, Policy, ReapReason, Want,
    member::MemberId,
    schedule::scheduled_floor,
    sizing::Demand,
    slot::{Action, Event, State},
    wheel::TimerId,
};

/// Shortest time between two looks at the target: a burst of callers is looked at together.
const REVIEW_MIN: Duration = Duration::from_millis(20);
/// A scheduled time is prepared for at least this long before it begins, and at most
/// [`LEAD_MAX`].
const LEAD_MIN: Duration = Duration::from_secs(5);
/// See [`LEAD_MIN`].
const LEAD_MAX: Duration = Duration::from_secs(600);

/// What the pool aims for, and from what that follows.
#[derive(Debug, Default)]
pub(super) struct Aim {
    /// Warm sandboxes to have.
    pub(super) target: u32,
    /// Fewest of them: the owner's, scheduled or asked for.
    floor: u32,
    demand: Demand,
    /// A floor that was asked for, and until when.
    prewarm: Option<(u32, Instant)>,
    reviewed_at: Option<Instant>,
    /// Since when there have been more warm than the target.
    over_since: Option<Instant>,
    /// Something happened that may change the target.
    changed: bool,
    /// When to look again.
    pub(super) review_timer: Option<(TimerId, u64)>,
}

impl<D: Driver> Task<D> {
    pub(super) fn saw_arrival(&mut self, asked_at: Instant) {
        self.aim.demand.arrived(self.since_start(asked_at));
        self.aim.changed = true;
    }

    /// Looks at the target if something changed or its time has come, but not all the time.
    pub(super) fn review_if_due(&mut self) {
        if !self.aim.changed && self.aim.review_timer.is_some() {
            return;
        }
        let soonest = self.aim.reviewed_at.map(|at| at + REVIEW_MIN);
        match soonest {
            Some(soonest) if self.now < soonest => self.review_by(soonest),
            _ => self.review(),
        }
    }

    fn review(&mut self) {
        let (floor, floor_until) = self.floor();
        let target = self.aim.demand.target(&self.policy.sizing(floor), self.since_start(self.now));
        self.aim.floor = floor;
        self.aim.target = target.warm.clamp(floor, self.policy.tuning.max_warm.max(floor));
        self.aim.reviewed_at = Some(self.now);
        self.aim.changed = false;
        if let Some((timer, _)) = self.aim.review_timer.take() {
            self.wheel.cancel(timer);
        }
        let review_in = target.review_at.saturating_sub(self.since_start(self.now));
        // Far enough for any policy to have changed, near enough for every clock.
        let review_in = review_in.min(floor_until).clamp(REVIEW_MIN, Duration::from_secs(3600));
        self.review_by(self.now + review_in);
    }

    /// Looks again at `at`, or before if that is planned already.
    fn review_by(&mut self, at: Instant) {
        let at = self.ms_after(at);
        if self.aim.review_timer.is_some_and(|(_, planned)| planned <= at) {
            return;
        }
        if let Some((timer, _)) = self.aim.review_timer.take() {
            self.wheel.cancel(timer);
        }
        self.aim.review_timer = Some((self.wheel.insert(Timer::Review, at), at));
    }

    /// Fewest warm now, and for how long that holds.
    fn floor(&mut self) -> (u32, Duration) {
        let tuning = &self.policy.tuning;
        let unix_ms = unix_ms();
        let (mut floor, until_ms) = scheduled_floor(tuning, unix_ms, self.lead());
        let ms = until_ms.saturating_sub(unix_ms).max(0).unsigned_abs();
        let mut holds = Duration::from_millis(ms);
        match self.aim.prewarm {
            Some((count, until)) if self.now < until => {
                floor = floor.max(count.min(tuning.max_warm));
                holds = holds.min(until - self.now);
            }
            _ => self.aim.prewarm = None,
        }
        (floor, holds)
    }

    /// How long before a scheduled time its sandboxes have to be begun: twice what restoring all
    /// of them has taken so far.
    fn lead(&self) -> Duration {
        let tuning = &self.policy.tuning;
        let at_once = self.policy.sizing(0).refill_concurrency.max(1);
        let rounds = tuning.floor_max().div_ceil(at_once);
        self.record.restore_mean().saturating_mul(2 * rounds).clamp(LEAD_MIN, LEAD_MAX)
    }

    pub(super) fn prewarm(&mut self, count: u32) {
        self.aim.prewarm = Some((count, self.now + self.policy.idle_ttl()));
        self.review();
    }

    pub(super) fn set_policy(&mut self, policy: Policy) {
        let aged_changes = self.policy.max_age() != policy.max_age();
        self.policy = policy;
        // A used sandbox that may serve no more would never be lent again.
        let max_requests = self.policy.limits().max_requests;
        let spent = |state| matches!(state, State::Warm { served, .. } if served >= max_requests);
        for id in self.members.ids(spent) {
            self.reap(id, Event::Drain, ReapReason::Released);
        }
        if aged_changes {
            for id in self.members.ids(|_| true) {
                self.set_age_timer(id);
            }
        }
        self.review();
    }

    /// Sets when a restored sandbox is too old, by the policy of now.
    fn set_age_timer(&mut self, id: MemberId) {
        let Some(member) = self.members.get_mut(id) else { return };
        let (State::Warm { born, .. } | State::Leased { born, .. }) = member.state else { return };
        if let Some(timer) = member.age_timer.take() {
            self.wheel.cancel(timer);
        }
        let Some(max_age) = self.policy.max_age() else { return };
        let at = self.ms_after(born + max_age);
        let timer = self.wheel.insert(Timer::Age(id), at);
        if let Some(member) = self.members.get_mut(id) {
            member.age_timer = Some(timer);
        }
    }

    /// Begins the restores that are missing.
    pub(super) fn refill(&mut self) {
        if self.closing {
            return;
        }
        let have = self.have();
        let count = self.policy.to_start(self.aim.floor, self.aim.target, self.cap, have);
        for _ in 0..count.min(self.breaker.allows(self.now, have.restoring)) {
            self.start_restore();
        }
    }

    fn start_restore(&mut self) {
        let (end_tx, end_rx) = oneshot::channel();
        let id = self.members.add(end_tx);
        self.step(id, Event::Prepare);
        self.step(id, Event::Restore);
        let (driver, reports_tx) = (Arc::clone(&self.driver), self.reports_tx.clone());
        self.tasks.spawn(life::live(driver, id, end_rx, reports_tx));
    }

    pub(super) fn on_restored(&mut self, id: MemberId, made: Made<D::Sandbox>, took: Duration) {
        self.breaker.succeeded();
        self.aim.demand.restored(took);
        self.record.restored(took, &made.steps);
        if let Some(member) = self.members.get_mut(id) {
            (member.sandbox, member.restore) = (Some(made.sandbox), took);
        }
        match self.step(id, Event::Ready) {
            Action::Kill => self.destroy(id, ReapReason::Drained),
            _ => self.set_age_timer(id),
        }
    }

    pub(super) fn on_not_restored(&mut self, id: MemberId, cause: Cause) {
        self.record.failed(pool_model::chain(cause.as_ref()));
        self.breaker.failed(self.now, cause, rand::random());
        if let Some(at) = self.breaker.retry_at() {
            let at = self.ms_after(at);
            self.wheel.insert(Timer::Retry, at);
        }
        // There is nothing to destroy, and its task has ended.
        for event in [Event::Fail, Event::Drain] {
            self.step(id, event);
        }
        self.on_reaped(id);
    }

    /// Gives up warm sandboxes that the host's memory is not enough for, oldest first.
    pub(super) fn hold_cap(&mut self) {
        for _ in 0..Policy::over_cap(self.cap, self.have()) {
            let Some((id, _)) = self.members.oldest_warm() else { return };
            self.record.counted.evicted += 1;
            self.reap(id, Event::Evict, ReapReason::Evicted);
        }
    }

    /// Gives up sandboxes that are too old, once their successors are warm. Where there is no
    /// room for a successor they go first, one at a time.
    pub(super) fn replace_aged(&mut self) {
        while let (_, Some(id)) = self.members.aged() {
            let have = self.have();
            let succeeded = have.warm > self.aim.target;
            let has_room = have.warm + have.restoring < self.policy.ceiling(self.cap, have);
            let is_stuck = !has_room && have.restoring == 0;
            let may_restore = self.breaker.allows(self.now, have.restoring) > 0;
            if !(succeeded || (is_stuck && may_restore)) {
                return;
            }
            self.record.counted.reaped_age += 1;
            self.reap(id, Event::Expire, ReapReason::Aged);
        }
    }

    /// Gives up what is warm over the target, oldest first: once there have been too many for the
    /// sizing's grace, or one was idle for the TTL.
    pub(super) fn reap_idle(&mut self) {
        let grace = self.surplus_grace();
        loop {
            let is_over = self.members.counts().warm > self.aim.target;
            let Some((id, since)) = self.members.oldest_warm().filter(|_| is_over) else {
                self.aim.over_since = None;
                return;
            };
            let over_since = *self.aim.over_since.get_or_insert(self.now);
            let due = (over_since + grace).min(since + self.policy.idle_ttl());
            if due > self.now {
                self.wake_for_idle(due);
                return;
            }
            self.record.counted.reaped_idle += 1;
            self.reap(id, Event::Expire, ReapReason::Idle);
        }
    }

    /// How long there may be more warm than the target. The target says what a sandbox for one
    /// caller is worth; those that serve several are kept for the idle TTL.
    fn surplus_grace(&self) -> Duration {
        match self.policy.tuning.reuse {
            Reuse::Never => self.aim.demand.grace(&self.policy.sizing(self.aim.floor)),
            Reuse::Sequential => self.policy.idle_ttl(),
        }
    }

    /// Wakes at `due`, or before if that is planned already: what is warm then decides.
    fn wake_for_idle(&mut self, due: Instant) {
        let at = self.ms_after(due);
        if self.idle_timer.is_some_and(|(_, planned)| planned <= at) {
            return;
        }
        if let Some((timer, _)) = self.idle_timer.take() {
            self.wheel.cancel(timer);
        }
        self.idle_timer = Some((self.wheel.insert(Timer::Idle, at), at));
    }

    /// What the pool wants of the host's memory: those it aims for come on top of those lent out.
    pub(super) fn want(&self, bytes_each: u64) -> Want {
        let have = self.have();
        let max_warm = self.policy.tuning.max_warm;
        let warm = self.aim.target.saturating_add(have.waiting).min(max_warm);
        Want {
            min: self.aim.floor,
            target: have.leased.saturating_add(warm),
            in_use: have.warm + have.restoring + have.leased,
            bytes_each,
            limit_bytes: self.policy.tuning.memory_budget_mib.saturating_mul(1 << 20),
        }
    }
}
