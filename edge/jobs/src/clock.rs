//! Which minutes of which schedules are due, and who makes invocations of them?

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use edge_store::{CronFire, CronOwner, InvocationSource, StoreError};
use jiff::Timestamp;
use pool_model::{Cron, FunctionId};
use tokio_util::sync::CancellationToken;

use crate::{Jobs, Target, Timetable, runner::complain, submit::new_invocation};

/// How far back a missed minute may lie to be made up for.
pub const MAKE_UP: Duration = Duration::from_secs(600);
/// The field that says what made a request: `cron/<name>`.
pub const TRIGGER_HEADER: &str = "wrenn-trigger";

/// Minutes are whole: the clock looks when one begins.
const MINUTE_MS: i64 = 60_000;

/// Makes invocations of the schedules' minutes.
#[derive(Debug, Clone)]
pub struct Clock {
    jobs: Jobs,
    /// When it last looked, in milliseconds; 0 if never.
    looked_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The clock of this queue.
    #[must_use]
    pub fn new(jobs: Jobs) -> Self {
        Self { jobs, looked_ms: Arc::default() }
    }

    /// Runs until `stop`.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any time: what it did is in the store.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.tick(Timestamp::now()).await {
                complain(&error, "the schedules cannot be looked at");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(until_next_minute(Timestamp::now())) => {}
            }
        }
    }

    /// Fires what is due at `now`; says how many invocations it made.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; what is due then is due again at the next tick.
    pub async fn tick(&self, now: Timestamp) -> Result<usize, StoreError> {
        let store = &self.jobs.store;
        let owners = store.cron_owners().await?;
        let mut known: HashMap<(FunctionId, String), CronFire> = store
            .cron_fires(None)
            .await?
            .into_iter()
            .map(|fire| ((fire.function, fire.name.clone()), fire))
            .collect();
        let mut made = 0;
        for owner in &owners {
            for cron in &owner.policy.cron {
                let fire = known.remove(&(owner.function, cron.name.clone()));
                made += usize::from(self.look_at(owner, cron, fire, now).await?);
            }
        }
        for (function, name) in known.into_keys() {
            store.forget_schedule(function, &name).await?; // its function has it no more
        }
        self.looked_ms.store(now.as_millisecond(), Ordering::Relaxed);
        if made > 0 {
            self.jobs.wake.runner.notify_one();
        }
        Ok(made)
    }

    async fn look_at(
        &self,
        owner: &CronOwner,
        cron: &Cron,
        fire: Option<CronFire>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let text = schedule_text(cron);
        let Some(fire) = fire.filter(|fire| fire.schedule == text) else {
            // Nothing before the clock last looked was missed: it was not there then.
            let since = self.looked(now);
            self.jobs.store.saw_schedule(owner.function, &cron.name, &text, since).await?;
            let fire = CronFire {
                function: owner.function,
                name: cron.name.clone(),
                schedule: text,
                since,
                last_fired: None,
            };
            return self.fire_if_due(owner, cron, &fire, now).await;
        };
        self.fire_if_due(owner, cron, &fire, now).await
    }

    /// When the clock last looked; `now` if it never did, or if its time went back.
    fn looked(&self, now: Timestamp) -> Timestamp {
        let looked = Timestamp::from_millisecond(self.looked_ms.load(Ordering::Relaxed));
        looked.ok().filter(|at| at.as_millisecond() > 0 && *at < now).unwrap_or(now)
    }

    async fn fire_if_due(
        &self,
        owner: &CronOwner,
        cron: &Cron,
        fire: &CronFire,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Some(minute) = due(cron, fire, now) else { return Ok(false) };
        let target = Target {
            function: owner.function,
            team: owner.team,
            name: owner.name.clone(),
            tag: None,
            policy: owner.policy.asynchronous.clone(),
        };
        let new = new_invocation(&target, InvocationSource::Cron, request(cron), now);
        let pending_max = target.policy.pending_max;
        let done = self.jobs.store.fire(fire, minute, &new, pending_max).await?;
        if done == Some(false) {
            tracing::warn!(
                function.name = owner.name, cron.name = cron.name, %minute,
                "a schedule's minute was lost: as many invocations wait as may"
            );
        }
        Ok(done == Some(true))
    }
}

/// What tells one schedule from another of the same name.
pub(crate) fn schedule_text(cron: &Cron) -> String {
    format!("{} {}", cron.schedule, cron.timezone.as_deref().unwrap_or("UTC"))
}

/// The minute that an entry is to fire for: the last that it has not fired for, if that is not too
/// long ago.
fn due(cron: &Cron, fire: &CronFire, now: Timestamp) -> Option<Timestamp> {
    let table = Timetable::new(&cron.schedule, cron.timezone.as_deref());
    let table = table.inspect_err(|bad| {
        tracing::warn!(function = %fire.function, cron.name = cron.name, "no schedule: {bad}");
    });
    // `last_between` has minutes after its beginning only: one that is just not too old is in.
    let oldest = now.checked_sub(MAKE_UP).unwrap_or(now);
    let from = fire.last_fired.unwrap_or(fire.since).max(oldest);
    table.ok()?.last_between(from, now)
}

fn request(cron: &Cron) -> crate::submit::Request<'_> {
    let named = cron.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
    let mut headers: Vec<_> = named
        .filter(|(name, _)| name != TRIGGER_HEADER)
        .map(|(name, value)| (name, value.clone().into_bytes()))
        .collect();
    headers.push((TRIGGER_HEADER.to_owned(), format!("cron/{}", cron.name).into_bytes()));
    let body = cron.body.clone().unwrap_or_default().into_bytes();
    (&cron.method, &cron.path, headers, body)
}

fn until_next_minute(now: Timestamp) -> Duration {
    let into = now.as_millisecond().rem_euclid(MINUTE_MS);
    // A little late rather than early: then the minute has begun.
    Duration::from_millis((MINUTE_MS - into + 5).unsigned_abs())
}
