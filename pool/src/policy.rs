//! How many sandboxes a pool should hold: pure arithmetic over what it sees.

use tokio::time::Duration;

/// One function's pool, as its owner set it. May change at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Sandboxes kept warm even when nobody asks.
    pub min_warm: u32,
    /// Most that may be warm or restoring at once.
    pub max_warm: u32,
    /// How long a sandbox over `min_warm` stays warm.
    pub idle_ttl: Duration,
    /// How long a lease may last before its sandbox is destroyed.
    pub lease_max: Duration,
}

/// A policy that contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// The floor is above the ceiling.
    #[error("min_warm {min_warm} is above max_warm {max_warm}")]
    MinOverMax {
        /// As given.
        min_warm: u32,
        /// As given.
        max_warm: u32,
    },
    /// No request could ever be served.
    #[error("max_warm is 0: at least 1 is needed to serve a request")]
    NoneAllowed,
    /// A time that reaps everything at once.
    #[error("{field} is 0: expected at least 1 ms")]
    ZeroTime {
        /// Which field.
        field: &'static str,
    },
}

impl Policy {
    /// Refuses contradictions.
    ///
    /// # Errors
    ///
    /// [`BadPolicy`], naming the field.
    pub fn check(self) -> Result<Self, BadPolicy> {
        if self.max_warm == 0 {
            return Err(BadPolicy::NoneAllowed);
        }
        if self.min_warm > self.max_warm {
            let Self { min_warm, max_warm, .. } = self;
            return Err(BadPolicy::MinOverMax { min_warm, max_warm });
        }
        for (field, time) in [("idle_ttl_ms", self.idle_ttl), ("lease_max_ms", self.lease_max)] {
            if time.is_zero() {
                return Err(BadPolicy::ZeroTime { field });
            }
        }
        Ok(self)
    }

    /// How many restores to start now.
    #[must_use]
    pub fn to_start(&self, warm: usize, restoring: usize, waiting: usize) -> usize {
        let wanted = waiting.max(self.min_warm as usize).min(self.max_warm as usize);
        wanted.saturating_sub(warm + restoring)
    }

    /// How many warm sandboxes may be reaped once their idle TTL has passed.
    #[must_use]
    pub fn spare(&self, warm: usize) -> usize {
        warm.saturating_sub(self.min_warm as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        min_warm: 2,
        max_warm: 4,
        idle_ttl: Duration::from_secs(60),
        lease_max: Duration::from_secs(30),
    };

    #[test]
    fn floor_is_kept_and_ceiling_holds() {
        assert_eq!(POLICY.to_start(0, 0, 0), 2);
        assert_eq!(POLICY.to_start(1, 1, 0), 0);
        assert_eq!(POLICY.to_start(0, 1, 100), 3, "a burst is bounded by max_warm");
    }

    #[test]
    fn only_what_is_over_the_floor_is_spare() {
        assert_eq!(POLICY.spare(4), 2);
        assert_eq!(POLICY.spare(1), 0);
    }

    #[test]
    fn contradictions_are_named() {
        let bad = Policy { min_warm: 5, ..POLICY };
        assert_eq!(bad.check(), Err(BadPolicy::MinOverMax { min_warm: 5, max_warm: 4 }));
        assert_eq!(
            Policy { max_warm: 0, min_warm: 0, ..POLICY }.check(),
            Err(BadPolicy::NoneAllowed)
        );
        assert!(Policy { idle_ttl: Duration::ZERO, ..POLICY }.check().is_err());
    }
}
