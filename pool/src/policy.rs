//! How many sandboxes a pool may start, lend and keep: pure arithmetic over what it has.

use pool_model::{BadTuning, PoolPolicy, Reuse};
use tokio::time::Duration;

use crate::{sizing::Sizing, slot::Limits};

/// One function's pool, as its owner set it. May change at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What the owner may set.
    pub tuning: PoolPolicy,
    /// How long a lease may last before its sandbox is destroyed.
    pub lease_max: Duration,
}

/// A policy that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// A value of the owner's.
    #[error(transparent)]
    Tuning(#[from] BadTuning),
    /// Every lease would end at once.
    #[error("lease_max_ms is 0: expected at least 1 ms")]
    NoLease,
}

/// What a pool has at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Have {
    /// Ready to be leased.
    pub warm: u32,
    /// Of these: warm for so long that they should be replaced.
    pub aged: u32,
    /// Being restored.
    pub restoring: u32,
    /// Lent out.
    pub leased: u32,
    /// Of these: may become warm again, since their function reuses sandboxes.
    pub returning: u32,
    /// Callers who wait.
    pub waiting: u32,
}

impl Policy {
    /// Refuses contradictions.
    ///
    /// # Errors
    ///
    /// [`BadPolicy`], naming the field.
    pub fn check(self) -> Result<Self, BadPolicy> {
        self.tuning.check()?;
        if self.lease_max.is_zero() {
            return Err(BadPolicy::NoLease);
        }
        Ok(self)
    }

    /// What a slot's steps are bounded by.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let max_requests = match self.tuning.reuse {
            Reuse::Never => 1,
            Reuse::Sequential => self.tuning.max_requests,
        };
        Limits { lease_max: self.lease_max, max_requests }
    }

    /// How long a sandbox over the target stays warm at the most.
    #[must_use]
    pub fn idle_ttl(&self) -> Duration {
        Duration::from_millis(self.tuning.idle_ttl_ms)
    }

    /// After what time a warm sandbox is replaced; `None`: never.
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        let max_age = self.tuning.max_age_ms;
        (max_age > 0).then(|| Duration::from_millis(max_age))
    }

    /// What the sizing may do, above `floor`.
    #[must_use]
    pub fn sizing(&self, floor: u32) -> Sizing {
        Sizing {
            min_warm: floor.min(self.tuning.max_warm),
            max_warm: self.tuning.max_warm,
            burst: self.tuning.burst,
            idle_ttl: self.idle_ttl(),
            refill_concurrency: match self.tuning.refill_concurrency {
                0 => self.tuning.max_warm,
                at_once => at_once,
            },
        }
    }

    /// Most that may be warm or restoring, given the host's `cap` on all there are.
    #[must_use]
    pub fn ceiling(&self, cap: u32, have: Have) -> u32 {
        self.tuning.max_warm.min(cap.saturating_sub(have.leased))
    }

    /// How many restores to start now: those who wait come on top of `target`, and who is too old
    /// gets a successor first. Sandboxes that will return stand in for new ones over the `floor`.
    #[must_use]
    pub fn to_start(&self, floor: u32, target: u32, cap: u32, have: Have) -> u32 {
        let kept = target.saturating_sub(have.returning).max(floor);
        let wanted = kept.saturating_add(have.waiting).saturating_add(have.aged);
        let missing =
            wanted.min(self.ceiling(cap, have)).saturating_sub(have.warm + have.restoring);
        match self.tuning.refill_concurrency {
            0 => missing,
            at_once => missing.min(at_once.saturating_sub(have.restoring)),
        }
    }

    /// How many warm sandboxes have to go for the host's `cap` to hold.
    #[must_use]
    pub fn over_cap(cap: u32, have: Have) -> u32 {
        (have.warm + have.restoring + have.leased).saturating_sub(cap).min(have.warm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(refill_concurrency: u32) -> Policy {
        let tuning =
            PoolPolicy { min_warm: 2, max_warm: 4, refill_concurrency, ..PoolPolicy::default() };
        Policy { tuning, lease_max: Duration::from_secs(30) }.check().unwrap()
    }

    fn have(warm: u32, restoring: u32, waiting: u32) -> Have {
        Have { warm, restoring, waiting, ..Have::default() }
    }

    #[test]
    fn target_is_kept_and_ceilings_hold() {
        let all = policy(0);
        assert_eq!(all.to_start(0, 2, 99, have(0, 0, 0)), 2);
        assert_eq!(all.to_start(0, 2, 99, have(1, 1, 0)), 0);
        assert_eq!(all.to_start(0, 2, 99, have(0, 1, 1)), 2, "who waits comes on top");
        assert_eq!(all.to_start(0, 2, 99, have(0, 1, 100)), 3, "bounded by max_warm");
        assert_eq!(all.to_start(0, 2, 3, Have { leased: 2, ..have(0, 0, 9) }), 1, "and by the cap");
        assert_eq!(all.to_start(0, 2, 1, Have { leased: 2, ..have(0, 0, 9) }), 0);
        assert_eq!(
            policy(1).to_start(0, 2, 99, have(0, 0, 9)),
            1,
            "and by the refill's concurrency"
        );
        assert_eq!(policy(1).to_start(0, 2, 99, have(0, 1, 9)), 0);
        assert_eq!(all.to_start(0, 2, 99, Have { aged: 1, ..have(2, 0, 0) }), 1, "successor first");
        let returning = Have { leased: 2, returning: 2, ..have(0, 0, 0) };
        assert_eq!((all.to_start(0, 3, 99, returning), all.to_start(2, 3, 99, returning)), (1, 2));
    }

    #[test]
    fn only_warm_ones_are_given_up_for_the_cap() {
        assert_eq!(Policy::over_cap(3, Have { leased: 2, ..have(2, 0, 0) }), 1);
        assert_eq!(Policy::over_cap(1, Have { leased: 2, ..have(1, 0, 0) }), 1);
        assert_eq!(Policy::over_cap(4, Have { leased: 2, ..have(2, 0, 0) }), 0);
    }

    #[test]
    fn contradictions_are_named() {
        let tuning = PoolPolicy { min_warm: 5, ..policy(0).tuning };
        let bad = Policy { tuning, ..policy(0) }.check().unwrap_err();
        assert!(bad.to_string().starts_with("min_warm:"), "{bad}");
        let bad = Policy { lease_max: Duration::ZERO, ..policy(0) };
        assert_eq!(bad.check(), Err(BadPolicy::NoLease));
    }

    #[test]
    fn one_request_per_sandbox_unless_opted_in() {
        assert_eq!(policy(0).limits().max_requests, 1);
        let tuning = PoolPolicy { reuse: Reuse::Sequential, max_requests: 7, ..policy(0).tuning };
        assert_eq!(Policy { tuning, ..policy(0) }.limits().max_requests, 7);
    }
}
