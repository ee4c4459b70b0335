//! How the pool's task lends: who waits, who is served or refused, and what follows a lease's end.

use pool_model::Reuse;
use tokio::sync::oneshot;

use super::{
    LeaseReply, WAITERS_MAX, life,
    task::{Draining, Task, Timer, Waiter},
};
use crate::{
    Cause, Driver, Lease, LeaseError, ReapReason,
    breaker::Refusal,
    lease::Ended,
    member::MemberId,
    slot::{Action, Event, State},
};

impl<D: Driver> Task<D> {
    pub(super) fn on_lease(&mut self, waiter: Waiter<D::Sandbox>) {
        if self.closing {
            self.refuse(waiter.reply, LeaseError::Closed);
            return;
        }
        self.saw_arrival(waiter.asked_at);
        if waiter.reply.is_closed() {
            self.record.counted.refused += 1; // hung up before its turn came
        } else if self.waiters.len() < WAITERS_MAX {
            self.waiters.push_back(waiter);
        } else {
            self.refuse(waiter.reply, LeaseError::Full { waiting: self.waiters.len() });
        }
        // Served right here, so that a batch of callers is not refused while there are warm ones.
        self.serve_waiters();
    }

    /// Warm sandboxes go to whoever has waited longest.
    pub(super) fn serve_waiters(&mut self) {
        while !self.waiters.is_empty() {
            let Some((id, since)) = self.members.oldest_warm() else { return };
            let Some(waiter) = self.waiters.pop_front() else { return };
            if waiter.reply.is_closed() {
                self.record.counted.refused += 1; // hung up, and the message is under way
                continue;
            }
            let hit = since <= waiter.asked_at;
            self.hand_out(id, waiter, hit);
        }
    }

    fn hand_out(&mut self, id: MemberId, waiter: Waiter<D::Sandbox>, hit: bool) {
        if self.step(id, Event::Lease) != Action::HandOut {
            // A bug of ours, logged by the step. Lending goes on without this one.
            self.reap(id, Event::Drain, ReapReason::Drained);
            self.waiters.push_front(waiter);
            return;
        }
        let max_requests = self.policy.limits().max_requests;
        let Some(member) = self.members.get_mut(id) else { return };
        let State::Leased { deadline, served, .. } = member.state else { return };
        let Some(sandbox) = member.sandbox.clone() else { return };
        let waited = self.now.max(waiter.asked_at).duration_since(waiter.asked_at);
        let lease = Lease {
            sandbox,
            waited,
            restore: member.restore,
            hit,
            served,
            reuse: self.policy.tuning.reuse,
            max_requests,
            member: id,
            ended_tx: self.ended_tx.clone(),
            clean: false,
        };
        let at = self.ms_after(deadline);
        let timer = self.wheel.insert(Timer::Lease(id), at);
        if let Some(member) = self.members.get_mut(id) {
            member.lease_timer = Some(timer);
        }
        // A caller who hung up this very moment drops the lease, which ends it: the sandbox may
        // have been seen by nobody, but nobody said either that it was left clean.
        if waiter.reply.send(Ok(lease)).is_ok() {
            self.record.lent(waited, hit, served > 1);
        } else {
            self.record.counted.refused += 1;
        }
    }

    /// While restores keep failing nobody waits for one.
    pub(super) fn refuse_if_broken(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let Some(refusal) = self.breaker.refusal(self.now) else { return };
        let Refusal { failures, retry_in, cause } = refusal;
        for waiter in std::mem::take(&mut self.waiters) {
            let cause = Cause::clone(&cause);
            self.refuse(waiter.reply, LeaseError::Broken { failures, retry_in, cause });
        }
    }

    pub(super) fn refuse(&mut self, reply: LeaseReply<D::Sandbox>, why: LeaseError) {
        self.record.counted.refused += 1;
        // The caller may have hung up: then nobody needs the answer.
        let _ = reply.send(Err(why));
    }

    pub(super) fn on_ended(&mut self, ended: Ended) {
        match ended {
            Ended::Dropped(id) => self.reap(id, Event::Release, ReapReason::Released),
            Ended::Finished(id) if self.is_reusable(id) => self.renew(id),
            Ended::Finished(id) => self.reap(id, Event::Release, ReapReason::Released),
            Ended::HungUp(token) => {
                if let Some(at) = self.waiters.iter().position(|waiter| waiter.token == token) {
                    self.waiters.remove(at);
                    self.record.counted.refused += 1;
                }
            }
        }
    }

    /// Whether a leased sandbox may and should serve another request.
    fn is_reusable(&self, id: MemberId) -> bool {
        let Some(State::Leased { born, served, .. }) = self.members.get(id).map(|m| m.state) else {
            return false;
        };
        let too_old = self.policy.max_age().is_some_and(|max| self.now >= born + max);
        let have = self.have();
        // It stops being leased with its return: the cap counts it either way.
        let others = crate::policy::Have { leased: have.leased.saturating_sub(1), ..have };
        let has_room = have.warm + have.restoring < self.policy.ceiling(self.cap, others);
        !self.closing
            && self.policy.tuning.reuse == Reuse::Sequential
            && served < self.policy.limits().max_requests
            && !too_old
            && (has_room || have.waiting > 0)
    }

    /// Has a used sandbox checked. It counts as leased until then, and its limit still runs.
    fn renew(&mut self, id: MemberId) {
        let Some(sandbox) = self.members.get(id).and_then(|member| member.sandbox.clone()) else {
            return;
        };
        let (driver, reports_tx) = (self.driver.clone(), self.reports_tx.clone());
        self.tasks.spawn(life::renew(driver, id, sandbox, reports_tx));
    }

    pub(super) fn on_renewed(&mut self, id: MemberId, result: Result<(), Cause>) {
        if let Err(cause) = result {
            tracing::info!(pool.member = id.0, "sandbox not used again: {cause}");
            self.reap(id, Event::Release, ReapReason::Unfit);
        } else if self.closing {
            self.reap(id, Event::Release, ReapReason::Released);
        } else {
            match self.step(id, Event::Return) {
                Action::Offer => self.end_lease_timer(id),
                // The policy allows it no further request any more.
                Action::Kill => self.destroy(id, ReapReason::Released),
                _ => {}
            }
        }
    }

    fn end_lease_timer(&mut self, id: MemberId) {
        let timer = self.members.get_mut(id).and_then(|member| member.lease_timer.take());
        if let Some(timer) = timer {
            self.wheel.cancel(timer);
        }
    }

    /// Destroys what is warm; the answer comes when it is gone.
    pub(super) fn drain(&mut self, reply: oneshot::Sender<u32>) {
        let warm = self.members.ids(|state| matches!(state, State::Warm { .. }));
        for id in &warm {
            self.reap(*id, Event::Drain, ReapReason::Drained);
        }
        let count = u32::try_from(warm.len()).unwrap_or(u32::MAX);
        self.drains.push(Draining { left: warm.into_iter().collect(), count, reply });
        self.answer_drains();
    }

    /// A sandbox is gone.
    pub(super) fn on_reaped(&mut self, id: MemberId) {
        self.step(id, Event::Reaped);
        if !self.drains.is_empty() {
            for drain in &mut self.drains {
                drain.left.remove(&id);
            }
            self.answer_drains();
        }
    }

    fn answer_drains(&mut self) {
        for drain in self.drains.extract_if(.., |drain| drain.left.is_empty()) {
            let _ = drain.reply.send(drain.count);
        }
    }

    /// Lends and restores no more; leases end by themselves or at their limit.
    pub(super) fn close(&mut self) {
        self.closing = true;
        for waiter in std::mem::take(&mut self.waiters) {
            self.refuse(waiter.reply, LeaseError::Closed);
        }
        for id in self.members.ids(|state| !matches!(state, State::Leased { .. })) {
            self.reap(id, Event::Drain, ReapReason::Drained);
        }
    }
}
