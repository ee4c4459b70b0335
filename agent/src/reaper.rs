//! Ends sandboxes whose time is over: one timer wheel for all of them.
//!
//! ```text
//! journal write ─(id, end)─► wheel ─due─► Agent::end ─► destroyed, or paused
//! ```
//!
//! # Invariants
//!
//! - Whoever writes a sandbox's record tells the reaper its end; the record decides, the wheel only
//!   says when to look at it.
//! - An end that passed while no agent ran is due at once.
//! - Ends are wall-clock times and the wheel's are not: when the clock is set, all ends are
//!   computed anew, at most half a second later.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use pool::wheel::{TimerId, Wheel};
use pool_model::SandboxId;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::agent::Agent;

/// How often the wall clock is looked at, and idle slots are taken apart.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How much the wall clock may drift from the steady one before it counts as set.
const DRIFT_MAX_MS: i64 = 100;

/// An end that was set or taken away.
type Change = (SandboxId, Option<Timestamp>);

/// Tells the reaper of ends. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reaper {
    changes_tx: mpsc::UnboundedSender<Change>,
}

/// What [`Ends::run`] reads.
#[derive(Debug)]
pub struct Ends {
    changes_rx: mpsc::UnboundedReceiver<Change>,
    wheel: Wheel<SandboxId>,
    timers: HashMap<SandboxId, (TimerId, Timestamp)>,
    began: Instant,
    /// Wall clock minus steady clock, milliseconds.
    offset_ms: i64,
}

impl Reaper {
    /// A reaper and what it will read.
    #[must_use]
    pub fn new() -> (Self, Ends) {
        #[expect(
            clippy::disallowed_methods,
            reason = "at most one message per journal write, and those wait for the disk"
        )]
        let (changes_tx, changes_rx) = mpsc::unbounded_channel();
        let began = Instant::now();
        let ends = Ends {
            changes_rx,
            wheel: Wheel::new(),
            timers: HashMap::new(),
            began,
            offset_ms: wall_ms(),
        };
        (Self { changes_tx }, ends)
    }

    /// Sets a sandbox's end, or takes it away.
    pub fn set(&self, sandbox: SandboxId, end: Option<Timestamp>) {
        // The reaper is gone only when the agent stops: then the next one looks at the journal.
        let _ = self.changes_tx.send((sandbox, end));
    }
}

impl Ends {
    /// Ends what is due, until the agent stops.
    pub async fn run(mut self, agent: Agent) {
        let cancel = agent.host.cancel.clone();
        let mut look_at = Instant::now() + LOOK_EVERY;
        loop {
            let due_at = self.next_due().map_or(look_at, |due| due.min(look_at));
            tokio::select! {
                () = cancel.cancelled() => return,
                change = self.changes_rx.recv() => match change {
                    Some((sandbox, end)) => self.change(sandbox, end),
                    None => return,
                },
                () = sleep_until(due_at) => {}
            }
            for sandbox in self.due() {
                let ending = agent.clone();
                agent.host.tasks.spawn(async move { ending.end(sandbox).await });
            }
            if Instant::now() >= look_at {
                self.follow_the_wall_clock();
                agent.host.slots.reap_idle().await;
                look_at = Instant::now() + LOOK_EVERY;
            }
        }
    }

    fn change(&mut self, sandbox: SandboxId, end: Option<Timestamp>) {
        match (self.timers.get(&sandbox), end) {
            (Some((_, known)), Some(end)) if *known == end => return,
            (None, None) => return,
            _ => {}
        }
        if let Some((timer, _)) = self.timers.remove(&sandbox) {
            self.wheel.cancel(timer);
        }
        if let Some(end) = end {
            let timer = self.wheel.insert(sandbox, self.steady_ms(end));
            self.timers.insert(sandbox, (timer, end));
        }
    }

    fn due(&mut self) -> Vec<SandboxId> {
        let now = self.now_ms();
        let due: Vec<SandboxId> =
            self.wheel.advance(now).into_iter().map(|(sandbox, _)| sandbox).collect();
        for sandbox in &due {
            self.timers.remove(sandbox);
        }
        due
    }

    fn next_due(&self) -> Option<Instant> {
        self.wheel.next().map(|at| self.began + Duration::from_millis(at))
    }

    fn follow_the_wall_clock(&mut self) {
        let offset_ms = wall_ms() - i64::try_from(self.now_ms()).unwrap_or(i64::MAX);
        if (offset_ms - self.offset_ms).abs() <= DRIFT_MAX_MS {
            return;
        }
        tracing::warn!("the clock was set by {} ms", offset_ms - self.offset_ms);
        self.offset_ms = offset_ms;
        for (sandbox, (timer, end)) in std::mem::take(&mut self.timers) {
            self.wheel.cancel(timer);
            self.change(sandbox, Some(end));
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Rounded up: an end is never looked at too early.
    fn steady_ms(&self, end: Timestamp) -> u64 {
        let ms = end.as_millisecond().saturating_add(1).saturating_sub(self.offset_ms);
        u64::try_from(ms).unwrap_or(0)
    }
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ends_are_due_in_their_time_and_past_ones_at_once() {
        let (_reaper, mut ends) = Reaper::new();
        let id = SandboxId::from_u128;
        let now = Timestamp::now();
        ends.change(id(1), Some(now - Duration::from_secs(3600)));
        ends.change(id(2), Some(now + Duration::from_millis(300)));
        ends.change(id(3), Some(now + Duration::from_millis(200)));
        ends.change(id(3), None);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(ends.due(), [id(1)]);
        assert_eq!(ends.due(), []);
        let mut due = Vec::new();
        while due.is_empty() {
            tokio::time::sleep_until(ends.next_due().unwrap()).await;
            due = ends.due(); // the wheel may wake us early, never too early to end a sandbox
        }
        assert!(Timestamp::now() >= now + Duration::from_millis(300));
        assert_eq!(due, [id(2)]);
        assert!(ends.timers.is_empty());
    }

    #[tokio::test]
    async fn clock_that_was_set_moves_every_end() {
        let (_reaper, mut ends) = Reaper::new();
        let id = SandboxId::from_u128(1);
        ends.change(id, Some(Timestamp::now() + Duration::from_secs(3600)));
        ends.offset_ms -= 7_200_000; // as if the clock had been two hours behind
        for (sandbox, (timer, end)) in std::mem::take(&mut ends.timers) {
            ends.wheel.cancel(timer);
            ends.change(sandbox, Some(end));
        }
        let far = ends.next_due().unwrap();
        ends.follow_the_wall_clock();
        assert!(ends.next_due().unwrap() < far);
    }
}
