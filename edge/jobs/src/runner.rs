//! Who works the queue off: takes what is due, holds its lease, notes how it ended.

use std::{sync::Arc, time::Duration};

use edge_store::{End, InvocationBody, InvocationRecord, Store, StoreError};
use jiff::Timestamp;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Jobs,
    attempt::{Invoke, InvokeError, Outcome, invocation, judge},
    submit::Wake,
};

/// Longest time between two looks at the store: another edge may have put something there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause after the store failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How often a result is written before its lease is left to run out.
const WRITES_MAX: u32 = 3;

/// How a runner works.
#[derive(Debug, Clone, Copy)]
pub struct RunnerConfig {
    /// Invocations at a time, at least 1.
    pub concurrency_max: usize,
    /// How long a claim holds; it is renewed three times in this.
    pub lease: Duration,
    /// How long what runs may go on once the runner is to stop.
    pub grace: Duration,
}

impl Default for RunnerConfig {
    fn default() -> Self {
        Self { concurrency_max: 32, lease: Duration::from_secs(30), grace: Duration::from_secs(6) }
    }
}

/// Works the queue off.
#[derive(Debug)]
pub struct Runner<I> {
    store: Store,
    wake: Arc<Wake>,
    invoke: Arc<I>,
    config: RunnerConfig,
}

impl<I: Invoke> Runner<I> {
    /// A runner of this queue that invokes by `invoke`.
    #[must_use]
    pub fn new(jobs: &Jobs, invoke: Arc<I>, config: RunnerConfig) -> Self {
        let Jobs { store, wake } = jobs.clone();
        Self { store, wake, invoke, config }
    }

    /// Runs until `stop`; what is under way then has its grace, after which it is given back to the
    /// queue.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends what is under way; it is attempted again when its lease is over.
    pub async fn run(self, stop: CancellationToken) {
        let mut running = JoinSet::new();
        let give_back = CancellationToken::new();
        while !stop.is_cancelled() {
            while running.try_join_next().is_some() {}
            let free = self.config.concurrency_max.max(1).saturating_sub(running.len());
            let taken = if free == 0 { 0 } else { self.take(free, &mut running, &give_back).await };
            if taken > 0 && taken == free {
                continue; // there may be more, once something has ended
            }
            let pause = self.pause(running.len()).await;
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.wake.runner.notified() => {}
                Some(_) = running.join_next() => {}
                () = sleep(pause) => {}
            }
        }
        let until = Instant::now() + self.config.grace;
        let done = timeout_at(until, async { while running.join_next().await.is_some() {} }).await;
        if done.is_err() {
            tracing::info!(count = running.len(), "asynchronous invocations go back to the queue");
            give_back.cancel();
            while running.join_next().await.is_some() {}
        }
    }

    /// Claims what is due and starts it; says how many.
    async fn take(
        &self,
        free: usize,
        running: &mut JoinSet<()>,
        give_back: &CancellationToken,
    ) -> usize {
        let limit = u32::try_from(free).unwrap_or(u32::MAX);
        let now = Timestamp::now();
        let claimed = match self.store.claim_invocations(now, self.config.lease, limit).await {
            Ok(claimed) => claimed,
            Err(error) => {
                complain(&error, "the queue cannot be read");
                return 0;
            }
        };
        let taken = claimed.len();
        for (record, body) in claimed {
            let run = Run {
                store: self.store.clone(),
                wake: Arc::clone(&self.wake),
                invoke: Arc::clone(&self.invoke),
                lease: self.config.lease,
                record,
            };
            running.spawn(run.run(body, give_back.clone()));
        }
        taken
    }

    /// How long there is nothing to do, as far as can be seen.
    async fn pause(&self, running: usize) -> Duration {
        if running >= self.config.concurrency_max.max(1) {
            return LOOK_EVERY; // until one ends: what is due has no place anyway
        }
        match self.store.next_invocation_due().await {
            Ok(None) => LOOK_EVERY,
            Ok(Some(due)) => {
                let wait = due.duration_since(Timestamp::now());
                Duration::try_from(wait).unwrap_or(Duration::ZERO).min(LOOK_EVERY)
            }
            Err(error) => {
                complain(&error, "the queue cannot be read");
                STORE_PAUSE
            }
        }
    }
}

/// One attempt.
struct Run<I> {
    store: Store,
    wake: Arc<Wake>,
    invoke: Arc<I>,
    lease: Duration,
    record: InvocationRecord,
}

/// How the wait for an answer ended.
enum Waited {
    Done(Result<Outcome, InvokeError>),
    GiveBack,
    Lost,
}

impl<I: Invoke> Run<I> {
    async fn run(self, body: InvocationBody, give_back: CancellationToken) {
        let waited = match invocation(&self.record, body) {
            Err(unmakable) => Waited::Done(Err(unmakable)),
            Ok(invocation) => tokio::select! {
                result = self.guarded(invocation) => Waited::Done(result),
                () = give_back.cancelled() => Waited::GiveBack,
                () = self.hold() => Waited::Lost,
            },
        };
        match waited {
            Waited::Done(result) => {
                let verdict = judge(&self.record, result, Timestamp::now());
                let (answer, error) = (verdict.answer.as_ref(), verdict.error.as_deref());
                self.write(verdict.end, answer, error).await;
            }
            Waited::GiveBack => self.write(End::GivenBack, None, None).await,
            Waited::Lost => {
                tracing::warn!(invocation = %self.record.id, "an invocation's lease was lost");
            }
        }
    }

    /// Invokes in a task of its own, so that a panic is an attempt that failed.
    async fn guarded(&self, invocation: crate::Invocation) -> Result<Outcome, InvokeError> {
        let invoke = Arc::clone(&self.invoke);
        let mut task = JoinSet::new(); // aborts what it holds when it is dropped
        task.spawn(async move { invoke.invoke(invocation).await });
        match task.join_next().await {
            Some(Ok(result)) => result,
            _ => Err(InvokeError {
                reason: "an internal error; the log has it".to_owned(),
                retryable: true,
                retry_after: None,
            }),
        }
    }

    /// Renews the lease until it is lost.
    async fn hold(&self) {
        let every = (self.lease / 3).max(Duration::from_millis(1));
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held_until = Instant::now() + self.lease;
        loop {
            ticks.tick().await;
            let (now, from) = (Timestamp::now(), Instant::now());
            let until = now.checked_add(self.lease).unwrap_or(now);
            match self.store.renew_claim(&self.record, until).await {
                Ok(true) => held_until = from + self.lease,
                Ok(false) => return,
                Err(error) => {
                    complain(&error, "a lease cannot be renewed");
                    if Instant::now() >= held_until {
                        return;
                    }
                }
            }
        }
    }

    async fn write(&self, end: End, answer: Option<&edge_store::Answer>, error: Option<&str>) {
        for _ in 0..WRITES_MAX {
            let now = Timestamp::now();
            match self.store.end_attempt(&self.record, end, answer, error, now).await {
                Ok(true) => {
                    self.wake.poster.notify_one();
                    return;
                }
                Ok(false) => {
                    let id = self.record.id;
                    tracing::warn!(invocation = %id, "a result came after its lease was lost");
                    return;
                }
                Err(error) => complain(&error, "a result cannot be written"),
            }
            sleep(STORE_PAUSE).await;
        }
    }
}

pub(crate) fn complain(error: &StoreError, what: &'static str) {
    tracing::error!(error = error as &dyn std::error::Error, "{what}");
}
