//! Whether a restore may be tried now: a circuit breaker as data, without clock and randomness.
//!
//! ```text
//! Closed ──3 failures in a row──► Open ──its time passed──► HalfOpen ──success──► Closed
//!                                  ▲                           │
//!                                  └────────── failure ────────┘   (twice as long, at most 10 s)
//! ```

use std::fmt;

use tokio::time::{Duration, Instant};

use crate::Cause;

/// Failures in a row after which callers are refused at once instead of waiting.
pub const FAILURES_MAX: u32 = 3;
/// Pause after the first failure; doubles up to [`BACKOFF_MAX`].
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause between restores that fail.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Where the breaker is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BreakerState {
    /// Restores are made as they are needed.
    #[default]
    Closed,
    /// Nothing is restored for a while; who finds nothing warm is refused.
    Open,
    /// One restore may try whether it works again.
    HalfOpen,
}

impl BreakerState {
    /// The word used on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a caller is refused while the breaker is open.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Restores that failed in a row.
    pub failures: u32,
    /// Until the next try.
    pub retry_in: Duration,
    /// Why the last one failed.
    pub cause: Cause,
}

/// The breaker of one pool.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    state: BreakerState,
    failures: u32,
    /// Pauses so far, each twice as long as the one before.
    pauses: u32,
    last: Option<(Instant, Cause)>,
}

impl Breaker {
    /// Closed, nothing has failed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// When the next restore may be tried. `None` if nothing stands in the way of one.
    #[must_use]
    pub fn retry_at(&self) -> Option<Instant> {
        self.last.as_ref().filter(|_| self.state != BreakerState::HalfOpen).map(|(at, _)| *at)
    }

    /// A restore ended well: all is forgotten.
    pub fn succeeded(&mut self) {
        *self = Self::new();
    }

    /// A restore failed. `jitter` (0 to 1) spreads the pause over its upper half.
    ///
    /// Failures that come in while it is open were begun before: they prolong nothing.
    pub fn failed(&mut self, now: Instant, cause: Cause, jitter: f64) {
        self.failures = self.failures.saturating_add(1);
        let until = match (&self.last, self.state) {
            (Some((until, _)), BreakerState::Open) => *until,
            _ => {
                self.pauses = self.pauses.saturating_add(1);
                now + pause(self.pauses, jitter)
            }
        };
        if self.state == BreakerState::HalfOpen || self.failures >= FAILURES_MAX {
            self.state = BreakerState::Open;
        }
        self.last = Some((until, cause));
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        if self.state == BreakerState::Open && self.retry_at().is_some_and(|at| at <= now) {
            self.state = BreakerState::HalfOpen;
        }
    }

    /// How many more restores may begin while `restoring` are under way.
    #[must_use]
    pub fn allows(&self, now: Instant, restoring: u32) -> u32 {
        match self.state {
            BreakerState::Closed if self.failures == 0 => u32::MAX,
            BreakerState::Open => 0,
            _ if self.retry_at().is_some_and(|at| now < at) => 0,
            // One probe at a time, until one has ended well.
            _ => 1u32.saturating_sub(restoring),
        }
    }

    /// What a caller is told who finds nothing warm now. `None`: it may wait.
    #[must_use]
    pub fn refusal(&self, now: Instant) -> Option<Refusal> {
        let (until, cause) = self.last.as_ref().filter(|_| self.state == BreakerState::Open)?;
        let retry_in = until.saturating_duration_since(now);
        Some(Refusal { failures: self.failures, retry_in, cause: Cause::clone(cause) })
    }
}

/// The `n`th pause in a row, from 1: doubles, and lies between its half and its whole.
fn pause(n: u32, jitter: f64) -> Duration {
    let whole = BACKOFF_MIN.saturating_mul(1 << n.saturating_sub(1).min(10)).min(BACKOFF_MAX);
    whole / 2 + (whole / 2).mul_f64(jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cause() -> Cause {
        Cause::from(Box::<dyn std::error::Error + Send + Sync>::from("no disk"))
    }

    #[test]
    fn opens_after_three_lets_one_probe_through_and_closes_on_success() {
        let (mut breaker, mut now) = (Breaker::new(), Instant::now());
        assert_eq!(breaker.allows(now, 7), u32::MAX);
        for _ in 0..2 {
            breaker.failed(now, cause(), 1.0);
            assert_eq!((breaker.state(), breaker.allows(now, 0)), (BreakerState::Closed, 0));
            assert!(breaker.refusal(now).is_none(), "callers still wait");
            now = breaker.retry_at().unwrap();
            assert_eq!((breaker.allows(now, 0), breaker.allows(now, 1)), (1, 0));
        }
        breaker.failed(now, cause(), 1.0);
        let refusal = breaker.refusal(now).unwrap();
        assert_eq!((refusal.failures, refusal.retry_in), (3, Duration::from_millis(400)));
        assert_eq!(refusal.cause.to_string(), "no disk");
        now += refusal.retry_in;
        breaker.tick(now);
        assert_eq!((breaker.state(), breaker.allows(now, 0)), (BreakerState::HalfOpen, 1));
        assert!(breaker.refusal(now).is_none() && breaker.retry_at().is_none());
        breaker.failed(now, cause(), 0.0);
        assert_eq!(breaker.refusal(now).unwrap().retry_in, Duration::from_millis(400), "800 / 2");
        breaker.succeeded();
        assert_eq!((breaker.state(), breaker.allows(now, 7)), (BreakerState::Closed, u32::MAX));
    }

    #[test]
    fn restores_that_fail_together_count_as_one_incident() {
        let (mut breaker, now) = (Breaker::new(), Instant::now());
        for _ in 0..64 {
            breaker.failed(now, cause(), 1.0);
        }
        assert_eq!(breaker.refusal(now).unwrap().retry_in, Duration::from_millis(400));
        assert_eq!(breaker.refusal(now).unwrap().failures, 64);
    }

    proptest! {
        #[test]
        fn pauses_grow_and_stay_within_their_bounds(n in 1u32..10_000, jitter in -1f64..2.0) {
            let (this, next) = (pause(n, jitter), pause(n + 1, jitter));
            prop_assert!(this <= next && this >= BACKOFF_MIN / 2 && next <= BACKOFF_MAX);
        }
    }
}
